"""What a stack's batch norms remember of its training confirms or refutes a reading of it.

A batch norm keeps mean and variance of what came to it in training. Run on latents, a stack that is read rightly gives
each norm nearly the same; with another activation before, another stride or other latents it does not. So each norm
tells apart what lies between it and the norm before: the activation, whether that comes before or after the norm, and,
for the first, whether latents were normal or uniform. An *error* is the greater of two root mean squares over channels:
the difference of means in standard deviations, and half the logarithm of the ratio of variances.

On real checkpoints the right reading has errors of 0.01 to 0.07 (256 latents), the next best ones from 0.07 on at its
own norm. A leaky ReLU of slope 0.01 cannot be told from a ReLU, and draws nearly the same.

After the last norm nothing is confirmed: the last activation before the picture, the range of the picture.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from rewrite_core.generators.chain import Chain, Link
from rewrite_core.generators.latents import Distribution, LatentSpec, draw
from rewrite_core.generators.stack import Activation, LeakyReLU, Step

__all__ = ["ACTIVATIONS", "NONE", "Evidence", "evidence_of"]

SAMPLES, LARGEST_MAPS = 256, 1 << 23
"""Latents, and the numbers that a map of so many may have; where it would have more, fewer latents are taken."""

FEW = 24
"""Channels on which readings are compared."""

SOUND, APART = 0.1, 1.4
"""An error that confirms, and by which factor the next best reading must be worse."""

NONE = "none"
ACTIVATIONS: Mapping[str, Activation] = {
    NONE: Activation(fn="identity"),
    "ReLU": Activation(fn="relu"),
    "leaky ReLU 0.1": Activation(fn=LeakyReLU(leaky_relu=0.1)),
    "leaky ReLU 0.2": Activation(fn=LeakyReLU(leaky_relu=0.2)),
    "leaky ReLU 0.3": Activation(fn=LeakyReLU(leaky_relu=0.3)),
    "tanh": Activation(fn="tanh"),
}

_STEP: TypeAdapter[Any] = TypeAdapter(Step)


@dataclass(frozen=True)
class Evidence:
    """How the norms of a chain judge it.

    Attributes:
        distribution: of the latents.
        before: index of a link → the activation in front of it; in front of a norm it is not of the recipe.
        errors: of each norm, by its path.
        confirmed: whether two norms or more each confirm one reading and no other.
    """

    distribution: Distribution
    before: Mapping[int, str]
    errors: Mapping[str, float]
    confirmed: bool


@torch.no_grad()
def evidence_of(chain: Chain) -> Evidence:
    """Run the chain from norm to norm, each time on with the reading that fits best."""
    norms = [index for index, link in enumerate(chain.links) if link.part and link.part.is_norm]
    starts = _latents(chain)
    before: dict[int, str] = {}
    errors: dict[str, float] = {}
    clear = len(norms) > 1
    for first, norm in zip([0, *(index + 1 for index in norms)], norms, strict=False):
        count = _count(chain.links[first : norm + 1])
        starts = {kind: x[:count] for kind, x in starts.items()}
        ranked = sorted(
            (error, rank, kind, reading)
            for rank, (kind, reading, error) in enumerate(_judged(chain.links, first, norm, starts))
        )
        if not ranked:
            return Evidence("normal", before, errors, confirmed=False)
        best, _, kind, reading = ranked[0]
        errors[chain.links[norm].step["name"]] = best
        clear &= best < SOUND and (len(ranked) < 2 or ranked[1][0] > APART * best)
        before |= reading
        made = _run(chain.links, first, norm, starts[kind], reading)
        starts = {kind: _module(chain.links[norm])(made)}
    return Evidence(next(iter(starts)) if norms else "normal", before, errors, clear)


def _count(links: Sequence[Link]) -> int:
    """Latents that are run through these links."""
    return max(2, min(SAMPLES, LARGEST_MAPS // max(math.prod(link.shape) for link in links)))


def _latents(chain: Chain) -> dict[Distribution, Tensor]:
    """Latents [N, D] or [N, D, 1, 1] of each kind."""
    spec = LatentSpec.of(range(SAMPLES))
    kinds: tuple[Distribution, ...] = ("normal", "uniform")
    drawn = {kind: draw(spec, chain.latent_dim, kind) for kind in kinds}
    on_a_map = chain.links[0].step["op"] not in ("linear", "reshape")
    return {kind: z[:, :, None, None] if on_a_map else z for kind, z in drawn.items()}


def _judged(
    links: Sequence[Link], first: int, norm: int, starts: Mapping[Distribution, Tensor]
) -> Iterator[tuple[Distribution, dict[int, str], float]]:
    """Every reading from a norm, or the latents, to the next norm, and its error there.

    Activations may lie before the maps, or, with none there, after the last.
    """
    places = [index for index in range(max(first, 1), norm) if links[index].part]
    if len(places) > 2:
        return
    named = [[NONE] if links[index].gap == 0 else list(ACTIVATIONS) for index in places]
    for kind, chosen in itertools.product(starts, itertools.product(*named)):
        reading = dict(zip(places, chosen, strict=True))
        made = _run(links, first, norm, starts[kind], reading, few=True)
        yield kind, reading, _error(links[norm], made)
        if set(chosen) <= {NONE} and links[norm].gap != 0:
            for name in [name for name in ACTIVATIONS if name != NONE]:
                yield kind, {**reading, norm: name}, _error(links[norm], ACTIVATIONS[name].build({})(made))


def _error(norm: Link, x: Tensor) -> float:
    """How far what comes to a norm is from what it remembers, on its first few channels."""
    assert norm.part is not None
    mean, variance = (norm.part.tensors[key][:FEW].double() for key in ("running_mean", "running_var"))
    x_variance, x_mean = torch.var_mean(x, [axis for axis in range(x.ndim) if axis != 1])
    floor = 0.01 * variance.mean() + 1e-12  # a channel that is always off tells nothing
    shift = (x_mean - mean) / (variance + floor).sqrt()
    spread = ((x_variance + floor) / (variance + floor)).log() / 2
    error = max(float(shift.square().mean().sqrt()), float(spread.square().mean().sqrt()))
    return error if math.isfinite(error) else math.inf


def _run(
    links: Sequence[Link], first: int, norm: int, x: Tensor, reading: Mapping[int, str], few: bool = False
) -> Tensor:
    """Links `first` to `norm`, without the norm, with the activations of a reading; `few`: only so many channels."""
    for index in range(first, norm):
        if index in reading:
            x = ACTIVATIONS[reading[index]].build({})(x)
        x = _module(links[index], FEW if few and index == norm - 1 and links[index].part else None)(x)
    x = x[:, :FEW] if few else x
    return ACTIVATIONS[reading[norm]].build({})(x) if norm in reading else x


def _module(link: Link, channels: int | None = None) -> nn.Module:
    """The step as a module, perhaps of its first few output channels."""
    tensors = dict(link.part.tensors) if link.part else {}
    if channels is not None:
        axis = 1 if link.step["op"] == "conv_transpose2d" else 0
        axes = {key: axis if key == "weight" else 0 for key in tensors}
        tensors = {
            key: tensor.narrow(axes[key], 0, min(channels, tensor.shape[axes[key]]))
            for key, tensor in tensors.items()
        }
    module: nn.Module = _STEP.validate_python({**link.step, **_tuples(link.step)}).build(tensors)
    return module.eval()


def _tuples(step: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) for key, value in step.items() if isinstance(value, list)}
