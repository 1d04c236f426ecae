"""Grow to similar: beside a canvas, what is painted grows to what the layer takes for the same, by a slider.

    painted = paint(picture, role="edit", image=image, …)
    grow_to_similar(visitor, "edit", image, visitor.selected, painted)

The slider grows anew from what was painted when the button was pressed, so that it shrinks a mask as it grows it, and
all its positions are one step of Undo. As soon as anything else is painted, that is what the button starts from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from torch import Tensor

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.canvas import PaintedMask, load_mask
from dashboard.errors import shown
from dashboard.session import Session, statistics_of
from rewrite_core.generators.own import PictureId
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Mask
from rewrite_core.rules.growing import alike, grown
from rewrite_core.rules.regions import Painted

__all__ = ["SIMILAR", "grow_to_similar"]

SIMILAR = 0.3
"""Where the slider begins: on the embedded generators, between a thing and what merely borders on it."""
PURPOSE = "growing"
CONNECTED, ANYWHERE = "connected", "anywhere"

_alike: Budget[Tensor] = Budget(8 << 20, lambda found: found.nbytes)


@dataclass(frozen=True, eq=False)
class _Growth:
    """What is being grown.

    Attributes:
        canvas: role, image and layer.
        seed: what was painted.
        asked: similarity, and whether connected.
        shown: the mask that was put on the canvas for that; None until it is there.
    """

    canvas: tuple[str, str, str]
    seed: Painted
    asked: tuple[float, bool]
    shown: NDArray[np.bool_] | None = None

    def stands(self, canvas: tuple[str, str, str], mask: NDArray[np.bool_]) -> bool:
        """Whether the canvas still shows what was grown: nothing was painted, erased or taken back since."""
        expected = self.seed.mask.pixels > 0 if self.shown is None else self.shown
        return self.canvas == canvas and np.array_equal(expected, mask)


def grow_to_similar(
    visitor: Session, role: str, image: str, selected: PictureId, painted: PaintedMask
) -> None:
    """The button, the slider, and whether only what touches is taken; grows the mask of the canvas."""
    canvas = (role, image, visitor.layer)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"grow-{role}"):
        pressed = st.button(
            "Grow to similar",
            icon=":material/join_inner:",
            type="tertiary",
            key=f"grow-{role}-now",
            disabled=painted.empty,
            help=f"To what layer {visitor.layer} takes for the same as what is painted, in this picture",
        )
        similarity = st.slider(
            "Similarity",
            0.0,
            1.0,
            SIMILAR,
            0.05,
            key=f"grow-{role}-similarity",
            width=130,
            label_visibility="collapsed",
            help="Less: more is taken for similar",
        )
        where = st.segmented_control(
            "Where",
            (CONNECTED, ANYWHERE),
            default=CONNECTED,
            required=True,
            key=f"grow-{role}-where",
            label_visibility="collapsed",
        )
    asked = (similarity, where == CONNECTED)
    growth: _Growth | None = st.session_state.get("growth")
    if growth is not None and not growth.stands(canvas, painted.mask):
        growth = None
    if pressed:
        seed = growth.seed if growth else Painted(selected, Mask.from_array(painted.mask))
        growth = _Growth(canvas, seed, asked, growth.shown if growth else None)
        _grow(visitor, replace(growth, asked=asked))
    elif growth and (growth.shown is None or growth.asked != asked):
        _grow(visitor, replace(growth, asked=asked))
    else:
        st.session_state["growth"] = growth


def _grow(visitor: Session, growth: _Growth) -> None:
    """Put the grown mask on the canvas, once it is known what is similar."""
    st.session_state["growth"] = growth
    with shown():
        found = _similar(visitor, growth.seed)
        if found is None:
            show_work(visitor, PURPOSE)
            return
        similarity, connected = growth.asked
        mask = grown(growth.seed, found, similarity, connected=connected).pixels > 0
        role, image, _ = growth.canvas
        load_mask(role, image, mask, again=growth.shown is not None)
        st.session_state["growth"] = replace(growth, shown=mask)
        st.rerun()


def _similar(visitor: Session, seed: Painted) -> Tensor | None:
    """How similar each position is to `seed`, [h, w]; None while it is computed."""
    generator, layer, latents = visitor.generator, visitor.layer, visitor.latents

    def work(progress: Progress) -> Tensor:
        statistics = statistics_of(generator, layer, progress, visitor=visitor.visitor)
        return alike(generator, layer, seed, statistics, latents)

    key = (generator.fingerprint, layer, latents, seed)
    return brought(visitor, PURPOSE, key, _alike, "Looking for what is similar", work)
