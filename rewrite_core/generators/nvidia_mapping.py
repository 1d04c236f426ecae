"""The mapping network of NVIDIA's generators: latents z and a class → a w for each layer, truncated.

With n(x) the division of a vector by its root mean square, and FC a fully connected layer with equalised learning rate
(`stylegan2_network.Linear`)::

    x = n(z)                        or, for conditional generators, [n(z), n(FC(class))]
    x = √2 · lrelu(FC_i(x))         for each layer, the last one too
    w = w̄ + ψ (x - w̄)               for as many of the layers' w as the cutoff says, or for all
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rewrite_core.errors import FileError, RequestError
from rewrite_core.generators.contents import extent
from rewrite_core.generators.latents import Latents, draw_labels
from rewrite_core.generators.stylegan2_network import Linear, PixelNorm

__all__ = ["MappingNetwork", "MappingShape", "at_places"]


@dataclass(frozen=True)
class MappingShape:
    """Sizes of a mapping network.

    Attributes:
        latent_dim: of z.
        classes: 0 for an unconditional generator.
        embedded: numbers that a class becomes; 0 without classes.
        widths: what each fully connected layer gives; the last is the length of w.
        average: whether the average w is known.
        rate: the layers' learning rate, which scales what is stored.
    """

    latent_dim: int
    classes: int
    embedded: int
    widths: tuple[int, ...]
    average: bool
    rate: float

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], rate: float, what: str) -> MappingShape:
        """Sizes by the tensors that carry them.

        Raises:
            FileError: if one is missing.
        """
        count = sum(name.startswith("mapping.fc") and name.endswith(".weight") for name in tensors)
        inputs = extent(tensors, "mapping.fc0.weight", 1, what)
        conditional = "mapping.embed.weight" in tensors
        embedded = extent(tensors, "mapping.embed.weight", 0, what) if conditional else 0
        if embedded >= inputs:
            raise FileError(
                found=f"{what}: a mapping network of the class alone",
                expected="one that takes a latent beside it",
                remedy="Check that it is the right file.",
            )
        return cls(
            latent_dim=inputs - embedded,
            classes=extent(tensors, "mapping.embed.weight", 1, what) if conditional else 0,
            embedded=embedded,
            widths=tuple(extent(tensors, f"mapping.fc{index}.weight", 0, what) for index in range(count)),
            average="mapping.w_avg" in tensors,
            rate=rate,
        )


class MappingNetwork(nn.Module):
    """``fc0`` …, and ``embed`` and ``w_avg`` where there are any."""

    def __init__(self, shape: MappingShape) -> None:
        super().__init__()
        self.depth, self.width, self.normalise = len(shape.widths), shape.widths[-1], PixelNorm()
        self.classes = shape.classes
        self.embed = Linear(shape.classes, shape.embedded) if shape.classes else None
        inputs = (shape.latent_dim + shape.embedded, *shape.widths)
        for index, outputs in enumerate(shape.widths):
            self.add_module(f"fc{index}", Linear(inputs[index], outputs, shape.rate, activated=True))
        self.w_avg: Tensor | None
        self.register_buffer("w_avg", torch.empty(shape.widths[-1]) if shape.average else None)

    def forward(self, latents: Latents, count: int, name: str) -> Tensor:
        """The w that was given or is made of z, truncated: [N, D], or [N, count, D] where places differ.

        `name` is the generator's, for errors.

        Raises:
            RequestError: truncation without an average, a class that there is not.
        """
        spec = latents.spec
        w = self._made(latents) if latents.w is None else latents.w
        if spec.truncation == 1:
            return w
        if self.w_avg is None:
            raise RequestError(
                found=f"truncation {spec.truncation}",
                expected=f"1, since {name} does not hold its average latent",
                remedy="Set truncation to 1.",
            )
        if spec.cutoff is None:
            return torch.lerp(self.w_avg, w, spec.truncation)
        ws = at_places(w, count)  # [N, count, D]
        moved = torch.lerp(self.w_avg, ws[:, : spec.cutoff], spec.truncation)
        return torch.cat([moved, ws[:, spec.cutoff :]], 1)

    def _made(self, latents: Latents) -> Tensor:
        """The w of z and the class, [N, D]; float32 also where samples are drawn in half precision."""
        spec = latents.spec
        x: Tensor = self.normalise(latents.z)  # [N, D]
        if self.embed is not None:
            labels = draw_labels(spec, self.classes).to(x)  # [N, classes]
            x = torch.cat([x, self.normalise(self.embed(labels))], 1)
        for index in range(self.depth):
            x = self.get_submodule(f"fc{index}")(x)
        return x.float()


def at_places(w: Tensor, count: int) -> Tensor:
    """A w [N, D] or [N, count, D] as one for each of `count` places, [N, count, D]."""
    return w[:, None].expand(-1, count, -1) if w.ndim == 2 else w
