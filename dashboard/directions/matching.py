"""The view Matches: where a direction is found in many pictures, which show it most, and how much the others do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, get_args

import streamlit as st

from dashboard.background import show_work
from dashboard.binding import bound
from dashboard.directions.charts import scale_bar, scores_chart
from dashboard.directions.choices import FEWEST, LARGEST, QUANTILES, Overlay, Range
from dashboard.directions.exporting import match_command
from dashboard.directions.found import (
    SCALE,
    SEARCH,
    Found,
    found_before,
    found_of,
    look_closely,
    looked_at,
    overlaid,
)
from dashboard.directions.moments import noise_caption
from dashboard.directions.nearby import nearby
from dashboard.directions.state import choose, chosen
from dashboard.directions.taking import headed, take_away
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery
from dashboard.session import Session
from dashboard.text import plain
from dashboard.words import counted, size
from dissect.patches import patch_average
from dissect.provenance import measured
from rewrite_core.directions.index import INDEX_BYTES, index_bytes
from rewrite_core.pictures import encode_png, enlarge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["matching", "samples_menu"]

SIDE, COLUMNS = 84, 6
"""Of a picture on screen, and how many are in a row."""
PATCHES, PATCH, AVERAGE = 9, 36, 72
"""Patches of the best, the side of one on screen, and of their average."""
WIDE = COLUMNS * (SIDE + 10)
"""Pixels of the gallery."""
ROW = 8
"""Pictures of a row in the figure."""


def matching(visitor: Session) -> None:
    """Gallery, distribution and patches; below them one picture closely, and what the layer treats as the same."""
    item = chosen(visitor)
    if item is None:
        _nothing(visitor)
        return
    found = found_of(visitor, item)
    if found is None:
        show_work(visitor, SEARCH)
        found = found_before(visitor)
    if found is None:
        return
    with st.container(horizontal=True, gap="medium"):
        left, right = (
            st.container(width=WIDE),
            st.container(),
        )  # below each other where there is no room beside
    with left, shown():
        _ranking(visitor, found)
    with right, shown():
        _distribution(visitor, found)
        _patches(visitor, found)
        noise_caption(visitor, found.item)
    with shown():
        nearby(visitor, found)


def samples_menu(visitor: Session) -> None:
    """A menu that says how many samples are searched, and changes it."""
    count = visitor.exploring.samples
    with st.popover(f"{count:,}", icon=":material/tune:", key="directions-settings", help="Samples"):
        with st.form("directions-form", border=False):
            samples = st.number_input(
                "Samples",
                FEWEST,
                LARGEST,
                count,
                step=1000,
                help="Pictures that are searched for matches, and that the spectrum is over.",
            )
            if st.form_submit_button("Search", type="primary", icon=":material/search:"):
                choose(visitor, samples=int(samples), picture=None, place=None)
                st.rerun()
        st.caption(_index_words(visitor))


def _index_words(visitor: Session) -> str:
    """What the search keeps on disk."""
    item = chosen(visitor)
    layer = visitor.generator.layer(item.direction.layer if item else visitor.layer)
    needed, name = index_bytes(layer, visitor.exploring.samples), plain(layer.name)
    if needed > INDEX_BYTES:
        return f"Keys of {name} would take {size(needed)} on disk, above {size(INDEX_BYTES)}: each search draws anew."
    return f"Keys of {name} are kept compactly, {size(needed)} on disk: later searches read them."


def _nothing(visitor: Session) -> None:
    st.markdown(f"**What does {plain(visitor.generator.name)} look up?**")
    st.caption(
        "A direction is a question to a layer: paint a context, name a unit, or let the layer's keys propose some, on "
        "the left. The pictures that match it appear here."
    )


# Pictures


def _ranking(visitor: Session, found: Found) -> None:
    """The gallery, with what is drawn over it."""
    item, matches = found.item, found.matches
    about = (
        f"Score: the greatest heat d · k in a picture. {len(matches.spec):,} samples, drawn without rules. "
        "Outlined: heat above the quantile, over all positions of all samples."
        + (
            f" Exact for the best {matches.sure:,}; the rest ± {matches.error:.2g}."
            if not matches.exact
            else ""
        )
    )
    menu = headed(f"{plain(item.name)} :gray[at {plain(item.direction.layer)}]", about)
    _looks(visitor)
    with menu:
        _take_away(visitor, found)
    if visitor.exploring.overlay == "Heat":
        st.html(scale_bar(SCALE))
    seeds = found.seeds(visitor.exploring.range)
    heats = [matches.of(seed) for seed in seeds]
    images = overlaid(visitor, found, found.pictures(seeds), heats)
    pictures = [
        Picture(seed, image, note=f"{float(heat.max()):.2f}")
        for seed, image, heat in zip(seeds, images, heats, strict=True)
    ]
    selected = looked_at(visitor, found)
    picked = gallery(pictures, key="matches-gallery", selected=selected, size=SIDE, columns=COLUMNS)
    if picked != selected:
        look_closely(visitor, picked)


def _looks(visitor: Session) -> None:
    """Which part of the ranking, and what is drawn over it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _choice(visitor, "range", get_args(Range))
        st.space("stretch")
        _choice(visitor, "overlay", get_args(Overlay))


