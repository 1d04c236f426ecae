"""The view Effect: pictures with more of what a direction matches, with less, or with none."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.background import show_work
from dashboard.binding import bound
from dashboard.directions.choices import SCALES, Item
from dashboard.directions.exporting import scale_command
from dashboard.directions.found import SEARCH, Found, found_before, found_of
from dashboard.directions.linking import write_address
from dashboard.directions.plots import channels_chart, effect_bar, effect_picture, greatest
from dashboard.directions.scaling import SCALING, ZERO, Outcome, outcome, outcome_before
from dashboard.directions.state import choose, chosen
from dashboard.directions.taking import headed, take_away
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery, range_box
from dashboard.session import Session
from dashboard.text import plain
from dashboard.words import percent, share
from dissect.provenance import measured
from dissect.scaled import INSIDE
from rewrite_core.pictures import encode_png, enlarge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["doing"]

UNCHANGED = 1.0
"""The scale that leaves everything as it is."""
SHOWN = 8
"""Pictures, unless others are asked for."""
CHANNELS = 12
"""Output channels that are shown."""
SIDE, BESIDE, MAP = 112, 84, 208
"""Of a picture on screen, of one that two galleries share the room with, and of the map of changes."""
BEST, FRESH = "Top matches", "Fresh"


def doing(visitor: Session) -> None:
    """The slider over pairs of pictures; beside them where they change, and what the layer writes."""
    item = chosen(visitor)
    if item is None:
        st.caption("A direction of the tray can be scaled or removed here. Make one on the left.")
        return
    found = found_of(visitor, item)
    if found is None:
        show_work(visitor, SEARCH)
        found = found_before(visitor)
    if found is None or found.item.key != item.key:
        return
    _live(visitor, item, found)


@st.fragment
def _live(visitor: Session, item: Item, found: Found) -> None:
    """All of it, in a fragment: the slider waits for nothing else on the page."""
    with shown():
        _scaled(visitor, item, found)
    write_address(visitor)


def _scaled(visitor: Session, item: Item, found: Found) -> None:
    menu = headed(
        f"{plain(item.name)} :gray[at {plain(item.direction.layer)}]",
        "The part of each key that it matches is scaled by α: the weight becomes W − (1 − α) W C Dᵀ (D C Dᵀ)⁻¹ D.",
    )
    keep = _settings(visitor)
    seeds = _seeds(visitor, found)
    level = found.level(INSIDE)
    made = outcome(visitor, item, seeds, visitor.exploring.alpha, level)
    if made is None:
        show_work(visitor, SCALING)
        before = outcome_before(item)
        if before is not None:
            _outcome(visitor, item, before, None)
        return
    published = outcome(visitor, item, seeds, None, level) if visitor.exploring.zero else None
    with keep:
        _keep_button(visitor, made)
    with menu:
        _take_away(visitor, item, made, published)
    _outcome(visitor, item, made, published)


def _outcome(visitor: Session, item: Item, made: Outcome, published: Outcome | None) -> None:
    """Pairs on the left; on the right where they change, and what the layer writes."""
    left, right = st.columns([2.7, 1], gap="medium")
    with left, shown():
        _pictures(visitor, item, made, published)
    with right, shown():
        _effects(made, published)
        _channels(visitor, item, made)


# What is asked for


def _settings(visitor: Session) -> DeltaGenerator:
    """The scale, which pictures, and the comparison; at the end of the line the place for a button."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.slider(
            "Scale α",
            SCALES[0],
            SCALES[-1],
            step=SCALES[1] - SCALES[0],
            width=240,
            help="1 leaves what it matches as it is, 0 removes it, 2 doubles it, −1 turns it round.",
            **bound("directions-alpha", visitor.exploring.alpha, lambda alpha: choose(visitor, alpha=alpha)),
        )
        st.segmented_control(
            "Pictures",
            [BEST, FRESH],
            required=True,
            **bound(
                "directions-fresh",
                FRESH if visitor.exploring.fresh else BEST,
                lambda name: choose(visitor, fresh=name == FRESH),
            ),
        )
        st.toggle(
            "Published zero",
            help="W (I − D⁺D): it takes the query out of the weight, not the pattern C d that it stands for.",
            **bound("directions-zero", visitor.exploring.zero, lambda on: choose(visitor, zero=on)),
        )
        st.space("stretch")
        return st.container(width="content")


def _seeds(visitor: Session, found: Found) -> tuple[int, ...]:
    """The best matches, or the pictures that the visitor names: at first some that were not searched."""
    if not visitor.exploring.fresh:
        return tuple(found.seeds("Top", SHOWN))
    first = len(found.matches.spec)
    return range_box("Numbers", key="directions-numbers", default=f"{first}-{first + SHOWN - 1}")


def _keep_button(visitor: Session, made: Outcome) -> None:
    if st.button(
        "Keep as a rule",
        icon=":material/check:",
        key="directions-keep",
        disabled=visitor.exploring.alpha == UNCHANGED,
        help="Every page then draws with it, until it is taken off in the sidebar.",
    ):
        visitor.add(made.rule)
        choose(
            visitor, alpha=UNCHANGED
        )  # pictures are now as they were shown, and scaling starts anew from there
        st.rerun()  # the sidebar has a rule more


