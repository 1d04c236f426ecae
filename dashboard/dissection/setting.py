"""What is dissected: the concepts, the samples, and the conventions of the numbers."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard.dissection.state import asked_for, choose, concepts_text, layers_of, open_source, source_of
from dashboard.opening import paths_allowed
from dashboard.session import Session
from dashboard.text import plain
from dissect.concepts.catalogue import KINDS, known
from dissect.settings import Settings
from rewrite_core.errors import PalimpsestError

__all__ = ["FEWEST", "MOST", "conventions", "dissect_these", "setting", "settings_form"]

FEWEST, MOST = 2, 100_000
"""Samples that can be asked for."""


def setting(visitor: Session) -> None:
    """A menu that says what is dissected, and changes it; before anything is, the page shows the form itself."""
    if not asked_for(visitor):
        return
    with st.popover(_title(visitor), icon=":material/tune:", key="dissection-settings"):
        settings_form(visitor)


def settings_form(visitor: Session) -> None:
    """Concepts, layers, samples, threshold and IoU level; nothing happens before the button is pressed."""
    offers = {offer.text: offer for offer in known(visitor.generator)}
    offered = [text for text, offer in offers.items() if not offer.why_not]
    current, settings = concepts_text(visitor), visitor.dissecting.settings
    if current == "embedded" and offered:
        current = next((text for text in offered if text.startswith("embedded:")), current)
    with st.form("dissection-form", border=False):
        text = st.selectbox(
            "Concepts",
            list(dict.fromkeys([*offered, current])),
            index=list(dict.fromkeys([*offered, current])).index(current),
            format_func=lambda text: offers[text].title if text in offers else text,
            accept_new_options=paths_allowed(),
            key=f"dissection-concepts-{visitor.generator.fingerprint[:8]}-{current}",
            help=_help(),
        )
        layers = st.multiselect(
            "Layers",
            list(visitor.generator.layers),
            list(visitor.dissecting.layers),
            placeholder="all layers",
            key=f"dissection-layers-{visitor.generator.fingerprint[:8]}",
        )
        left, middle, right = st.columns(3)
        samples = left.number_input(
            "Samples", FEWEST, MOST, visitor.dissecting.samples, step=1000, help=_SAMPLES
        )
        quantile = middle.number_input(
            "Quantile", 0.5, 0.999, settings.quantile, step=0.005, format="%.3f", help=_QUANTILE
        )
        level = right.number_input("IoU level", 0.0, 0.5, settings.level, step=0.01, help=_LEVEL)
        if st.form_submit_button("Dissect", type="primary", icon=":material/play_arrow:"):
            asked = replace(settings, quantile=float(quantile), level=float(level))
            dissect_these(visitor, text or current, tuple(layers), int(samples), asked)
            st.rerun()
    for offer in offers.values():
        if offer.why_not:
            st.caption(plain(f"{offer.title}: {offer.why_not}"))


def conventions(visitor: Session) -> str:
    """What every number on the page rests on, in one line."""
    chosen = visitor.dissecting
    return (
        f"{chosen.samples:,} samples, thresholds chosen on the first half, held-out IoU on the second · set threshold "
        f"at quantile {chosen.settings.quantile:g} of a unit's values, after upsampling to the concepts' grid · "
        f"detector: held-out IoU above {chosen.settings.level:g} and above the IoU of a unit that fires everywhere"
    )


def dissect_these(
    visitor: Session, text: str, layers: tuple[str, ...], samples: int, settings: Settings
) -> None:
    """Choose all of it once the concepts that `text` asks for are open; else what was there stays, with the reason."""
    try:
        if text != concepts_text(visitor):
            open_source(visitor.generator, text)
            choose(visitor, concepts=text, own=None, concept="")
    except PalimpsestError as problem:
        choose(visitor, problem=str(problem))
        return
    choose(visitor, layers=layers, samples=samples, settings=settings, begun=True)
    if visitor.layer not in layers_of(visitor):
        visitor.layer = layers_of(visitor)[0]
    visitor.asked = {name: asked for name, asked in visitor.asked.items() if not asked.job.ended}


def _title(visitor: Session) -> str:
    try:
        title = source_of(visitor).title
    except PalimpsestError:
        title = concepts_text(visitor)
    return f"{plain(title)} · {visitor.dissecting.samples:,} samples"


def _help() -> str:
    more = "\n".join(f"* `{kind.form}`: {kind.help}" for kind in KINDS)
    return (
        f"What units are compared with. Choose, or type:\n\n{more}"
        if paths_allowed()
        else "What units are compared with."
    )


_SAMPLES = "Pictures that are looked at: thresholds are chosen on the first half and reported on the second."
_QUANTILE = (
    "A unit's set threshold lies above this share of its values, over all positions; 0.99 is customary."
)
_LEVEL = "A detector's held-out IoU is above this; 0.04 is customary."
