"""What a visitor asks for: copy this, paste it there, wherever that context is.

An `EditRequest` holds painted regions, each a `Painted` (a picture and a mask):

    object   what to copy; or a `Patch`, a colour or pixels, where the layer draws the picture itself
    paste    where to put it; for an erasure, where to erase
    key      the context: the rule acts wherever the layer finds something like it
    query    what "match selection" last looked for: part of published files, without effect on the edit
    protect  what must not change

and, inherited from `EditSettings`, how: generator, latents, layer, rank, operation, direction and solver. A
saved request is reproducible alone.

The file is the published interface's JSON (Bau et al., ECCV 2020) with one more key, which that one ignores:

    {"object": [3, "data:image/png;base64,…"], "paste": [7, "…"], "key": [[7, "…"], [2, "…"]],
     "palimpsest": {"version": 1, "layer": "layer6", "rank": 1, …, "protect": [], "pictures": []}}

In a published file, which lacks that key, picture numbers are rows of one random matrix (scheme ``rows``),
and where the context is missing it is the pasted region, as it was there.

A region may be painted on a picture of one's own (`rewrite_core/generators/own.py`), which no number names. The file
holds its latents under ``pictures``, and -1, -2, … number these in their order: numbers, as that interface expects.

Instead of a context, directions may be `given`: found elsewhere, of any origin. The file holds theirs under ``given``,
in base64. Only an erasure then needs a context, for the units that it silences.

Further copy–paste pairs are the request's `examples`: its rule is solved for all of them at once. `to_published` writes
the file as the published interface does, without a key of ours, and says what is lost by that.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import InstanceOf

from rewrite_core.directions import Direction
from rewrite_core.directions.direction_file import LARGEST_FILE
from rewrite_core.errors import FileError, LayerError, RequestError
from rewrite_core.files import read_json, write_bytes
from rewrite_core.generators.latents import LAST_ROW, LAST_SEED
from rewrite_core.generators.own import OwnPicture
from rewrite_core.rules.example import Example, copied_of, read_examples, read_patch
from rewrite_core.rules.patch import Patch
from rewrite_core.rules.published_file import PublishedFile, published_file
from rewrite_core.rules.regions import TOTAL_PIXELS, Painted, Regions, pairs, require_area, short, wrong
from rewrite_core.rules.settings import EditSettings, LatentSettings, Operation

__all__ = ["TOTAL_PIXELS", "EditRequest", "Example", "Painted", "Patch"]

VERSION = 1
MOST_OWN = 1024  # pictures of one's own in one file

_OURS = "palimpsest"
_NO_SETTINGS = ("version", "protect", "pictures", "given", "patch", "examples")
_PUBLISHED = ("object", "paste", "key", "query")
_MEANING = {"object": "a region to copy", "paste": "a region to paste into", "key": "a context"}
_GIVEN_WILL_DO: tuple[Operation, ...] = ("paste", "remove")
"""Operations for which given directions stand in for the context."""


class EditRequest(EditSettings):
    """A frozen description of an edit; change it with ``request.model_copy(update={...})``."""

    object: InstanceOf[Painted] | InstanceOf[Patch] | None = None
    paste: InstanceOf[Painted] | None = None
    key: tuple[InstanceOf[Painted], ...] = ()
    query: InstanceOf[Painted] | None = None
    protect: tuple[InstanceOf[Painted], ...] = ()
    given: InstanceOf[Direction] | None = None
    """Directions that take the context's place, the first `rank` of them."""
    examples: tuple[InstanceOf[Example], ...] = ()
    """Copy–paste pairs besides `object` and `paste`."""

    @classmethod
    def from_json(cls, source: str | bytes | Mapping[str, Any], what: str = "the edit") -> EditRequest:
        """Read a published file or one of ours from its text or its decoded JSON; `what` names it in errors.

        Raises:
            FileError: the text is not JSON, or too large.
            RequestError: naming the field that is wrong; a MaskError where that is a mask.
        """
        data = read_json(source, what=what) if isinstance(source, str | bytes) else source
        if not isinstance(data, Mapping):
            raise wrong(what, data, "an object with object, paste and key")
        _check_keys(data, what)
        ours = data.get(_OURS)
        settings = _settings(ours, f"{what}: {_OURS}")
        last = LAST_ROW if settings.latents.scheme == "rows" else LAST_SEED
        regions = Regions(what, last, _own(ours or {}, f"{what}: {_OURS}.pictures"))
        paste, key = regions.one(data.get("paste"), "paste"), regions.many(data.get("key"), "key")
        if ours is None and data.get("key") is None:
            key = (paste,) if paste else ()
        return cls(
            **dict(settings),
            object=copied_of(
                regions.one(data.get("object"), "object"),
                read_patch(ours.get("patch"), regions, f"{_OURS}.patch") if ours else None,
            ),
            paste=paste,
            key=key,
            query=regions.one(data.get("query"), "query"),
            protect=regions.many(ours.get("protect"), f"{_OURS}.protect") if ours else (),
            given=_given(ours.get("given"), f"{what}: {_OURS}.given") if ours else None,
            examples=read_examples(ours.get("examples"), regions, f"{_OURS}.examples") if ours else (),
        )

    def to_dict(self) -> dict[str, Any]:
        """The request as decoded JSON, which `from_json` reads back exactly."""
        own, copied = self.own, self.object
        drawn = {"object": None if isinstance(copied, Patch) else copied}
        published = {name: pairs(drawn.get(name, getattr(self, name)), own) for name in _PUBLISHED}
        settings = self.model_dump(mode="json", include=set(EditSettings.model_fields))
        ours = {"version": VERSION, **settings, "protect": pairs(self.protect, own)}
        if own:
            ours["pictures"] = [picture.model_dump(mode="json") for picture in own]
        if self.given:
            ours["given"] = base64.b64encode(self.given.to_bytes()).decode("ascii")
        if isinstance(copied, Patch):
            ours["patch"] = copied.to_data_url()
        if self.examples:
            ours["examples"] = [example.to_json(own) for example in self.examples]
        return {**{name: regions for name, regions in published.items() if regions}, _OURS: ours}

    def to_json(self) -> str:
        """The request as text, which `from_json` reads back exactly."""
        return json.dumps(self.to_dict(), indent=1)

    def to_published(self) -> PublishedFile:
        """The request as the published interface writes it, and what of it that cannot say (`published_file.py`)."""
        return published_file(self)

    @classmethod
    def load(cls, source: Path | bytes) -> EditRequest:
        """Read a request from a file or an upload; errors as `from_json`."""
        what = source.name if isinstance(source, Path) else "the edit"
        return cls.from_json(read_json(source, what=what), what)

    def save(self, path: Path) -> None:
        """Write the request to a file, whole or not at all. A `FileError` says why it cannot be."""
        write_bytes(path, self.to_json().encode())

    @property
    def own(self) -> tuple[OwnPicture, ...]:
        """The pictures of one's own that are painted on, each once."""
        further = [painted for example in self.examples for painted in example.painted]
        regions = [self.object, self.paste, *self.key, self.query, *self.protect, *further]
        images = dict.fromkeys(painted.image for painted in regions if isinstance(painted, Painted))
        return tuple(image for image in images if isinstance(image, OwnPicture))

    @property
    def pairs(self) -> tuple[Example, ...]:
        """Every copy–paste pair: `object` and `paste`, which may both be missing, then the `examples`.

        Raises:
            RequestError: there is none, or one half of the first is missing.
        """
        if self.examples and self.object is None and self.paste is None:
            return self.examples
        copied = self.object if isinstance(self.object, Patch) else self.painted("object")
        return Example(copied, self.painted("paste"), self.scale, self.flip), *self.examples

    def painted(self, name: Literal["object", "paste", "key"]) -> Painted:
        """The region of that name; of a context, the first.

        Raises:
            RequestError: nothing is painted there.
        """
        region = {"object": self.object, "paste": self.paste, "key": self.key[0] if self.key else None}[name]
        if not isinstance(region, Painted):
            meaning = _MEANING[name]
            found = f"no {name} in the edit" if region is None else f"{region} as the {name} of the edit"
            raise RequestError(found=found, expected=meaning, remedy=f"Paint {meaning}.")
        return region

    def require_complete(self) -> None:
        """Check that all that the operation needs is painted: a context, and for a paste what goes where.

        Given directions stand in for the context, but for an erasure.

        Raises:
            RequestError: a region is missing; a MaskError where its mask is empty.
        """
        if self.operation == "paste":
            _ = self.pairs
        if not (self.given and self.operation in _GIVEN_WILL_DO):
            self.painted("key")
        self.require_areas()

    def require_areas(self) -> None:
        """Check that no mask is empty.

        Raises:
            MaskError: naming the first that is.
        """
        for field in ("object", "paste", "key", "protect"):
            require_area(getattr(self, field), field)
        for index, example in enumerate(self.examples):
            require_area(example.painted, f"examples.{index}")

    def check(self, layers: Collection[str]) -> None:
        """Check that the edit can be made on a generator with these `layers`.

        Raises:
            RequestError: see `require_complete`; or the given directions are fewer than the rank.
            LayerError: the layer is missing, is not one of them, or is not that of the given directions.
        """
        self.require_complete()
        if self.layer not in layers:
            raise LayerError(
                found="no layer in the edit" if self.layer is None else f"layer {self.layer!r} in the edit",
                expected=f"one of {', '.join(layers)}",
                remedy="Choose one of these layers, or open the generator that the edit was made for.",
            )
        self.given_at(str(self.layer))

    def given_at(self, layer: str) -> Direction | None:
        """The given directions for `layer`, as many as the rank says; None where none are given.

        Raises:
            LayerError: they are of another layer.
            RequestError: they are fewer than the rank.
        """
        if self.given is None:
            return None
        if self.given.layer != layer:
            raise LayerError(
                found=f"layer {short(layer)} in the edit, and directions of {short(self.given.layer)} given to it",
                expected="one layer",
                remedy="Choose the layer of the directions, or give others.",
            )
        return self.given.head(self.rank)


