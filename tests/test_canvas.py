"""The painting canvas: what reaches Python as a mask, and whose strokes survive what.

`AppTest` runs no JavaScript. What the browser would send is put into the component's state, under `canvas_key`, as
`{"drawing": {"raw": <Fabric JSON>, "data": <PNG data URL>}, "backgroundFit": None}`; what the browser would be given
is read from the element's protobuf.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.canvas import PaintedMask, canvas_key, display_size

SHOWN = 384  # a 64 px picture, six times as large


def page() -> None:
    import numpy as np
    import streamlit as st

    from dashboard.canvas import enter_page, load_mask, paint

    shown = st.session_state.get("page", "rewriting")
    enter_page(shown)
    if shown == "stops early":  # Streamlit then keeps the canvas's state
        st.stop()
    seed, role = st.session_state.get("seed", 3), st.session_state.get("role", "copy")
    if "load" in st.session_state:
        again = st.session_state.get("again", False)
        load_mask(role, f"seed {seed}", st.session_state.pop("load"), again=again)
    picture = np.full((64, 64, 3), seed, np.uint8)
    tool = st.session_state.get("tool", "brush")
    if shown == "rewriting":
        st.session_state["painted"] = paint(
            picture, role=role, image=f"seed {seed}", tool=tool, brush=20, buttons=("Copy", "Add to context")
        )


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_function(page).run()


def strokes(mask: NDArray[np.bool_], alpha: int = 140) -> str:
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[mask] = (255, 45, 120, alpha)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def rubbed(mask: NDArray[np.bool_], rubber: NDArray[np.bool_]) -> str:
    """Strokes under those of the eraser, blended as a browser does."""
    over, under = 153 / 255 * rubber, 140 / 255 * mask
    alpha = over + under * (1 - over)
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    for channel, ink in enumerate((255, 45, 120)):
        mixed = 255 * over + ink * under * (1 - over)
        rgba[..., channel] = (mixed / np.where(alpha > 0, alpha, 1)).round()
    rgba[..., 3] = (255 * alpha).round()
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def send(app: AppTest, pixels: str, mount: int = 0) -> None:
    """The browser sends pixels, whatever is drawn."""
    raw = {"objects": [{"type": "Path"}], "background": ""}
    state = {"drawing": {"raw": raw, "data": pixels}, "backgroundFit": None}
    app.session_state[canvas_key("copy", "seed 3", mount)] = state
    app.run()


def with_tool(app: AppTest, tool: str) -> None:
    app.session_state["tool"] = tool
    app.run()


def box(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((SHOWN, SHOWN), bool)
    mask[top:bottom, left:right] = True
    return mask


def draw(
    app: AppTest,
    mask: NDArray[np.bool_],
    *,
    mount: int = 0,
    image: str = "seed 3",
    role: str = "copy",
    **ink: int,
) -> dict[str, Any]:
    """The browser sends a drawing; its JSON."""
    raw = {"objects": [{"type": "Path", "path": [["M", int(mask.sum()), 0]]}], "background": ""}
    state = {"drawing": {"raw": raw, "data": strokes(mask, **ink)}, "backgroundFit": None}
    app.session_state[canvas_key(role, image, mount)] = state
    app.run()
    return raw


def press(app: AppTest, label: str) -> None:
    app.button(key=f"paint-copy-{label}").click().run()


def painted(app: AppTest) -> PaintedMask:
    assert not app.exception
    result: PaintedMask = app.session_state["painted"]
    return result


def given(app: AppTest) -> dict[str, Any]:
    """What the browser is given."""
    proto = app.get("bidi_component")[0].proto
    data: dict[str, Any] = json.loads(proto.mixed.json or proto.json)
    return data


def mounted(app: AppTest, mount: int, image: str = "seed 3", role: str = "copy") -> bool:
    return canvas_key(role, image, mount) in app.session_state


def test_a_canvas_starts_empty_and_its_buttons_wait_for_paint(app):
    assert painted(app).empty
    assert painted(app).mask.shape == (SHOWN, SHOWN)
    assert app.caption[0].value == "mask 0 px · drag over the picture"
    assert all(button.disabled for button in app.button)


def test_the_mask_is_the_alpha_of_the_strokes(app):
    drawn = box(60, 120, 180, 240)
    draw(app, drawn)
    assert np.array_equal(painted(app).mask, drawn)
    assert painted(app).mask.dtype == bool


def test_a_pixel_less_than_half_covered_is_not_painted(app):
    draw(app, box(0, 0, 10, 10), alpha=60)
    assert painted(app).empty


def test_the_area_is_counted_in_the_pictures_own_pixels(app):
    draw(app, box(0, 0, 6 * 10, 6 * 20))
    assert painted(app).area == 200
    assert painted(app).share == pytest.approx(200 / 64**2)
    assert app.caption[0].value == "mask 200 px · 4.9 %"


def test_the_smallest_dot_counts_as_one_pixel():
    mask = np.zeros((SHOWN, SHOWN), bool)
    mask[5, 5] = True
    assert PaintedMask(mask, (64, 64)).area == 1


def test_a_button_pressed_is_reported_once(app):
    draw(app, box(0, 0, 60, 60))
    press(app, "Add to context")
    assert painted(app).pressed == "Add to context"
    assert painted(app).area == 100
    assert painted(app.run()).pressed is None


def test_what_the_browser_is_given_stays_the_same_while_it_draws(app):
    before = given(app)
    draw(app, box(0, 0, 60, 60))
    assert given(app) == before


@pytest.mark.parametrize("other", ["model", "stops early"])
def test_strokes_come_back_after_another_page(app, other):
    drawn = box(60, 120, 180, 240)
    raw = draw(app, drawn)
    for shown in (other, "rewriting"):
        app.session_state["page"] = shown
        app.run()
    assert np.array_equal(painted(app).mask, drawn)
    assert mounted(app, 1)
    assert given(app)["initialDrawing"]["objects"] == raw["objects"]


def test_more_strokes_join_those_that_came_back(app):
    draw(app, box(0, 0, 60, 60))
    for shown in ("model", "rewriting"):
        app.session_state["page"] = shown
        app.run()
    before = given(app)
    draw(app, box(0, 0, 120, 60), mount=1)
    assert painted(app).area == 200
    assert given(app) == before


def test_each_picture_and_each_role_keeps_its_own_strokes(app):
    draw(app, box(0, 0, 60, 60))
    app.session_state["seed"] = 4
    assert painted(app.run()).empty
    draw(app, box(0, 0, 120, 60), image="seed 4")
    app.session_state["seed"] = 3
    assert painted(app.run()).area == 100
    app.session_state["role"] = "paste"
    assert painted(app.run()).empty


def test_undo_takes_back_one_stroke_after_the_other(app):
    first, second = box(0, 0, 60, 60), box(0, 0, 60, 120)
    raw = draw(app, first)
    draw(app, second)
    press(app, "Undo")
    assert np.array_equal(painted(app).mask, first)
    assert given(app)["initialDrawing"]["objects"] == raw["objects"]
    press(app, "Undo")
    assert painted(app).empty
    assert "paint-copy-Undo" not in [button.key for button in app.button]


def test_clear_starts_a_new_mount_and_undo_takes_it_back(app):
    drawn = box(0, 0, 60, 60)
    draw(app, drawn)
    press(app, "Clear")
    assert painted(app).empty
    assert mounted(app, 1)
    assert given(app)["initialDrawing"]["objects"] == []
    press(app, "Undo")
    assert np.array_equal(painted(app).mask, drawn)


def test_painting_goes_on_after_undo(app):
    draw(app, box(0, 0, 60, 60))
    press(app, "Clear")
    drawn = box(300, 300, 360, 384)
    draw(app, drawn, mount=1)
    assert np.array_equal(painted(app).mask, drawn)


def test_what_the_eraser_covers_is_not_painted(app):
    drawn, rubber = box(60, 60, 180, 180), box(0, 120, 384, 200)
    draw(app, drawn)
    with_tool(app, "erase")
    assert np.array_equal(painted(app).mask, drawn)
    send(app, rubbed(drawn, rubber))
    assert np.array_equal(painted(app).mask, drawn & ~rubber)
    assert not mounted(app, 1)  # a new mount would lose a stroke that is under way


def test_the_next_tool_starts_from_what_the_eraser_left(app):
    drawn, rubber = box(60, 60, 180, 180), box(0, 120, 384, 200)
    draw(app, drawn)
    with_tool(app, "erase")
    send(app, rubbed(drawn, rubber))
    with_tool(app, "brush")
    assert mounted(app, 1)
    [picture] = given(app)["initialDrawing"]["objects"]
    assert picture["src"] == strokes(drawn & ~rubber)
    send(app, strokes(drawn), mount=1)  # painted over what was erased
    assert np.array_equal(painted(app).mask, drawn)
    press(app, "Undo")
    assert np.array_equal(painted(app).mask, drawn & ~rubber)
    press(app, "Undo")
    assert np.array_equal(painted(app).mask, drawn)
    press(app, "Undo")
    assert painted(app).empty


def test_a_component_that_repeats_what_it_was_given_adds_no_step_of_undo(app):
    drawn = box(60, 60, 180, 180)
    app.session_state["load"] = drawn
    app.run()
    send(app, strokes(drawn, alpha=141), mount=1)
    press(app, "Undo")
    assert painted(app).empty


def test_masks_loaded_again_are_one_step_of_undo(app):
    drawn = box(0, 0, 60, 60)
    draw(app, drawn)
    for side, again in ((90, False), (120, True), (150, True)):
        app.session_state["again"] = again
        app.session_state["load"] = box(0, 0, side, side)
        app.run()
        assert painted(app).mask.sum() == side**2
    press(app, "Undo")
    assert np.array_equal(painted(app).mask, drawn)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_a_loaded_mask_of_any_size_and_type_is_painted(app, kind):
    mask = np.zeros((32, 32), kind)
    mask[8:16, 4:12] = np.iinfo(kind).max if kind is np.uint8 else 1
    app.session_state["load"] = mask
    app.run()
    assert np.array_equal(painted(app).mask, box(96, 48, 192, 144))
    [picture] = given(app)["initialDrawing"]["objects"]
    assert (picture["type"], picture["scaleX"], picture["width"]) == ("Image", 12, 32)


def test_loading_the_same_mask_again_replaces_what_was_painted_since(app):
    mask = np.ones((8, 8), bool)
    app.session_state["load"] = mask
    app.run()
    draw(app, box(0, 0, 60, 60), mount=1)
    app.session_state["load"] = mask
    assert painted(app.run()).share == 1


def test_a_mask_too_large_to_decode_is_refused(app):
    app.session_state["load"] = np.ones((1, 5000), bool)
    app.run()
    assert "expected at most 4096 a side" in app.exception[0].message


@pytest.mark.parametrize(
    ("tool", "mode"),
    [("brush", "freedraw"), ("rectangle", "rect"), ("polygon", "polygon"), ("erase", "freedraw")],
)
def test_every_tool_has_its_mode(app, tool, mode):
    app.session_state["tool"] = tool
    app.run()
    assert given(app)["drawingMode"] == mode
    assert given(app)["strokeWidth"] == {"brush": 20, "rectangle": 0, "polygon": 1, "erase": 20}[tool]


def test_a_small_picture_is_enlarged_without_blur(app):
    encoded = base64.b64decode(given(app)["backgroundImageURL"].split(",")[1])
    shown = np.asarray(Image.open(io.BytesIO(encoded)))
    assert shown.shape == (SHOWN, SHOWN, 3)
    assert (shown == 3).all()


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        ((32, 32), (416, 416)),
        ((64, 64), (384, 384)),
        ((128, 128), (384, 384)),
        ((256, 256), (416, 416)),
        ((1024, 512), (416, 208)),
    ],
)
def test_pictures_are_shown_at_a_size_that_fits_the_page(picture, shown):
    assert display_size(*picture) == shown
