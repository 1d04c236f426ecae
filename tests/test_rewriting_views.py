"""The views Sweep, What it did and Compare of the page Rewriting: what is asked for is shown, and can be taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.rewriting.compared import OURS, Question
from dashboard.rewriting.measuring import FIRST, fresh_seeds
from dashboard.rewriting.sweeping import around
from dashboard.rewriting.viewing import Viewing
from dashboard.session import Session, embedded, service, statistics_of
from dashboard.solving import AT_ONCE, PREVIEW, keep_rules, previewed, resolve, show_edit, solved, try_edit
from rewrite_core import example_edit, rewrite
from rewrite_core.errors import Cancelled
from rewrite_core.rules.baselines import BASELINES

FEW = 50
LONG = 60.0


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service of its own for every test, over an empty cache."""
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    service.clear()
    yield
    service.clear()


def visitor(**changes: object) -> Session:
    """A visitor with an example edit of the default generator painted."""
    generator = embedded("anime64-dcgan")
    session = Session(generator, generator.default_layer)
    session.load(example_edit("blue-eyes"), "Blue eyes")
    session.change(**changes)
    return session


def visit(view: str, function: str, session: Session, **chosen: object) -> AppTest:
    """One view alone, once the visitor's jobs have ended."""
    script = (
        f"from dashboard.rewriting.{view} import {function}\n"
        "from dashboard.session import session\n"
        f"{function}(session())\n"
    )
    app = AppTest.from_string(script, default_timeout=LONG)
    app.session_state["palimpsest"] = session
    viewing = Viewing(**{"measured": FEW, **chosen})  # type: ignore[arg-type]
    app.session_state["rewriting-viewing"] = {session.generator.fingerprint: viewing}
    return settled(app.run(), session)


def settled(app: AppTest, session: Session) -> AppTest:
    """The view once no job is under way."""
    seen: set[str] = set()
    while pending := [asked.job for asked in session.asked.values() if asked.job.id not in seen]:
        for job in pending:
            assert job.wait(LONG)
            seen.add(job.id)
        app = app.run()
    assert not app.exception
    assert not app.error
    return app


def said(app: AppTest) -> str:
    return "\n".join(str(element.value) for element in (*app.markdown, *app.caption))


# Sweep


def test_a_click_on_a_cell_takes_its_layer_rank_and_rule_and_the_sweep_stays(monkeypatch):
    session = visitor()
    app = visit("sweeping", "sweeping", session, layers=("l05", "l08"), ranks=(1, 2))
    picks = [button.key for button in app.button if str(button.key).startswith("sweep-pick-")]
    assert picks == ["sweep-pick-l05-1", "sweep-pick-l05-2", "sweep-pick-l08-1", "sweep-pick-l08-2"]
    app = settled(app.button(key="sweep-pick-l05-2").click().run(), session)
    assert (session.layer, session.draft.rank) == ("l05", 2)
    assert session.trial is not None
    expected = rewrite(
        session.generator, session.request(), statistics=statistics_of(session.generator, "l05")
    )
    assert session.trial.rule.digest == expected.rule.digest
    resolve(session)
    assert session.solving is None  # it is the draft's own solution
    assert app.multiselect(key="sweep-layers").value == ["l05", "l08"]


def test_an_edit_that_is_not_complete_is_not_swept_or_compared():
    for view in ("sweeping", "comparing"):
        session = visitor(key=())
        app = visit(view, view, session)
        assert "Paint" in said(app)
        assert not session.asked


def test_a_sweep_is_at_first_around_the_layer_of_the_edit():
    names = ["a", "b", "c", "d"]
    assert [around(names, name) for name in ("a", "c", "d")] == [["a", "b"], ["b", "c", "d"], ["c", "d"]]


# What it did


def test_what_an_edit_did_is_measured_over_fresh_pictures():
    session = visitor()
    try_edit(session)
    assert session.trial is not None
    app = visit("did", "did", session)
    shown = {metric.label: metric.value for metric in app.metric}
    assert list(shown) == ["Loss", "Inside", "Outside", "Inside ÷ outside", "Took effect"]
    assert shown["Loss"] == f"{session.trial.solved.loss:.3g}"
    assert float(shown["Inside"].split()[0]) > 2 * float(shown["Outside"].split()[0])
    assert "Most changed" in said(app)


