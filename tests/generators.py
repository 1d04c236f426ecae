"""Small real generators that tests share: seeded stacks of every kind of step, and a demodulated one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core import EditRequest, LatentSpec, Mask, Painted
from rewrite_core.files import to_safetensors_bytes
from rewrite_core.generators import Box, Generator, LayerInput, SequentialGenerator, Source, from_sequential
from rewrite_core.generators.flatten import flattened
from rewrite_core.generators.latents import Latents
from rewrite_core.generators.layered import LayeredGenerator
from rewrite_core.generators.own import PictureId
from rewrite_core.rules.rule import Provenance, Rule, versions

__all__ = [
    "DOWN",
    "PLAIN",
    "UP",
    "Demodulated",
    "blue_eyes",
    "changed",
    "painted",
    "seeded",
    "small_generator",
    "small_stack",
    "some_rule",
    "spec",
    "stacks",
]

UP, PLAIN, DOWN = "up", "plain", "down"
"""Layers of the small generator: transposed with stride 2, plain 3×3, plain with stride 2."""


def seeded(stack: nn.Sequential, seed: int = 0) -> nn.Sequential:
    """`stack` with weights, biases and running statistics drawn from `seed`, lively enough to tell things apart."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in stack.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=draw)
            elif tensor.is_floating_point():
                fan = max(1, tensor[0].numel()) if tensor.ndim > 1 else 4
                tensor.normal_(0.0, 1.5 / fan**0.5, generator=draw)
    return stack.eval()


def small_stack(seed: int = 0) -> nn.Sequential:
    """Pictures [3, 16, 16] from 8 latents, through every kind of layer: transposed, plain, strided, upsampled."""
    stack = nn.Sequential()
    stack.add_module("start", nn.Linear(8, 12 * 4 * 4))
    stack.add_module("grid", nn.Unflatten(1, (12, 4, 4)))
    stack.add_module("act0", nn.ReLU())
    stack.add_module("up", nn.ConvTranspose2d(12, 10, 4, stride=2, padding=1))  # [10, 8, 8]
    stack.add_module("norm", nn.BatchNorm2d(10))
    stack.add_module("act1", nn.ReLU(inplace=True))
    stack.add_module("plain", nn.Conv2d(10, 9, 3, padding=1))  # [9, 8, 8]
    stack.add_module("act2", nn.LeakyReLU(0.2))
    stack.add_module("larger", nn.Upsample(scale_factor=4))  # [9, 32, 32]
    stack.add_module("down", nn.Conv2d(9, 6, 3, stride=2, padding=1))  # [6, 16, 16]
    stack.add_module("act3", nn.ELU())
    stack.add_module("last", nn.Conv2d(6, 3, 1))
    stack.add_module("act4", nn.Tanh())
    return seeded(stack, seed)


def stacks() -> dict[str, Callable[[], nn.Sequential]]:
    """Networks of every shape, all of which must be computed as torch computes them."""
    grid = [nn.Linear(6, 48), nn.Unflatten(1, (12, 2, 2)), nn.ReLU()]

    def on_grid(*steps: nn.Module) -> Callable[[], nn.Sequential]:
        return lambda: nn.Sequential(*grid, *steps)

    shared = nn.Conv2d(12, 12, 3, padding=1)
    transposed = nn.ConvTranspose2d
    return {
        "every kind of step": small_stack,
        "latents as a map": lambda: nn.Sequential(transposed(6, 4, 4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)),
        "reshaped latents": lambda: nn.Sequential(nn.Unflatten(1, (6, 1, 1)), transposed(6, 3, 4), nn.Tanh()),
        "strides": on_grid(transposed(12, 8, 5, 3, 1, 2), nn.Conv2d(8, 3, 3, stride=2, padding=1)),
        "dilations": on_grid(transposed(12, 8, 3, 2, 1, 1, dilation=2), nn.Conv2d(8, 3, 3, padding=2, dilation=2)),
        "unequal sides": on_grid(transposed(12, 8, (4, 3), (2, 1), (1, 0)), nn.Conv2d(8, 3, (3, 1), padding=(1, 0))),
        "no bias": on_grid(nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 3, 1)),
        "nearest": on_grid(nn.Upsample(scale_factor=3), nn.Conv2d(12, 3, 3)),
        "bilinear": on_grid(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(12, 3, 3, padding=1)),
        "bilinear, corners aligned": on_grid(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(12, 3, 1)
        ),
        "grey": on_grid(nn.Conv2d(12, 1, 1), nn.Sigmoid()),
        "nested": lambda: nn.Sequential(
            nn.Sequential(*grid), nn.Sequential(nn.Sequential(nn.Conv2d(12, 5, 1), nn.GELU())), nn.Conv2d(5, 3, 1)
        ),
        "a layer used twice": on_grid(shared, nn.ReLU(), shared, nn.Conv2d(12, 3, 1)),
        "activations": on_grid(
            nn.ELU(), nn.SELU(), nn.GELU("tanh"), nn.SiLU(), nn.Softplus(), nn.Identity(), nn.Conv2d(12, 3, 1)
        ),
        "batch norm of a vector": lambda: nn.Sequential(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 3, 1)
        ),
    }  # fmt: skip


