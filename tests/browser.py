"""Pages in a real Chromium, without a window: `python -m tests.browser ADDRESS WIDTH...` prints what it saw, as JSON.

In a process of its own, because Playwright has a process, threads and an event loop, which are not ours to look after.
An address is that of a server, or a file. What a page asks of any other host is refused, and told.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
NO_CHROMIUM = "There is no Chromium: apt-get install chromium, or playwright install chromium."
_TASK = "KERAS_MPSEQ_BROWSER_TASK"
_LOOK_S = 110
_HEIGHT = 900


class Seen(NamedTuple):
    """A page as it was seen in a window of one width."""

    width: int
    title: str
    body_width: int
    """Pixels that the page takes; more than `width` is scrolled to the side."""
    smallest_text: float
    """Pixels: the size of the smallest paragraph."""
    images: list[int]
    """The natural width of each; 0 for one that was not drawn."""
    complaints: list[str]
    """Errors and warnings of the console, exceptions, and requests that failed."""
    outside: list[str]
    """Addresses on other hosts that were asked for."""


@contextmanager
def opened() -> Iterator[Any]:
    """Open a Chromium: of the system, or as `playwright install chromium` has put it; None where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = next((path for name in _NAMES if (path := shutil.which(name))), playwright.chromium.executable_path)
        if not Path(path).exists():
            yield None
            return
        # Without its sandbox: in CI the tests are root, as whom Chromium has none.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def look(
    address: str,
    widths: tuple[int, ...],
    *,
    ask: tuple[str, str, str] | None = None,
    screenshots: Path | None = None,
) -> list[Seen]:
    """Open *address* once for each width, and return what was seen; skips the test where there is no browser.

    Args:
        address: `http://127.0.0.1:…` or `file://…`.
        widths: Of the window, in pixels.
        ask: Where to click, what to type there, and what has to appear then; the first and the last are selectors.
        screenshots: Folder for a picture of each, `400.png` for the width of 400.
    """
    pytest.importorskip("playwright", reason="playwright opens pages: pip install keras_mpseq[dev]")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.browser", address, *map(str, widths)],
        env={**os.environ, _TASK: json.dumps({"ask": ask, "screenshots": screenshots and str(screenshots)})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LOOK_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if not ran.stdout:
        pytest.skip(NO_CHROMIUM)
    return [Seen(*values) for values in json.loads(ran.stdout)]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve *folder* on this machine, and yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def _seen(browser: Any, address: str, width: int) -> Seen:
    context = browser.new_context(viewport={"width": width, "height": _HEIGHT})
    page = context.new_page()
    complaints: list[str] = []
    outside: list[str] = []

    def allow(route: Any) -> None:
        if urlsplit(route.request.url).netloc in ("", urlsplit(address).netloc):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.route("**/*", allow)
    page.goto(address, wait_until="networkidle")
    task = json.loads(os.environ.get(_TASK, "{}"))
    if task.get("ask"):
        place, text, appears = task["ask"]
        page.click(place)
        page.keyboard.type(text)
        page.wait_for_selector(appears)
    if task.get("screenshots"):
        page.screenshot(path=str(Path(task["screenshots"]) / f"{width}.png"))
    title, body_width, smallest, images = page.evaluate(
        """() => [
            document.title,
            Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),
            Math.min(...[...document.querySelectorAll("p")].map(one => parseFloat(getComputedStyle(one).fontSize))),
            [...document.images].map(one => one.naturalWidth),
        ]"""
    )
    context.close()
    return Seen(width, title, body_width, smallest, images, complaints, outside)


def main(address: str, widths: list[int]) -> None:
    """Print what was seen; nothing where there is no browser."""
    with opened() as browser:
        if browser is not None:
            print(json.dumps([_seen(browser, address, width) for width in widths]))


if __name__ == "__main__":
    main(sys.argv[1], [int(width) for width in sys.argv[2:]])
