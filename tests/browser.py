"""The browser that tests of pages use, or the reason why there is none."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

from benchmarks.browser import BROWSERS, executable, launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def no_browser(reason: str) -> NoReturn:
    """Skip the test; where CI is true, fail it, since nobody reads what was skipped there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI is true")
    pytest.skip(reason)


def started() -> Iterator["Browser"]:
    """An installed browser, without a window; closed in the end."""
    path = executable()
    if path is None:
        no_browser(f"none of {', '.join(BROWSERS)} is installed")
    try:
        with launched(path) as browser:
            yield browser
    except ImportError:
        no_browser("the package playwright is not installed")
