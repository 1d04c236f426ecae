"""The door: what a file of unknown origin may be, and how everything else is refused with one line."""

import argparse
import io
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rewrite_core.errors import FileError
from rewrite_core.generators import LatentSpec, Source, open_generator, open_source, torchfile
from rewrite_core.generators.contents import Contents
from rewrite_core.generators.torchfile import read_torch

REFERENCE = Path(__file__).parent / "reference"
STYLEGAN2, PROGGAN = REFERENCE / "small_stylegan2.pt", REFERENCE / "small_proggan.pth"
FILES = [STYLEGAN2, PROGGAN]


class Hostile:
    """Creates a file when it is unpickled by a loader that executes."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (open, (str(self.trace), "w"))


def content(path: Path = STYLEGAN2) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=True))


def refusal(source: Path | bytes, name: str = "upload.pt") -> str:
    with pytest.raises(FileError) as refused:
        open_source(Source.at(source) if isinstance(source, Path) else Source("upload", {name: source}))
    text = str(refused.value)
    assert "\n" not in text
    assert "weights_only" not in text  # torch's own advice is to open it all the same
    assert len(text) < 400
    return text


def zipped(path: Path, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w", kind) as copy:
        for record in archive.infolist():
            copy.writestr(record.filename, archive.read(record))
    return target.getvalue()


# What opens


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_path_and_an_upload_open_as_the_same_generator(file: Path):
    here = open_generator(file)
    there = open_source(Source("upload", {file.name: file.read_bytes()}))
    assert (here.name, here.fingerprint) == (there.name, there.fingerprint)
    assert here.name == file.stem
    assert open_generator(str(file)).fingerprint == here.fingerprint


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_a_training_checkpoint_opens_as_its_averaged_generator(tmp_path: Path, as_zip: bool):
    saved = content()
    moments = {index: {"step": 3, "exp_avg": torch.zeros(4)} for index in range(3)}
    training = {
        "g": {name: tensor + 1 for name, tensor in saved["g_ema"].items()},
        "d": {"final_conv.weight": torch.zeros(2, 2)},
        **saved,
        "g_optim": {
            "state": moments,
            "param_groups": [{"lr": 0.002, "betas": (0.0, 0.99), "params": [0, 1, 2]}],
        },
        "args": argparse.Namespace(size=64, lr=0.002, arch="stylegan2"),
        "ada_aug_p": 0.0,
    }
    path = tmp_path / "550000.pt"
    torch.save(training, path, _use_new_zipfile_serialization=as_zip)
    expected = open_generator(STYLEGAN2).fingerprint
    assert open_generator(path).fingerprint == expected
    assert open_source(Source("upload", {path.name: path.read_bytes()})).fingerprint == expected


def test_what_a_file_may_hold_is_as_it_was_afterwards(tmp_path: Path):
    before = set(torch.serialization.get_safe_globals())
    open_generator(STYLEGAN2)
    refusal(b"nonsense")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_safetensors_file_alone_opens_by_its_names(tmp_path: Path, file: Path):
    tensors = dict(read_torch(file, what=file.name, limit_bytes=1 << 30).tensors)
    save_file(tensors, tmp_path / "mine.safetensors")
    generator = open_generator(tmp_path / "mine.safetensors")
    assert generator.fingerprint == open_generator(file).fingerprint
    assert open_generator(tmp_path).fingerprint == generator.fingerprint


@pytest.mark.parametrize("mapped", [False, True])
def test_a_generator_has_left_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool):
    monkeypatch.setattr(torchfile, "MAPPED", 0 if mapped else 1 << 30)
    path = tmp_path / "model.pt"
    path.write_bytes(STYLEGAN2.read_bytes())
    generator = open_generator(path)
    before = generator.sample(LatentSpec((1,)))
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert torch.equal(generator.sample(LatentSpec((1,))), before)


# What does not


@pytest.mark.parametrize("form", ["zip", "before torch 1.6", "bare pickle"])
def test_a_hostile_pickle_never_executes(tmp_path: Path, form: str):
    path, trace = tmp_path / "hostile.pt", tmp_path / "trace"
    poisoned = content() | {"extra": Hostile(trace)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(Hostile(trace)))
    else:
        torch.save(poisoned, path, _use_new_zipfile_serialization=form == "zip")
    for source in (path, path.read_bytes()):
        text = refusal(source)
        assert "expected" in text
    if form != "bare pickle":
        assert "holds more than tensors (io.open); expected a file of tensors. It was not opened" in text
    assert not trace.exists()


def test_a_pickled_network_is_refused_with_what_to_save_instead(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    text = refusal(tmp_path / "whole.pt")
    assert "torch.nn.modules.linear.Linear" in text
    assert "save the network's state_dict() alone" in text


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, as_zip: bool, kept: float):
    path = tmp_path / "whole.pt"
    torch.save(content(), path, _use_new_zipfile_serialization=as_zip)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    assert "damaged or not from torch.save" in refusal(path)
    assert "damaged or not from torch.save" in refusal(path.read_bytes())


def test_a_file_with_any_byte_changed_is_opened_or_refused_and_nothing_else():
    choose = random.Random(0)
    data = PROGGAN.read_bytes()
    for _ in range(60):
        at = choose.randrange(len(data)) if choose.random() < 0.3 else choose.randrange(6000)
        damaged = data[:at] + bytes([choose.randrange(256)]) + data[at + 1 :]
        try:
            open_source(Source("upload", {"damaged.pth": damaged}))
        except FileError as problem:
            assert "\n" not in str(problem)  # noqa: PT017 (an exception is allowed, not required)


@pytest.mark.parametrize(
    ("saved", "problem"),
    [
        (torch.zeros(3), "holds a Tensor; expected tensors by name. Save the network's state_dict()"),
        ([1, 2], "holds a list"),
        (
            {},
            "tensors of no known network (none …); expected a generator of the family stylegan2 or stylegan2-ada or",
        ),
        ({"weight": torch.zeros(3), 7: torch.zeros(1)}, "tensors of no known network (weight …)"),
        ({"g_ema": {"a": {"b": torch.zeros(1)}}}, "tensors of no known network (none …)"),
    ],
)
def test_something_other_than_a_generator_is_refused(tmp_path: Path, saved: Any, problem: str):
    torch.save(saved, tmp_path / "other.pt")
    assert problem in refusal(tmp_path / "other.pt")


@pytest.mark.parametrize("kind", ["sparse", "meta", "integers", "complex"])
def test_a_weight_that_is_no_plain_tensor_of_floats_is_missing(tmp_path: Path, kind: str):
    saved = content(PROGGAN)
    weight = saved["layer3.wscale.b"]
    saved["layer3.wscale.b"] = {
        "sparse": weight.to_sparse(),
        "meta": weight.to("meta"),
        "integers": weight.long(),
        "complex": weight.to(torch.complex64),
    }[kind]
    torch.save(saved, tmp_path / "odd.pth")
    assert "no tensor 'layer3.wscale.b'; expected" in refusal(tmp_path / "odd.pth")


def test_numbers_that_are_not_finite_are_refused_also_when_float32_cannot_hold_them(tmp_path: Path):
    saved = content(PROGGAN)
    for number in (float("nan"), float("inf"), 1e300):
        saved["layer3.wscale.b"] = torch.full((32,), number, dtype=torch.float64)
        torch.save(saved, tmp_path / "wild.pth")
        assert "wild.pth: 32 of 32 numbers in 'layer3.wscale.b' are NaN or infinite" in refusal(
            tmp_path / "wild.pth"
        )


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path):
    saved = content(PROGGAN)
    saved["layer3.wscale.b"] = torch.zeros(1).expand(1 << 40)
    torch.save(saved, tmp_path / "bomb.pth")
    assert "bytes of weights; expected at most" in refusal(tmp_path / "bomb.pth")


def test_a_compressed_archive_is_refused_before_it_grows(tmp_path: Path):
    path = tmp_path / "model.pt"
    torch.save({"zeros": torch.zeros(1 << 22)}, path)
    packed = zipped(path)
    assert len(packed) < 1 << 17
    assert "is a compressed zip archive" in refusal(packed)
    assert "no known network" in refusal(zipped(path, zipfile.ZIP_STORED))


def nested_tuples(depth: int) -> bytes:
    """A pickle of ``{t: 1}``, t being a tuple of twice the tuple before, `depth` times."""
    pairs = (b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(depth))
    return b"\x80\x02)q\x00" + b"".join(pairs) + b"}h%cK\x01s." % depth


@pytest.mark.parametrize("form", ["zip", "legacy", "legacy before a zip"])
def test_tuples_that_unfold_without_end_are_refused_at_once(form: str):
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, saved, _use_new_zipfile_serialization=form == "zip")
    if form == "zip":
        bomb = io.BytesIO()
        with zipfile.ZipFile(saved) as harmless, zipfile.ZipFile(bomb, "w") as archive:
            for name in harmless.namelist():
                archive.writestr(
                    name, nested_tuples(100) if name.endswith("data.pkl") else harmless.read(name)
                )
        content = bomb.getvalue()
    else:
        saved.seek(0)
        for _ in range(3):  # magic number, protocol, system
            pickle.load(saved)
        content = saved.getvalue()[: saved.tell()] + nested_tuples(100)
        if form == "legacy before a zip":
            content += STYLEGAN2.read_bytes()
    assert "upload.pt holds more than tensors (tuples in tuples" in refusal(content)


def test_only_texts_are_names_of_tensors(tmp_path: Path):
    saved = {0: torch.zeros(1), ("a",): torch.zeros(1), "b": {1: torch.zeros(1), "c": torch.zeros(1)}}
    torch.save(saved, tmp_path / "odd.pt")
    stored = read_torch(tmp_path / "odd.pt", what="odd.pt", limit_bytes=1 << 20)
    assert (list(stored.tensors), stored.nested) == (["b.c"], frozenset("b"))


def test_a_file_larger_than_the_limit_is_not_read():
    for source in (STYLEGAN2, STYLEGAN2.read_bytes()):
        with pytest.raises(
            FileError, match=r"model\.pt is 392,267 bytes large; expected at most 1,000 bytes"
        ):
            read_torch(source, what="model.pt", limit_bytes=1000)


def test_files_of_two_models_or_of_none_are_refused(tmp_path: Path):
    assert "a.pt, b.pth; expected model.json with model.safetensors, or one" in (
        refusal_of({"a.pt": b"", "b.pth": b"", "notes.txt": b""})
    )
    assert "upload: notes.txt; expected" in refusal_of({"notes.txt": b""})
    assert f"{tmp_path.name}: no files; expected" in refusal(tmp_path)
    for others in ({}, {"a.pt": b"", "b.pt": b""}):
        assert "expected model.safetensors among the files" in refusal_of({"model.json": b"{}", **others})


def refusal_of(files: dict[str, bytes]) -> str:
    with pytest.raises(FileError) as refused:
        open_source(Source("upload", files))
    return str(refused.value)


def test_floats_are_copies_in_float32():
    stored = {
        "net.a": torch.ones(2, dtype=torch.float16),
        "net.b": torch.ones(2),
        "net.count": torch.tensor(3),
    }
    contents = Contents("net", "net.pt", stored)
    floats = contents.called(contents.under("net.")).floats()
    assert {name: tensor.dtype for name, tensor in floats.items()} == {"a": torch.float32, "b": torch.float32}
    assert floats["b"].data_ptr() != stored["net.b"].data_ptr()
