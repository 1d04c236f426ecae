"""Work that outlives its page: written soon, found by its name alone, and never more than there is room for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dashboard.autosave import Autosaver, Shelter, new_name
from rewrite_core import EditRequest
from rewrite_core.errors import FileError
from rewrite_core.rules.settings import ModelRef
from rewrite_core.rules.workspace import Workspace
from tests.work import WAIT


def work(title: str = "") -> Workspace:
    return Workspace(ModelRef(name="small", fingerprint="f" * 64), "up", draft=EditRequest(), title=title)


@pytest.fixture
def shelter(tmp_path: Path) -> Shelter:
    return Shelter(tmp_path / "sessions")


def title(found: tuple[Workspace, float] | None) -> str:
    assert found
    return found[0].title


def test_what_is_put_is_found_at_once_and_after_a_restart(shelter: Shelter):
    saver, name = Autosaver(shelter, delay=0.01), new_name()
    saver.put(name, work("one"))
    saver.put(name, work("two"))
    assert title(saver.load(name)) == "two"
    assert saver.flush(WAIT)
    assert title(Autosaver(shelter).load(name)) == "two"
    assert len(list(shelter.folder.iterdir())) == 1
    assert not saver.problem


def test_names_cannot_be_guessed_nor_read_off_the_folder(shelter: Shelter):
    names = {new_name() for _ in range(100)}
    assert len(names) == 100
    name = names.pop()
    shelter.save(name, work())
    assert shelter.load(names.pop()) is None
    (path,) = shelter.folder.iterdir()
    assert name not in path.name
    assert shelter.load(path.stem) is None


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a" * 21, "a" * 23, "a" * 21 + "/", "é" * 22, "x" * 10**6]
)
def test_what_is_no_name_names_nothing(shelter: Shelter, name: str):
    assert shelter.load(name) is None


def test_a_damaged_file_is_one_line(shelter: Shelter):
    name = new_name()
    shelter.save(name, work())
    (path,) = shelter.folder.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(FileError, match="what was kept of your work"):
        shelter.load(name)


def kept(shelter: Shelter, count: int) -> list[str]:
    """As many files, an hour apart, the newest last."""
    names = [new_name() for _ in range(count)]
    now = time.time()
    for age, name in enumerate(reversed(names)):
        path = Shelter(shelter.folder)._path(name)
        shelter.folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(work(str(age)).to_bytes())
        os.utime(path, (now - 3600 * age,) * 2)
    return names


def test_the_oldest_go_when_they_are_too_many(shelter: Shelter):
    names = kept(shelter, 5)
    small = Shelter(shelter.folder, most=3)
    small.prune()
    assert [small.load(name) is not None for name in names] == [False, False, True, True, True]


def test_the_oldest_go_when_they_take_too_much_room(shelter: Shelter):
    names = kept(shelter, 4)
    size = len(work("0").to_bytes())
    Shelter(shelter.folder, room=2 * size).prune()
    assert [shelter.load(name) is not None for name in names] == [False, False, True, True]


def test_what_is_too_old_is_gone(shelter: Shelter):
    names = kept(shelter, 4)
    old = Shelter(shelter.folder, days=1.5 / 24)
    assert [old.load(name) is not None for name in names] == [False, False, True, True]
    old.prune()
    assert len(list(shelter.folder.iterdir())) == 2


def test_a_disk_that_cannot_be_written_is_said_and_no_more(tmp_path: Path):
    (tmp_path / "sessions").write_text("a file where the folder should be")
    saver = Autosaver(Shelter(tmp_path / "sessions"), delay=0.01)
    saver.put(new_name(), work())
    assert saver.flush(WAIT)
    assert "sessions" in saver.problem
