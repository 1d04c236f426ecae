"""Pictures in bulk: the same files however the work is cut, resumed at the picture, never mixed with others."""

from __future__ import annotations

import hashlib
import tarfile
import threading
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from rewrite_core import LatentSpec, RuleStack
from rewrite_core.errors import Cancelled, FileError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.generators import bulk_formats as formats
from rewrite_core.generators.bulk import Written, write_samples
from rewrite_core.generators.bulk_formats import FormatName
from rewrite_core.generators.bulk_manifest import Manifest, RuleRecord
from tests.generators import small_generator, some_rule, spec
from tests.work import torch_threads

KINDS = get_args(FormatName)
SPEC = spec(130)  # six micro-batches, the last one short


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator()


def digests(folder: Path) -> dict[str, str]:
    """What the folder holds, but for claims."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def pictures(written: Written) -> np.ndarray:
    """The pictures of a finished folder, read as their users would."""
    first, *others = written.files()
    if written.manifest.format == "npy":
        mapped: np.ndarray = np.load(first, mmap_mode="r")
        return mapped
    if written.manifest.format == "tar":
        with tarfile.open(first) as shard:
            members = [shard.extractfile(member) for member in shard]
            return np.stack([np.asarray(Image.open(member)) for member in members if member])
    return np.stack([np.asarray(Image.open(path)) for path in (first, *others)])


def stop_at(count: int):
    """A progress callback that cancels after `count` pictures."""

    def progress(done: int, total: int) -> None:
        if done >= count:
            raise Cancelled

    return progress


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_what_the_generator_draws(generator, tmp_path, kind):
    written = write_samples(generator, SPEC, tmp_path / "new" / "folder", format=kind)
    assert (written.drawn, written.found) == (130, 0)
    np.testing.assert_array_equal(pictures(written), generator.draw(SPEC))
    assert not list((tmp_path / "new" / "folder").glob(".*"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_cancelled_goes_on_and_ends_in_the_same_files(generator, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(formats, "SHARD", 50)
    monkeypatch.setattr(formats, "SHORT", 1)
    write_samples(generator, SPEC, tmp_path / "whole", format=kind)
    with pytest.raises(Cancelled):
        write_samples(generator, SPEC, tmp_path / "cut", format=kind, progress=stop_at(30))
    written = write_samples(generator, SPEC, tmp_path / "cut", format=kind)
    assert 0 < written.drawn < 130
    assert written.drawn + written.found == 130
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


@pytest.mark.parametrize("kind", KINDS)
def test_several_at_once_share_the_work_and_write_the_same_files(generator, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(formats, "SHARD", 25)
    monkeypatch.setattr(formats, "SHORT", 1)
    write_samples(generator, SPEC, tmp_path / "alone", format=kind)
    shares: list[Written] = []

    def work() -> None:
        shares.append(write_samples(generator, SPEC, tmp_path / "together", format=kind))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(share.drawn for share in shares) == 130
    assert all(share.drawn + share.found == 130 for share in shares)
    assert digests(tmp_path / "together") == digests(tmp_path / "alone")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_byte_and_is_left_as_it_was(generator, tmp_path, threads):
    write_samples(generator, SPEC, tmp_path / "one")
    with torch_threads(threads):
        write_samples(generator, SPEC, tmp_path / "many")
        assert torch.get_num_threads() == threads
    assert digests(tmp_path / "many") == digests(tmp_path / "one")


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: b"x" * len(data)])
def test_a_picture_that_is_not_whole_is_drawn_again(generator, tmp_path, damage):
    write_samples(generator, SPEC, tmp_path)
    before = digests(tmp_path)
    path = tmp_path / "seed0000007.png"
    path.write_bytes(damage(path.read_bytes()))
    (tmp_path / "seed0000111.png").unlink()
    assert write_samples(generator, SPEC, tmp_path).drawn == 2
    assert digests(tmp_path) == before


def test_a_shard_that_is_not_whole_is_written_again(generator, tmp_path):
    write_samples(generator, SPEC, tmp_path, format="tar")
    before = digests(tmp_path)
    shard = tmp_path / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:50_000])
    assert write_samples(generator, SPEC, tmp_path, format="tar").drawn == 130
    assert digests(tmp_path) == before


def test_nothing_in_a_shard_depends_on_when_or_by_whom_it_was_written(generator, tmp_path):
    (shard,) = write_samples(generator, SPEC, tmp_path, format="tar").files()
    with tarfile.open(shard) as opened:
        members = opened.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"spec": spec(131)}, "seeds"),
        ({"spec": LatentSpec(SPEC.seeds, "rows")}, "scheme"),
        ({"spec": LatentSpec(SPEC.seeds, truncation=0.5)}, "truncation"),
        ({"generator": small_generator(1)}, "fingerprint"),
        ({"format": "npy"}, "format"),
        ({"rules": [RuleRecord(name="a", layer="up", strength=1.0, digest="00")]}, "rules"),
    ],
)
def test_other_pictures_are_never_mixed_in(generator, tmp_path, asked, field):
    write_samples(generator, SPEC, tmp_path)
    given = {"generator": generator, "spec": SPEC, **asked}
    with pytest.raises(FileError, match=f"with pictures of {field} .*Choose another folder"):
        write_samples(given.pop("generator"), given.pop("spec"), tmp_path, **given)


@pytest.mark.parametrize(
    ("name", "kind"), [("seed0000001.png", "png"), ("shard-000000.tar", "tar"), ("pictures.npy", "npy")]
)
def test_pictures_of_unknown_origin_are_not_taken_for_ours(generator, tmp_path, name, kind):
    (tmp_path / name).touch()
    with pytest.raises(FileError, match=r"no sample\.json"):
        write_samples(generator, SPEC, tmp_path, format=kind)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_manifest_says_what_the_pictures_are_of(generator, tmp_path):
    rule = some_rule(generator)
    view = generator.with_rules(RuleStack().push(rule))
    record = RuleRecord(name=rule.name, layer=rule.layer, strength=1.0, digest=rule.digest)
    seeds = LatentSpec((5, 3, 4, 9), truncation=0.7)
    write_samples(view, seeds, tmp_path, rules=[record])
    manifest = Manifest.load(tmp_path)
    assert manifest.spec == seeds
    assert manifest.seeds == ((5, 5), (3, 4), (9, 9))
    assert (manifest.fingerprint, manifest.rules) == (view.fingerprint, (record,))


@pytest.mark.parametrize("content", ["{}", "no JSON", '{"schema": "palimpsest-sample/9"}'])
def test_a_damaged_manifest_is_reported_in_one_line(generator, tmp_path, content):
    (tmp_path / "sample.json").write_text(content)
    with pytest.raises(FileError, match=r"sample\.json"):
        write_samples(generator, SPEC, tmp_path)


def test_a_damaged_array_is_reported_in_one_line(generator, tmp_path):
    write_samples(generator, SPEC, tmp_path, format="npy")
    np.save(tmp_path / "pictures.done.npy", np.zeros(3))
    with pytest.raises(FileError, match="missing or damaged"):
        write_samples(generator, SPEC, tmp_path, format="npy")


def test_an_array_that_does_not_fit_on_the_disk_is_refused_at_once(generator, tmp_path):
    vast = LatentSpec.of(range(100))
    huge = formats.NumpyArray(tmp_path, vast, (1 << 24, 1 << 24))
    with pytest.raises(FileError, match="bytes free"):
        huge.prepare()


def test_arrays_that_could_not_be_made_are_no_obstacle_later(generator, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # bytes; the array has 99,968
    try:
        with pytest.raises(FileError, match=r"pictures\.npy cannot be written"):
            write_samples(generator, SPEC, tmp_path, format="npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert write_samples(generator, SPEC, tmp_path, format="npy").drawn == len(SPEC)


def test_a_seed_may_not_be_named_twice(generator, tmp_path):
    with pytest.raises(RequestError, match="named twice"):
        write_samples(generator, LatentSpec((1, 2, 1)), tmp_path)


def test_no_pictures_make_an_empty_folder(generator, tmp_path):
    assert write_samples(generator, LatentSpec(()), tmp_path).drawn == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sample.json"]


def test_progress_counts_up_to_all_of_them(generator, tmp_path):
    seen = []
    write_samples(generator, SPEC, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (130, 130)


def test_a_link_at_the_name_of_a_temporary_file_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_samples(small_generator(), LatentSpec.of(range(2)), folder)
    for path in folder.glob("seed*.png"):
        path.unlink()
        (folder / f".{path.name}.tmp").symlink_to(victim)
    write_samples(small_generator(), LatentSpec.of(range(2)), folder)
    assert victim.read_text() == "kept"
    assert len(list(folder.glob("seed*.png"))) == 2
