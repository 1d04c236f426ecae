"""Hostile files at every door: refused in under a second with one line, nothing run, memory flat."""

import io
import json
import pickle
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rewrite_core.errors import FileError
from rewrite_core.generators import Source, open_generator, open_source

REFERENCE = Path(__file__).parent / "reference"
STYLEGAN2, PROGGAN = REFERENCE / "small_stylegan2.pt", REFERENCE / "small_proggan.pth"
SECONDS, MEGABYTES = 1.0, 64
HUGE = 10**12


def refused(source: Source) -> str:
    """The one line with which it is refused, in time and with hardly any memory."""
    before, start = most_memory(afresh=True), time.process_time()
    with pytest.raises(FileError) as refusal:
        open_source(source)
    assert time.process_time() - start < SECONDS
    assert most_memory() - before < MEGABYTES << 20
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    return str(refusal.value)


def most_memory(afresh: bool = False) -> int:
    """The greatest resident size of this process in bytes, as Linux counts it; `afresh`: from now on."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text())
    assert found is not None
    return 1024 * int(found[1])


class Stored:
    """What a pickle says of a tensor whose storage is beside it: `count` numbers, of which `shape` is a view."""

    def __init__(self, count: int, shape: tuple[int, ...], stride: int = 1) -> None:
        self.count, self.shape, self.stride = count, shape, stride

    def __reduce__(self) -> Any:
        storage = ("storage", torch.FloatStorage, "0", "cpu", self.count)
        strides = (self.stride,) * len(self.shape)
        return torch._utils._rebuild_tensor_v2, (Beside(storage), 0, self.shape, strides, False, {})


class Beside(tuple[Any, ...]):
    """A persistent id of a pickle."""

    def __new__(cls, parts: tuple[Any, ...]) -> "Beside":
        return super().__new__(cls, parts)


class Pickler(pickle.Pickler):
    """With storages beside the pickle, as torch writes them; `more`: what the old format adds to an id."""

    more: tuple[Any, ...] = ()

    def persistent_id(self, value: Any) -> Any:
        return (*value, *self.more) if isinstance(value, Beside) else None


class OldPickler(Pickler):
    more = (None,)


def pickled(content: Any, kind: type[Pickler] = Pickler) -> bytes:
    buffer = io.BytesIO()
    kind(buffer, 2).dump(content)
    return buffer.getvalue()


def torch_zip(data: bytes, **records: bytes) -> bytes:
    """A file of torch's own with another pickle in it."""
    saved, target = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(1)}, saved)
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, data if name.endswith("data.pkl") else archive.read(name))
        for name, content in records.items():
            copy.writestr(name, content)
    return target.getvalue()


def torch_old(data: bytes, count: int) -> bytes:
    """The same in the format before torch 1.6."""
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, saved, _use_new_zipfile_serialization=False)
    saved.seek(0)
    for _ in range(3):  # magic number, protocol, system
        pickle.load(saved)
    head = saved.getvalue()[: saved.tell()]
    return head + data + pickle.dumps(["0"], 2) + struct.pack("<q", count) + bytes(4)


