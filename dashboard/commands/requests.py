"""Edits on the command line: finding one, overriding its settings, and the generator it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands.opening import excuse, opened
from rewrite_core.errors import FileError, ModelMismatch

if TYPE_CHECKING:
    from rewrite_core.generators import Generator
    from rewrite_core.rules.patch import Patch
    from rewrite_core.rules.request import EditRequest

__all__ = ["SETTINGS", "Setting", "generator_for", "load_edit", "pixels", "setting_options"]


@dataclass(frozen=True)
class Setting:
    """An option that overrides one setting of an edit, at `path` in its file."""

    path: tuple[str, ...]
    type: Any
    meaning: str


SETTINGS = {
    "layer": Setting(("layer",), str, "Layer to rewrite."),
    "rank": Setting(("rank",), int, "Directions that the rule may use."),
    "operation": Setting(
        ("operation",),
        click.Choice(["paste", "erase", "remove"]),
        "Paste the copy, erase the context, or remove what its directions match.",
    ),
    "scale": Setting(("scale",), float, "Of what is copied, 0.25 to 4."),
    "flip": Setting(
        ("flip",),
        click.Choice(["none", "horizontal", "vertical", "both"]),
        "Which way the copy is turned over.",
    ),
    "alpha": Setting(("alpha",), float, "What a removal leaves: 0 nothing, 1 all of it; -10 to 10."),
    "erase_units": Setting(("erase_units",), int, "Units that an erasure silences, of 512."),
    "locality": Setting(
        ("solver", "locality"), float, "Weight of what changes elsewhere; 0 pays no heed to it."
    ),
    "iterations": Setting(("solver", "iterations"), int, "Steps of the solver, at most."),
    "method": Setting(
        ("direction", "method"),
        click.Choice(["zca", "svd", "mean", "gandissect", "plain"]),
        "From context to directions.",
    ),
    "ridge": Setting(("direction", "ridge"), float, "Added to the second moment, in mean eigenvalues."),
    "contrast": Setting(
        ("direction", "contrast"), float, "Weight of what was left unpainted around the context."
    ),
    "protect": Setting(("direction", "protect"), float, "Weight of the protected regions."),
    "truncation": Setting(("latents", "truncation"), float, "Of the pictures, 0 to 2."),
    "cutoff": Setting(("latents", "cutoff"), int, "How many styles are truncated, from the first on."),
    "class": Setting(("latents", "label"), int, "Of the pictures, of a conditional model."),
}


def setting_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option for each setting; what is not given stays as the edit has it."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            setting = SETTINGS[name]
            option = click.option(f"--{name.replace('_', '-')}", type=setting.type, help=setting.meaning)
            command = option(command)
        return command

    return decorate


def load_edit(edit: str, settings: Mapping[str, Any]) -> EditRequest:
    """The edit at a path, or the example of that name, with `settings` (None: as they are) put in its place.

    Raises:
        FileError, RequestError: it is neither, is not an edit, or a setting is out of range.
    """
    from rewrite_core import EditRequest
    from rewrite_core.files import JSON_LIMIT, read_bytes

    path = _found(edit)
    content = read_bytes(path, what=path.name, limit_bytes=JSON_LIMIT)
    data = EditRequest.from_json(content, path.name).to_dict()
    for name, value in settings.items():
        if value is not None:
            *sections, last = SETTINGS[name].path
            part = data["palimpsest"]
            for section in sections:
                part = part[section]
            part[last] = value
    return EditRequest.from_json(data, path.name)


def pixels(colour: str | None, patch: Path | None) -> Patch:
    """What `--colour` or `--patch` gives to paste.

    Raises:
        FileError, RequestError: the file cannot be read, is no PNG or too large; or no colour is written so.
        UsageError: both are given.
    """
    from rewrite_core.files import read_bytes
    from rewrite_core.rules.patch import LARGEST_PNG, Patch

    if colour and patch:
        raise click.UsageError("Give --colour or --patch, not both.")
    if patch:
        return Patch.from_png(read_bytes(patch, what=patch.name, limit_bytes=LARGEST_PNG), patch.name)
    return Patch.of_colour(colour or "")


def generator_for(request: EditRequest, model: str | None, force: bool) -> tuple[Generator, EditRequest]:
    """The generator at `model`, else the embedded one that the edit names, else the default; and the edit for it.

    An edit that names none is for that of the directions given to it.

    Raises:
        ModelMismatch: the edit, or its given directions, are for another one; with `force` only a warning.
        LayerError: its given directions fit no layer of it.
    """
    from rewrite_core.rules.rewrite import check_model

    given = request.given
    named = request.model.name if request.model else given.model if given else ""
    generator = opened(model, named)
    try:
        check_model(request, generator)
    except ModelMismatch as problem:
        excuse(problem, force)
        adopted = given.adopted_by(generator) if given else None
        request = request.model_copy(update={"model": None, "given": adopted})
    return generator, request


def _found(edit: str) -> Path:
    from rewrite_core.rules.examples import all_examples

    examples = all_examples()
    if edit not in examples and not Path(edit).exists():
        raise FileError(
            found=f"no edit '{edit}'",
            expected=f"the path of a file, or one of the examples {', '.join(examples)}",
            remedy="Check the path.",
        )
    return examples.get(edit, Path(edit))
