"""A dissection as files for a paper: tables, figures, a report to read, and what makes all of it again.

    write_report(generator, found, Path("report"), judge=colours, command="palimpsest dissect …")

    report/report.html       to read: one file with everything in it, no script, nothing fetched
    report/tables/*.csv      the numbers, each also as .parquet
    report/figures/*.pdf     each also as .svg and .png, as wide as a column or a page
    report/manifest.json     model, samples, concepts, settings, versions, command; the SHA-256 of each other file

The same dissection gives the same bytes, so nothing in it tells the time. Names of models, layers and concepts come
from files that anyone may have made: the report escapes them, and no file is called by them as they are. Nothing is
written before everything is made, and the manifest comes last.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dissect.concepts import ConceptSource, require_pixels_only
from dissect.directions import manifest_entry, stacked
from dissect.highlights import ABLATED, SHEETS, Ablation, Highlight, ablations, highlights
from dissect.paper import FORMATS, save_figure
from dissect.provenance import caption, manifest, samples_in_words
from dissect.report_figures import report_figures
from dissect.tables import Dissection
from rewrite_core.directions import Direction
from rewrite_core.errors import FileError, PalimpsestError
from rewrite_core.files import make_folder, write_bytes
from rewrite_core.generators import Generator, Progress
from rewrite_core.generators.lanes import beside
from rewrite_core.statistics import Store

__all__ = ["MANIFEST", "REPORT", "Report", "require_writable", "tables", "write_report"]

REPORT, MANIFEST = "report.html", "manifest.json"


@dataclass(frozen=True)
class Report:
    """What was written: the folder, and the names of the files in it."""

    folder: Path
    files: tuple[str, ...]

    @property
    def page(self) -> Path:
        """The file to open."""
        return self.folder / REPORT


def require_writable(out: Path, force: bool = False) -> None:
    """See that a report may be written to `out`, before the work whose result it is to hold.

    Raises:
        FileError: it is a file, or a folder that holds something and `force` is not given.
        PalimpsestError: what writes Parquet files is not installed.
    """
    if out.exists() and not out.is_dir():
        raise FileError(found=f"{out}, which is a file", expected="a folder", remedy="Choose another name.")
    if not force and out.is_dir() and any(out.iterdir()):
        raise FileError(
            found=f"{out}, which is not empty",
            expected="a name that is free, or an empty folder",
            remedy="Choose another name, or write over what is there with --force.",
        )
    if find_spec("pyarrow") is None:
        raise PalimpsestError(
            found="no pyarrow",
            expected="it to write Parquet tables",
            remedy="Install it: pip install pyarrow",
        )


def write_report(
    generator: Generator,
    dissection: Dissection,
    out: Path,
    *,
    directions: Sequence[Direction] = (),
    judge: ConceptSource | None = None,
    command: str = "",
    most: int = SHEETS,
    force: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write everything about `dissection`.

    Args:
        generator: the one that was dissected.
        dissection: what was found.
        out: the folder to write to; made if need be.
        directions: those that took the place of units, where `dissect_directions` was asked.
        judge: a source that sees pixels alone, to measure what an ablation does; without one pictures are shown only.
        command: the command line that makes the same.
        most: concepts whose best unit is shown, at most.
        force: write over files of a folder that holds some.
        store: where statistics are kept.
        progress: counts units and figures; called in another thread too.

    Raises:
        FileError: the folder holds something, or cannot be written to.
        PalimpsestError: `judge` sees more than pixels, or a library is missing.
        Cancelled: from `progress`; nothing is written then.
    """
    require_writable(out, force)
    if judge is not None:
        require_pixels_only(judge)
    steps = _Steps(progress, dissection, most)
    rows = stacked(directions).rows if directions else None
    found = beside(
        highlights, generator, dissection, directions=rows, most=most, store=store, advance=steps.advance
    )
    ablated = beside(
        ablations, generator, dissection, found, judge, directions=rows, store=store, advance=steps.advance
    )
    files: dict[str, bytes] = {}
    for name, table in tables(dissection, ablated).items():
        files[f"tables/{name}.csv"] = table.to_csv(index=False, lineterminator="\n").encode()
        files[f"tables/{name}.parquet"] = _parquet(table)
    shown, captions = [], []
    for figure in report_figures(dissection, found, ablated):
        for kind in FORMATS:
            files[f"figures/{figure.name}.{kind}"] = save_figure(figure.figure, kind)
        shown.append(figure.shown(files))
        captions.append(f"{figure.name}: {caption(figure.text, dissection, figure.layer)}\n")
        steps.advance()
    files["figures/captions.txt"] = "\n".join(captions).encode()
    described = {
        **manifest(dissection),
        "directions": [manifest_entry(direction) for direction in directions],
        "judge": judge.title if judge else None,
        "command": command,
    }
    files[REPORT] = _page(dissection, found, ablated, shown, described, judge).encode()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    files[MANIFEST] = (
        json.dumps({**described, "files": digests}, indent=1, ensure_ascii=False) + "\n"
    ).encode()
    _write(out, files)
    steps.end()
    return Report(out, tuple(files))


