"""One file that holds everything: it comes back to the bit, its rules are solved again, and no file can do harm."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rewrite_core import EditRequest, Generator, RuleStack, example_edit, open_generator, rewrite
from rewrite_core.errors import FileError, ModelMismatch, PalimpsestError
from rewrite_core.generators.own import OwnPicture
from rewrite_core.rules.replaying import replay
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.settings import ModelRef
from rewrite_core.rules.stack import Entry
from rewrite_core.rules.workspace import Seen, Workspace
from tests.generators import PLAIN, small_generator, some_rule


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def anime() -> Generator:
    return open_generator()


@pytest.fixture(scope="module")
def full(small: Generator) -> Workspace:
    """One of everything."""
    mine = OwnPicture.of("mine", torch.arange(8.0), "z")
    return Workspace(
        model=ModelRef(name=small.name, fingerprint=small.fingerprint),
        layer=PLAIN,
        truncation=0.7,
        draft=EditRequest(rank=3),
        title="Blue hair",
        entries=(Entry(some_rule(small, name="one").with_strength(-0.3)), Entry(some_rule(small), on=False)),
        trial=some_rule(small, name="tried"),
        own=(mine,),
        seen=Seen(view="Gallery", tried=True, selected=-1, seeds={"fresh": (1000, 7)}),
        origin="/models/small",
    )


def test_all_of_it_comes_back_from_a_file_to_the_bit(small: Generator, full: Workspace, tmp_path: Path):
    path = tmp_path / "eyes.palimpsest.json"
    full.save(path)
    again = Workspace.load(path)
    again.check(small)
    assert again.to_bytes() == path.read_bytes()
    assert (again.model, again.layer, again.truncation, again.label) == (full.model, PLAIN, 0.7, None)
    assert (again.draft, again.title, again.seen) == (full.draft, "Blue hair", full.seen)
    assert (again.own, again.selected, again.origin) == (full.own, full.own[0], "/models/small")
    assert [(entry.on, entry.rule.digest) for entry in again.entries] == [
        (entry.on, entry.rule.digest) for entry in full.entries
    ]
    assert [rule.name for rule in again.rules] == ["one", "tried"]
    stacks = (RuleStack(entries) for entries in (full.entries, again.entries))
    weights = [stack.compose(small)[PLAIN] for stack in stacks]
    assert torch.equal(*weights)


def test_it_says_which_versions_and_how_many_threads_made_it(full: Workspace):
    told = json.loads(full.to_bytes())["made_with"]
    assert set(told) == {"palimpsest", "torch", "threads"}
    assert told["threads"] == str(torch.get_num_threads())


def test_it_is_refused_on_another_generator(full: Workspace):
    with pytest.raises(ModelMismatch, match="a workspace of small"):
        full.check(small_generator(seed=1))


def changed_at(*place: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        part: Any = data
        for step in place[:-1]:
            part = part[step]
        part[place[-1]] = to

    return change


def swapped(data: dict[str, Any]) -> None:
    """The trial's file under another rule's digest."""
    data["rules"][0]["file"] = data["trial"]["file"]


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "newer": (changed_at("version", to=2), "Update Palimpsest"),
    "version": (changed_at("version", to="1"), "version is '1'"),
    "unknown field": (changed_at("run", to="rm"), "run is 'rm'"),
    "no edit": (changed_at("edit", to=[]), "edit"),
    "an edit with a strange key": (changed_at("edit", to={"eval": 1}), "eval"),
    "truncation": (changed_at("truncation", to=1e9), "truncation"),
    "not base64": (changed_at("rules", 0, "file", to="%%%"), "base64"),
    "a pickle": (
        changed_at("rules", 0, "file", to=base64.b64encode(b"\x80\x04junk").decode()),
        "pickle",
    ),
    "another rule": (swapped, "digest"),
    "another model": (changed_at("model", "fingerprint", to="f" * 64), "a rule for ffffffffffff"),
    "too many rules": (changed_at("rules", to=[{}] * 101), "rules"),
    "too many pictures": (changed_at("pictures", to=[{}] * 25), "at most 24"),
    "a broken picture": (changed_at("pictures", 0, "numbers", to="AAAA"), "numbers"),
    "a picture that is not there": (changed_at("seen", "selected", to=-2), "selected -2"),
    "a seed out of range": (changed_at("seen", "seeds", to={"fresh": [2**40]}), "seen"),
    "too many seeds": (changed_at("seen", "seeds", to={"fresh": [1] * 257}), "256"),
    "a long title": (changed_at("title", to="x" * 201), "title"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_one_line(full: Workspace, name: str):
    data = json.loads(full.to_bytes())
    change, said = HOSTILE[name]
    change(data)
    with pytest.raises(PalimpsestError) as problem:
        Workspace.load(json.dumps(data).encode(), "evil.json")
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)
    assert len(str(problem.value)) < 600


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format": "palimpsest-direction"}', b"\x80\x04", b"[" * 10**6]
)
def test_what_is_no_workspace_is_refused(content: bytes):
    with pytest.raises(FileError):
        Workspace.load(content)


@pytest.fixture(scope="module")
def solved(anime: Generator) -> Workspace:
    """Two rules that were solved for, one brought, and a trial."""
    request = example_edit("blue-eyes")
    eyes = rewrite(anime, request, name="Blue eyes").rule
    hair = rewrite(anime, example_edit("orange-hair"), name="Orange hair", beneath=[eyes]).rule
    brought = replace(eyes, provenance=eyes.provenance.model_copy(update={"request": None}))
    trial = rewrite(anime, request.model_copy(update={"rank": 2})).rule
    return Workspace(
        model=ModelRef(name=anime.name, fingerprint=anime.fingerprint),
        layer=anime.default_layer,
        draft=request,
        entries=(Entry(eyes.with_strength(0.5)), Entry(hair, on=False), Entry(brought)),
        trial=trial,
    )


def test_rules_that_were_solved_for_come_out_the_same_to_the_bit(anime: Generator, solved: Workspace):
    calls: list[tuple[int, int]] = []
    found = replay(
        anime, Workspace.load(solved.to_bytes()), progress=lambda done, total: calls.append((done, total))
    )
    assert [(one.outcome, one.on) for one in found] == [
        ("same", True),
        ("same", False),
        ("from the file", True),
        ("same", True),
    ]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_rule_that_is_not_what_its_request_makes_is_told_apart(anime: Generator, solved: Workspace):
    eyes = solved.entries[0].rule

    def with_delta(factor: float) -> Rule:
        return replace(eyes, delta=factor * eyes.delta)

    rules = [with_delta(1 + 1e-6), with_delta(2.0)]
    found = replay(anime, replace(solved, entries=tuple(map(Entry, rules)), trial=None))
    assert [one.outcome for one in found] == ["rounding", "differs"]
    assert found[0].difference == pytest.approx(1e-6, rel=0.2)
    assert found[1].difference == pytest.approx(0.5, rel=1e-3)
    assert [one.rule for one in found] == rules


def test_replaying_leaves_the_number_of_threads_as_it_was(anime: Generator, solved: Workspace):
    before = torch.get_num_threads()
    replay(anime, replace(solved, entries=(), trial=None, made_with={"threads": str(before + 1)}))
    assert torch.get_num_threads() == before
