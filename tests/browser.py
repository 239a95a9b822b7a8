"""The browser that tests of pages use, or the reason why there is none."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def no_browser(reason: str) -> NoReturn:
    """Skip the test; where CI is true, fail it, since nobody reads what was skipped there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI is true")
    pytest.skip(reason)


def started() -> Iterator["Browser"]:
    """An installed browser, without a window; closed in the end."""
    try:
        from playwright import sync_api
    except ImportError:
        no_browser("the package playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        no_browser(f"none of {', '.join(BROWSERS)} is installed")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
        )
        yield browser
        browser.close()
