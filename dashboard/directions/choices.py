"""What a visitor has chosen on the page Directions, and their tray: values, replaced and never changed.

The layer is not among it: it is the session's own, which the sidebar shows on every page. A direction chosen in the
tray brings its layer along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from rewrite_core.directions import ContextSettings, Direction
from rewrite_core.errors import RequestError
from rewrite_core.generators.own import PictureId
from rewrite_core.rules.request import EditRequest, Painted

__all__ = [
    "CONCEPTS",
    "DOING",
    "FEWEST",
    "LARGEST",
    "MAP",
    "MATCHES",
    "METHODS",
    "MOST",
    "OUTLINE",
    "OVERLAPS",
    "PAINT",
    "PAINTED",
    "QUANTILES",
    "SAMPLES",
    "SCALES",
    "SPECTRUM",
    "Box",
    "Choices",
    "Coloured",
    "Compared",
    "Context",
    "Item",
    "Marks",
    "Overlay",
    "Part",
    "Pictured",
    "Place",
    "Placed",
    "Range",
    "Tray",
]

MATCHES, PAINT = "Matches", "Paint"
"""The view that the page opens on, and the one that contexts are painted in."""
DOING, OVERLAPS, SPECTRUM = "Effect", "Overlaps", "Spectrum"
"""The views that are not of one direction's matches."""
MAP, METHODS, CONCEPTS = "Map", "Methods", "Concepts"
"""The views of a layer's keys, of one context by all methods, and of directions that stand for concepts."""
PAINTED = "Painted context"
"""The origin of directions that is offered first."""
SAMPLES = 1000
OUTLINE = 0.99
"""The quantile that matches are outlined at, until the visitor chooses another."""
MOST = 24
"""Directions in a tray."""
FEWEST, LARGEST = 24, 100_000
"""Pictures that can be searched: for large generators on a CPU few are what there is time for."""
QUANTILES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999)
"""Where matches can be outlined."""
SCALES = tuple(quarter / 4 for quarter in range(-8, 9))
"""By which what a direction matches can be scaled: 1 leaves it, 0 removes it."""

Range = Literal["Top", "Middle", "Bottom"]
Overlay = Literal["Outline", "Heat", "None"]
Compared = Literal["Queries and keys", "Interference"]
Placed = Literal["PCA", "t-SNE"]
Marks = Literal["Points", "Patches"]
Coloured = Literal["Concepts", "Heat"]
Pictured = Literal["Same pictures", "Top of each"]
Part = Literal["this", "that", "protect"]
"""What regions are painted for."""
Place = tuple[int, int, int]
"""A position that was clicked: seed, row and column of the layer's grid, inside the picture."""
Box = tuple[float, ...]
"""What is brushed on a map: its left, right, bottom and top in the map's own units; empty: nothing."""


FINDING = ContextSettings(method="mean")
"""How a painted context is looked for if nothing else is said: best at rank 1, as docs/directions.md measures."""


@dataclass(frozen=True)
class Context:
    """What is painted for a new direction, and how it becomes one.

    Attributes:
        this: regions of what the direction shall find.
        that: regions of what it shall not find although it is like it; with any, the direction is a difference.
        protect: regions that must not change, which a direction of `this` alone keeps away from.
    """

    this: tuple[Painted, ...] = ()
    that: tuple[Painted, ...] = ()
    protect: tuple[Painted, ...] = ()
    settings: ContextSettings = FINDING
    rank: int = 1

    @property
    def empty(self) -> bool:
        """Whether nothing is painted."""
        return not (self.this or self.that or self.protect)

    def part(self, name: Part) -> tuple[Painted, ...]:
        """The regions of one part."""
        return {"this": self.this, "that": self.that, "protect": self.protect}[name]

    def added(self, name: Part, region: Painted) -> Self:
        """The same with one region more."""
        return self._with(name, (*self.part(name), region))

    def without(self, name: Part, place: int) -> Self:
        """The same without the region at that place of a part."""
        regions = self.part(name)
        return self._with(name, (*regions[:place], *regions[place + 1 :]))

    def _with(self, name: Part, regions: tuple[Painted, ...]) -> Self:
        parts = {"this": self.this, "that": self.that, "protect": self.protect, name: regions}
        return replace(self, this=parts["this"], that=parts["that"], protect=parts["protect"])


