"""The view *Find by painting*: paint a region on a picture or several, and see which units of the layer fire there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.canvas import Tool, paint
from dashboard.dissection.rows import sheet_button, unit_rows
from dashboard.dissection.state import spec_of
from dashboard.dissection.table import look_at
from dashboard.dissection.taking import headed, take_away
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery, range_box
from dashboard.session import Session, service
from dashboard.text import plain
from dashboard.words import counted
from dissect.finding import MARK, Found, find_units
from dissect.provenance import measured
from rewrite_core.generators import LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Mask, enlarge, outline
from rewrite_core.pictures import Picture as Pixels
from rewrite_core.statistics import Histogram, fetch

__all__ = ["FIND", "easel", "finding"]

FIND = "Find by painting"
PURPOSE = "finding"
TOOLS: tuple[Tool, ...] = ("brush", "rectangle", "polygon")
BRUSHES = (8, 14, 20, 28, 40, 60)
SIDE = 96
BEST = 12
"""Units that are shown as pictures."""
ON = 6
"""Painted pictures that the chosen unit is shown on."""

_found: Budget[Found] = Budget(128 << 20, lambda found: found.nbytes)


def finding(visitor: Session) -> None:
    """The canvas on the left; the units that fire there on the right."""
    left, right = st.columns([1, 1.45], gap="large")
    with left, shown():
        _paint(visitor)
    with right, shown():
        found = _ask(visitor)
        if found:
            _answer(visitor, found)


def easel(visitor: Session, role: str, under: Pixels, image: str) -> Mask:
    """A canvas over the picture `under` [H, W, 3], with a choice of tools: what is painted on it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        tool = st.segmented_control(
            "Tool", TOOLS, default="brush", required=True, key=f"{role}-tool", label_visibility="collapsed"
        )
        brush = st.select_slider(
            "Brush",
            BRUSHES,
            28,
            key=f"{role}-brush",
            width=90,
            label_visibility="collapsed",
            help="Brush width",
        )
    return Mask.from_array(paint(under, role=role, image=image, tool=tool, brush=brush).mask)


# What is painted


def _paint(visitor: Session) -> None:
    seed = visitor.selected if isinstance(visitor.selected, int) else 0
    spec = visitor.spec((seed,))
    under = visitor.pictures((seed,), edited=True)[0]
    visitor.probe = visitor.probe.painted(spec, easel(visitor, "find", under, _image(visitor, spec)))
    regions = visitor.probe.on(spec)
    others = ", ".join(str(one) for one in regions if one != seed)
    st.caption(f"Picture {seed}." + (f" Also painted: {others}." if others else ""))
    seeds = range_box("Pictures to paint on", key="find-seeds", default="0-11")
    seeds = tuple(dict.fromkeys((*seeds, *regions)))
    images = enlarge(visitor.pictures(seeds, edited=True), visitor.enlargement)
    pictures = [_thumbnail(one, image, regions.get(one)) for one, image in zip(seeds, images, strict=True)]
    chosen = gallery(pictures, key="find-pictures", selected=seed, size=62)
    if chosen != seed:
        visitor.select(chosen)
        st.rerun()


def _thumbnail(seed: int, image: Pixels, region: Mask | None) -> Picture:
    """A picture with what is painted on it."""
    if region is None:
        return Picture(seed, image)
    return Picture(
        seed, outline(image, region.resized(image.shape[:2]).pixels >= 128, MARK, 3), note="painted"
    )


def _image(visitor: Session, spec: LatentSpec) -> str:
    """Names a canvas: the strokes stay where they are when a rule changes what lies under them."""
    return f"{visitor.generator.pristine.fingerprint[:8]}-{spec.truncation}-{spec.label}-{spec.scheme}-{spec.seeds[0]}"


# Who fires there


def _ask(visitor: Session) -> Found | None:
    """Every unit against what is painted, once something is."""
    layer, samples, generator = visitor.layer, spec_of(visitor), visitor.edited()
    regions = visitor.probe.on(samples)
    if not regions:
        st.markdown("**Which units fire here?**")
        st.caption(
            f"Paint a region: the units of layer {plain(layer)} that fire there rather than elsewhere appear here. "
            "The same thing painted on a second picture says more clearly what is meant."
        )
        return None
    painted = replace(samples, seeds=tuple(regions))
    key = (generator.fingerprint, layer, samples, painted, tuple(regions.values()))

    def work(progress: Progress) -> Found:
        histogram = fetch(generator, layer, samples, Histogram(), store=service().store, progress=progress)
        return find_units(generator, painted, list(regions.values()), layer, histogram)

    found = brought(
        visitor, PURPOSE, key, _found, f"Looking at {len(samples):,} samples of layer {layer}", work
    )
    if found is None:
        show_work(visitor, PURPOSE)
    return found


