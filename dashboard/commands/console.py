"""What a command says: its answer on stdout; progress and warnings on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rewrite_core.generators import Progress

__all__ = ["printable", "progress", "report", "warn"]

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # every control character but the end of a line


def printable(text: str) -> str:
    """`text` with control characters escaped as in JSON: a name from a file cannot steer the terminal."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def report(answer: Any, text: str, as_json: bool) -> None:
    """Print the answer: as JSON for a script, or as text for a reader."""
    click.echo(printable(json.dumps(answer, indent=1, ensure_ascii=False) if as_json else text))


def warn(text: str) -> None:
    """Print one line that does not stop the work."""
    click.echo(printable(f"palimpsest: warning: {text}"), err=True)


@contextmanager
def progress(label: str, quiet: bool) -> Iterator[Progress | None]:
    """A bar with an estimate, moved by the callback that is given; None where nobody looks.

    It appears with the first move, so work that turns out to be done already shows none.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as open_bar:
        bars: list[Any] = []

        def advance(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True)
                bars.append(open_bar.enter_context(bar))
            bars[0].update(done - bars[0].pos)

        yield advance
        for bar in bars:
            bar.update(bar.length - bar.pos)  # a solver that has converged is done
