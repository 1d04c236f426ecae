"""Painted regions, and how a file holds them: pairs of a picture's number and a PNG data URL.

    regions = Regions("edit.json", last=LAST_SEED, own=())
    regions.one([3, "data:image/png;base64,…"], "object")      # Painted(3, mask)

What comes from a file is held to be hostile: the pixels of all its masks are counted, and every error is one line that
names the field. `wrong` and `short` word such errors for the other fields too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewrite_core.errors import MaskError, RequestError
from rewrite_core.generators.own import OwnPicture, PictureId
from rewrite_core.pictures import MASK_PIXELS, Mask

__all__ = ["TOTAL_PIXELS", "Painted", "Regions", "pairs", "require_area", "short", "wrong"]

TOTAL_PIXELS = 16 * MASK_PIXELS  # of all the masks in one file: small PNGs can decode to a lot


@dataclass(frozen=True)
class Painted:
    """A region painted on a picture: one that its number names, or one of one's own."""

    image: PictureId
    mask: Mask

    def to_json(self, own: Sequence[OwnPicture] = ()) -> list[int | str]:
        """The pair that stands for it in a file, whose pictures of one's own are `own`."""
        number = -1 - own.index(self.image) if isinstance(self.image, OwnPicture) else int(self.image)
        return [number, self.mask.to_data_url()]


class Regions:
    """Reads the painted regions of one file, which share what numbers mean and a limit of pixels."""

    def __init__(self, what: str, last: int, own: Sequence[OwnPicture]) -> None:
        self.what, self.last, self.own = what, last, own
        self.pixels_left = TOTAL_PIXELS

    def one(self, entry: Any, field: str) -> Painted | None:
        """A region, or None where the file has none."""
        return None if entry is None else self._read(entry, f"{self.what}: {field}")

    def many(self, entries: Any, field: str) -> tuple[Painted, ...]:
        """A list of regions; a missing one is empty."""
        if not isinstance(entries, list | None):
            raise wrong(f"{self.what}: {field}", entries, "a list of [picture number, PNG data URL]")
        return tuple(self._read(entry, f"{self.what}: {field}.{i}") for i, entry in enumerate(entries or ()))

    def _read(self, entry: Any, where: str) -> Painted:
        match entry:
            case [image, str(url)]:
                painted = Painted(self._image(image, where), _mask(url, where))
            case _:
                raise wrong(where, entry, "[picture number, PNG data URL]")
        self.count(painted.mask.pixels.size, where)
        return painted

    def count(self, pixels: int, where: str) -> None:
        """Take so many off what a file may decode to.

        Raises:
            MaskError: they are too many.
        """
        self.pixels_left -= pixels
        if self.pixels_left < 0:
            raise MaskError(
                found=f"{where}: more than {TOTAL_PIXELS:,} pixels in all masks up to here",
                expected="fewer",
                remedy="Use smaller masks.",
            )

    def _image(self, image: Any, where: str) -> PictureId:
        if type(image) is not int or not -len(self.own) <= image <= self.last:
            raise wrong(f"{where}.0", image, f"a picture number from {-len(self.own)} to {self.last}")
        return image if image >= 0 else self.own[-1 - image]


def require_area(painted: object, name: str) -> None:
    """Refuse an empty mask in a region or a tuple of them; `name` is the field it is in.

    Raises:
        MaskError: naming the first picture with one.
    """
    for region in painted if isinstance(painted, tuple) else (painted,):
        if isinstance(region, Painted) and region.mask.empty:
            raise MaskError(
                found=f"an empty mask in {name} (picture {region.image})",
                expected="a painted region",
                remedy="Paint on that picture again, or remove it.",
            )


def pairs(painted: Painted | tuple[Painted, ...] | None, own: Sequence[OwnPicture]) -> list[Any]:
    """What stands for regions in a file: a list of pairs, or for one region its pair; empty where there is none."""
    if isinstance(painted, tuple):
        return [region.to_json(own) for region in painted]
    return [] if painted is None else painted.to_json(own)


def wrong(where: str, found: Any, expected: str) -> RequestError:
    """The error of a field at `where` that is `found` and ought to be as `expected`."""
    return RequestError(
        found=f"{where} is {short(found)}", expected=expected, remedy="Correct it and try again."
    )


def short(value: Any) -> str:
    """A value in as many characters as an error has room for."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _mask(url: str, where: str) -> Mask:
    try:
        return Mask.from_data_url(url)
    except MaskError as problem:
        raise MaskError(
            found=f"{where}.1: {problem.found}", expected=problem.expected, remedy=problem.remedy
        ) from None
