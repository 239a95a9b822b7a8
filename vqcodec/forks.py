"""Calls that compute in a process that was forked after torch had started its threads.

::

    parent: imports torch, computes; OpenMP starts threads ──fork──▶ child: has the main thread only
                                                                     └─ @fork_safe ▶ a new thread ▶ new OpenMP threads
"""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["fork_safe"]

_PROCESS = os.getpid()  # the process that imported this module, and torch soon after
_P = ParamSpec("_P")
_R = TypeVar("_R")


def fork_safe(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``function``, run in a new thread if the process was forked and the caller is its main thread.

    A fork copies only the thread that forks. The main thread's OpenMP team stays behind in the parent, and a
    computation in the child's main thread would wait for that team forever. A new thread starts a team of its own,
    of the same size: with fewer threads, sums would be taken in another order, and a pixel might differ by one level.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if os.getpid() == _PROCESS or threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()

    return call
