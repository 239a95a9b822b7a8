"""Worker processes that end with the work, at an interrupt, or with their parent process, whichever comes first.

::

    work, prepare ──once──▶ ┌ process 1: prepare(), work(task), work(task) … ┐
    tasks ───────all at once▶ process 2: prepare(), work(task) …             ├──▶ futures, in the order of the tasks
                            └ …                                              ┘
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import FrameType
from typing import Any, TypeVar

from vqcodec.errors import VqcodecError

__all__ = ["at_work"]

_GRACE = 2.0  # seconds that a worker has to end by itself

_T = TypeVar("_T")
_R = TypeVar("_R")


def _nothing() -> None:
    pass


@contextlib.contextmanager
def at_work(
    work: Callable[[_T], _R], tasks: Sequence[_T], processes: int, prepare: Callable[[], None] = _nothing
) -> Iterator[list["Future[_R]"]]:
    """The futures of ``work(task)`` for each of ``tasks``, in order, computed by ``processes`` worker processes.

    Each worker process is spawned, gets copies of ``work`` and ``prepare``, and calls ``prepare`` once at its start.
    The workers end when the block ends, normally or by an exception, and when this process ends. If the block raises
    or this process ends, a SystemExit is raised in each running task, and a worker that still runs seconds later is
    killed.

    Raises VqcodecError if a process has died.
    """
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _start, (work, prepare)
    )
    try:
        with _interrupts_ignored():  # the workers inherit this
            futures = [pool.submit(_do, task) for task in tasks]
        yield futures
    except BrokenProcessPool:
        raise VqcodecError(
            "a worker process ended early, perhaps because memory ran out; completed files are kept"
        ) from None
    except BaseException:
        with _interrupts_ignored():
            _end_workers()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set signal handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_workers() -> None:
    """Let the workers clean up and end; kill those that still compute after ``_GRACE`` seconds."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()


# --- in a worker process ----------------------------------------------------------------------------------------

_work: Callable[[Any], Any]


def _start(work: Callable[[Any], Any], prepare: Callable[[], None]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, _leave)
    prepare()


def _follow_parent() -> None:
    """End this process when its parent has ended, even if the parent was killed and could send no signal."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def _leave(number: int, frame: FrameType | None) -> None:
    """Handler of SIGTERM: run every ``except`` and ``finally``, so that no half-written file stays behind."""
    raise SystemExit


def _do(task: Any) -> Any:
    try:
        return _work(task)
    except SystemExit:
        os._exit(1)  # otherwise the pool would start the next task
