"""Painted concepts as a network that sees pixels alone, and so may judge edits: making it, its agreement, using it."""

from __future__ import annotations

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.dissection.easel import start
from dashboard.dissection.labelling import concept_table
from dashboard.dissection.painting import Painting
from dashboard.dissection.state import identity_of
from dashboard.dissection.using import file_name, use_button
from dashboard.session import Session
from dashboard.text import plain
from dissect.concepts.distilled import DistilledConcepts
from dissect.concepts.painted import PaintedConcepts
from rewrite_core.jobs import Progress

__all__ = ["distillation"]

DISTILLING = "concepts-distilling"
"""The purpose of the job."""

_distilled: Budget[DistilledConcepts] = Budget(
    64 << 20, lambda found: sum(weight.nbytes for weight in found.weights.values())
)


def distillation(visitor: Session) -> None:
    """Distil what was last learned; what was distilled last, with its agreement on samples it did not learn from."""
    painting = start(visitor)
    if painting.learned is None:
        return
    with st.expander("For edited pictures", icon=":material/layers:", expanded=painting.teacher is not None):
        st.caption(
            "Painted concepts know unedited pictures only. A small network that learns their labels from pixels may "
            "judge rules, ablations and comparisons too."
        )
        if painting.teacher is not painting.learned:
            st.button(
                "Distil",
                icon=":material/water_drop:",
                key="concept-distil",
                help="Learns from 2,000 other pictures; takes minutes",
                on_click=lambda: setattr(visitor, "painting", start(visitor).taught()),
            )
        if painting.teacher is not None and painting.distilled is None:
            _bring(visitor, painting, painting.teacher)
        if painting.distilled is not None:
            _agreement(visitor, painting.distilled)


_WORDS = {"share of pixels, teacher": "painted", "share of pixels, network": "network"}


def _bring(visitor: Session, painting: Painting, teacher: PaintedConcepts) -> None:
    generator = visitor.generator

    def work(progress: Progress) -> DistilledConcepts:
        from dissect.concepts.distilling import distil

        return distil(generator, teacher, progress=progress)

    key = (generator.fingerprint, identity_of(teacher))
    found = brought(visitor, DISTILLING, key, _distilled, f"Distilling {teacher.title}", work)
    if found is None:
        show_work(visitor, DISTILLING)
    else:
        visitor.painting = painting.distilling(found)
        st.rerun()


def _agreement(visitor: Session, found: DistilledConcepts) -> None:
    st.caption(plain(found.held_out.sentence))
    concept_table(found.held_out.table(), "IoU", _WORDS)
    with st.container(horizontal=True, gap="small"):
        use_button(visitor, found, "concept-distilled-use")
        st.download_button(
            "Save",
            found.to_bytes(),
            file_name(visitor, "distilled.safetensors"),
            icon=":material/download:",
            key="concept-distilled-save",
            on_click="ignore",
        )
