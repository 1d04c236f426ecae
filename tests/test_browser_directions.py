"""The page Directions in a real Chromium: a context is painted and found elsewhere, scaled, and sent to Rewriting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Position, expect

from rewrite_core import EditRequest, LatentSpec, open_generator
from rewrite_core.directions import Direction
from rewrite_core.directions.matches import nearest, search
from rewrite_core.statistics import default_store
from tests.browser import browsing, canvas, choose, paint, press, sources, wait_text

LONG = 60.0
SEARCHED = LatentSpec.of(range(1000))
PAINTED, EYE = 28, [(105.0, 170.0), (135.0, 170.0), (135.0, 225.0), (105.0, 225.0)]
"""A picture, and a stroke over an eye of it."""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def visitor(browser: Browser, address: str) -> Iterator[Page]:
    """A visitor who sees where the example of the default generator matches."""
    with browsing(browser, f"{address}/directions") as page:
        options(page, "matches-gallery")
        yield page


def options(page: Page, gallery: str) -> Locator:
    """What can be selected in a gallery, once it is there."""
    found = page.locator(f".st-key-{gallery}").get_by_role("option")
    expect(found.first).to_be_visible(timeout=LONG * 1000)
    return found


def seeds(page: Page, gallery: str) -> list[int]:
    """The pictures of a gallery, best first."""
    labels = [str(option.get_attribute("aria-label")) for option in options(page, gallery).all()]
    return [int(label.removeprefix("seed ").partition(",")[0]) for label in labels]


def show(page: Page, view: str) -> None:
    page.locator(".st-key-directions-view").get_by_text(view, exact=True).click()


def add_painted(page: Page, name: str) -> None:
    """Paint the eye, and look at where its direction matches."""
    press(page, "context-paint")
    canvas(page, "paint-context")
    choose(page, "context-choice", PAINTED)
    wait_text(page, f"Picture {PAINTED}, drawn without rules")
    paint(page, "context", EYE, "Add to “this”")
    called = page.locator(".st-key-new-direction").get_by_role("textbox", name="Name")
    called.fill(name)
    called.press("Enter")
    press(page, "context-add")
    wait_text(page, f"{name} at l08", timeout=LONG)
    options(page, "matches-gallery")


def saved(page: Page, path: Path) -> Direction:
    """The direction that is looked at, from its file."""
    press(page, "direction-menu")
    with page.expect_download() as download:
        press(page, "direction-save")
    download.value.save_as(path)
    page.keyboard.press("Escape")
    return Direction.load(path)


def click_position(page: Page, seed: int, across: float, down: float) -> tuple[int, int]:
    """Click into the large picture, at these shares of its sides; row and column, as its tooltip says them."""
    shown = page.locator(f".st-key-positions-{seed} .marks")
    expect(shown).to_be_visible(timeout=LONG * 1000)
    box = shown.bounding_box()
    assert box is not None
    place: Position = {"x": across * box["width"], "y": down * box["height"]}
    shown.hover(position=place)
    tooltip = page.locator("#vg-tooltip-element")  # once it shows, the chart listens
    expect(tooltip).to_contain_text("column", timeout=LONG * 1000)
    words = tooltip.inner_text().split()
    shown.click(position=place)
    return int(words[words.index("row") + 1]), int(words[words.index("column") + 1])


def scale(page: Page, steps: int) -> None:
    """Move the slider from 0, and wait until the pictures and the numbers have followed."""
    wait_text(page, "Of its pattern 0 % is left", timeout=LONG)
    removed = sources(page, "directions-pairs")[1]
    slider = page.locator(".st-key-directions-alpha").get_by_role("slider")
    slider.focus()
    for _ in range(steps):
        slider.press("ArrowRight")
    wait_text(page, f"Of its pattern {25 * steps} % is left", timeout=LONG)
    after = page.locator(".st-key-directions-pairs img.after").first
    expect(after).not_to_have_attribute("src", removed, timeout=LONG * 1000)


def test_a_painted_context_is_found_elsewhere_scaled_and_sent_to_rewriting(
    visitor: Page, tmp_path: Path
) -> None:
    generator, store = open_generator(), default_store()
    add_painted(visitor, "dark eye")
    direction = saved(visitor, tmp_path / "dark-eye.safetensors")
    assert direction.name == "dark eye"
    found = search(generator, direction.layer, direction.vectors[0], SEARCHED, store=store)
    assert seeds(visitor, "matches-gallery") == found.top(24)

    match = found.top(2)[1]
    choose(visitor, "matches-gallery", match)
    place = click_position(visitor, match, across=0.15, down=0.85)
    assert place != found.best(match)
    near = nearest(generator, direction.layer, match, place, SEARCHED, store=store)
    last = re.compile(rf"^seed {near.top(24)[-1]},")
    expect(options(visitor, "nearest-gallery").last).to_have_accessible_name(last, timeout=LONG * 1000)
    assert seeds(visitor, "nearest-gallery") == near.top(24)

    show(visitor, "Effect")
    scale(visitor, steps=2)
    pairs = sources(visitor, "directions-pairs")
    assert all(before != after for before, after in zip(pairs[0::2], pairs[1::2], strict=True))
    press(visitor, "directions-keep")
    expect(visitor.locator('[data-testid="stSidebar"]')).to_contain_text("dark eye × 0.5")
    wait_text(visitor, "“dark eye × 0.5” is on: “before” has it already")

    press(visitor, "direction-send")
    canvas(visitor, "paint-edit")
    expect(
        visitor.locator(".st-key-tray").get_by_role("button", name=f"{PAINTED}", exact=True)
    ).to_be_visible()
    press(visitor, "save-menu")
    with visitor.expect_download() as download:
        visitor.get_by_role("button", name="Edit (JSON)").click()
    download.value.save_as(tmp_path / "edit.json")
    edit = EditRequest.load(tmp_path / "edit.json")
    assert edit.layer == direction.layer
    assert edit.key == EditRequest.from_json(direction.provenance["request"]).key
    assert [painted.image for painted in edit.key] == [PAINTED]


def test_a_link_shows_another_visitor_the_same_direction_and_nothing_of_the_tray(
    visitor: Page, browser: Browser
) -> None:
    add_painted(visitor, "mine alone")
    visitor.locator(".st-key-directions-tray").get_by_role("button", name="eyes").click()
    wait_text(visitor, "eyes at l08", timeout=LONG)
    show(visitor, "Effect")
    scale(visitor, steps=2)
    expect(visitor).to_have_url(re.compile(r"view=Effect&layer=l08&direction=eyes&alpha=0\.5$"))

    with browsing(browser, visitor.url) as guest:
        wait_text(guest, "Of its pattern 50 % is left", timeout=LONG)
        wait_text(guest, "eyes at l08")
        assert sources(guest, "directions-pairs") == sources(visitor, "directions-pairs")
        tray = guest.locator(".st-key-directions-tray")
        expect(tray.get_by_role("button")).to_have_count(1)
        expect(tray).to_contain_text("eyes")
        expect(guest.locator("body")).not_to_contain_text("mine alone")
