"""A line on the terminal that shows that long work goes on: ``encoding 3 of 7, 12 s, 40 %, 0.3 Mpixel/s, 18 s left``.

::

    the work ──describe──▶ ┌ tqdm: when to draw, how to clear ┐ ──▶ stderr, if it is a terminal
    a thread ──a few times a second──▶                        │
    results ───aside, while the line is cleared───────────────┘
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

__all__ = ["Progress"]

_INTERVAL = 0.2  # seconds between two drawings
_COLUMNS = 79  # of a terminal of unknown size


class Progress:
    """A context manager that shows ``task`` and the time so far, once the block takes over ``delay`` seconds.

    Silent if ``quiet`` or if standard error is not a terminal.
    """

    def __init__(self, task: str, *, quiet: bool, delay: float = 1.0) -> None:
        self._bar = None
        self._start = time.perf_counter()
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            shown = "{desc}, {elapsed_s:.0f} s{postfix}"
            self._bar = tqdm(bar_format=shown, delay=delay, leave=False, mininterval=0, miniters=0)
            if self._bar.ncols is not None and self._bar.ncols <= 0:  # a terminal that does not know its size
                self._bar.ncols, self._bar.nrows = _COLUMNS, None
            self._done = threading.Event()
            # tqdm draws only when it is called, and a single file makes no calls until it is done.
            self._thread = threading.Thread(target=self._draw, daemon=True)
        self.describe(task)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._done.set()
            self._thread.join()
            self._bar.close()

    def describe(self, task: str) -> None:
        """Show ``task`` from now on."""
        if self._bar is not None:
            self._bar.set_description_str(task, refresh=False)

    def share(self, done: float, pixels: int) -> None:
        """Show the share ``done``, 0..1, of the task, the rate at which ``pixels`` came, and the time for the rest."""
        if self._bar is not None and done > 0:
            seconds = time.perf_counter() - self._start
            rate = f"{pixels / seconds / 1e6:.2g} Mpixel/s"
            left = f"{seconds * (1 - done) / done:.0f} s left"
            self._bar.set_postfix_str(f"{100 * done:.0f} %, {rate}, {left}", refresh=False)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Clear the line and draw nothing during the block, so that it can print."""
        if self._bar is None:
            yield
            return
        with self._bar.get_lock():
            self._bar.clear(nolock=True)
            yield

    def _draw(self) -> None:
        assert self._bar is not None
        while not self._done.wait(_INTERVAL):
            self._bar.update(0)
