"""In a real browser: work that outlives its server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import APP, serve
from tests.conftest import chromium_path

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

LONG = 60_000
SIZE = {"width": 1440, "height": 1000}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    chromium_path()
    context = browser.new_context(viewport=SIZE)  # type: ignore[arg-type]  # a TypedDict
    opened = context.new_page()
    opened.set_default_timeout(LONG)
    expect.set_options(timeout=LONG)
    yield opened
    context.close()
    expect.set_options(timeout=5000)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).first.click()


def try_blue_eyes(page: Page) -> None:
    press(page, "Blue eyes")
    expect(page.get_by_text(re.compile(r"loss .* \(was")).first).to_be_visible()


def test_work_outlives_the_server_and_is_offered_to_a_page_without_its_address(page: Page):
    with serve(APP) as address:
        page.goto(address)
        try_blue_eyes(page)
        press(page, "Keep")
        expect(page.locator(".st-key-rule-on-0")).to_be_visible()
        page.wait_for_url(re.compile(r"session="))
        query = urlsplit(page.url).query
        second = page.context.new_page()
        second.goto(address)
        second.get_by_role("button", name=re.compile("Recover what you had .* 1 rule")).click()
        expect(second.locator(".st-key-rule-on-0")).to_be_visible()
        page.wait_for_timeout(
            1000
        )  # the autosave gathers for half a second; nothing on the page tells when it wrote
    with serve(APP) as address:
        page.goto(f"{address}/?{query}")
        expect(page.get_by_text("Recovered what you had")).to_be_visible()
        expect(page.locator(".st-key-rule-on-0")).to_be_visible()
