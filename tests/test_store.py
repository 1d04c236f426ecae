"""The store: an answer is served only to the question it belongs to, and nothing in the folder can do harm."""

from __future__ import annotations

import json
import logging
import os
import pickle
import resource
import shutil
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rewrite_core.errors import FileError, RequestError
from rewrite_core.files import read_safetensors, write_safetensors
from rewrite_core.generators import Generator, LatentSpec, embedded_names, open_generator
from rewrite_core.statistics import (
    Batch,
    SecondMoment,
    Store,
    default_store,
    fetch,
    key_of,
    layer_statistics,
    sweep,
)
from rewrite_core.statistics.key import FORMAT, canonical, name_of
from rewrite_core.statistics.store import LIMIT_BYTES
from tests.generators import PLAIN, UP, small_generator, spec
from tests.killed import Pruner
from tests.roll import Counted, Roll, same


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "statistics", limit_bytes=1 << 50)


def some(number: int = 0) -> SecondMoment:
    keys = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(number))
    return SecondMoment().update(Batch.of(keys))


def put(store: Store, number: int, age: float = 0.0) -> Path:
    """A result of its own, last used `age` seconds ago."""
    path = store.put({"format": FORMAT, "number": number}, some(number))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def computed(store: Store, generator: Generator, layer: str, latents: LatentSpec, empty: Any = None) -> bool:
    """Whether `store` had no answer."""
    asked: list[int] = []
    fetch(
        generator,
        layer,
        latents,
        empty or SecondMoment(),
        store=store,
        progress=lambda *done: asked.append(1),
    )
    return bool(asked)


# An answer belongs to its question


def test_a_stored_answer_is_served_bit_for_bit(small: Generator, store: Store):
    first = fetch(small, UP, spec(30), SecondMoment(), store=store)
    assert not computed(store, small, UP, spec(30))
    assert same({UP: [fetch(small, UP, spec(30), SecondMoment(), store=store)]}, {UP: [first]})


class Later(SecondMoment):
    """What another release computes."""

    version = SecondMoment.version + 1


def test_whatever_the_answer_depends_on_asks_again(small: Generator, store: Store):
    fetch(small, UP, spec(5), SecondMoment(), store=store)
    view = small.with_weights({PLAIN: small.weight(PLAIN) + 1})
    assert computed(store, view, UP, spec(5)), "another weight"
    assert computed(store, small_generator(1), UP, spec(5)), "another model"
    assert computed(store, small, PLAIN, spec(5)), "another layer"
    assert computed(store, small, UP, spec(6)), "more seeds"
    assert computed(store, small, UP, spec(5, first=1)), "other seeds"
    assert computed(store, small, UP, LatentSpec((0, 1, 2, 4, 3))), "another order"
    assert computed(store, small, UP, replace(spec(5), truncation=0.5)), "another truncation"
    assert computed(store, small, UP, replace(spec(5), scheme="rows")), "another scheme"
    assert computed(store, small, UP, spec(5), Later()), "another version of the code"
    assert computed(store, small, UP, spec(5), Roll()), "another statistic"
    assert computed(store, Counted.of(size=3), UP, spec(5)), "another micro-batch"
    assert not computed(store, small, UP, spec(5))


def test_keys_are_short_json(small: Generator):
    key = key_of(small, UP, spec(1000), SecondMoment())
    assert json.loads(json.dumps(key)) == key
    assert key["seeds"] == "0..999"
    assert key_of(small, UP, LatentSpec((3, 5)), SecondMoment())["seeds"] == [3, 5]
    assert name_of(json.loads(canonical(key))) == name_of(key)


# Damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def change_the_header(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"samples"', b'"sample5"', 1).replace(b"0..4", b"0..5", 1))


def put_another_answer(path: Path) -> None:
    tensors, header = read_safetensors(path, what="a statistic")
    header["key"] = header["key"].replace(UP, PLAIN)
    write_safetensors(path, tensors, header)


def forget_a_tensor(path: Path) -> None:
    tensors, header = read_safetensors(path, what="a statistic")
    del tensors["counts"]
    write_safetensors(path, tensors, header)


