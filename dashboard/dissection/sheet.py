"""One unit: pictures from the top and from lower ranges, its values, concepts and relatives, and what it causes."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.dissection.asking import fresh
from dashboard.dissection.charts import concepts_chart, dot, effects_chart, values_chart
from dashboard.dissection.exporting import command
from dashboard.dissection.state import choose, dissection_key, identity_of, judge_of, source_of, subject_of
from dashboard.dissection.table import look_at
from dashboard.dissection.taking import take_away
from dashboard.gallery import Picture, gallery
from dashboard.session import Session, service
from dashboard.text import plain
from dissect.effects import single_effects
from dissect.interventions import ablate, sample
from dissect.provenance import caption
from dissect.sheet import LOWEST, Range, UnitSheet, unit_sheet
from dissect.sheet import TOP as TOP_RANGE
from dissect.units import Dissection
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture as Pictures
from rewrite_core.pictures import enlarge, to_uint8

__all__ = ["sheet"]

SHEET, EFFECT = "sheet", "effect"
TOP, FEW = 8, 4
"""Pictures of the top, and of each lower range."""
MEASURED = 100
"""Pictures on which the effect of ablating a unit is measured."""

OUTLINED, PLAIN, ABLATED = LOOKS = ("Outlined", "Plain", "Ablated")
LARGE, SMALL = 128, 56
"""Sides of the top pictures on screen, and of the others."""


@dataclass(frozen=True, eq=False)
class _Sheet:
    """A unit's sheet, and for each look its pictures as they are sent, range by range: uint8 [N, H, W, 3]."""

    sheet: UnitSheet
    looks: Mapping[str, tuple[Pictures, ...]]

    @property
    def size(self) -> int:
        """Bytes of the pictures."""
        return sum(pictures.nbytes for look in self.looks.values() for pictures in look)


_sheets: Budget[_Sheet] = Budget(128 << 20, lambda sheet: sheet.size)
_effects: Budget[pd.DataFrame] = Budget(8 << 20, lambda table: int(table.memory_usage().sum()))


def sheet(visitor: Session, found: Dissection, rows: pd.DataFrame, unit: tuple[str, int]) -> None:
    """Everything there is to see of `unit`; Previous and Next go through `rows`.

    Raises:
        PalimpsestError: the unit's pictures cannot be drawn.
    """
    made = _sheet(visitor, found, *unit)
    _head(visitor, found, rows, unit)
    if made is None:
        show_work(visitor, SHEET)
        return
    _numbers(found, made.sheet)
    _pictures(visitor, found, made)
    _charts(found, made.sheet)
    _relatives(visitor, made.sheet)
    _effect(visitor, *unit)


def _sheet(visitor: Session, found: Dissection, layer: str, unit: int) -> _Sheet | None:
    subject, factor = subject_of(visitor), visitor.enlargement

    def work(progress: Progress) -> _Sheet:
        made = unit_sheet(subject, found, layer, unit, store=service().store, count=TOP, few=FEW)
        total, ablated = sum(len(shown.seeds) for shown in made.ranges), []
        for shown in made.ranges:
            without = sample(subject, replace(found.spec, seeds=shown.seeds), [ablate(layer, [unit])])
            ablated.append(enlarge(to_uint8(without), factor))
            progress(sum(map(len, ablated)), total)
        looks = {
            OUTLINED: tuple(_outlined(shown, factor) for shown in made.ranges),
            PLAIN: tuple(enlarge(shown.pictures, factor) for shown in made.ranges),
            ABLATED: tuple(ablated),
        }
        return _Sheet(made, looks)

    key = (dissection_key(visitor), layer, unit)
    return brought(visitor, SHEET, key, _sheets, f"Sheet of unit {unit} of {layer}", work)


def _outlined(shown: Range, factor: int) -> Pictures:
    """With lines that are a pixel wide, or a little more, where the pictures are on screen."""
    return shown.outlined(factor, thickness=max(1, round(factor * shown.pictures.shape[2] / _side(shown))))


def _side(shown: Range) -> int:
    return LARGE if shown.name == TOP_RANGE else SMALL


