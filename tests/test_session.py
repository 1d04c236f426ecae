"""One visitor's state: what it saves, what undo and redo bring back, what overrules what."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest

from dashboard.budget import Budget
from dashboard.saving import command, rule_files
from dashboard.session import Session
from rewrite_core import EditRequest, example_edit, open_generator, rewrite
from rewrite_core.errors import ModelMismatch
from rewrite_core.jobs import Job
from rewrite_core.rules.rewrite import Edit


@pytest.fixture(scope="module")
def edit() -> Edit:
    return rewrite(open_generator(), example_edit("blue-eyes"), name="Blue eyes")


@pytest.fixture
def visitor() -> Session:
    generator = open_generator()
    session = Session(generator, generator.default_layer)
    session.load(example_edit("blue-eyes"), "Blue eyes")
    return session


def test_a_saved_edit_names_the_generator_it_was_painted_on(visitor: Session):
    saved = EditRequest.from_json(visitor.request().to_json())
    assert saved.model is not None
    assert (saved.model.name, saved.model.fingerprint) == ("anime64-dcgan", visitor.generator.fingerprint)


def test_an_edit_for_another_generator_opens_the_embedded_one_or_is_refused(visitor: Session):
    visitor.open(open_generator("face32-dcgan"))
    visitor.load(example_edit("blue-eyes"), "Blue eyes")
    assert visitor.generator.name == "anime64-dcgan"
    model = example_edit("blue-eyes").model
    assert model is not None
    strange = example_edit("blue-eyes").model_copy(
        update={"model": model.model_copy(update={"fingerprint": "f" * 64})}
    )
    with pytest.raises(ModelMismatch, match="ffffffffffff"):
        visitor.load(strange, "")


def test_undo_redo_and_revert_lose_no_trial(visitor: Session, edit: Edit):
    visitor.trial = edit
    for take_back in (visitor.undo, visitor.revert):
        take_back()
        assert not visitor.rules.entries
        assert not visitor.tried
        visitor.redo()
        assert [rule.digest for rule in visitor.rules.active] == [edit.rule.digest]
        assert visitor.tried == visitor.request()  # so a change of the rank is solved again


@pytest.mark.parametrize("act", ["keep", "undo", "revert", "clear_edit"])
def test_what_the_visitor_decides_is_not_overruled_by_a_solve_under_way(
    visitor: Session, edit: Edit, act: str
):
    job: Job[Edit] = Job("Solving", ("visitor",))
    visitor.trial, visitor.solving = edit, job
    visitor.keep("Blue eyes") if act == "keep" else getattr(visitor, act)()
    assert job.cancelling
    assert not visitor.solving
    assert not visitor.tried


def test_the_saved_command_names_truncation_and_every_rule_once(visitor: Session, edit: Edit):
    visitor.trial = edit
    visitor.keep("Blue eyes")
    visitor.trial = edit
    visitor.truncation = 0.5
    assert rule_files(visitor.rules.active) == ["blue-eyes-1.safetensors", "blue-eyes-2.safetensors"]
    line = command(visitor, (1000, 1001))
    assert "blue-eyes-1.safetensors blue-eyes-2.safetensors" in line
    assert "--truncation 0.5" in line
    assert "--model anime64-dcgan" in line


def test_an_edited_model_is_not_taken_for_the_embedded_one(visitor: Session, edit: Edit):
    assert visitor.embedded_name == "anime64-dcgan"
    visitor.open(visitor.generator.with_rules(edit.rule))
    assert visitor.embedded_name == ""


def test_a_budget_forgets_what_was_used_longest_ago_and_makes_nothing_twice():
    made: list[str] = []

    def make(name: str) -> np.ndarray:
        made.append(name)
        return np.zeros(400, dtype=np.uint8)

    kept: Budget[np.ndarray] = Budget(1000, lambda array: array.nbytes)
    for name in ("a", "b", "a", "c", "a", "b"):
        kept.get(name, partial(make, name))
    assert made == ["a", "b", "c", "b"]


def test_a_budget_serves_threads():
    kept: Budget[int] = Budget(10, lambda _: 1)
    threads = [threading.Thread(target=kept.get, args=(n % 5, partial(int, n))) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.get(3, lambda: -1) >= 0
