"""What the file of a direction holds, and what is refused: see `Direction.load`.

A safetensors file of float64 tensors,

    vectors          [R, C]  orthonormal rows, 1 ≤ R ≤ C
    singular_values  [K]     descending to 0 or above, K ≥ R
    key              [C]     where there is one

whose header holds JSON under ``palimpsest``: the format's name and version, layer, method, name, model, fingerprint
and provenance. Files are held to be hostile: sizes are limited, and everything is checked before it is used. The same
checks guard writing, so that nothing is written that cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import read_json, require_finite
from rewrite_core.settings import Settings

__all__ = ["FORMAT", "LARGEST_FILE", "VERSION", "Header", "read_header", "require_sound", "short"]

FORMAT, VERSION = "palimpsest-direction", 1
LARGEST_FILE = 16 << 20
"""Bytes of a file: all 1,024 directions of a layer of 1,024 units take half of it."""
LARGEST_HEADER = 4 << 20
"""Bytes of what it says of its direction: a context on some dozens of pictures of one's own, their latents in it."""
ORTHONORMAL = 1e-6
"""How far products of the rows may be from 0 and 1."""
_KNOWN = ("vectors", "singular_values", "key")


class Header(Settings):
    """What a file says of its direction."""

    format: Literal["palimpsest-direction"]
    version: Literal[1]
    layer: str = Field(min_length=1, max_length=200)
    method: str = Field(min_length=1, max_length=40)
    name: str = Field(max_length=200)
    model: str = Field(max_length=200)
    fingerprint: str = Field(max_length=128)
    provenance: dict[str, Any]

    @field_validator("layer", "method", "fingerprint")
    @classmethod
    def _on_one_line(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError("printable characters")
        return text


def read_header(text: str, what: str) -> Header:
    """The header of the file `what`, or a `FileError`."""
    data = read_json(text, what=f"{what} header", limit_bytes=LARGEST_HEADER)
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise FileError(
            found=f"{what}: version {short(str(version))} of the format",
            expected=f"version {VERSION} or older",
            remedy="Update Palimpsest to open it.",
        )
    return Header.parse(data, what, FileError)


def require_sound(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that are no direction with a `FileError`."""
    vectors, strengths = tensors["vectors"], tensors["singular_values"]
    problem = _wrong_shapes(tensors)
    if not problem:
        require_finite(tensors, what)
        products = vectors @ vectors.T  # [R, R]
        if not ((products - torch.eye(len(vectors), dtype=products.dtype)).abs() <= ORTHONORMAL).all():
            problem = "vectors that are not orthonormal"
        elif not ((strengths >= 0).all() and (strengths.diff() <= 0).all()):
            problem = "singular values that do not descend to 0 or above"
    if problem:
        raise FileError(
            found=f"{what}: {problem}",
            expected="orthonormal vectors [R, C], descending singular_values [K] with K ≥ R and maybe a key [C], "
            "float64",
            remedy="Save the direction again.",
        )


def _wrong_shapes(tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with the names, types and shapes of a direction's tensors, or nothing."""
    for name, tensor in tensors.items():
        if name not in _KNOWN:
            return f"a tensor {short(name)}"
        if tensor.dtype != torch.float64:
            return f"{name} of type {str(tensor.dtype).removeprefix('torch.')}"
    shapes = {name: list(tensors[name].shape) for name in _KNOWN if name in tensors}
    match list(shapes.values()):
        case [[rank, units], [strengths], *key] if 1 <= rank <= min(units, strengths):
            if key in ([], [[units]]):
                return ""
    return ", ".join(f"{name} {short(str(shape))}" for name, shape in shapes.items())


def short(text: str) -> str:
    """As much of a text as an error has room for."""
    return text if len(text) <= 40 else f"{text[:37]}…"
