"""A request as the published interface writes it, and what of it that interface cannot say.

Its file (Bau et al., ECCV 2020, `rewriteapp.py`) holds `object`, `paste`, `key` and `query` and nothing else::

    {"object": [3, "data:image/png;base64,…"], "paste": [7, "…"], "key": [[7, "…"], [2, "…"]], "query": [7, "…"]}

Numbers are rows of one random matrix. Masks have 256×256 pixels whatever the picture: that interface draws them on its
canvas as they are. It holds one mask for each picture of the context, so those of one picture are joined. Layer, rank
and all other settings are chosen there, and not in the file.

    file = request.to_published()
    path.write_text(file.to_json())
    file.warning                 # "" where the file says all that the request does
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rewrite_core.generators.latents import LAST_ROW
from rewrite_core.pictures import Mask
from rewrite_core.rules.example import Example
from rewrite_core.rules.regions import Painted

if TYPE_CHECKING:
    from rewrite_core.rules.request import EditRequest

__all__ = ["MASK_SIZE", "PublishedFile", "published_file"]

MASK_SIZE = (256, 256)


@dataclass(frozen=True)
class PublishedFile:
    """Decoded JSON, and what the request says that is not in it, each in a few words."""

    data: Mapping[str, Any]
    lost: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """What is lost, in one line; empty where nothing is."""
        return f"The published format cannot say: {'; '.join(self.lost)}." if self.lost else ""

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.data, indent=1)


def published_file(request: EditRequest) -> PublishedFile:
    """`request` in the published format; where its first pair is missing, the first of its examples stands there."""
    first, further = _first(request)
    regions: dict[str, Sequence[Painted]] = {
        "object": _painted(first.object if first else request.object),
        "paste": _painted(first.paste if first else request.paste),
        "key": _joined(request.key),
        "query": _painted(request.query),
    }
    numbered = {name: [one for one in some if _has_row(one)] for name, some in regions.items()}
    data: dict[str, Any] = {}
    for name, some in numbered.items():
        entries = [_entry(painted) for painted in some]
        if entries:
            data[name] = entries if name == "key" else entries[0]
    return PublishedFile(data, tuple(_lost(request, first, further, regions)))


def _first(request: EditRequest) -> tuple[Example | None, int]:
    """The pair that the file holds, where both halves are there; and how many there are besides."""
    if request.object is not None and request.paste is not None:
        return Example(request.object, request.paste, request.scale, request.flip), len(request.examples)
    if request.object is None and request.paste is None and request.examples:
        return request.examples[0], len(request.examples) - 1
    return None, len(request.examples)


def _lost(
    request: EditRequest, first: Example | None, further: int, regions: Mapping[str, Sequence[Painted]]
) -> Iterable[str]:
    """What is not in the file, in the order in which it matters."""
    if request.latents.scheme != "rows":
        yield "pictures by their seeds (its numbers are rows of one matrix, so they name other pictures there)"
    without = [name for name, some in regions.items() if not all(_has_row(painted) for painted in some)]
    if without:
        yield f"pictures of your own, and numbers above {LAST_ROW} (in {', '.join(without)})"
    if first and not isinstance(first.object, Painted):
        yield "a colour or a patch to copy"
    if first and (first.scale, first.flip) != (1, "none"):
        yield "a paste with scale or flip"
    if further:
        yield f"{further} more example{'s' if further > 1 else ''}"
    if request.given:
        yield "directions in the context's place"
    if request.protect:
        yield "protected regions"
    if request.operation != "paste":
        yield f"the operation {request.operation} (it has a button for it)"


def _painted(region: object) -> tuple[Painted, ...]:
    return (region,) if isinstance(region, Painted) else ()


def _has_row(painted: Painted) -> bool:
    """Whether a number of that interface can stand for its picture."""
    return isinstance(painted.image, int) and painted.image <= LAST_ROW


def _joined(context: Sequence[Painted]) -> list[Painted]:
    """The context with one mask for each picture."""
    found: dict[Any, Painted] = {}
    for painted in context:
        known = found.get(painted.image)
        if known:
            both = np.maximum(_sized(known.mask).pixels, _sized(painted.mask).pixels)  # [256, 256]
            painted = Painted(painted.image, Mask(both))
        found[painted.image] = painted
    return list(found.values())


def _entry(painted: Painted) -> list[int | str]:
    return Painted(painted.image, _sized(painted.mask)).to_json()


def _sized(mask: Mask) -> Mask:
    """The mask as that interface has it; one of its own stays as it is."""
    return mask if mask.size == MASK_SIZE else mask.resized(MASK_SIZE)
