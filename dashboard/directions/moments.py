"""Second moments of a layer as the page keeps them for all visitors: over the usual samples, and over their halves."""

from __future__ import annotations

import streamlit as st
from torch import Tensor

from dashboard.background import brought
from dashboard.budget import Budget
from dashboard.directions.choices import Item
from dashboard.session import Session, service
from dashboard.text import plain
from rewrite_core.directions.spectrum import Halves, halves_of, noise_warning, stability
from rewrite_core.generators import LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.statistics import SecondMoment
from rewrite_core.statistics.layer import SAMPLES

__all__ = ["CERTAINTY", "certainty", "halves", "moment_of", "noise_caption"]

CERTAINTY = "certainty"
"""The purpose of the job that halves the samples for one caption."""

_moments: Budget[Tensor] = Budget(128 << 20, lambda moment: moment.nbytes)
_halves: Budget[Halves] = Budget(128 << 20, lambda both: sum(half.matrix.nbytes for half in both))


def moment_of(visitor: Session, layer: str, progress: Progress | None = None) -> Tensor:
    """C [C, C] of a layer of the generator as it was loaded, over the usual samples; called from a job's thread."""
    pristine, owner = visitor.generator.pristine, visitor.visitor
    spec = LatentSpec.of(range(SAMPLES))

    def gathered() -> Tensor:
        found = service().fetch(pristine, layer, spec, SecondMoment(), visitor=owner, progress=progress)
        return found.matrix

    return _moments.get((pristine.fingerprint, layer), gathered)


def halves(visitor: Session, purpose: str, layer: str, samples: int) -> Halves | None:
    """Second moments of a layer over each half of the samples, if they are known; else a job is on its way.

    Raises:
        RequestError: the visitor has too many jobs under way.
    """
    pristine, store = visitor.generator.pristine, service().store
    spec = LatentSpec.of(range(samples))
    return brought(
        visitor,
        purpose,
        (pristine.fingerprint, layer, spec),
        _halves,
        f"Halving {samples:,} samples of {layer}",
        lambda progress: halves_of(pristine, layer, spec, store=store, progress=progress),
    )


def noise_caption(visitor: Session, item: Item) -> None:
    """What is wrong with a direction that rests on noise, in a line; nothing if it does not, or is not known yet."""
    both = halves(visitor, CERTAINTY, item.direction.layer, SAMPLES)
    warning = noise_warning(item.direction, both) if both else ""
    if warning:
        st.caption(f":material/warning: {plain(warning)}")


def certainty(item: Item, both: Halves) -> None:
    """How well two halves of the samples agree on where a direction matches, or the warning."""
    warning = noise_warning(item.direction, both)
    if warning:
        st.warning(plain(warning), icon=":material/warning:")
        return
    agreed = float(stability(item.direction, both).min())
    st.caption(
        f"Two halves of the samples agree to {agreed:.3f} on where “{plain(item.name)}” matches.",
        help="Correlation of the heat of the query that each half of the samples finds for its pattern C d.",
    )
