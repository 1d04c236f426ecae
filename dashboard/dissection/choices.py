"""What a visitor has chosen on the page Dissection: a value, replaced and never changed.

The layer is not among it: it is the session's own, which the sidebar shows on every page.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dissect.concepts import ConceptSource
from dissect.settings import CUSTOMARY, Settings

__all__ = ["SAMPLES", "UNITS", "Choices"]

UNITS = "Units"
"""The view that the page opens on."""
SAMPLES = 1000


@dataclass(frozen=True)
class Choices:
    """What is dissected, and what of it is looked at.

    Attributes:
        view: which view is shown.
        concepts: what `dissect.concepts.catalogue.open_concepts` opens; empty: what suits the generator.
        own: a source made on the page, in place of that text.
        samples: how many pictures are looked at.
        layers: which layers; none: all.
        begun: whether the visitor has asked for it. Embedded generators need not be asked.
        unit: layer and number of the unit whose sheet is shown; None: the best of the layer.
        concept: the only one in the table of units; empty: all.
        all_layers: whether that table is of all layers, or of the session's.
        search: a number of a unit, or letters of its concept, that the table is narrowed to.
        caused: layer and number of the unit whose effect was asked for.
        detectors_only: whether it leaves out units that detect nothing.
        problem: why what was asked for last cannot be had.
    """

    view: str = UNITS
    concepts: str = ""
    own: ConceptSource | None = field(default=None, compare=False)
    settings: Settings = CUSTOMARY
    samples: int = SAMPLES
    layers: tuple[str, ...] = ()
    begun: bool = False
    unit: tuple[str, int] | None = None
    concept: str = ""
    all_layers: bool = False
    detectors_only: bool = False
    search: str = ""
    caused: tuple[str, int] | None = None
    problem: str = ""
