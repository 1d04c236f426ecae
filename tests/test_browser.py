"""The app in a real Chromium: strokes become masks, Try changes pictures, visitors do not meet."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect
from torch import nn

from rewrite_core import (
    EditRequest,
    LatentSpec,
    Mask,
    OwnPicture,
    Painted,
    example_edit,
    from_sequential,
    open_generator,
    rewrite,
)
from rewrite_core.files import write_json
from rewrite_core.generators import embedded_folder
from tests.browser import browsing, canvas, choose, paint, press, sources, wait_text

REFERENCE = Path(__file__).parent / "reference"
BRUSH = 28

pytestmark = pytest.mark.browser


@pytest.fixture
def visitor(browser: Browser, address: str) -> Iterator[Page]:
    """A visitor who has just arrived."""
    with arrived(browser, address) as page:
        yield page


@contextmanager
def arrived(browser: Browser, address: str) -> Iterator[Page]:
    with browsing(browser, address) as page:
        canvas(page, "paint-edit")
        expect(page.locator(".st-key-choice img").first).to_be_visible(timeout=20_000)
        yield page


def pick(page: Page, seed: int) -> None:
    """Select a picture in the gallery beside the canvas, to paint on."""
    choose(page, "choice", seed)
    wait_text(page, rf"Picture {seed}, as the generator draws it")
    canvas(page, "paint-edit")


def show(page: Page, view: str) -> None:
    page.locator(".st-key-view").get_by_text(view, exact=True).click()


def stroke_mask(points: list[tuple[float, float]], size: int, fine: int = 4) -> np.ndarray:
    """What a round brush leaves along `points`, on a canvas of `size` pixels."""
    image = Image.new("L", (size * fine, size * fine))
    pen, radius = ImageDraw.Draw(image), BRUSH * fine / 2
    scaled = [(x * fine, y * fine) for x, y in points]
    pen.line(scaled, fill=255, width=BRUSH * fine)
    for x, y in scaled:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX)) > 127


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_strokes_become_the_saved_masks_and_try_changes_pictures_never_painted_on(
    visitor: Page, tmp_path: Path
) -> None:
    blue_eye = [(115.0, 150.0), (150.0, 150.0), (150.0, 210.0), (115.0, 210.0)]
    dark_eye = [(105.0, 170.0), (135.0, 170.0), (135.0, 225.0), (105.0, 225.0)]
    pick(visitor, 2)
    paint(visitor, "edit", blue_eye, "Copy")
    pick(visitor, 28)
    paint(visitor, "edit", dark_eye, "Paste")
    paint(visitor, "edit", dark_eye, "Add to context")
    press(visitor, "try")
    wait_text(visitor, r"loss")
    pairs = sources(visitor, "pairs")
    before, after = pairs[0::2], pairs[1::2]
    assert len(before) == len(after) == 24
    assert sum(b != a for b, a in zip(before, after, strict=True)) > 12

    press(visitor, "save-menu")
    with visitor.expect_download() as download:
        visitor.get_by_role("button", name="Edit (JSON)").click()
    download.value.save_as(tmp_path / "edit.json")
    saved = EditRequest.load(tmp_path / "edit.json")
    copied, pasted = saved.painted("object"), saved.painted("paste")
    assert (copied.image, pasted.image, [painted.image for painted in saved.key]) == (2, 28, [28])
    size = copied.mask.size[0]
    assert overlap(copied.mask.pixels > 127, stroke_mask(blue_eye, size)) > 0.93
    assert overlap(saved.key[0].mask.pixels > 127, stroke_mask(dark_eye, size)) > 0.93


def test_the_example_shows_a_rewritten_generator_without_painting(visitor: Page) -> None:
    press(visitor, "example-blue-eyes-panel")
    wait_text(visitor, r"loss", timeout=10)
    pairs = sources(visitor, "pairs")
    assert pairs[0::2] != pairs[1::2]


def test_one_visitors_rule_never_reaches_another(browser: Browser, address: str) -> None:
    with arrived(browser, address) as editor, arrived(browser, address) as onlooker:
        for page in (editor, onlooker):
            show(page, "Gallery")
        original = sources(onlooker, "gallery")
        assert sources(editor, "gallery") == original

        show(editor, "Paint")
        press(editor, "example-blue-eyes-panel")
        wait_text(editor, r"loss")
        press(editor, "keep")
        expect(editor.locator('[data-testid="stSidebar"]')).to_contain_text("Blue eyes")
        show(editor, "Gallery")
        edited = sources(editor, "gallery")
        assert len(edited) == len(original)
        assert sum(a != b for a, b in zip(edited, original, strict=True)) > 32
        show(onlooker, "Paint")
        show(onlooker, "Gallery")
        assert sources(onlooker, "gallery") == original
        expect(onlooker.locator('[data-testid="stSidebar"]')).not_to_contain_text("Blue eyes")


def test_an_edit_survives_leaving_the_page_and_undo_takes_it_back(visitor: Page) -> None:
    press(visitor, "example-blue-eyes-panel")
    wait_text(visitor, r"loss")
    visitor.get_by_role("link", name="Model").click()
    expect(visitor.locator(".st-key-samples img").first).to_be_visible(timeout=20_000)
    visitor.get_by_role("link", name="Rewriting").click()
    wait_text(visitor, r"loss")
    press(visitor, "undo")
    expect(visitor.locator("body")).not_to_contain_text(re.compile(r"elsewhere"), timeout=20_000)
    press(visitor, "redo")
    wait_text(visitor, r"elsewhere")


def test_a_picture_of_ones_own_is_chosen_by_its_name_and_painted_on(visitor: Page, tmp_path: Path) -> None:
    mine = OwnPicture.of("my portrait", torch.randn(128, generator=torch.Generator().manual_seed(0)), "z")
    EditRequest(object=Painted(mine, Mask.rectangle((64, 64), 20, 10, 30, 50))).save(tmp_path / "mine.json")
    press(visitor, "open-menu")
    visitor.locator(".st-key-open-file input[type=file]").set_input_files(tmp_path / "mine.json")
    expect(visitor.get_by_role("button", name="Remove mine.json")).to_be_visible(timeout=20_000)
    press(visitor, "open-file-now")
    cell = visitor.locator(".st-key-choice").get_by_role("option", name="my portrait", exact=True)
    expect(cell).to_be_visible(timeout=20_000)
    visitor.keyboard.press("Escape")
    cell.click()
    wait_text(visitor, "Picture my portrait, as the generator draws it")
    expect(cell).to_have_attribute("aria-selected", "true")
    for button in ("Paste", "Add to context"):
        paint(visitor, "edit", [(115.0, 150.0), (150.0, 150.0), (150.0, 210.0)], button)
    pick(visitor, 2)
    expect(cell).to_have_attribute("aria-selected", "false")
    press(visitor, "try")
    wait_text(visitor, "elsewhere")
    before, after = sources(visitor, "pairs")[:2]
    assert before != after


def test_a_published_edit_numbers_pictures_by_rows_says_so_and_can_be_left(visitor: Page) -> None:
    by_seed = sources(visitor, "choice")
    press(visitor, "open-menu")
    visitor.locator(".st-key-open-file input[type=file]").set_input_files(REFERENCE / "request.json")
    expect(visitor.get_by_role("button", name="Remove request.json")).to_be_visible(timeout=20_000)
    press(visitor, "open-file-now")
    sidebar = visitor.locator('[data-testid="stSidebar"]')
    expect(sidebar).to_contain_text("numbered as in the published interface", timeout=20_000)
    visitor.keyboard.press("Escape")
    first = visitor.locator(".st-key-choice img").first
    expect(first).not_to_have_attribute("src", by_seed[0], timeout=20_000)
    press(visitor, "try")
    wait_text(visitor, "elsewhere")
    press(visitor, "by-seed")
    expect(sidebar).not_to_contain_text("numbered as in the published interface", timeout=20_000)
    show(visitor, "Paint")
    expect(first).to_have_attribute("src", by_seed[0], timeout=20_000)


def test_search_shows_the_pictures_that_match_the_context(visitor: Page) -> None:
    pick(visitor, 28)
    paint(visitor, "edit", [(120.0, 180.0), (120.0, 215.0)], "Add to context")
    press(visitor, "search")
    wait_text(visitor, r"The 24 of 1,000 pictures", timeout=60)
    assert len(sources(visitor, "matches")) == 24


def test_bad_files_are_refused_in_one_line_and_the_app_stays_up(visitor: Page, tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    press(visitor, "open-menu")
    for name, complaint in files.items():
        visitor.locator(".st-key-open-file input[type=file]").set_input_files(tmp_path / name)
        expect(visitor.get_by_role("button", name=f"Remove {name}")).to_be_visible(timeout=20_000)
        press(visitor, "open-file-now")
        error = visitor.get_by_role("alert").filter(has_text=re.compile(complaint))
        expect(error).to_be_visible(timeout=20_000)
        icon, *lines = filter(None, error.inner_text().splitlines())
        assert (icon, len(lines)) == ("error", 1)
    assert not (tmp_path / "executed").exists()
    visitor.keyboard.press("Escape")
    press(visitor, "example-blue-eyes-panel")
    wait_text(visitor, "loss")


def bad_files(folder: Path) -> dict[str, str]:
    """Files that nobody should be able to open, and what the app has to say of each."""
    generator, other = open_generator("anime64-dcgan"), open_generator("face32-dcgan")
    rule = rewrite(generator, example_edit("blue-eyes")).rule
    rule.save(folder / "rule.safetensors")
    (folder / "truncated.safetensors").write_bytes((folder / "rule.safetensors").read_bytes()[:-100])
    (folder / "pickle.safetensors").write_bytes(pickle.dumps(Trap(str(folder / "executed"))))
    foreign = rule.provenance.model_copy(update={"model": other.name, "fingerprint": other.fingerprint})
    replace(rule, provenance=foreign).save(folder / "foreign.safetensors")
    replace(rule, delta=rule.delta * float("nan")).save(folder / "nan.safetensors")
    edit = example_edit("blue-eyes").to_dict()
    write_json(folder / "types.json", {**edit, "palimpsest": {**edit["palimpsest"], "rank": "many"}})
    write_json(folder / "layer.json", {**edit, "palimpsest": {**edit["palimpsest"], "layer": "l99"}})
    empty = Mask.from_array(np.zeros((64, 64), dtype=bool)).to_data_url()
    write_json(folder / "empty.json", {**edit, "paste": [28, empty]})
    (folder / "text.json").write_text("not JSON")
    return {
        "truncated.safetensors": "truncated",
        "pickle.safetensors": "pickle",
        "foreign.safetensors": f"{other.fingerprint[:12]}.*{generator.fingerprint[:12]}",
        "nan.safetensors": "NaN",
        "types.json": "rank is 'many'",
        "layer.json": "l99.*l02, l05, l08",
        "empty.json": "empty mask in paste",
        "text.json": "JSON",
    }


def test_a_pickle_uploaded_as_weights_is_refused_in_one_line_and_the_app_stays_up(
    visitor: Page, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Trap(str(tmp_path / "executed"))))
    shutil.copy(embedded_folder("anime64-dcgan") / "model.json", tmp_path)
    visitor.get_by_role("link", name="Model").click()
    expect(visitor.locator(".st-key-samples img").first).to_be_visible(timeout=20_000)
    upload = visitor.locator(".st-key-upload input[type=file]")
    upload.set_input_files([tmp_path / "model.json", tmp_path / "model.safetensors"])
    press(visitor, "open-upload")
    wait_text(visitor, r"pickle")
    assert not (tmp_path / "executed").exists()
    expect(visitor.locator(".st-key-samples img").first).to_be_visible()


def test_an_uploaded_generator_opens_and_is_edited_like_any_other(visitor: Page, tmp_path: Path) -> None:
    for name, content in from_sequential(small_stack(), name="small").files().items():
        (tmp_path / name).write_bytes(content)
    visitor.get_by_role("link", name="Model").click()
    upload = visitor.locator(".st-key-upload input[type=file]")
    upload.set_input_files([tmp_path / "model.json", tmp_path / "model.safetensors"])
    press(visitor, "open-upload")
    wait_text(visitor, "What small draws")
    visitor.get_by_role("link", name="Rewriting").click()
    for button in ("Copy", "Paste", "Add to context"):
        paint(visitor, "edit", [(100.0, 100.0), (250.0, 250.0)], button)
    press(visitor, "try")
    wait_text(visitor, "elsewhere", timeout=60)


def test_a_stylegan2_checkpoint_opens_by_upload_and_is_edited_and_truncated_like_any_other(
    visitor: Page,
) -> None:
    visitor.get_by_role("link", name="Model").click()
    upload = visitor.locator(".st-key-upload input[type=file]")
    upload.set_input_files(REFERENCE / "small_stylegan2.pt")
    press(visitor, "open-upload")
    wait_text(visitor, "What small_stylegan2 draws")
    whole = sources(visitor, "samples")
    slider = visitor.locator(".st-key-truncation input[type=range]")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowLeft")
    expect(visitor.locator(".st-key-samples img").first).not_to_have_attribute(
        "src", whole[0], timeout=20_000
    )
    visitor.get_by_role("link", name="Rewriting").click()
    for button in ("Copy", "Paste", "Add to context"):
        paint(visitor, "edit", [(100.0, 100.0), (250.0, 250.0)], button)
    press(visitor, "try")
    wait_text(visitor, "elsewhere", timeout=60)
    pairs = sources(visitor, "pairs")
    assert pairs[0::2] != pairs[1::2]


def test_given_pictures_are_compared_with_what_the_open_model_draws(visitor: Page, tmp_path: Path) -> None:
    pictures = open_generator().draw(LatentSpec.of(range(4)))
    np.savez(tmp_path / "same.npz", pictures=pictures, seeds=np.arange(4))
    np.savez(tmp_path / "mirrored.npz", pictures=pictures[:, :, ::-1], seeds=np.arange(4))
    visitor.get_by_role("link", name="Model").click()
    wait_text(visitor, "Nothing unusual in the weights")
    visitor.locator(".st-key-compare summary").click()
    for name, verdict in (
        ("same", "Same: 4 pictures, no difference"),
        ("mirrored", "the given pictures are mirrored"),
    ):
        visitor.locator(".st-key-given-pictures input[type=file]").set_input_files(tmp_path / f"{name}.npz")
        expect(visitor.locator(".st-key-given-pictures")).to_contain_text(f"{name}.npz")
        press(visitor, "compare-now")
        wait_text(visitor, verdict)


def small_stack() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose2d(16, 12, 4),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1),
        nn.Tanh(),
    )


class Trap:
    """A pickle that would leave a file behind if it were executed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (open, (self.path, "w"))