def small_generator(seed: int = 0) -> SequentialGenerator:
    """The generator of `small_stack`."""
    return from_sequential(small_stack(seed), name="small")


def changed(
    generator: Generator,
    describe: Callable[[dict[str, Any]], Any] = lambda description: None,
    store: Callable[[dict[str, Tensor]], Any] = lambda tensors: None,
) -> Source:
    """The files of `generator`, after `describe` and `store` have had their way with what is in them."""
    files = generator.files()
    description, tensors = json.loads(files["model.json"]), load(files["model.safetensors"])
    describe(description)
    store(tensors)
    weights = to_safetensors_bytes(tensors, {})
    return Source("upload", {"model.json": json.dumps(description).encode(), "model.safetensors": weights})


def some_rule(generator: Generator, layer: str = PLAIN, seed: int = 0, name: str = "a rule") -> Rule:
    """A rule of rank 2 that anybody can see."""
    draw = torch.Generator().manual_seed(seed)
    out, units, *taps = generator.weight(layer).shape
    directions, delta = (
        torch.randn(2, units, generator=draw),
        0.1 * torch.randn(out, 2, *taps, generator=draw),
    )
    made_for = Provenance(
        model=generator.name,
        fingerprint=generator.pristine.fingerprint,
        layer=layer,
        name=name,
        request={"palimpsest": {"rank": 2}},
        result={"loss": 0.25, "iterations": 10, "stopped": "converged"},
        made_with=versions(),
    )
    return Rule(directions, delta, made_for)


def painted(image: PictureId, *box: int, size: tuple[int, int] = (16, 16)) -> Painted:
    """A rectangle (top, left, bottom, right) on one picture."""
    return Painted(image, Mask.rectangle(size, *box))


def blue_eyes() -> EditRequest:
    """Paste picture 2's blue eye over picture 28's, wherever anime64-dcgan draws an eye."""
    eyes = [(28, 26, 15, 40, 25), (28, 26, 38, 38, 52), (6, 25, 16, 39, 26), (6, 28, 39, 40, 50)]
    eyes += [
        (43, 30, 11, 42, 24),
        (43, 28, 38, 42, 52),
        (0, 28, 17, 42, 25),
        (13, 24, 14, 36, 26),
        (13, 28, 39, 40, 50),
    ]
    context = tuple(painted(*eye, size=(64, 64)) for eye in eyes)
    source = painted(2, 23, 16, 38, 28, size=(64, 64))
    return EditRequest(object=source, paste=context[0], key=context, layer="l08")


class Demodulated(SequentialGenerator):
    """The small stack with a StyleGAN2-like layer ``plain``.

    Its keys are modulated by a style; the response is demodulated by the weight's own energy, and gets noise that
    has a place, a bias and a leaky ReLU.
    """

    family = "demodulated"

    @classmethod
    def small(cls, seed: int = 0) -> Demodulated:
        """From the weights of `small_stack`."""
        plain = small_generator(seed)
        network = flattened(small_stack(seed))
        return cls(network, name="demodulated", latent=plain.latent, output_range=plain.output_range)

    def style(self, latents: Latents) -> Tensor:
        """One factor for each unit of the key, [N, C]."""
        return 1.0 + 0.5 * torch.tanh(latents.z.repeat(1, 2)[:, :10])

    def scales(self, at: LayerInput) -> Tensor | None:
        return at.rest.get("style")

    def finish(
        self, at: LayerInput, response: Tensor, energy: Tensor | None = None, box: Box | None = None
    ) -> Tensor:
        if energy is None:
            return super().finish(at, response)
        top, left, bottom, right = box or (0, 0, *response.shape[2:])
        noise = torch.linspace(-1, 1, 64).reshape(8, 8)[top:bottom, left:right]
        scaled = response * (energy + 1e-8).rsqrt()[:, :, None, None] + 0.1 * noise
        bias = self.network.get_submodule(PLAIN).get_parameter("bias")
        return 2**0.5 * functional.leaky_relu(scaled + bias[:, None, None], 0.2)

    @torch.no_grad()
    def pictures(self, latents: Latents) -> Tensor:
        return LayeredGenerator.pictures(self, latents)

    def _next(self, at: LayerInput, values: Tensor) -> LayerInput | None:
        after = super()._next(at, values)
        if after is None or after.layer != PLAIN:
            return after
        style = self.style(at.latents)
        return LayerInput(PLAIN, after.keys * style[:, :, None, None], at.latents, {"style": style})


def spec(count: int = 4, first: int = 0) -> LatentSpec:
    """The first few pictures."""
    return LatentSpec.of(range(first, first + count))