def tables(dissection: Dissection, ablated: Sequence[Ablation] = ()) -> dict[str, pd.DataFrame]:
    """Name → table, each a plain one with a row for each fact.

    units, layers and concepts are those of `Dissection`; detectors: layer, concept, how many; iou: every unit with
    every concept; effects: of the ablations that were measured.
    """
    counts = dissection.detectors().reset_index().melt("layer", value_name="detectors")
    found = {
        "units": dissection.units(),
        "layers": dissection.summary(),
        "concepts": dissection.concepts(),
        "detectors": counts,
        "iou": pd.concat([_every_iou(dissection, layer) for layer in dissection.layers], ignore_index=True),
    }
    measured = [
        one.effects.assign(
            layer=one.highlight.sheet.layer, unit=one.highlight.sheet.unit, detects=one.highlight.concept
        )
        for one in ablated
        if one.effects is not None
    ]
    if measured:
        found["effects"] = pd.concat(measured, ignore_index=True)
    return found


def _every_iou(dissection: Dissection, layer: str) -> pd.DataFrame:
    """A row for each unit of `layer` and each concept."""
    found = dissection.layers[layer]
    units, concepts = len(found.units), len(found.concepts)
    return pd.DataFrame(
        {
            "layer": layer,
            "unit": np.repeat(np.array(found.units), concepts),
            "concept": np.tile(np.array(found.concepts, dtype=object), units),
            "iou": found.iou.flatten().numpy(),
            "tuned_quantile": found.tuned_quantile.flatten().numpy(),
            "tuned_iou": found.tuned_iou.flatten().numpy(),
            "held_out_iou": found.held_out.flatten().numpy(),
        }
    )


def _page(
    dissection: Dissection,
    found: Sequence[Highlight],
    ablated: Sequence[Ablation],
    figures: Sequence[Mapping[str, Any]],
    described: Mapping[str, Any],
    judge: ConceptSource | None,
) -> str:
    """The report; every text is escaped by the template's engine."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    by_section: dict[str, list[Mapping[str, Any]]] = {}
    for figure in figures:
        by_section.setdefault(figure["section"], []).append(figure)
    return template.render(
        dissection=dissection,
        noun=dissection.noun,
        samples=samples_in_words(dissection.spec),
        summary=dissection.summary(),
        concepts=dissection.concepts(),
        highlights=found,
        ablations=ablated,
        figures=by_section,
        judge=judge,
        manifest=json.dumps(described, indent=1, ensure_ascii=False),
        command=described["command"],
    )


def _parquet(table: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    table.to_parquet(file, engine="pyarrow", index=False)
    return file.getvalue()


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    for folder in {(out / name).parent for name in files}:
        make_folder(folder)
    for name, content in files.items():
        write_bytes(out / name, content)


class _Steps:
    """Progress over work of which only an upper bound is known before."""

    def __init__(self, progress: Progress | None, dissection: Dissection, most: int) -> None:
        shown = min(len(dissection.names), most)
        ablated = min(shown, ABLATED)
        self._progress, self._done = progress, 0
        self._total = 2 + len(dissection.layers) + 2 * shown + 2 * ablated

    def advance(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total)

    def end(self) -> None:
        if self._progress:
            self._progress(self._total, self._total)
