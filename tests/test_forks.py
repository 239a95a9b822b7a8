"""Calls in forked processes: the main thread of a child hands them to a new thread."""

import os
import threading

import pytest

from vqcodec.forks import fork_safe


@fork_safe
def thread(*, fail: bool = False) -> threading.Thread:
    if fail:
        raise ValueError("failed")
    return threading.current_thread()


def test_where_calls_run(monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.current_thread()
    assert thread() is here
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a child
    assert thread() is not here
    with pytest.raises(ValueError, match="failed"):
        thread(fail=True)
    found: list[bool] = []
    other = threading.Thread(target=lambda: found.append(thread() is other))
    other.start()
    other.join()
    assert found == [True]
