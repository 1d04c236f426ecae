"""The colour of a concept: the same in every overlay, chart and figure, whatever else is shown beside it.

* A colour term has the colour that it names.
* What faces are made of, and a few other common concepts, have colours of their own.
* Any other name gets one of the twelve by its letters. So two of them may share one; the same name never has two.

The twelve of `PALETTE` were searched for: to stay apart for readers with protanopia, deuteranopia and tritanopia
(simulated after Machado, Oliveira and Fernandes 2009), and to stand out from the white of a light theme and the
near-black of a dark one (contrast 2 : 1 or more).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

from rewrite_core.pictures import Colour

__all__ = ["COMMON", "PALETTE", "TERM_COLOURS", "colour_of", "colours_of"]

TERM_COLOURS: Mapping[str, Colour] = {
    "black": (26, 26, 26),
    "grey": (128, 128, 128),
    "white": (250, 250, 250),
    "red": (214, 32, 39),
    "orange": (245, 130, 31),
    "yellow": (245, 217, 10),
    "green": (31, 158, 60),
    "blue": (20, 96, 200),
    "purple": (123, 42, 158),
    "pink": (245, 138, 176),
    "brown": (107, 63, 29),
}
"""Of the basic colour terms, which `dissect.concepts.colours` would call so."""

PALETTE: tuple[Colour, ...] = (
    (0x55, 0x88, 0xCC),
    (0xFF, 0x99, 0x00),
    (0x77, 0x33, 0x00),
    (0x00, 0x00, 0xFF),
    (0xFF, 0x00, 0x00),
    (0x33, 0xCC, 0x88),
    (0x66, 0x11, 0xBB),
    (0xEE, 0x99, 0xEE),
    (0x22, 0x88, 0x11),
    (0xBB, 0x66, 0x88),
    (0x99, 0x00, 0x66),
    (0xFF, 0x33, 0xFF),
)
COMMON = (
    "background",
    "skin",
    "nose",
    "eyes",
    "mouth",
    "hair",
    "brows",
    "face",
    "clothes",
    "person",
    "glasses",
    "neck",
)
"""Concepts that have the colour of `PALETTE` at their place; hair is green, for brown on hair would not be seen."""
_OTHER_WORDS = {
    "eye": "eyes",
    "lips": "mouth",
    "eyebrows": "brows",
    "clothing": "clothes",
    "cloth": "clothes",
}


def colour_of(name: str) -> Colour:
    """The colour of the concept called `name`; capitals do not matter."""
    name = name.casefold().strip()
    if name in TERM_COLOURS:
        return TERM_COLOURS[name]
    name = _OTHER_WORDS.get(name, name)
    place = COMMON.index(name) if name in COMMON else zlib.crc32(name.encode()) % len(PALETTE)
    return PALETTE[place]


def colours_of(names: Iterable[str]) -> list[Colour]:
    """The colour of each of `names`."""
    return [colour_of(name) for name in names]
