"""Every control of the published interface is here, where the docs say it is, and does what it did there.

`CONTROLS` has the control, by the words on it, and the test that uses its counterpart in a browser or in an `AppTest`.
The table in `docs/from-the-published-code.md` says the same to readers.
"""

from __future__ import annotations

import ast
import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, expect
from streamlit.testing.v1 import AppTest

from dashboard.canvas import canvas_key, display_size
from dashboard.rewriting.selected import ROLE, sheet, snapshot_file
from dashboard.session import Session, embedded
from rewrite_core import EditRequest, LatentSpec, Mask, Painted, example_edit
from rewrite_core.memory import observe
from rewrite_core.rules.painted import painted_keys
from rewrite_core.statistics import layer_statistics
from tests.browser import APP, browsing, press, serve, wait_text
from tests.conftest import chromium_path
from tests.work import WAIT

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "from-the-published-code.md"
PUBLISHED = ROOT / "tests" / "reference" / "request.json"

CONTROLS = {
    "Images": "test_pictures_are_chosen_by_ranges",
    "Match Sel": "test_what_is_painted_is_matched_by_its_mean_key",
    "Search, query": "test_the_context_is_searched_and_its_matches_are_shown_in_any_picture",
    "Show Context Matches": "test_the_context_is_searched_and_its_matches_are_shown_in_any_picture",
    "Toggle Original": "test_original_and_changed_are_toggled",
    "Snap": "test_a_snapshot_is_the_selected_picture_as_it_is_drawn",
    "brush": "test_the_brush_has_the_chosen_width",
    "Copy, Paste, Add to Context": "test_regions_are_painted_and_tried",
    "Execute Change": "test_regions_are_painted_and_tried",
    "painting on the copy or the paste": "test_painting_anew_moves_the_paste_and_solves_again",
    "a press on the context, remove": "test_a_region_of_the_context_is_removed",
    "the tray's menu": "test_a_region_of_the_tray_is_taken_up_again",
    "show": "test_the_pictures_of_the_context_are_offered",
    "zero": "test_what_the_context_matches_is_removed",
    "Erase": "test_the_context_is_erased",
    "Overfit": "test_overfitting_changes_every_layer_from_the_edits_on",
    "rank": "test_another_rank_is_solved_at_once",
    "paste niter": "test_iterations_are_limited",
    "paste lr, proj every": "test_the_published_schedule_is_solved_with_its_three_numbers",
    "Revert": "test_revert_brings_the_loaded_generator_back",
    "Save": "test_an_edit_is_saved_and_written_in_the_published_format",
    "Load": "test_published_files_open",
    "masks of 256 and 1024 px": "test_published_files_open",
    "a file without context": "test_a_published_file_without_context_opens",
    "the query in a file": "test_what_is_painted_is_matched_by_its_mean_key",
}


# The page


