"""`palimpsest directions show` and `export`: what a direction's file holds, and the same for other programs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import report
from dashboard.commands.directions_opening import described, load_direction
from dashboard.commands.output import require_apart
from rewrite_core.errors import FileError

if TYPE_CHECKING:
    from rewrite_core.directions import Direction

__all__ = ["export", "show"]

SHOWN = 12
"""Singular values that are printed, at most."""
LINE = 90
"""Letters of what a direction was made from, at most."""


@click.command(epilog=options.example("palimpsest directions show eyes.safetensors"))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@options.as_json
def show(file: Path, as_json: bool) -> None:
    """Say what a direction is: its origin, its layer, its strengths, and what it was made from."""
    direction = load_direction(file)
    answer = {**_known(direction), "file": str(file)}
    report(answer, _text(direction), as_json)


@click.command(epilog=options.example("palimpsest directions export eyes.safetensors --out eyes.csv"))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@options.place("--out", "File to write: .json, .csv (a row for each unit) or .npz.", required=True)
@options.as_json
def export(file: Path, out: Path, as_json: bool) -> None:
    """Write a direction for other programs."""
    from rewrite_core.files import write_bytes

    direction = load_direction(file)
    require_apart(out, None)
    kind = out.suffix.lower()
    if kind not in _KINDS:
        raise FileError(
            found=f"'{out.name}' to export to",
            expected=f"a name ending in {', '.join(_KINDS)}",
            remedy="Choose one of these endings.",
        )
    write_bytes(out, _KINDS[kind](direction))
    answer = {**described(direction), "files": [str(out)]}
    report(answer, f"{direction.name or direction.method}, written to {out}", as_json)


def _known(direction: Direction) -> dict[str, Any]:
    """All but the vectors."""
    return {
        **described(direction),
        "singular_values": direction.singular_values.tolist(),
        "model": direction.model,
        "fingerprint": direction.fingerprint,
        "provenance": dict(direction.provenance),
    }


def _json(direction: Direction) -> bytes:
    key = None if direction.key is None else direction.key.tolist()
    content = {**_known(direction), "vectors": direction.vectors.tolist(), "key": key}
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _csv(direction: Direction) -> bytes:
    import pandas as pd

    columns = {f"vector_{number}": row.numpy() for number, row in enumerate(direction.vectors, 1)}
    if direction.key is not None:
        columns["key"] = direction.key.numpy()
    table = pd.DataFrame({"unit": range(direction.units), **columns})
    return table.to_csv(index=False, lineterminator="\n").encode()


def _npz(direction: Direction) -> bytes:
    import numpy as np

    arrays: dict[str, Any] = {
        "vectors": direction.vectors.numpy(),
        "singular_values": direction.singular_values.numpy(),
        "about": np.array(json.dumps(_known(direction))),
    }
    if direction.key is not None:
        arrays["key"] = direction.key.numpy()
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


_KINDS: Mapping[str, Callable[[Direction], bytes]] = {".json": _json, ".csv": _csv, ".npz": _npz}


def _text(direction: Direction) -> str:
    strengths = direction.singular_values.tolist()
    more = f" … {len(strengths)} in all" if len(strengths) > SHOWN else ""
    made_for = f"{direction.model} ({direction.fingerprint[:12]})" if direction.fingerprint else "any model"
    made_from = [f"    {name}: {_shortened(value)}" for name, value in sorted(direction.provenance.items())]
    return "\n".join(
        [
            f"{direction.name or 'without a name'}: {direction.method}, layer {direction.layer} of {made_for}",
            f"  {direction.rank} of {direction.units} units, digest {direction.digest}",
            f"  singular values {' '.join(f'{value:.3g}' for value in strengths[:SHOWN])}{more}",
            *(["  made from", *made_from] if made_from else []),
        ]
    )


def _shortened(value: Any) -> str:
    """JSON in one short line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LINE else f"{text[: LINE - 1]}…"
