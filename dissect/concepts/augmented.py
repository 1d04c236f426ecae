"""Pictures made from pictures, so that a network learns to look at what is there and not at what usually is.

Where a generator is edited, an eye may be gone from the place where it always was, or be where there never was one. So
half of the pictures are *disturbed*, and their labels with them:

* *pasted*: a rectangle of one picture is put somewhere on another, with its labels;
* *filled*: a rectangle is filled from its border inwards, each pixel with the mean of its known neighbours; its labels
  are filled in the same way. An eye in it is gone, and what is learned there is skin.

Both take rectangles around a pixel of a concept that is drawn first, so that small concepts are not left out. Then the
colours of every picture are changed a little, as edits do.

Pictures are float32 [N, 3, h, w] in [-1, 1], labels float32 [N, L, h, w]: the share of each pixel that a label has.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["disturbed", "filled", "jittered", "pasted"]

Box = tuple[slice, slice]

LEAST, MOST = 1 / 12, 1 / 3
"""A rectangle's sides, as shares of the picture's."""
PASTES = 2
CONTRAST, BRIGHTNESS, NOISE = 0.25, 0.15, 0.05


def disturbed(pictures: Tensor, labels: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Every second picture with a few rectangles pasted and one filled, and all with other colours."""
    whole = torch.cat([pictures, labels], 1)  # [N, 3 + L, h, w]
    changed = pasted(whole[::2], whole.roll(1, 0)[::2], random)
    whole = torch.cat([filled(changed, random), whole[1::2]])
    return jittered(whole[:, :3], random), whole[:, 3:]


def pasted(whole: Tensor, others: Tensor, random: torch.Generator) -> Tensor:
    """Pictures with their labels [N, 3 + L, h, w], on each of which some rectangles of another are pasted."""
    whole = whole.clone()
    for picture, other in zip(whole, others, strict=True):
        for _ in range(_number(PASTES + 1, random)):
            rows, columns = box = _around(other[3:], random)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            top = _number(picture.shape[1] - height + 1, random)
            left = _number(picture.shape[2] - width + 1, random)
            picture[:, top : top + height, left : left + width] = other[:, *box]
    return whole


def filled(whole: Tensor, random: torch.Generator) -> Tensor:
    """Pictures with their labels [N, 3 + L, h, w], in each of which a rectangle is filled from its border."""
    whole = whole.clone()
    for picture in whole:
        rows, columns = _around(picture[3:], random)
        framed = picture[
            :, max(rows.start - 1, 0) : rows.stop + 1, max(columns.start - 1, 0) : columns.stop + 1
        ]
        known = torch.ones_like(framed[:1])  # [1, rows + 2, columns + 2], less where the picture ends
        top, left = min(rows.start, 1), min(columns.start, 1)
        known[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start] = 0
        framed.copy_(_grown(framed, known))
    return whole


def jittered(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Pictures with other contrast and brightness, a tint, and noise."""
    count = len(pictures)

    def around_zero(channels: int, most: float) -> Tensor:
        return most * (2 * torch.rand(count, channels, 1, 1, generator=random) - 1)

    gain = 1 + around_zero(1, CONTRAST) + around_zero(3, CONTRAST / 3)
    shift = around_zero(1, BRIGHTNESS) + around_zero(3, BRIGHTNESS / 3)
    noise = (
        NOISE * torch.rand(count, 1, 1, 1, generator=random) * torch.randn(pictures.shape, generator=random)
    )
    return (pictures * gain + shift + noise).clamp(-1, 1)


def _grown(content: Tensor, known: Tensor) -> Tensor:
    """`content` [C, h, w] where `known` [1, h, w] is 1, and elsewhere what grows in from there, pixel by pixel."""
    content = content * known
    while not known.all():
        near = functional.avg_pool2d(torch.cat([content, known]), 3, stride=1, padding=1)
        found, count = near[:-1], near[-1:]
        new = (known == 0) & (count > 0)  # [1, h, w]
        content = torch.where(new, found / count.clamp(min=0.01), content)
        known = known + new
    return content


def _around(labels: Tensor, random: torch.Generator) -> Box:
    """A rectangle around a pixel of one of the labels [L, h, w] that are in a picture, each as likely."""
    height, width = labels.shape[1:]
    there = (labels > 0.5).flatten(1)  # [L, h · w]
    present = there.any(1).nonzero()[:, 0]
    if len(present):
        pixels = there[present[_number(len(present), random)]].nonzero()[:, 0]
        row, column = divmod(int(pixels[_number(len(pixels), random)]), width)
    else:
        row, column = _number(height, random), _number(width, random)
    return _side(row, height, random), _side(column, width, random)


def _side(middle: int, length: int, random: torch.Generator) -> slice:
    """Part of a side, around `middle` where that is not too near the end."""
    share = LEAST + (MOST - LEAST) * float(torch.rand((), generator=random))
    size = max(1, round(share * length))
    start = min(max(middle - size // 2, 0), length - size)
    return slice(start, start + size)


def _number(below: int, random: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=random))
