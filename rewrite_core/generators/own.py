"""A picture that no seed names, as a value: latents found for a picture of one's own, under a name.

    mine = project(generator, picture).named("mine")
    Painted(mine, mask)                             # can be painted on as a numbered picture is
    generator.draw(mine.latents(generator))

Equal by its content and hashable, so that it can stand wherever a seed does: `PictureId`. It is drawn exactly as it was
found: neither the truncation nor the class of the pictures beside it applies to it, and its noise is that of seed 0.

Its JSON is a name, the kind of latents, their shape and their float32 numbers, little-endian, in base64. What comes
from a file is held to be hostile: the size is known before anything is decoded, and no number may be too large to draw.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.latents import Latents
from rewrite_core.generators.wspace import given
from rewrite_core.settings import Settings

__all__ = ["OwnPicture", "PictureId", "key_of", "short"]

LONGEST_NAME = 80
SHORT = 10
"""Characters of a name where there is little room."""
MOST_NUMBERS = 1 << 18
"""In one picture's latents: the largest generators take some 20,000."""
LARGEST_NUMBER = 1e6
"""Of either sign: latents are around 1, and what exceeds this is drawn as NaN."""


class OwnPicture(Settings):
    """A picture of one's own: its `name`, and latents of a `kind` and `shape`, [D] or, for w, also [L, D].

    Attributes:
        numbers: float32, little-endian, row by row, in base64.
    """

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    kind: Literal["w", "z"]
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, max_length=2)
    numbers: str

    @classmethod
    def of(cls, name: str, latents: Tensor, kind: Literal["w", "z"]) -> OwnPicture:
        """The picture of `latents`, [D] or [L, D]; of the name, what can be shown on one line is kept.

        Raises:
            RequestError: if they are of another shape, too many, too large or not finite.
        """
        shown = "".join(character if character.isprintable() else " " for character in name).strip()
        array = latents.detach().float().cpu().numpy().astype("<f4")
        data = {
            "name": shown[:LONGEST_NAME] or "picture",
            "kind": kind,
            "shape": list(array.shape),
            "numbers": base64.b64encode(array.tobytes()).decode("ascii"),
        }
        return cls.parse(data, "a picture's latents")

    @field_validator("name")
    @classmethod
    def _on_one_line(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("a name of printable characters")
        return name

    @field_validator("shape")
    @classmethod
    def _not_too_many(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(shape) > MOST_NUMBERS:
            raise ValueError(f"at most {MOST_NUMBERS:,} numbers")
        return shape

    @field_validator("numbers")
    @classmethod
    def _sound(cls, numbers: str, known: ValidationInfo) -> str:
        count = math.prod(known.data.get("shape", ()))  # where the shape is wrong, that is what is reported
        array = _decoded(numbers, count)
        if array is None:
            raise ValueError(f"{count:,} float32 numbers in base64")
        if not (np.abs(array) <= LARGEST_NUMBER).all():  # NaN is not
            raise ValueError(f"numbers from {-LARGEST_NUMBER:,.0f} to {LARGEST_NUMBER:,.0f}")
        return numbers

    def __str__(self) -> str:
        return self.name

    @property
    def tensor(self) -> Tensor:
        """The latents, [D] or [L, D]."""
        array = np.frombuffer(base64.b64decode(self.numbers), dtype="<f4")
        return torch.from_numpy(array.astype(np.float32)).reshape(self.shape)

    def latents(self, generator: Generator) -> Latents:
        """What `generator` draws it from, a batch of one.

        Raises:
            RequestError: if it takes no such latents.
        """
        try:
            return given(generator, self.tensor[None], self.kind)
        except RequestError as problem:
            raise RequestError(
                found=f"picture '{self.name}' of {problem.found}",
                expected=problem.expected,
                remedy=problem.remedy,
            ) from None


PictureId = int | OwnPicture
"""What names a picture: its number, or all that it is drawn from."""


def key_of(image: PictureId) -> int | str:
    """A picture's number, or a word that stands for a picture of one's own: the same for the same content."""
    if isinstance(image, int):
        return image
    return f"own-{hashlib.sha256(image.model_dump_json().encode()).hexdigest()[:16]}"


def short(image: PictureId) -> str:
    """A picture's number, or as much of its name as fits below a small picture."""
    text = str(image)
    return text if isinstance(image, int) or len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def _decoded(numbers: str, count: int) -> NDArray[np.float32] | None:
    """The `count` numbers in base64, or None if it does not hold so many; its length is looked at first."""
    if len(numbers) != 4 * math.ceil(4 * count / 3):
        return None
    try:
        data = base64.b64decode(numbers, validate=True)
    except ValueError:
        return None
    return np.frombuffer(data, dtype="<f4") if len(data) == 4 * count else None
