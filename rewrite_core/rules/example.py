"""One copy–paste example: what to copy, where to put it, how large and which way round.

A rule may be solved for several at once (`rewrite_core.rules.rewrite.goals_of`). The first is the request's own
``object`` and ``paste``; the others are its ``examples``, which a file of ours holds under ``palimpsest``::

    {"object": [3, "data:image/png;base64,…"], "paste": [7, "…"], "scale": 1.5, "flip": "horizontal"}

With ``"patch": "data:image/png;base64,…"`` for ``object`` the pixels themselves are pasted (`patch.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewrite_core.errors import RequestError
from rewrite_core.generators.own import OwnPicture
from rewrite_core.rules.patch import Patch
from rewrite_core.rules.regions import Painted, Regions, wrong
from rewrite_core.rules.settings import Flip, Posed
from rewrite_core.settings import Settings

__all__ = ["MOST_EXAMPLES", "Copied", "Example", "copied_of", "read_examples", "read_patch"]

MOST_EXAMPLES = 64
"""In one request, besides the first."""

Copied = Painted | Patch
"""What is copied: a region of a picture, or pixels."""


@dataclass(frozen=True)
class Example:
    """`object`, `scale` times as large and flipped, in the middle of the region `paste`."""

    object: Copied
    paste: Painted
    scale: float = 1.0
    flip: Flip = "none"

    def __post_init__(self) -> None:
        Posed.parse({"scale": self.scale, "flip": self.flip}, "the example")

    @property
    def painted(self) -> tuple[Painted, ...]:
        """Its painted regions."""
        return (self.object, self.paste) if isinstance(self.object, Painted) else (self.paste,)

    def to_json(self, own: Sequence[OwnPicture] = ()) -> dict[str, Any]:
        """What stands for it in a file, whose pictures of one's own are `own`."""
        copied: dict[str, Any]
        if isinstance(self.object, Patch):
            copied = {"patch": self.object.to_data_url()}
        else:
            copied = {"object": self.object.to_json(own)}
        return {**copied, "paste": self.paste.to_json(own), "scale": self.scale, "flip": self.flip}


class _Entry(Settings):
    """An example in a file, before its regions are read."""

    object: Any = None
    patch: str | None = None
    paste: Any
    scale: float = 1.0
    flip: str = "none"


def read_examples(entries: Any, regions: Regions, where: str) -> tuple[Example, ...]:
    """The examples of a file, a missing list being empty; `where` names their field in errors.

    Raises:
        RequestError: naming the field that is wrong; a MaskError where that is a mask.
    """
    if not isinstance(entries, list | None) or len(entries or ()) > MOST_EXAMPLES:
        raise wrong(f"{regions.what}: {where}", entries, f"a list of at most {MOST_EXAMPLES} examples")
    return tuple(_read(entry, regions, f"{where}.{index}") for index, entry in enumerate(entries or ()))


def read_patch(url: Any, regions: Regions, field: str) -> Patch | None:
    """A patch, or None where there is none; its pixels count as those of the masks do."""
    if url is None:
        return None
    patch = Patch.from_data_url(url, f"{regions.what}: {field}")
    regions.count(patch.pixels[..., 0].size, f"{regions.what}: {field}")
    return patch


def _read(data: Any, regions: Regions, where: str) -> Example:
    if not isinstance(data, Mapping):
        raise wrong(f"{regions.what}: {where}", data, "an object with object or patch, and paste")
    entry = _Entry.parse(data, f"{regions.what}: {where}")
    posed = Posed.parse({"scale": entry.scale, "flip": entry.flip}, f"{regions.what}: {where}")
    copied = copied_of(
        regions.one(entry.object, f"{where}.object"), read_patch(entry.patch, regions, f"{where}.patch")
    )
    paste = regions.one(entry.paste, f"{where}.paste")
    if copied is None or paste is None:
        raise wrong(f"{regions.what}: {where}", dict(data), "object or patch, and paste")
    return Example(copied, paste, posed.scale, posed.flip)


def copied_of(painted: Painted | None, patch: Patch | None) -> Copied | None:
    """The one of the two that there is.

    Raises:
        RequestError: there are both.
    """
    if painted and patch:
        raise RequestError(
            found="both a region and a patch to copy", expected="one of them", remedy="Remove the other."
        )
    return painted or patch
