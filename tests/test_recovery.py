"""What a visitor had comes back: from a file, from the address after a reload, and from a link to a state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboard.recovery
from dashboard.autosave import Autosaver, Shelter
from dashboard.session import Session
from rewrite_core import Generator, example_edit, open_generator
from rewrite_core.rules.workspace import Workspace
from tests.generators import some_rule
from tests.work import WAIT

APP = str(Path(__file__).parents[1] / "dashboard" / "app.py")
LONG = 60


@pytest.fixture(scope="module")
def anime() -> Generator:
    return open_generator()


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Autosaver]:
    """The app's own, in an empty folder."""
    dashboard.recovery.autosaver.clear()
    found = dashboard.recovery.autosaver()
    found.shelter, found.delay = Shelter(tmp_path), 0.01
    yield found
    dashboard.recovery.autosaver.clear()


def visit(**query: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=LONG)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def session_of(app: AppTest) -> Session:
    found: Session = app.session_state["palimpsest"]
    return found


def named(app: AppTest) -> dict[str, str]:
    """The page's address."""
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}


def fine(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def said(app: AppTest) -> str:
    return " ".join(element.value for element in (*app.caption, *app.warning, *app.error))


def once(app: AppTest, done: Callable[[Session], bool]) -> AppTest:
    """Run until the jobs of the session have come to it."""
    for _ in range(100):
        if done(session_of(app)):
            return app
        job = session_of(app).solving
        if job:
            job.wait(WAIT)
        app.run()
    raise AssertionError("it never came to that")


def worked(anime: Generator, saver: Autosaver) -> tuple[AppTest, str]:
    """A visitor who kept a rule, changed a setting, and whose work is written."""
    app = fine(visit())
    assert "session" not in app.query_params  # who only looks leaves nothing behind
    visitor = session_of(app)
    visitor.load(example_edit("blue-eyes"), "Blue eyes")
    visitor.stack = visitor.stack.push(some_rule(anime, "l08", name="one").with_strength(0.5)).toggle(0)
    visitor.change(rank=2)
    visitor.selected, visitor.view = 4, "Gallery"
    fine(app.run())
    assert saver.flush(WAIT)
    return app, named(app)["session"]


def test_a_reload_brings_back_what_the_address_names(anime: Generator, saver: Autosaver):
    before, name = worked(anime, saver)
    after = fine(visit(session=name))
    old, new = session_of(before), session_of(after)
    assert new is not old
    assert (new.draft, new.view, new.selected, new.layer, new.title) == (
        old.request().model_copy(update={"model": new.draft.model, "layer": new.draft.layer}),
        "Gallery",
        4,
        old.layer,
        "Blue eyes",
    )
    assert [(entry.on, entry.rule.digest) for entry in new.stack.entries] == [
        (entry.on, entry.rule.digest) for entry in old.stack.entries
    ]
    assert "1 rule, painting on picture 4" in said(after)
    assert "Strokes that were not added yet are lost" in said(after)


def test_another_visitor_of_the_same_address_does_not_overwrite_it(anime: Generator, saver: Autosaver):
    _, name = worked(anime, saver)
    kept = saver.load(name)
    other = visit(session=name)
    session_of(other).change(rank=3)
    fine(other.run())
    assert saver.flush(WAIT)
    own = named(other)["session"]
    assert own != name
    found = saver.load(name), saver.load(own)
    assert kept
    assert found[0]
    assert found[1]
    assert found[0][0].to_bytes() == kept[0].to_bytes()
    assert found[1][0].draft.rank == 3


def test_a_name_that_is_not_kept_is_said_and_the_page_is_as_ever(saver: Autosaver):
    app = fine(visit(session="A" * 22))
    assert "no longer kept" in said(app)
    assert session_of(app).unpainted


def test_damaged_work_is_said_and_the_page_is_as_ever(anime: Generator, saver: Autosaver):
    _, name = worked(anime, saver)
    (path,) = saver.shelter.folder.iterdir()
    path.write_bytes(b"{")
    app = fine(visit(session=name))
    assert "could not be brought back" in said(app)
    assert session_of(app).unpainted


def test_work_on_a_generator_that_is_not_here_says_what_to_open(anime: Generator, saver: Autosaver):
    app, name = worked(anime, saver)
    (path,) = saver.shelter.folder.iterdir()
    data = json.loads(path.read_bytes())
    data["model"] = {"name": "mine", "fingerprint": "f" * 64}
    data |= {"rules": [], "edit": {"palimpsest": {"version": 1}}, "origin": str(path)}
    path.write_text(json.dumps(data))
    app = fine(visit(session=name))
    assert "workspace of mine" in said(app).replace("\\", "")
    assert "Open the generator it was made for" in said(app)


def test_the_browser_is_offered_what_it_had_last(anime: Generator, saver: Autosaver):
    _, name = worked(anime, saver)
    app = AppTest.from_file(APP, default_timeout=LONG)
    app.session_state["palimpsest-remembered"] = {"last": name}
    fine(app.run())
    (offer,) = [button for button in app.button if button.key == "recover"]
    assert "1 rule, painting on picture 4" in offer.label
    assert session_of(app).unpainted
    fine(offer.click().run())
    assert len(session_of(app).stack.entries) == 1
    assert not [button for button in app.button if button.key == "recover"]


def test_what_is_not_wanted_is_not_offered_again(anime: Generator, saver: Autosaver):
    _, name = worked(anime, saver)
    app = AppTest.from_file(APP, default_timeout=LONG)
    app.session_state["palimpsest-remembered"] = {"last": name}
    app.run()
    fine(app.button(key="recover-not").click().run())
    assert not [button for button in app.button if button.key == "recover"]


# links


def test_a_link_opens_an_example_solved_as_it_says(saver: Autosaver):
    app = visit(
        model="anime64-dcgan",
        edit="blue-eyes",
        view="Gallery",
        layer="l08",
        rank="2",
        locality="1",
        method="svd",
        pictures="5-8",
    )
    visitor = session_of(once(fine(app), lambda found: found.trial is not None))
    draft = visitor.draft
    assert (visitor.layer, draft.rank, draft.solver.locality) == ("l08", 2, 1.0)
    assert (draft.direction.method, draft.key) == ("svd", example_edit("blue-eyes").key)
    assert visitor.trial is not None
    assert (visitor.trial.rule.layer, visitor.trial.rule.rank) == ("l08", 2)
    assert app.session_state["gallery-seeds"] == "5-8"
    said_there = {"edit": "blue-eyes", "rank": "2", "locality": "1", "method": "svd", "pictures": "5-8"}
    assert said_there.items() <= named(app).items()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"edit": "../../etc/passwd"}, "a link to the edit"),
        ({"view": "Nowhere"}, "a link to the view"),
        ({"rank": "0"}, "a link to the rank"),
        ({"rank": "9" * 30}, "a link to the rank"),
        ({"locality": "nan"}, "a link to the locality"),
        ({"method": "magic"}, "a link to the method"),
        ({"pictures": "1-"}, "among the pictures"),
        ({"model": "other"}, "a link to the model"),
    ],
)
def test_a_link_to_what_there_is_not_is_said_in_one_line(
    saver: Autosaver, query: dict[str, str], message: str
):
    app = fine(visit(**query))
    (error,) = [element.value for element in app.error]
    assert message in error.replace("\\", "")
    assert session_of(app).unpainted


