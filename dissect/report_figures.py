"""The figures of a report, each with what it shows, where it belongs, and the name of its files.

Names of layers and concepts may be anything, so files are called by what is left of them and by a number.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dissect.highlights import Ablation, Highlight
from dissect.paper import FORMATS, Width
from dissect.plots import best_figure, detectors_figure, iou_figure
from dissect.sheet_plots import ablation_figure, sheet_figure
from dissect.tables import Dissection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ReportFigure", "report_figures"]


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """A figure, the name of its files, what it shows (of one layer, or of all), and where in the report it belongs."""

    name: str
    figure: Figure
    text: str
    section: str
    layer: str | None = None
    width: Width = "page"

    def shown(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        """What the page needs of it."""
        png = base64.b64encode(files[f"figures/{self.name}.png"]).decode()
        return {
            "name": self.name,
            "source": f"data:image/png;base64,{png}",
            "text": self.text,
            "section": self.section,
            "width": self.width,
            "files": [f"figures/{self.name}.{kind}" for kind in FORMATS],
        }


def report_figures(
    dissection: Dissection, found: Sequence[Highlight], ablated: Sequence[Ablation]
) -> list[ReportFigure]:
    """All figures, those of the whole first."""
    noun = dissection.noun
    figures = [
        ReportFigure(
            "detectors",
            detectors_figure(dissection),
            f"{noun.capitalize()}s that detect a concept, by layer; above each bar, how many of all.",
            "detectors",
            width="column",
        ),
        ReportFigure(
            "best-units",
            best_figure(dissection),
            f"Held-out IoU of the best {noun} for each concept. Ticks: a {noun} that fires everywhere. "
            f"Dashed: no detector.",
            "best-units",
            width="column",
        ),
    ]
    for number, layer in enumerate(dissection.layers):
        text = f"Held-out IoU of the best {noun}s of {layer} with each concept. Dots: what a {noun} detects."
        name = f"iou-{number:02d}-{_slug(layer)}"
        figures.append(ReportFigure(name, iou_figure(dissection, layer), text, "iou", layer, "column"))
    figures += [_of_sheet(number, one) for number, one in enumerate(found)]
    figures += [_of_ablation(number, one) for number, one in enumerate(ablated)]
    return figures


def _of_sheet(number: int, one: Highlight) -> ReportFigure:
    sheet, noun = one.sheet, one.sheet.found.noun
    text = (
        f"{noun.capitalize()} {sheet.unit} of {sheet.layer}, the best for {one.concept} (held-out IoU "
        f"{one.held_out:.3f}; a {noun} that fires everywhere: {one.baseline:.3f}). Left: samples ranked by its "
        f"greatest value, outlined where it is above its threshold of {sheet.threshold:.3g}; seeds below. Right: the "
        f"distribution of its values, and its IoU with each concept."
    )
    title = f"{sheet.layer}, {noun} {sheet.unit}: the best for {one.concept}"
    name = f"unit-{number:02d}-{_slug(one.concept)}-{_slug(sheet.layer)}-{_slug(str(sheet.unit))}"
    return ReportFigure(name, sheet_figure(sheet, title), text, f"unit {number}", sheet.layer)


def _of_ablation(number: int, one: Ablation) -> ReportFigure:
    sheet, concept = one.highlight.sheet, one.highlight.concept
    noun = sheet.found.noun
    several = f", and without all {len(one.units)} units of the layer that detect {concept}"
    text = (
        f"Samples before, without {noun} {sheet.unit} of {sheet.layer}, the best for {concept}"
        f"{several if len(one.strips) > 2 else ''}: where that {noun} is strongest."
    )
    if one.effects is not None:
        text += " Right: change of the share of pixels, with a 95 % bootstrap interval over other samples."
    title = f"{sheet.layer}: {concept} ablated"
    figure = ablation_figure(one.strips, one.seeds, one.effects, title)
    name = f"ablation-{number:02d}-{_slug(concept)}"
    return ReportFigure(name, figure, text, f"ablation {number}", sheet.layer)


def _slug(text: str) -> str:
    """Of a name, what may stand in the name of a file anywhere."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:32] or "x"
