"""Network pickles: what the reader makes of real structures, and how it refuses everything else, running nothing."""

import io
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.generators import LatentSpec, Source, open_generator, open_source
from rewrite_core.generators.nvidia_pickle import PickledNetwork, read_network, rewritten
from tests.nvidia import (
    SOURCE,
    foreign,
    pickled,
    pickled_tensorflow,
    random_stylegan2_ada,
    random_stylegan3,
    reducing,
)

LIMIT = 1 << 32
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
WHOLE = Path(os.environ.get("PALIMPSEST_REFERENCE", "no such folder")) / "nvidia"
whole = pytest.mark.skipif(
    not WHOLE.is_dir(), reason="PALIMPSEST_REFERENCE names no folder with nvidia/ in it"
)


def read(content: bytes | Path) -> PickledNetwork:
    return read_network(content, what="net.pkl", limit_bytes=LIMIT)


def refusal(content: bytes, seconds: float = 1.0, memory: int = 1 << 20) -> str:
    """The one line that a pickle is refused with: soon, and in little memory beside the file's own."""
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(FileError) as refused:
        open_source(Source("net.pkl", {"net.pkl": content}))
    spent, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 5 * seconds  # tracing makes it slower
    assert peak < memory + 4 * len(content)
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def same(found: PickledNetwork, expected: dict[str, Tensor]) -> None:
    assert found.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found.tensors[name], tensor), name
        assert found.tensors[name].dtype == tensor.dtype


