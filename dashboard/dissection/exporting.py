"""The command line that makes the dissection on screen again."""

from __future__ import annotations

import shlex

from dashboard.dissection.state import concepts_text, layers_of, spec_of, subject_of
from dashboard.ranges import format_ranges
from dashboard.session import Session
from dissect.settings import CUSTOMARY

__all__ = ["command"]

OWN = "concepts.json"
"""What the file of concepts that were painted on the page is called in the command."""


def command(visitor: Session) -> str:
    """``palimpsest dissect`` with what the visitor has chosen, without options at their defaults; empty under rules.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    if subject_of(visitor).fingerprint != visitor.generator.fingerprint:
        return ""  # the command dissects a generator as it was loaded
    spec, layers, settings = spec_of(visitor), layers_of(visitor), visitor.dissecting.settings
    options = {
        "--layers": "" if layers == tuple(visitor.generator.layers) else ",".join(layers),
        "--concepts": OWN if visitor.dissecting.own else concepts_text(visitor),
        "--seeds": format_ranges(spec.seeds),
        "--truncation": "" if spec.truncation == 1 else f"{spec.truncation:g}",
        "--cutoff": "" if spec.cutoff is None else str(spec.cutoff),
        "--class": "" if spec.label is None else str(spec.label),
        "--scheme": "" if spec.scheme == "seed" else spec.scheme,
        "--quantile": "" if settings.quantile == CUSTOMARY.quantile else f"{settings.quantile:g}",
        "--level": "" if settings.level == CUSTOMARY.level else f"{settings.level:g}",
    }
    given = [f"{option} {shlex.quote(value)}" for option, value in options.items() if value]
    model = shlex.quote(visitor.embedded_name or visitor.origin or "MODEL")
    return f"palimpsest dissect {model} {' '.join(given)} --out dissection"