@dataclass(frozen=True)
class Desk:
    """A visitor at the page Rewriting."""

    app: AppTest
    visitor: Session

    def run(self) -> None:
        """The next run, without errors."""
        self.app.run()
        assert not self.app.exception
        assert not self.app.error

    def settle(self) -> None:
        """Runs until nothing is solved or searched any more."""
        for job in (self.visitor.solving, self.visitor.searching):
            if job:
                assert job.wait(6 * WAIT)
        self.run()

    def press(self, key: str) -> None:
        """Press a button, and have what it began."""
        self.app.button(key=key).click()
        self.run()
        self.settle()

    def pressed(self, start: str) -> None:
        """Press the one button whose key begins so."""
        (key,) = [button.key for button in self.app.button if button.key and button.key.startswith(start)]
        assert key
        self.press(key)

    def select(self, number: int) -> None:
        """The browser reports a click on a picture beside the canvas."""
        stamp = self.sent("choice")["stamp"]
        self.app.session_state["choice"] = {"pick": {"stamp": stamp, "at": number + 1, "selected": number}}
        self.run()

    def stroke(self, mask: Mask) -> None:
        """The browser reports a drawing on the selected picture."""
        size = display_size(*self.visitor.generator.picture_size)
        drawn = np.asarray(Image.fromarray(mask.pixels).resize(size[::-1], Image.Resampling.NEAREST)) > 127
        rgba = np.zeros((*size, 4), np.uint8)
        rgba[drawn] = (255, 45, 120, 140)
        drawing = {"drawing": {"raw": {"objects": []}, "data": url(rgba)}, "backgroundFit": None}
        self.app.session_state[self.canvas] = drawing
        self.run()

    def paint(self, region: Painted, button: str) -> None:
        """Select a picture, paint on it, and press a button under the canvas."""
        assert isinstance(region.image, int)
        self.select(region.image)
        self.stroke(region.mask)
        self.press(f"paint-edit-{button}")

    @property
    def canvas(self) -> str:
        """The key of the canvas on screen."""
        keys = [canvas_key(ROLE, sheet(self.visitor), mount) for mount in range(20)]
        return [key for key in keys if key in self.app.session_state][-1]

    def sent(self, key: str) -> dict[str, Any]:
        """What the browser is given for a component."""
        (proto,) = [part.proto for part in self.app.get("bidi_component") if f"-{key}" in part.proto.id]
        data: dict[str, Any] = json.loads(proto.mixed.json or proto.json)
        return data

    def shown(self, key: str) -> dict[Any, dict[str, Any]]:
        """The pictures of a gallery by number."""
        return {picture["seed"]: picture for picture in self.sent(key)["pictures"]}

    def view(self, name: str) -> None:
        self.app.segmented_control(key="view").set_value(name)
        self.run()


