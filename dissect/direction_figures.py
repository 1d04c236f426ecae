"""Pictures of directions for a paper: what they match, what scaling them does, and methods side by side.

    found = matches(generator, layer, direction.vectors[0], spec)
    rows = {"top": strip(generator, found, found.top(8)), "bottom": strip(generator, found, found.bottom(8))}
    save_figure(matches_figure(rows, found.outline), "matches.pdf")
    save_figure(patches_figure(crops, seeds), "patches.pdf")
    save_figure(methods_figure({"zca": strip(…), "mean": strip(…)}, {"zca": (low, high), …}), "methods.pdf")
    save_figure(scaled_figure({-1.0: reversed, 0.0: removed, 1.0: before}, seeds, {0.0: effect}), "scaled.pdf")

They stand on the pages of `dissect.paper`, as wide as a column or a page. Small pictures are enlarged by a whole
factor, large ones reduced; of a row too long for its page the rest stands on the next line. Charts are in
`dissect.direction_plots`, the map of keys in `dissect.map_plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dissect.paper import (
    DPI,
    GAP,
    LINE,
    TEXT,
    TITLE,
    WIDTHS,
    Width,
    fitting,
    page,
    printed,
    put,
    write,
)
from dissect.patches import patch_average
from dissect.plots import INK
from dissect.sheet import OUTLINE
from rewrite_core.directions.matches import Matches
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator
from rewrite_core.pictures import Picture, blend_heat, outline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Strip", "matches_figure", "methods_figure", "patches_figure", "scaled_figure", "strip"]

SMALLEST, LARGEST = 120, 450
"""Pixels that a picture is wide in print, where its own resolution allows."""
WORD = 39
"""Pixels for the words at row starts."""
DIM = 0.6
"""What is left of the brightness of what does not match, in a picture with a match."""
BESIDE = 36
"""Pixels between pictures and what stands beside them."""


@dataclass(frozen=True, eq=False)
class Strip:
    """Pictures [N, H, W, 3] in a row, with their seeds, and the heat [N, h, w] of a direction over them."""

    seeds: tuple[int, ...]
    pictures: Picture
    heat: Tensor


def strip(generator: Generator, matches: Matches, seeds: Sequence[int]) -> Strip:
    """The pictures of `seeds`, which are among those that were searched, with their heat."""
    heat = [matches.of(seed) for seed in seeds]  # [h, w] each
    pictures = generator.draw(replace(matches.spec, seeds=tuple(seeds)))
    return Strip(tuple(seeds), pictures, torch.stack(heat) if heat else matches.heat[:0])


def matches_figure(
    rows: Mapping[str, Strip], level: float, title: str | None = None, *, width: Width = "page"
) -> Figure:
    """A row of pictures for each name (top, middle, bottom …), outlined where their heat is above `level`.

    Under each picture stands its seed. A picture without a match is shown as it is.

    Raises:
        RequestError: there is no picture.
    """
    plan = _Plan.of([one.pictures for one in rows.values()], width)
    shown = {
        name: [_outlined(*both, level, plan.size) for both in zip(one.pictures, one.heat, strict=True)]
        for name, one in rows.items()
    }
    figure, _, _ = plan.draw(shown, {name: one.seeds for name, one in rows.items()}, title)
    return figure


def methods_figure(
    rows: Mapping[str, Strip],
    scales: Mapping[str, tuple[float, float]],
    title: str | None = None,
    *,
    width: Width = "page",
) -> Figure:
    """The same pictures under the heat of each method, a row each; on top the pictures as they are.

    As many are shown as stand beside each other.

    Args:
        rows: method → the pictures with its heat.
        scales: method → the heat at which the picture stays clear, and that which is yellow.
        title: over all of it.
        width: of a column or a page.

    Raises:
        RequestError: there is no picture.
    """
    plan = _Plan.of([one.pictures for one in rows.values()], width)
    first = next(iter(rows.values()))
    shown = {"picture": [printed(picture, plan.size) for picture in first.pictures[: plan.columns]]}
    for name, one in rows.items():
        low, high = scales[name]
        shown[name] = [
            blend_heat(printed(picture, plan.size), heat, low, high)
            for picture, heat in zip(one.pictures[: plan.columns], one.heat, strict=False)
        ]
    figure, _, _ = plan.draw(shown, {list(shown)[-1]: first.seeds}, title)
    return figure


def patches_figure(
    patches: Picture, labels: Sequence[object], title: str | None = None, *, width: Width = "page"
) -> Figure:
    """Patches [N, s, s, 3], each over its label, beside their average, which is larger.

    Raises:
        RequestError: there is none.
    """
    plan = _Plan.of([patches], width, left=2 * LARGEST // 3 + BESIDE, largest=LARGEST // 3)
    side = (plan.left - BESIDE) // patches.shape[2] * patches.shape[2] or plan.left - BESIDE
    plan = replace(plan, left=side + BESIDE, least=side + LINE)
    shown = [printed(picture, plan.size) for picture in patches]
    figure, axes, tops = plan.draw({"": shown}, {"": labels}, title)
    put(axes, printed(patch_average(patches), (side, side)), (0, tops[""]))
    said = f"average of {len(patches)}"
    write(axes, said, side / 2, tops[""] + side + LINE / 2, ha="center", va="center_baseline", color=INK)
    return figure


def scaled_figure(
    pictures: Mapping[float, Picture],
    seeds: Sequence[int],
    effects: Mapping[float, NDArray[np.floating]] | None = None,
    title: str | None = None,
    *,
    width: Width = "page",
) -> Figure:
    """A row of pictures for each factor α by which what a direction matches is scaled; at the right what it changes.

    As many are shown as stand beside each other.

    Args:
        pictures: α → [N, H, W, 3]; at α = 1 they are as they are.
        seeds: of the N pictures.
        effects: α → the mean change of all pictures [H, W], from 0 to 1; those given are drawn on one scale.
        title: over all of it.
        width: of a column or a page.

    Raises:
        RequestError: there is no picture.
    """
    effects = effects or {}
    plan = _Plan.of(list(pictures.values()), width, beside=bool(effects))
    shown = {
        _alpha(alpha): [printed(one, plan.size) for one in some[: plan.columns]]
        for alpha, some in pictures.items()
    }
    last = list(shown)[-1]
    plan = replace(plan, foot=GAP * 2 * bool(effects))  # for the scale
    figure, axes, tops = plan.draw(shown, {last: seeds}, title, head=LINE * bool(effects))
    if effects:
        x = plan.right + BESIDE
        greatest = max(float(effect.max()) for effect in effects.values())
        for alpha, effect in effects.items():
            put(axes, printed(_change(effect, greatest), plan.size), (x, tops[_alpha(alpha)]))
        middle, height, y = x + plan.size[1] / 2, plan.size[0], min(tops.values()) - LINE / 2
        write(axes, "change", middle, y, ha="center", va="center", color=INK)
        _scale(axes, x, tops[last] + height + 6, plan.size[1], greatest)
    return figure


@dataclass(frozen=True)
class _Plan:
    """Rows of pictures printed at one size, each with its name upright before it, in lines of so many columns.

    Attributes:
        columns: pictures beside each other.
        size: height and width of a picture in print.
        left: pixels before the pictures.
        beside: whether a further column stands at the right.
        least: pixels that the rows are high together, at least.
        foot: pixels left free below them.
    """

    columns: int
    size: tuple[int, int]
    left: int
    beside: bool
    least: int = 0
    foot: int = 0

    @classmethod
    def of(
        cls,
        strips: Sequence[Picture],
        width: Width,
        *,
        left: int = WORD,
        beside: bool = False,
        largest: int = LARGEST,
    ) -> _Plan:
        """As many columns as leave pictures legible, lines of equal length, and pictures as large as these permit."""
        most = max((len(strip) for strip in strips), default=0)
        if not most:
            raise RequestError(found="no pictures", expected="at least one", remedy="Name some seeds.")
        height, across = strips[0].shape[1:3]
        room = round(WIDTHS[width] * DPI) - left - BESIDE * beside + GAP
        smallest = min(largest, math.ceil(SMALLEST / across) * across)
        fitting_in = max(1, room // (smallest + GAP) - beside)
        columns = math.ceil(most / math.ceil(most / fitting_in))
        cell = min(largest, room // (columns + beside) - GAP)
        factor = cell // across
        size = (factor * height, factor * across) if factor else (max(1, round(cell * height / across)), cell)
        return cls(columns, size, left, beside)

    @property
    def right(self) -> int:
        """Where the pictures end."""
        return self.left + self.columns * (self.size[1] + GAP) - GAP

    def draw(
        self,
        rows: Mapping[str, Sequence[Picture]],
        captions: Mapping[str, Sequence[object]],
        title: str | None,
        head: int = 0,
    ) -> tuple[Figure, Any, dict[str, int]]:
        """Rows of pictures of this size, captions under those that have some; the page, and where each row begins."""
        tops, y = {}, (LINE + GAP) * bool(title) + head
        for name, pictures in rows.items():
            tops[name] = y
            y += math.ceil(len(pictures) / self.columns) * self._step(name in captions)
        bottom = max(y, min(tops.values()) + self.least) + self.foot
        across = self.right + (BESIDE + self.size[1]) * self.beside
        figure, axes = page(across, bottom)
        for name, pictures in rows.items():
            self._row(axes, name, pictures, captions.get(name), tops[name])
        if title:
            write(axes, title, 0, LINE / 2, fitting(title, across, TITLE), ha="left", va="center")
        return figure, axes, tops

    def _step(self, captioned: bool) -> int:
        """From one line to the next."""
        return self.size[0] + GAP + LINE * captioned

    def _row(
        self, axes: Any, name: str, pictures: Sequence[Picture], captions: Sequence[object] | None, top: int
    ) -> None:
        height, width = self.size
        if name:
            size = fitting(name, height, TEXT)
            write(axes, name, WORD / 2 - 3, top + height / 2, size, ha="center", va="center", rotation=90)
        labels = [str(caption) for caption in captions or ()]
        size = fitting(max(labels, key=len, default=""), width, TEXT)
        for place, picture in enumerate(pictures):
            line, column = divmod(place, self.columns)
            x, y = self.left + column * (width + GAP), top + line * self._step(captions is not None)
            put(axes, picture, (x, y))
            if captions is not None:
                at = (x + width / 2, y + height + LINE / 2)
                write(axes, labels[place], *at, size, ha="center", va="center_baseline", color=INK)


def _outlined(picture: Picture, heat: Tensor, level: float, size: tuple[int, int]) -> Picture:
    """A picture at the size that it is printed at, outlined where its heat [h, w] is above `level`, if anywhere."""
    large = functional.interpolate(heat[None, None].float(), size, mode="bilinear")[0, 0]  # [H, W]
    there = (large > level).numpy()
    return outline(printed(picture, size), there, OUTLINE, thickness=2, dim=DIM if there.any() else 1.0)


def _alpha(alpha: float) -> str:
    return f"α = {alpha:g}".replace("-", "−")


def _change(effect: NDArray[np.floating], greatest: float) -> Picture:
    """Change [..., H, W] from 0 to `greatest` as colours, [..., H, W, 3]: viridis, as heat is."""
    from matplotlib import colormaps

    share = effect / greatest if greatest else np.zeros_like(effect)
    colours: Picture = colormaps["viridis"](share, bytes=True)[..., :3]
    return colours


def _scale(axes: Any, left: int, top: int, across: int, greatest: float) -> None:
    """The colours of change from 0 to `greatest`, in a bar, and what they mean below it."""
    bar = np.broadcast_to(np.linspace(0, 1, across), (12, across))
    put(axes, np.ascontiguousarray(_change(bar, 1.0)), (left, top))
    for text, x, side in (("0", left, "left"), (f"{greatest:.1%}", left + across, "right")):
        write(axes, text, x, top + 12 + LINE / 2, ha=side, va="center_baseline", color=INK)