def _choice(visitor: Session, name: str, offered: Sequence[str]) -> None:
    st.segmented_control(
        name.capitalize(),
        offered,
        required=True,
        label_visibility="collapsed",
        **bound(
            f"directions-{name}",
            getattr(visitor.exploring, name),
            lambda value: choose(visitor, **{name: value}),
        ),
    )


# Numbers and patches


def _distribution(visitor: Session, found: Found) -> None:
    """How the scores of all pictures are distributed."""
    matches, level = found.matches, found.level(visitor.exploring.quantile)
    st.markdown(
        "**Scores**", help="Of all pictures. Dashed: the level that is outlined; the mark: the picture below."
    )
    selected = looked_at(visitor, found)
    score = float(matches.of(selected).max()) if selected in matches.spec.seeds else None
    st.altair_chart(scores_chart(matches.scores.numpy(), level, score), key="scores-chart")
    st.select_slider(
        "Outlined above the quantile",
        QUANTILES,
        format_func=lambda value: f"{value:g}",
        help="Of the heat over all positions of all samples.",
        **bound(
            "directions-quantile",
            visitor.exploring.quantile,
            lambda value: choose(visitor, quantile=value),
        ),
    )
    outlined = int((matches.scores > level).sum())
    st.caption(
        f"{outlined:,} of {counted(len(matches.spec), 'picture')} are outlined somewhere, above {level:.3g}."
    )


def _patches(visitor: Session, found: Found) -> None:
    """What the best matches look like, each around its hottest position, and their average."""
    made, seeds = found.patches(PATCHES), found.seeds("Top", PATCHES)
    st.markdown(
        "**Patches**", help=f"Around the hottest position of the best {PATCHES}; large: their average."
    )
    with st.container(horizontal=True, gap="small", wrap=False):
        average, each = st.container(width=AVERAGE), st.container()
    with average:
        factor = max(1, AVERAGE // made.shape[1])
        st.image(encode_png(enlarge(patch_average(made), factor)), width=AVERAGE)
    with each:
        selected = looked_at(visitor, found)
        pictures = [Picture(*pair) for pair in zip(seeds, made, strict=True)]
        picked = gallery(pictures, key="matches-patches", selected=selected, size=PATCH, columns=3)
        if picked != selected:
            look_closely(visitor, picked)


def _take_away(visitor: Session, found: Found) -> None:
    name = "matches"
    figures = {
        "matches": partial(_matches_figure, visitor.exploring.quantile, found),
        "scores": partial(_scores_figure, found),
        "patches": partial(_patches_figure, found),
    }
    words = measured(
        f"Matches of the direction {found.item.name} of {found.item.direction.layer}.",
        found.generator,
        found.matches.spec,
    )
    line = match_command(visitor, found)
    take_away(visitor, name, {name: found.matches.table()}, figures, line, words)


def _matches_figure(quantile: float, found: Found) -> Figure:
    from dissect.direction_figures import matches_figure, strip

    rows = {part: strip(found.generator, found.matches, found.seeds(part, ROW)) for part in get_args(Range)}
    return matches_figure(rows, found.level(quantile))


def _scores_figure(found: Found) -> Figure:
    from dissect.direction_plots import scores_figure

    return scores_figure(found.matches)


def _patches_figure(found: Found) -> Figure:
    from dissect.direction_figures import patches_figure

    return patches_figure(found.patches(PATCHES), found.seeds("Top", PATCHES))
