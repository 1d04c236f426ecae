"""Beside the canvas: growing a mask by a slider; and context and protected regions from a concept."""

from __future__ import annotations

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.canvas import PaintedMask
from dashboard.session import Session


def canvas_page() -> None:
    import numpy as np
    import streamlit as st

    from dashboard.canvas import enter_page, load_mask, paint
    from dashboard.rewriting.grown import grow_to_similar
    from dashboard.rewriting.tools import tool_choice
    from dashboard.session import session

    enter_page("rewriting")
    visitor = session()
    if "begin" in st.session_state:
        mask = np.zeros((384, 384), bool)
        mask[st.session_state.pop("begin")] = True
        load_mask("edit", "4", mask)
    tool, brush = tool_choice()
    picture = visitor.pictures([4])[0]
    painted = paint(picture, role="edit", image="4", tool=tool, brush=brush)
    st.session_state["painted"] = painted
    grow_to_similar(visitor, "edit", "4", 4, painted)


def concept_page() -> None:
    import streamlit as st

    from dashboard.rewriting.from_concept import _content, concept_menu
    from dashboard.session import session

    visitor = session()
    if st.session_state.get("open"):
        _content(visitor)  # AppTest opens no popover
    concept_menu(visitor)


HAIR = (slice(0, 120), slice(120, 300))


@pytest.fixture
def app() -> AppTest:
    app = AppTest.from_function(canvas_page, default_timeout=30)
    app.session_state["begin"] = HAIR
    return app.run()


def mask_of(app: AppTest) -> np.ndarray:
    assert not app.exception
    painted: PaintedMask = app.session_state["painted"]
    return painted.mask


def slide(app: AppTest, similarity: float) -> np.ndarray:
    app.slider(key="grow-edit-similarity").set_value(similarity).run()
    return mask_of(app)


def grow(app: AppTest) -> np.ndarray:
    app.button(key="grow-edit-now").click().run()
    return mask_of(app)


def test_the_slider_grows_and_shrinks_what_was_painted_in_one_step_of_undo(app):
    seed = mask_of(app)
    slide(app, 0.4)
    assert np.array_equal(mask_of(app), seed)  # nothing happens before the button
    first = grow(app)
    assert first.sum() > seed.sum()
    assert not (seed & ~first).any()
    assert slide(app, 0.2).sum() > first.sum()
    assert np.array_equal(slide(app, 0.4), first)
    assert np.array_equal(slide(app, 1.0), seed)
    slide(app, 0.2)
    app.button(key="paint-edit-Undo").click().run()
    assert np.array_equal(mask_of(app), seed)
    assert np.array_equal(slide(app, 0.3), seed)  # taken back: the slider waits for the button again


def test_anywhere_finds_what_does_not_touch(app):
    slide(app, 0.4)
    near = grow(app)
    app.segmented_control(key="grow-edit-where").set_value("anywhere").run()
    anywhere = mask_of(app)
    assert not (near & ~anywhere).any()
    assert anywhere.sum() > near.sum()


def test_what_is_painted_after_growing_is_where_the_button_starts_from(app):
    slide(app, 0.4)
    grow(app)
    app.session_state["begin"] = (slice(300, 330), slice(0, 30))
    app.run()
    seed = mask_of(app)
    assert seed.sum() == 30 * 30
    slide(app, 0.9)
    assert np.array_equal(mask_of(app), seed)
    assert not (seed & ~grow(app)).any()


def test_an_empty_mask_cannot_grow():
    app = AppTest.from_function(canvas_page, default_timeout=30).run()
    assert app.button(key="grow-edit-now").disabled


def test_a_concept_becomes_context_and_protected_regions_and_offers_contrast():
    app = AppTest.from_function(concept_page, default_timeout=30)
    app.session_state["open"] = True
    app.run()
    app.selectbox(key="concept-context-name").set_value("eyes").run()
    app.number_input(key="concept-context-count").set_value(2).run()
    assert not [toggle for toggle in app.toggle if toggle.key == "contrast-concept"]
    app.button(key="concept-context-key").click().run()
    visitor: Session = app.session_state["palimpsest"]
    assert len(visitor.draft.key) == 2
    assert not visitor.draft.protect
    app.selectbox(key="concept-context-name").set_value("hair").run()
    app.button(key="concept-context-protect").click().run()
    assert len(visitor.draft.protect) == 2
    assert visitor.draft.direction.contrast == 0
    app.toggle(key="contrast-concept").set_value(True).run()
    assert visitor.draft.direction.contrast == 3
    app.button(key="concept-context-protect").click().run()
    assert len(visitor.draft.protect) == 2  # the same regions are not added twice
    assert not app.exception


def test_another_source_has_other_names():
    app = AppTest.from_function(concept_page, default_timeout=30)
    app.session_state["open"] = True
    app.run()
    app.selectbox(key="concept-context-source").set_value("colours").run()
    assert "red" in app.selectbox(key="concept-context-name").options
    assert not app.exception
