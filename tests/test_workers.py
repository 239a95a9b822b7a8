"""Worker processes: they do what they are given, and never stay behind.

The work is functions of the standard library, which workers can import.
"""

import contextlib
import multiprocessing
import operator
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from vqcodec.errors import VqcodecError
from vqcodec.workers import at_work


@pytest.fixture(autouse=True)
def no_workers_left() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("processes", [1, 3])
def test_futures_are_in_the_order_of_the_tasks(processes: int) -> None:
    with at_work(operator.neg, range(7), processes) as futures:
        assert [future.result() for future in futures] == [0, -1, -2, -3, -4, -5, -6]


def test_each_worker_is_prepared_and_is_another_process(tmp_path: Path) -> None:
    here = os.getcwd()
    with at_work(os.path.abspath, ["x"], 1, partial(os.chdir, tmp_path)) as futures:
        assert futures[0].result() == str(tmp_path / "x")
    assert os.getcwd() == here


def test_what_a_task_raises_is_its_future_s() -> None:
    with at_work(int, ["1", "no", "3"], 2) as futures:
        assert futures[0].result() == 1
        with pytest.raises(ValueError, match="no"):
            futures[1].result()
        assert futures[2].result() == 3


def test_a_worker_that_dies_is_told_of() -> None:
    with pytest.raises(VqcodecError, match=r"^a worker process ended early"), at_work(os._exit, [1] * 3, 2) as futures:
        futures[0].result()


def test_an_interrupt_ends_the_workers_at_once() -> None:
    start = time.monotonic()
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), at_work(time.sleep, [60] * 3, 2) as futures:
        futures[0].result()
    assert time.monotonic() - start < 30


def test_the_end_of_the_block_ends_the_workers() -> None:
    start = time.monotonic()
    with contextlib.suppress(ZeroDivisionError), at_work(time.sleep, [0, 60, 60, 60], 2) as futures:
        futures[0].result()
        raise ZeroDivisionError
    assert time.monotonic() - start < 30


def test_a_worker_told_to_leave_tidies_up(tmp_path: Path) -> None:
    """By the ``finally`` of what it is at: the temporary folder is gone."""
    code = (
        "import tempfile, time\n"
        f"with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):\n"
        f"    open({str(tmp_path / 'ready')!r}, 'x')\n"
        "    time.sleep(60)"
    )
    with contextlib.suppress(ZeroDivisionError), at_work(exec, [code], 1):
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_another_thread_may_give_the_work() -> None:
    found: list[int] = []

    def give() -> None:
        with at_work(operator.neg, [1], 1) as futures:
            found.append(futures[0].result())

    thread = threading.Thread(target=give)
    thread.start()
    thread.join()
    assert found == [-1]
