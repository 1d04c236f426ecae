"""Scale, flip, pixels and further examples on the page Rewriting, and the edit for the published interface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.session import Session
from rewrite_core import EditRequest
from rewrite_core.directions.units import unit_direction
from rewrite_core.pictures import encode_png
from rewrite_core.rules.example import Example
from rewrite_core.rules.request import Patch
from tests.generators import PLAIN, painted, small_generator
from tests.work import WAIT

ROOT = Path(__file__).parents[1]
PAIR = EditRequest(
    object=painted(1, 2, 2, 8, 8), paste=painted(2, 6, 6, 10, 10), key=(painted(2, 4, 4, 12, 12),)
)


@pytest.fixture
def visitor() -> Session:
    """Someone who has painted copy, paste and context."""
    return Session(small_generator(), PLAIN, draft=PAIR)


def visit(session: Session) -> AppTest:
    app = AppTest.from_file(str(ROOT / "pages" / "rewriting.py"), default_timeout=60)
    app.session_state["palimpsest"] = session
    return well(app.run())


def well(app: AppTest) -> AppTest:
    assert not app.exception
    assert not app.error
    return app


def solved(app: AppTest, session: Session) -> AppTest:
    """The page once what is being solved is there."""
    if session.solving is not None:
        assert session.solving.wait(WAIT)
    return well(app.run())


def keyed(app: AppTest, start: str) -> dict[str, str]:
    """Key → label of the buttons whose keys begin so."""
    return {button.key: button.label for button in app.button if button.key and button.key.startswith(start)}


def text(app: AppTest) -> str:
    return "\n".join(part.value for part in (*app.markdown, *app.caption)).replace("\\", "")


def test_scale_and_flip_are_set_beside_the_paste_and_solved_again_at_once(visitor: Session):
    app = visit(visitor)
    app = solved(app.button(key="try").click().run(), visitor)
    before = visitor.trial
    app.select_slider(key="paste-scale").set_value(1.5).run()
    app.toggle(key="paste-flip-across").set_value(True).run()
    app.toggle(key="paste-flip-down").set_value(True).run()
    assert (visitor.draft.scale, visitor.draft.flip) == (1.5, "both")
    app = solved(app, visitor)
    assert visitor.trial is not before
    app.toggle(key="paste-flip-across").set_value(False).run()
    assert visitor.draft.flip == "vertical"


def test_another_example_makes_room_for_the_next_pair_and_is_solved_with_it(visitor: Session):
    visitor.change(scale=2.0, flip="horizontal")
    app = visit(visitor)
    app.button(key="another-example").click().run()
    kept = Example(PAIR.painted("object"), PAIR.painted("paste"), 2.0, "horizontal")
    draft = visitor.draft
    assert (draft.examples, draft.object, draft.paste, draft.scale, draft.flip) == (
        (kept,),
        None,
        None,
        1,
        "none",
    )
    assert list(keyed(app, "remove-example").values()) == ["Example 1"]
    assert "× 2 ↔" in text(app)

    visitor.change(object=painted(3, 0, 0, 6, 10), paste=painted(4, 8, 2, 12, 8))
    app = solved(well(app.run()).button(key="try").click().run(), visitor)
    assert visitor.trial is not None
    assert len(visitor.trial.solved.goals) == 2
    assert "Loss of each example: " in text(app)
    assert app.button(key="remove-example-0").label == "Example 2"
    app.button(key="remove-example-0").click().run()
    assert visitor.draft.examples == ()
    solved(app, visitor)
    assert len(visitor.trial.solved.goals) == 1


def test_examples_alone_can_be_tried_and_half_a_pair_cannot(visitor: Session):
    app = visit(visitor)
    app.button(key="another-example").click().run()
    assert not visitor.unpainted
    assert not app.button(key="try").disabled
    visitor.change(paste=PAIR.paste)
    app.run()
    assert app.button(key="try").disabled
    assert "Paint a region to copy." in text(app)


def test_a_colour_is_copied_where_the_layer_draws_the_picture(visitor: Session):
    visitor.layer = "last"
    app = visit(visitor)
    app.color_picker(key="pixels-colour").set_value("#2060e0").run()
    app.button(key="copy-colour").click().run()
    assert visitor.draft.object == Patch.of_colour("#2060e0")
    app = solved(app.button(key="try").click().run(), visitor)
    visitor.layer = PLAIN
    well(app.run())
    assert app.button(key="try").disabled
    assert list(keyed(app, "remove-object").values()) == ["#2060e0"]


def test_a_patch_is_uploaded(visitor: Session):
    visitor.layer = "last"
    app = visit(visitor)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3)).astype(np.uint8)
    app.file_uploader(key="pixels-file").set_value(("hat.png", encode_png(pixels), "image/png")).run()
    app.button(key="copy-patch").click().run()
    assert visitor.draft.object == Patch(pixels)
    assert list(keyed(app, "remove-object").values()) == ["patch"]
    well(app.button(key=next(iter(keyed(app, "remove-object")))).click().run())
    assert visitor.draft.object is None


def test_a_given_direction_stands_in_the_tray_with_its_rank_until_it_is_removed(visitor: Session):
    visitor.change(given=unit_direction(visitor.generator, PLAIN, 3), key=())
    app = visit(visitor)
    button = app.button(key="remove-given")
    assert button.label.endswith("plain · rank 1")
    assert not app.button(key="try").disabled
    well(button.click().run())
    assert visitor.draft.given is None
    assert app.button(key="try").disabled


def test_removing_says_what_is_left_of_the_pattern(visitor: Session):
    visitor.change(operation="remove", object=None, paste=None, alpha=0.5)
    app = visit(visitor)
    assert app.number_input(key="draft-alpha").value == 0.5
    app = solved(app.button(key="try").click().run(), visitor)
    assert "**50 %** of the pattern left" in text(app)


def downloads(app: AppTest) -> dict[str, Any]:
    return {part.proto.label: part.proto for part in app.get("download_button")}


def test_the_published_format_is_offered_with_what_it_cannot_say(visitor: Session):
    app = visit(visitor)
    assert "Edit, published format (JSON)" in downloads(app)
    assert "The published format cannot say: pictures by their seeds" in text(app)
    rows = visitor.draft.latents.model_copy(update={"scheme": "rows"})
    visitor.change(latents=rows)
    app.run()
    assert "The published format cannot say" not in text(app)
    file = visitor.request().to_published()
    assert list(json.loads(file.to_json())) == ["object", "paste", "key"]
