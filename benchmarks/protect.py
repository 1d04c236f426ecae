"""What protecting regions and contrast are worth: the four requests of anime64, on pictures nobody painted on.

    python -m benchmarks.protect              # the table, and protect.json

Each request is solved with protected regions of weight 0, 3 and 10, contrast off and at 3. What is protected is named:
the concepts next to what the request changes, as the painted source that ships with the generator sees them in the
first 16 pictures that show them. What comes of it is measured on 100 fresh pictures by the *distilled* source, which
sees pixels alone (it learned from the painted one, on other pictures): the mean |after - before| over red, green and
blue (0 to 1), in the concepts that are protected, and inside, where the request is to act (its own concept).

More weight also makes for a weaker edit, so that a smaller change is no merit by itself. Hence *matched effect*: of the
edits of one request the stronger are scaled down, by their strength, until each changes as much inside as the weakest.
A cell is measured against the same request with nothing protected and contrast off: below 1 is better.

A second table protects one concept at a time, with weight 10: it was added once the first was seen, to tell why
protection helps one request and harms another.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from dissect.concept_context import concept_regions
from dissect.concepts.catalogue import open_concepts
from dissect.concepts.overlay import labelled
from dissect.scaled import ScaledPictures, scaled
from rewrite_core.generators import Generator, LatentSpec, open_generator
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import rewrite
from rewrite_core.rules.rule import Rule
from rewrite_core.statistics import layer_statistics

__all__ = ["ALONE", "CASES", "Cell", "Request", "main", "measured"]

REQUESTS = Path(__file__).with_name("requests")
FRESH = LatentSpec.of(range(5000, 5100))
WEIGHTS, CONTRASTS = (0.0, 3.0, 10.0), (0.0, 3.0)
STEPS = 12
"""Halvings by which a strength is found: to 1/4096."""


@dataclass(frozen=True)
class Request:
    """A request by the name of its file; the concept in which it is to act; those that it is to leave as they are."""

    name: str
    inside: str
    protect: tuple[str, ...]


CASES = (
    Request("eyes", "eyes", ("hair", "skin")),
    Request("hair", "hair", ("skin", "background")),
    Request("background", "background", ("hair", "clothes")),
    Request("mouth", "mouth", ("skin", "neck")),
)
ALONE = (
    *(Request("mouth", "mouth", (name,)) for name in ("skin", "hair", "eyes", "background")),
    *(Request("background", "background", (name,)) for name in ("hair", "clothes", "skin")),
)
"""One concept at a time, for the two requests that protection of several harmed."""


@dataclass(frozen=True)
class Cell:
    """One edit, at the strength that matches the others of its request.

    Attributes:
        inside, protected, elsewhere: the mean change where it is to act, in what is protected, and in neither.
        full_inside, full_protected: the first two at strength 1.
        ratio, elsewhere_ratio: `protected` and `elsewhere` against those with nothing protected and contrast off.
    """

    request: str
    protect: float
    contrast: float
    loss: float
    full_inside: float
    full_protected: float
    strength: float
    inside: float
    protected: float
    elsewhere: float
    ratio: float = 1.0
    elsewhere_ratio: float = 1.0


@dataclass(frozen=True, eq=False)
class _Fresh:
    """Fresh pictures stopped at a layer, and where [N, H, W] the change is averaged."""

    pictures: ScaledPictures
    masks: Mapping[str, NDArray[np.bool_]]

    def change(self, rule: Rule) -> dict[str, float]:
        """The mean change of a rule in each kind of place, 0 to 1."""
        apart = (
            np.abs(self.pictures.drawn(rule).astype(np.int16) - self.pictures.before).mean(3) / 255
        )  # [N, H, W]
        return {name: float(apart[mask].mean()) for name, mask in self.masks.items()}

    def strength(self, rule: Rule, inside: float) -> float:
        """The strength from 0 to 1 at which `rule` changes as much inside."""
        low, high = 0.0, 1.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            if self.change(rule.with_strength(middle))["inside"] < inside:
                low = middle
            else:
                high = middle
        return high


def measured(
    generator: Generator,
    case: Request,
    weights: Sequence[float] = WEIGHTS,
    contrasts: Sequence[float] = CONTRASTS,
) -> Iterator[Cell]:
    """The cells of one request, that with nothing protected and contrast off first."""
    path = REQUESTS / f"{generator.name}-{case.name}.json"
    request = EditRequest.load(path)
    layer = str(request.layer)
    found = layer_statistics(generator, layer)
    source, spec = open_concepts("embedded:painted", generator), request.latents.spec(range(1000))
    regions = [one for name in case.protect for one in concept_regions(generator, source, name, spec)]
    fresh = _fresh(generator, layer, case)
    edits = {}
    for contrast in contrasts:
        for weight in weights:
            how = request.direction.model_copy(update={"protect": weight, "contrast": contrast})
            asked = request.model_copy(update={"protect": tuple(regions), "direction": how})
            edits[weight, contrast] = rewrite(generator, asked, statistics=found)
    full = {key: fresh.change(edit.rule) for key, edit in edits.items()}
    least = min(change["inside"] for change in full.values())
    base: dict[str, float] = {}
    for (weight, contrast), edit in edits.items():
        strength = fresh.strength(edit.rule, least)
        change = fresh.change(edit.rule.with_strength(strength))
        base = base or change
        yield Cell(
            request=case.name,
            protect=weight,
            contrast=contrast,
            loss=edit.solved.loss,
            full_inside=full[weight, contrast]["inside"],
            full_protected=full[weight, contrast]["protected"],
            strength=strength,
            **change,
            ratio=change["protected"] / base["protected"],
            elsewhere_ratio=change["elsewhere"] / base["elsewhere"],
        )


def _fresh(generator: Generator, layer: str, case: Request) -> _Fresh:
    seen = labelled(generator, FRESH, open_concepts("embedded:distilled", generator))
    inside = seen.only([case.inside]).masks.any(1).numpy()  # [N, H, W]
    protected = seen.only(case.protect).masks.any(1).numpy() & ~inside  # [N, H, W]
    masks = {"inside": inside, "protected": protected, "elsewhere": ~(inside | protected)}
    return _Fresh(scaled(generator, FRESH, layer), masks)


def main() -> int:
    """Print the table, and write it to ``protect.json``."""
    generator, cells = open_generator("anime64-dcgan"), []
    columns = (
        "protect",
        "contrast",
        "loss",
        "inside",
        "protected",
        "strength",
        "matched",
        "ratio",
        "elsewhere",
    )
    print(f"{'request':>11} " + " ".join(f"{column:>9}" for column in columns))
    for case in CASES:
        for cell in measured(generator, case):
            cells.append(cell)
            numbers = (
                cell.protect, cell.contrast, cell.loss, cell.full_inside, cell.full_protected, cell.strength,
                cell.protected, cell.ratio, cell.elsewhere_ratio,
            )  # fmt: skip
            print(f"{cell.request:>11} " + " ".join(f"{number:9.4g}" for number in numbers), flush=True)
    for contrast in CONTRASTS:
        for weight in WEIGHTS:
            same = [cell for cell in cells if (cell.protect, cell.contrast) == (weight, contrast)]
            protected, elsewhere = (
                median(getattr(cell, name) for cell in same) for name in ("ratio", "elsewhere_ratio")
            )
            print(
                f"median, protect {weight:g}, contrast {contrast:g}: {protected:.2f} × in what is protected, "
                f"{elsewhere:.2f} × elsewhere"
            )
    for case in ALONE:
        *_, cell = measured(generator, case, (0.0, 10.0), (0.0,))
        print(
            f"{case.name}, {case.protect[0]} alone at 10: {cell.ratio:.2f} × in it, {cell.elsewhere_ratio:.2f} × "
            f"elsewhere, {cell.full_inside:.4f} inside",
            flush=True,
        )
    Path("protect.json").write_text(json.dumps([asdict(cell) for cell in cells], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
