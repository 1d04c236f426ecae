"""What is measured when asked for, on pictures that nothing was chosen on; and the line that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import streamlit as st

from dashboard.budget import Budget
from dashboard.dissection.probe import INSERT, MEAN, QUANTILE
from dashboard.dissection.state import brought, concepts_text, judge_of, show_work, source_of, spec_of
from dashboard.dissection.units_choice import Asked
from dashboard.ranges import format_ranges
from dashboard.session import Session
from rewrite_core.generators import LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.pictures import encode_png

__all__ = ["ablate_command", "fresh", "model_text", "on_request"]

T = TypeVar("T")

REGION = "region.png"


def fresh(visitor: Session, count: int) -> LatentSpec:
    """The first pictures that the dissection has not seen."""
    seen = len(spec_of(visitor))
    return visitor.spec(tuple(range(seen, seen + count)))


def on_request(
    visitor: Session,
    purpose: str,
    key: Hashable,
    kept: Budget[T],
    label: str,
    work: Callable[[Progress], T],
    button: str = "Measure",
) -> T | None:
    """What is kept, or comes because it was asked for; else a button that asks."""
    if kept.peek(key) is None and visitor.probe.wanted.get(purpose) != key:
        st.button(
            button,
            icon=":material/play_arrow:",
            key=f"probe-{purpose}",
            on_click=lambda: setattr(visitor, "probe", visitor.probe.asking(purpose, key)),
        )
        return None
    found = brought(visitor, purpose, key, kept, label, work)
    if found is None:
        show_work(visitor, purpose)
    return found


def model_text(visitor: Session) -> str:
    """What a command calls the model that is on screen; one with rules has to be saved first."""
    if visitor.rules.active:
        return "EDITED-MODEL"
    return shlex.quote(visitor.embedded_name or visitor.origin or "MODEL")


def ablate_command(
    visitor: Session, asked: Asked, seeds: Sequence[int] = tuple(range(12))
) -> tuple[str, dict[str, bytes]]:
    """The line that makes the same, and the files that it reads; none where its judge has no such concept."""
    made, probe = asked.intervention, visitor.probe
    if (probe.act, probe.value) == (INSERT, MEAN) and asked.concept not in judge_of(visitor).names:
        return "", {}
    measured = format_ranges(fresh(visitor, 200).seeds)
    options = {
        "--layer": made.layer,
        "--units": ",".join(map(str, asked.units)),
        "--insert": _inserted(visitor, asked),
        "--strength": "" if made.strength == 1 else f"{made.strength:g}",
        "--region": REGION if made.region else "",
        "--concepts": concepts_text(visitor) if source_of(visitor).pixels_only else "",
        "--truncation": "" if visitor.truncation == 1 else f"{visitor.truncation:g}",
        "--class": "" if visitor.label is None else str(visitor.label),
        "--seeds": format_ranges(seeds),
        "--samples": measured,
    }
    given = " ".join(f"{option} {shlex.quote(value)}" for option, value in options.items() if value)
    files = {}
    if made.region:
        files[REGION] = encode_png(made.region.resized(visitor.generator.picture_size).pixels)
    return f"palimpsest ablate {model_text(visitor)} {given} --out ablated", files


def _inserted(visitor: Session, asked: Asked) -> str:
    """The value that is inserted, as the command takes it."""
    probe = visitor.probe
    if probe.act != INSERT:
        return ""
    return asked.concept if probe.value == MEAN else QUANTILE.replace("0.995 ", "")
