"""What StyleGAN2 checkpoints call their tensors: the rosinality layout, and the sequential one of the published code.

Our names are those of the rosinality generator's state dict, with ``latent_avg`` beside them. A file may have them

* in a checkpoint: under ``g_ema.`` (where there is none, under ``g.``), with ``latent_avg`` outside of it;
* in a state dict of their own, in either layout; the sequential one has ``latents.latent_avg`` inside, a single number
  where there is no average.

The sequential layout, ours on the right (N counts layers as the paper does, L resolutions from 4×4)::

    layer2.conv.mconv.…     conv1.conv.…          layerN.sconv.mconv.…    convs.(N-3).conv.…
    layer2.conv.…           conv1.…               layerN.sconv.…          convs.(N-3).…
    to_rgb1.rgb.…           to_rgb1.…             to_rgbL.rgb.…           to_rgbs.(L-2).…
    up_rgbL.kernel          to_rgbs.(L-1).upsample.kernel

Built with its convolutions apart, it says ``mconv.dconv.weight`` for ``mconv.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from rewrite_core.generators.contents import PREFIXES

__all__ = ["AVERAGE", "names_of", "without_average"]

AVERAGE = "latent_avg"
SIGN = "conv.blur.kernel"
"""Ends the name of a tensor that every StyleGAN2 of 8 pixels or more has, and hardly any other network."""

Rewriting = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]
SEQUENTIAL: tuple[Rewriting, ...] = (
    (re.compile(r"^layer2\.conv\.mconv\.(?:dconv\.)?"), lambda _: "conv1.conv."),
    (re.compile(r"^layer2\.conv\."), lambda _: "conv1."),
    (
        re.compile(r"^layer(\d{1,2})\.sconv\.mconv\.(?:dconv\.)?"),
        lambda found: f"convs.{int(found[1]) - 3}.conv.",
    ),
    (re.compile(r"^layer(\d{1,2})\.sconv\."), lambda found: f"convs.{int(found[1]) - 3}."),
    (re.compile(r"^to_rgb1\.rgb\."), lambda _: "to_rgb1."),
    (re.compile(r"^to_rgb(\d{1,2})\.rgb\."), lambda found: f"to_rgbs.{int(found[1]) - 2}."),
    (re.compile(r"^up_rgb(\d{1,2})\."), lambda found: f"to_rgbs.{int(found[1]) - 1}.upsample."),
    (re.compile(r"^latents\."), lambda _: ""),
)


def names_of(stored: Iterable[str]) -> Mapping[str, str] | None:
    """Our name → the file's name, for the tensors of one generator; None if there is no StyleGAN2 in the file."""
    listed = list(stored)
    for prefix in PREFIXES:
        found = {ours(name.removeprefix(prefix)): name for name in listed if name.startswith(prefix)}
        if f"convs.0.{SIGN}" in found:
            return found | ({AVERAGE: AVERAGE} if AVERAGE in listed else {})
    return None


def without_average(stored: Mapping[str, Tensor]) -> list[str]:
    """The file's names of single numbers that stand for no average, as the sequential layout has them."""
    return [
        name for name, tensor in stored.items() if name.endswith(f"latents.{AVERAGE}") and not tensor.ndim
    ]


def ours(name: str) -> str:
    """The rosinality name of a tensor that either layout has, without a prefix."""
    for pattern, renamed in SEQUENTIAL:
        found = pattern.match(name)
        if found:
            return renamed(found) + name[found.end() :]
    return name
