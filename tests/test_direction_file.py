"""Directions as values and as files: to the last bit, tied to their generator, and nothing hostile gets in."""

import io
import json
import pickle
import re
import string
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.directions import Direction, unit_direction
from rewrite_core.directions.direction_file import LARGEST_FILE, LARGEST_HEADER
from rewrite_core.errors import FileError, LayerError, ModelMismatch, RequestError
from rewrite_core.files import to_safetensors_bytes
from rewrite_core.rules.stack import RuleStack
from tests.generators import DOWN, PLAIN, UP, small_generator, some_rule
from tests.test_hostile import MEGABYTES, SECONDS, Stored, Trap, most_memory, pickled, safetensors, torch_zip

UNITS = 10
"""Of the layer PLAIN of the small generator."""


def rows(rank: int, units: int = UNITS, seed: int = 0) -> Tensor:
    """Orthonormal rows [R, C]."""
    draw = torch.Generator().manual_seed(seed)
    basis: Tensor = torch.linalg.qr(torch.randn(units, rank, generator=draw, dtype=torch.float64)).Q
    return basis.T.contiguous()


def some_direction(rank: int = 3, **changes: Any) -> Direction:
    """A direction with everything that one may have."""
    strengths = torch.tensor([5.0, 1 / 3, 1e-300, 0.0], dtype=torch.float64)
    told = {"seeds": [2, 5], "settings": {"ridge": 0.1 + 0.2}, "made_with": {"torch": "2"}, "nothing": None}
    whole = Direction(
        rows(rank), PLAIN, "zca", strengths, "eyes", told, "small", "ab" * 32, rows(1, seed=1)[0] * np.pi
    )
    return replace(whole, **changes)


def file_of(direction: Direction, more: dict[str, Tensor] | None = None, **header: Any) -> bytes:
    """Its file with tensors and fields of the header put in place of its own, unchecked."""
    tensors = {"vectors": direction.vectors, "singular_values": direction.singular_values, **(more or {})}
    told = {**json.loads(direction._header()), **header}
    told = {name: value for name, value in told.items() if value is not ...}
    return to_safetensors_bytes(tensors, {"palimpsest": json.dumps(told)})


def refusal(source: Path | bytes) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(FileError) as caught:
        Direction.load(source, "eyes.safetensors")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("eyes.safetensors")
    assert len(line) < 500
    return line


# To the last bit


@pytest.mark.parametrize("key", [True, False])
def test_a_file_gives_back_the_same_direction_to_the_last_bit(tmp_path: Path, key: bool):
    saved = some_direction() if key else some_direction(key=None)
    saved.save(tmp_path / "eyes.safetensors")
    for source in (tmp_path / "eyes.safetensors", str(tmp_path / "eyes.safetensors"), saved.to_bytes()):
        again = Direction.load(source)
        assert again == saved
        assert again.vectors.numpy().tobytes() == saved.vectors.numpy().tobytes()
        assert again.singular_values.tolist() == [5.0, 1 / 3, 1e-300, 0.0]
        assert (again.key is not None) == key
        assert again.provenance == saved.provenance
        assert (again.digest, again.to_bytes()) == (saved.digest, saved.to_bytes())
        assert (again.layer, again.method, again.name) == (PLAIN, "zca", "eyes")
        assert (again.model, again.fingerprint) == ("small", "ab" * 32)
        assert (again.rank, again.units) == (3, UNITS)


@given(st.text(max_size=200), st.text(string.printable, max_size=50))
@settings(max_examples=40, deadline=None)
def test_any_name_survives(name: str, told: str):
    kept = some_direction(name=name, model=name, provenance={name: told})
    assert Direction.load(kept.to_bytes()) == kept


def test_a_file_is_small_and_readable_without_us():
    wide = Direction(
        rows(1, 512), "layer6", "zca", torch.ones(300, dtype=torch.float64), key=torch.ones(512).double()
    )
    assert len(wide.to_bytes()) < 16 * 1024


def test_a_direction_is_kept_out_of_a_view_s_memory():
    whole = rows(3)
    assert Direction.load(some_direction(vectors=whole[1:]).to_bytes()).vectors.tolist() == whole[1:].tolist()


# As a value


CHANGES: dict[str, dict[str, Any]] = {
    "vectors": {"vectors": rows(3, seed=2)},
    "rank": {"vectors": rows(3)[:2]},
    "layer": {"layer": UP},
    "method": {"method": "svd"},
    "strengths": {"singular_values": torch.ones(3, dtype=torch.float64)},
    "name": {"name": "mouths"},
    "provenance": {"provenance": {"seeds": [2, 6]}},
    "model": {"model": "other"},
    "fingerprint": {"fingerprint": "cd" * 32},
    "key": {"key": rows(1, seed=5)[0]},
    "no key": {"key": None},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_directions_are_equal_by_all_that_a_file_would_hold(changes: dict[str, Any]):
    one, same, other = some_direction(), some_direction(), some_direction(**changes)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert len({one, same, other}) == 2
    assert one != "a direction"


def test_the_digest_says_what_it_looks_for_and_nothing_else():
    one = some_direction()
    assert len(one.digest) == 16
    assert one.renamed("mouths").digest == one.digest
    assert some_direction(provenance={}, key=None).digest == one.digest
    for name in ("vectors", "rank", "layer"):
        assert some_direction(**CHANGES[name]).digest != one.digest
    flat = torch.eye(4, dtype=torch.float64)[:1]
    assert some_direction(vectors=flat).digest != some_direction(vectors=flat.reshape(2, 2)).digest


def test_a_head_is_what_the_lower_rank_would_have_given_and_no_more_than_there_is():
    whole = some_direction()
    assert torch.equal(whole.head(2).vectors, whole.vectors[:2])
    assert (whole.head(2).singular_values, whole.head(2).name) == (whole.singular_values, "eyes")
    assert whole.head(3) == whole
    for rank in (0, 4):
        with pytest.raises(RequestError, match=rf"^rank {rank} of the direction 'eyes'; expected 1 to 3,"):
            whole.head(rank)


def test_renaming_changes_the_name_alone():
    assert some_direction().renamed("mouths") == some_direction(name="mouths")


# Which generator it is for


def test_a_direction_is_for_its_own_generator_under_any_rules_and_with_one_of_its_layers():
    small = small_generator()
    mine = some_direction(fingerprint=small.fingerprint)
    mine.check(small)
    mine.check(small.with_rules(RuleStack().push(some_rule(small))))
    some_direction(fingerprint="").check(small)
    with pytest.raises(
        ModelMismatch, match=r"'eyes' made for small \(abababababab\); expected one for small \("
    ):
        some_direction().check(small)
    with pytest.raises(LayerError, match="layer 'l99'; expected one of up, plain, down"):
        replace(mine, layer="l99").check(small)
    with pytest.raises(LayerError, match="of 10 units; expected 9, the width of the keys of down"):
        replace(mine, layer=DOWN).check(small)


def test_a_direction_can_be_adopted_by_a_generator_that_it_fits():
    small = small_generator()
    adopted = some_direction(model="other").adopted_by(small)
    adopted.check(small)
    assert (adopted.model, adopted.digest) == (small.name, some_direction().digest)
    with pytest.raises(LayerError, match="of 10 units; expected 12"):
        some_direction(layer=UP).adopted_by(small)


# A unit, and a rule


def test_a_unit_is_the_direction_whose_heat_is_its_feature_map():
    small = small_generator()
    found = unit_direction(small, PLAIN, 7)
    found.check(small)
    assert found.vectors.tolist() == [[0.0] * 7 + [1.0] + [0.0] * 2]
    assert (found.method, found.name, found.provenance) == ("unit", "unit 7", {"unit": 7})
    assert Direction.load(found.to_bytes()) == found
    for unit in (-1, 10):
        with pytest.raises(RequestError, match=f"unit {unit}; expected 0 to 9, the units of plain"):
            unit_direction(small, PLAIN, unit)
    with pytest.raises(LayerError, match="layer 'l99'"):
        unit_direction(small, "l99", 0)


def test_the_direction_of_a_rule_spans_what_it_acts_on_and_can_be_saved():
    small = small_generator()
    rule = some_rule(small, name="longer necks")
    found = rule.direction()
    found.check(small)
    stored = rule.directions.double()
    inside = stored @ found.vectors.T @ found.vectors
    torch.testing.assert_close(inside, stored)
    assert float(found.vectors[0] @ stored[0]) == pytest.approx(float(stored[0].norm()))
    assert float(found.vectors[1] @ stored[1]) > 0
    assert (found.method, found.name, found.rank, found.layer) == ("rule", "longer necks", 2, PLAIN)
    assert found.provenance["rule"] == rule.digest
    assert Direction.load(found.to_bytes()) == found


def test_orthonormal_directions_of_a_rule_stay_as_they_are():
    rule = replace(some_rule(small_generator()), directions=rows(2).float())
    found = rule.direction()
    torch.testing.assert_close(found.vectors, rows(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.singular_values, torch.ones(2).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "directions", [torch.ones(2, UNITS), torch.zeros(2, UNITS), torch.randn(UNITS + 1, UNITS)]
)
def test_a_rule_whose_directions_depend_on_each_other_has_no_direction(directions: Tensor):
    with pytest.raises(RequestError, match="directions depend on each other"):
        replace(some_rule(small_generator()), directions=directions).direction()


# What is refused


def nan(tensor: Tensor) -> Tensor:
    return torch.where(torch.arange(tensor.numel()).reshape(tensor.shape) == 1, torch.nan, tensor)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"vectors": nan(rows(3))}, r"1 of 30 numbers in 'vectors' are NaN"),
    "infinite strengths": ({"singular_values": torch.tensor([np.inf, 2, 1]).double()}, "'singular_values' are NaN or"),
    "NaN in the key": ({"key": nan(rows(1)[0])}, "in 'key' are NaN"),
    "not orthonormal": ({"vectors": rows(3) * (1 + 1e-5)}, "vectors that are not orthonormal"),
    "huge numbers": ({"vectors": rows(3) * 1e300}, "vectors that are not orthonormal"),
    "twice the same row": ({"vectors": rows(3)[[0, 0]]}, "vectors that are not orthonormal"),
    "zeros": ({"vectors": torch.zeros(1, 10).double()}, "vectors that are not orthonormal"),
    "one row without its axis": ({"vectors": rows(1)[0]}, r"vectors \[10\], singular_values \[4\], key \[10\];"),
    "no rows": ({"vectors": rows(3)[:0]}, r"vectors \[0, 10\]"),
    "more rows than units": ({"vectors": torch.eye(5, 2).double(), "key": None}, r"vectors \[5, 2\]"),
    "fewer strengths than rows": ({"singular_values": torch.ones(2).double()}, r"singular_values \[2\]"),
    "strengths as a matrix": ({"singular_values": torch.ones(2, 2).double()}, r"singular_values \[2, 2\]"),
    "a key of other width": ({"key": torch.ones(9).double()}, r"key \[9\]"),
    "a key without an axis": ({"key": torch.tensor(1.0).double()}, r"key \[\]"),
    "float32": ({"vectors": rows(3).float()}, "vectors of type float32"),
    "whole numbers": ({"singular_values": torch.tensor([3, 2, 1])}, "singular_values of type int64"),
    "ascending strengths": ({"singular_values": torch.arange(3.0).double()}, "do not descend to 0"),
    "negative strengths": ({"singular_values": -torch.arange(3.0).double()}, "do not descend to 0 or above"),
    "no layer": ({"layer": ""}, "layer is ''; expected"),
    "an absurd layer": ({"layer": "x" * 10_000}, "layer is 'xxx"),
    "a layer of two lines": ({"layer": "l08\nl09"}, "expected printable characters"),
    "an absurd name": ({"name": "y" * 201}, "name is 'yyy"),
    "half a character": ({"name": "\ud800"}, "invalid JSON"),
    "an absurd provenance": ({"provenance": {"a": "x" * LARGEST_HEADER}}, "at most 4,194,304 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("which", WRONG)
def test_what_is_no_direction_is_refused_in_one_line_when_read_and_when_written(which: str):
    changes, message = WRONG[which]
    wrong = some_direction(**changes)
    more = {} if wrong.key is None else {"key": wrong.key}
    told = {name: getattr(wrong, name) for name in ("layer", "name", "provenance")}
    line = refusal(file_of(wrong, more, **told))
    assert re.search(message, line)
    with pytest.raises(FileError, match=message) as caught:
        wrong.to_bytes()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "a newer version": ({"version": 2}, "version 2 of the format; expected version 1 or older. Update Palimpsest"),
    "an absurd version": ({"version": 10**500}, "version 1000"),
    "version 0": ({"version": 0}, "version is 0"),
    "no version": ({"version": ...}, "version is"),
    "another format": ({"format": "palimpsest-rule"}, "format is 'palimpsest-rule'"),
    "no method": ({"method": ""}, "method is ''"),
    "an unknown field": ({"evil": 1}, "evil is 1; expected no field of that name"),
    "a list for provenance": ({"provenance": [1]}, "provenance is [1]"),
    "a number for a name": ({"name": 3}, "name is 3"),
    "a long fingerprint": ({"fingerprint": "a" * 1000}, "fingerprint is 'aaa"),
}  # fmt: skip


@pytest.mark.parametrize("which", HEADERS)
def test_a_wrong_header_is_refused_by_its_field(which: str):
    changes, message = HEADERS[which]
    assert message in refusal(file_of(some_direction(), **changes))


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"version": NaN}', "[" * 100_000, '{"a": 1, "a": 1}'])
def test_a_header_that_is_no_description_is_refused(text: str):
    one = some_direction()
    tensors = {"vectors": one.vectors, "singular_values": one.singular_values}
    refusal(to_safetensors_bytes(tensors, {"palimpsest": text}))


@pytest.mark.parametrize(("depth", "kept"), [(50, True), (100, True), (300, False), (800, False)])
def test_a_provenance_that_is_nested_too_deeply_is_refused(depth: int, kept: bool):
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    content = file_of(some_direction(), provenance={"deep": deep})
    if kept:
        assert Direction.load(content).provenance == {"deep": deep}
    else:
        refusal(content)


def test_tensors_that_are_missing_or_too_many_are_refused():
    one = some_direction()
    header = {"palimpsest": one._header()}
    assert "tensors none" in refusal(to_safetensors_bytes({}, header))
    assert "tensors vectors" in refusal(to_safetensors_bytes({"vectors": one.vectors}, header))
    assert "a tensor more" in refusal(file_of(one, {"more": torch.ones(1)}))
    bare = {"vectors": one.vectors, "singular_values": one.singular_values}
    assert "expected a direction's file" in refusal(to_safetensors_bytes(bare, {}))
    assert "tensors delta, directions" in refusal(some_rule(small_generator()).to_bytes())


def hostile(mark: Path) -> dict[str, bytes]:
    """Files that are something else, or promise more than they hold."""
    trap, buffer = Trap(open, str(mark), "w"), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil", b"x")
    saved = io.BytesIO()
    torch.save({"vectors": trap}, saved)
    whole = some_direction().to_bytes()
    shape = {"dtype": "F64", "shape": [10**6, 10**6], "data_offsets": [0, 8]}
    return {
        "a pickle": pickle.dumps(trap),
        "torch.save": saved.getvalue(),
        "storage of 10¹² numbers": torch_zip(pickled({"vectors": Stored(10**12, (10**12,))})),
        "a zip": buffer.getvalue(),
        "10¹² numbers in a header": safetensors({"vectors": shape, "singular_values": shape}, bytes(8)),
        "a header of 10¹² bytes": (10**12).to_bytes(8, "little") + b"{}",
        "too large": whole + bytes(LARGEST_FILE),
        "nothing": b"",
        "half of it": whole[: len(whole) // 2],
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "a page": b"<html>",
    }


@pytest.mark.parametrize("which", hostile(Path("mark")))
@pytest.mark.parametrize("way", ["bytes", "file"])
def test_a_hostile_file_is_refused_at_once_and_nothing_runs(tmp_path: Path, which: str, way: str):
    content, path = hostile(tmp_path / "mark")[which], tmp_path / "eyes.safetensors"
    path.write_bytes(content)
    before, start = most_memory(afresh=True), time.process_time()
    refusal(content if way == "bytes" else path)
    assert time.process_time() - start < SECONDS
    assert most_memory() - before < MEGABYTES << 20
    assert [child.name for child in tmp_path.iterdir()] == ["eyes.safetensors"]


@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_a_direction_or_refused(at: int, byte: int, end: int):
    content = bytearray(some_direction().to_bytes())
    content[at % len(content)] = byte
    content = content[: max(end % (4 * len(content)), at % len(content))]
    with suppress(FileError):
        found = Direction.load(bytes(content))
        assert Direction.load(found.to_bytes()) == found
        assert found.vectors.isfinite().all()


def test_a_file_that_is_not_there_or_cannot_be_written_is_one_line(tmp_path: Path):
    with pytest.raises(FileError, match=r"eyes\.safetensors cannot be read"):
        Direction.load(tmp_path / "eyes.safetensors")
    with pytest.raises(FileError, match="cannot be written"):
        some_direction().save(tmp_path / "nowhere" / "eyes.safetensors")


def test_a_direction_too_large_for_its_file_is_not_written():
    wide = Direction(
        torch.eye(1600, dtype=torch.float64), PLAIN, "pca", torch.ones(1600, dtype=torch.float64)
    )
    with pytest.raises(FileError, match=r"takes 20,\d\d\d,\d\d\d bytes; expected at most 16,777,216"):
        wide.to_bytes()
