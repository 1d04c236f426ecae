"""The view *Ablate and insert*: units forced to a value, and what becomes of the pictures and of their concepts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.dissection.asking import fresh, on_request
from dashboard.dissection.charts import effects_chart
from dashboard.dissection.exporting import ablate_command
from dashboard.dissection.overview import needed
from dashboard.dissection.probe import INSERT
from dashboard.dissection.ranking import ranked
from dashboard.dissection.state import identity_of, judge_of, source_of
from dashboard.dissection.taking import headed, take_away
from dashboard.dissection.units_choice import Asked, asked_for, panel
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery, range_box
from dashboard.session import Session
from dashboard.text import plain
from dashboard.words import counted
from dissect.concepts import ConceptSource
from dissect.effects import Effects, causal_effects
from dissect.interventions import ablate
from dissect.live import Stopped, stop
from dissect.provenance import INTERVALS, measured
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture as Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["INTERVENE", "intervening"]

INTERVENE = "Ablate and insert"
LIVE, EFFECTS = "live", "effects"
SHOWN = tuple(range(12))
"""Pictures that the command of effects draws."""
FRESH = 200
"""Pictures that effects are measured on: the first that the dissection has not seen."""

_stopped: Budget[Stopped] = Budget(256 << 20, lambda stopped: stopped.nbytes)
_drawn: Budget[Pixels] = Budget(64 << 20, lambda pictures: pictures.nbytes)
_effects: Budget[Effects] = Budget(16 << 20, lambda found: found.after.nbytes)


def intervening(visitor: Session) -> None:
    """The choices on the left, over what they change; pictures on the right."""
    found = needed(visitor)
    if found is None:
        return
    asked = None
    left, right = st.columns([1.1, 1.75], gap="large")
    with left:
        units = panel(visitor, found)
        with shown():
            asked = asked_for(visitor, found, units) if units else None
            if asked:
                _effect(visitor, asked)
            ranked(visitor, found)
    with right, shown():
        if asked:
            _pairs(visitor, asked)


# Pictures


def _pairs(visitor: Session, asked: Asked) -> None:
    """Each picture as it is, and with the intervention."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        seeds = range_box("Pictures", key="probe-seeds", default="0-11")
        st.space("stretch")
        menu = st.container(width="content")
    generator, spec, layer = visitor.edited(), visitor.spec(seeds), visitor.layer

    def stopped() -> Stopped:
        return _stopped.get((generator.fingerprint, spec, layer), lambda: stop(generator, spec, layer))

    def work(progress: Progress) -> Pixels:
        return stopped().drawn([asked.intervention])

    key = (generator.fingerprint, spec, asked.key)
    after = brought(visitor, LIVE, key, _drawn, f"Drawing {counted(len(seeds), 'picture')}", work)
    if after is None:
        show_work(visitor, LIVE)
        return
    before = stopped().pictures
    pictures = [Picture(*pair) for pair in zip(seeds, before, after, strict=True)]
    visitor.select(gallery(pictures, key="probe-pairs", selected=visitor.selected, size=96, view="pair"))
    st.caption(plain(f"{_title(asked)}."))
    with menu:
        figure = partial(_pair_figure, before, after, seeds, _title(asked))
        line = ablate_command(visitor, asked, seeds, fresh(visitor, FRESH).seeds)
        words = measured(f"{_title(asked)}: before and after.", generator, spec)
        take_away(visitor, "pairs", {}, {"pairs": figure}, line, words)


def _title(asked: Asked) -> str:
    title = str(asked.intervention)
    return title[:1].upper() + title[1:]


def _pair_figure(before: Pixels, after: Pixels, seeds: Sequence[int], title: str) -> Figure:
    from dissect.figures import pair_figure

    return pair_figure(np.asarray(before), after, list(seeds), title)


# What it changes


def _effect(visitor: Session, asked: Asked) -> None:
    """The average causal effect on each concept, measured on request, on pictures that nothing was chosen on."""
    judge, generator, spec = judge_of(visitor), visitor.edited(), fresh(visitor, FRESH)
    layer, units, region = visitor.layer, asked.units, asked.intervention.region
    sets = {"ablated": [ablate(layer, units, region=region)], "chosen": [asked.intervention]}
    inserts = visitor.probe.act == INSERT
    menu = headed(
        "Average causal effect" if inserts else "What ablating changes",
        (
            "Equation 3 of GAN Dissection: the share of pixels of each concept with the units inserted, less that with "
            "them ablated in the same place."
            if inserts
            else "The share of pixels of each concept with the units ablated, less that without."
        )
        + f" Over {len(spec):,} pictures that nothing was chosen on; lines are 95 % bootstrap intervals over pictures.",
    )
    _judged(visitor, judge)
    key = (generator.fingerprint, spec, identity_of(judge), asked.key)

    def work(progress: Progress) -> Effects:
        return causal_effects(
            generator, spec, judge, sets if inserts else {"chosen": sets["chosen"]}, progress
        )

    label = f"Measuring on {counted(len(spec), 'picture')}"
    effects = on_request(visitor, EFFECTS, key, _effects, label, work)
    if effects is None:
        return
    table = effects.average_causal_effect("chosen", "ablated") if inserts else effects.table()
    st.altair_chart(effects_chart(table), key="effect-chart")
    title = _title(asked)
    figure = partial(_changes_figure, table, title)
    with menu:
        line = ablate_command(visitor, asked, SHOWN, spec.seeds)
        words = measured(
            f"{title}: change of each concept's share, {INTERVALS}.", generator, spec, judge.title
        )
        take_away(visitor, "effects", {"effects": table}, {"effects": figure}, line, words)


def _judged(visitor: Session, judge: ConceptSource) -> None:
    """Which concepts judge the pictures, and why not the page's."""
    source = source_of(visitor)
    if not source.pixels_only:
        st.caption(
            f"{plain(source.title)} knows unedited pictures alone: these are judged by {plain(judge.title)}, "
            "which sees pixels."
        )


def _changes_figure(table: pd.DataFrame, title: str) -> Figure:
    from dissect.change_plots import changes_figure

    return changes_figure(table, title)