# a file


def test_a_file_opens_to_what_was_saved_and_undo_brings_back_what_was_there(
    anime: Generator, saver: Autosaver
):
    from dashboard.rewriting.restoring import open_workspace, workspace_of

    first = Session(anime, anime.default_layer)
    first.load(example_edit("blue-eyes"), "Blue eyes")
    first.stack = first.stack.push(some_rule(anime, "l08", name="one"))
    content = workspace_of(first).to_bytes()
    assert not json.loads(content)["origin"]

    second = Session(anime, "l05")
    second.stack = second.stack.push(some_rule(anime, "l05", name="mine"))
    open_workspace(second, content, "eyes.palimpsest.json")
    assert second.layer == first.layer
    assert [entry.rule.name for entry in second.stack.entries] == ["one"]
    assert workspace_of(second).to_bytes() == content
    second.undo()
    assert [entry.rule.name for entry in second.stack.entries] == ["mine"]


def test_a_file_of_another_embedded_generator_opens_that_one(anime: Generator, saver: Autosaver):
    from dashboard.rewriting.restoring import open_workspace, workspace_of

    faces = open_generator("face32-dcgan")
    content = workspace_of(Session(faces, faces.default_layer)).to_bytes()
    visitor = Session(anime, anime.default_layer)
    open_workspace(visitor, content, "faces.palimpsest.json")
    assert visitor.generator.fingerprint == faces.fingerprint
    assert Workspace.load(content).layer == visitor.layer == faces.default_layer
