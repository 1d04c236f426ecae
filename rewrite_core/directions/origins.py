"""The origins of directions that need nothing but a layer's keys: nobody has to paint, name or choose anything.

    for direction in ORIGINS["ica"].propose(keys, 8, seed, progress):
        ...

A new origin is one file with a function, and one line in `ORIGINS`. Its name is the `method` of its directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rewrite_core.directions.centres import centres
from rewrite_core.directions.dictionary import DictionarySettings, learn_dictionary
from rewrite_core.directions.direction import Direction
from rewrite_core.directions.independent import independent
from rewrite_core.directions.layer_keys import LayerKeys
from rewrite_core.directions.principal import principal
from rewrite_core.jobs import Progress

__all__ = ["ORIGINS", "Origin", "Propose"]

Propose = Callable[[LayerKeys, int, int, Progress | None], list[Direction]]
"""From keys, how many, a seed and a progress callback to directions, most telling first."""


@dataclass(frozen=True)
class Origin:
    """One of them.

    Attributes:
        title: what it is called on a page, in the plural.
        about: in a sentence, what its directions are.
        propose: raises `RequestError` where the keys do not have so many, and `Cancelled` from its progress callback.
    """

    title: str
    about: str
    propose: Propose


def _dictionary(keys: LayerKeys, count: int, seed: int, progress: Progress | None) -> list[Direction]:
    """The `count` features of a new dictionary that explain most."""
    keys.require(count, 1, "features")
    return learn_dictionary(keys, DictionarySettings(seed=seed), progress).leading(count)


def _at_once(find: Callable[[LayerKeys, int, int], list[Direction]]) -> Propose:
    """An origin that takes too short to say how far it is: progress is asked before and told after."""

    def propose(keys: LayerKeys, count: int, seed: int, progress: Progress | None) -> list[Direction]:
        if progress:
            progress(0, 1)
        found = find(keys, count, seed)
        if progress:
            progress(1, 1)
        return found

    return propose


ORIGINS: Mapping[str, Origin] = {
    "pca": Origin(
        "Principal components",
        "Where the keys vary most, each perpendicular to those before it.",
        _at_once(lambda keys, count, seed: principal(keys, count)),
    ),
    "ica": Origin(
        "Independent components",
        "Sources that vary independently of each other.",
        _at_once(independent),
    ),
    "k-means": Origin(
        "Centres of clusters",
        "The contexts into which whitened keys fall.",
        _at_once(centres),
    ),
    "dictionary": Origin(
        "Features of a sparse dictionary",
        "A few of many features make up any key.",
        _dictionary,
    ),
}
