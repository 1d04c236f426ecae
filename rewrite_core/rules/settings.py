"""How an edit is made: everything that a request says besides what was painted.

Frozen values with defaults, checked on reading (`rewrite_core/settings.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from rewrite_core.directions import ContextSettings
from rewrite_core.generators.latents import LatentSpec, Scheme
from rewrite_core.settings import Settings

__all__ = ["EditSettings", "Flip", "LatentSettings", "ModelRef", "Operation", "Posed", "SolverSettings"]

Flip = Literal["none", "horizontal", "vertical", "both"]
"""Which way what is copied is turned over: left and right, top and bottom, both."""

Operation = Literal["paste", "erase", "remove"]
"""`paste` draws the copy in the context's place, `erase` silences the units that fire there, `remove` scales what its
directions match (`scaling.py`), without a picture to aim at."""


class ModelRef(Settings):
    """The generator that an edit was made for."""

    name: str
    fingerprint: str


class LatentSettings(Settings):
    """Which picture an image number names (`rewrite_core/generators/latents.py`)."""

    scheme: Scheme = "seed"
    truncation: float = Field(default=1.0, ge=0, le=2)
    cutoff: int | None = Field(default=None, ge=0)
    label: int | None = Field(default=None, ge=0)

    def spec(self, images: Iterable[int]) -> LatentSpec:
        """The pictures of these numbers."""
        return LatentSpec.of(images, self.scheme, self.truncation, self.cutoff, self.label)


class SolverSettings(Settings):
    """How Λ is solved for."""

    locality: float = Field(default=0.3, ge=0)
    """Weight of the expected change elsewhere, without units; 0 pays no heed to it."""
    iterations: int = Field(default=30, ge=1, le=10_000)


class Posed(Settings):
    """How what is copied is pasted, on the layer's value map."""

    scale: float = Field(default=1.0, ge=0.25, le=4)
    """How many times as large."""
    flip: Flip = "none"


class EditSettings(Posed):
    """Everything that decides an edit besides the painted regions."""

    model: ModelRef | None = None
    latents: LatentSettings = LatentSettings()
    layer: str | None = None
    rank: int = Field(default=1, ge=1, le=4096)
    operation: Operation = "paste"
    erase_units: int = Field(default=30, ge=1, le=65_536)
    """How many key units `erase` silences."""
    alpha: float = Field(default=0.0, ge=-10, le=10)
    """What `remove` leaves of what the directions match: 0 nothing, 1 all of it."""
    direction: ContextSettings = ContextSettings()
    solver: SolverSettings = SolverSettings()