def _head(visitor: Session, found: Dissection, rows: pd.DataFrame, unit: tuple[str, int]) -> None:
    """Which unit it is, what it stands for, and the way to its neighbours in the table."""
    layer, number = unit
    here = found.layers[layer]
    place = here.units.index(number)
    concept = int(here.concept[place])
    name = here.concepts[concept] if concept >= 0 else ""
    detects = bool(here.detector[place])
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        st.html(_title(layer, number, name, detects))
        st.space("stretch")
        neighbours = list(zip(rows["layer"], (int(unit) for unit in rows["unit"]), strict=True))
        at = neighbours.index(unit) if unit in neighbours else -1
        _step(visitor, "Previous unit", ":material/chevron_left:", neighbours[at - 1] if at > 0 else None)
        _step(
            visitor,
            "Next unit",
            ":material/chevron_right:",
            neighbours[at + 1] if -1 < at < len(neighbours) - 1 else None,
        )


def _title(layer: str, unit: int, concept: str, detects: bool) -> str:
    colour = f'<span style="{dot(concept)}margin-right:.3em"></span>'
    says = f"{colour}{html.escape(concept)}" if concept else "no concept"
    weak = "" if detects or not concept else ' <span style="opacity:.6">(not a detector)</span>'
    return (
        f'<div style="font-size:1.25rem;font-weight:600">Unit {unit} <span style="opacity:.6">of '
        f"{html.escape(layer)}</span> · {says}{weak}</div>"
    )


def _step(visitor: Session, label: str, icon: str, to: tuple[str, int] | None) -> None:
    st.button(
        "",
        icon=icon,
        help=label,
        key=f"unit-{label.split()[0].lower()}",
        disabled=to is None,
        on_click=look_at,
        args=(visitor, *(to or ("", 0))),
    )


def _numbers(found: Dissection, made: UnitSheet) -> None:
    here, row = made.found, made.row
    concept = int(here.concept[row])
    if concept < 0:
        st.markdown(
            "Above none of its thresholds where any concept is: **dead**, or never on a labelled pixel."
        )
        return
    st.markdown(
        f"held-out IoU **{here.held_out[row, concept]:.3f}** · baseline {here.baseline[concept]:.3f} · "
        f"IoU {here.iou[row, concept]:.3f} at the {found.settings.quantile:g} quantile · "
        f"fires in {100 * made.density:.2g} % of pixels",
        help=f"Held-out: the threshold (quantile {here.tuned_quantile[row, concept]:g}) is the best of "
        f"{len(here.levels.quantiles)} on the first half of {here.samples:,} samples, the IoU that on the second. "
        f"Baseline: the IoU of a unit that fires everywhere. Set threshold {made.threshold:.4g}.",
    )