def _answer(visitor: Session, found: Found) -> None:
    """The best units on the picture, all in a table, and the chosen one on every painted picture."""
    table = found.table()
    chosen = visitor.dissecting.unit
    unit = chosen[1] if chosen and chosen[0] == found.layer else found.order[0]
    menu = headed(
        f"Units of {plain(found.layer)} that fire here",
        "Outlined in yellow: where the unit, brought to the picture, is above the one of its quantiles that "
        "gives the best IoU with what is painted, the line in pink. "
        f"A unit that fires everywhere has an IoU of {found.baseline:.3f}, the painted share.",
    )
    with menu:
        take_away(
            visitor,
            "units-that-fire-here",
            {"units-that-fire-here": table},
            {"units-that-fire-here": partial(_figure, found, visitor.enlargement)},
            caption=measured(
                f"Units of {found.layer} that fire where is painted.", visitor.edited(), found.spec
            ),
        )
    place = found.spec.seeds.index(visitor.selected) if visitor.selected in found.spec.seeds else 0
    pictures = [
        Picture(one, _outlined(visitor, found, one)[place], note=f"IoU {found.iou[one]:.2f}")
        for one in found.order[:BEST]
    ]
    picked = gallery(pictures, key="find-units", selected=unit, size=SIDE, columns=6)
    if isinstance(picked, int) and picked != unit:
        look_at(visitor, found.layer, picked)
        st.rerun()
    _one(visitor, found, unit)
    unit_rows(visitor, table, _COLUMNS, list(_COLUMNS), key="find-table", height=318)
    st.caption(
        f"{counted(len(table), 'unit')}, the most specific first. Click one to see it on what is painted."
    )


def _one(visitor: Session, found: Found, unit: int) -> None:
    """The numbers of one unit, and where it fires on the painted pictures."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f"**Unit {unit}** · IoU **{found.iou[unit]:.3f}** · fires in {100 * found.inside[unit]:.0f} % inside, "
            f"{100 * found.outside[unit]:.0f} % outside"
        )
        st.space("stretch")
        sheet_button(visitor, found.layer, unit, "found")
    if len(found.spec) > 1:
        images = _outlined(visitor, found, unit)
        pictures = [Picture(*pair) for pair in zip(found.spec.seeds, images, strict=True)]
        gallery(pictures[:ON], key="find-one", size=SIDE, columns=ON)


def _outlined(visitor: Session, found: Found, unit: int) -> Pixels:
    """The painted pictures, with lines that are still seen when they are shown small."""
    return found.outlined(unit, visitor.enlargement, thickness=max(1, visitor.enlargement // 2))


def _figure(found: Found, factor: int) -> Any:
    """The best units on the first painted picture."""
    from dissect.figures import grid_figure

    best = found.order[:BEST]
    labels = [f"{unit} · {found.iou[unit]:.2f}" for unit in best]
    pictures = np.stack([found.outlined(unit, factor)[0] for unit in best])
    return grid_figure(pictures, labels, f"Units of {found.layer} that fire where painted, and their IoU")


_COLUMN = st.column_config
_COLUMNS: Mapping[str, Any] = {
    "unit": _COLUMN.NumberColumn(width=56, help="Number of the channel, from 0."),
    "iou": _COLUMN.ProgressColumn(
        "IoU",
        width=130,
        min_value=0.0,
        max_value=1.0,
        format="%.3f",
        help="Of what is painted with where the unit is above the best of its quantiles. Choosing it flatters.",
    ),
    "lift": _COLUMN.NumberColumn(
        format="%.1f ×",
        width=70,
        help="How many times more often it fires there than anywhere in the samples.",
    ),
    "inside": _COLUMN.NumberColumn(
        format="%.2f", width=66, help="Share of what is painted in which it fires."
    ),
    "outside": _COLUMN.NumberColumn(format="%.2f", width=70, help="Share of the rest in which it fires."),
    "rank_inside": _COLUMN.NumberColumn(
        "rank inside",
        format="%.2f",
        width=88,
        help="Its mean rank there among all its values; 0.5 is ordinary.",
    ),
    "rank_outside": _COLUMN.NumberColumn(
        "outside", format="%.2f", width=70, help="Its mean rank elsewhere in the painted pictures."
    ),
}
