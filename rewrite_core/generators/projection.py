"""A picture of one's own as a generator would draw it: the latents whose picture is nearest, found by optimisation.

    found = project(generator, picture, space="w+")
    found.picture, found.loss
    generator.draw(found.latents(generator))         # what can be looked at like a sample
    found.named("mine")                              # and painted on like one: `rewrite_core.generators.own`

The loss is the mean squared difference of pixels, averaged over scales: the picture itself, and halved by 2, 4 and 8,
so that shapes are found before textures. A perceptual loss is better at likeness, and is the caller's to supply: any
function of two batches [N, 3, H, W] that gives a number, with a gradient for the first.

The search starts from the best of `STARTS` samples. Latents are moved in units of their spread over those samples, by
Adam with the schedule of Karras et al. (2020, appendix D): a short rise, and a cosine's fall over the last quarter.
Spaces: ``w`` [D], near what the generator draws; ``w+`` [L, D], nearer to the picture, further from the samples; ``z``
[D] where there is no mapping network. The noise is that of one seed, and is not searched. Of a conditional generator
the samples are each of its own class, or all of one: a w found near that class needs no class from then on.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import FileError, RequestError
from rewrite_core.files import require_size
from rewrite_core.generators.generator import Generator, Progress
from rewrite_core.generators.latents import Latents, LatentSpec
from rewrite_core.generators.own import OwnPicture
from rewrite_core.generators.wspace import given, write_latents
from rewrite_core.pictures import Picture, to_uint8

__all__ = ["Perceptual", "Projection", "Space", "fitted", "project", "read_picture"]

Space = Literal["w", "w+", "z"]
Perceptual = Callable[[Tensor, Tensor], Tensor]

STARTS = 100
RATE, RISE, FALL = 0.1, 0.05, 0.25
"""Adam's step in units of the latents' spread; the shares of the steps over which it rises and falls."""
SCALES, SMALLEST = (1, 2, 4, 8), 4
"""By what pictures are reduced for the loss, down to this many pixels."""
LARGEST_PICTURE = 64 << 20
"""Bytes of a picture's file."""
MOST_PIXELS = 50_000_000
"""Of a picture: decoding takes some 14 bytes each, however small the file is."""


@dataclass(frozen=True, eq=False)
class Projection:
    """The latents found for a picture, and what the generator draws for them.

    Attributes:
        tensor: the latents: [D], or [L, D] in ``w+``.
        wanted, picture: the picture asked for, at the generator's size, and the one drawn; uint8 [H, W, 3].
        loss: the smallest that was reached, and `losses` at each step.
    """

    space: Space
    tensor: Tensor
    wanted: Picture
    picture: Picture
    loss: float
    losses: tuple[float, ...]

    @property
    def kind(self) -> Literal["w", "z"]:
        """What a file calls the latents: w or z."""
        return "z" if self.space == "z" else "w"

    def latents(self, generator: Generator) -> Latents:
        """The latents, for drawing."""
        return given(generator, self.tensor[None], self.kind)

    def named(self, name: str) -> OwnPicture:
        """The picture drawn, under a name: what edits hold of it."""
        return OwnPicture.of(name, self.tensor, self.kind)

    def save(self, path: Path, generator: Generator) -> None:
        """Write them as safetensors; errors as `write_bytes`."""
        write_latents(path, self.tensor[None], self.kind, generator)


def project(
    generator: Generator,
    picture: Picture,
    *,
    space: Space | None = None,
    steps: int = 300,
    label: int | None = None,
    perceptual: Perceptual | None = None,
    progress: Progress | None = None,
) -> Projection:
    """Find the latents in `space` (default: w, or z without a mapping network) whose picture is nearest to `picture`.

    Args:
        generator: may be a view under rules; usually the pristine one is meant.
        picture: uint8 [H, W, 3] of any size; brought to the generator's by `fitted`.
        space: see the module.
        steps: of the optimisation; 300 take about as long as drawing 1,000 pictures.
        label: the class of the samples at which the search starts; None: each sample's own.
        perceptual: a loss that is added to that of pixels.
        progress: called at each step; raises `Cancelled` to stop.

    Raises:
        RequestError: if the generator has no such space or class, or a class is asked for in z, which holds none.
    """
    space = space or ("w" if generator.styles else "z")
    if space not in get_args(Space) or (space != "z" and not generator.styles):
        raise RequestError(
            found=f"space '{space}'",
            expected=f"one of {', '.join(get_args(Space)) if generator.styles else 'z'} for {generator.name}",
            remedy="Choose another space.",
        )
    if space == "z" and label is not None and generator.classes:
        raise RequestError(
            found=f"class {label} in space 'z'",
            expected="space w or w+, since a z does not say of which class it was found",
            remedy="Choose another space, or leave the class out.",
        )
    wanted = fitted(picture, generator.picture_size)
    target = torch.from_numpy(wanted).permute(2, 0, 1).float().div(127.5).sub(1)[None].to(generator.device)
    search = _Search(generator, space, target, label, perceptual)
    best, losses = search.start(), []
    value = best.clone().requires_grad_()
    adam, smallest = torch.optim.Adam([value], betas=(0.9, 0.99)), math.inf
    for step in range(steps):
        adam.param_groups[0]["lr"] = RATE * _schedule(step / steps)
        adam.zero_grad()
        with torch.enable_grad():
            loss = search.loss(value)
            loss.backward()
        losses.append(float(loss.detach()))
        if losses[-1] < smallest:
            smallest, best = losses[-1], value.detach().clone()
        adam.step()
        if progress:
            progress(step + 1, steps)
    tensor = search.tensor(best)[0]
    drawn = generator.sample(given(generator, tensor[None], "z" if space == "z" else "w"))
    return Projection(space, tensor.cpu(), wanted, to_uint8(drawn)[0], smallest, tuple(losses))