def _pictures(visitor: Session, found: Dissection, made: _Sheet) -> None:
    """Top and lower ranges, all in the same look."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            "**Its pictures**",
            help="Samples are ranked by the unit's greatest value in each. Below the top, pictures are taken at even "
            "distances in rank, so that none was picked. Outlined is where the unit is above its set threshold, its "
            "map brought to the picture bilinearly.",
        )
        st.space("stretch")
        _take_away(visitor, found, made.sheet)
        look = st.segmented_control(
            "Look", LOOKS, default=OUTLINED, required=True, key="sheet-look", label_visibility="collapsed"
        )
    first, *lower = range(len(made.sheet.ranges))
    _range(visitor, made, first, look)
    for left in range(0, len(lower), 2):
        for column, number in zip(st.columns(2, gap="small"), lower[left : left + 2], strict=False):
            with column:
                _range(visitor, made, number, look)


def _take_away(visitor: Session, found: Dissection, made: UnitSheet) -> None:
    from dissect.sheet_plots import sheet_figure  # matplotlib takes a while to import

    name = f"{made.layer}-unit-{made.unit}"
    tables, figures = {f"{name}-concepts": made.concepts()}, {name: lambda: sheet_figure(made)}
    words = caption(
        f"Unit {made.unit}: samples ranked by its greatest value, its values and concepts.", found, made.layer
    )
    take_away(visitor, "sheet", tables, figures, command(visitor), words)


def _range(visitor: Session, made: _Sheet, number: int, look: str) -> None:
    """One range; top pictures that are ablated carry the original too, and can be flipped."""
    shown, images = made.sheet.ranges[number], made.looks[look][number]
    top = shown.name == TOP_RANGE
    pictures = [
        Picture(seed, image, note=f"{value:.3g}" if top else "")
        for seed, image, value in zip(shown.seeds, images, shown.maxima, strict=True)
    ]
    if top and look == ABLATED:
        before = made.looks[PLAIN][number]
        pictures = [
            replace(picture, image=image, after=picture.image)
            for picture, image in zip(pictures, before, strict=True)
        ]
    st.caption(_NAMES.get(shown.name, f"Ranks {shown.name}"))
    key, side = f"sheet-{number}", _side(shown)
    columns = None if side == LARGE else FEW
    visitor.select(
        gallery(pictures, key=key, selected=visitor.selected, size=side, columns=columns, view="after")
    )


_NAMES = {TOP_RANGE: "Where it is greatest", LOWEST: "Where it is least"}


def _charts(found: Dissection, made: UnitSheet) -> None:
    left, right = st.columns(2, gap="small")
    with left:
        st.markdown(
            "**Its values**",
            help=f"Over all positions of {len(found.spec):,} samples, on the layer's own grid; the share axis is "
            "a square root. The dashed line is the set threshold.",
        )
        st.altair_chart(values_chart(made.bars, made.threshold, made.concept), key="values-chart")
        zeros = f"exactly 0 in {100 * made.bars.zeros:.3g} %, " if made.bars.zeros else ""
        st.caption(
            f"{zeros}above the threshold {made.threshold:.3g} in {100 * made.above:.2g} % of positions"
        )
    with right:
        st.markdown(
            "**Its concepts**",
            help="Bars: held-out IoU at the tuned threshold. Circles: IoU at the set threshold, over all samples. "
            "Ticks: the IoU of a unit that fires everywhere, which a detector must beat.",
        )
        st.altair_chart(concepts_chart(made.concepts()), key="concepts-chart")


def _relatives(visitor: Session, made: UnitSheet) -> None:
    """Units that go with it, each a step away."""
    if not made.correlated:
        return
    st.markdown(
        "**Units that go with it**",
        help="Pearson's correlation of values over all positions of all samples; of either sign, strongest first.",
    )
    with st.container(horizontal=True, gap="small"):
        for unit, correlation in made.correlated:
            st.button(
                f"{unit}  :gray[{correlation:+.2f}]",
                key=f"relative-{made.layer}-{unit}",
                on_click=look_at,
                args=(visitor, made.layer, unit),
            )


def _effect(visitor: Session, layer: str, unit: int) -> None:
    """What ablating it does to each concept: measured when asked for, by concepts that may judge edited pictures."""
    judge, subject = judge_of(visitor), subject_of(visitor)
    spec = fresh(visitor, MEASURED)
    key = (subject.fingerprint, spec, layer, unit, identity_of(judge))
    st.markdown(
        "**What ablating it changes**",
        help="The unit is forced to 0 everywhere, and the share of pixels of each concept is compared before and "
        f"after, over {len(spec):,} pictures that nothing was chosen on. Lines: 95 % bootstrap intervals over them.",
    )
    if not source_of(visitor).pixels_only:
        st.caption(
            f"{plain(source_of(visitor).title)} knows unedited samples alone, so edited ones are judged by "
            f"{plain(judge.title)}, which sees pixels."
        )
    if _effects.peek(key) is None and visitor.dissecting.caused != (layer, unit):
        st.button(
            "Measure",
            icon=":material/play_arrow:",
            key="effect",
            on_click=lambda: choose(visitor, caused=(layer, unit)),
        )
        return

    def work(progress: Progress) -> pd.DataFrame:
        return single_effects(subject, spec, layer, judge, [unit], progress).table()

    table = brought(visitor, EFFECT, key, _effects, f"Ablating unit {unit} of {layer}", work)
    if table is None:
        show_work(visitor, EFFECT)
        return
    st.altair_chart(effects_chart(table), key="effects-chart")
