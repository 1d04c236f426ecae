"""Directions and contexts on the command line: finding them, and the generator that they are for.

What a command takes for a direction is the path of a direction file, or a *context*: the path of a JSON file with a
painted context, or the name of one that ships. A context becomes the direction that its settings say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands.console import progress
from dashboard.commands.opening import excuse, opened
from dashboard.commands.requests import generator_for, load_edit
from rewrite_core.errors import FileError, ModelMismatch, PalimpsestError

if TYPE_CHECKING:
    from rewrite_core.directions import Direction
    from rewrite_core.generators import Generator
    from rewrite_core.rules.request import EditRequest
    from rewrite_core.statistics import LayerStatistics

__all__ = [
    "Context",
    "Given",
    "argument",
    "described",
    "given",
    "load_direction",
    "load_directions",
    "open_context",
    "made_for",
    "statistics_of",
]

argument = click.argument("file", metavar="FILE|CONTEXT")
CONTEXT = ".json"


@dataclass(frozen=True, eq=False)
class Context:
    """A painted context, the generator that it is for, and the layer that is to tell it apart."""

    request: EditRequest
    generator: Generator
    layer: str
    name: str

    def direction(self, statistics: LayerStatistics, name: str = "") -> Direction:
        """What the settings of its file make of it."""
        from rewrite_core.rules.rewrite import direction_of

        return direction_of(self.generator, self.request, statistics).renamed(name or self.name)


@dataclass(frozen=True, eq=False)
class Given:
    """A direction, and the generator that it is for."""

    generator: Generator
    direction: Direction


def given(text: str, model: str | None, force: bool, quiet: bool) -> Given:
    """The direction at `text`, or that of the context there; on `model`, else on the generator that it names.

    Raises:
        FileError: there is neither, or it is damaged.
        ModelMismatch: it was made for another generator; with `force` only a warning.
        LayerError: the generator has no such layer, or one of another width.
    """
    if _is_context(text):
        context = open_context(text, model, force)
        statistics = statistics_of(context.generator, context.layer, quiet)
        return Given(context.generator, context.direction(statistics))
    direction = load_direction(Path(text))
    generator = opened(model, direction.model)
    (direction,) = made_for(generator, [direction], force)
    return Given(generator, direction)


def load_directions(texts: Sequence[str]) -> list[Direction]:
    """The directions in these files; errors as `load_direction`."""
    return [load_direction(Path(text)) for text in texts]


def load_direction(path: Path) -> Direction:
    """The direction in a file.

    Raises:
        FileError: there is no such file, or it holds something else: what that can become is said.
    """
    from rewrite_core.directions import Direction

    if _is_context(str(path)):
        raise _other(path, "a context", f"--context {path}")
    try:
        return Direction.load(path)
    except FileError:
        if _is_rule(path):
            raise _other(path, "a rule", f"--origin rule --rule {path}") from None
        raise


def made_for(generator: Generator, directions: Sequence[Direction], force: bool = False) -> list[Direction]:
    """The directions, all of which were found in `generator`.

    Raises:
        ModelMismatch: naming the first that was not; with `force` it is taken all the same, with a warning.
        LayerError: there is no such layer, or it is of another width.
    """
    fitting = []
    for direction in directions:
        try:
            direction.check(generator)
        except ModelMismatch as problem:
            excuse(problem, force)
            direction = direction.adopted_by(generator)
        fitting.append(direction)
    return fitting


def open_context(
    text: str, model: str | None, force: bool, settings: Mapping[str, Any] | None = None
) -> Context:
    """The context at a path, or that ships under this name, with `settings` in place of those of its file.

    Of a name that ships with several models, the context is that for `model`, else for the first of them.

    Raises:
        FileError, RequestError: it is neither, holds no context, or a setting is out of range.
        ModelMismatch: it was painted for another generator; with `force` only a warning.
        LayerError: there is no such layer.
    """
    request = load_edit(str(_found(text, model)), settings or {})
    request.painted("key")
    generator, request = generator_for(request, model, force)
    layer = generator.layer(request.layer or generator.default_layer).name
    painted = request.model_copy(update={"layer": layer, "given": None})
    return Context(painted, generator, layer, Path(text).stem)


def statistics_of(generator: Generator, layer: str, quiet: bool) -> LayerStatistics:
    """What a direction is made by: the layer's second moment, and a sample of its keys."""
    from rewrite_core import layer_statistics

    with progress("Gathering statistics", quiet) as advance:
        return layer_statistics(generator, layer, progress=advance)


def described(direction: Direction) -> dict[str, Any]:
    """What an answer says of a direction."""
    return {
        "name": direction.name,
        "origin": direction.method,
        "layer": direction.layer,
        "rank": direction.rank,
        "units": direction.units,
        "digest": direction.digest,
    }


def _found(text: str, model: str | None) -> Path:
    """The path `text`, or the file of what ships under this name: a context, or an edit, which has one."""
    if Path(text).exists():
        return Path(text)
    from rewrite_core import embedded_names
    from rewrite_core.rules.examples import example_contexts, example_edits

    names = [model] if model in embedded_names() else embedded_names()
    found: dict[str, Path] = {}
    for name in names:
        found = {**example_edits(name), **example_contexts(name), **found}
    if text not in found:
        raise FileError(
            found=f"no context '{text}'",
            expected=f"the path of a file, or one of {', '.join(found)}",
            remedy="Check the path.",
        )
    return found[text]


def _is_context(text: str) -> bool:
    """Whether `text` is to be read as one: a JSON file, or a name that is no file's and has no ending."""
    path = Path(text)
    return path.suffix.lower() == CONTEXT or not (path.suffix or path.exists())


def _is_rule(path: Path) -> bool:
    from rewrite_core import Rule

    try:
        Rule.load(path)
    except PalimpsestError:
        return False
    return True


def _other(path: Path, what: str, options_: str) -> FileError:
    return FileError(
        found=f"{path.name}, which is {what}",
        expected="a direction",
        remedy=f"Make one of it: palimpsest directions find {options_} --out direction.safetensors",
    )
