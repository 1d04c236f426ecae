"""What is supported of which checkpoint, as `palimpsest models --families` says it: JSON, text, or Markdown.

In both tables a cell is yes or no, with the number of a note where there is more to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from dashboard.commands.table import table

if TYPE_CHECKING:
    from rewrite_core.generators.support import Cell

__all__ = ["families_json", "families_markdown", "families_text"]

HEADINGS = {
    "open": "open",
    "statistics": "statistics",
    "search": "search",
    "rewrite": "rewrite",
    "export_safetensors": "export safetensors",
    "export_own": "export own layout",
    "w_space": "W space",
    "projection": "projection",
    "dissection": "dissection",
    "directions": "directions",
}


def families_json() -> list[dict[str, Any]]:
    """An object for each row."""
    from rewrite_core.generators.support import ROWS

    return [
        {
            "family": row.family,
            "layout": _plain(row.layout),
            "files": list(row.suffixes),
            **{column: asdict(replace(cell, note=_plain(cell.note))) for column, cell in row.cells.items()},
        }
        for row in ROWS
    ]


def families_text() -> str:
    """A table for a terminal."""
    rows, notes = _numbered()
    plain = [[_plain(cell) for cell in row] for row in rows]
    return "\n".join([*table(plain), "", *(f"  ({number}) {_plain(note)}" for number, note in notes)])


def families_markdown() -> str:
    """The same table for the docs."""
    (header, *rows), notes = _numbered()
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    rule = "|" + "---|" * len(header)
    return "\n".join([lines[0], rule, *lines[1:], "", *(f"{number}. {note}" for number, note in notes)])


def _numbered() -> tuple[list[list[str]], list[tuple[int, str]]]:
    """The header and the rows, with names set as code, and the notes with the numbers that cells have for them."""
    from rewrite_core.generators.support import COLUMNS, ROWS

    said = [cell.note for row in ROWS for cell in row.cells.values() if cell.note]
    numbers = {note: number for number, note in enumerate(dict.fromkeys(said), start=1)}
    rows = [["family", "layout", "files", *(HEADINGS[column] for column in COLUMNS)]]
    for row in ROWS:
        files = ", ".join(f"`{suffix}`" for suffix in row.suffixes)
        cells = (_said(cell, numbers) for cell in row.cells.values())
        rows.append([f"`{row.family}`", row.layout, files, *cells])
    return rows, [(number, note) for note, number in numbers.items()]


def _said(cell: Cell, numbers: Mapping[str, int]) -> str:
    number = f" ({numbers[cell.note]})" if cell.note else ""
    return f"{'yes' if cell.supported else 'no'}{number}"


def _plain(text: str) -> str:
    return text.replace("`", "")
