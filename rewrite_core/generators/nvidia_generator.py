"""What NVIDIA's two families share: a mapping network that gives each place a w, and how they are written as files."""

from __future__ import annotations

import json
from abc import abstractmethod

from torch import Tensor

from rewrite_core.files import to_safetensors_bytes
from rewrite_core.generators.latents import Latents
from rewrite_core.generators.layered import LayeredGenerator
from rewrite_core.generators.nvidia_mapping import MappingNetwork, at_places

__all__ = ["NvidiaGenerator"]


class NvidiaGenerator(LayeredGenerator):
    """Layers that take a w each, of a class too."""

    cuts = True

    @property
    @abstractmethod
    def mapping(self) -> MappingNetwork:
        """Latents and classes → w."""

    @property
    def style_dim(self) -> int:
        """What the mapping network gives."""
        return self.mapping.width

    def mapped(self, latents: Latents) -> Tensor:
        """W, truncated: [N, D], or [N, L, D] where it was given so or is cut off."""
        w: Tensor = self.mapping(latents, self.styles, self.name)
        return w

    def placed(self, latents: Latents) -> Tensor:
        """The w of every place, truncated: [N, L, D]."""
        return at_places(self.mapped(latents), self.styles)

    def files(self) -> dict[str, bytes]:
        """``model.json``, and ``model.safetensors`` under the state dict's names."""
        description = {"schema": f"{self.family}/1", "name": self.name, **self.architecture()}
        tensors = to_safetensors_bytes(self.network.state_dict(), {"fingerprint": self.fingerprint})
        return {"model.json": json.dumps(description, indent=1).encode(), "model.safetensors": tensors}
