"""Command lines as text: what makes on a terminal what a page shows, without options at their defaults."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from dashboard.ranges import format_ranges
from dashboard.session import Session
from rewrite_core.generators import LatentSpec

__all__ = ["command_line", "latent_options", "model_of"]


def command_line(name: str, options: Mapping[str, str], out: str, *arguments: str) -> str:
    """``palimpsest NAME ARGUMENTS OPTIONS --out OUT``; options whose value is empty are left out.

    Arguments are taken as they are: whoever gives one that needs quotes quotes it.
    """
    given = [f"{option} {shlex.quote(value)}" for option, value in options.items() if value]
    return " ".join(["palimpsest", name, *arguments, *given, f"--out {out}"])


def latent_options(spec: LatentSpec) -> dict[str, str]:
    """The samples, and how they are drawn, as options."""
    return {
        "--seeds": format_ranges(spec.seeds),
        "--truncation": "" if spec.truncation == 1 else f"{spec.truncation:g}",
        "--cutoff": "" if spec.cutoff is None else str(spec.cutoff),
        "--class": "" if spec.label is None else str(spec.label),
        "--scheme": "" if spec.scheme == "seed" else spec.scheme,
    }


def model_of(visitor: Session) -> str:
    """What the open generator is called on a command line, not quoted: its name, its path, or MODEL for an upload."""
    return visitor.embedded_name or visitor.origin or "MODEL"
