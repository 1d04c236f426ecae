"""`palimpsest …`: every page's headless twin.

    palimpsest edit blue-eyes --rule blue-eyes.safetensors --pairs pairs.png

The commands are in `dashboard/commands/`. An error is one line on stderr, ``palimpsest: error: …``, with exit status 1;
a mistake in the command line itself is explained by click, with exit status 2.
"""

from __future__ import annotations

import errno
from typing import IO, Any

import click

from dashboard.commands.ablate import ablate
from dashboard.commands.apply import apply
from dashboard.commands.concepts import concepts
from dashboard.commands.console import printable
from dashboard.commands.convert import convert
from dashboard.commands.directions import directions
from dashboard.commands.dissect import dissect
from dashboard.commands.edit import edit
from dashboard.commands.models import models
from dashboard.commands.options import example
from dashboard.commands.project import project
from dashboard.commands.rules import rules
from dashboard.commands.run import run
from dashboard.commands.sample import sample
from dashboard.commands.search import search
from dashboard.commands.stats import stats
from dashboard.commands.sweep import sweep
from dashboard.commands.verify import verify
from rewrite_core.errors import PalimpsestError

__all__ = ["main"]

COMMANDS = (
    run,
    models,
    verify,
    convert,
    sample,
    project,
    edit,
    sweep,
    search,
    apply,
    rules,
    dissect,
    ablate,
    directions,
    concepts,
    stats,
)


class _Failure(click.ClickException):
    """What went wrong, in one line."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(printable(f"palimpsest: error: {self.message}"), file=file, err=file is None)


class _Commands(click.Group):
    """Commands in the order of a first visit; their errors become one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PalimpsestError as problem:
            raise _Failure(str(problem)) from None
        except OSError as problem:
            if problem.errno == errno.EPIPE:  # whoever read the output has left: click ends in silence
                raise
            raise _Failure(f"{problem.filename or 'output'}: {problem.strerror or problem}") from None


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from rewrite_core.rules.rule import versions

        click.echo(", ".join(f"{name} {version}" for name, version in versions().items()))
        context.exit()


@click.group(cls=_Commands, epilog=example("palimpsest run"))
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def main() -> None:
    """See what each layer of an image generator wrote down, then rewrite a rule."""


for _command in COMMANDS:
    main.add_command(_command)

if __name__ == "__main__":
    main(prog_name="palimpsest")