# What opens


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("make", [random_stylegan2_ada, random_stylegan3])
def test_a_network_pickle_of_any_protocol_gives_its_tensors_and_attributes(make, protocol):
    generator = make(classes=3)
    content = pickled(generator, protocol)
    found = read(content)
    same(found, generator.network.state_dict())
    assert found.class_name == "Generator"
    assert found.attributes["mapping.fc0"]["bias_gain"] == 0.01
    opened = open_source(Source("net.pkl", {"net.pkl": content}))
    assert (opened.name, opened.fingerprint) == ("net", generator.fingerprint)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_the_tensorflow_line_opens_as_the_same_generator(protocol):
    generator = random_stylegan2_ada(classes=3, clamp=256.0)
    kernel = generator.network.block("b8").get_buffer("resample_filter")
    line = kernel.diagonal().sqrt()  # the filter of a line, where the plane's is its outer product
    generator.network.load_state_dict(
        generator.network.state_dict() | _blurs(generator, torch.outer(line, line))
    )
    content = pickled_tensorflow(generator, protocol, resample_kernel=line.tolist(), conv_clamp=256)
    found = read(content)
    expected = generator.network.state_dict()
    assert found.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found.tensors[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    opened = open_source(Source("net.pkl", {"net.pkl": content}))
    assert dict(opened.architecture()) == dict(generator.architecture())
    spec = LatentSpec.of(range(2), truncation=0.7)
    torch.testing.assert_close(opened.sample(spec), generator.sample(spec), rtol=1e-4, atol=1e-4)


def _blurs(generator: Any, kernel: Tensor) -> dict[str, Tensor]:
    state = generator.network.state_dict()
    return {
        name: kernel / kernel.sum()
        for name in state
        if name.endswith("resample_filter") and not name.endswith("conv1.resample_filter")
    }


def test_a_path_and_an_upload_open_as_the_same_generator(tmp_path: Path):
    generator = random_stylegan2_ada(1)
    path = tmp_path / "mine.pkl"
    path.write_bytes(pickled(generator))
    assert open_generator(path).fingerprint == generator.fingerprint
    path.write_bytes(b"")  # what was opened has left its file
    assert "damaged or no network pickle" in _refused(path)


def _refused(path: Path) -> str:
    with pytest.raises(FileError) as refused:
        open_generator(path)
    return str(refused.value)


def test_older_containers_missing_parts_and_other_layouts_in_memory_are_read(tmp_path: Path):
    weight = torch.randn(4, 6, 3, 3).to(memory_format=torch.channels_last)
    state = {
        "_parameters": OrderedDict(weight=torch.nn.Parameter(weight), bias=None),
        "_buffers": OrderedDict(kept=torch.arange(12.0).reshape(3, 4).T, passing=torch.ones(2), none=None),
        "_non_persistent_buffers_set": {"passing"},
        "_modules": OrderedDict(nothing=None),
        "clamp": np.float32(0.5),
        "size": np.array([36, 36]),
    }
    with foreign(PERSISTENT) as made:
        whole_net = reducing(made[PERSISTENT], _meta(state))
        found = read(pickle.dumps({"G_ema": whole_net}, 4))
    same(found, {"weight": weight, "kept": torch.arange(12.0).reshape(3, 4).T})
    assert found.tensors["weight"].is_contiguous()
    assert found.attributes[""] == {"clamp": 0.5, "size": [36, 36]}


def _meta(own: dict[str, Any], **changes: Any) -> dict[str, Any]:
    common = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Generator"}
    return {**common, "state": own, **changes}


@whole
@pytest.mark.parametrize("name", ["sg2ada_uncond.sentinel.pkl", "sg2ada_uncond.tflike.pkl"])
def test_the_published_structure_is_read_bit_for_bit(name: str):
    with np.load(WHOLE / "sg2ada_uncond.npz") as arrays:
        expected = {key[3:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("sd/")}
    same(read(WHOLE / name), expected)
    same(read((WHOLE / name).read_bytes()), expected)


@whole
def test_the_sentinel_draws_the_published_pictures():
    generator = open_generator(WHOLE / "sg2ada_uncond.sentinel.pkl")
    assert generator.fingerprint == open_generator(WHOLE / "sg2ada_uncond.tflike.pkl").fingerprint


# Nothing runs


def hostile_reducers(trace: Path) -> dict[str, Any]:
    """Calls that a pickle may ask for, each of which leaves a trace or takes the machine."""
    return {
        "writes a file": reducing(open, str(trace), "w"),
        "imports os": reducing(os.system, f"touch {trace}"),
        "runs a process": reducing(subprocess.check_output, ["touch", str(trace)]),
        "evaluates": reducing(eval, f"open({str(trace)!r}, 'w')"),
        "executes": reducing(exec, f"open({str(trace)!r}, 'w')"),
        "gets an attribute": reducing(getattr, "", "join"),
        "unpickles": reducing(pickle.loads, pickle.dumps(reducing(open, str(trace), "w"))),
        "loads with torch": reducing(torch.load, str(trace)),
        "allocates": reducing(bytearray, 100 << 30),
    }


@pytest.mark.parametrize("place", ["alone", "in G_ema", "in D", "in the training arguments", "in a tensor"])
@pytest.mark.parametrize("what", hostile_reducers(Path("trace")))
def test_code_in_a_reducer_is_named_and_never_run(tmp_path: Path, what: str, place: str):
    trace = tmp_path / "trace"
    bad = hostile_reducers(trace)[what]
    with foreign(PERSISTENT) as made:
        rebuild = made[PERSISTENT]
        empty: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
        content: Any = {
            "alone": bad,
            "in G_ema": {"G_ema": bad},
            "in D": {"D": bad, "G_ema": reducing(rebuild, _meta(empty))},
            "in the training arguments": {"training_set_kwargs": {"path": bad}},
            "in a tensor": {"G_ema": reducing(rebuild, _meta({**empty, "_parameters": {"weight": bad}}))},
        }[place]
        text = refusal(pickle.dumps(content, 4))
    assert "net.pkl holds more than networks (" in text
    assert not trace.exists()


AUDIT = """
import sys
from rewrite_core import open_generator

open_generator(sys.argv[1])  # imports and caches what any opening needs
seen = []
watched = {"exec", "compile", "import", "pickle.find_class", "marshal.loads", "os.system", "subprocess.Popen"}
sys.addaudithook(lambda event, arguments: seen.append(event) if event in watched else None)
open_generator(sys.argv[2])
open_generator(sys.argv[3])
print(sorted(set(seen)))
"""


def test_python_sees_nothing_executed_imported_or_unpickled(tmp_path: Path):
    generator, paths = (
        random_stylegan2_ada(),
        [tmp_path / f"{name}.pkl" for name in ("first", "second", "tensorflow")],
    )
    for path in paths[:2]:
        path.write_bytes(pickled(generator))
    paths[2].write_bytes(pickled_tensorflow(generator))
    command = [sys.executable, "-c", AUDIT, *map(str, paths)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert found.stdout == "[]\n"


def op(name: str) -> bytes:
    code: str = next(code.code for code in pickletools.opcodes if code.name == name)
    return code.encode("latin1")


def text(value: str) -> bytes:
    return op("BINUNICODE") + struct.pack("<I", len(value)) + value.encode()


def program(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


KNOWN = op("GLOBAL") + b"torch._utils\n_rebuild_tensor_v2\n"
STATE = op("EMPTY_DICT") + text("__setstate__") + op("NONE") + op("SETITEM")
PROGRAMS = {
    "INST": program(op("MARK"), op("INST"), b"os\nsystem\n"),
    "OBJ": program(op("MARK"), KNOWN, op("OBJ")),
    "EXT1": program(op("EXT1"), b"\x01"),
    "EXT4": program(op("EXT4"), b"\x01\0\0\0"),
    "NEWOBJ_EX": program(KNOWN, op("EMPTY_TUPLE"), op("EMPTY_DICT"), op("NEWOBJ_EX")),
    "PERSID": program(op("PERSID"), b"1\n"),
    "BINPERSID": program(op("NONE"), op("BINPERSID")),
    "NEXT_BUFFER": program(op("NEXT_BUFFER")),
    "LONG4": program(op("LONG4"), b"\2\0\0\0\0\1"),
    "STRING": program(op("STRING"), b"'x'\n"),
    "state for a function": program(KNOWN, STATE, op("BUILD")),
    "state for a dictionary": program(op("EMPTY_DICT"), STATE, op("BUILD")),
    "state twice": program(KNOWN, op("EMPTY_TUPLE"), op("REDUCE"), STATE, op("BUILD"), STATE, op("BUILD")),
    "slots for a function": program(KNOWN, op("NONE"), STATE, op("TUPLE2"), op("BUILD")),
    "a call of a dictionary": program(op("EMPTY_DICT"), op("EMPTY_TUPLE"), op("REDUCE")),
    "a call of a call": program(KNOWN, op("EMPTY_TUPLE"), op("REDUCE"), op("EMPTY_TUPLE"), op("REDUCE")),
    "arguments that are a list": program(KNOWN, op("EMPTY_LIST"), op("REDUCE")),
    "a name of numbers": program(op("NONE"), op("NONE"), op("STACK_GLOBAL")),
    "a dotted name": program(text("torch"), text("_utils._rebuild_tensor_v2.__globals__"), op("STACK_GLOBAL")),
    "a dotted module": program(text("torch._utils._rebuild_tensor_v2"), text("__globals__"), op("STACK_GLOBAL")),
    "items for a tuple": program(op("EMPTY_TUPLE"), op("NONE"), op("APPEND")),
    "items for a call": program(KNOWN, op("EMPTY_TUPLE"), op("REDUCE"), op("MARK"), op("NONE"), op("APPENDS")),
    "a number as a key": program(op("EMPTY_DICT"), op("BININT1"), b"\1", op("NONE"), op("SETITEM")),
    "a tuple as a member": program(op("EMPTY_SET"), op("MARK"), op("EMPTY_TUPLE"), op("ADDITEMS")),
    "an odd number of items": program(op("EMPTY_DICT"), op("MARK"), op("NONE"), op("SETITEMS")),
    "a list in place of a file": program(op("EMPTY_LIST")),
    "arguments for a set": program(op("GLOBAL"), b"builtins\nset\n", text("ab"), op("TUPLE1"), op("REDUCE")),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_operations_that_numbers_do_not_need_are_refused(name: str):
    assert "net.pkl holds more than networks (" in refusal(PROGRAMS[name])


DAMAGED = {
    "nothing": b"",
    "only zeros": bytes(1000),
    "a zip": b"PK\3\4" + bytes(100),
    "text": b"<!doctype html>",
    "protocol 0": pickle.dumps({"G_ema": None}, 0),
    "protocol 1": pickle.dumps({"G_ema": None}, 1),
    "the end alone": b"\x80\x04.",
    "two values": program(op("NONE"), op("NONE")),
    "no value at a mark": program(op("MARK"), op("TUPLE1")),
    "values below a mark": program(op("NONE"), op("MARK"), op("TUPLE1")),
    "no mark": program(op("TUPLE")),
    "nothing remembered": program(op("LONG_BINGET"), b"\xff\xff\xff\xff"),
    "no end": b"\x80\x04" + op("NONE"),
    "a length beyond the file": program(op("BINBYTES8"), struct.pack("<Q", 100 << 30)),
    "a length beyond any file": program(op("BINBYTES8"), struct.pack("<Q", 1 << 63)),
    "an array beyond the file": program(op("BYTEARRAY8"), struct.pack("<Q", 100 << 30)),
    "a text beyond the file": program(op("BINUNICODE8"), struct.pack("<Q", 100 << 30)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_pickle_or_cut_short_is_refused(name: str):
    assert "net.pkl is damaged or no network pickle (" in refusal(DAMAGED[name])


def test_a_network_that_was_cut_short_or_changed_in_any_byte_is_opened_or_refused_and_nothing_else():
    choose = random.Random(0)
    data = pickled(random_stylegan2_ada(levels=2, depth=1))
    cuts = [data[: int(len(data) * part)] for part in (0.001, 0.1, 0.5, 0.9, 0.999)]
    changed = [bytearray(data) for _ in range(60)]
    for copy in changed:
        copy[choose.randrange(len(copy))] = choose.randrange(256)
    for damaged in [*cuts, *map(bytes, changed)]:
        try:
            open_source(Source("net.pkl", {"net.pkl": damaged}))
        except FileError as problem:
            assert "\n" not in str(problem)  # noqa: PT017 (an exception is allowed, not required)
    assert "damaged or no network pickle" in refusal(cuts[2])


# Memory and time stay in proportion


def doubling(depth: int) -> bytes:
    """A tuple of twice the tuple before, so many times: 2^depth when it is unfolded."""
    return op("EMPTY_TUPLE") + b"".join(
        op("MEMOIZE") + op("BINGET") + b"%c" % i + op("TUPLE2") for i in range(depth)
    )


def under(*names: str) -> bytes:
    return b"".join(op("EMPTY_DICT") + text(name) for name in names)


def test_tuples_and_lists_that_unfold_without_end_are_refused_at_once():
    bomb = doubling(100)
    assert "without G_ema" in refusal(program(op("EMPTY_DICT"), text("G"), bomb, op("SETITEM")))
    assert "a tuple for a module" in refusal(program(op("EMPTY_DICT"), text("G_ema"), bomb, op("SETITEM")))
    assert "as a key" in refusal(program(op("EMPTY_DICT"), bomb, op("NONE"), op("SETITEM")))
    assert "a tuple as a key" in refusal(program(op("EMPTY_SET"), op("MARK"), bomb, op("ADDITEMS")))
    refusal(program(bomb))


def test_one_list_does_not_become_many_large_sets_or_one_text_many_bytes():
    many = (
        op("EMPTY_LIST") + op("MARK") + b"".join(text(f"t{index}") for index in range(50_000)) + op("APPENDS")
    )
    kind = op("GLOBAL") + b"builtins\nset\n"
    again = op("BINGET") + b"\0" + op("BINGET") + b"\1" + op("TUPLE1") + op("REDUCE")
    start = kind + op("MEMOIZE") + many + op("MEMOIZE")
    assert "builtins.set with other arguments" in refusal(program(start, again * 20_000), memory=16 << 20)
    encode = op("GLOBAL") + b"_codecs\nencode\n" + op("MEMOIZE")
    long = text("x" * 100_000) + op("MEMOIZE") + text("latin1") + op("MEMOIZE")
    again = op("BINGET") + b"\0" + op("BINGET") + b"\1" + op("BINGET") + b"\2" + op("TUPLE2") + op("REDUCE")
    assert "one text as many bytes" in refusal(program(encode, long, again * 20_000))


def test_names_that_a_state_dict_leaves_out_must_be_a_set():
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}, "_non_persistent_buffers_set": ["a"]}
    with foreign(PERSISTENT) as made:
        content = pickle.dumps({"G_ema": reducing(made[PERSISTENT], _meta(state))}, 4)
    assert "a list of names" in refusal(content)


def test_a_program_without_end_is_refused_in_time():
    assert "more than 200,000 operations" in refusal(program(op("EMPTY_DICT") * 5_000_000), memory=64 << 20)


def test_modules_that_contain_themselves_or_each_other_without_end_are_refused():
    with foreign(PERSISTENT) as made:
        rebuild = made[PERSISTENT]
        module: Any = reducing(rebuild, _meta({"_parameters": {}, "_buffers": {}, "_modules": {}}))
        for _ in range(60):
            twice = {"a": module, "b": module}
            module = reducing(rebuild, _meta({"_parameters": {}, "_buffers": {}, "_modules": twice}))
        assert "modules in modules without end" in refusal(pickle.dumps({"G_ema": module}, 4))
        wide: Any = reducing(rebuild, _meta({"_parameters": {}, "_buffers": {}, "_modules": {}}))
        for _ in range(7):
            many = {f"m{index}": wide for index in range(50)}
            wide = reducing(rebuild, _meta({"_parameters": {}, "_buffers": {}, "_modules": many}))
        refusal(pickle.dumps({"G_ema": wide}, 4), memory=4 << 20)
    children = op("EMPTY_DICT") + op("MEMOIZE")
    state = op("EMPTY_DICT") + b"".join(
        text(name) + value + op("SETITEM")
        for name, value in {
            "_modules": children,
            "_parameters": op("EMPTY_DICT"),
            "_buffers": op("EMPTY_DICT"),
        }.items()
    )
    meta = op("EMPTY_DICT") + b"".join(
        text(name) + value + op("SETITEM")
        for name, value in {
            "type": text("class"),
            "version": op("BININT1") + b"\6",
            "class_name": text("Generator"),
            "state": state,
        }.items()
    )
    called = (
        op("GLOBAL")
        + b"torch_utils.persistence\n_reconstruct_persistent_obj\n"
        + meta
        + op("TUPLE1")
        + op("REDUCE")
    )
    itself = (
        op("BINPUT") + b"\1" + op("BINGET") + b"\0" + text("again") + op("BINGET") + b"\1" + op("SETITEM")
    )
    inside = program(
        op("EMPTY_DICT"), text("G_ema"), called, op("SETITEM"), text("x"), op("NONE"), op("SETITEM")
    )
    assert b"G_ema" in inside
    looped = program(
        op("EMPTY_DICT"), text("G_ema"), called, itself, op("BINPUT"), b"\2", op("TUPLE2"),
        text("G"), op("NONE"), op("SETITEM"),
    )  # fmt: skip
    refusal(looped)


@pytest.mark.parametrize("part", ["_modules", "_parameters", "_buffers"])
def test_a_module_of_parts_without_end_is_refused(part: str):
    state: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    state[part] = {f"n{index}": None for index in range(20_000)}
    with foreign(PERSISTENT) as made:
        content = pickle.dumps({"G_ema": reducing(made[PERSISTENT], _meta(state))}, 4)
    assert "a module of parts without end" in refusal(content, memory=16 << 20)


def test_a_name_that_is_joined_over_and_over_stays_short():
    with foreign(PERSISTENT) as made:
        rebuild = made[PERSISTENT]
        name = "n" * 100_000
        module: Any = reducing(rebuild, _meta({"_parameters": {}, "_buffers": {}, "_modules": {}}))
        for _ in range(5):
            module = reducing(rebuild, _meta({"_parameters": {}, "_buffers": {}, "_modules": {name: module}}))
        assert "a name of 100,000 characters" in refusal(pickle.dumps({"G_ema": module}, 4))


# Tensors


def blob(content: Tensor | None = None) -> bytes:
    """A storage as torch writes it: a nested file, as untrusted as the one around it."""
    content = torch.arange(12.0) if content is None else content
    saved = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.save(content.storage(), saved, _use_new_zipfile_serialization=False)
    return saved.getvalue()


def network_with(value: Any, where: str = "_parameters") -> bytes:
    """A network pickle whose one tensor is `value`, given as what is called with what."""
    with foreign(PERSISTENT) as made:
        parts: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}} | {
            where: {"weight": value}
        }
        return pickle.dumps({"G_ema": reducing(made[PERSISTENT], _meta(parts))}, 4)


def stored(data: Any, offset: Any = 0, size: Any = (12,), stride: Any = (1,), *more: Any) -> Any:
    storage = reducing(torch.storage._load_from_bytes, data)
    return reducing(
        torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict(), *more
    )


def test_tensors_of_every_kind_of_number_are_read():
    kinds = [
        torch.float64,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    ]
    for kind in kinds:
        expected = torch.tensor([0, 1, 1, 0]).to(kind)
        same(read(network_with(expected, "_buffers")), {"weight": expected})


def test_a_part_of_a_storage_is_read():
    found = read(network_with(stored(blob(), 2, (2, 3), (4, 1))))
    same(found, {"weight": torch.arange(12.0).as_strided((2, 3), (4, 1), 2)})
    same(read(network_with(stored(blob(), 0, (0, 3), (3, 1)))), {"weight": torch.empty(0, 3)})
    same(read(network_with(stored(blob(torch.tensor([7.0])), 0, (), ()))), {"weight": torch.tensor(7.0)})


GEOMETRIES = {
    "100 GB by strides of 0": (0, (25 << 30,), (0,)),
    "100 GB by two strides of 0": (0, (5 << 15, 5 << 15), (0, 0)),
    "beyond the end": (1, (12,), (1,)),
    "beyond the end by a stride": (0, (2, 6), (7, 1)),
    "a negative offset": (-1, (2,), (1,)),
    "a negative stride": (11, (12,), (-1,)),
    "a negative size": (0, (-12,), (1,)),
    "a size that is no number": (0, ("12",), (1,)),
    "a size that is a truth": (0, (True,), (1,)),
    "a fractional size": (0, (12.0,), (1,)),
    "an enormous size": (0, (1 << 70,), (1,)),
    "an enormous stride": (0, (2,), (1 << 61,)),
    "more axes than any": (0, (1,) * 20, (1,) * 20),
    "sizes that are a text": (0, "12", (1,)),
    "sizes in a bomb": (0, ((((1,), 1), 1),), (1,)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_tensor_that_is_not_inside_its_storage_is_refused(name: str):
    assert "net.pkl holds more than networks (" in refusal(network_with(stored(blob(), *GEOMETRIES[name])))


def test_sizes_and_strides_of_different_lengths_are_refused():
    refusal(network_with(stored(blob(), 0, (3, 4), (1,))))


def test_a_tensor_with_metadata_or_of_another_function_is_refused():
    assert "metadata" in refusal(network_with(stored(blob(), 0, (12,), (1,), {"a": 1})))
    assert "list where torch._utils._rebuild_parameter belongs" in refusal(network_with([1.0]))


def hidden(trace: Path) -> bytes:
    return pickle.dumps(reducing(open, str(trace), "w"), 2)


def test_code_in_a_nested_storage_is_never_run(tmp_path: Path):
    trace, whole_blob = tmp_path / "trace", blob()
    parts = io.BytesIO(whole_blob)
    ends = []
    for _ in range(3):
        pickle.load(parts)
        ends.append(parts.tell())
    for end in [0, *ends]:
        spiked = whole_blob[:end] + hidden(trace) + whole_blob[end:]
        assert "net.pkl holds more than networks (" in refusal(network_with(stored(spiked)))
    assert not trace.exists()


BLOBS: dict[str, Any] = {
    "cut short": lambda data: data[:-1],
    "with more behind": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "another magic number": lambda data: data.replace(b"\x6c\xfc\x9c\x46", b"\x6d\xfc\x9c\x46"),
    "big-endian": lambda data: data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
    "another count": lambda data: data.replace(struct.pack("<Q", 12), struct.pack("<Q", 13)),
    "an enormous count": lambda data: data.replace(struct.pack("<Q", 12), struct.pack("<Q", 25 << 30)),
    "an unknown type": lambda data: data.replace(b"FloatStorage", b"OtherStorage"),
    "a type of another size": lambda data: data.replace(b"FloatStorage", b"DoubleStorage"),
    "a zip": lambda data: b"PK\3\4" + data,
}


@pytest.mark.parametrize("name", BLOBS)
def test_a_nested_storage_of_another_form_is_refused(name: str):
    changed = BLOBS[name](blob())
    assert changed != blob()
    assert "net.pkl " in refusal(network_with(stored(changed)))


def test_a_bomb_in_a_nested_storage_is_refused_at_once():
    for inner in (program(doubling(15)), program(op("EMPTY_DICT") * 2000)):
        refusal(network_with(stored(inner + blob())))


def test_one_storage_used_again_and_again_costs_no_more_than_the_file():
    large = blob(torch.zeros(1 << 20))
    storage = reducing(torch.storage._load_from_bytes, large)
    many = {
        f"w{index}": reducing(
            torch._utils._rebuild_tensor_v2, storage, 0, (1 << 20,), (1,), False, OrderedDict()
        )
        for index in range(50)
    }
    with foreign(PERSISTENT) as made:
        parts = {"_parameters": many, "_buffers": {}, "_modules": {}}
        content = pickle.dumps({"G_ema": reducing(made[PERSISTENT], _meta(parts))}, 4)
    assert "50 tensors of 209,715,200 bytes" in refusal(content, memory=4 << 20)


# Arrays and networks of the TensorFlow line


def tensorflow(value: Any = None, name: str = "4x4/Conv/bias", **changes: Any) -> bytes:
    with foreign("dnnlib.tflib.network.Network") as made:
        (kind,) = made.values()

        def network(components: dict[str, Any], variables: Any) -> Any:
            empty = kind()
            empty.__dict__ |= {
                "version": 4,
                "static_kwargs": {},
                "components": components,
                "variables": variables,
            }
            empty.__dict__ |= changes
            return empty

        parts = {"synthesis": network({}, [(name, value)]), "mapping": network({}, [])}
        return pickle.dumps((None, None, network(parts, [])), 4)


ARRAYS: dict[str, Any] = {
    "objects": np.array([None, {}], object),
    "texts": np.array(["a", "b"]),
    "records": np.zeros(2, [("a", "f4")]),
    "dates": np.array(["2020-01-01"], "datetime64[D]"),
    "complex numbers": np.zeros(2, np.complex64),
    "no array": [1.0, 2.0],
    "nothing": None,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_other_things_than_numbers_are_refused(name: str):
    assert "net.pkl " in refusal(tensorflow(ARRAYS[name]))


def test_an_array_that_claims_more_than_its_bytes_is_refused():
    content = tensorflow(np.arange(7, dtype=np.float32).reshape(1, 7))
    claims = content.replace(b"K\x01K\x07\x86", b"J\xff\xff\xff\x7fK\x07\x86")
    assert claims != content
    assert "an array [2147483647, 7] of 28 bytes" in refusal(claims)


def test_variables_that_would_be_shifted_without_end_are_refused():
    value = np.zeros((1, 1, 4, 4), np.float32)
    for name in (
        "noise999999999999",
        "9999999999x9999999999/Conv/bias",
        "4x4/ToRGB_lod3/weight",
        "n" * 100_000,
    ):
        assert "variable" in refusal(tensorflow(value, name))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 3}, "from before StyleGAN2"),
        ({"version": "4"}, "a str for a number"),
        ({"static_kwargs": {"conv_clamp": "1"}}, "a str for a number"),
        ({"static_kwargs": {"architecture": ("skip",)}}, "a tuple for architecture"),
        ({"static_kwargs": {"resample_kernel": [1.0] * 99}}, "a blur without a kernel"),
        ({"variables": [(1, 2)]}, "a variable without a short name"),
        ({"components": {}}, "'synthesis'"),
    ],
)
def test_networks_of_another_form_are_refused(changes: dict[str, Any], problem: str):
    assert problem in refusal(tensorflow(np.zeros(4, np.float32), **changes))


# A rule in the file that the generator came from


def rules(generator: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Other weights for two layers: by layer, and by tensor."""
    draw = torch.Generator().manual_seed(5)
    chosen = [list(generator.layers)[index] for index in (1, 2)]
    weights = {name: torch.randn(generator.weight(name).shape, generator=draw) for name in chosen}
    return weights, {f"synthesis.{name}.weight": weight for name, weight in weights.items()}


@pytest.mark.parametrize("make", [random_stylegan2_ada, random_stylegan3])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_rewritten_pickle_differs_in_those_weights_alone(make, protocol):
    generator = make()
    weights, tensors = rules(generator)
    content = pickled(generator, protocol)
    found = rewritten(content, tensors, what="net.pkl")
    assert len(found) == len(content)
    different = sum(one != other for one, other in zip(found, content, strict=True))
    assert 0 < different <= sum(4 * weight.numel() for weight in weights.values())
    opened, view = open_source(Source("net.pkl", {"net.pkl": found})), generator.with_weights(weights)
    assert all(torch.equal(mine, view.network.state_dict()[name]) for name, mine in opened.tensors())
    spec = LatentSpec((0, 1))
    assert torch.equal(opened.sample(spec), view.sample(spec))


def test_a_pickle_of_the_tensorflow_line_is_rewritten_in_its_own_layout():
    generator = random_stylegan2_ada()
    content = pickled_tensorflow(generator)
    weights, tensors = rules(generator)
    opened = open_source(Source("net.pkl", {"net.pkl": rewritten(content, tensors, what="net.pkl")}))
    assert all(torch.equal(opened.weight(name), weight) for name, weight in weights.items())


def test_what_cannot_be_rewritten_in_its_place_is_refused():
    generator = random_stylegan2_ada()
    _, tensors = rules(generator)
    name, weight = next(iter(tensors.items()))
    for content, wanted in (
        (pickled(generator, 2), tensors),
        (pickled(generator), {"synthesis.b99.weight": weight}),
        (pickled(generator), {name: weight[:1, :1]}),
        (b"nonsense", tensors),
    ):
        with pytest.raises(FileError, match=r"net\.pkl"):
            rewritten(content, wanted, what="net.pkl")


# Networks that are no generator of these families


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"type": "function"}, "a module of another form"),
        ({"version": 7}, "a module of another form"),
        ({"class_name": 3}, "a module without a name"),
        ({"class_name": "Discriminator"}, "net.pkl: a Discriminator; expected a Generator"),
        ({"state": []}, "a module without a name"),
        ({"state": {}}, "'_modules'"),
    ],
)
def test_modules_of_another_form_are_refused(changes: dict[str, Any], problem: str):
    state: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    with foreign(PERSISTENT) as made:
        content = pickle.dumps({"G_ema": reducing(made[PERSISTENT], _meta(state, **changes))}, 4)
    assert problem in refusal(content)


def test_a_variant_that_is_not_computed_is_refused_by_name():
    content = pickled(random_stylegan2_ada())
    assert "activation 'relu1'" in refusal(content.replace(b"\x8c\x05lrelu", b"\x8c\x05relu1"))
    assert "net.pkl: architecture is 'skap'" in refusal(
        content.replace(b"\x8c\x04skip", b"\x8c\x04skap")
    ).replace("net/model.json", "net.pkl")