def url(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def desk() -> Desk:
    """A visitor who has just arrived."""
    generator = embedded("anime64-dcgan")
    visitor = Session(generator, generator.default_layer)
    app = AppTest.from_file(str(ROOT / "pages" / "rewriting.py"), default_timeout=60)
    app.session_state["palimpsest"] = visitor
    desk = Desk(app, visitor)
    desk.run()
    return desk


@pytest.fixture
def painted(desk: Desk) -> Desk:
    """A visitor who has loaded an edit and has not tried it."""
    desk.visitor.load(example_edit("blue-eyes"), "Blue eyes")
    desk.run()
    return desk


EYE = example_edit("blue-eyes").painted("paste")
"""An eye of picture 28."""


# Choosing pictures


def test_pictures_are_chosen_by_ranges(desk: Desk):
    desk.app.text_input(key="seeds").set_value("200-212,5")
    desk.run()
    assert list(desk.shown("choice")) == [*range(200, 213), 5]


def test_what_is_painted_is_matched_by_its_mean_key(desk: Desk):
    visitor, generator = desk.visitor, desk.visitor.generator
    desk.paint(EYE, "Match")
    assert visitor.view == "Matches"
    assert visitor.matches
    assert visitor.draft.query
    statistics = layer_statistics(generator, visitor.layer)
    seen = observe(*painted_keys(generator, visitor.layer, EditRequest(), [visitor.draft.query]))
    mean = (seen.weights @ seen.keys) / seen.weights.sum()
    moment = statistics.second_moment
    ridge = 0.1 * moment.trace() / len(moment)
    query = torch.linalg.solve(moment + ridge * torch.eye(len(moment), dtype=moment.dtype), mean)
    best = visitor.matches.top(3)
    keys = generator.keys(generator.latents(LatentSpec.of(best)), visitor.layer).keys.double()
    heat = torch.einsum("nchw,c->nhw", keys, query / query.norm())
    torch.testing.assert_close(
        visitor.matches.scores[visitor.matches.order[:3]].double(), heat.amax((1, 2)), rtol=1e-3, atol=0
    )
    assert list(desk.shown("matches"))[:3] == best
    saved = json.loads(visitor.request().to_published().to_json())
    assert saved["query"][0] == 28
    assert visitor.unpainted


def test_a_match_solves_nothing_again_and_leaves_the_mask(painted: Desk):
    painted.press("try")
    trial = painted.visitor.trial
    painted.view("Paint")
    painted.paint(EYE, "Match")
    assert painted.visitor.trial is trial
    assert painted.visitor.view == "Matches"
    painted.view("Paint")
    assert not painted.app.button(key="paint-edit-Copy").disabled


def test_the_context_is_searched_and_its_matches_are_shown_in_any_picture(painted: Desk):
    painted.press("search")
    found = painted.visitor.matches
    assert found
    assert list(painted.shown("matches")) == found.top(24)
    painted.app.segmented_control(key="matched-which").set_value("by number")
    painted.run()
    best = found.top(1)[0]
    painted.app.text_input(key="matched-seeds").set_value(f"0-9,{best},2000")
    painted.run()
    outlined = painted.shown("matches")
    assert set(outlined) == {*range(10), best}
    captions = [caption.value for caption in painted.app.caption]
    assert "Searched were 0–999; others are left out." in captions
    painted.app.segmented_control(key="overlay").set_value("none")
    painted.run()
    bare = painted.shown("matches")
    lines = (white(outlined[best]["before"]) & ~white(bare[best]["before"])).sum()
    assert lines > 20


def white(picture: str) -> NDArray[np.bool_]:
    """Where a picture that the browser is given, which may be a JPEG, is about white."""
    return np.asarray((pixels(base64.b64decode(picture.partition(",")[2])) > 200).all(-1), dtype=np.bool_)


# Looking


def test_a_snapshot_is_the_selected_picture_as_it_is_drawn(painted: Desk):
    visitor = painted.visitor
    visitor.select(43)
    painted.run()
    assert [button.label for button in painted.app.download_button].count("Snapshot") == 1
    name, content = snapshot_file(visitor)
    assert name == "anime64-dcgan-43.png"
    np.testing.assert_array_equal(pixels(content), visitor.generator.draw(LatentSpec.of([43]))[0])
    painted.press("try")
    name, content = snapshot_file(visitor)
    assert name == "anime64-dcgan-43-edited.png"
    np.testing.assert_array_equal(pixels(content), visitor.edited().draw(LatentSpec.of([43]))[0])


def pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.browser
def test_original_and_changed_are_toggled(browser: Browser, tmp_path: Path):
    chromium_path()
    with serve(APP) as address, browsing(browser, address) as page:
        press(page, "example-blue-eyes-panel")
        wait_text(page, "loss", timeout=60)
        cell = page.locator(".st-key-pairs").get_by_role("option", name="seed 1000", exact=True)
        before, after = cell.locator("img.before"), cell.locator("img.after")
        expect(after).to_be_visible()
        views = page.locator(".st-key-pairs").get_by_role("group", name="view")
        views.get_by_role("button", name="Before", exact=True).click()
        expect(before).to_be_visible()
        expect(after).not_to_be_visible()
        views.get_by_role("button", name="After", exact=True).click()
        expect(after).to_be_visible()
        expect(before).not_to_be_visible()
        cell.hover()
        page.mouse.down()
        expect(before).to_be_visible()
        page.mouse.up()
        expect(before).not_to_be_visible()


# Painting


def test_the_brush_has_the_chosen_width(desk: Desk):
    desk.app.select_slider(key="brush").set_value(60)
    desk.run()
    assert desk.sent(desk.canvas)["strokeWidth"] == 60


def test_regions_are_painted_and_tried(desk: Desk):
    edit = example_edit("blue-eyes")
    desk.paint(edit.painted("object"), "Copy")
    desk.paint(edit.painted("paste"), "Paste")
    desk.paint(edit.painted("key"), "Add to context")
    assert desk.visitor.draft.object
    assert [region.image for region in desk.visitor.draft.key] == [28]
    desk.press("try")
    assert desk.visitor.trial
    assert desk.visitor.trial.solved.loss < desk.visitor.trial.solved.loss_before
    pairs = desk.shown("pairs")
    assert sum(picture["before"] != picture["after"] for picture in pairs.values()) > 12


def test_painting_anew_moves_the_paste_and_solves_again(painted: Desk):
    painted.press("try")
    first = painted.visitor.trial
    assert first
    painted.view("Paint")
    other = painted.visitor.draft.key[-1]
    painted.paint(other, "Paste")
    moved, second = painted.visitor.draft.painted("paste"), painted.visitor.trial
    assert moved.image == other.image == 13
    assert second
    assert second.rule.digest != first.rule.digest
    assert EditRequest.from_json(second.rule.provenance.request or {}).paste == moved


def test_a_region_of_the_context_is_removed(painted: Desk):
    before = painted.visitor.draft.key
    (last,) = [region for region in before if region.image == 0]
    painted.pressed(f"remove-key-{abs(hash(last)):x}")
    assert painted.visitor.draft.key == tuple(region for region in before if region != last)


def test_a_region_of_the_tray_is_taken_up_again(painted: Desk):
    (region,) = [region for region in painted.visitor.draft.key if region.image == 0]
    painted.visitor.view = "Gallery"
    painted.run()
    painted.pressed(f"select-key-{abs(hash(region)):x}")
    assert (painted.visitor.selected, painted.visitor.view) == (0, "Paint")
    painted.press("paint-edit-Paste")
    taken = painted.visitor.draft.painted("paste")
    assert taken.image == 0
    grid = (16, 16)
    np.testing.assert_allclose(taken.mask.area(grid), region.mask.area(grid), atol=0.02)


def test_the_pictures_of_the_context_are_offered(painted: Desk):
    painted.press("show-context")
    assert list(painted.shown("choice")) == [28, 6, 43, 0, 13]


# Solving


def test_what_the_context_matches_is_removed(painted: Desk):
    assert solved_as(painted, "remove").loss < 1e-3
    assert any("of the pattern left" in text.value for text in painted.app.markdown)


def test_the_context_is_erased(painted: Desk):
    solved = solved_as(painted, "erase")
    assert solved.loss < solved.loss_before


def solved_as(desk: Desk, operation: str) -> Any:
    desk.app.segmented_control(key="draft-operation").set_value(operation)
    desk.run()
    desk.press("try")
    assert desk.visitor.trial
    assert EditRequest.from_json(desk.visitor.trial.rule.provenance.request or {}).operation == operation
    return desk.visitor.trial.solved


def test_another_rank_is_solved_at_once(painted: Desk):
    painted.press("try")
    painted.app.number_input(key="draft-rank").set_value(3)
    painted.run()
    painted.settle()
    assert painted.visitor.trial
    assert painted.visitor.trial.rule.rank == 3


def test_iterations_are_limited(painted: Desk):
    painted.app.number_input(key="draft-solver-iterations").set_value(2)
    painted.run()
    painted.press("try")
    assert painted.visitor.trial
    assert painted.visitor.trial.solved.iterations == 2


def test_revert_brings_the_loaded_generator_back(painted: Desk):
    original = painted.visitor.generator
    painted.press("try")
    painted.press("keep")
    assert painted.visitor.edited().fingerprint != original.fingerprint
    painted.press("revert")
    assert painted.visitor.edited().fingerprint == original.fingerprint
    assert not painted.visitor.rules.entries


def compare() -> None:
    """What the view Compare has besides our own comparison."""
    from dashboard.rewriting.as_published import as_published
    from dashboard.session import session

    as_published(session())


@pytest.fixture
def published_solvers(painted: Desk) -> Desk:
    """A visitor with an edit at the published solvers."""
    app = AppTest.from_function(compare, default_timeout=60)
    app.session_state["palimpsest"] = painted.visitor
    desk = Desk(app, painted.visitor)
    desk.run()
    return desk


def test_the_published_schedule_is_solved_with_its_three_numbers(published_solvers: Desk):
    desk = published_solvers
    assert [field.value for field in desk.app.number_input] == [2001, 0.05, 10]
    rules = []
    for iterations, rate, every in ((20, 0.05, 10), (10, 0.05, 10), (20, 0.01, 10), (20, 0.05, 3)):
        fields = desk.app.number_input
        for field, value in zip(fields, (iterations, rate, every), strict=True):
            field.set_value(value)
        desk.app.button(key="published-solve").click()
        kept(desk)
        (rule,) = [entry.rule for entry in desk.visitor.stack.entries][-1:]
        assert (rule.name, rule.rank) == (f"published schedule at {desk.visitor.layer}", 1)
        rules.append(rule)
        assert any(f"after {iterations} steps" in text.value for text in desk.app.markdown)
    assert len({rule.digest for rule in rules}) == 4


def test_overfitting_changes_every_layer_from_the_edits_on(published_solvers: Desk):
    desk = published_solvers
    desk.app.segmented_control(key="published-way").set_value("Overfit")
    desk.run()
    assert desk.app.number_input(key="published-every").disabled
    desk.app.number_input(key="published-iterations-Overfit").set_value(3)
    desk.app.button(key="published-solve").click()
    kept(desk)
    layers = list(desk.visitor.generator.layers)
    changed = layers[layers.index(desk.visitor.layer) :]
    assert [rule.layer for rule in desk.visitor.stack.active] == changed


def kept(desk: Desk) -> None:
    """Keep what is being solved, once it is."""
    desk.run()
    assert desk.visitor.asked["as published"].job.wait(WAIT)
    desk.run()
    desk.app.button(key="published-keep").click()
    desk.run()


# Files


def opened(desk: Desk, content: str) -> EditRequest:
    """The draft once a visitor has opened a file."""
    desk.app.file_uploader(key="open-file").set_value(("edit.json", content.encode(), "application/json"))
    desk.run()
    desk.press("open-file-now")
    return desk.visitor.draft


def published(size: int) -> dict[str, Any]:
    """A file of that interface, with masks of `size` pixels a side."""
    edit = example_edit("blue-eyes")
    parts = {"object": edit.painted("object"), "paste": edit.painted("paste")}
    data: dict[str, Any] = {name: entry(region, size) for name, region in parts.items()}
    return data | {"key": [entry(region, size) for region in edit.key[2:4]]}


def entry(region: Painted, size: int) -> list[Any]:
    return [region.image, region.mask.resized((size, size)).to_data_url()]


@pytest.mark.parametrize("size", [256, 1024])
def test_published_files_open(desk: Desk, size: int):
    draft = opened(desk, json.dumps(published(size)))
    assert draft.painted("object").mask.size == (size, size)
    assert draft.latents.scheme == "rows"
    assert [region.image for region in draft.key] == [6, 6]
    assert not desk.app.button(key="try").disabled


def test_a_published_file_without_context_opens(desk: Desk):
    data = published(256)
    del data["key"]
    draft = opened(desk, json.dumps(data))
    assert draft.key == (draft.painted("paste"),)
    desk.press("try")
    assert desk.visitor.trial


def test_an_edit_is_saved_and_written_in_the_published_format(desk: Desk):
    data = json.loads(PUBLISHED.read_text())
    draft = opened(desk, json.dumps(data))
    assert {"Edit (JSON)", "Edit, published format (JSON)"} <= {
        button.label for button in desk.app.download_button
    }
    written = draft.to_published()
    assert written.warning == ""
    assert EditRequest.from_json(written.to_json()) == draft
    assert EditRequest.from_json(desk.visitor.request().to_json()).key == draft.key


# The table


def table() -> dict[str, str]:
    """The docs' table: control → test."""
    section = DOCS.read_text(encoding="utf-8").split("## Every control of its interface")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): cells[-1].strip(" `") for cells in rows[1:]}


def own_tests() -> dict[str, ast.FunctionDef]:
    """The tests that pytest collects of this file: top-level functions of that name."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_the_docs_have_every_control_with_the_test_that_uses_it():
    assert table() == CONTROLS


@pytest.mark.parametrize("control", CONTROLS)
def test_every_control_has_a_test_in_a_browser_or_an_apptest(control: str, request: pytest.FixtureRequest):
    test = own_tests()[CONTROLS[control]]
    assert callable(request.module.__dict__[test.name])
    used = {argument.arg for argument in test.args.args}
    assert used & {"desk", "painted", "published_solvers", "browser"}
