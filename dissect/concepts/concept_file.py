"""What was painted: concepts named by the user, and strokes of them on a handful of samples.

A `ConceptFile` is a frozen value; painting, erasing and renaming return new ones. It holds the names of the concepts in
order, for each painted picture (a seed) its `Strokes`, and what a seed means: generator, latents, size.

    file = ConceptFile.empty(generator, ("hair", "skin", "background"))
    file = file.with_stroke(3, "hair", Mask.rectangle(generator.picture_size, 2, 10, 20, 50))
    file.save(path)

Concepts of one file exclude each other: a pixel has one of them, and a later stroke over it replaces the earlier. What
overlaps belongs into a file of its own. A pixel that nobody painted is *unknown*, never background: whoever wants a
background paints it.

The file is JSON, with masks as PNG data URLs as edits have them:

    {"format": "painted-concepts/1", "model": {"name": "anime64-dcgan", "fingerprint": "…"},
     "latents": {"scheme": "seed", "truncation": 1.0, "cutoff": null, "label": null}, "size": [64, 64],
     "concepts": ["hair", "skin", "background"],
     "strokes": {"3": {"hair": "data:image/png;base64,…", "skin": "…"}, "17": {…}},
     "learned": "base64 …", "made_with": {"palimpsest": "0.1.0", "torch": "2.13.0"}}

The strokes are what counts. ``learned`` is what `dissect.concepts.painted` made of them, a safetensors file that is not
looked into here, and is dropped with the first change: a shipped file carries it so that the same labels, and the
statistics that were counted with them, are found again on any machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Base64Bytes, Field, model_validator

from dissect.concepts.strokes import UNKNOWN, Strokes, inside, read_mask
from rewrite_core.errors import FileError, MaskError, PalimpsestError
from rewrite_core.files import read_json, write_bytes
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.pictures import Mask
from rewrite_core.rules.request import TOTAL_PIXELS
from rewrite_core.rules.rule import versions
from rewrite_core.rules.settings import LatentSettings, ModelRef
from rewrite_core.settings import Settings

__all__ = ["FORMAT", "ConceptFile"]

FORMAT = "painted-concepts/1"
MOST_CONCEPTS, LONGEST_NAME = 256, 60
MOST_MASKS = 10_000
"""In one file, a mask for each concept on each picture; who paints by hand stays far below."""


@dataclass(frozen=True)
class ConceptFile:
    """Concepts and the strokes that say what they look like.

    Attributes:
        model: the generator whose pictures are painted.
        size: height and width of its pictures, in pixels.
        concepts: their names; a concept's number is its place here.
        strokes: one for each painted picture, by rising seed.
        latents: which picture a seed names.
        learned: what was learned from exactly these strokes (a safetensors file), if anything was.
        made_with: versions of the software.
    """

    model: ModelRef
    size: tuple[int, int]
    concepts: tuple[str, ...] = ()
    strokes: tuple[Strokes, ...] = ()
    latents: LatentSettings = field(default_factory=LatentSettings)
    learned: bytes | None = None
    made_with: Mapping[str, str] = field(default_factory=versions, compare=False, hash=False)

    def __post_init__(self) -> None:
        _check_names(self.concepts)
        painted = sorted((some for some in self.strokes if not some.empty), key=lambda some: some.seed)
        object.__setattr__(self, "strokes", tuple(painted))

    @classmethod
    def empty(
        cls, generator: Generator, concepts: Iterable[str] = (), latents: LatentSettings | None = None
    ) -> Self:
        """A file for the pictures of `generator` with nothing painted yet."""
        model = ModelRef(name=generator.name, fingerprint=generator.fingerprint)
        return cls(model, generator.picture_size, tuple(concepts), latents=latents or LatentSettings())

    # What is in it.

    @property
    def seeds(self) -> tuple[int, ...]:
        """The painted pictures."""
        return tuple(some.seed for some in self.strokes)

    @property
    def spec(self) -> LatentSpec:
        """The latents of the painted pictures."""
        return self.latents.spec(self.seeds)

    @property
    def digest(self) -> str:
        """SHA-256 of all that labels can be learned from: generator, latents, concepts and strokes."""
        named = [self.model.fingerprint, self.latents.model_dump(), self.size, self.concepts, self.seeds]
        content = hashlib.sha256(json.dumps(named).encode())
        for some in self.strokes:
            content.update(some.labels.astype("<i2").tobytes())
        return content.hexdigest()

    def number(self, concept: str) -> int:
        """The number of a concept.

        Raises:
            PalimpsestError: there is none of that name.
        """
        if concept not in self.concepts:
            raise PalimpsestError(
                found=f"the concept {concept!r}",
                expected=f"one of {', '.join(self.concepts) or 'the concepts, of which there is none yet'}",
                remedy="Add the concept, or correct its name.",
            )
        return self.concepts.index(concept)

    def on(self, seed: int) -> Strokes:
        """The strokes on the picture of `seed`; where there are none, nothing but `UNKNOWN`."""
        found = [some for some in self.strokes if some.seed == seed]
        return found[0] if found else Strokes(seed, np.full(self.size, UNKNOWN, np.int16))

    def mask(self, seed: int, concept: str) -> Mask:
        """Where `concept` is painted on the picture of `seed`."""
        return self.on(seed).mask(self.number(concept))

    # What can be done with it.

    def with_concept(self, name: str) -> Self:
        """The same with one more concept, the last."""
        return self._changed(concepts=(*self.concepts, name))

    def with_stroke(self, seed: int, concept: str, mask: Mask) -> Self:
        """The same with `concept` painted where `mask` is at least half opaque, over what was there.

        Raises:
            MaskError: the mask has another size than the picture.
            PalimpsestError: there is no such concept, or no picture of that number.
        """
        return self._painted(seed, mask, self.number(concept))

    def erased(self, seed: int, mask: Mask | None = None) -> Self:
        """The same without strokes of any concept in `mask`, or anywhere on that picture."""
        whole = Mask.from_array(np.ones(self.size, np.bool_))
        return self._painted(seed, mask or whole, UNKNOWN)

    def renamed(self, concept: str, name: str) -> Self:
        """The same with another name for a concept."""
        number = self.number(concept)
        return self._changed(concepts=(*self.concepts[:number], name, *self.concepts[number + 1 :]))

    def without(self, concept: str) -> Self:
        """The same without a concept and its strokes."""
        number = self.number(concept)
        concepts = (*self.concepts[:number], *self.concepts[number + 1 :])
        return self._changed(concepts=concepts, strokes=tuple(some.without(number) for some in self.strokes))

    def with_learned(self, content: bytes) -> Self:
        """The same beside what was learned from it."""
        return replace(self, learned=content)

    # Files.

    @classmethod
    def load(cls, source: Path | bytes, what: str = "the concept file") -> Self:
        """Read a file or an upload; `what` names the latter in errors.

        Raises:
            FileError: it cannot be read, or something in it is wrong: what, and what it should be.
        """
        what = source.name if isinstance(source, Path) else what
        form = _Form.parse(_of_known_format(read_json(source, what=what), what), what, FileError)
        try:
            blank = cls(form.model, form.size, form.concepts, latents=form.latents, made_with=form.made_with)
            strokes = tuple(blank._read(int(seed), masks) for seed, masks in form.strokes.items())
        except PalimpsestError as problem:
            found = f"{what}: {problem.found}"
            raise FileError(found=found, expected=problem.expected, remedy=problem.remedy) from None
        return replace(blank, strokes=strokes, learned=form.learned)

    def to_bytes(self) -> bytes:
        """The file's content, which `load` reads back exactly."""
        form = {
            "format": FORMAT,
            "model": self.model.model_dump(),
            "latents": self.latents.model_dump(),
            "size": self.size,
            "concepts": self.concepts,
            "strokes": {str(some.seed): self._urls(some) for some in self.strokes},
            "made_with": dict(self.made_with),
        }
        if self.learned is not None:
            form["learned"] = base64.b64encode(self.learned).decode("ascii")
        return json.dumps(form, indent=1).encode()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. A `FileError` says why it cannot be."""
        write_bytes(path, self.to_bytes())

    def _changed(self, **changes: Any) -> Self:
        return replace(self, learned=None, **changes)

    def _painted(self, seed: int, mask: Mask, number: int) -> Self:
        self.latents.spec([seed])
        self._require_size(mask, seed)
        others = tuple(some for some in self.strokes if some.seed != seed)
        return self._changed(strokes=(*others, self.on(seed).painted(inside(mask), number)))

    def _urls(self, some: Strokes) -> dict[str, str]:
        """The masks of one picture, as PNG data URLs by concept."""
        masks = {name: some.mask(number) for number, name in enumerate(self.concepts)}
        return {name: mask.to_data_url() for name, mask in masks.items() if not mask.empty}

    def _read(self, seed: int, urls: Mapping[str, str]) -> Strokes:
        """The strokes of one picture, from what `_urls` made of them."""
        self.latents.spec([seed])
        strokes = Strokes(seed, np.full(self.size, UNKNOWN, np.int16))
        for concept, url in urls.items():
            number, mask = self.number(concept), read_mask(url, f"'{concept}' on picture {seed}")
            self._require_size(mask, seed)
            if (strokes.labels[inside(mask)] != UNKNOWN).any():
                raise MaskError(
                    found=f"a pixel of picture {seed} that is {concept!r} and another concept",
                    expected="one concept in each pixel",
                    remedy="Keep concepts that overlap in a file each.",
                )
            strokes = strokes.painted(inside(mask), number)
        return strokes

    def _require_size(self, mask: Mask, seed: int) -> None:
        if mask.size != self.size:
            raise MaskError(
                found=f"a stroke of {mask.size[0]}×{mask.size[1]} pixels on picture {seed}",
                expected=f"the picture's {self.size[0]}×{self.size[1]}",
                remedy="Paint on the picture at its own size.",
            )


def _whole(text: str) -> str:
    """A picture's number in the only way it is written, so that no two keys mean the same picture."""
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,9}", text):
        raise ValueError("a picture's number, without zeros in front")
    return text


