"""The library of rules: what is saved comes back, nothing is overwritten, and no file in it can do harm."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from rewrite_core.errors import FileError
from rewrite_core.files import read_safetensors, to_safetensors_bytes
from rewrite_core.generators import Generator
from rewrite_core.rules.library import Library, default_library, file_stem
from tests.generators import PLAIN, small_generator, some_rule


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "mine" / "rules")


def test_a_rule_survives_the_library(small: Generator, library: Library):
    rule = some_rule(small, name="Blue hair").with_strength(0.4)
    path = library.save(rule)
    assert path == library.folder / "blue-hair.safetensors"
    (found,) = library.entries()
    assert (found.name, found.path, found.title) == ("blue-hair", path, "Blue hair")
    assert (found.layer, found.rank, found.strength) == (PLAIN, 2, 0.4)
    assert (found.model, found.fingerprint, found.digest) == ("small", small.fingerprint, rule.digest)
    assert (found.bytes, found.problem) == (path.stat().st_size, "")
    again = library.load("blue-hair")
    assert again.digest == rule.digest
    assert again.provenance == rule.provenance
    library.delete("blue-hair")
    assert library.entries() == []


def test_an_empty_library_needs_no_folder(library: Library):
    assert library.entries() == []
    assert not library.folder.exists()


def test_no_file_is_ever_overwritten(small: Generator, library: Library):
    rules = [some_rule(small, seed=seed, name="hat") for seed in range(3)]
    paths = [library.save(rule) for rule in rules]
    assert [path.name for path in paths] == ["hat.safetensors", "hat-2.safetensors", "hat-3.safetensors"]
    assert [library.load(path.stem).digest for path in paths] == [rule.digest for rule in rules]


def test_rules_saved_at_once_get_a_file_each(small: Generator, library: Library):
    rules = [some_rule(small, seed=seed, name="hat") for seed in range(12)]
    threads = [threading.Thread(target=library.save, args=(rule,)) for rule in rules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {found.digest for found in library.entries()} == {rule.digest for rule in rules}


def test_the_newest_comes_first(small: Generator, library: Library):
    for age, name in enumerate(("new", "old", "oldest")):
        os.utime(library.save(some_rule(small, name=name)), (1e9 - age, 1e9 - age))
    assert [found.title for found in library.entries()] == ["new", "old", "oldest"]


def test_a_file_that_has_changed_is_read_again(small: Generator, library: Library):
    path = library.save(some_rule(small, name="hat"))
    assert library.entries()[0].title == "hat"
    path.write_bytes(some_rule(small, name="another hat").to_bytes())
    assert library.entries()[0].title == "another hat"


NAMES = {
    "../../etc/passwd": "etc-passwd",
    "..": "rule",
    "": "rule",
    "眼": "rule",
    "a\x00b\nc": "a-b-c",
    "Blue eyes, twice!": "blue-eyes-twice",
    "x" * 500: "x" * 60,
}


@pytest.mark.parametrize("name", NAMES)
def test_any_name_makes_a_file_in_the_folder(small: Generator, library: Library, name: str):
    assert file_stem(name) == NAMES[name]
    path = library.save(some_rule(small, name=name))
    assert path.parent == library.folder
    assert library.load(path.stem).name == name


@pytest.mark.parametrize("name", ["../rules/hat", "/etc/passwd", "..", ".", "", "a\\b", "hat\x00", "nobody"])
def test_a_name_leads_nowhere_else(small: Generator, library: Library, name: str):
    library.save(some_rule(small, name="hat"))
    for act in (library.load, library.delete, library.path):
        with pytest.raises(FileError, match="no rule") as problem:
            act(name)
        assert "\n" not in str(problem.value)
    assert len(library.entries()) == 1


def test_damaged_and_foreign_files_are_listed_with_their_problem_and_never_executed(
    small: Generator, library: Library, tmp_path: Path
):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (mark.touch, ())

    mark, sound = tmp_path / "executed", some_rule(small).to_bytes()
    tensors, header = read_safetensors(sound, what="a rule")
    tensors["delta"][0] = torch.nan
    hostile = {
        "empty": b"",
        "cut": sound[: len(sound) // 2],
        "pickle": pickle.dumps(Trap()),
        "text": b"a rule",
        "weights": to_safetensors_bytes({"weight": torch.ones(2)}, {}),
        "nan": to_safetensors_bytes(tensors, header),
        "huge-header": (2**62).to_bytes(8, "little") + b"{}",
    }
    library.save(some_rule(small, name="sound"))
    for name, content in hostile.items():
        (library.folder / f"{name}.safetensors").write_bytes(content)
    (library.folder / "folder.safetensors").mkdir()
    os.mkfifo(library.folder / "pipe.safetensors")
    (library.folder / "loop.safetensors").symlink_to(library.folder / "loop.safetensors")
    (library.folder / ".hidden.safetensors").write_bytes(sound)
    (library.folder / "notes.txt").write_text("not a rule file by its name")
    problems = {found.name: found.problem for found in library.entries()}
    assert set(problems) == {*hostile, "sound", "folder", "pipe"}
    assert problems.pop("sound") == ""
    for name, problem in problems.items():
        assert problem
        assert "\n" not in problem
        with pytest.raises(FileError):
            library.load(name)
    assert not mark.exists()
    for name in hostile:
        library.delete(name)
    with pytest.raises(FileError, match="cannot be deleted"):
        library.delete("folder")


def test_a_folder_that_cannot_be_made_is_said_in_one_line(small: Generator, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    library = Library(tmp_path / "file" / "rules")
    assert library.entries() == []
    with pytest.raises(FileError, match="cannot be made a folder") as problem:
        library.save(some_rule(small))
    assert "\n" not in str(problem.value)


def test_a_rule_that_cannot_be_written_leaves_no_empty_file(
    small: Generator, library: Library, monkeypatch: pytest.MonkeyPatch
):
    def full(self: int) -> None:
        raise OSError(28, "No space left on device")

    library.folder.mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        library.save(some_rule(small))
    assert list(library.folder.iterdir()) == []


def test_the_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PALIMPSEST_RULES", str(tmp_path))
    assert default_library().folder == tmp_path
    monkeypatch.delenv("PALIMPSEST_RULES")
    assert default_library().folder.parts[-2:] == ("palimpsest", "rules")
