"""What every test shares: fixed threads, a cache of its own, and a real browser on request."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

from tests.browser import APP, serve

__all__ = ["address", "browser", "chromium_path"]

torch.set_num_threads(1)  # a picture is bit-identical at one thread count; two wait long for a busy core

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the visitor's own cache or library; processes that a test starts inherit these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALIMPSEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PALIMPSEST_RULES", str(tmp_path_factory.mktemp("rules")))
        yield


def chromium_path() -> str:
    """The Chromium on this machine; without one the test is skipped, or fails where a browser is required."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found:
        return found
    missing = f"no {' or '.join(CHROMIUM)} on the PATH: install Debian's package chromium, or Google Chrome"
    if os.environ.get("PALIMPSEST_REQUIRE_BROWSER") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; a test takes a visitor of its own with `browser.new_context()`."""
    executable = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where the app answers: one server for all visitors, as in life."""
    chromium_path()
    with serve(APP) as url:
        yield url
