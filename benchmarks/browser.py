"""The decoder for browsers in headless Chromium: pictures of ``<vq-img>`` on an empty page.

::

    web/dist ──http──▶ Chromium ◀── Viewer.show(file) ──▶ View: state, problem, pixels, times

``make web`` makes web/dist, and the package ``playwright`` drives the browser.
"""

import base64
import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqcodec.errors import VqcodecError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["BROWSERS", "DIST", "Usage", "View", "Viewer", "executable", "installed", "launched", "usage", "viewer"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DIST = Path(__file__).resolve().parents[1] / "web" / "dist"
CODES = DIST.parent / "build" / "codes.js"  # `make web` builds it, too
PAGE = '<!doctype html><script src="vq-img.js"></script><script src="codes.js"></script><body></body>'
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
SHOW = """async ([base64, seconds, pixels]) => {
  const image = document.createElement("vq-img");
  image.setAttribute("fetchpriority", "high");
  const started = performance.now();
  const previews = [];
  image.addEventListener("preview", ({ detail }) => previews.push([detail, performance.now() - started]));
  const end = new Promise((resolve) => { image.onload = image.onerror = resolve; });
  const late = new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  image.data = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  document.body.replaceChildren(image);
  await Promise.race([end, late]);
  const total = performance.now() - started;
  const { state, problem, times, canvas } = image;
  let rgba = null;
  if (pixels && state === "complete") {
    const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const parts = [];
    for (let i = 0; i < bytes.length; i += 32768) parts.push(String.fromCharCode(...bytes.subarray(i, i + 32768)));
    rgba = btoa(parts.join(""));
  }
  document.body.replaceChildren();
  return { state, problem, times, previews, total, width: canvas.width, height: canvas.height, rgba };
}"""
CODES_OF = "(base64) => codesOf(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)))"


@dataclass(frozen=True)
class View:
    """What ``<vq-img>`` shows of a file.

    Attributes:
        state: ``complete``, ``error``, or ``loading`` if it was neither in time.
        problem: the message of an error, or of the damage of a file that is shown in part; None if the file is whole.
        pixels: ``[H, W, 4]``, red, green, blue and opacity; None without a picture, or if they were not asked for.
        previews: for each part that was painted, how many levels it showed, and after how many milliseconds.
        milliseconds: until the picture was complete.
        times: milliseconds that the ``prior`` and the ``network`` computed; empty without a picture.
    """

    state: str
    problem: str | None
    pixels: NDArray[np.uint8] | None
    previews: list[tuple[int, float]]
    milliseconds: float
    times: dict[str, float]


@dataclass(frozen=True)
class Usage:
    """What a process that shows pages has used: its peak of memory in bytes, and seconds of processor time."""

    memory: int
    processor: float


class Viewer:
    """Shows one file after another on a page.

    Args:
        page: on which the element is defined.
        seconds: how long a file may take.
    """

    def __init__(self, page: "Page", seconds: float) -> None:
        self.page, self.seconds = page, seconds

    def show(self, data: bytes, *, pixels: bool = True) -> View:
        """The picture of the file ``data``."""
        text = base64.b64encode(data).decode()
        found: dict[str, Any] = self.page.evaluate(SHOW, [text, self.seconds, pixels])
        rgba = None
        if found["rgba"] is not None:
            rgba = np.frombuffer(base64.b64decode(found["rgba"]), np.uint8)
            rgba = rgba.reshape(found["height"], found["width"], 4)
        previews = [(int(levels), float(time)) for levels, time in found["previews"]]
        times = found["times"] or {}
        return View(found["state"], found["problem"], rgba, previews, found["total"], times)

    def codes(self, data: bytes) -> str:
        """SHA-256, in hex, of the codes of ``data``: int64 ``[G_l, H_l, W_l]``, coarsest level first."""
        digest: str = self.page.evaluate(CODES_OF, base64.b64encode(data).decode())
        return digest


def executable() -> str | None:
    """The path of an installed browser."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def installed() -> str:
    """The path of an installed browser. Raises VqcodecError if there is none."""
    path = executable()
    if path is None:
        raise VqcodecError("no browser is installed")
    return path


@contextlib.contextmanager
def launched(path: str) -> Iterator["Browser"]:
    """The browser at ``path``, without a window. Raises ImportError without the package playwright."""
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET]
        )
        try:
            yield browser
        finally:
            browser.close()


def usage(browser: "Browser") -> dict[int, Usage]:
    """The usage of each process that shows pages, by its number."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    pages = [process for process in processes if process["type"] == "renderer"]
    return {process["id"]: Usage(_peak(process["id"]), process["cpuTime"]) for process in pages}


def _peak(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def viewer(browser: "Browser", *, seconds: float = 60) -> Iterator[Viewer]:
    """A page of ``browser``. Raises VqcodecError if web/ has not been built."""
    for path in (DIST / "vq-img.js", CODES):
        if not path.exists():
            raise VqcodecError(f"{path}: it is missing, `make web` makes it")
    with _served(DIST) as address:
        page = browser.new_page()
        page.route("**/empty.html", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
        page.route("**/codes.js", lambda route: route.fulfill(path=CODES, content_type="text/javascript"))
        page.goto(f"{address}/empty.html")
        yield Viewer(page, seconds)
        page.close()


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a server of the files in ``folder``."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass
