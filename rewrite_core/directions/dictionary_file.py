"""The file of a sparse dictionary: tensors, and a header of JSON that says what they are; nothing executable.

    encoder [F, C]   encoder_bias [F]   decoder [F, C]   decoder_bias [C]   float32
    density [F]   removed [F]                                               float64
    header "palimpsest": `Told`

It is read with suspicion: sizes, types, shapes, finite numbers, lengths of the decoder's rows and the header are
checked, and whatever is wrong is a `FileError` of one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rewrite_core.directions.sparse import DictionarySettings
from rewrite_core.errors import FileError
from rewrite_core.files import read_json, read_safetensors, require_finite, to_safetensors_bytes
from rewrite_core.settings import Settings

__all__ = ["Told", "pack", "unpack"]

VERSION = 1
LARGEST_FILE = 1 << 30
"""Bytes: 16 features for each of 2,048 units take half of it."""
LARGEST_HEADER = 4 << 20
_UNIT_LENGTH = 1e-3  # how far from 1 the squared length of a decoder's row may be

_TYPES = {
    "encoder": torch.float32,
    "encoder_bias": torch.float32,
    "decoder": torch.float32,
    "decoder_bias": torch.float32,
    "density": torch.float64,
    "removed": torch.float64,
}


class Told(Settings):
    """What a file says of its dictionary beside the tensors; the attributes of `Dictionary` and `Quality`."""

    format: Literal["palimpsest-dictionary"] = "palimpsest-dictionary"
    version: Literal[1] = 1
    layer: str = Field(min_length=1, max_length=200)
    model: str = Field(max_length=200)
    fingerprint: str = Field(min_length=1, max_length=128)
    settings: DictionarySettings
    explained: float = Field(le=1)
    principal: float = Field(le=1)
    single: float = Field(le=1)
    keys: int = Field(ge=1)
    held_out: int = Field(ge=1)
    origin: dict[str, Any]


def pack(told: Told, tensors: Mapping[str, Tensor]) -> bytes:
    """The file's content: the same dictionary always gives the same bytes."""
    return to_safetensors_bytes(tensors, {"palimpsest": told.model_dump_json()})


def unpack(source: Path | bytes, what: str) -> tuple[Told, dict[str, Tensor]]:
    """What the file `source` says, and its tensors; `what` names it in errors.

    Raises:
        FileError: it is no dictionary's file, of a newer version, damaged, not finite, or contradicts itself.
    """
    tensors, header = read_safetensors(source, what=what, limit_bytes=LARGEST_FILE)
    if "palimpsest" not in header or set(tensors) != set(_TYPES):
        raise FileError(
            found=f"{what}: tensors {', '.join(name[:40] for name in sorted(tensors)[:4]) or 'none'}",
            expected=f"a dictionary's file ({', '.join(_TYPES)}, and a palimpsest header)",
            remedy="Choose a file that Palimpsest saved as a dictionary.",
        )
    data = read_json(header["palimpsest"], what=f"{what} header", limit_bytes=LARGEST_HEADER)
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise FileError(
            found=f"{what}: a newer version of the format",
            expected=f"version {VERSION} or older",
            remedy="Update Palimpsest to open it.",
        )
    told = Told.parse(data, what, FileError)
    require_finite(tensors, what)
    if problem := _wrong(told, tensors):
        raise FileError(found=f"{what}: {problem}", expected="a sound dictionary", remedy="Save it again.")
    return told, tensors


def _wrong(told: Told, tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with the tensors, or nothing."""
    for name, kind in _TYPES.items():
        if tensors[name].dtype != kind:
            return f"{name} of type {str(tensors[name].dtype).removeprefix('torch.')}"
    features, active, units = told.settings.features, told.settings.active, tensors["decoder_bias"].numel()
    if features is None or active is None or active > features:
        return f"{active} of {features} features active"
    wide = ("encoder", "decoder")
    for name, tensor in tensors.items():
        expected = (units,) if name == "decoder_bias" else (features, units) if name in wide else (features,)
        if tuple(tensor.shape) != expected:
            return f"{name} {list(tensor.shape)[:4]} of {features} features and {units} units"
    if not ((tensors["decoder"].square().sum(1) - 1).abs() <= _UNIT_LENGTH).all():
        return "rows of the decoder that are not of unit length"
    if not tensors["encoder"].any(1).all():
        return "rows of the encoder that are 0"
    if not ((tensors["density"] >= 0) & (tensors["density"] <= 1)).all():
        return "densities that are not from 0 to 1"
    return ""
