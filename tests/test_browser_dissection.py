"""The page Dissection in a real Chromium: a concept is painted and learned, its units are found, and one is ablated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dissect.concepts.concept_file import ConceptFile
from tests.browser import browsing, canvas, choose, draw_stroke, press, wait_text

LONG = 120.0

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def visitor(browser: Browser, address: str) -> Iterator[Page]:
    """A visitor who looks at the concepts of a small generator."""
    with browsing(browser, f"{address}/dissection?model=face32-dcgan&view=Concepts") as page:
        expect(page.locator(".st-key-concepts-labels-0 img").first).to_be_visible(timeout=LONG * 1000)
        yield page


def dissect_few(page: Page, samples: int) -> None:
    """Ask for so few samples that dissecting takes a moment."""
    press(page, "dissection-settings")
    page.get_by_role("spinbutton", name="Samples").fill(str(samples))
    page.get_by_role("button", name="Dissect", exact=True).click()
    wait_text(page, f"{samples} samples", within="dissection-settings")
    page.keyboard.press("Escape")


def add(page: Page, concept: str) -> None:
    press(page, "concept-add")
    page.get_by_role("textbox", name="New concept").fill(concept)
    press(page, "concept-name-Add-now")
    wait_text(page, rf"{concept} 0 px", within="concept-history")
    page.keyboard.press("Escape")


def paint(page: Page, concept: str, seed: int, height: float) -> None:
    """Draw a wide stroke at this height of the canvas, and wait until Python has it."""
    page.locator(".st-key-concept-chosen").get_by_text(concept, exact=True).click()
    wait_text(page, rf"{concept} 0 px on picture {seed}", within="concept-history")
    canvas(page, "paint-concept")
    draw_stroke(page, "paint-concept", [(60, height), (360, height), (60, height + 20)])
    wait_text(page, rf"{concept} [1-9]\d* px on picture {seed}", within="concept-history")


def test_a_concept_is_painted_learned_and_dissected_with_and_a_unit_ablated(
    visitor: Page, tmp_path: Path
) -> None:
    dissect_few(visitor, 64)
    visitor.locator(".st-key-concepts-part").get_by_text("Paint your own").click()
    wait_text(visitor, "each held out in its turn", timeout=LONG)
    press(visitor, "concepts-open")
    press(visitor, "concepts-nothing")
    wait_text(visitor, "Add a concept, such as hair")
    visitor.keyboard.press("Escape")
    add(visitor, "top")
    add(visitor, "middle")
    for seed in (0, 1):
        choose(visitor, "concept-pictures", seed)
        wait_text(visitor, f"px on picture {seed}", within="concept-history")
        paint(visitor, "top", seed, 40)
        paint(visitor, "middle", seed, 220)

    press(visitor, "concept-train")
    wait_text(visitor, "on 2 pictures, each held out in its turn", timeout=LONG)
    with visitor.expect_download() as download:
        press(visitor, "concept-save")
    download.value.save_as(tmp_path / "painted.json")
    saved = ConceptFile.load(tmp_path / "painted.json")
    assert saved.concepts == ("top", "middle")
    assert saved.seeds == (0, 1)
    assert saved.learned is not None
    for strokes in saved.strokes:
        rows = [strokes.mask(number).bounds((32, 32))[0] for number in (0, 1)]
        assert rows[0] < 8 < rows[1]

    press(visitor, "concept-use")
    table = visitor.locator('[data-testid="stDataFrame"]').first
    expect(table).to_be_visible(timeout=LONG * 1000)
    unit = wait_text(visitor, r"Unit \d+ of \S+", timeout=LONG)
    box = table.bounding_box()
    assert box is not None
    visitor.mouse.click(box["x"] + 14, box["y"] + 35 * 3.5)
    expect(visitor.locator("body")).not_to_contain_text(f"{unit} ·", timeout=LONG * 1000)
    wait_text(visitor, r"Unit \d+ of \S+", timeout=LONG)
    sheet = visitor.locator(".st-key-sheet-look")
    expect(sheet).to_be_visible(timeout=LONG * 1000)
    sheet.get_by_text("Ablated", exact=True).click()
    ablated = visitor.locator(".st-key-sheet-0 img.after")
    expect(ablated.first).to_be_attached(timeout=LONG * 1000)
    original = [image.get_attribute("src") for image in visitor.locator(".st-key-sheet-0 img.before").all()]
    assert original != [image.get_attribute("src") for image in ablated.all()]
