"""Whether a generator draws given pictures: the proof that a checkpoint was opened right.

    reference = read_reference(Path("golden.npz"))
    found = agreement({"as opened": generator}, reference)
    found.verdict, found.largest, found.psnr

Differences are shares of the largest absolute value in the reference (of 255 where it is bytes). Up to 1e-5 the
pictures are ``same``; up to 1/255 they are ``same to a byte``; beyond that they are ``different``, and the commonest
reasons are tried on them, such as channels in another order. What is still different is drawn one picture at a time:
noise may depend on how many pictures are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rewrite_core.generators.generator import Generator, Progress
from rewrite_core.generators.reference import Reference, from_bytes, unfit
from rewrite_core.pictures import to_uint8

__all__ = ["Agreement", "Verdict", "agreement"]

Verdict = Literal["same", "same to a byte", "different"]

SAME, BYTE = 1e-5, 1 / 255
ALONE = "one picture at a time"

REASONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "the given pictures' channels are blue, green, red": lambda x: x.flip(1),
    "the given pictures are mirrored": lambda x: x.flip(3),
    "the given pictures are upside down": lambda x: x.flip(2),
    "the given numbers are from 0 to 1": lambda x: 2 * x - 1,
    "the given pictures are negatives": lambda x: -x,
}


@dataclass(frozen=True)
class Agreement:
    """How near a generator's pictures are to those of a reference.

    Attributes:
        how: which of the generators that were tried came nearest, and `ALONE` where only that brought it there.
        largest, mean: absolute difference, as a share of the reference's largest number.
        psnr: in decibels; infinite where nothing differs.
        beyond: share of the numbers that differ by more than a byte can show.
        worst: the seed of the picture with the largest difference.
        reason: what would make them agree, where one of the usual mistakes does; else empty.
    """

    how: str
    count: int
    largest: float
    mean: float
    psnr: float
    beyond: float
    worst: int
    reason: str

    @property
    def verdict(self) -> Verdict:
        """In words."""
        return (
            "same"
            if self.largest <= SAME
            else "same to a byte"
            if self.largest <= BYTE + 1e-6
            else "different"
        )


def agreement(
    tried: Mapping[str, Generator],
    reference: Reference,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """The best agreement of any generator in `tried` (what it is called → the generator), which end with the first.

    `batch` is how many pictures to draw at a time, where that matters (the published noise depends on it). Without one
    it is the generator's micro-batch; and if that explains nothing, 1.

    Raises:
        FileError: if the reference's pictures or latents are not of this generator's size.
    """
    found = _nearest(tried, reference, batch, progress)
    if batch is None and found.verdict == "different" and not found.reason:
        alone = _nearest(tried, reference, 1, progress)
        if alone.verdict != "different":
            return replace(alone, how=f"{alone.how}, {ALONE}")
    return found


def _nearest(
    tried: Mapping[str, Generator], reference: Reference, batch: int | None, progress: Progress | None
) -> Agreement:
    """The best agreement at one size of batch; see `agreement`."""
    best: Agreement | None = None
    for how, generator in tried.items():
        _require_fit(generator, reference)
        drawn = _drawn(generator, reference, batch or generator.micro_batch, progress)
        found = _compared(how, drawn, reference, reference.pictures)
        if best is None or found.largest < best.largest:
            best = found
        if best.verdict == "same":
            return best
        for reason, change in REASONS.items():
            changed = _compared(how, drawn, reference, change(reference.pictures))
            if best.verdict == "different" and changed.verdict != "different":
                best = replace(found, reason=reason)
    assert best is not None, "no generator to try"
    return best


def _drawn(generator: Generator, reference: Reference, batch: int, progress: Progress | None) -> Tensor:
    """The generator's own pictures, through bytes where the reference's were."""
    parts = []
    for place, count in reference.blocks(batch):
        with torch.no_grad():
            drawn = generator.pictures(reference.latents(generator, place, count)).cpu()
        parts.append(from_bytes(to_uint8(drawn)) if reference.bytes else drawn)
        if progress:
            progress(place + count, len(reference.pictures))
    return torch.cat(parts)


def _compared(how: str, drawn: Tensor, reference: Reference, wanted: Tensor) -> Agreement:
    scale = 2.0 if reference.bytes else max(float(wanted.abs().max()), 1e-12)
    off = (drawn - wanted).abs().double() / scale  # [N, 3, H, W]
    square = float(((drawn - wanted).double() / 2).square().mean())  # the range is 2 wide
    return Agreement(
        how=how,
        count=len(wanted),
        largest=float(off.max()),
        mean=float(off.mean()),
        psnr=-10 * math.log10(square) if square else math.inf,
        beyond=float((off > BYTE + 1e-6).double().mean()),
        worst=reference.spec.seeds[int(off.flatten(1).amax(1).argmax())],
        reason="",
    )


def _require_fit(generator: Generator, reference: Reference) -> None:
    have, need = tuple(reference.pictures.shape[1:]), (3, *generator.picture_size)
    if have != need:
        raise unfit(reference.name, f"pictures {list(have)}", f"{list(need)}, as {generator.name} draws")
    if reference.z is not None and reference.z.shape[1] != generator.latent_dim:
        size = f"latents of {reference.z.shape[1]} numbers"
        raise unfit(reference.name, size, f"{generator.latent_dim}, as {generator.name} takes")