class _Search:
    """What is searched: latents in units of their spread over some samples, and the loss of the picture they draw."""

    def __init__(
        self,
        generator: Generator,
        space: Space,
        target: Tensor,
        label: int | None,
        perceptual: Perceptual | None,
    ) -> None:
        self.generator, self.space, self.target, self.perceptual = generator, space, target, perceptual
        self.starts = LatentSpec.of(range(STARTS), label=label)
        samples = generator.latents(self.starts)
        self.samples = samples.z if space == "z" else generator.mapped(samples)  # [S, D]
        self.centre = self.samples.mean(0)  # [D]
        self.spread = self.samples.std(0).clamp_min(1e-6)  # [D]

    def start(self) -> Tensor:
        """The sample whose picture is nearest, [1, D] or [1, L, D]."""
        losses = []
        for block in self.starts.blocks(self.generator.micro_batch):
            drawn = self.generator.sample(block).to(self.target)
            losses += [float(self._pixels(one[None])) for one in drawn]
        value = (self.samples[int(np.argmin(losses))] - self.centre) / self.spread  # [D]
        return (
            value.expand(1, self.generator.styles, -1).clone() if self.space == "w+" else value[None].clone()
        )

    def tensor(self, value: Tensor) -> Tensor:
        """The latents that `value` stands for; uniform ones stay where they can be drawn."""
        latents = self.centre + value * self.spread
        return (
            latents.clamp(-1, 1)
            if self.space == "z" and self.generator.distribution == "uniform"
            else latents
        )

    def loss(self, value: Tensor) -> Tensor:
        """Of the one picture that `value` draws."""
        tensor, spec = self.tensor(value), LatentSpec((0,))
        empty = torch.zeros(1, self.generator.latent_dim).to(tensor)
        latents = Latents(tensor, spec) if self.space == "z" else Latents(empty, spec, tensor)
        drawn = self.generator.pictures(latents)
        loss = self._pixels(drawn)
        return loss if self.perceptual is None else loss + self.perceptual(drawn, self.target)

    def _pixels(self, drawn: Tensor) -> Tensor:
        """Mean squared difference, averaged over the scales that leave enough pixels."""
        off = drawn - self.target  # [1, 3, H, W]
        scales = [scale for scale in SCALES if min(off.shape[2:]) // scale >= SMALLEST] or [1]
        return torch.stack([functional.avg_pool2d(off, scale).square().mean() for scale in scales]).mean()


def _schedule(share: float) -> float:
    """Adam's step, as a share of `RATE`, after a share of the steps."""
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - share) / FALL))
    return fall * min(1.0, (share + 1e-3) / RISE)


def fitted(picture: Picture, size: tuple[int, int]) -> Picture:
    """The middle of a picture [H, W, 3] in the proportions of `size` (height, width), brought to it."""
    height, width = picture.shape[:2]
    scale = min(height / size[0], width / size[1])
    down, across = scale * size[0], scale * size[1]
    top, left = (height - down) / 2, (width - across) / 2
    image = Image.fromarray(picture).resize(
        (size[1], size[0]), Image.Resampling.LANCZOS, box=(left, top, left + across, top + down)
    )
    result: NDArray[np.uint8] = np.array(image)
    return result


def read_picture(source: Path | bytes, what: str = "") -> Picture:
    """A PNG, JPEG or WebP file, or an upload, as uint8 [H, W, 3], turned as its camera was held.

    Raises:
        FileError: if it is missing, damaged or too large; `what` names it, if not its path.
    """
    what = what or str(source)
    require_size(source, what=what, limit_bytes=LARGEST_PICTURE)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=["PNG", "JPEG", "WEBP"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise FileError(
                    found=f"{what} has {image.width * image.height:,} pixels",
                    expected=f"at most {MOST_PIXELS:,}",
                    remedy="Make it smaller: it is brought to the model's size anyway.",
                )
            result: NDArray[np.uint8] = np.array(ImageOps.exif_transpose(image).convert("RGB"))
            return result
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise FileError(
            found=f"{what}, which is no picture or a damaged one",
            expected="a PNG, JPEG or WebP file",
            remedy="Choose another file.",
        ) from None
