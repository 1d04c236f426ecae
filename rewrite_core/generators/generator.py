"""A generator, cut open at one layer.

Every family becomes the same small protocol. A rewritable layer is read as a linear associative memory, so a picture
is drawn in four steps that can each be taken alone::

    latents ──inputs──► keys k [N, C, h, w] ──respond──► W k [N, O, H, W] ──finish──► values v ──render──► picture

* ``respond`` is everything that is linear in both the key and the weight: the convolution, plain or transposed, with
  its stride, padding and crop (for StyleGAN2 also the blur after upsampling, which commutes with demodulation).
* ``finish`` is what turns the response into the value the goal of a rule is written in: bias for a plain
  convolution; demodulation, noise, bias and activation for StyleGAN2. Demodulation depends on the weight only through
  the *energy* Σ (s W)² of each output channel, with ``scales`` s [N, C] (None: not demodulated).
* ``render`` is the rest of the network. ``onward`` goes on to a later layer instead, and stops there: for whoever
  changes the keys of several layers of one picture.

Axes: batch N, key channels (units) C, value channels O, height and width; weights are canonical ``[O, C, kh, kw]``
whatever the family stores; pictures are [N, 3, R, R], zero-centred, nominally in [-1, 1]. Everything is float32 in
evaluation mode. Weights take no gradient: none is recorded unless the latents or a weight handed in want one.

A loaded generator is never changed. ``with_rules`` gives a *view*: a copy of the modules that shares every tensor
except the edited weights, so a thousand visitors share one loaded network and never see each other's rules.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rewrite_core.errors import FileError, LayerError, RequestError
from rewrite_core.generators.convolution import Convolution
from rewrite_core.generators.fingerprint import fingerprint
from rewrite_core.generators.footprint import draw_block
from rewrite_core.generators.latents import Distribution, Latents, LatentSpec, draw
from rewrite_core.generators.layout import Layout
from rewrite_core.jobs import Progress
from rewrite_core.pictures import to_uint8

__all__ = ["EPSILON", "MICRO_BATCH", "Box", "Edits", "Generator", "Layer", "LayerInput", "Progress", "joined"]

MICRO_BATCH, LARGEST_MAPS = 25, 128 << 20
"""Pictures drawn at a time, at most; and the bytes that the largest maps of so many may have. See `micro_batch`."""

Box = tuple[int, int, int, int]
"""Top, left, bottom, right on a feature map; bottom and right exclusive."""

EPSILON = 1e-8
"""Demodulation scales by ``(energy + EPSILON)^-½`` (Karras et al. 2020)."""


@dataclass(frozen=True)
class Layer:
    """A rewritable convolution: its name, its linear map, and the sizes of what goes in and comes out.

    Where maps reach beyond the picture (StyleGAN3), margins are the cells outside it, along each side.
    """

    name: str
    convolution: Convolution
    in_channels: int
    out_channels: int
    key_size: tuple[int, int]
    value_size: tuple[int, int]
    key_margin: int = 0
    value_margin: int = 0

    @property
    def kind(self) -> str:
        """``conv`` or ``transposed conv``."""
        return "transposed conv" if self.convolution.transposed else "conv"

    def inside(self, keys: Tensor) -> Tensor:
        """The part of keys [..., h, w] that lies in the picture."""
        (h, w), margin = self.key_size, self.key_margin
        return keys[..., margin : h - margin, margin : w - margin]


@dataclass(frozen=True)
class LayerInput:
    """A batch stopped at a layer: its keys [N, C, h, w], and what the rest of the network needs beside them."""

    layer: str
    keys: Tensor
    latents: Latents
    rest: Mapping[str, Tensor] = field(default_factory=dict)

    def first(self, count: int) -> LayerInput:
        """The first `count` samples of the batch."""
        rest = {name: value[:count] for name, value in self.rest.items()}
        return LayerInput(self.layer, self.keys[:count], self.latents.first(count), rest)


def joined(parts: Sequence[LayerInput]) -> LayerInput:
    """Batches stopped at one layer, as one batch."""
    specs = [part.latents.spec for part in parts]
    spec = replace(specs[0], seeds=tuple(seed for spec in specs for seed in spec.seeds))
    given = [part.latents.w for part in parts if part.latents.w is not None]
    w = torch.cat(given) if len(given) == len(parts) else None  # rest holds what each was drawn from
    latents = Latents(torch.cat([part.latents.z for part in parts]), spec, w)
    rest = {
        name: torch.cat([part.rest[name].expand(len(part.keys), *value.shape[1:]) for part in parts])
        for name, value in parts[0].rest.items()
    }
    return LayerInput(parts[0].layer, torch.cat([part.keys for part in parts]), latents, rest)


class Edits(Protocol):
    """What `with_rules` needs to know of rules: the edited weights, composed from the pristine ones."""

    def compose(self, generator: Generator) -> Mapping[str, Tensor]:
        """Layer name → edited weight [O, C, kh, kw]; layers without an edit are absent."""
        ...


class Generator(ABC):
    """Seeds → latents → pictures, and the same in steps around any rewritable layer."""

    family: str
    assumed: str = ""
    """What was taken by convention when it was opened, in a sentence for whoever looks at its pictures."""
    precision: Literal["float32", "half"] = "float32"
    """What `sample` draws in; set by `in_half`."""
    classes: int = 0
    """Of a conditional generator; 0: it is none."""
    cuts: bool = False
    """Whether layers take a w each, so that truncation can stop at one."""

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        latent_dim: int,
        picture_size: tuple[int, int],
        layers: Sequence[Layer],
        distribution: Distribution = "normal",
        largest_map: int = 0,
        layout: Layout | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name = name
        self.latent_dim = latent_dim
        self.distribution: Distribution = distribution
        self.picture_size = picture_size
        self.layout = layout
        self.layers: Mapping[str, Layer] = {layer.name: layer for layer in layers}
        self._largest_map = largest_map  # numbers a picture; 0: no more than the layers' values have
        self._pristine: Generator | None = None
        self.fingerprint = fingerprint(self.family, self.architecture(), dict(self.tensors()))

    # What a family provides.

    @abstractmethod
    def architecture(self) -> Mapping[str, Any]:
        """A JSON description of the network without its tensors; part of the fingerprint."""

    @abstractmethod
    def inputs(self, latents: Latents, layers: Sequence[str]) -> dict[str, LayerInput]:
        """The batch stopped at each of `layers`, in one pass that ends at the last of them."""

    @abstractmethod
    def finish(
        self, at: LayerInput, response: Tensor, energy: Tensor | None = None, box: Box | None = None
    ) -> Tensor:
        """Response [N, O, H, W] → value [N, O, H, W]; `energy` [N, O] where the layer is demodulated.

        Position by position: a value depends on the response at its own place and on its channel's energy alone.
        `box` says which part of the map the response is, where it is not the whole (noise has a place).
        """

    @abstractmethod
    def render(self, at: LayerInput, values: Tensor) -> Tensor:
        """The rest of the network: values [N, O, H, W] → pictures [N, 3, R, R] in [-1, 1]."""

    @abstractmethod
    def _onward(self, at: LayerInput, layer: str) -> LayerInput:
        """See `onward`; `layer` lies behind that of the batch."""

    @abstractmethod
    def pictures(self, latents: Latents) -> Tensor:
        """Pictures [N, 3, R, R] of one batch."""

    @abstractmethod
    def weight(self, layer: str) -> Tensor:
        """The layer's weight, canonical [O, C, kh, kw]."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The generator as a checkpoint that `open_generator` reads again: file name → content."""

    @abstractmethod
    def _put_weight(self, layer: str, weight: Tensor) -> None:
        """Replace (never write into) the layer's weight; called on a view's own modules only."""

    @property
    def styles(self) -> int:
        """L, the places where a style w enters the network; 0 without a mapping network."""
        return 0

    @property
    def style_dim(self) -> int:
        """D, the length of a w."""
        return self.latent_dim

    def mapped(self, latents: Latents) -> Tensor:
        """What the mapping network makes of z, or the w that was given, truncated: [N, D] or [N, L, D], float32.

        Raises:
            RequestError: if there is no mapping network.
        """
        raise RequestError(
            found=f"{self.name}, which has no mapping network",
            expected="a generator with styles w",
            remedy="Use its latents z.",
        )

    def scales(self, at: LayerInput) -> Tensor | None:
        """How much each input channel counts in the energy, [N, C]; None where nothing is demodulated."""
        return None

    def paints(self, layer: str) -> bool:
        """Whether the layer's value is the picture itself, but for activations that can be undone at each place."""
        return False

    def _unrendered(self, layer: str, pictures: Tensor) -> Tensor:
        """See `unrendered`; the layer is one that `paints`."""
        raise NotImplementedError(layer)

    # What follows from it.

    @property
    def pristine(self) -> Self:
        """The generator as it was loaded, of which this may be a view."""
        return self if self._pristine is None else cast(Self, self._pristine)

    @property
    def resolution(self) -> int:
        """The longer side of a picture, in pixels."""
        return max(self.picture_size)

    @property
    def micro_batch(self) -> int:
        """Pictures drawn at a time: 25, or fewer where maps are large.

        Fixed for a generator, because batches of different sizes differ in the last bits (3e-6).
        """
        return max(1, min(MICRO_BATCH, LARGEST_MAPS // (4 * self.largest_map)))

    @property
    def largest_map(self) -> int:
        """Numbers in the largest feature map of one picture."""
        values = (layer.out_channels * math.prod(layer.value_size) for layer in self.layers.values())
        return max(1, self._largest_map, *values)

    @property
    def device(self) -> torch.device:
        """Where the network's tensors are."""
        return next((tensor.device for _, tensor in self.tensors()), torch.device("cpu"))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that what is drawn depends on, under its canonical name."""
        yield from self.network.state_dict().items()

    def stored(self) -> dict[str, Tensor]:
        """The tensors as the family's files have them, by the names that its `layout` knows."""
        return dict(self.network.state_dict())

    def own_layout(self) -> dict[str, Tensor]:
        """The tensors as the file that it came from has them: names, shapes, types, order.

        Raises:
            FileError: if it came from no file that can be written again, or a weight exceeds the file's precision.
        """
        if self.layout is None:
            raise FileError(
                found=f"{self.name}, which was not opened from a file that can be written again",
                expected="a generator with a layout of its own",
                remedy="Export it as model.json and model.safetensors.",
            )
        return self.layout.written(self.stored(), self.name)

    def layer(self, name: str) -> Layer:
        """The rewritable layer called `name`.

        Raises:
            LayerError: listing the layers there are.
        """
        if name not in self.layers:
            raise LayerError(
                found=f"layer '{name}'",
                expected=f"one of {', '.join(self.layers)} ({self.name})",
                remedy="Choose one of these layers.",
            )
        return self.layers[name]

    @property
    def default_layer(self) -> str:
        """Where a newcomer starts: the middle of the layers that draw on a grid, above their first resolution.

        Raises:
            LayerError: if there is no layer at all.
        """
        if not self.layers:
            raise LayerError(
                found=f"{self.name}: no convolution that can be rewritten",
                expected="at least one",
                remedy="Open a generator that has some.",
            )
        spatial = [layer.name for layer in self.layers.values() if layer.key_size[0] > 1] or list(self.layers)
        return spatial[len(spatial) // 2]

    def latents(self, spec: LatentSpec | Latents) -> Latents:
        """Draw the latents of `spec`, on the generator's device; given ones are brought there.

        Raises:
            RequestError: `spec` names a class or a cutoff, and the generator has none.
        """
        like = spec.spec if isinstance(spec, Latents) else spec
        for name, value, known in (("class", like.label, self.classes), ("cutoff", like.cutoff, self.cuts)):
            if value is not None and not known:
                raise RequestError(
                    found=f"{name} {value}",
                    expected=f"no {name}, since {self.name} knows none",
                    remedy=f"Leave the {name} out.",
                )
        if isinstance(spec, Latents):
            w = None if spec.w is None else spec.w.to(self.device)
            return Latents(spec.z.to(self.device), like, w)
        return Latents(draw(like, self.latent_dim, self.distribution).to(self.device), like)

    def keys(self, latents: Latents, layer: str) -> LayerInput:
        """The batch stopped at `layer`."""
        self.layer(layer)
        return self.inputs(latents, [layer])[layer]

    def onward(self, at: LayerInput, layer: str) -> LayerInput:
        """The batch that was stopped at one layer, stopped at a later one; `at` itself if it is there already.

        Raises:
            LayerError: there is no such layer, or the batch has passed it.
        """
        names = list(self.layers)
        here, there = (names.index(self.layer(name).name) for name in (at.layer, layer))
        if there < here:
            raise LayerError(
                found=f"'{layer}' after '{at.layer}'",
                expected=f"'{at.layer}' or a layer behind it",
                remedy="Start at the first of the layers.",
            )
        return at if there == here else self._onward(at, layer)

    def respond(self, layer: str, keys: Tensor, weight: Tensor) -> Tensor:
        """The layer's linear map: keys [N, c, h, w] and a weight [O, c, kh, kw] → [N, O, H, W], for any c and O."""
        return self.layer(layer).convolution(keys, weight)

    def require_paints(self, layer: str) -> None:
        """Check that pixels can be pasted at the layer.

        Raises:
            LayerError: it does not draw the picture itself, with those that do.
        """
        if not self.paints(self.layer(layer).name):
            able = ", ".join(name for name in self.layers if self.paints(name))
            raise LayerError(
                found=f"pixels to paste at {layer}, which does not draw the picture itself",
                expected=f"{able}, which does" if able else f"a layer that does, and {self.name} has none",
                remedy="Choose that layer, or copy from a picture." if able else "Copy from a picture.",
            )

    def unrendered(self, layer: str, pictures: Tensor) -> Tensor:
        """Values [N, O, H, W] that are rendered as `pictures` [N, 3, H, W], whatever the latents and the size.

        Where an activation cannot reach a colour, the value stops half a byte short of its limit.

        Raises:
            LayerError: the layer does not draw the picture itself, with those that do.
        """
        self.require_paints(layer)
        return self._unrendered(layer, pictures)

    def energy(self, at: LayerInput, weight: Tensor) -> Tensor | None:
        """Σ over inputs and taps of (scale · weight)², [N, O]; None where nothing is demodulated."""
        scales = self.scales(at)
        return None if scales is None else scales.square() @ weight.square().sum((2, 3)).T

    def values(self, at: LayerInput, weight: Tensor | None = None) -> Tensor:
        """What the layer draws for its keys, [N, O, H, W], with its own weight or with the one given."""
        weight = self.weight(at.layer) if weight is None else weight
        return self.finish(at, self.respond(at.layer, at.keys, weight), self.energy(at, weight))

    def sample(self, spec: LatentSpec | Latents, progress: Progress | None = None) -> Tensor:
        """Pictures [N, 3, R, R] of `spec` on the CPU, drawn a micro-batch at a time; in parts where memory is short."""
        done, drawn = 0, []
        for block in spec.blocks(self.micro_batch):
            drawn.append(draw_block(self, block))
            done += len(block)
            if progress:
                progress(done, len(spec))
        return torch.cat(drawn) if drawn else torch.empty(0, 3, *self.picture_size)

    def draw(self, spec: LatentSpec | Latents, progress: Progress | None = None) -> NDArray[np.uint8]:
        """Pictures of `spec` as bytes, [N, H, W, 3]."""
        return to_uint8(self.sample(spec, progress))

    def on(self, device: torch.device) -> Self:
        """The same generator with its tensors on `device`; this one stays where it is."""
        if device == self.device:
            return self
        moved = copy.copy(self)
        moved._pristine = None if self._pristine is None else self._pristine.on(device)
        moved.network = copy.deepcopy(self.network).to(device)
        return moved

    def in_half(self) -> Self:
        """A view whose samples are drawn in half precision; keys, values and statistics stay in float32."""
        view = copy.copy(self)
        view.precision = "half"
        return view

    def with_rules(self, rules: Edits) -> Self:
        """A view in which `rules` hold, and no others: edits are always composed from the pristine weights."""
        return self.pristine.with_weights(rules.compose(self.pristine))

    def with_weights(self, weights: Mapping[str, Tensor]) -> Self:
        """A view that shares every tensor but the given layers' weights [O, C, kh, kw]; this one stays as it is.

        The view has a fingerprint of its own, so nothing computed on it can be mistaken for the pristine network's.
        """
        if not weights:
            return self
        view = copy.copy(self)
        view._pristine, view.name = self.pristine, f"{self.pristine.name}-edited"
        shared = {id(tensor): tensor for tensor in [*self.network.parameters(), *self.network.buffers()]}
        view.network = copy.deepcopy(self.network, shared)
        for layer, weight in weights.items():
            view._put_weight(layer, weight.to(self.device, torch.float32))
        view.fingerprint = fingerprint(self.fingerprint, {}, weights)
        return view
