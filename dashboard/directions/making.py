"""How a direction of the page comes about: a painted context, an example, a unit, or one of many that are proposed.

    named(generator, "l08", "eyes")       # an example that ships with an embedded generator
    named(generator, "l08", "unit:41")    # a unit
    named(generator, "l08", "pca:3")      # the third that the origin pca proposes

The last argument is a *link*: what names a direction in the address. All of it may be called from a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dashboard.budget import Budget
from dashboard.directions.choices import Item
from dashboard.session import THE_APP, embedded, service, statistics_of
from rewrite_core.directions import Direction, unit_direction
from rewrite_core.directions.dictionary import Dictionary, DictionarySettings, learn_dictionary
from rewrite_core.directions.layer_keys import LayerKeys, layer_keys
from rewrite_core.directions.origins import ORIGINS
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, embedded_names
from rewrite_core.jobs import Progress
from rewrite_core.memory import whiten
from rewrite_core.rules.contrasted import difference_of
from rewrite_core.rules.examples import example_contexts
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.rewrite import direction_of
from rewrite_core.statistics.layer import SAMPLES

__all__ = [
    "DICTIONARY",
    "PROPOSED",
    "UNIT",
    "dictionary_of",
    "examples",
    "made",
    "named",
    "proposals",
    "require_link",
]

PROPOSED = 16
"""Directions that an origin proposes."""
UNIT = "unit"
"""The origin of `unit:41`."""

DICTIONARY = "dictionary"
"""The origin that learns a sparse dictionary, of which there is more to show than its directions."""

_keys: Budget[LayerKeys] = Budget(256 << 20, lambda keys: keys.rows.nbytes + keys.moment.matrix.nbytes)
_dictionaries: Budget[Dictionary] = Budget(
    64 << 20, lambda found: found.encoder.nbytes + found.decoder.nbytes
)
_proposed: Budget[list[Direction]] = Budget(64 << 20, lambda found: sum(one.vectors.nbytes for one in found))


def examples(generator: Generator) -> Mapping[str, Path]:
    """Name → file of the painted contexts that ship with `generator`, if it is an embedded one."""
    for name in embedded_names():
        if embedded(name).fingerprint == generator.pristine.fingerprint:
            return example_contexts(name)
    return {}


def made(
    generator: Generator,
    request: EditRequest,
    that: tuple[Painted, ...] = (),
    *,
    name: str = "",
    owner: str = THE_APP,
    progress: Progress | None = None,
) -> Direction:
    """The direction of the context of `request` at its layer; with `that`, what tells the one from the other.

    Raises:
        RequestError: nothing is painted, or the context does not show as many directions as the rank.
        MaskError: a mask covers no position of the layer.
    """
    layer = str(request.layer)
    known = statistics_of(generator, layer, progress, visitor=owner)
    if not that:
        return direction_of(generator.pristine, request, known).renamed(name)
    return difference_of(generator, request, request.model_copy(update={"key": that}), known, name)


def proposals(
    generator: Generator, layer: str, origin: str, progress: Progress | None = None
) -> list[Direction]:
    """The `PROPOSED` directions that an origin finds in the layer's keys, or as many as these vary along; kept for all.

    Raises:
        RequestError: the origin finds fewer.
    """

    def found() -> list[Direction]:
        keys = _keys_of(generator, layer, progress)
        if origin == DICTIONARY:
            return _learned(keys, progress).leading(PROPOSED)
        varying = whiten(keys.moment.matrix).rank - 1  # without the mean, along which none of them lies
        return ORIGINS[origin].propose(keys, max(1, min(PROPOSED, varying)), 0, progress)

    return _proposed.get((generator.pristine.fingerprint, layer, origin), found)


def dictionary_of(generator: Generator, layer: str) -> Dictionary | None:
    """The dictionary that was learned of a layer, if it was and is still kept."""
    return _dictionaries.peek((generator.pristine.fingerprint, layer))


def _learned(keys: LayerKeys, progress: Progress | None) -> Dictionary:
    def learned() -> Dictionary:
        return learn_dictionary(keys, DictionarySettings(), progress)

    return _dictionaries.get((keys.fingerprint, keys.layer), learned)


def _keys_of(generator: Generator, layer: str, progress: Progress | None) -> LayerKeys:
    """A layer's keys, over the pictures that the layer's own statistics are gathered from."""
    pristine, spec = generator.pristine, LatentSpec.of(range(SAMPLES))

    def gathered() -> LayerKeys:
        return layer_keys(pristine, layer, spec, store=service().store, progress=progress)

    return _keys.get((pristine.fingerprint, layer), gathered)


# By name


def require_link(generator: Generator, layer: str, link: str) -> str:
    """The layer of the direction that `link` names, which is `layer` but for an example: it brings its own.

    Raises:
        RequestError: it names none.
    """
    offered = examples(generator)
    if link in offered:
        return str(EditRequest.load(offered[link]).layer or layer)
    origin, _, number = link.partition(":")
    most = {UNIT: generator.layer(layer).in_channels, **dict.fromkeys(ORIGINS, PROPOSED + 1)}
    first = 0 if origin == UNIT else 1
    if origin not in most or not number.isdecimal() or not first <= int(number[:9]) < most[origin]:
        raise RequestError(
            found=f"the direction {link[:80]!r}",
            expected=", ".join(
                [
                    *offered,
                    f"unit:0 to unit:{most[UNIT] - 1}",
                    *(f"{name}:1 to {PROPOSED}" for name in ORIGINS),
                ]
            ),
            remedy="Choose on the page.",
        )
    return layer


def named(generator: Generator, layer: str, link: str, progress: Progress | None = None) -> Item:
    """The direction that `link` names at `layer`, as `require_link` gave it.

    Raises:
        RequestError: the layer has not so many.
    """
    offered = examples(generator)
    if link in offered:
        request = EditRequest.load(offered[link])
        request = request.model_copy(update={"layer": layer})
        return Item(made(generator, request, name=link, progress=progress), request, link)
    origin, _, number = link.partition(":")
    if origin == UNIT:
        return Item(unit_direction(generator, layer, int(number)), link=link)
    found = proposals(generator, layer, origin, progress)
    if int(number) > len(found):
        raise RequestError(
            found=f"number {number} of {ORIGINS[origin].title}",
            expected=f"1 to {len(found)}",
            remedy="Choose on the page.",
        )
    return Item(found[int(number) - 1], link=link)
