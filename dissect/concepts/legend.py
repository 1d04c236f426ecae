"""What the numbers in label maps mean: the ``legend.json`` beside them.

In short, a number for each name, or names in the order of the numbers; `null` is a number that means no concept::

    {"0": "background", "1": "hair", "2": "eyes", "255": null}
    ["background", "hair", "eyes"]

So written, the maps are of pictures by seed, at truncation 1, of whichever generator. In full, `latents` says which
pictures the maps' numbers name, and `model` which generator drew them; its `fingerprint` is compared::

    {"labels": {"0": "background", "1": "hair"},
     "latents": {"scheme": "rows", "truncation": 0.7},
     "model": {"name": "my-gan", "fingerprint": "3f6c…"}}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rewrite_core.errors import FileError
from rewrite_core.files import read_json
from rewrite_core.rules.settings import LatentSettings, ModelRef
from rewrite_core.settings import Settings

__all__ = ["LEGEND", "Legend"]

LEGEND = "legend.json"
MOST_NAMES, LONGEST_NAME = 4096, 60
_LIMIT = 4 << 20
_REMEDY = f"Correct {LEGEND}."


@dataclass(frozen=True)
class Legend:
    """Names of the labels by number, and what the maps are of.

    Attributes:
        labels: number → name, by rising number; None where a number means no concept.
        latents: which pictures their numbers name.
        model: the generator that drew the pictures, if the legend says which.
    """

    labels: Mapping[int, str | None]
    latents: LatentSettings
    model: ModelRef | None = None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The legend of a folder of label maps.

        Raises:
            FileError: there is none, or something in it is wrong: what, and what it should be.
        """
        path = folder / LEGEND
        if not path.is_file():
            raise FileError(
                found=f"{folder} without {LEGEND}",
                expected="a legend beside the label maps",
                remedy=f'Write {LEGEND}, such as {{"0": "background", "1": "hair"}}.',
            )
        what = str(path)
        data = read_json(path, what=what, limit_bytes=_LIMIT)
        full = isinstance(data, dict) and "labels" in data
        form = _Form.parse(data if full else {"labels": data}, what, FileError)
        return cls(_labels(form.labels, what), form.latents, form.model)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the concepts, rising."""
        return tuple(number for number, name in self.labels.items() if name is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the concepts, by rising number."""
        return tuple(name for name in self.labels.values() if name is not None)


class _Form(Settings):
    """What the file looks like."""

    labels: dict[str, Any] | list[Any]
    latents: LatentSettings = LatentSettings()
    model: ModelRef | None = None


def _labels(given: dict[str, Any] | list[Any], what: str) -> dict[int, str | None]:
    """Number → name, checked."""
    if len(given) > MOST_NAMES:
        raise _wrong(what, f"{len(given):,} entries", f"at most {MOST_NAMES:,}")
    entries: Iterable[tuple[Any, Any]] = enumerate(given) if isinstance(given, list) else given.items()
    labels: dict[int, str | None] = {}
    taken: dict[str, int] = {}  # name → number
    for key, name in entries:
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", str(key)):
            raise _wrong(what, f"the entry {str(key)[:40]!r}", "whole numbers as keys")
        number = int(key)
        labels[number] = None if name is None else _checked(name, number, what)
        if name is not None and taken.setdefault(name, number) != number:
            raise _wrong(
                what, f"{name!r} as the name of both {taken[name]} and {number}", "names that differ"
            )
    if not taken:
        raise _wrong(what, "no concept", "a name for one number at least")
    return dict(sorted(labels.items()))


def _checked(name: Any, number: int, what: str) -> str:
    """The name of `number`, if it is a good one."""
    good = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()
    if not good or name != name.strip():
        expected = f"a name of 1 to {LONGEST_NAME} printable characters, or null for no concept"
        raise _wrong(what, f"{name!r:.80} as the name of {number}", expected)
    return str(name)


def _wrong(what: str, found: str, expected: str) -> FileError:
    return FileError(found=f"{what}: {found}", expected=expected, remedy=_REMEDY)
