"""The published solvers on screen, with their iterations, learning rate and projection interval, for comparison.

A rule of ours is solved for along the context's directions, where nothing is projected and there is no rate to choose.
Here the same request is solved as that interface does on *Execute Change* (Adam on the whole weight of the layer, which
is projected now and then) or on *Overfit* (Adam on all weights from the layer on, on pixels). What comes out goes onto
the rule stack, beside ours.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.errors import shown
from dashboard.session import Session, statistics_of
from dashboard.solving import keep_rules, ready
from dashboard.text import plain
from rewrite_core.errors import Cancelled
from rewrite_core.jobs import Progress
from rewrite_core.rules import overfit as pixels
from rewrite_core.rules.baselines import EVERY, ITERATIONS, RATE, projected
from rewrite_core.rules.made import Made, Make
from rewrite_core.rules.rewrite import completed

__all__ = ["as_published"]

PURPOSE = "as published"
PROJECTED, OVERFIT = "Execute Change", "Overfit"
"""What the buttons there are called."""
STEPS = {PROJECTED: ITERATIONS, OVERFIT: pixels.ITERATIONS}
MOST = 100_000
_WANTED = "published-wanted"

_made: Budget[Made] = Budget(256 << 20, lambda made: sum(rule.delta.nbytes for rule in made.rules))


@dataclass(frozen=True)
class _Way:
    """What that interface lets one choose."""

    name: str
    iterations: int
    rate: float
    every: int

    @property
    def make(self) -> Make:
        """The solver, with its numbers."""
        if self.name == OVERFIT:
            return partial(pixels.overfit, iterations=self.iterations, rate=self.rate)
        return partial(projected, iterations=self.iterations, rate=self.rate, every=self.every)


def as_published(visitor: Session) -> None:
    """Which button of that interface, its numbers, and Solve; then what came out, and keeping it."""
    missing = ready(visitor)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        way = _chosen()
        pressed = st.button("Solve as published", key="published-solve", disabled=bool(missing))
    if missing:
        st.caption(plain(missing))
        return
    if pressed:
        st.session_state[_WANTED] = way
    wanted: _Way | None = st.session_state.get(_WANTED)
    if wanted:
        with shown():
            _outcome(visitor, wanted)


def _chosen() -> _Way:
    """The widgets."""
    name = st.segmented_control(
        "As its button", (PROJECTED, OVERFIT), default=PROJECTED, required=True, key="published-way"
    )
    iterations = st.number_input(
        "Iterations", 1, MOST, STEPS[name], key=f"published-iterations-{name}", width=120
    )
    rate = st.number_input(
        "Learning rate",
        1e-4,
        10.0,
        RATE,
        0.01,
        format="%.4f",
        key="published-rate",
        width=140,
        help="Of Adam, as a share of a weight's RMS, which is about 1 in the published models",
    )
    every = st.number_input(
        "Projected every",
        1,
        MOST,
        EVERY,
        key="published-every",
        width=140,
        disabled=name == OVERFIT,
        help="Steps between two projections of the weight onto the context's directions",
    )
    return _Way(name, iterations, rate, every)


def _outcome(visitor: Session, way: _Way) -> None:
    """The true loss, and Keep; or how far it is."""
    made = _solved(visitor, way)
    if made is None:
        show_work(visitor, PURPOSE)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f"{way.name}: **{made.seconds:.2f} s** · loss of {made.measured} **{made.loss:.3g}** "
            f"(was {made.loss_before:.3g}) after {made.iterations:,} steps",
            help="Of the weights that are kept, after the last projection; the loop there shows a lower one.",
            width="content",
        )
        st.button(
            "Keep",
            icon=":material/check:",
            key="published-keep",
            help="Puts it on the rule stack, in place of what is being tried",
            on_click=keep_rules,
            args=(visitor, made.rules),
        )


def _solved(visitor: Session, way: _Way) -> Made | None:
    """The request, solved that way; None while it is."""
    generator, owner = visitor.generator.pristine, visitor.visitor
    request = completed(visitor.request(), generator)
    layer = str(request.layer)

    def work(progress: Progress) -> Made:
        statistics = statistics_of(generator, layer, progress, visitor=owner)
        made = way.make(generator, request, statistics, progress)
        if made.stopped == "cancelled":  # half of a schedule is no result of it
            raise Cancelled
        return made

    key: Hashable = (generator.fingerprint, request.to_json(), way)
    return brought(visitor, PURPOSE, key, _made, "Solving as published", work)
