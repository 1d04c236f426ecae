"""The command lines that make what is on screen again, and the direction files that they read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dashboard.directions.choices import Item, Place
from dashboard.directions.found import Found
from dashboard.directions.tray import file_name
from dashboard.dissection.exporting import concepts_option
from dashboard.lines import command_line, latent_options, model_of
from dashboard.saving import rule_files
from dashboard.session import Session
from dashboard.taking import Line
from dissect.settings import CUSTOMARY
from dissect.units import Dissection
from rewrite_core.directions import Direction
from rewrite_core.generators import LatentSpec
from rewrite_core.rules.request import EditRequest

if TYPE_CHECKING:
    from dashboard.directions.mapped import Mapped
    from dissect.methods import MethodComparison

__all__ = [
    "dissect_command",
    "map_command",
    "match_command",
    "methods_command",
    "nearest_command",
    "overlap_command",
    "scale_command",
    "spectrum_command",
]

CONTEXT = "context.json"


def match_command(visitor: Session, found: Found) -> Line:
    """``palimpsest directions match`` for the direction that is looked at, with its file."""
    direction, name = found.item.direction, f"{file_name(found.item)}.safetensors"
    alone = replace(direction, vectors=found.query[None])  # a command looks for the first of them
    options = {
        **_model(visitor),
        **latent_options(found.matches.spec),
        "--quantile": f"{visitor.exploring.quantile:g}",
    }
    return Line(command_line("directions match", options, "matches", name), {name: alone.to_bytes()})


def nearest_command(visitor: Session, found: Found, place: Place) -> Line:
    """``palimpsest directions match --near`` for the position that is asked about."""
    seed, row, column = place
    options = {
        "--model": model_of(visitor),
        "--near": f"{seed}:{row},{column}",
        "--layer": found.item.direction.layer,
        **latent_options(found.matches.spec),
    }
    return Line(command_line("directions match", options, "nearest"))


def scale_command(visitor: Session, item: Item, alpha: float, spec: LatentSpec) -> Line:
    """``palimpsest directions scale`` for a direction, with its file and those of the rules that are on."""
    name, rules = f"{file_name(item)}.safetensors", visitor.rules.active
    names = [f"rule-{rule}" for rule in rule_files(rules)]  # a rule may be called as the direction is
    options = {
        **_model(visitor),
        "--alpha": f"{alpha:g}",
        **latent_options(spec),
    }
    arguments = [name, *(f"--rule {rule}" for rule in names), *(["--zero"] if visitor.exploring.zero else [])]
    files = {
        name: item.direction.to_bytes(),
        **{rule: made.to_bytes() for rule, made in zip(names, rules, strict=True)},
    }
    return Line(command_line("directions scale", options, "scaled", *arguments), files)


def overlap_command(visitor: Session, items: Sequence[Item]) -> Line:
    """``palimpsest directions overlap`` for directions of one layer, with their files."""
    files = _files(items)
    return Line(command_line("directions overlap", _model(visitor), "overlaps", *files), files)


def spectrum_command(visitor: Session, layer: str, samples: int) -> Line:
    """``palimpsest directions spectrum`` for a layer; without one, for all."""
    options = {"--layer": layer, "--seeds": f"0-{samples - 1}"}
    return Line(command_line("directions spectrum", options, "spectrum", shlex.quote(model_of(visitor))))


def map_command(visitor: Session, found: Mapped) -> Line:
    """``palimpsest directions map`` for the map that is shown, as points or as patches."""
    options = {
        "--layer": found.keys.layer,
        "--method": "" if found.map.method == "PCA" else found.map.method.lower(),
        "--concepts": concepts_option(visitor),
        **latent_options(found.keys.spec),
    }
    patches = ["--thumbnails"] if visitor.exploring.marks == "Patches" else []
    return Line(command_line("directions map", options, "map", shlex.quote(model_of(visitor)), *patches))


def methods_command(visitor: Session, request: EditRequest, found: MethodComparison, samples: int) -> Line:
    """``palimpsest directions methods`` for a painted context, with its file."""
    options = {
        **_model(visitor),
        "--concept": found.concept,
        "--concepts": concepts_option(visitor) if found.concept else "",
        "--layer": found.layer,
        "--seeds": f"0-{samples - 1}",
    }
    return Line(
        command_line("directions methods", options, "methods", CONTEXT), {CONTEXT: request.to_json().encode()}
    )


def dissect_command(visitor: Session, directions: Sequence[Direction], found: Dissection) -> Line:
    """``palimpsest dissect --direction`` for directions of one layer, with their files."""
    files = _files([Item(direction) for direction in directions])
    settings = found.settings
    options = {
        "--concepts": concepts_option(visitor),
        **latent_options(found.spec),
        "--quantile": "" if settings.quantile == CUSTOMARY.quantile else f"{settings.quantile:g}",
        "--level": "" if settings.level == CUSTOMARY.level else f"{settings.level:g}",
    }
    given = [f"--direction {name}" for name in files]
    return Line(command_line("dissect", options, "dissection", shlex.quote(model_of(visitor)), *given), files)


def _files(items: Sequence[Item]) -> dict[str, bytes]:
    """A file for each direction, by names that differ."""
    return {
        f"{number}-{file_name(item)}.safetensors": item.direction.to_bytes()
        for number, item in enumerate(items, 1)
    }


def _model(visitor: Session) -> dict[str, str]:
    """The model as an option, where the file of a direction does not name one that ships."""
    return {"--model": "" if visitor.embedded_name else model_of(visitor)}