# What becomes of the pictures


def _pictures(visitor: Session, item: Item, made: Outcome, published: Outcome | None) -> None:
    """Pairs under the rule, what the numbers say, and pairs under the published zero if they are wanted."""
    side = SIDE if published is None else BESIDE
    _pairs(visitor, made, "directions-pairs", side)
    st.markdown(_words(visitor, item, made))
    for line in _about_rules(visitor, item):
        st.caption(line)
    if published is not None:
        st.markdown("**Published zero**")
        _pairs(visitor, published, "directions-zero-pairs", side)
        st.markdown(f"{_changed(published)}; {percent(published.left)} of its pattern is left.")
    elif visitor.exploring.zero:
        show_work(visitor, ZERO)


def _pairs(visitor: Session, made: Outcome, key: str, side: int) -> None:
    pictures = [
        Picture(seed, before, after, note=share(change))
        for seed, before, after, change in zip(
            made.spec.seeds, made.before, made.after, made.changes["change"], strict=True
        )
    ]
    visitor.select(gallery(pictures, key=key, selected=visitor.selected, size=side, view="pair"))


def _words(visitor: Session, item: Item, made: Outcome) -> str:
    """One line of numbers."""
    which = "it matches" if item.direction.rank == 1 else f"d{visitor.exploring.row + 1} matches"
    return (
        f"{_changed(made, which)}. Of its pattern {percent(made.left)} is left; "
        f"the published zero leaves {percent(made.published)}."
    )


def _changed(made: Outcome, which: str = "it matches") -> str:
    inside = made.inside
    if not inside.share:
        return f"Changes {share(inside.outside)}; nothing here is above its {INSIDE:g} quantile"
    return (
        f"Changes {share(inside.inside)} inside what {which} (above its {INSIDE:g} quantile), "
        f"{share(inside.outside)} elsewhere"
    )


def _about_rules(visitor: Session, item: Item) -> list[str]:
    """What a visitor should know of the rules that are on, where there is something to know."""
    active, layers = visitor.rules.active, list(visitor.generator.layers)
    said = [
        f"“{plain(rule.name)}” is on: “before” has it already, and the scale acts on top of it."
        for rule in active
        if rule.provenance.result.get("direction") == item.direction.digest
    ]
    if any(layers.index(rule.layer) < layers.index(item.direction.layer) for rule in active):
        said.append("A rule at an earlier layer is on; the statistics are those of the network without it.")
    return said


# Where, and through what


def _effects(made: Outcome, published: Outcome | None) -> None:
    """The mean change of each pixel, on a scale that is stated; that of the published zero on the same."""
    maps = {"": made.effect} if published is None else {"scaled": made.effect, "zero": published.effect}
    most = greatest(*maps.values())
    st.markdown(
        "**Where it changes**", help="Mean absolute difference over these pictures and the three channels."
    )
    for column, (name, effect) in zip(st.columns(len(maps), gap="small"), maps.items(), strict=True):
        content = encode_png(enlarge(effect_picture(effect, most), max(1, 256 // effect.shape[1])))
        column.image(content, name or None, width=MAP if len(maps) == 1 else "stretch")
    with st.container(width=MAP):
        st.html(effect_bar(most))


def _channels(visitor: Session, item: Item, made: Outcome) -> None:
    """The output channels that the vector that is looked at writes to."""
    row = min(visitor.exploring.row, item.direction.rank - 1)
    rows = made.channels[made.channels["direction"] == row]
    shown_rows = rows.head(CHANNELS)
    st.markdown(
        "**Writes to**",
        help="Output channels of the value W C d / (dᵀ C d), by their share of its squared norm.",
    )
    st.altair_chart(channels_chart(shown_rows), key="directions-channels")
    st.caption(
        f"{percent(float(shown_rows['share'].sum()))} of it in {len(shown_rows)} of {len(rows)} channels."
    )


# What is taken away


def _take_away(visitor: Session, item: Item, made: Outcome, published: Outcome | None) -> None:
    alpha = visitor.exploring.alpha
    figures = {
        "scaled": partial(_scaled_figure, item.name, alpha, made),
        "channels": partial(_channels_figure, item.name, made),
    }
    if published is not None:
        figures["published-zero"] = partial(_zero_figure, item.name, published)
    tables = {"changes": made.changes, "channels": made.channels}
    words = measured(f"{item.name} of {item.direction.layer}, scaled by α = {alpha:g}.", made.view, made.spec)
    line = scale_command(visitor, item, alpha, made.spec)
    take_away(visitor, "scaled", tables, figures, line, words)


def _scaled_figure(name: str, alpha: float, made: Outcome) -> Figure:
    from dissect.direction_figures import scaled_figure

    rows = dict(sorted({alpha: made.after, UNCHANGED: made.before}.items()))
    effects = {} if alpha == UNCHANGED else {alpha: made.effect}
    return scaled_figure(rows, made.spec.seeds, effects, name)


def _zero_figure(name: str, published: Outcome) -> Figure:
    from dissect.figures import pair_figure

    return pair_figure(published.before, published.after, published.spec.seeds, f"{name}, published zero")


def _channels_figure(name: str, made: Outcome) -> Figure:
    from dissect.direction_plots import channels_figure

    return channels_figure(made.channels, name)
