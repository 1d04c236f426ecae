"""The view Concepts: looking at a source, painting one, learning it, and using it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit.config
from numpy.typing import NDArray
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.canvas import canvas_key, display_size
from dashboard.dissection.concepts import LOOK, PAINT, take_source
from dashboard.dissection.easel import ROLE
from dashboard.dissection.learning import LEARNING
from dashboard.dissection.painting import STEPS, SUGGESTED, Painting, tinted
from dashboard.session import Session
from dissect.concepts.catalogue import known
from dissect.concepts.colours import Colours
from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.distilled import DistilledConcepts
from dissect.concepts.distilling import DistillingSettings, distil
from dissect.concepts.painted import train
from dissect.concepts.strokes import UNKNOWN, Strokes
from rewrite_core import LatentSpec, Mask, open_generator
from rewrite_core.generators import Generator
from rewrite_core.rules.stack import RuleStack
from tests.generators import small_generator, some_rule
from tests.work import WAIT

SIZE = (32, 32)
SHOWN = display_size(*SIZE)


def page() -> None:
    from dashboard.canvas import enter_page
    from dashboard.dissection.concepts import concepts
    from dashboard.session import session

    enter_page("Dissection")
    concepts(session())


@pytest.fixture(scope="module")
def generator() -> Generator:
    return open_generator("face32-dcgan")


@pytest.fixture
def file(generator: Generator) -> ConceptFile:
    """Two concepts on three pictures: the middle, and the rim."""
    file = ConceptFile.empty(generator, ("middle", "rim"))
    for seed in (0, 1, 2):
        file = file.with_stroke(seed, "middle", Mask.rectangle(SIZE, 10, 10, 22, 22))
        file = file.with_stroke(seed, "rim", Mask.rectangle(SIZE, 0, 0, 4, 32))
    return file


@pytest.fixture
def painter(generator: Generator, file: ConceptFile) -> Session:
    session = Session(generator, generator.default_layer)
    session.painting = Painting.of(file)
    return session


@pytest.fixture
def owner() -> Iterator[None]:
    """The visitor and the server are on one machine."""
    before = streamlit.config.get_option("server.address")
    streamlit.config.set_option("server.address", "127.0.0.1")
    yield
    streamlit.config.set_option("server.address", before)


def visit(session: Session, part: str = PAINT) -> AppTest:
    app = AppTest.from_function(page, default_timeout=WAIT)
    app.session_state["palimpsest"] = session
    app.session_state["concepts-part-kept"] = part
    return app.run()


def draw(app: AppTest, top: int, left: int, bottom: int, right: int) -> AppTest:
    """The browser sends a stroke over these pixels of the picture, on the canvas that it shows."""
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 140
    rgba = np.zeros((*SHOWN, 4), np.uint8)
    rgba[..., 3] = mask.repeat(SHOWN[0] // SIZE[0], 0).repeat(SHOWN[1] // SIZE[1], 1)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, format="PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    mount = app.session_state["painted sheets"][(ROLE, ROLE)].mount
    state = {"drawing": {"raw": {"objects": []}, "data": url}, "backgroundFit": None}
    app.session_state[canvas_key(ROLE, ROLE, mount)] = state
    return app.run()


def painting(app: AppTest) -> Painting:
    found: Painting = app.session_state["palimpsest"].painting
    return found


def said(app: AppTest) -> str:
    parts = (*app.caption, *app.markdown, *app.error, *app.html)
    return "\n".join(str(getattr(part, "value", "") or part.proto.body) for part in parts)


def once(app: AppTest, done: Callable[[AppTest], bool]) -> AppTest:
    """Run the page until its jobs have brought what is waited for."""
    for asked in app.session_state["palimpsest"].asked.values():
        assert asked.job.wait(WAIT)
    app.run()
    assert done(app), said(app)
    return app


def where(painting: Painting, seed: int, concept: str) -> NDArray[Any]:
    found: NDArray[Any] = painting.file.on(seed).labels == painting.file.number(concept)
    return found


# What is painted, as a value


def test_strokes_of_a_canvas_replace_each_other_and_stay_once_it_is_emptied(file: ConceptFile):
    first, second = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    first[6:8], second[6:9] = True, True
    painted = Painting.of(file).stroked(first).stroked(second)
    assert where(painted, 0, "middle")[8].all()
    assert where(painted.stroked(first), 0, "middle")[7:9].sum() == 32
    turned = painted.turned(concept="rim").stroked(first)
    assert where(turned, 0, "rim")[6:8].all()
    assert where(turned, 0, "middle")[8].all()


def test_every_stroke_is_taken_back_and_brought_back_alone(file: ConceptFile):
    one, two = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    one[6], two[6:8] = True, True
    painted = Painting.of(file).stroked(one).stroked(one).stroked(two)
    assert len(painted.past) == 2
    back = painted.undone()
    assert where(back, 0, "middle")[6:8].all(1).tolist() == [True, False]
    assert back.undone().file == file
    assert back.undone().undone().file == file
    assert back.undone().redone().redone().file == painted.file
    assert not back.changed(file.with_concept("new")).future


def test_only_so_many_changes_are_remembered(file: ConceptFile):
    painted = Painting.of(file)
    for number in range(STEPS + 3):
        painted = painted.changed(painted.file.with_concept(f"concept {number}"))
    assert len(painted.past) == STEPS


def test_strokes_of_any_resolution_are_kept_at_the_pictures_own(file: ConceptFile):
    fine = np.zeros((SIZE[0] * 13, SIZE[1] * 13), bool)
    fine[13 * 6 : 13 * 7] = True
    assert where(Painting.of(file).stroked(fine), 0, "middle")[6].all()


def test_the_eraser_takes_every_concept_away(file: ConceptFile):
    everywhere = np.ones(SIZE, bool)
    erased = Painting.of(file).turned(erasing=True).stroked(everywhere)
    assert erased.file.on(0).empty
    assert erased.file.seeds == (1, 2)


def test_a_concept_that_is_gone_is_not_chosen(file: ConceptFile):
    painted = Painting.of(file)
    assert painted.without("middle").concept == "rim"
    assert painted.without("middle").without("rim").concept == ""
    assert painted.without("middle").undone().file == file
    assert painted.without("no such concept") is painted


def test_painted_pictures_are_suggested_first(file: ConceptFile):
    far = file.with_stroke(77, "rim", Mask.rectangle(SIZE, 0, 0, 4, 4))
    assert Painting.of(far).suggested == (0, 1, 2, 77, *range(3, 11))
    assert len(Painting.of(far).suggested) == SUGGESTED


def test_strokes_tint_their_pixels_and_no_others():
    picture = np.full((2, 2, 3), 100, np.uint8)
    strokes = Strokes(0, np.array([[UNKNOWN, 0], [1, UNKNOWN]], np.int16))
    shown = tinted(picture, strokes, [(200, 0, 0), (0, 0, 200)], opacity=0.5)
    assert shown.tolist() == [[[100] * 3, [150, 50, 50]], [[50, 50, 150], [100] * 3]]


# Painting on the page


def test_a_stroke_is_of_the_chosen_concept_even_if_another_is_chosen_right_after_it(painter: Session):
    app = draw(visit(painter), 24, 0, 28, 32)
    assert "middle 272 px on picture 0" in said(app)
    app.pills[0].set_value("rim").run()
    assert where(painting(app), 0, "middle")[24:28].all()
    draw(app, 28, 0, 32, 32)
    assert where(painting(app), 0, "rim")[28:32].all()
    assert where(painting(app), 0, "middle")[24:28].all()
    assert not app.exception


def test_undo_empties_the_canvas_and_clear_the_picture(painter: Session, file: ConceptFile):
    app = draw(visit(painter), 24, 0, 28, 32)
    app.button(key="concept-undo").click().run()
    assert painting(app).file == file
    app.button(key="concept-redo").click().run()
    assert where(painting(app), 0, "middle")[24:28].all()
    app.button(key="concept-clear").click().run()
    assert painting(app).file.seeds == (1, 2)


def test_concepts_are_added_renamed_and_deleted_and_a_bad_name_changes_nothing(painter: Session):
    app = visit(painter)
    app.text_input(key="concept-name-Add-").set_value("eyes")
    app.button(key="concept-name-Add-now").click().run()
    assert painting(app).file.concepts == ("middle", "rim", "eyes")
    assert painting(app).concept == "eyes"
    assert "Paint eyes on a few pictures, or remove it" in said(app)
    assert app.button(key="concept-train").disabled
    app.text_input(key="concept-name-Rename-eyes").set_value("rim")
    app.button(key="concept-name-Rename-now").click().run()
    assert "two concepts called" in said(app)
    assert painting(app).file.concepts == ("middle", "rim", "eyes")
    app.text_input(key="concept-name-Rename-eyes").set_value("iris")
    app.button(key="concept-name-Rename-now").click().run()
    assert painting(app).file.concepts == ("middle", "rim", "iris")
    app.button(key="concept-delete").click().run()
    assert painting(app).file.concepts == ("middle", "rim")


def test_what_is_learned_is_judged_shown_on_unseen_pictures_and_used(painter: Session):
    app = visit(painter)
    assert "816 pixels of 2 concepts on 3 pictures" in said(app)
    app.button(key="concept-train").click().run()
    once(app, lambda app: painting(app).learned is not None)
    app.run()
    assert "on 3 pictures, each held out in its turn" in said(app)
    assert "</i>middle" in said(app)
    assert app.button(key="concept-train").disabled
    app.button(key="concept-use").click().run()
    assert painter.dissecting.own is painting(app).learned
    draw(app, 24, 0, 28, 32)
    assert "changed since" in said(app)
    assert painting(app).learned is painter.dissecting.own
    assert not app.button(key="concept-train").disabled


def test_two_visitors_paint_each_their_own(painter: Session, generator: Generator, file: ConceptFile):
    other = Session(generator, generator.default_layer)
    other.painting = Painting.of(file)
    draw(visit(painter), 24, 0, 28, 32)
    untouched = visit(other)
    assert painting(untouched).file == file
    assert painter.painting is not None
    assert painter.painting.file != file


def test_a_copy_of_the_shipped_concepts_is_there_with_its_numbers_at_once(generator: Generator):
    app = visit(Session(generator, generator.default_layer))
    assert len(painting(app).file.concepts) > 4
    once(app, lambda app: "each held out in its turn" in said(app))
    app.button(key="concepts-nothing").click().run()
    assert painting(app).file.concepts == ()
    assert "Add a concept" in said(app)
    app.button(key="concepts-copy").click().run()
    assert len(painting(app).file.concepts) > 4
    assert painting(app).undone().file.concepts == ()


def test_a_file_for_another_generator_is_refused_and_what_was_painted_stays(
    painter: Session, file: ConceptFile
):
    foreign = ConceptFile.empty(small_generator(), ("a", "b"))
    app = visit(painter)
    app.file_uploader(key="concepts-file").set_value(("foreign.json", foreign.to_bytes(), "application/json"))
    app.run()
    app.button(key="concepts-file-now").click().run()
    assert "Open the generator they were painted for" in said(app)
    assert painting(app).file == file
    changed = file.with_concept("mouth").with_stroke(5, "mouth", Mask.rectangle(SIZE, 0, 0, 4, 4))
    app.file_uploader(key="concepts-file").set_value(("ours.json", changed.to_bytes(), "application/json"))
    app.run()
    app.button(key="concepts-file-now").click().run()
    assert painting(app).file == changed
    assert painting(app).undone().file == file


def test_rules_do_not_act_on_painted_concepts_and_the_page_says_so():
    generator = small_generator()
    session = Session(generator, generator.default_layer)
    session.stack = RuleStack().push(some_rule(generator))
    app = visit(session)
    assert "rules in the sidebar do not act here" in said(app)
    assert not app.exception


# Looking at a source


def test_shares_are_shown_beside_the_colour_of_each_concept(generator: Generator):
    app = visit(Session(generator, generator.default_layer), LOOK)
    once(app, lambda app: "</i>hair" in said(app))
    assert "of pixels" in said(app)


@pytest.mark.usefixtures("owner")
def test_a_source_that_cannot_be_had_is_refused_in_one_line_and_the_last_one_stays(generator: Generator):
    session = Session(generator, generator.default_layer)
    app = visit(session, LOOK)
    app.selectbox(key="concepts-source").set_value("colours").run()
    assert session.dissecting.concepts == "colours"
    take_source(session, "no such thing")
    app.run()
    assert len(app.error) == 1
    assert "Check the spelling, or the path" in app.error[0].value
    assert session.dissecting.concepts == app.selectbox(key="concepts-source").value == "colours"
    app.selectbox(key="concepts-source").set_value("embedded:painted").run()
    assert session.dissecting.concepts == "embedded:painted"
    assert not app.error


def test_a_path_is_for_who_owns_the_machine(generator: Generator, file: ConceptFile, tmp_path: Path):
    file.save(tmp_path / "painted.json")
    session = Session(generator, generator.default_layer)
    take_source(session, str(tmp_path / "painted.json"))
    assert "which this server does not offer" in visit(session, LOOK).error[0].value
    assert session.dissecting.concepts == ""


def test_two_sources_are_compared_on_the_same_pictures(painter: Session):
    app = visit(painter)
    app.button(key="concept-train").click().run()
    once(app, lambda app: painting(app).learned is not None)
    app.session_state["concepts-part-kept"] = LOOK
    app.run()
    app.selectbox(key="concepts-source").set_value("own").run()
    app.selectbox(key="concepts-beside").set_value("own").run()
    once(app, lambda app: "Both say the same of **100.0 %**" in said(app))
    app.selectbox(key="concepts-beside").set_value("colours").run()
    once(app, lambda app: "Rename the concepts in one of them" in said(app))


def test_a_generator_without_concepts_of_its_own_says_so_and_is_looked_at_by_colours():
    generator = small_generator()
    app = visit(Session(generator, generator.default_layer), LOOK)
    once(app, lambda app: "No concepts ship with" in said(app).replace("\\", ""))
    assert "</i>black" in said(app)
    assert LEARNING not in app.session_state["palimpsest"].asked
    for offer in known(generator):
        assert offer.why_not in said(app).replace("\\", "")


def test_a_file_of_distilled_concepts_is_dissected_with(generator: Generator):
    session = Session(generator, generator.default_layer)
    app = visit(session)
    content = hardly_distilled(generator).to_bytes()
    app.file_uploader(key="concepts-file").set_value(("colours.safetensors", content, ""))
    app.run()
    app.button(key="concepts-file-now").click().run()
    assert session.dissecting.own is not None
    assert session.dissecting.own.title == "distilled: face32-dcgan"
    assert app.selectbox(key="concepts-source").value == "own"


def test_distilled_concepts_show_how_far_they_agree_and_are_used(painter: Session, file: ConceptFile):
    found = hardly_distilled(painter.generator)
    painter.painting = Painting.of(file).knowing(train(painter.generator, file)).taught().distilling(found)
    app = visit(painter)
    assert "agrees with its teacher in" in said(app)
    app.button(key="concept-distilled-use").click().run()
    assert painter.dissecting.own is found


def hardly_distilled(generator: Generator) -> DistilledConcepts:
    settings = DistillingSettings(steps=1, held_out=0.5)
    return distil(generator, Colours(), LatentSpec.of(range(4)), settings)
