"""`palimpsest concepts train` and `eval`: painted concepts, learned from their strokes, and how well that went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.opening import opened
from dashboard.commands.output import require_apart
from dashboard.commands.table import table

if TYPE_CHECKING:
    from dissect.concepts.concept_file import ConceptFile
    from dissect.concepts.painted import PaintedConcepts
    from rewrite_core.generators import Generator

__all__ = ["eval_", "train"]


@click.command(
    epilog=options.example("palimpsest concepts train embedded:painted anime64-dcgan --out mine.json")
)
@click.argument("file")
@click.argument("model", required=False)
@options.place("--out", "File to write, with what was learned; FILE itself will do.")
@options.device
@options.as_json
@options.quiet
def train(file: str, model: str | None, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Learn painted concepts again from their strokes.

    FILE is a file of painted concepts, or embedded:NAME of those that ship with MODEL. Each painted picture is held out
    in its turn to say how well the concepts are read.
    """
    from dissect.concepts import painted

    if out is not None:
        require_apart(out, None)
    strokes, generator = _opened(file, model)
    with progress("Learning", quiet) as advance:
        learned = painted.train(generator, strokes, progress=advance)
    if out is not None:
        learned.file.save(out)
    answer = {**_summary(file, generator, learned), "files": [] if out is None else [str(out)]}
    kept = "not saved: --out FILE keeps what was learned" if out is None else f"written to {out}"
    report(answer, _text(answer, learned, kept), as_json)


@click.command("eval", epilog=options.example("palimpsest concepts eval embedded:painted anime64-dcgan"))
@click.argument("file")
@click.argument("model", required=False)
@options.device
@options.as_json
@options.quiet
def eval_(file: str, model: str | None, as_json: bool, quiet: bool) -> None:
    """Say how well painted concepts are read on pictures that were held out.

    FILE is as for train; what was learned is read from it, if it is there.
    """
    from dissect.concepts import painted

    strokes, generator = _opened(file, model)
    with progress("Learning", quiet) as advance:
        learned = painted.open_painted(strokes, generator, progress=advance)
    answer = _summary(file, generator, learned)
    stored = strokes.learned is not None and learned.file.learned == strokes.learned
    report(answer, _text(answer, learned, "as the file has it" if stored else "learned just now"), as_json)


def _opened(file: str, model: str | None) -> tuple[ConceptFile, Generator]:
    """The strokes at `file`, and the generator that they are for.

    Raises:
        FileError: there is no such file, or it is damaged.
        PalimpsestError: no concepts of that name ship with the model.
    """
    from dissect.concepts.catalogue import EMBEDDED, embedded_file
    from dissect.concepts.concept_file import ConceptFile

    if file == EMBEDDED or file.startswith(f"{EMBEDDED}:"):
        generator = opened(model)
        return ConceptFile.load(embedded_file(file, generator)), generator
    strokes = ConceptFile.load(Path(file))
    return strokes, opened(model, strokes.model.name)


def _summary(file: str, generator: Generator, learned: PaintedConcepts) -> dict[str, Any]:
    found = learned.evaluation
    return {
        "file": file,
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "layers": learned.layers,
        "ridge": learned.learned.ridge,
        "pictures": found.pictures,
        "pixels": found.pixels,
        "accuracy": found.accuracy,
        "mean_iou": found.mean_iou,
        "concepts": found.table().to_dict("records"),
        "not_judged": found.not_judged,
    }


def _text(answer: Mapping[str, Any], learned: PaintedConcepts, kept: str) -> str:
    header = ["concept", "pixels", "IoU", "precision", "recall"]
    rows = [
        [
            row["concept"],
            f"{row['pixels']:,}",
            *(f"{row[name]:.2f}" for name in ("iou", "precision", "recall")),
        ]
        for row in answer["concepts"]
    ]
    lines = [learned.title, learned.evaluation.sentence, *table([header, *rows]), kept]
    return "\n".join(lines)
