"""Pictures as bytes: from tensors to files, grids, overlays, and the masks that visitors paint.

A generator draws float tensors [N, 3, H, W], zero-centred with nominal range [-1, 1]; what is called a
picture here is RGB, uint8 [H, W, 3]. Sizes are (height, width); boxes are (top, left, bottom, right), bottom
and right exclusive.

A `Mask` says where something was painted. The published interface (Bau et al., *Rewriting a Deep Generative
Model*, ECCV 2020) keeps masks as PNG data URLs and reads them thus: the first channel of the RGB picture,
alpha dropped and not composited, brought to a layer's grid by Pillow's antialiased triangle filter on bytes.
`Mask.area` does the same.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from rewrite_core.errors import MaskError

__all__ = [
    "MASK_PIXELS",
    "Colour",
    "Mask",
    "Picture",
    "blend_heat",
    "encode_jpeg",
    "encode_png",
    "enlarge",
    "grid",
    "outline",
    "overlay_heat",
    "to_uint8",
]

Picture = NDArray[np.uint8]  # [H, W, 3], or [N, H, W, 3] where several are meant
Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)

MASK_PIXELS = 4096**2
MASK_URL_LENGTH = 16 * 2**20
_PNG_URL = "data:image/png;base64,"
_EXPECTED_PNG = "a PNG of at most 4096×4096 pixels"
_EXPECTED = f"a PNG data URL ({_PNG_URL}…) of at most 4096×4096 pixels"

# Viridis at 16 even steps: its lightness only rises, so the order survives colour blindness and grey print.
_VIRIDIS = np.array(
    [
        [68, 1, 84], [72, 26, 108], [71, 47, 125], [65, 68, 135],
        [57, 86, 140], [49, 104, 142], [42, 120, 142], [35, 136, 142],
        [31, 152, 139], [34, 168, 132], [53, 183, 121], [84, 197, 104],
        [122, 209, 81], [165, 219, 54], [210, 226, 27], [253, 231, 37],
    ],
    dtype=np.float32,
)  # fmt: skip


def to_uint8(pictures: Tensor) -> Picture:
    """What a generator drew [N, 3, H, W] as bytes [N, H, W, 3]: ``trunc(clamp(127.5 x + 127.5, 0, 255))``."""
    scaled = pictures.detach().float().mul(127.5).add(127.5).clamp(0, 255)
    result: Picture = scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()  # [N, H, W, 3]
    return result


def encode_png(picture: Picture) -> bytes:
    """A picture [H, W, 3] as a PNG file; the bytes come back exactly."""
    return _encode(picture, format="PNG")


def encode_jpeg(picture: Picture, quality: int = 90) -> bytes:
    """A picture [H, W, 3] as a JPEG file: smaller, not exact."""
    return _encode(picture, format="JPEG", quality=quality)


def grid(pictures: Picture, columns: int, pad: int = 2, background: int = 255) -> Picture:
    """Pictures [N, H, W, 3] row by row on one page, `pad` pixels apart; spare cells show the background."""
    count, height, width, _ = pictures.shape
    rows, down, across = math.ceil(count / columns), height + pad, width + pad
    cells = np.full((rows * columns, down, across, 3), background, dtype=np.uint8)
    cells[:count, :height, :width] = pictures
    page = cells.reshape(rows, columns, down, across, 3).swapaxes(1, 2)  # [rows, down, columns, across, 3]
    page = page.reshape(rows * down, columns * across, 3)
    return page[: rows * down - pad, : columns * across - pad]


def enlarge(pictures: Picture, factor: int) -> Picture:
    """Pictures [..., H, W, 3] with every pixel as a square of `factor` pixels."""
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def outline(
    picture: Picture, mask: NDArray[np.bool_], colour: Colour, thickness: int = 1, dim: float = 1.0
) -> Picture:
    """A picture [H, W, 3] with a line just outside `mask` [H, W]; what lies beyond is darkened to `dim`."""
    result = np.where(mask[..., None], picture, (picture * dim).astype(np.uint8))  # [H, W, 3]
    result[_grown(mask, thickness) & ~mask] = colour
    return result


def overlay_heat(picture: Picture, heat: Tensor, level: float) -> Picture:
    """A picture [H, W, 3] dimmed but for the places where `heat` [h, w] exceeds `level`, outlined in white.

    Heat is brought to the picture's size bilinearly, and holds its border values beyond the outermost centres
    (the published interface lets them fade, which hides matches at the very edge).
    """
    return outline(picture, _resized_heat(heat, picture) > level, WHITE, dim=0.5)


def blend_heat(picture: Picture, heat: Tensor, low: float, high: float, opacity: float = 0.8) -> Picture:
    """A picture [H, W, 3] under a map of `heat` [h, w], clear at `low`, yellow and nearly opaque at `high`."""
    share = np.clip((_resized_heat(heat, picture) - low) / max(high - low, 1e-12), 0, 1)  # [H, W]
    stops = np.linspace(0, 1, len(_VIRIDIS))
    colours = np.stack([np.interp(share, stops, channel) for channel in _VIRIDIS.T], axis=-1)  # [H, W, 3]
    cover = opacity * share[..., None]  # [H, W, 1]
    blended: Picture = ((1 - cover) * picture + cover * colours).astype(np.uint8)
    return blended


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """A painted region, immutable: uint8 `pixels` [H, W], 0 outside and 255 inside. Equal by its pixels."""

    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        given = self.pixels
        if given.ndim != 2 or not 0 < given.size <= MASK_PIXELS or given.dtype != np.uint8:
            raise _mask_error(
                f"a mask of shape {given.shape} and type {given.dtype}", "uint8 or bool pixels [H, W]"
            )
        object.__setattr__(
            self, "pixels", np.frombuffer(given.tobytes(), dtype=np.uint8).reshape(given.shape)
        )

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> Mask:
        """A mask [H, W] from booleans (inside or outside) or from uint8 (how much, 0 to 255)."""
        return cls(np.where(array, np.uint8(255), np.uint8(0)) if array.dtype == np.bool_ else array)

    @classmethod
    def from_data_url(cls, url: str) -> Mask:
        """The mask in a PNG data URL: the first channel, alpha dropped.

        Raises:
            MaskError: it is not a PNG data URL, is damaged, or is larger than 4096×4096 pixels.
        """
        if not url.startswith(_PNG_URL):
            raise _mask_error(f"a mask that begins with {url[:40]!r}")
        if len(url) > MASK_URL_LENGTH:
            raise _mask_error(f"a mask of {len(url):,} characters")
        try:
            data = base64.b64decode(url.removeprefix(_PNG_URL), validate=True)
        except ValueError:
            raise _mask_error("a mask that is not base64") from None
        return cls(_first_channel(data))

    @classmethod
    def from_png(cls, content: bytes) -> Mask:
        """The mask in a PNG file: the first channel, alpha dropped.

        Raises:
            MaskError: it is not a PNG, is damaged, or is larger than 4096×4096 pixels.
        """
        return cls(_first_channel(content, _EXPECTED_PNG))

    @classmethod
    def rectangle(cls, size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> Mask:
        """A mask of `size` (height, width) painted in the box; bottom and right are exclusive."""
        if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
            raise _mask_error(
                f"the box {(top, left, bottom, right)}",
                f"a box within {size[0]}×{size[1]} pixels",
                "Correct the box.",
            )
        pixels = np.zeros(size, dtype=np.uint8)
        pixels[top:bottom, left:right] = 255
        return cls(pixels)

    @classmethod
    def polygon(cls, size: tuple[int, int], points: Sequence[tuple[float, float]]) -> Mask:
        """A mask of `size` (height, width) painted inside the polygon through `points` (x, y)."""
        image = Image.new("L", (size[1], size[0]))
        ImageDraw.Draw(image).polygon(list(points), fill=255)
        return cls(np.asarray(image))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.pixels.shape
        return height, width

    @property
    def empty(self) -> bool:
        """Whether nothing is painted."""
        return not self.pixels.any()

    def to_data_url(self) -> str:
        """A PNG as the published interface writes it: transparent black outside, opaque white inside."""
        opaque = np.where(self.pixels, np.uint8(255), np.uint8(0))
        rgba = np.stack([self.pixels, self.pixels, self.pixels, opaque], axis=-1)  # [H, W, 4]
        return _PNG_URL + base64.b64encode(encode_png(rgba)).decode("ascii")

    def resized(self, size: tuple[int, int]) -> Mask:
        """The mask at another (height, width), through the antialiased triangle filter."""
        image = Image.fromarray(self.pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return Mask(np.asarray(image))

    def area(self, size: tuple[int, int], margin: int = 0) -> Tensor:
        """How much of each cell of a grid of `size` (height, width) is painted: float32 [H, W] in [0, 1].

        The outermost `margin` cells along each side are outside the picture.
        """
        inside = self.resized((size[0] - 2 * margin, size[1] - 2 * margin)).pixels
        return torch.from_numpy(np.pad(inside, margin)).float().div(255)

    def bounds(self, size: tuple[int, int], margin: int = 0) -> tuple[int, int, int, int]:
        """The box (top, left, bottom, right) around the cells with area on a grid as `area` has it.

        Raises:
            MaskError: no cell has any.
        """
        painted = self.area(size, margin).numpy() > 0  # [H, W]
        if not painted.any():
            found = "an empty mask" if self.empty else f"a mask too small for a grid of {size[0]}×{size[1]}"
            raise _mask_error(found, "a painted region", "Paint a larger region.")
        rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.pixels, other.pixels)

    def __hash__(self) -> int:
        return hash((self.pixels.shape, self.pixels.tobytes()))

    def __repr__(self) -> str:
        return f"Mask({self.size[0]}×{self.size[1]}, {np.count_nonzero(self.pixels)} pixels painted)"


def _encode(picture: NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **options)
    return file.getvalue()


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """`mask` [H, W] and all within `by` rows and columns of it."""
    (height, width), padded = mask.shape, np.pad(mask, by)
    down = np.logical_or.reduce([padded[shift : shift + height] for shift in range(2 * by + 1)])
    grown: NDArray[np.bool_] = np.logical_or.reduce(
        [down[:, shift : shift + width] for shift in range(2 * by + 1)]
    )
    return grown


def _resized_heat(heat: Tensor, picture: Picture) -> NDArray[np.float32]:
    size = picture.shape[:2]
    larger = F.interpolate(heat.detach().float()[None, None], size=size, mode="bilinear", align_corners=False)
    result: NDArray[np.float32] = larger[0, 0].cpu().numpy()  # [H, W]
    return result


def _first_channel(png: bytes, expected: str = _EXPECTED) -> NDArray[np.uint8]:
    """The red channel [H, W] of a PNG file; its size is looked at before a pixel is decoded."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            width, height = image.size
            if width * height > MASK_PIXELS:
                raise _mask_error(f"a mask of {height}×{width} pixels", expected)
            return np.asarray(image.convert("RGB").getchannel(0))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _mask_error("a mask of a hundred million pixels or more", expected) from None
    except (OSError, ValueError, SyntaxError) as problem:
        raise _mask_error(f"a mask that cannot be decoded ({problem})", expected) from None


def _mask_error(found: str, expected: str = _EXPECTED, remedy: str = "Paint the region again.") -> MaskError:
    return MaskError(found=found, expected=expected, remedy=remedy)
