"""What the views of the page Dissection share: the concepts, and the dissection, which is made in the background.

    found = dissection_of(visitor)           # None until it is there; asking for it begins the job
    if found is None:
        show_work(visitor, DISSECTION)       # once on a page: how far, how long still, Cancel

Visitors who ask for the same dissection share the work, for their jobs meet in the store
(`rewrite_core.statistics.gather`).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st
import torch

from dashboard.background import brought
from dashboard.budget import Budget
from dashboard.opening import paths_allowed
from dashboard.session import Session, service
from dissect.concepts import ConceptSource
from dissect.concepts.catalogue import embedded_concepts, known, open_concepts
from dissect.sheet import ALSO
from dissect.units import Dissection, dissect
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.jobs import Progress

__all__ = [
    "DISSECTION",
    "asked_for",
    "choose",
    "concepts_text",
    "dissection_key",
    "dissection_of",
    "identity_of",
    "judge_of",
    "judge_text",
    "layers_of",
    "open_source",
    "source_of",
    "spec_of",
    "subject_of",
]

T = TypeVar("T")

DISSECTION = "dissection"
"""The purpose of the job that dissects."""


def _size(found: Dissection) -> int:
    tensors = (value for layer in found.layers.values() for value in vars(layer).values())
    return sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor))


_dissected: Budget[Dissection] = Budget(256 << 20, _size)


# The visitor's choices


def choose(visitor: Session, **chosen: Any) -> None:
    """Replace some of the visitor's choices; a problem with an earlier one is settled by that."""
    visitor.dissecting = replace(visitor.dissecting, **{"problem": "", **chosen})


def asked_for(visitor: Session) -> bool:
    """Whether the generator is to be dissected: an embedded one is at once, any other when the visitor says so."""
    return bool(visitor.embedded_name) or visitor.dissecting.begun


def layers_of(visitor: Session) -> tuple[str, ...]:
    """The layers that are dissected, in the generator's order."""
    return visitor.dissecting.layers or tuple(visitor.generator.layers)


def spec_of(visitor: Session) -> LatentSpec:
    """The samples, numbered as everywhere in the session."""
    return visitor.spec(tuple(range(visitor.dissecting.samples)))


# The concepts


def concepts_text(visitor: Session) -> str:
    """What the visitor's concepts are opened by: their own choice, else what ships with the generator, or colours."""
    shipped = visitor.embedded_name and embedded_concepts(visitor.generator)
    return visitor.dissecting.concepts or ("embedded" if shipped else "colours")


def source_of(visitor: Session) -> ConceptSource:
    """The visitor's concepts.

    Raises:
        PalimpsestError: they cannot be had.
    """
    return visitor.dissecting.own or open_source(visitor.generator, concepts_text(visitor))


def open_source(generator: Generator, text: str) -> ConceptSource:
    """The source that `text` asks for, opened once for all visitors; files and models of the hub for the owner alone.

    Raises:
        PalimpsestError: there is none, it does not fit, or it may not be opened from here.
    """
    ours = {"embedded", *(offer.text for offer in known(generator) if not offer.why_not)}
    if text not in ours and not paths_allowed():
        raise RequestError(
            found=f"concepts {text[:80]!r}, which this server does not offer",
            expected=f"one of {', '.join(sorted(ours))}",
            remedy="Choose one of these, or paint your own.",
        )
    return _opened(generator.fingerprint, text, _changed(text), generator)


def judge_of(visitor: Session) -> ConceptSource:
    """Concepts that may judge edited pictures: the visitor's, else others that ship with the generator, else colours.

    Raises:
        PalimpsestError: the visitor's own cannot be had.
    """
    chosen = source_of(visitor)
    return chosen if chosen.pixels_only else open_source(visitor.generator, judge_text(visitor))


def judge_text(visitor: Session) -> str:
    """What `judge_of` is opened by; a source that was made on the page has no such text.

    Raises:
        PalimpsestError: the visitor's own cannot be had.
    """
    if source_of(visitor).pixels_only:
        return concepts_text(visitor)
    for name in embedded_concepts(visitor.generator) if visitor.embedded_name else ():
        with suppress(PalimpsestError):  # of a kind that is not installed
            if open_source(visitor.generator, f"embedded:{name}").pixels_only:
                return f"embedded:{name}"
    return "colours"


def identity_of(source: ConceptSource) -> str:
    """Everything that its labels depend on, as a part of a key."""
    return json.dumps([source.identity(), list(source.names)], sort_keys=True, default=str)


def subject_of(visitor: Session) -> Generator:
    """What is dissected: the generator with the sidebar's rules if the concepts see pixels alone, else as loaded.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    ruled = source_of(visitor).pixels_only and visitor.rules.active
    return visitor.edited() if ruled else visitor.generator


@st.cache_resource(max_entries=16, show_spinner="Opening the concepts…")
def _opened(fingerprint: str, text: str, changed: float, _generator: Generator) -> ConceptSource:
    return open_concepts(text, _generator)


def _changed(text: str) -> float:
    """When the file that `text` names was written; 0 if it names none."""
    with suppress(OSError, ValueError):
        return Path(text).stat().st_mtime
    return 0.0


# The dissection


def dissection_of(visitor: Session) -> Dissection | None:
    """The dissection that the visitor has asked for, if it is there; else a job is on its way, or they have not asked.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    if not asked_for(visitor):
        return None
    source, subject, spec = source_of(visitor), subject_of(visitor), spec_of(visitor)
    layers, settings = layers_of(visitor), visitor.dissecting.settings
    key = dissection_key(visitor)

    def work(progress: Progress) -> Dissection:
        store = service().store
        return dissect(subject, spec, layers, source, settings, also=ALSO, store=store, progress=progress)

    label = f"Dissecting {_some(layers)} · {source.title} · {len(spec):,} samples"
    return brought(visitor, DISSECTION, key, _dissected, label, work)


def dissection_key(visitor: Session) -> Hashable:
    """All that the dissection depends on: the beginning of the key of whatever follows from it.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    identity = identity_of(source_of(visitor))
    settings = visitor.dissecting.settings
    return (subject_of(visitor).fingerprint, spec_of(visitor), layers_of(visitor), identity, settings)


def _some(layers: Sequence[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{len(layers)} layers"