class _Form(Settings):
    """What a file looks like."""

    format: Literal["painted-concepts/1"]
    model: ModelRef
    latents: LatentSettings
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    concepts: tuple[str, ...]
    strokes: dict[Annotated[str, AfterValidator(_whole)], dict[str, str]]
    learned: Base64Bytes | None = None
    made_with: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        masks = sum(len(urls) for urls in self.strokes.values())
        if max(masks, len(self.strokes)) > MOST_MASKS:
            raise ValueError(f"at most {MOST_MASKS:,} masks")
        if masks * self.size[0] * self.size[1] > TOTAL_PIXELS:
            raise ValueError(f"at most {TOTAL_PIXELS:,} pixels in all its masks")
        return self


def _of_known_format(data: Any, what: str) -> Any:
    """Decoded JSON as it came, if it says that it is a concept file that can be read."""
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        newer = isinstance(found, str) and found.startswith("painted-concepts/")
        raise FileError(
            found=f"{what}: format {found!r:.40}" if found is not None else f"{what}, which names no format",
            expected=f"the format {FORMAT!r}",
            remedy="Update Palimpsest to open it." if newer else "Choose a file of painted concepts.",
        )
    return data


def _check_names(concepts: tuple[str, ...]) -> None:
    if len(concepts) > MOST_CONCEPTS:
        raise PalimpsestError(
            found=f"{len(concepts):,} concepts",
            expected=f"at most {MOST_CONCEPTS}",
            remedy="Divide them among several files.",
        )
    for place, name in enumerate(concepts):
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
            raise PalimpsestError(
                found=f"a concept called {name[: LONGEST_NAME + 1]!r}",
                expected=f"1 to {LONGEST_NAME} printable characters",
                remedy="Give it another name.",
            )
        if name in concepts[:place]:
            raise PalimpsestError(
                found=f"two concepts called {name!r}", expected="names that differ", remedy="Rename one."
            )