def put_a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Harm(path.with_name("harm"))))


def put_a_newer_format(path: Path) -> None:
    tensors, header = read_safetensors(path, what="a statistic")
    header["key"] = canonical({**json.loads(header["key"]), "format": FORMAT + 1})
    write_safetensors(path, tensors, header)


class Harm:
    """Whoever unpickles this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def make_it_huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a sparse terabyte


DAMAGES: list[Callable[[Path], None]] = [
    truncate,
    flip_a_bit,
    change_the_header,
    put_another_answer,
    put_a_newer_format,
    forget_a_tensor,
    put_a_pickle,
    make_it_huge,
    empty,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_set_aside_and_computed_again(
    damage: Callable[[Path], None], small: Generator, store: Store, caplog: pytest.LogCaptureFixture
):
    first = fetch(small, UP, spec(5), SecondMoment(), store=store)
    (path,) = store.folder.glob("*.safetensors")
    damage(path)
    (entry,) = store.entries()
    assert store.verify(entry), "and verifying says so"
    with caplog.at_level(logging.WARNING):
        again = fetch(small, UP, spec(5), SecondMoment(), store=store)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "is set aside and computed again: " in line
    assert "\n" not in line
    assert torch.equal(again.matrix, first.matrix)
    assert path.with_suffix(".damaged").exists()
    assert not path.with_name("harm").exists()
    assert not computed(store, small, UP, spec(5))
    assert [store.verify(entry) for entry in store.entries()] == [""]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_header_tells_all_damage_but_that_among_the_numbers(
    damage: Callable[[Path], None], small: Generator, store: Store, tmp_path: Path
):
    key = key_of(small, UP, spec(5), SecondMoment())
    above = Store(tmp_path / "above", (store.folder,))
    assert not store.has(key)
    fetch(small, UP, spec(5), SecondMoment(), store=store)
    (path,) = store.folder.glob("*.safetensors")
    os.utime(path, (1e9, 1e9))
    assert store.has(key)
    assert above.has(key)
    assert path.stat().st_mtime == 1e9, "to ask is not to use"
    assert not store.has({**key, "seeds": "0..5"})
    damage(path)
    unseen = damage in (flip_a_bit, forget_a_tensor)
    assert store.has(key) == above.has(key) == unseen
    assert store.get(key, SecondMoment()) is None
    assert not store.has(key)
    assert not path.with_name("harm").exists()


def test_asking_for_a_large_result_reads_its_header_only(store: Store):
    path = put(store, 1)
    key = {"format": FORMAT, "number": 2}
    large = {"large": torch.zeros(1 << 25)}  # 128 MiB
    write_safetensors(path.with_stem(name_of(key)), large, {"key": canonical(key), "checksum": ""})
    tracemalloc.start()
    assert store.has(key)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_that_merely_cannot_be_opened_is_not_set_aside(store: Store):
    path = put(store, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    held: list[Any] = []
    try:
        with suppress(OSError):  # too many open files
            while True:
                held.append(path.open("rb"))
        assert store.get({"format": FORMAT, "number": 1}, SecondMoment()) is None
        assert not store.has({"format": FORMAT, "number": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in held:
            file.close()
    assert store.get({"format": FORMAT, "number": 1}, SecondMoment()) is not None


def test_a_folder_under_the_name_of_a_result_is_not_served(small: Generator, store: Store):
    path = store.folder / f"{name_of(key_of(small, UP, spec(5), Roll()))}.safetensors"
    path.mkdir(parents=True)
    assert not store.has(key_of(small, UP, spec(5), Roll()))
    assert same({UP: [fetch(small, UP, spec(5), Roll(), store=store)]}, sweep(small, spec(5), {UP: [Roll()]}))
    assert path.is_dir()


# Folders beneath


def test_read_only_folders_answer_and_are_never_written(
    small: Generator, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    fetch(small, UP, spec(5), SecondMoment(), store=store)
    (path,) = store.folder.glob("*.safetensors")
    os.utime(path, (1e9, 1e9))
    above = Store(tmp_path / "above", (tmp_path / "missing", store.folder))
    assert not computed(above, small, UP, spec(5))
    assert not above.folder.exists()
    assert path.stat().st_mtime == 1e9
    assert [(entry.shipped, entry.name) for entry in above.entries()] == [(True, path.stem)]
    assert above.entries(shipped=False) == []

    truncate(path)
    kept = path.read_bytes()
    assert computed(above, small, UP, spec(5))
    assert "is not used: " in caplog.text
    assert path.read_bytes() == kept
    assert not path.with_suffix(".damaged").exists()
    assert not computed(above, small, UP, spec(5))


@pytest.mark.parametrize("name", embedded_names())
def test_embedded_generators_start_warm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    generator = open_generator(name)
    for layer in generator.layers:
        asked: list[int] = []
        layer_statistics(generator, layer, progress=lambda *done, asked=asked: asked.append(1))
        assert not asked, layer
    assert not (tmp_path / "statistics").exists()
    assert len(default_store().entries()) >= len(generator.layers)
    assert not any(entry.problem for entry in default_store().entries())


@pytest.mark.parametrize("name", embedded_names())
def test_what_is_shipped_is_what_is_computed(name: str):
    generator = open_generator(name)
    layers = list(generator.layers)
    found = sweep(generator, spec(1000), {layer: [SecondMoment()] for layer in layers})
    for layer in layers:
        shipped = default_store().get(key_of(generator, layer, spec(1000), SecondMoment()), SecondMoment())
        (fresh,) = found[layer]
        assert shipped is not None
        assert isinstance(fresh, SecondMoment)
        assert (shipped.samples, shipped.positions) == (fresh.samples, fresh.positions)
        scale = fresh.matrix.diagonal().clamp(min=1e-30).sqrt()
        assert ((shipped.matrix - fresh.matrix).abs() / scale / scale[:, None]).max() < 1e-6
        assert ((shipped.mean - fresh.mean).abs() / scale).max() < 1e-6


# What there is


def test_entries_are_what_headers_say_most_recently_used_first(small: Generator, store: Store):
    assert store.entries() == []
    old, new = put(store, 1, age=100), put(store, 2, age=10)
    entries = store.entries()
    assert [entry.path for entry in entries] == [new, old]
    assert entries[0].key == {"format": FORMAT, "number": 2}
    assert entries[0].bytes == new.stat().st_size
    assert not entries[0].problem
    store.get({"format": FORMAT, "number": 1}, SecondMoment())
    assert [entry.path for entry in store.entries()] == [old, new], "reading is using"


def header(value: Any, length: int | None = None) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


HOSTILE = {
    "empty": b"",
    "three bytes": b"abc",
    "a length of 2^63": header({}, length=1 << 63),
    "a length beyond its end": header({"__metadata__": {"key": "{}"}}, length=99 << 20),
    "not JSON": header(b"{nonsense"),
    "not text": header(b"\xff\xfe\xfd"),
    "a list": header([1, 2]),
    "no metadata": header({"total": {}}),
    "metadata that is a text": header({"__metadata__": "key"}),
    "metadata without a key": header({"__metadata__": {"checksum": ""}}),
    "a key that is not JSON": header({"__metadata__": {"key": "{"}}),
    "a key that is a number": header({"__metadata__": {"key": "3"}}),
    "a key that is an object": header({"__metadata__": {"key": {"format": 3}}}),
    "a format that is a text": header({"__metadata__": {"key": '{"format": "x"}'}}),
    "a format that is null": header({"__metadata__": {"key": '{"format": null}'}}),
    "an endless number": header({"__metadata__": {"key": '{"format": ' + "9" * 5000 + "}"}}),
    "nested deeply": header(b'{"__metadata__":' + b"[" * 200_000),
    "a key nested deeply": header({"__metadata__": {"key": "[" * 200_000}}),
    "a key nested just deeply enough": header({"__metadata__": {"key": "[" * 900 + "]" * 900}}),
    "half a character": header({"__metadata__": {"key": '{"format": 2, "layer": "\\ud800"}'}}),
    "a pickle": b"\x80\x04.",
}


@pytest.mark.parametrize("which", HOSTILE)
def test_a_hostile_header_is_an_entry_with_a_problem(which: str, store: Store):
    good = put(store, 1)
    path = store.folder / "0123.safetensors"
    path.write_bytes(HOSTILE[which])
    entries = {entry.path: entry for entry in store.entries()}
    assert set(entries) == {good, path}
    assert entries[path].problem
    assert "\n" not in entries[path].problem
    assert store.verify(entries[path])
    assert store.verify(entries[good]) == ""


ODD = [
    {"parameters": [1, 2]},
    {"parameters": None},
    {"seeds": 5},
    {"statistic": 7},
    {"layer": {"a": 1}},
    {"fingerprint": ["a"]},
]


@pytest.mark.parametrize("part", ODD, ids=str)
def test_a_key_with_odd_parts_is_a_problem_or_leaves_them_out(part: dict[str, Any], store: Store):
    odd = store.put({"format": FORMAT, **part}, some())
    newer = store.put({"format": FORMAT + 1, **part}, some())
    entries = {entry.path: entry for entry in store.entries()}
    assert entries[odd].problem == "not a statistic, or damaged"
    assert entries[odd].key == {}
    assert entries[newer].problem.startswith("written by a newer release")
    assert entries[newer].key == {"format": FORMAT + 1}


@pytest.mark.parametrize(
    ("seeds", "samples"), [("3..7", 5), ([4, 2], 2), ("all", None), ("0.." + "9" * 5000, None)]
)
def test_an_entry_says_how_many_samples_it_is_over(seeds: object, samples: int | None, store: Store):
    store.put({"format": FORMAT, "seeds": seeds}, some())
    assert [entry.samples for entry in store.entries()] == [samples]


def test_newer_and_renamed_files_are_named_as_such_and_left_alone(small: Generator, store: Store):
    key = {"format": FORMAT + 1, "anything": "else"}
    newer = store.put(key, some())
    renamed = put(store, 1).rename(store.folder / "renamed.safetensors")
    problems = {entry.path: entry.problem for entry in store.entries()}
    assert problems == {
        newer: f"written by a newer release (format {FORMAT + 1})",
        renamed: "written by another release, or renamed",
    }
    before = newer.read_bytes()
    fetch(small, UP, spec(5), SecondMoment(), store=store)
    assert newer.read_bytes() == before


def test_listing_a_huge_file_reads_its_header_only(store: Store):
    path = put(store, 1)
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    foreign = store.folder / "huge.safetensors"
    with foreign.open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    started = time.process_time()
    entries = store.entries()
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {entry.path for entry in entries} == {path, foreign}
    assert peak < 10 << 20
    assert seconds < 1


def test_what_is_no_file_or_lies_elsewhere_is_survived(store: Store, tmp_path: Path):
    path = put(store, 1)
    elsewhere = tmp_path / "elsewhere.safetensors"
    shutil.copy(path, elsewhere)
    (store.folder / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    (store.folder / "loop.safetensors").symlink_to(store.folder / "loop.safetensors")
    (store.folder / "folder.safetensors").mkdir()
    (store.folder / "up").symlink_to(tmp_path)
    os.mkfifo(store.folder / "pipe.safetensors")
    link = store.folder / "link.safetensors"
    link.symlink_to(elsewhere)
    listed = {entry.path.name: entry.problem for entry in store.entries()}
    assert listed[path.name] == ""
    assert all(listed[name] for name in ("folder.safetensors", "pipe.safetensors", "link.safetensors"))
    assert store.size() < 2 * path.stat().st_size
    store.prune(0)
    assert elsewhere.exists(), "what a link points to is not ours"


def test_a_result_is_found_by_the_start_of_its_name(store: Store):
    names = sorted(put(store, number).stem for number in range(20))
    assert store.find(names[0]).name == names[0]
    assert store.find(names[3][:12]).name == names[3]
    for wrong in ("zzz", ""):
        with pytest.raises(RequestError, match="stored statistics whose name starts with"):
            store.find(wrong)


def test_a_result_is_deleted_and_a_shipped_one_is_not(store: Store, tmp_path: Path):
    path = put(store, 1)
    above = Store(tmp_path / "above", (store.folder,))
    with pytest.raises(RequestError, match="came with an embedded generator"):
        above.delete(above.find(path.stem))
    entry = store.find(path.stem)
    store.delete(entry)
    assert not path.exists()
    store.delete(entry)
    folder = store.folder / "folder.safetensors"
    folder.mkdir()
    (entry,) = store.entries()
    with pytest.raises(FileError, match="cannot be deleted"):
        store.delete(entry)


# Room


def test_what_was_used_least_recently_goes_first(store: Store):
    paths = [put(store, number, age=100 - number) for number in range(5)]
    store.get({"format": FORMAT, "number": 0}, SecondMoment())
    size = paths[0].stat().st_size
    gone = store.prune(3 * size + 10)
    assert gone == [paths[1], paths[2]]
    assert store.size() == 3 * size
    assert store.prune(3 * size + 10) == []


def test_what_was_set_aside_goes_before_everything_else(store: Store):
    old, new = put(store, 1, age=1000), put(store, 2, age=10)
    damaged = new.rename(new.with_suffix(".damaged"))
    assert store.prune(old.stat().st_size) == [damaged]
    assert old.exists()


def test_what_was_just_written_stays_whatever_its_size(store: Store):
    tight = Store(store.folder, limit_bytes=1)
    first = put(tight, 1)
    second = put(tight, 2)
    assert not first.exists()
    assert second.exists()


def test_blocks_of_a_pass_under_way_stay_and_those_of_an_old_one_go(store: Store):
    fresh, old = (
        store.partial / "a" / "000000-000001.safetensors",
        store.partial / "b" / "000000-000001.safetensors",
    )
    half, older_half = store.folder / ".1.tmp", store.folder / ".2.tmp"
    for path in (fresh, old, half, older_half):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    yesterday = time.time() - 100_000
    for path in (old, older_half):
        os.utime(path, (yesterday, yesterday))
    assert store.size() == 4000
    assert set(store.prune(0)) == {old, older_half}
    assert fresh.exists()
    assert half.exists()


def test_foreign_files_are_counted_and_never_deleted(store: Store):
    put(store, 1)
    notes = store.folder / "notes.txt"
    notes.write_bytes(bytes(5000))
    store.prune(0)
    assert notes.exists()
    assert store.size() == 5000


def test_several_processes_put_prune_and_list_at_once(store: Store):
    store.folder.mkdir()
    with (
        Pruner(store.folder, 1) as first,
        Pruner(store.folder, 2) as second,
        Pruner(store.folder, 3) as third,
    ):
        assert [process.outcome() for process in (first, second, third)] == ["fine"] * 3
    assert all(store.verify(entry) == "" for entry in store.entries())
    assert not list(store.folder.glob("*.damaged"))


def test_clearing_empties_the_folder_through_a_link_too(store: Store, tmp_path: Path):
    put(store, 1)
    link = tmp_path / "link"
    link.symlink_to(store.folder)
    Store(link).clear()
    assert store.size() == 0
    put(Store(link), 2)
    assert store.size() > 0
    Store(tmp_path / "missing").clear()


# Settings


def test_the_default_store_is_where_and_as_large_as_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    monkeypatch.delenv("PALIMPSEST_CACHE_LIMIT", raising=False)
    assert default_store().folder == tmp_path / "statistics"
    assert default_store().limit_bytes == LIMIT_BYTES
    monkeypatch.setenv("PALIMPSEST_CACHE_LIMIT", "1.5")
    assert default_store().limit_bytes == 1_500_000_000
    monkeypatch.setenv("PALIMPSEST_CACHE_LIMIT", "")
    assert default_store().limit_bytes == LIMIT_BYTES


@pytest.mark.parametrize("limit", ["ten", "-1", "nan", "inf", "1e300", "5 GB"])
def test_a_limit_that_is_no_number_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PALIMPSEST_CACHE_LIMIT", limit)
    with pytest.raises(RequestError, match=r"expected a number of GB") as refused:
        default_store()
    assert f"PALIMPSEST_CACHE_LIMIT={limit}" in str(refused.value)
