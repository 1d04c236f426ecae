"""Pixels to paste where a layer draws the picture itself: a colour, or a picture that somebody brought.

    Patch.of_colour("#e02020")           # one pixel: it fills the painted region
    Patch.from_png(content)              # as large as it is, in the generator's pixels; its alpha is how much of it

A file holds a patch as a PNG data URL. What comes from there is held to be hostile: its size is looked at before a
pixel is decoded.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.pictures import encode_png

__all__ = ["LARGEST_PNG", "LARGEST_SIDE", "Patch"]

LARGEST_SIDE = 1024
LARGEST_PNG = 8 << 20  # bytes
_PNG_URL = "data:image/png;base64,"
_EXPECTED = f"a PNG of at most {LARGEST_SIDE}×{LARGEST_SIDE} pixels and {LARGEST_PNG >> 20} MB"


@dataclass(frozen=True, eq=False, repr=False)
class Patch:
    """RGBA, immutable: uint8 `pixels` [h, w, 4]. Equal by its pixels; one pixel alone is a colour."""

    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        given = self.pixels
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] not in (3, 4):
            raise _wrong(
                f"a patch of shape {given.shape} and type {given.dtype}", "uint8 pixels [h, w, 3 or 4]"
            )
        if not 0 < min(given.shape[:2]) <= max(given.shape[:2]) <= LARGEST_SIDE:
            raise _wrong(f"a patch of {given.shape[0]}×{given.shape[1]} pixels")
        if given.shape[2] == 3:
            given = np.concatenate([given, np.full_like(given[..., :1], 255)], axis=2)  # [h, w, 4]
        fixed = np.frombuffer(given.tobytes(), dtype=np.uint8).reshape(given.shape)
        object.__setattr__(self, "pixels", fixed)

    @classmethod
    def of_colour(cls, colour: str) -> Patch:
        """A colour, as ``#rrggbb``.

        Raises:
            RequestError: it is not written so.
        """
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            raise _wrong(f"the colour {colour[:40]!r}", "#rrggbb", "Write it in hexadecimal digits.")
        return cls(np.frombuffer(bytes.fromhex(colour[1:]), dtype=np.uint8).reshape(1, 1, 3))

    @classmethod
    def from_png(cls, content: bytes, what: str = "the patch") -> Patch:
        """The pixels of a PNG file; `what` names it in errors.

        Raises:
            RequestError: it is not a PNG, is damaged, or is too large.
        """
        if len(content) > LARGEST_PNG:
            raise _wrong(f"{what}: {len(content):,} bytes")
        try:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if max(image.size) > LARGEST_SIDE:
                    raise _wrong(f"{what}: {image.height}×{image.width} pixels")
                return cls(np.asarray(image.convert("RGBA")))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _wrong(f"{what}: a hundred million pixels or more") from None
        except (OSError, ValueError, SyntaxError) as problem:
            raise _wrong(f"{what}: it cannot be decoded ({problem})") from None

    @classmethod
    def from_data_url(cls, url: Any, where: str) -> Patch:
        """The pixels in a PNG data URL; `where` names the field in errors.

        Raises:
            RequestError: it is none, or as `from_png`.
        """
        if not isinstance(url, str) or not url.startswith(_PNG_URL):
            raise _wrong(f"{where} is {str(url)[:40]!r}", f"{_PNG_URL}…")
        if len(url) > 4 * (LARGEST_PNG // 3 + 1) + len(_PNG_URL):
            raise _wrong(f"{where}: {len(url):,} characters")
        try:
            return cls.from_png(base64.b64decode(url.removeprefix(_PNG_URL), validate=True), where)
        except ValueError:
            raise _wrong(f"{where}: it is not base64") from None

    def to_data_url(self) -> str:
        """A PNG with alpha, which `from_data_url` reads back exactly."""
        return _PNG_URL + base64.b64encode(encode_png(self.pixels)).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def colour(self) -> str | None:
        """``#rrggbb`` where it is a colour; None where it is a picture."""
        return "#" + self.pixels[0, 0, :3].tobytes().hex() if self.size == (1, 1) else None

    @property
    def alpha(self) -> Tensor:
        """How much of each pixel there is, float32 [h, w] in [0, 1]."""
        return torch.from_numpy(self.pixels[..., 3].copy()).float().div(255)

    def picture(self) -> Tensor:
        """The pixels as a generator draws them: float32 [1, 3, h, w], each in the middle of what becomes that byte."""
        rgb = torch.from_numpy(self.pixels[..., :3].copy()).float()  # [h, w, 3]
        return rgb.add(0.5).div(127.5).sub(1).movedim(2, 0)[None]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patch) and np.array_equal(self.pixels, other.pixels)

    def __hash__(self) -> int:
        return hash((self.pixels.shape, self.pixels.tobytes()))

    def __repr__(self) -> str:
        return f"Patch({self.colour or '{}×{}'.format(*self.size)})"


def _wrong(found: str, expected: str = _EXPECTED, remedy: str = "Bring another picture.") -> RequestError:
    return RequestError(found=found, expected=expected, remedy=remedy)