def test_without_a_rule_it_did_nothing():
    session = visitor()
    assert "No rule is on" in said(visit("did", "did", session))
    assert not session.asked


def test_a_rule_of_several_can_be_chosen():
    session = visitor()
    try_edit(session)
    session.keep("first")
    session.change(rank=2)
    try_edit(session)
    app = visit("did", "did", session)
    assert app.selectbox(key="did-rule").value == session.rules.active[-1].digest
    assert app.selectbox(key="did-rule").options == ["first", session.rules.active[-1].name]


def test_pictures_that_were_painted_on_are_not_fresh():
    session = visitor()
    region = session.draft.key[0]
    session.change(key=(type(region)(FIRST + 1, region.mask),))
    app = AppTest.from_function(lambda: None)  # a run of Streamlit, for its state
    app.session_state["palimpsest"] = session
    seeds = fresh_seeds(session).seeds
    assert seeds[:2] == (FIRST, FIRST + 2)
    assert len(seeds) == Viewing().measured


# Compare


def test_every_baseline_is_made_measured_and_can_be_kept(monkeypatch):
    few: dict[str, Any] = {
        name: replace(one, make=partial(one.make, iterations=5)) for name, one in BASELINES.items()
    }
    monkeypatch.setattr("dashboard.rewriting.compared.BASELINES", few)
    session = visitor()
    app = visit("comparing", "comparing", session)
    assert not session.asked
    app = settled(app.button(key="compare").click().run(), session)
    (table,) = app.dataframe
    assert list(table.value["method"]) == ["Ours", *(one.title for one in BASELINES.values())]
    assert table.value["loss"].iloc[0] < 80
    app = app.button(key="compare-keep-overfit").click().run()
    assert session.trial is None
    assert [rule.layer for rule in session.stack.active] == ["l08", "l11", "l14"]
    session.undo()
    assert not session.stack.active  # one step


def test_a_comparison_that_is_cancelled_keeps_the_sides_that_were_made(monkeypatch):
    session = visitor()
    question = Question(
        session.generator, session.visitor, session.request(), "x", session.spec((1000, 1001))
    )
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done > 1100:  # in the first baseline
            raise Cancelled

    with pytest.raises(Cancelled):
        question.answer(progress)
    from dashboard.rewriting.compared import _sides

    assert _sides.peek((question.key, OURS)) is not None
    assert _sides.peek((question.key, "full rank")) is None


# Solving


def test_a_quick_solve_is_the_trial_at_once_and_shown():
    session = visitor()
    try_edit(session)
    assert session.solving is None
    assert session.trial is not None
    assert session.view == "Before | after"
    resolve(session)
    assert session.solving is None


def test_a_longer_solve_shows_a_preview_of_few_iterations_first():
    session = visitor(rank=AT_ONCE + 5)
    started = time.monotonic()
    try_edit(session)
    if session.solving is None:  # a machine that solves it within a moment
        assert time.monotonic() - started < 2
        return
    assert previewed(session)
    assert session.trial is not None
    assert session.trial.solved.iterations == PREVIEW
    assert session.solving.wait(LONG)
    preview = session.trial
    assert session.solving.result is not None
    solved(session, session.solving.result)
    assert session.trial is session.solving.result
    assert session.trial.solved.loss < preview.solved.loss


def test_rules_made_elsewhere_take_the_place_of_the_trial():
    session = visitor()
    try_edit(session)
    trial = session.trial
    assert trial is not None
    keep_rules(session, [trial.rule, trial.rule.renamed("again")])
    assert session.trial is None
    assert len(session.stack.active) == 2
    resolve(session)
    assert session.solving is None
    session.redo()
    assert session.rules.entries[-1].rule is trial.rule
    show_edit(session, trial, "l08", 1)
    assert session.tried == session.request()
