"""Paint the eight requests that solvers and key methods are compared on.

    python tools/paint_requests.py [FOLDER]

Four on each embedded generator: eyes, hair, background, mouth; each copies one thing over another, in a context painted
on four pictures. They were painted from enlarged pictures, and fixed before any of them was solved: what a comparison
says is worth nothing once its examples are chosen by their results. Writes ``benchmarks/requests/*.json``, and with a
FOLDER a picture of each request with its regions outlined.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from rewrite_core.generators import Generator, LatentSpec, open_generator
from rewrite_core.pictures import Mask, enlarge, outline
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.settings import ModelRef

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "requests"
FINE = 8
"""A mask has this many pixels along a pixel of the picture."""
COPY, PASTE, CONTEXT = (255, 45, 120), (40, 200, 90), (60, 140, 255)

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the picture


@dataclass(frozen=True)
class Region:
    """Ellipses, or boxes, on one picture."""

    seed: int
    boxes: tuple[Box, ...]
    round: bool = True

    def painted(self, size: tuple[int, int]) -> Painted:
        """The region as it is painted on a picture of this size [h, w]."""
        canvas = Image.new("L", (size[1] * FINE, size[0] * FINE))
        draw = ImageDraw.Draw(canvas)
        for box in self.boxes:
            place = tuple(FINE * edge for edge in box)
            (draw.ellipse if self.round else draw.rectangle)(place, fill=255)
        return Painted(self.seed, Mask.from_array(np.asarray(canvas) > 0))


@dataclass(frozen=True)
class Wish:
    """What to copy, where to paste it, and the context."""

    copy: Region
    paste: Region
    context: tuple[Region, ...]


ANIME: Mapping[str, Wish] = {
    "eyes": Wish(
        Region(14, ((14, 24, 26, 41),)),
        Region(4, ((11, 26, 24, 41),)),
        (
            Region(4, ((10, 26, 24, 41), (39, 27, 54, 42))),
            Region(6, ((10, 25, 24, 41), (38, 28, 51, 41))),
            Region(26, ((12, 27, 25, 42), (36, 26, 49, 39))),
            Region(46, ((9, 24, 26, 42), (38, 27, 54, 42))),
        ),
    ),
    "hair": Wish(
        Region(28, ((20, 2, 50, 20),)),
        Region(43, ((18, 4, 48, 22),)),
        (
            Region(43, ((8, 0, 54, 25),)),
            Region(7, ((4, 0, 58, 22),)),
            Region(35, ((4, 0, 60, 20),)),
            Region(8, ((8, 0, 56, 19),)),
        ),
    ),
    "background": Wish(
        Region(30, ((48, 8, 63, 26),)),
        Region(0, ((0, 46, 15, 62),)),
        (
            Region(0, ((0, 45, 16, 63),)),
            Region(3, ((0, 45, 18, 63),)),
            Region(13, ((0, 46, 9, 62),)),
            Region(26, ((0, 36, 6, 62),)),
        ),
    ),
    "mouth": Wish(
        Region(45, ((41, 48, 50, 57),)),
        Region(25, ((29, 46, 38, 53),)),
        (
            Region(25, ((29, 46, 38, 53),)),
            Region(45, ((29, 47, 37, 53),)),
            Region(41, ((28, 46, 40, 54),)),
            Region(33, ((28, 47, 38, 54),)),
        ),
    ),
}
FACES: Mapping[str, Wish] = {
    "eyes": Wish(
        Region(22, ((3, 14, 29, 23),), round=False),
        Region(28, ((4, 13, 27, 22),), round=False),
        (
            Region(28, ((4, 13, 13, 20), (18, 13, 26, 20))),
            Region(25, ((5, 13, 13, 20), (18, 13, 26, 20))),
            Region(32, ((4, 13, 13, 20), (18, 13, 26, 20))),
            Region(4, ((6, 13, 13, 19), (18, 14, 26, 20))),
        ),
    ),
    "hair": Wish(
        Region(14, ((17, 0, 31, 9),)),
        Region(31, ((8, 0, 26, 9),)),
        (
            Region(31, ((4, 0, 28, 10),)),
            Region(26, ((4, 0, 28, 4),), round=False),
            Region(42, ((0, 0, 27, 3), (0, 3, 5, 14)), round=False),
            Region(32, ((8, 0, 28, 4),), round=False),
        ),
    ),
    "background": Wish(
        Region(12, ((0, 1, 4, 9),), round=False),
        Region(8, ((27, 2, 32, 12),), round=False),
        (
            Region(8, ((27, 0, 32, 18), (0, 2, 4, 20)), round=False),
            Region(37, ((28, 2, 32, 20), (0, 2, 4, 14)), round=False),
            Region(22, ((0, 18, 5, 31), (28, 18, 32, 31)), round=False),
            Region(42, ((28, 4, 32, 26),), round=False),
        ),
    ),
    "mouth": Wish(
        Region(26, ((7, 24, 24, 31),)),
        Region(28, ((9, 25, 23, 31),)),
        (
            Region(28, ((10, 26, 22, 31),)),
            Region(13, ((9, 27, 22, 32),)),
            Region(19, ((9, 27, 22, 32),)),
            Region(32, ((11, 26, 22, 31),)),
        ),
    ),
}
WISHES: Mapping[str, Mapping[str, Wish]] = {"anime64-dcgan": ANIME, "face32-dcgan": FACES}


def request_of(generator: Generator, wish: Wish) -> EditRequest:
    """The request at the generator's default layer."""
    size = generator.picture_size
    return EditRequest(
        model=ModelRef(name=generator.name, fingerprint=generator.fingerprint),
        layer=generator.default_layer,
        object=wish.copy.painted(size),
        paste=wish.paste.painted(size),
        key=tuple(region.painted(size) for region in wish.context),
    )


def looked_at(generator: Generator, wish: Wish) -> Image.Image:
    """Its pictures side by side, enlarged: copy, paste, and the context."""
    regions = [(wish.copy, COPY), (wish.paste, PASTE), *((region, CONTEXT) for region in wish.context)]
    shown = []
    for region, colour in regions:
        (picture,) = enlarge(generator.draw(LatentSpec.of([region.seed])), FINE)  # [h · FINE, w · FINE, 3]
        shown.append(outline(picture, region.painted(generator.picture_size).mask.pixels > 0, colour, 2))
    return Image.fromarray(np.concatenate(shown, axis=1))


def main() -> None:
    """Write them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for name, wishes in WISHES.items():
        generator = open_generator(name)
        for concept, wish in wishes.items():
            request_of(generator, wish).save(FOLDER / f"{name}-{concept}.json")
            if folder:
                looked_at(generator, wish).save(folder / f"{name}-{concept}.png")


if __name__ == "__main__":
    main()
