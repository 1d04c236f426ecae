"""What a visitor has chosen in the views of the page Rewriting: frozen, and forgotten with the generator it is of."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import streamlit as st

from rewrite_core.generators.own import PictureId

if TYPE_CHECKING:
    from dashboard.session import Session

__all__ = ["MEASURED", "Viewing", "look", "viewing"]

MEASURED = (50, 100, 200, 500, 1000, 2000, 5000)
"""How many fresh pictures an effect may be measured over."""
_KEPT = "rewriting-viewing"


@dataclass(frozen=True)
class Viewing:
    """What is chosen.

    Attributes:
        layers: those that are swept; empty: that of the edit, and its neighbours.
        ranks: by which they are swept.
        swept_on: the picture that cells show; None: the one that is pasted into.
        measured: how many fresh pictures "What it did" is over, and "Compare".
        rule: the digest of the rule that "What it did" is about; empty: the newest.
        kept: concepts whose change is measured too.
        comparison: what baselines were asked for last.
    """

    layers: tuple[str, ...] = ()
    ranks: tuple[int, ...] = (1, 3, 10)
    swept_on: PictureId | None = None
    measured: int = 200
    rule: str = ""
    kept: tuple[str, ...] = ()
    comparison: Hashable = None


def viewing(visitor: Session) -> Viewing:
    """What is chosen for the open generator."""
    kept: dict[str, Viewing] = st.session_state.setdefault(_KEPT, {})
    return kept.get(visitor.generator.fingerprint, Viewing())


def look(visitor: Session, **changes: object) -> None:
    """Choose something else."""
    chosen = replace(viewing(visitor), **changes)  # type: ignore[arg-type]
    st.session_state[_KEPT] = {visitor.generator.fingerprint: chosen}