@dataclass(frozen=True, eq=False)
class Item:
    """A direction in the tray.

    Attributes:
        request: the painted context that it was made from, where it was painted here: what Rewriting can take over.
        link: what names it in the address: an example's name, ``unit:41``, ``pca:3``; empty if nothing does.
    """

    direction: Direction
    request: EditRequest | None = None
    link: str = ""

    @property
    def key(self) -> str:
        """What it is called among the others: two directions with the same vectors are one."""
        return self.direction.digest

    @property
    def name(self) -> str:
        """What it is called on the page."""
        return self.direction.name or f"{self.direction.method} of {self.direction.layer}"


@dataclass(frozen=True)
class Tray:
    """The visitor's directions, the newest last."""

    items: tuple[Item, ...] = ()

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def get(self, key: str) -> Item | None:
        """The one called `key`, if it is there."""
        return next((item for item in self.items if item.key == key), None)

    def linked(self, link: str, layer: str) -> Item | None:
        """The one that `link` names at `layer`, if it is there."""
        return next((item for item in self.items if (item.link, item.direction.layer) == (link, layer)), None)

    def added(self, *items: Item) -> Self:
        """The same with these, each once.

        Raises:
            RequestError: there would be more than `MOST`.
        """
        new = {item.key: item for item in items if self.get(item.key) is None}
        if len(self) + len(new) > MOST:
            raise RequestError(
                found=f"{len(self) + len(new)} directions for the tray",
                expected=f"at most {MOST}",
                remedy="Remove some that you have done with.",
            )
        return replace(self, items=(*self.items, *new.values()))

    def without(self, key: str) -> Self:
        """The same without one of them."""
        return replace(self, items=tuple(item for item in self.items if item.key != key))

    def renamed(self, key: str, name: str) -> Self:
        """The same with another name for one of them."""
        return replace(
            self,
            items=tuple(
                replace(item, direction=item.direction.renamed(name)) if item.key == key else item
                for item in self.items
            ),
        )


@dataclass(frozen=True)
class Choices:
    """What of the tray is looked at, and how.

    Attributes:
        view: which view is shown.
        chosen: the key of the direction that the views are about; empty: the newest.
        row: which of its directions, from 0, where its rank is above 1.
        samples: how many pictures are searched.
        quantile: of the heat over all positions; what exceeds it is outlined.
        overlay: what is drawn over pictures.
        range: which end of the ranking the gallery shows, or its middle.
        picture: which picture is looked at closely; None: the best match.
        place: the position whose neighbours are looked for; None: where that picture matches best.
        alpha: by how much what it matches is scaled.
        fresh: whether that is shown on pictures by number, and not on the best matches.
        zero: whether the published way to remove it is shown beside.
        compared: which overlaps are shown.
        placed: how the map places keys, `marks` what stands for one, and `coloured` what its colour says.
        box: what is brushed on the map; None: nothing yet, so that the page chooses.
        judged: the concept that methods are judged by; empty: none; None: the one that is called like the direction.
        pictured: which pictures methods are compared on.
        origin: what a new direction is made from.
        context: what is painted for a new one.
        wanted: what a link names that is not in the tray yet.
        begun: whether the tray has been filled for the first time.
        problem: why what was asked for last cannot be had.
    """

    view: str = MATCHES
    chosen: str = ""
    row: int = 0
    samples: int = SAMPLES
    quantile: float = OUTLINE
    overlay: Overlay = "Outline"
    range: Range = "Top"
    picture: PictureId | None = None
    place: Place | None = None
    alpha: float = 0.0
    fresh: bool = False
    zero: bool = False
    compared: Compared = "Queries and keys"
    placed: Placed = "PCA"
    marks: Marks = "Points"
    coloured: Coloured = "Concepts"
    box: Box | None = None
    judged: str | None = None
    pictured: Pictured = "Same pictures"
    origin: str = PAINTED
    context: Context = field(default_factory=Context)
    wanted: str = ""
    begun: bool = False
    problem: str = ""
