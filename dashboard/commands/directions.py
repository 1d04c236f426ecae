"""`palimpsest directions`: the contexts that a layer tells apart; found, matched, scaled, compared, kept as files."""

from __future__ import annotations

import click

from dashboard.commands import options
from dashboard.commands.directions_dictionary import dictionary
from dashboard.commands.directions_files import export, show
from dashboard.commands.directions_find import find
from dashboard.commands.directions_map import map_
from dashboard.commands.directions_match import match
from dashboard.commands.directions_methods import methods
from dashboard.commands.directions_scale import scale
from dashboard.commands.directions_spectrum import overlap, spectrum

__all__ = ["directions"]


@click.group(epilog=options.example("palimpsest directions match eyes --out eyes.png"))
def directions() -> None:
    """Find the contexts that a layer tells apart: where they are, and what it draws for them.

    FILE is a direction that `palimpsest directions find` or the app saved. A CONTEXT in its place is a JSON file with a
    painted context, or the name of one that ships, such as eyes.
    """


for _command in (find, show, match, scale, spectrum, overlap, methods, map_, dictionary, export):
    directions.add_command(_command)
