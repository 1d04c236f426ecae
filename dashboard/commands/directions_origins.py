"""What `palimpsest directions find` can make directions of: a function for each kind of origin, in `FINDERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboard.commands.console import progress
from dashboard.commands.directions_opening import Context, made_for, open_context, statistics_of
from dashboard.commands.opening import opened
from rewrite_core.errors import ModelMismatch, RequestError

if TYPE_CHECKING:
    from rewrite_core.directions import Direction
    from rewrite_core.generators import Generator, LatentSpec

__all__ = [
    "CONTEXT",
    "DICTIONARY",
    "DIFFERENCE",
    "FINDERS",
    "KEYS",
    "PAINTED",
    "RULE",
    "UNIT",
    "Found",
    "Wanted",
]

PAINTED = ("zca", "svd", "mean", "gandissect", "plain")
"""Origins that make a direction of a painted context: the methods of `rewrite_core.directions.context`."""
CONTEXT = "context"
"""A painted context by the method that its own settings name."""
DIFFERENCE, UNIT, RULE, DICTIONARY = "difference", "unit", "rule", "dictionary"
KEYS = ("pca", "ica", "k-means")
"""Origins that need nothing but a layer's keys; so does a dictionary (`rewrite_core.directions.origins`)."""

Found = tuple["Generator", list["Direction"]]


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        context, against: painted contexts, by path or name; the second is what a difference is told from.
        count, number: how many directions the keys are to give, and which of them is asked for; None: all.
        settings: those of the contexts' files that are to be others; None: as they are.
    """

    origin: str
    model: str | None
    context: str | None
    against: str | None
    unit: int | None
    rule: Path | None
    dictionary: Path | None
    count: int
    number: int | None
    layer: str | None
    name: str
    spec: LatentSpec
    settings: Mapping[str, Any]
    force: bool
    quiet: bool

    @property
    def several(self) -> bool:
        """Whether more than one direction may come of it."""
        return self.origin in (*KEYS, DICTIONARY) and self.number is None

    def named(self, direction: Direction, place: int | None = None) -> Direction:
        """The direction by the name that was asked for, with its place if it is one of several."""
        if not self.name:
            return direction
        return direction.renamed(self.name if place is None else f"{self.name} {place}")


def _painted(wanted: Wanted) -> Found:
    method = {} if wanted.origin == CONTEXT else {"method": wanted.origin}
    context = _context(wanted, wanted.context, method)
    statistics = statistics_of(context.generator, context.layer, wanted.quiet)
    return context.generator, [context.direction(statistics, wanted.name)]


def _difference(wanted: Wanted) -> Found:
    from rewrite_core.rules.contrasted import difference_of

    this = _context(wanted, wanted.context)
    that = _context(wanted, wanted.against, {"layer": this.layer})
    if that.generator.fingerprint != this.generator.fingerprint:
        raise ModelMismatch(
            found=f"contexts painted for {this.generator.name} and for {that.generator.name}",
            expected="two of one model",
            remedy="Paint both on pictures of the same model.",
        )
    statistics = statistics_of(this.generator, this.layer, wanted.quiet)
    name = wanted.name or f"{this.name}, not {that.name}"
    return this.generator, [difference_of(this.generator, this.request, that.request, statistics, name)]


def _unit(wanted: Wanted) -> Found:
    from rewrite_core.directions.units import unit_direction

    assert wanted.unit is not None
    generator = opened(wanted.model)
    direction = unit_direction(generator, _layer(wanted, generator), wanted.unit)
    return generator, [wanted.named(direction)]


def _rule(wanted: Wanted) -> Found:
    from rewrite_core import Rule

    assert wanted.rule is not None
    direction = Rule.load(wanted.rule).direction()
    generator = opened(wanted.model, direction.model)
    return generator, made_for(generator, [wanted.named(direction)], wanted.force)


def _keys(wanted: Wanted) -> Found:
    from rewrite_core.directions.layer_keys import layer_keys
    from rewrite_core.directions.origins import ORIGINS

    if wanted.number == 0:
        raise RequestError(
            found="number 0", expected="1 for the first", remedy=f"Count those of {wanted.origin} from 1 on."
        )
    generator = opened(wanted.model)
    layer = _layer(wanted, generator)
    with progress("Gathering keys", wanted.quiet) as advance:
        keys = layer_keys(generator, layer, wanted.spec, progress=advance)
    with progress("Looking for directions", wanted.quiet) as advance:
        found = ORIGINS[wanted.origin].propose(keys, wanted.count, 0, advance)
    return generator, _chosen(wanted, found)


def _dictionary(wanted: Wanted) -> Found:
    from rewrite_core.directions.dictionary import Dictionary

    if wanted.dictionary is None:
        return _keys(wanted)
    dictionary = Dictionary.load(wanted.dictionary)
    generator = opened(wanted.model, dictionary.model)
    if wanted.number is None:
        found = _chosen(wanted, dictionary.leading(wanted.count))
    else:
        found = [wanted.named(dictionary.direction(wanted.number))]
    return generator, made_for(generator, found, wanted.force)


FINDERS: Mapping[str, Callable[[Wanted], Found]] = {
    **dict.fromkeys((CONTEXT, *PAINTED), _painted),
    DIFFERENCE: _difference,
    UNIT: _unit,
    RULE: _rule,
    **dict.fromkeys(KEYS, _keys),
    DICTIONARY: _dictionary,
}
"""From what is wanted to the directions, and the generator that they are for."""


def _context(wanted: Wanted, text: str | None, more: Mapping[str, Any] | None = None) -> Context:
    assert text is not None
    return open_context(text, wanted.model, wanted.force, {**wanted.settings, **(more or {})})


def _layer(wanted: Wanted, generator: Generator) -> str:
    return generator.layer(wanted.layer or generator.default_layer).name


def _chosen(wanted: Wanted, found: list[Direction]) -> list[Direction]:
    """All that were found, or the one whose number was given, which may be more than there are.

    Raises:
        RequestError: there is no such one; or none at all, where clusters are all zero, or features dead.
    """
    if not found:
        raise RequestError(
            found=f"no direction by {wanted.origin}",
            expected="a layer that responds, or a dictionary with features that are active",
            remedy="Choose another layer, or learn the dictionary again.",
        )
    if wanted.number is None:
        return [wanted.named(direction, place) for place, direction in enumerate(found, 1)]
    if wanted.number > len(found):
        raise RequestError(
            found=f"number {wanted.number} of {wanted.origin}",
            expected=f"1 to {len(found)}",
            remedy="Choose one of these.",
        )
    return [wanted.named(found[wanted.number - 1])]
