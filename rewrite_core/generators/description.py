"""The content of a stack's ``model.json``, and the latents that it was trained on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rewrite_core.generators.latents import Distribution
from rewrite_core.generators.stack import Step
from rewrite_core.settings import Settings

__all__ = ["ABOUT", "LatentDescription", "StackDescription"]

Channels = Literal[1, 3]


class LatentDescription(Settings):
    """The latents a stack was trained on: z in R^dim, standard normal or uniform in [-1, 1)."""

    dim: Annotated[int, Field(ge=1, le=1 << 16)]
    distribution: Distribution = "normal"


class StackDescription(Settings):
    """The content of a ``model.json`` (schema ``gen-layers/1``)."""

    format: Annotated[Literal["gen-layers/1"], Field(alias="schema")] = "gen-layers/1"
    name: Annotated[str, Field(min_length=1, max_length=200)]
    resolution: int | None = None
    channels: Channels = 3
    latent: LatentDescription
    output_range: tuple[float, float] = (-1.0, 1.0)
    parameters: int | None = None
    layers: Annotated[tuple[Step, ...], Field(min_length=1, max_length=512)]
    source: dict[str, Any] = Field(default_factory=dict)
    weights_licence: str = ""
    training_data: str = ""
    note: str = ""


ABOUT = {"source", "weights_licence", "training_data", "note"}
