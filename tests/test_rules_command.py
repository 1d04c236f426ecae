"""`palimpsest rules`: the library from a terminal, and merging."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from dashboard.cli import main
from rewrite_core import Rule, RuleStack
from rewrite_core.generators import Generator
from rewrite_core.rules.library import Library
from tests.generators import PLAIN, UP, small_generator, some_rule


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """An empty library of its own for each test."""
    monkeypatch.setenv("PALIMPSEST_RULES", str(tmp_path / "library"))
    monkeypatch.chdir(tmp_path)
    return Library(tmp_path / "library")


def palimpsest(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["rules", *map(str, arguments)], prog_name="palimpsest")


def said(*arguments: object) -> str:
    result = palimpsest(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(*arguments: object) -> Any:
    return json.loads(said(*arguments, "--json"))


def refused(*arguments: object) -> str:
    result = palimpsest(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"palimpsest: error: [^\n]+\n", result.stderr)
    return result.stderr


def test_an_empty_library_says_so(library: Library):
    assert said("list") == f"0 rules in {library.folder}\n"
    assert answer("list") == {"folder": str(library.folder), "rules": []}


def test_what_is_added_is_listed_shown_and_removed(small: Generator, library: Library, tmp_path: Path):
    rule = some_rule(small, name="no eyes").with_strength(0.5)
    rule.save(tmp_path / "mine.safetensors")
    path = library.folder / "no-eyes.safetensors"
    assert answer("add", "mine.safetensors") == {"files": [str(path)]}
    (found,) = answer("list")["rules"]
    assert (found["name"], found["title"], found["layer"]) == ("no-eyes", "no eyes", PLAIN)
    assert (found["rank"], found["strength"], found["digest"]) == (2, 0.5, rule.digest)
    assert re.search(r"no-eyes +no eyes +plain +2 +0\.5 +small", said("list"))
    shown = answer("show", "no-eyes")
    assert shown == answer("show", "mine.safetensors")
    assert shown["result"] == dict(rule.provenance.result)
    assert "no eyes: layer plain of small, rank 2, strength 0.5" in said("show", "no-eyes")
    assert answer("remove", "no-eyes") == {"deleted": [str(path)]}
    assert not path.exists()


def test_nothing_is_added_where_one_file_is_damaged(small: Generator, library: Library, tmp_path: Path):
    some_rule(small).save(tmp_path / "mine.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"a rule")
    assert "bad.safetensors is a damaged or foreign file" in refused(
        "add", "mine.safetensors", "bad.safetensors"
    )
    assert library.entries() == []


def test_nothing_is_removed_where_one_name_is_wrong(small: Generator, library: Library):
    library.save(some_rule(small, name="hat"))
    for name in ("nobody", "../library/hat", str(library.folder / "hat.safetensors")):
        assert "no rule" in refused("remove", "hat", name)
    assert len(library.entries()) == 1


def test_a_damaged_file_is_listed_and_can_be_removed(library: Library):
    library.folder.mkdir()
    (library.folder / "bad.safetensors").write_bytes(b"a rule")
    assert "damaged or foreign" in said("list")
    assert "damaged or foreign" in refused("show", "bad")
    said("remove", "bad", "bad")
    assert library.entries() == []


def test_merged_rules_do_what_their_parts_do(small: Generator, library: Library, tmp_path: Path):
    rules = [some_rule(small, seed=seed, name=f"part {seed}").with_strength(0.5) for seed in range(2)]
    library.save(rules[0])
    rules[1].save(tmp_path / "other.safetensors")
    done = answer("merge", "part-0", "other.safetensors", "--out", "both.safetensors")
    assert done["files"] == ["both.safetensors"]
    assert done["merged"] == [rule.digest for rule in rules]
    one = Rule.load(tmp_path / "both.safetensors")
    assert (one.name, one.strength, one.digest) == ("part 0 + part 1", 1.0, done["digest"])
    expected = RuleStack().push(rules[0]).push(rules[1]).compose(small)[PLAIN]
    torch.testing.assert_close(small.with_rules(one).weight(PLAIN), expected, rtol=1e-5, atol=1e-6)
    said("merge", "part-0", "both.safetensors", "--name", "all")
    assert library.load("all").name == "all"


def test_rules_of_several_layers_are_not_merged(small: Generator, library: Library):
    for layer in (PLAIN, UP):
        library.save(some_rule(small, layer, name=layer))
    assert "rules at plain, up; expected rules at one layer" in refused("merge", PLAIN, UP)
    assert len(library.entries()) == 2


def test_a_name_cannot_steer_the_terminal(small: Generator, library: Library):
    library.save(some_rule(small, name="red \x1b[31m eyes"))
    assert "\x1b" not in said("list") + said("show", "red-31m-eyes")