def _check_keys(data: Any, what: str) -> None:
    if not isinstance(data, dict):
        raise wrong(what, data, "an object with the keys " + ", ".join(_PUBLISHED))
    for name in data:
        if name not in (*_PUBLISHED, _OURS):
            raise RequestError(
                found=f"{what}: the key {short(name)}",
                expected=f"only {', '.join((*_PUBLISHED, _OURS))}",
                remedy="Check that it is an edit, and remove that key.",
            )
    if all(value is None for value in data.values()):
        raise RequestError(
            found=f"{what}: nothing painted and no settings",
            expected=f"at least one of {', '.join((*_PUBLISHED, _OURS))}",
            remedy="Check that it is an edit.",
        )


def _settings(ours: Any, where: str) -> EditSettings:
    """The settings in a file of ours, whose version must be one that we know; without them it is a published one."""
    if ours is None:
        return EditSettings(latents=LatentSettings(scheme="rows"))
    if not isinstance(ours, dict):
        raise wrong(where, ours, "an object")
    version = ours.get("version")
    if type(version) is not int or version < 1:
        raise wrong(f"{where}.version", version, f"a version number from 1 to {VERSION}")
    if version > VERSION:
        raise RequestError(
            found=f"{where}: version {short(version)} of the format",
            expected=f"version {VERSION} or older",
            remedy="Update Palimpsest to open it.",
        )
    settings = {name: value for name, value in ours.items() if name not in _NO_SETTINGS}
    return EditSettings.parse(settings, where)


def _own(ours: Mapping[str, Any], where: str) -> list[OwnPicture]:
    """The pictures of one's own that a file holds; a file without any leaves the list out."""
    entries = ours.get("pictures")
    if not isinstance(entries, list | None) or len(entries or ()) > MOST_OWN:
        raise wrong(where, entries, f"a list of at most {MOST_OWN} pictures")
    return [OwnPicture.parse(entry, f"{where}.{index}") for index, entry in enumerate(entries or ())]


def _given(text: Any, where: str) -> Direction | None:
    """The directions in base64, as `Direction.to_bytes` writes them; None where there are none."""
    if text is None:
        return None
    expected = "a direction's file in base64"
    if not isinstance(text, str) or len(text) > 4 * (LARGEST_FILE // 3 + 1):
        raise wrong(where, text, expected)
    try:
        return Direction.load(base64.b64decode(text, validate=True), where)
    except ValueError:
        raise wrong(where, text, expected) from None
    except FileError as problem:
        raise RequestError(found=problem.found, expected=problem.expected, remedy=problem.remedy) from None
