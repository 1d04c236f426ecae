"""Driving the app in a real browser: a server on a free port, strokes with the mouse, waiting for text.

    @pytest.mark.browser
    def test_a_stroke_becomes_a_mask(browser):
        with serve(APP) as url:
            page = browser.new_context().new_page()
            page.goto(url)
            draw_stroke(page, "paint-copy", [(100, 100), (200, 140)])
            wait_text(page, r"mask [1-9][\\d,]* px", within="paint-copy")

Wait for text that Python wrote, never for a time: strokes reach the server 0.2 s after the mouse is released.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from playwright.sync_api import Locator, Page, expect

__all__ = ["canvas", "draw_stroke", "serve", "wait_text"]

_SERVER = {
    "server.headless": "true",
    "server.address": "127.0.0.1",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
}


@contextmanager
def serve(app: Path, *, options: Mapping[str, str] | None = None, timeout: float = 30) -> Iterator[str]:
    """Run a Streamlit app for the length of a `with`; its address."""
    port = _free_port()
    settings = {**_SERVER, **(options or {}), "server.port": str(port)}
    flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
    with TemporaryFile() as log:
        command = [sys.executable, "-m", "streamlit", "run", str(app), *flags]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(server, port, timeout, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def canvas(page: Page, key: str) -> Locator:
    """The canvas in the keyed element or container `key`, in view and ready for the mouse."""
    found = page.locator(f".st-key-{key} canvas.upper-canvas")
    expect(found).to_have_count(1, timeout=20_000)  # two for a moment while the picture changes
    expect(found.last).to_be_visible(timeout=20_000)
    found.last.scroll_into_view_if_needed()
    return found.last


def draw_stroke(page: Page, key: str, points: Sequence[tuple[float, float]]) -> None:
    """Press the mouse at the first point, drag through the others, release; in pixels of the canvas."""
    box = canvas(page, key).bounding_box()
    assert box is not None
    first, *others = [(box["x"] + x, box["y"] + y) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def wait_text(page: Page, pattern: str, *, within: str | None = None, timeout: float = 20) -> str:
    """Wait until the page, or its element keyed `within`, has text that matches; the first match."""
    place = page.locator(f".st-key-{within}" if within else "body")
    expect(place.first).to_contain_text(re.compile(pattern), timeout=timeout * 1000)
    match = re.search(pattern, place.first.inner_text())
    return match[0] if match else ""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, timeout: float, log: IO[bytes]) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    log.seek(0)
    raise RuntimeError(f"the app did not start:\n{log.read().decode(errors='replace')}")
