"""A visitor's own picture on the page Rewriting: chosen, painted on, tried, undone, saved, loaded, searched with."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.canvas import canvas_key
from dashboard.session import MOST_OWN, Session
from rewrite_core import EditRequest, OwnPicture
from rewrite_core.errors import RequestError
from rewrite_core.generators.own import PictureId, key_of
from rewrite_core.pictures import encode_png
from tests.generators import PLAIN, painted, small_generator, some_rule
from tests.work import WAIT

ROOT = Path(__file__).parents[1]


MINE = OwnPicture.of("mine", torch.randn(8, generator=torch.Generator().manual_seed(0)), "z")


@pytest.fixture
def visitor() -> Session:
    """Someone who has a picture and has chosen it."""
    session = Session(small_generator(), PLAIN, own=(MINE,))
    session.select(MINE)
    return session


def visit(session: Session, page: str = "rewriting.py") -> AppTest:
    app = AppTest.from_file(str(ROOT / "pages" / page), default_timeout=60)
    app.session_state["palimpsest"] = session
    app.run()
    assert not app.exception
    return app


def sent(app: AppTest, key: str) -> dict[str, Any]:
    """What the browser is given to show in a gallery."""
    (proto,) = [part.proto for part in app.get("bidi_component") if f"-{key}" in part.proto.id]
    data: dict[str, Any] = json.loads(proto.mixed.json or proto.json)
    return data


def pick(app: AppTest, key: str, image: PictureId) -> None:
    """The browser reports a click."""
    app.session_state[key] = {"pick": {"stamp": sent(app, key)["stamp"], "at": 1, "selected": key_of(image)}}
    app.run()


def paint(app: AppTest, session: Session, *buttons: str) -> None:
    """Paint a square on the selected picture with a stroke, for each button anew, and press it."""
    counted = f"{session.truncation}-{session.label}-" if isinstance(session.selected, int) else ""
    image = f"{session.generator.fingerprint[:8]}-{counted}{key_of(session.selected)}"
    for button in buttons:
        rgba = np.zeros((432, 432, 4), np.uint8)
        rgba[100:300, 100:300] = (255, 45, 120, 140)
        file = io.BytesIO()
        Image.fromarray(rgba).save(file, format="PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        mounts = [mount for mount in range(9) if canvas_key("edit", image, mount) in app.session_state]
        drawing = {"drawing": {"raw": {"objects": []}, "data": url}, "backgroundFit": None}
        app.session_state[canvas_key("edit", image, mounts[-1])] = drawing
        app.run()
        app.button(key=f"paint-edit-{button}").click().run()
        assert not app.exception


def tried(session: Session) -> AppTest:
    """A visit in which the visitor paints on their picture and on number 3, and tries it."""
    app = visit(session)
    paint(app, session, "Paste", "Add to context")
    pick(app, "choice", 3)
    paint(app, session, "Copy")
    app.button(key="try").click().run()
    if session.solving:
        assert session.solving.wait(WAIT)
        app.run()
    assert session.trial
    return app


def test_it_is_first_among_the_pictures_and_can_be_chosen(visitor):
    app = visit(visitor)
    first, second = sent(app, "choice")["pictures"][:2]
    assert (first["seed"], first["name"], second["seed"], "name" in second) == (
        key_of(MINE),
        "mine",
        0,
        False,
    )
    assert sent(app, "choice")["selected"] == key_of(MINE)
    assert "Picture mine, as the generator draws it without rules." in [text.value for text in app.caption]


def test_it_can_be_painted_on_tried_and_kept(visitor):
    app = tried(visitor)
    assert visitor.draft.paste
    assert [part.image for part in (visitor.draft.paste, *visitor.draft.key)] == [MINE, MINE]
    assert visitor.draft.object
    assert visitor.draft.object.image == 3
    shown = sent(app, "pairs")["pictures"][0]
    assert shown["name"] == "mine"
    assert shown["before"] != shown["after"]
    app.button(key="keep").click().run()
    (rule,) = visitor.stack.active
    assert EditRequest.from_json(rule.provenance.request or {}).own == (MINE,)


def test_undo_takes_the_trial_back_and_redo_brings_it_again(visitor):
    app = tried(visitor)
    app.button(key="undo").click().run()
    shown = sent(app, "pairs")["pictures"][0]
    assert shown["before"] == shown["after"]
    app.button(key="redo").click().run()
    shown = sent(app, "pairs")["pictures"][0]
    assert shown["before"] != shown["after"]
    assert visitor.tried == visitor.request()  # so a change of the rank is solved again


def test_a_region_painted_on_it_is_removed_in_the_tray(visitor):
    app = visit(visitor)
    paint(app, visitor, "Copy")
    (cross,) = [button for button in app.button if button.key and button.key.startswith("remove-object")]
    assert cross.label == "mine"
    cross.click().run()
    assert visitor.unpainted


def test_its_context_is_searched(visitor):
    app = visit(visitor)
    paint(app, visitor, "Add to context")
    app.button(key="search").click().run()
    if visitor.searching:
        assert visitor.searching.wait(WAIT)
        app.run()
    assert len(sent(app, "matches")["pictures"]) == 24


def test_a_saved_edit_is_loaded_by_another_visitor_with_the_picture(visitor):
    tried(visitor)
    saved = visitor.request().to_json()
    other = Session(small_generator(), PLAIN)
    other.load(EditRequest.from_json(saved), "Mine")
    assert (other.own, other.draft) == ((MINE,), EditRequest.from_json(saved))
    np.testing.assert_array_equal(other.pictures([MINE]), visitor.pictures([MINE]))
    assert sent(visit(other), "choice")["pictures"][0]["name"] == "mine"


def test_an_edit_whose_picture_does_not_fit_changes_nothing(visitor):
    strange = OwnPicture.of("strange", torch.zeros(9), "z")
    edit = EditRequest(object=painted(strange, 2, 2, 9, 9))
    with pytest.raises(RequestError, match="picture 'strange' of latents"):
        visitor.load(edit, "Strange")
    assert (visitor.own, visitor.unpainted) == ((MINE,), True)


def test_it_is_drawn_under_the_rules_among_the_others(visitor):
    visitor.add(some_rule(visitor.generator))
    pictures = visitor.pictures((3, MINE, 4), edited=True)
    view = visitor.edited()
    np.testing.assert_array_equal(pictures[1], view.draw(MINE.latents(view))[0])
    np.testing.assert_array_equal(pictures[[0, 2]], visitor.pictures((3, 4), edited=True))
    app = visit(visitor, "rewriting.py")
    app.segmented_control(key="view").set_value("Gallery").run()
    assert not app.exception
    assert [item["seed"] for item in sent(app, "gallery")["pictures"][:2]] == [key_of(MINE), 0]


def test_truncation_moves_the_numbered_pictures_alone(visitor):
    before = visitor.pictures((MINE, 3))
    visitor.truncation = 0.2
    after = visitor.pictures((MINE, 3))
    assert [bool((old == new).all()) for old, new in zip(before, after, strict=True)] == [True, False]


def test_the_newest_pictures_stay_to_choose_from(visitor):
    found = [OwnPicture.of(f"{index}", torch.full((8,), float(index)), "z") for index in range(MOST_OWN)]
    for picture in (*found, found[3]):
        visitor.adopt([picture])
    assert len(visitor.own) == MOST_OWN
    assert visitor.own[:2] == (found[3], found[-1])
    assert MINE not in visitor.own


def test_they_are_gone_with_their_generator(visitor):
    visitor.open(small_generator())
    assert (visitor.own, visitor.selected) == ((), 0)


def test_a_name_cannot_become_a_link(visitor):
    visitor.adopt([OwnPicture.of("[x](http://e)", MINE.tensor, "z")])
    visitor.select(visitor.own[0])
    app = visit(visitor)
    paint(app, visitor, "Copy")
    labels = [button.label for button in app.button if button.key and button.key.startswith("remove-object")]
    assert labels == [r"\[x\]\(http\://e\)"]


def test_figures_show_it_and_the_command_names_the_numbered(visitor):
    visitor.add(some_rule(visitor.generator))
    visitor.view = "Before | after"
    app = visit(visitor)
    app.segmented_control(key="save-format").set_value("PNG").run()
    assert not app.exception
    assert any(
        text.value == "The numbered pairs from a terminal, with the files above" for text in app.caption
    )
    assert "--seeds 1000-1023" in app.code[0].value


def test_a_picture_projected_on_the_page_model_waits_on_the_page_rewriting():
    session = Session(small_generator(), PLAIN, view="Gallery")
    app = visit(session, "model.py")
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    app.file_uploader(key="own-picture").set_value(("mine.png", encode_png(picture), "image/png")).run()
    app.slider(key="project-steps").set_value(10).run()
    app.button(key="project").click().run()
    assert session.projecting
    assert session.projecting.wait(WAIT)
    app.run()
    (mine,) = session.own
    assert (mine.name, session.selected, session.view) == ("mine", mine, "Paint")
    assert session.projected
    np.testing.assert_array_equal(session.pictures([mine])[0], session.projected.found.picture)
    assert sent(visit(session), "choice")["selected"] == key_of(mine)
