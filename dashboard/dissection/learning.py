"""What was learned from painted concepts: asking for it, how good it is, what it says of unseen pictures."""

from __future__ import annotations

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.dissection.easel import repaint, start
from dashboard.dissection.labelling import concept_table, labelled_gallery, seen_by
from dashboard.dissection.painting import Painting
from dashboard.dissection.using import command, file_name, use_button
from dashboard.errors import shown
from dashboard.gallery import range_box
from dashboard.session import Session
from dashboard.text import plain
from dashboard.words import counted
from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.painted import PaintedConcepts, open_painted, require_painted
from rewrite_core.errors import PalimpsestError
from rewrite_core.jobs import Progress

__all__ = ["learn", "numbers", "save", "unseen"]

LEARNING, UNSEEN = "concepts-learning", "concepts-unseen"
"""The purposes of the jobs that learn, and that label unseen pictures."""
SIDE = 84
ENDING = "concepts.json"

_learned: Budget[PaintedConcepts] = Budget(
    64 << 20, lambda found: len(found.file.learned or b"") + sum(map(_bytes, found.file.strokes))
)


def _bytes(strokes: object) -> int:
    labels = getattr(strokes, "labels", None)
    return int(getattr(labels, "nbytes", 0))


def learn(visitor: Session) -> None:
    """A button that asks for it, what it would learn from, and how far it is."""
    painting = start(visitor)
    missing = _missing(painting)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="concept-learning"):
        st.button(
            "Train",
            icon=":material/model_training:",
            type="secondary" if painting.current else "primary",
            key="concept-train",
            disabled=bool(missing) or painting.current,
            on_click=lambda: setattr(visitor, "painting", start(visitor).wanting()),
            help="Learns the concepts from the generator's own feature maps under the strokes",
        )
        st.caption(
            f"{counted(painting.pixels, 'pixel')} of {counted(len(painting.file.concepts), 'concept')} on "
            f"{counted(len(painting.file.seeds), 'picture')}"
            + ("" if painting.current or missing else _since(painting))
        )
    if missing:
        st.caption(plain(missing))
    if painting.wanted is not None and painting.lacking:
        _bring(visitor, painting, painting.wanted)


def save(visitor: Session) -> None:
    """Take the strokes away, and what was learned from exactly these."""
    painting = start(visitor)
    file = painting.learned.file if painting.learned and painting.current else painting.file
    st.download_button(
        "Save",
        file.to_bytes(),
        file_name(visitor, ENDING),
        "application/json",
        icon=":material/download:",
        key="concept-save",
        on_click="ignore",
    )


def numbers(visitor: Session) -> None:
    """How well what was last learned reads pictures that were held out, and using it."""
    found = start(visitor).learned
    if found is None:
        return
    evaluation = found.evaluation
    st.markdown(
        "**Read on pictures that were held out**",
        help="Each picture's strokes are read by a classifier that learned from the other pictures alone.",
    )
    st.caption(plain(evaluation.sentence))
    if evaluation.pixels:
        concept_table(evaluation.table(), "iou", {"iou": "IoU"})
    use_button(visitor, found, "concept-use")
    with st.expander("Command", icon=":material/terminal:"):
        st.code(command(visitor, file_name(visitor, ENDING)), language="bash", wrap_lines=True)


def unseen(visitor: Session) -> None:
    """What was last learned says this of pictures that nobody painted on; one that is pressed is the next to paint."""
    painting = start(visitor)
    if painting.learned is None:
        return
    with shown():
        seeds = range_box("Labels of unseen pictures", key="concept-unseen", default="1000-1023")
        spec = painting.learned.file.latents.spec(seeds)
        seen = seen_by(visitor, UNSEEN, visitor.generator, spec, painting.learned)
        if seen is None:
            show_work(visitor, UNSEEN)
            return
        chosen = labelled_gallery(seen, "concept-labels", selected=painting.seed, size=SIDE)
        if isinstance(chosen, int) and chosen != painting.seed:
            repaint(visitor, painting.turned(seed=chosen))
            st.rerun()


def _missing(painting: Painting) -> str:
    """What has to be painted before anything can be learned."""
    try:
        require_painted(painting.file)
    except PalimpsestError as problem:
        return str(problem)
    return ""


def _since(painting: Painting) -> str:
    return " · changed since" if painting.learned else ""


def _bring(visitor: Session, painting: Painting, file: ConceptFile) -> None:
    generator = visitor.generator

    def work(progress: Progress) -> PaintedConcepts:
        return open_painted(file, generator, progress=progress)

    key = (generator.fingerprint, file.digest)
    found = brought(
        visitor, LEARNING, key, _learned, f"Learning {counted(len(file.concepts), 'concept')}", work
    )
    if found is None:
        show_work(visitor, LEARNING)
    else:
        visitor.painting = painting.knowing(found)
        st.rerun()
