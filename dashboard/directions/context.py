"""The panel of a painted context: what is painted, how it becomes a direction, and the direction as it stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.directions.charts import strengths_chart
from dashboard.directions.choices import MATCHES, PAINT, Context, Item
from dashboard.directions.making import made
from dashboard.directions.painting import regions
from dashboard.directions.state import choose, keep
from dashboard.errors import shown
from dashboard.session import Session
from rewrite_core.directions import METHODS, Direction
from rewrite_core.jobs import Progress
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.settings import ModelRef

__all__ = ["painted_context", "request_of"]

PREVIEW = "a painted direction"
"""The purpose of the job that computes it while it is painted."""
RIDGES = [0.0, 0.001, 0.01, 0.1, 1.0]
CONTRAST = 3.0

_made: Budget[Direction] = Budget(32 << 20, lambda direction: direction.vectors.nbytes)


def painted_context(visitor: Session) -> None:
    """What is painted so far, the settings, and the button that puts the direction into the tray."""
    context = visitor.exploring.context
    if context.empty:
        st.caption("Paint what the direction shall find, on a picture or several.")
        if visitor.exploring.view != PAINT:
            st.button(
                "Paint",
                icon=":material/brush:",
                key="context-paint",
                width="stretch",
                on_click=lambda: choose(visitor, view=PAINT),
            )
        return
    regions(visitor)
    _settings(visitor, context)
    if not context.this:
        st.caption("Nothing is added to “this” yet: what shall it find?")
        return
    with shown():
        direction = _preview(visitor, context)
        if direction is None:
            show_work(visitor, PREVIEW)
            return
        _outcome(visitor, context, direction)


def _outcome(visitor: Session, context: Context, direction: Direction) -> None:
    """Its strengths, its name, and the way into the tray."""
    if len(direction.singular_values) > 1:
        st.altair_chart(strengths_chart(direction.singular_values, direction.rank), key="context-strengths")
        st.caption("Singular values: what stands clearly above the rest is worth having as a rank.")
    kept = visitor.tray.get(direction.digest)
    there, named = kept is not None, kept.name if kept else _default_name(visitor)
    name = st.text_input("Name", named, max_chars=60, key=f"context-name-{named}-{there}", disabled=there)
    with st.container(horizontal=True, gap="small"):
        label, icon = ("In the tray", ":material/check:") if there else ("Add to tray", ":material/add:")
        if st.button(label, type="primary", icon=icon, key="context-add", disabled=there):
            request = None if context.that else request_of(visitor, context)
            keep(visitor, Item(direction.renamed(name.strip()), request))
            choose(visitor, view=MATCHES)
            st.rerun()
        st.button(
            "Clear",
            type="tertiary",
            key="context-clear",
            on_click=lambda: choose(visitor, context=replace(context, this=(), that=(), protect=())),
        )


def _preview(visitor: Session, context: Context) -> Direction | None:
    """The direction of what is painted now, at the session's layer; None while it is computed."""
    generator, request, that = visitor.generator, request_of(visitor, context), context.that
    owner = visitor.visitor

    def work(progress: Progress) -> Direction:
        return made(generator, request, that, owner=owner, progress=progress)

    key = (generator.fingerprint, request.to_json(), that)
    return brought(visitor, PREVIEW, key, _made, f"Computing the direction at {visitor.layer}", work)


def request_of(visitor: Session, context: Context) -> EditRequest:
    """What is painted, as an edit without anything to copy: how contexts are kept and handed on."""
    generator = visitor.generator
    return EditRequest(
        key=context.this,
        protect=context.protect,
        layer=visitor.layer,
        rank=1 if context.that else context.rank,
        direction=context.settings,
        latents=visitor.latents,
        model=ModelRef(name=generator.name, fingerprint=generator.pristine.fingerprint),
    )


def _settings(visitor: Session, context: Context) -> None:
    """Method and rank in sight, the rest one click away; a difference has neither."""
    if context.that:
        st.caption("A difference: what tells “this” from “not that”.")
    else:
        method, rank = st.columns([1.5, 1])
        with method:
            st.selectbox("Method", list(METHODS), help=_METHODS, **_setting(visitor, "method"))
        with rank:
            st.number_input(
                "Rank",
                1,
                visitor.generator.layers[visitor.layer].in_channels,
                help="How many directions the context gets.",
                **bound(
                    "context-rank",
                    context.rank,
                    lambda rank: choose(visitor, context=replace(visitor.exploring.context, rank=int(rank))),
                ),
            )
    with st.popover("More settings", width="stretch"):
        st.select_slider(
            "Ridge",
            sorted({*RIDGES, context.settings.ridge}),
            help="Added to C, in units of its mean eigenvalue. 0 is the paper's mode; 0.1 is safe.",
            **_setting(visitor, "ridge"),
        )
        st.toggle(
            "I painted all of it in these pictures",
            help="Contrast: what was left unpainted in the pictures counts as not meant.",
            **bound(
                "context-contrast",
                context.settings.contrast > 0,
                lambda on: _set(visitor, "contrast", CONTRAST if on else 0.0),
                hidden=True,
            ),
        )
        st.number_input("Weight of protected regions", 0.0, step=1.0, **_setting(visitor, "protect"))


def _setting(visitor: Session, name: str) -> dict[str, Any]:
    value = getattr(visitor.exploring.context.settings, name)
    return bound(f"context-{name}-of", value, lambda chosen: _set(visitor, name, chosen), hidden=True)


def _set(visitor: Session, name: str, value: Any) -> None:
    context = visitor.exploring.context
    choose(visitor, context=replace(context, settings=context.settings.model_copy(update={name: value})))


def _default_name(visitor: Session) -> str:
    """``context 1``, ``context 2`` …: the first that no direction of the tray has."""
    taken = {item.name for item in visitor.tray}
    return next(name for number in range(1, len(taken) + 2) if (name := f"context {number}") not in taken)


_METHODS = (
    "mean: the one query of the mean key, C⁻¹k, the best at finding. zca: leading directions of the whitened keys, as "
    "published; of any rank. svd: of the queries C⁻¹k. gandissect: single units. plain: the mean key, not whitened."
)
