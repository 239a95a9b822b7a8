"""Worker processes that end when they should: with the work, at an interrupt, and with whoever gave it to them.

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

_GRACE = 2.0  # seconds in which a worker may leave by itself

_T = TypeVar("_T")
_R = TypeVar("_R")


def _nothing() -> None:
    pass


@contextlib.contextmanager
def at_work(
    work: Callable[[_T], _R], tasks: Sequence[_T], processes: int, prepare: Callable[[], None] = _nothing
) -> Iterator[list["Future[_R]"]]:
    """The futures of ``work(task)`` for each of ``tasks``, in their order, while that many processes see to them.

    The processes are spawned; ``work`` and ``prepare``, which each calls first, are sent to them. They end with the
    block, however that ends, and with this process. One that is in the middle of a task is told to leave by a
    SystemExit, and killed if it does not within seconds.

    Raises VqcodecError if a process is gone.
    """
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _start, (work, prepare)
    )
    try:
        with _interrupts_ignored():  # and by the workers too, which inherit that, from their first moment
            futures = [pool.submit(_do, task) for task in tasks]
        yield futures
    except BrokenProcessPool:
        raise VqcodecError(
            "a worker process ended early, perhaps for want of memory; what is complete is kept"
        ) from None
    except BaseException:
        with _interrupts_ignored():
            _end_workers()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone gets them, and may set this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_workers() -> None:
    """Let the workers tidy up and leave; those that are deep in a computation are not waited for."""
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent deals with it
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, _leave)
    prepare()


def _follow_parent() -> None:
    """End with the process that gives the tasks, however that ends: no one would tell a worker."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def _leave(number: int, frame: FrameType | None) -> None:
    """Handler of SIGTERM: leave, but through the ``except`` and ``finally`` of whatever is being written."""
    raise SystemExit


def _do(task: Any) -> Any:
    try:
        return _work(task)
    except SystemExit:
        os._exit(1)  # the pool would go on with the next task
