"""Where the layer finds what was painted: Match, for what is on the canvas now, and the view Matches.

*Search*, in the panel, looks for the whole context along the first direction that a rule of it would have. *Match*
looks for one region and needs no edit: its query is C⁻¹ k̄, the mean key under the mask after whitening (the published
interface's "match selection"), with the ridge of the edit's settings. What it looked for stays in the edit's file as
its `query`, which has no effect on the rule.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard.gallery import Picture, gallery, range_box
from dashboard.progress import jobs
from dashboard.session import Session, drawn, service, statistics_of
from dashboard.solving import SEARCHED
from rewrite_core.directions import matches
from rewrite_core.directions.matches import Matches
from rewrite_core.jobs import Progress
from rewrite_core.pictures import blend_heat, enlarge, overlay_heat
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.rewrite import direction_of

__all__ = ["match_selection", "matched", "shown_matches"]

TOP = 24
BEST, NUMBERED = "best", "by number"
OVERLAYS = ("outline", "heat", "none")


# Match


def match_selection(visitor: Session, region: Painted) -> None:
    """Look for `region` in many pictures, in place of a search under way, and note it as the draft's query."""
    generator, owner, layer = visitor.generator, visitor.visitor, visitor.layer
    request = matched(visitor.request(), region)
    spec = request.latents.spec(range(SEARCHED))

    def work(progress: Progress) -> Matches:
        statistics = statistics_of(generator, layer, progress, visitor=owner)
        query = direction_of(generator, request, statistics).vectors[0]
        return matches.search(generator, layer, query, spec, store=service().store, progress=progress)

    visitor.change(query=region)
    if visitor.tried:  # a query changes no rule, so there is nothing to solve again
        visitor.tried = visitor.tried.model_copy(update={"query": region})
    if visitor.searching:
        visitor.searching.cancel()
    visitor.searching = jobs().submit(owner, "Matching", work)


def matched(request: EditRequest, region: Painted) -> EditRequest:
    """A request whose direction is C⁻¹ times the mean key of `region`, whatever else `request` has painted."""
    mean = request.direction.model_copy(update={"method": "mean", "contrast": 0.0})
    return EditRequest(key=(region,), latents=request.latents, layer=request.layer, direction=mean)


# The view


def shown_matches(visitor: Session) -> None:
    """The pictures that match best, or those that are named, with where they match; a click selects one to paint on."""
    found = visitor.matches
    if found is None:
        st.caption("Paint a context and press Search: the pictures that show it most appear here.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        which = st.segmented_control(
            "Pictures", (BEST, NUMBERED), default=BEST, required=True, key="matched-which"
        )
        shows = st.segmented_control("Overlay", OVERLAYS, default="outline", required=True, key="overlay")
        seeds = _numbered(found) if which == NUMBERED else tuple(found.top(TOP))
    if which == BEST:
        st.caption(f"The {TOP} of {len(found.spec):,} pictures that match best, best first.")
    pictures = _overlaid(visitor, found, seeds, shows)
    visitor.select(gallery(pictures, key="matches", selected=visitor.selected, size=128))
    st.caption("A picture selected here is the one to paint on.")


def _numbered(found: Matches) -> tuple[int, ...]:
    """The pictures that are named, as far as they were searched."""
    named = range_box("Numbers", key="matched-seeds")
    known = tuple(seed for seed in named if seed in found.spec.seeds)
    if known != named:
        st.caption(f"Searched were {found.spec.seeds[0]}–{found.spec.seeds[-1]}; others are left out.")
    return known


def _overlaid(visitor: Session, found: Matches, seeds: tuple[int, ...], shows: str) -> list[Picture]:
    """Pictures with their score, and with the heat as `shows` says."""
    images = enlarge(drawn(replace(found.spec, seeds=seeds), visitor.generator), visitor.enlargement)
    level, high = found.outline, float(found.heat.max())
    pictures: list[Picture] = []
    for seed, image in zip(seeds, images, strict=True):
        heat = found.of(seed)
        if shows == "outline":
            image = overlay_heat(image, heat, level)
        elif shows == "heat":
            image = blend_heat(image, heat, 0.0, high)
        pictures.append(Picture(seed, image, note=f"{float(heat.max()):.2f}"))
    return pictures
