"""The eleven basic colour terms as concepts: every pixel of every picture has exactly one name, and nothing is needed.

The terms are those that Berlin and Kay (*Basic Color Terms*, 1969) found to be English's basic ones. A pixel gets its
term in OKLab (Ottosson 2020), whose L is lightness from 0 to 1 and whose a and b span hue and chroma, by three rules:

1. L below `DARKEST` is black.
2. A chroma √(a² + b²) below `neutral` of its lightness is none of a hue: black below `BLACK`, white above `WHITE`, grey
   between. The limit is wider where it is dark, since little light has little colour, and near white, where off-white
   and cream still are white.
3. Else the term of the nearest of `FOCI`, where a step in lightness counts `LIGHTNESS` of one in a or b. A term has
   several foci, because what is called green reaches from nearly black to nearly white; and since brown is dark orange
   and pink light red, lightness counts here too.

The foci were placed by hand: at the focal colours that such studies agree on, then moved until the names that
respondents of the xkcd survey (2010) gave to some 480 colours came out (94 % do), and skin and hair in samples looked
right. Light skin is pink or white, tanned skin pink, orange or brown, dark skin brown.

Labelling is a lookup in a table of 64³ bins, four of a byte's 256 levels in each; it sees pixels alone, so it may judge
edited pictures.

    labels = Colours()(Scene(pictures, latents))  # [N, 11, H, W] bool
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewrite_core.generators import Generator
from rewrite_core.statistics import Scene

__all__ = ["FOCI", "TERMS", "Colours", "neutral", "oklab", "term_of"]

TERMS = ("black", "grey", "white", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

FOCI: Mapping[str, tuple[str, ...]] = {
    "red": ("c8102e", "e8432e", "7d1018", "b03a48"),
    "orange": ("f5821f", "ff9e4a", "d9601a", "e8824a", "ff5b00", "e3905f"),
    "yellow": ("f5d90a", "fff176", "d9b82a", "f2e08c"),
    "green": ("1f9e3c", "0d5c2a", "8fd14f", "9ad9a8", "cbf5bf", "6b7a2a", "3aa387"),
    "blue": ("1460c8", "12235f", "5aa9e6", "bcdcf5", "1a8fa8", "4a6a95", "6fd0dc"),
    "purple": ("7b2a9e", "3f1458", "b48ad6", "6a4ac8", "8a4a78"),
    "pink": ("f58ab0", "fbc9d0", "e8489a", "f2c6b0", "d98a8a", "cb416b", "d0a190", "fae0d0"),
    "brown": ("6b3f1d", "3d2314", "996633", "b98a4e", "8a6a55"),
}
"""Focal colours of the terms that have a hue, as sRGB in hexadecimal."""

LIGHTNESS = 0.6
DARKEST, BLACK, WHITE = 0.13, 0.28, 0.9
NEUTRAL = ((0.0, 0.25, 0.45, 0.85, 1.0), (0.06, 0.04, 0.026, 0.026, 0.042))
"""Lightnesses, and the chroma at each below which a colour has no hue; between them it is linear."""

BINS = 64
"""Levels of each channel that the table tells apart."""

# Ottosson, "A perceptual color space for image processing": linear sRGB → cone responses; their cube roots → Lab.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@dataclass(frozen=True)
class Colours:
    """The eleven terms as a concept source; in every pixel exactly one of them is true."""

    names: tuple[str, ...] = TERMS
    layers: tuple[str, ...] = ()
    title: str = "colours"
    pixels_only: bool = True

    def check(self, generator: Generator) -> None:
        """Any generator's pictures have colours."""

    def identity(self) -> Mapping[str, Any]:
        """The rule's version: raised whenever some colour gets another name."""
        return {"labeller": "colours", "version": 1}

    def __call__(self, scene: Scene) -> Tensor:
        """Labels [N, 11, H, W], bool, of pictures as a file would hold them: clipped, and in whole bytes."""
        table = _table(scene.pictures.device)
        levels = scene.pictures.clamp(-1, 1).add(1).mul(127.5 * BINS / 256).int()
        red, green, blue = levels.clamp_(0, BINS - 1).unbind(
            1
        )  # [N, H, W]; NaN, which is no int, stays inside
        terms = table[(red * BINS + green) * BINS + blue]  # [N, H, W]
        numbers = torch.arange(len(TERMS), dtype=torch.uint8, device=table.device)
        return terms[:, None] == numbers[:, None, None]  # [N, 11, H, W]


def term_of(red: float, green: float, blue: float) -> str:
    """What an sRGB colour, each channel from 0 to 255, is called."""
    return TERMS[_terms(np.array([[red, green, blue]], dtype=np.float64))[0]]


def neutral(lightness: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chroma below which a colour of this lightness has no hue."""
    return np.interp(lightness, *NEUTRAL)


def oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab [..., 3] of sRGB [..., 3] from 0 to 255."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    result: NDArray[np.float64] = np.cbrt(linear @ _CONES.T) @ _LAB.T
    return result


def _terms(rgb: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The number of the term of each sRGB colour [N, 3] from 0 to 255."""
    lab = oklab(rgb)  # [N, 3]
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    foci, hues = _foci()
    scaled = lab * (LIGHTNESS, 1.0, 1.0)
    nearest = ((foci**2).sum(1) - 2 * scaled @ foci.T).argmin(
        1
    )  # [N]; ‖x − f‖² without ‖x‖², which all share
    shades = np.where(
        lightness < BLACK,
        TERMS.index("black"),
        np.where(lightness > WHITE, TERMS.index("white"), TERMS.index("grey")),
    )
    terms = np.where(chroma < neutral(lightness), shades, hues[nearest])
    return np.where(lightness < DARKEST, TERMS.index("black"), terms).astype(np.uint8)


@lru_cache(maxsize=1)
def _foci() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Every focus in OKLab with its lightness scaled [F, 3], and the number of its term [F]."""
    each = [(TERMS.index(term), bytes.fromhex(code)) for term, codes in FOCI.items() for code in codes]
    rgb = np.array([list(code) for _, code in each], dtype=np.float64)
    return oklab(rgb) * (LIGHTNESS, 1.0, 1.0), np.array([term for term, _ in each])


@lru_cache(maxsize=8)
def _table(device: torch.device) -> Tensor:
    """The number of the term of every bin's middle, uint8 [64³], on `device`; always computed on the CPU."""
    middles = (np.arange(BINS) + 0.5) * (256 / BINS) - 0.5
    cube = np.stack(np.meshgrid(middles, middles, middles, indexing="ij"), axis=-1)  # [64, 64, 64, 3]
    parts = cube.reshape(-1, 4 * BINS, 3)  # small ones stay in the processor's cache: five times as fast
    return torch.from_numpy(np.concatenate([_terms(part) for part in parts])).to(device)