def safetensors(header: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def listed(shape: list[int], end: int) -> dict[str, Any]:
    """A header under a StyleGAN2's names."""
    return {"g_ema.convs.0.conv.blur.kernel": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


def deep() -> bytes:
    """A pickle of lists in lists."""
    return b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."


def strides_of_nothing(name: str, shape: tuple[int, ...]) -> bytes:
    """A tensor of 10¹² elements, all of them the same four bytes."""
    return torch_zip(pickled({name: Stored(1, shape, stride=0)}))


def overlapping() -> bytes:
    """A zip whose directory lists one record a thousand times."""
    data = bytearray(torch_zip(pickled({"a": 1})))
    end = data.rindex(b"PK\5\6")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    entries, tail = bytes(data[start:end]), bytearray(data[end:])
    first = entries[: entries.index(b"PK\1\2", 4)]
    tail[8:12] = struct.pack("<HH", 1000, 1000)
    tail[12:16] = struct.pack("<I", 1000 * len(first))
    return bytes(data[:start]) + first * 1000 + bytes(tail)


HOSTILE: dict[str, Callable[[], tuple[str, bytes]]] = {
    "storage of 10¹² numbers": lambda: (
        "a.pt",
        torch_zip(pickled({"layer1.wscale.b": Stored(HUGE, (HUGE,))})),
    ),
    "storage of 10⁹ numbers": lambda: (
        "a.pt",
        torch_zip(pickled({"layer1.wscale.b": Stored(10**9, (10**9,))})),
    ),
    "old storage of 10¹² numbers": lambda: (
        "a.pth",
        torch_old(pickled({"layer1.wscale.b": Stored(HUGE, (HUGE,))}, OldPickler), HUGE),
    ),
    "old storage of 10⁹ numbers": lambda: (
        "a.pth",
        torch_old(pickled({"layer1.wscale.b": Stored(10**9, (10**9,))}, OldPickler), 10**9),
    ),
    "a view of 10¹² numbers as a ProgGAN": lambda: ("a.pt", strides_of_nothing("layer1.wscale.b", (HUGE,))),
    "a view of 10¹² numbers as a StyleGAN2": lambda: (
        "a.pt",
        strides_of_nothing("convs.0.conv.blur.kernel", (10**6, 10**6)),
    ),
    "a view beyond its storage": lambda: ("a.pt", torch_zip(pickled({"layer1.wscale.b": Stored(1, (2,))}))),
    "a view of negative length": lambda: ("a.pt", torch_zip(pickled({"layer1.wscale.b": Stored(1, (-1,))}))),
    "lists in lists": lambda: ("a.pt", torch_zip(deep())),
    "a pickle that never ends": lambda: ("a.pt", torch_zip(b"\x80\x02" + b"]q\0" * 50_000)),
    "a text of 2³¹ characters": lambda: ("a.pt", torch_zip(b"\x80\x02X\xff\xff\xff\x7fa.")),
    "another member's name": lambda: ("a.pt", torch_zip(pickled({"a": 1}), **{"../../evil": b"x"})),
    "one record a thousand times": lambda: ("a.pt", overlapping()),
    "a header of 10¹² elements": lambda: ("a.safetensors", safetensors(listed([10**6, 10**6], 4), bytes(4))),
    "a header longer than the file": lambda: ("a.safetensors", (2**40).to_bytes(8, "little") + b"{}"),
    "a header of 30,000 names": lambda: (
        "a.safetensors",
        safetensors({f"{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)}),
    ),
    "not a number": lambda: ("a.safetensors", safetensors(listed([1, 1], 4), b"\0\0\xc0\x7f")),
    "a gzip as safetensors": lambda: ("a.safetensors", b"\x1f\x8b\x08" + bytes(100)),
    "a pickle as a Keras file": lambda: ("a.h5", pickle.dumps(print)),
    "nothing": lambda: ("a.pt", b""),
}


@pytest.mark.parametrize("which", HOSTILE)
@pytest.mark.parametrize("way", ["upload", "file"])
def test_it_is_refused_at_once_with_one_line_and_memory_stays_flat(tmp_path: Path, which: str, way: str):
    name, data = HOSTILE[which]()
    (tmp_path / name).write_bytes(data)
    refused(Source("upload", {name: data}) if way == "upload" else Source.at(tmp_path / name))
    assert {child.name for child in tmp_path.iterdir()} == {name}
    assert not (tmp_path.parent / "evil").exists()


class Trap:
    """Anything that a pickle could do when it is loaded by a loader that executes."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class State:
    """Hides its code in what a reducer hands to `__setstate__`."""

    def __init__(self, trap: Trap) -> None:
        self.trap = trap

    def __reduce__(self) -> Any:
        return dict, (), {"inner": self.trap}


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "in a state"])
@pytest.mark.parametrize("zipped", [False, True], ids=["old", "zip"])
@pytest.mark.parametrize("does", ["writes", "imports os", "takes 100 GB"])
def test_a_pickle_does_nothing_whatever_it_would_do(tmp_path: Path, does: str, zipped: bool, hidden: bool):
    mark = tmp_path / "mark"
    trap = {
        "writes": Trap(open, str(mark), "w"),
        "imports os": Trap(__import__("os").system, f"touch {mark}"),
        "takes 100 GB": Trap(bytearray, 100 << 30),
    }[does]
    torch.save(
        {"g_ema": {"a": torch.zeros(1)}, "x": State(trap) if hidden else trap},
        tmp_path / "a.pt",
        _use_new_zipfile_serialization=zipped,
    )
    assert re.search(
        r"holds more than tensors|is damaged or not from torch", refused(Source.at(tmp_path / "a.pt"))
    )
    assert not mark.exists()


# Links and paths


def test_a_link_opens_what_it_points_to_and_a_broken_one_is_refused(tmp_path: Path):
    (tmp_path / "link.pth").symlink_to(PROGGAN)
    assert open_generator(tmp_path / "link.pth").fingerprint == open_generator(PROGGAN).fingerprint
    (tmp_path / "broken.pt").symlink_to(tmp_path / "nowhere.pt")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    (tmp_path / "device.pt").symlink_to("/dev/zero")
    for name in ("broken.pt", "loop.pt", "device.pt"):
        with pytest.raises(FileError) as refusal:
            open_generator(tmp_path / name)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../b.pt", "..", "C:\\b.pt", "a\0.pt"]
)
def test_the_name_of_an_upload_leads_nowhere(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as refusal:
        open_source(Source("upload", {name: b"x"}))
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_memory_would_be_noticed():
    before = most_memory(afresh=True)
    if before == 0:
        pytest.skip("only Linux counts a process's greatest memory afresh")
    torch.ones(MEGABYTES << 18)
    assert most_memory() - before >= 0.9 * (MEGABYTES << 20)
