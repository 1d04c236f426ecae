"""The menu behind ⋯ of the views of Rewriting, and the command lines in it, with the files that they read."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pandas as pd

from dashboard.lines import command_line, latent_options, model_of
from dashboard.saving import rule_files
from dashboard.session import Session
from dashboard.taking import NO_LINE, Line
from dashboard.taking import take_away as taken
from rewrite_core.generators import LatentSpec
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rule import Rule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["pairs_command", "sweep_command", "take_away"]

EDIT = "edit.json"


def take_away(
    visitor: Session,
    name: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Callable[[], Figure]],
    line: Line = NO_LINE,
    caption: str = "",
) -> None:
    """`dashboard.taking.take_away` with a link to the view."""
    taken(name, tables, figures, line, caption, f"?{urlencode({'view': visitor.view})}")


def sweep_command(
    visitor: Session, request: EditRequest, layers: Sequence[str], ranks: Sequence[int]
) -> Line:
    """``palimpsest sweep`` for an edit, with its file."""
    options = {
        "--model": "" if visitor.embedded_name else model_of(visitor),
        "--layers": ",".join(layers),
        "--ranks": ",".join(map(str, ranks)),
    }
    return Line(command_line("sweep", options, "sweep/", EDIT), {EDIT: request.to_json().encode()})


def pairs_command(visitor: Session, rules: Sequence[Rule], spec: LatentSpec) -> Line:
    """``palimpsest apply --pairs`` for pictures of `spec` under `rules`, with their files."""
    names = rule_files(rules)
    options = {"--model": model_of(visitor), **latent_options(spec)}
    arguments = [*map(shlex.quote, names), "--pairs"]
    files = {name: rule.to_bytes() for name, rule in zip(names, rules, strict=True)}
    return Line(command_line("apply", options, "pairs.png", *arguments), files)
