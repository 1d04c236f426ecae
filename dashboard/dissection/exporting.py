"""The command lines that make what is on screen again, and the files that they read.

    line = ablate_command(visitor, asked, seeds)
    line.text        # palimpsest ablate anime64-dcgan --layer l08 --units 3,17 …; empty if no command makes it
    line.files       # region.png → its bytes: what has to lie beside it

Rules are saved and put on first, in a line of their own. Concepts that are tied to one generator cannot be opened for
the model that this saves, so with them and rules no command makes the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dashboard.dissection.probe import INSERT, MEAN
from dashboard.dissection.state import (
    concepts_text,
    judge_of,
    judge_text,
    layers_of,
    spec_of,
    subject_of,
)
from dashboard.lines import command_line, latent_options, model_of
from dashboard.ranges import format_ranges
from dashboard.saving import rule_files
from dashboard.session import Session
from dashboard.taking import Line
from dissect.concepts import ConceptSource
from dissect.settings import CUSTOMARY
from rewrite_core.generators import LatentSpec
from rewrite_core.pictures import encode_png

if TYPE_CHECKING:
    from dashboard.dissection.units_choice import Asked

__all__ = ["ablate_command", "command", "compare_command", "concepts_option", "rank_command"]

OWN = ("concepts.json", "concepts.safetensors")
"""What the file of concepts made on the page is called in a command: painted ones, and those that see pixels alone."""
COLOURS = "colours"
REGION = "region.png"
LOOKED = 1000
"""Samples that the commands look at for the values that are inserted."""


def command(visitor: Session) -> Line:
    """``palimpsest dissect`` with what the visitor has chosen, without options at their defaults.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    ruled = subject_of(visitor).fingerprint != visitor.generator.fingerprint
    concepts = concepts_option(visitor)
    return _on_model(visitor, ruled, lambda model: _dissect(visitor, model, concepts, "dissection"))


def compare_command(visitor: Session, spec: LatentSpec, other: str, judge: ConceptSource) -> Line:
    """The lines that dissect both, whose tables are what is compared: without and with rules, or the `other` model.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    usual = judge is judge_of(visitor)
    concepts = (_own(visitor, judging=True) or judge_text(visitor)) if usual else COLOURS

    def dissected(ruled: bool, out: str) -> Line:
        return _on_model(visitor, ruled, lambda model: _dissect(visitor, model, concepts, out, spec))

    if other:
        before = dissected(bool(visitor.rules.active), "before")
        after = Line(_dissect(visitor, shlex.quote(other), concepts, "after", spec))
    else:
        before, after = dissected(False, "before"), dissected(True, "after")
    return Line(f"{before.text}\n{after.text}", {**before.files, **after.files})


def ablate_command(visitor: Session, asked: Asked, seeds: Sequence[int], measured: Sequence[int]) -> Line:
    """``palimpsest ablate`` for an intervention: pictures of `seeds`, effects over `measured`.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    made, probe = asked.intervention, visitor.probe
    if probe.act == INSERT and not _same_values(visitor, asked):
        return Line(
            why_not=f"The command takes the values that it inserts from {LOOKED:,} samples of its concepts."
        )
    concepts = _own(visitor, judging=True) or judge_text(visitor)
    options = {
        "--layer": made.layer,
        "--units": ",".join(map(str, asked.units)),
        "--insert": _inserted(visitor, asked),
        "--strength": "" if made.strength == 1 else f"{made.strength:g}",
        "--region": REGION if made.region else "",
        "--concepts": concepts,
        **latent_options(visitor.spec(tuple(seeds))),
        "--samples": format_ranges(measured),
    }
    files = {}
    if made.region:
        files[REGION] = encode_png(made.region.resized(visitor.generator.picture_size).pixels)
    line = _on_model(
        visitor,
        bool(visitor.rules.active),
        lambda model: command_line("ablate", options, "ablated", model),
    )
    return Line(line.text, {**line.files, **files})


def rank_command(
    visitor: Session, concept: str, candidates: Sequence[int], count: int, spec: LatentSpec
) -> Line:
    """``palimpsest ablate --rank`` for `count` of the candidates, over the samples of `spec`.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    concepts = _own(visitor, judging=True) or judge_text(visitor)
    options = {
        "--layer": visitor.layer,
        "--rank": concept,
        "--units": ",".join(map(str, candidates)),
        "--count": str(count),
        "--concepts": concepts,
        **{name: value for name, value in latent_options(spec).items() if name != "--seeds"},
        "--samples": format_ranges(spec.seeds),
    }
    return _on_model(
        visitor,
        bool(visitor.rules.active),
        lambda model: command_line("ablate", options, "ranked", model),
    )


# Parts


def _on_model(visitor: Session, ruled: bool, line: Callable[[str], str]) -> Line:
    """The line for the open model, with the rules that are on if it is `ruled`."""
    rules = visitor.rules.active if ruled else ()
    names = rule_files(rules)
    model = " ".join([shlex.quote(model_of(visitor)), *(f"--rule {name}" for name in names)])
    return Line(line(model), {name: rule.to_bytes() for name, rule in zip(names, rules, strict=True)})


def _dissect(visitor: Session, model: str, concepts: str, out: str, spec: LatentSpec | None = None) -> str:
    layers, settings = layers_of(visitor), visitor.dissecting.settings
    options = {
        "--layers": "" if layers == tuple(visitor.generator.layers) else ",".join(layers),
        "--concepts": concepts,
        **latent_options(spec or spec_of(visitor)),
        "--quantile": "" if settings.quantile == CUSTOMARY.quantile else f"{settings.quantile:g}",
        "--level": "" if settings.level == CUSTOMARY.level else f"{settings.level:g}",
    }
    return command_line("dissect", options, out, model)


def concepts_option(visitor: Session) -> str:
    """The value of ``--concepts``: what the visitor's concepts are opened by, or the file of those made on the page."""
    return _own(visitor) or concepts_text(visitor)


def _own(visitor: Session, judging: bool = False) -> str:
    """The file of concepts made on the page, if it is they; empty else."""
    own = visitor.dissecting.own
    if own is None or (judging and not own.pixels_only):
        return ""
    return OWN[own.pixels_only]


def _same_values(visitor: Session, asked: Asked) -> bool:
    """Whether the command finds the values that are inserted: it looks at so many samples of the judge's concepts."""
    if visitor.dissecting.samples != LOOKED:
        return False
    return visitor.probe.value != MEAN or asked.concept in judge_of(visitor).names


def _inserted(visitor: Session, asked: Asked) -> str:
    """The value that is inserted, as the command takes it."""
    if visitor.probe.act != INSERT:
        return ""
    return asked.concept if visitor.probe.value == MEAN else "quantile"
