"""The command lines that make what is on screen again, and the direction files that they read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from dashboard.directions.choices import Item, Place
from dashboard.directions.found import Found
from dashboard.directions.tray import file_name
from dashboard.lines import command_line, latent_options, model_of
from dashboard.saving import rule_files
from dashboard.session import Session
from dashboard.taking import Line
from rewrite_core.generators import LatentSpec

__all__ = ["match_command", "nearest_command", "overlap_command", "scale_command", "spectrum_command"]


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
    names = [f"{number}-{file_name(item)}.safetensors" for number, item in enumerate(items, 1)]
    files = {name: item.direction.to_bytes() for name, item in zip(names, items, strict=True)}
    return Line(command_line("directions overlap", _model(visitor), "overlaps", *names), files)


def spectrum_command(visitor: Session, layer: str, samples: int) -> Line:
    """``palimpsest directions spectrum`` for a layer; without one, for all."""
    options = {"--layer": layer, "--seeds": f"0-{samples - 1}"}
    return Line(command_line("directions spectrum", options, "spectrum", shlex.quote(model_of(visitor))))


def _model(visitor: Session) -> dict[str, str]:
    """The model as an option, where the file of a direction does not name one that ships."""
    return {"--model": "" if visitor.embedded_name else model_of(visitor)}
