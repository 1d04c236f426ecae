"""Our own files: what is refused on reading, and that writing is all or nothing."""

import io
import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewrite_core.errors import FileError
from rewrite_core.files import (
    read_header,
    read_json,
    read_metadata,
    read_safetensors,
    require_finite,
    to_safetensors_bytes,
    write_bytes,
    write_json,
    write_safetensors,
)

TENSORS = {"delta": torch.arange(6.0).reshape(2, 3), "units": torch.tensor([4, 1]), "none": torch.zeros(0, 3)}
METADATA = {"name": "no eyes – “α”", "rank": "1", "a": "1", "b": "2", "c": "3", "d": "4"}


def crafted(header: dict[str, Any] | bytes, body: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def refusal(*arguments, **options) -> str:
    """The one line with which `read_safetensors` refuses."""
    with pytest.raises(FileError) as caught:
        read_safetensors(*arguments, what="hat.safetensors", **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("hat.safetensors ")
    return str(caught.value)


class Bomb:
    """Whoever unpickles this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


# Safetensors


@pytest.mark.parametrize("through", ["bytes", "file"])
def test_tensors_and_metadata_come_back_as_they_were(tmp_path, through):
    path = tmp_path / "hat.safetensors"
    write_safetensors(path, TENSORS, METADATA)
    tensors, metadata = read_safetensors(path if through == "file" else path.read_bytes(), what="hat")
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)


def test_the_same_content_gives_the_same_bytes_whatever_the_order_of_metadata():
    files_of_it = {
        to_safetensors_bytes(TENSORS, dict(order)) for order in (METADATA.items(), reversed(METADATA.items()))
    }
    files_of_it |= {to_safetensors_bytes(TENSORS, METADATA) for _ in range(5)}
    assert len(files_of_it) == 1


def test_views_of_one_storage_can_be_written():
    base = torch.arange(12.0).reshape(3, 4)
    tensors, _ = read_safetensors(
        to_safetensors_bytes({"all": base, "columns": base.T[1:3]}, {}), what="views"
    )
    assert torch.equal(tensors["columns"], base.T[1:3])


def test_a_tensor_that_was_read_is_not_bound_to_its_file():
    data = to_safetensors_bytes(TENSORS, {})
    read_safetensors(data, what="hat")[0]["delta"].zero_()
    assert torch.equal(read_safetensors(data, what="hat")[0]["delta"], TENSORS["delta"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_named_and_never_executed(tmp_path, protocol):
    bomb, mark = tmp_path / "hat.safetensors", tmp_path / "executed"
    bomb.write_bytes(pickle.dumps(Bomb(mark), protocol=protocol))
    assert "is a Python pickle; expected a safetensors file. It was not opened" in refusal(bomb)
    assert not mark.exists()


def test_a_torch_archive_is_named_and_never_executed(tmp_path):
    bomb, mark = tmp_path / "hat.safetensors", tmp_path / "executed"
    torch.save({"weight": Bomb(mark)}, bomb)
    assert "is a zip archive" in refusal(bomb)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"<!doctype html><title>Sign in</title>", "a web page"),
        (b'{"layers": []}', "JSON text"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00", "a gzip archive"),
        (b"", "header too small"),
        (b"\x00" * 4, "header too small"),
        (np.random.default_rng(0).bytes(500), "a damaged or foreign file"),
    ],
)
def test_anything_else_is_named_as_far_as_it_can_be_told(content, named):
    assert named in refusal(content)


@pytest.mark.parametrize("kept", [9, 100, -1])
def test_a_truncated_file_is_refused(kept):
    assert "damaged" in refusal(to_safetensors_bytes(TENSORS, METADATA)[:kept])


@pytest.mark.parametrize(
    "data",
    [
        (2**62).to_bytes(8, "little") + b"{}",
        crafted(b'{"a":' + b"[" * 100_000),
        crafted({"__metadata__": {"a": 1}}),
        crafted({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, bytes(4)),
        crafted({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        crafted({"a": {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}}),
        crafted({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, bytes(4)),
        crafted({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(99)),
        crafted(
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            bytes(12),
        ),
    ],
    ids=["length", "depth", "metadata", "huge", "shape", "overflow", "dtype", "trailing", "overlap"],
)
def test_a_header_that_lies_is_refused(data):
    refusal(data)


def test_a_header_as_long_as_a_pickle_opens_is_still_safetensors():
    lengths = {}
    for padding in range(0, 200, 8):
        data = to_safetensors_bytes({"a": torch.zeros(1)}, {"padding": "x" * padding})
        lengths[data[0]] = data
    assert read_safetensors(lengths[0x80], what="hat")[0].keys() == {"a"}


def test_a_file_over_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: reading it would not end well
    assert "1,099,511,627,776 bytes large; expected at most 1,000 bytes" in refusal(path, limit_bytes=1000)


@pytest.mark.parametrize(
    ("value", "wrong"), [(float("nan"), "1 of 4"), (float("inf"), "1 of 4"), (float("-inf"), "1 of 4")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_numbers_that_are_not_finite_are_found(value, wrong, dtype):
    tensor = torch.zeros(4, dtype=dtype)
    tensor[2] = value
    with pytest.raises(FileError, match=rf"model: {wrong} numbers in 'conv.weight' are NaN or infinite"):
        require_finite({"fine": torch.zeros(2), "conv.weight": tensor}, "model")


def test_finite_tensors_of_every_kind_pass():
    kinds = [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
    require_finite({str(kind): torch.zeros(3).to(kind) for kind in kinds}, "model")


# Metadata alone


def test_metadata_is_read_without_the_tensors(tmp_path):
    path = tmp_path / "hat.safetensors"
    write_safetensors(path, TENSORS, METADATA)
    whole = path.read_bytes()
    assert read_metadata(path, what="hat") == METADATA
    path.write_bytes(whole[: 8 + int.from_bytes(whole[:8], "little")])  # the header alone
    assert read_metadata(path, what="hat") == METADATA
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    assert read_metadata(path, what="hat") == METADATA


def test_a_header_says_how_long_the_whole_file_is(tmp_path):
    path = tmp_path / "hat.safetensors"
    for tensors in (TENSORS, {}):
        write_safetensors(path, tensors, METADATA)
        long = path.stat().st_size
        assert read_header(path, what="hat") == (METADATA, long)
        with path.open("ab") as file:
            file.write(b"more")
        assert read_header(path, what="hat") == (METADATA, long)


HOSTILE_HEADERS = {
    "empty": b"",
    "three bytes": b"abc",
    "a length of 2^63": (1 << 63).to_bytes(8, "little") + b"{}",
    "a length beyond the end": (99 << 20).to_bytes(8, "little") + b"{}",
    "no JSON": crafted(b"{nonsense"),
    "no text": crafted(b"\xff\xfe\xfd"),
    "a list": crafted(b"[1]"),
    "no metadata": crafted({"total": {}}),
    "metadata that is a text": crafted({"__metadata__": "rank"}),
    "metadata that is null": crafted({"__metadata__": None}),
    "metadata that is a list": crafted({"__metadata__": [1, 2]}),
    "a tensor without a place": crafted({"__metadata__": {}, "total": {}}),
    "a tensor with half a place": crafted({"__metadata__": {}, "total": {"data_offsets": [0]}}),
    "a tensor that ends at a text": crafted({"__metadata__": {}, "total": {"data_offsets": [0, "8"]}}),
    "nested deeply": crafted(b'{"__metadata__":' + b"[" * 200_000),
    "an endless number": crafted(b'{"__metadata__":' + b"9" * 5000 + b"}"),
    "a pickle": pickle.dumps({"rank": 1}),
}


@pytest.mark.parametrize("which", HOSTILE_HEADERS)
def test_a_hostile_header_is_refused_in_one_line(which, tmp_path):
    path = tmp_path / "hat.safetensors"
    path.write_bytes(HOSTILE_HEADERS[which])
    with pytest.raises(FileError, match=r"^hat is ") as refused:
        read_metadata(path, what="hat")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_metadata_values_are_always_text(tmp_path):
    path = tmp_path / "hat.safetensors"
    path.write_bytes(crafted({"__metadata__": {"rank": 1, "deep": {"er": None}}}))
    assert read_metadata(path, what="hat") == {"rank": "1", "deep": "{'er': None}"}


def test_metadata_of_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("missing", "pipe", "loop", "", "x" * 300, "a\0b"):
        with pytest.raises(FileError, match=r"^hat cannot be read from ") as refused:
            read_metadata(tmp_path / name, what="hat")
        assert "\n" not in str(refused.value)


# JSON


@pytest.mark.parametrize("encode", [str, str.encode, lambda text: text.encode("utf-8-sig")])
def test_json_is_read_from_text_and_bytes(encode):
    assert read_json(encode('{"a": [1, 2.5, "α", null]}'), what="edit.json") == {"a": [1, 2.5, "α", None]}


def test_json_is_written_as_it_is_read(tmp_path):
    value = {"a": [1, 0.1, "α\u2028", None, True], "b": {"c": []}}
    write_json(tmp_path / "edit.json", value)
    assert read_json(tmp_path / "edit.json", what="edit.json") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' appears twice"),
        ("[" * 200_000, "is nested too deeply"),
        ('{"a":' * 200_000, "is nested too deeply"),
        ("[NaN]", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("[1e999]", "the number 1e999 is too large"),
        ("[" + "1" * 5000 + "]", "cannot be read as JSON"),
        ("{'a': 1}", "cannot be read as JSON"),
        ('{"a": 1', "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        (b"\x80\x04\x95", "is not text in UTF-8"),
        (b"\xff\xfe{\x00}\x00", "is not text in UTF-8"),
    ],
)
def test_json_that_is_not_sound_is_refused_in_one_line(text, reason):
    with pytest.raises(FileError) as caught:
        read_json(text, what="edit.json")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("edit.json ")
    assert len(str(caught.value)) < 250


def test_a_hundred_megabytes_of_json_are_refused_before_decoding():
    with pytest.raises(FileError, match="100,000,000 bytes large"):
        read_json(b" " * 100_000_000, what="edit.json")


# Paths


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("missing", "there is no such file"),
        (".", "it is not a file"),
        ("pipe", "it is not a file"),
    ):
        with pytest.raises(FileError, match=reason):
            read_json(tmp_path / name, what="edit.json")


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(FileError, match="cannot be written"):
            write_bytes(tmp_path / name, b"")
        with pytest.raises(FileError, match="cannot be read"):
            read_json(tmp_path / name, what="edit.json")


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="a folder or a device"):
        write_bytes(tmp_path / "pipe", b"{}")
    assert (tmp_path / "pipe").is_fifo()


def test_writing_into_a_missing_folder_says_so(tmp_path):
    with pytest.raises(FileError, match=r"No such file or directory.*Choose another place"):
        write_bytes(tmp_path / "missing" / "edit.json", b"{}")


def test_writing_over_a_folder_fails_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "edit.json").mkdir()
    with pytest.raises(FileError, match=r"edit\.json cannot be written"):
        write_bytes(tmp_path / "edit.json", b"{}")
    assert [child.name for child in tmp_path.iterdir()] == ["edit.json"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    write_bytes(tmp_path / "edit.json", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        write_bytes(tmp_path / "edit.json", b"new")
    assert {child.name: child.read_bytes() for child in tmp_path.iterdir()} == {"edit.json": b"old"}


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    write_bytes(tmp_path / "edit.json", b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "edit.json", b"new")
    assert {child.name: child.read_bytes() for child in tmp_path.iterdir()} == {"edit.json": b"old"}


def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "usual").stat().st_mode
    )


def test_numpy_archives_are_named_too():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    assert "is a zip archive" in refusal(buffer.getvalue())
