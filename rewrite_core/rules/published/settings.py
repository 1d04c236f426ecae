"""How the published code makes an edit: what its constructor and its command line decide."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rewrite_core.settings import Settings

__all__ = ["PublishedSettings", "Split", "Variant"]

Split = Literal["usual", "tiny", "pre"]
"""Where the layer is cut out of the generator: `layer.py`."""

Variant = Literal["projected", "gradient", "full", "linear"]
"""What keeps the weight in ``W + span(D)``: `solve.py`."""


class PublishedSettings(Settings):
    """Defaults as published. Layer, rank, method, contexts and erased units are the request's."""

    variant: Variant = "projected"
    iterations: int = Field(default=2001, ge=1)
    rate: float = Field(default=0.05, gt=0)
    """Adam's learning rate."""
    every: int = Field(default=10, ge=1)
    """Steps from one projection to the next."""
    tight: bool = True
    """Crop the goal to the pasted box; `erase` never does."""
    alpha: bool = True
    """Blend the copied values by their soft mask; otherwise paste its whole bounding box."""
    split: Split = "usual"
