"""The browser that tests of pages use, or the reason why there is none."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from benchmarks.browser import BROWSERS, executable, launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


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


class OpenedPage:
    """A page of a file at ``path``, and everything it complained of or asked for; a step may take ``seconds``."""

    def __init__(self, browser: "Browser", path: Path, *, seconds: float, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", self._note)
        self.page.set_default_timeout(1000 * seconds)
        self.path = path
        self.load()

    def load(self) -> None:
        """Show the page as if for the first time."""
        self.page.goto(self.path.as_uri())

    def _note(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(request.url)
