"""One picture closely, and the contexts that the layer treats as the one that was clicked in it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st
import torch
from torch import Tensor

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.directions.charts import CELL, positions_chart
from dashboard.directions.choices import Place
from dashboard.directions.exporting import nearest_command
from dashboard.directions.found import SHOWN, Found, look_closely, looked_at, overlaid
from dashboard.directions.state import choose
from dashboard.directions.taking import headed, take_away
from dashboard.gallery import Picture, gallery
from dashboard.session import Session, service
from dashboard.text import plain
from dissect.provenance import measured
from rewrite_core.directions.matches import Matches, nearest
from rewrite_core.generators.own import OwnPicture, PictureId
from rewrite_core.jobs import Progress
from rewrite_core.memory import heat as heat_of
from rewrite_core.pictures import enlarge, overlay_heat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["nearby"]

NEAREST = "nearest contexts"
"""The purpose of the job that looks for them."""
LARGE, SIDE, COLUMNS = 272, 72, 6
"""Side of the large picture on screen, of its neighbours, and how many are in a row."""
LIKE = 0.99
"""The quantile of the similarity that is outlined."""
ROW = 8

_near: Budget[Matches] = Budget(256 << 20, lambda found: found.heat.nbytes)


def nearby(visitor: Session, found: Found) -> None:
    """The picture that is looked at on the left; on the right what the layer takes for the same as its position."""
    picture = looked_at(visitor, found)
    heat = _heat(found, picture)
    place = _place(visitor, picture, heat)
    with st.container(horizontal=True, gap="medium"):
        left, right = (
            st.container(width=LARGE),
            st.container(),
        )  # below each other where there is no room beside
    with left:
        _closely(visitor, found, picture, heat, place)
    with right:
        if place is None:
            st.caption("Neighbours are looked for from numbered pictures.")
        else:
            _neighbours(visitor, found, place)


# One picture


def _closely(visitor: Session, found: Found, picture: PictureId, heat: Tensor, place: Place | None) -> None:
    """The picture with its heat; a click on a position asks about it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", wrap=False):
        name = "" if isinstance(picture, int) else f" {plain(str(picture))}"
        st.markdown(
            f"**Picture{name}**",
            help="Hover: heat and its quantile over all positions of all samples. Click a position to ask about it.",
        )
        st.space("stretch")
        number = st.number_input(
            "Picture",
            0,
            2**32 - 1,
            picture if isinstance(picture, int) else None,
            key=f"directions-picture-{picture}",
            label_visibility="collapsed",
            width=110,
        )
    if number is not None and number != picture:
        look_closely(visitor, int(number))
    image = visitor.pictures([picture])[0]
    shown = overlaid(visitor, found, image[None], [heat])[0]
    quantiles = found.quantiles(heat)  # [h, w]
    key = f"positions-{picture}"
    st.altair_chart(
        positions_chart(shown, heat, quantiles, place, LARGE),
        width="content",
        key=key,
        on_select=partial(_picked, visitor, picture, key),
        selection_mode=CELL,
    )
    share = 100 * float(quantiles.max())
    st.caption(f"Its greatest heat is {float(heat.max()):.3g}, above {share:.4f} % of all positions.")


def _picked(visitor: Session, picture: PictureId, key: str) -> None:
    points: list[Any] = st.session_state[key]["selection"][CELL]
    if points and isinstance(picture, int):
        choose(visitor, picture=picture, place=(picture, int(points[0]["row"]), int(points[0]["column"])))


@torch.no_grad()
def _heat(found: Found, picture: PictureId) -> Tensor:
    """The heat [h, w] over any picture, one of the samples or not."""
    if picture in found.matches.spec.seeds:
        return found.matches.of(picture)
    generator, layer = found.generator, found.item.direction.layer
    if isinstance(picture, OwnPicture):
        latents = picture.latents(generator)
    else:
        latents = generator.latents(replace(found.matches.spec, seeds=(picture,)))
    keys = generator.layer(layer).inside(generator.keys(latents, layer).keys)  # [1, C, h, w]
    return heat_of(keys, found.query)[0].cpu()


def _place(visitor: Session, picture: PictureId, heat: Tensor) -> Place | None:
    """The position that was clicked in this picture, or the hottest; none in pictures of the visitor's own."""
    if not isinstance(picture, int):
        return None
    place, (height, width) = visitor.exploring.place, heat.shape
    if place is not None and place[0] == picture and place[1] < height and place[2] < width:
        return place
    row, column = divmod(int(heat.argmax()), width)
    return picture, row, column


# What is like it


def _neighbours(visitor: Session, found: Found, place: Place) -> None:
    """The pictures with the most similar positions."""
    seed, row, column = place
    layer, generator, spec = found.item.direction.layer, found.generator, found.matches.spec
    menu = headed(
        f"What else does {plain(layer)} treat as this?",
        f"Whitened cosine of the key at row {row}, column {column} of picture {seed} with every position of "
        f"{len(spec):,} samples, best first. Outlined: above its {LIKE:g} quantile.",
    )

    def work(progress: Progress) -> Matches:
        return nearest(generator, layer, seed, (row, column), spec, store=service().store, progress=progress)

    key = (generator.fingerprint, layer, place, spec)
    near = brought(visitor, NEAREST, key, _near, f"Looking for contexts like this in {layer}", work)
    if near is None:
        show_work(visitor, NEAREST)
        return
    seeds = near.top(min(SHOWN, len(spec)))
    level = near.level(LIKE)
    images = enlarge(found.pictures(seeds), visitor.enlargement)
    pictures = [
        Picture(
            one,
            image if visitor.exploring.overlay == "None" else overlay_heat(image, near.of(one), level),
            note=f"{float(near.of(one).max()):.2f}",
        )
        for one, image in zip(seeds, images, strict=True)
    ]
    with menu:
        words = measured(
            f"Positions of {layer} like row {row}, column {column} of picture {seed}.", generator, spec
        )
        take_away(
            visitor,
            "nearest",
            {"nearest": near.table()},
            {"nearest": partial(_figure, found, near, seeds[:ROW], level)},
            nearest_command(visitor, found, place),
            words,
        )
    picked = gallery(pictures, key="nearest-gallery", selected=seed, size=SIDE, columns=COLUMNS)
    if picked != seed:
        look_closely(visitor, picked)


def _figure(found: Found, near: Matches, seeds: list[int], level: float) -> Figure:
    from dissect.direction_figures import matches_figure, strip

    return matches_figure({"nearest": strip(found.generator, near, seeds)}, level)
