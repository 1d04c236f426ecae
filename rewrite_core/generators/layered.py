"""A generator whose layers are passed one after the other: what such families share.

A family says how the first layer is reached, and what leads from one layer's value to the next layer's input, or after
the last one to the picture. The rest of what a batch carries along lies in the `LayerInput`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from rewrite_core.generators.generator import Generator, LayerInput
from rewrite_core.generators.latents import Latents

__all__ = ["LayeredGenerator"]


class LayeredGenerator(Generator):
    """Layers in the order of `layers`, each reached from the value of the one before."""

    @abstractmethod
    def _first(self, latents: Latents) -> LayerInput:
        """The batch stopped at the first layer."""

    @abstractmethod
    def _next(self, at: LayerInput, values: Tensor) -> LayerInput | None:
        """What the layer drew, as the input of the next one; None after the last."""

    @abstractmethod
    def _drawn(self, at: LayerInput, values: Tensor) -> Tensor:
        """Pictures [N, 3, R, R], from what the last layer drew."""

    def inputs(self, latents: Latents, layers: Sequence[str]) -> dict[str, LayerInput]:
        """Draw until the last of `layers` is reached."""
        wanted = {self.layer(layer).name for layer in layers}
        found: dict[str, LayerInput] = {}
        at = self._first(latents) if wanted else None
        while at is not None:
            if at.layer in wanted:
                found[at.layer] = at
            at = None if len(found) == len(wanted) else self._next(at, self.values(at))
        return found

    def _onward(self, at: LayerInput, layer: str) -> LayerInput:
        while at.layer != layer:
            after = self._next(at, self.values(at))
            assert after is not None, "no layer lies behind the last"
            at = after
        return at

    def render(self, at: LayerInput, values: Tensor) -> Tensor:
        """Draw the layers that follow."""
        after = self._next(at, values)
        while after is not None:
            at, values = after, self.values(after)
            after = self._next(at, values)
        return self._drawn(at, values)

    def pictures(self, latents: Latents) -> Tensor:
        """Draw all layers."""
        at = self._first(latents)
        return self.render(at, self.values(at))
