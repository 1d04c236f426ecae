"""Driving the app in a real browser: a server on a free port, strokes with the mouse, waiting for text.

    @pytest.mark.browser
    def test_a_stroke_becomes_a_region(browser, address):  # a server that all such tests share
        with browsing(browser, address) as page:
            paint(page, "edit", [(100, 100), (200, 140)], "Copy")

Wait for text that Python wrote, never for a time: strokes reach the server 0.2 s after the mouse is released. Elements
are found by the key that Python gave them.
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

from playwright.sync_api import Browser, Locator, Page, expect

__all__ = [
    "APP",
    "browsing",
    "canvas",
    "choose",
    "draw_stroke",
    "paint",
    "press",
    "serve",
    "sources",
    "wait_text",
]

APP = Path(__file__).parents[1] / "dashboard" / "app.py"

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


@contextmanager
def browsing(browser: Browser, address: str) -> Iterator[Page]:
    """A visitor of their own, who has just followed a link to the app."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
    try:
        page = context.new_page()
        page.goto(address)
        yield page
    finally:
        context.close()


def press(page: Page, key: str) -> None:
    """Press the button `key`, or the first in the container."""
    page.locator(f".st-key-{key} button").first.click()


def choose(page: Page, gallery: str, seed: int) -> None:
    """Select a picture in a gallery; what is noted under it does not matter."""
    name = re.compile(rf"^seed {seed}(,|$)")
    page.locator(f".st-key-{gallery}").get_by_role("option", name=name).click()


def sources(page: Page, key: str) -> list[str]:
    """The pictures that a gallery shows, as the browser holds them."""
    images = page.locator(f".st-key-{key} img:visible")
    expect(images.first).to_be_visible(timeout=20_000)
    return [str(image.get_attribute("src")) for image in images.all()]


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


def paint(page: Page, role: str, points: Sequence[tuple[float, float]], button: str) -> None:
    """Draw a stroke, wait until Python has it, and press a button that acts on it."""
    place = f"paint-{role}"
    draw_stroke(page, place, points)
    wait_text(page, r"mask [1-9][\d,]* px", within=place)
    page.locator(f".st-key-{place}").get_by_role("button", name=button, exact=True).click()
    wait_text(page, "mask 0 px", within=place)


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
