"""A dissection as tables: a row for each unit, layer or concept, as pandas frames. No table holds NaN.

What the numbers mean, and what a detector is, is said in `dissect.layer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dissect.layer import LayerDissection
from dissect.settings import Settings
from rewrite_core.errors import LayerError
from rewrite_core.generators import LatentSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dissection"]


@dataclass(frozen=True, eq=False)
class Dissection:
    """Every unit of some layers against the concepts of one source.

    Attributes:
        model, fingerprint: name and fingerprint of the generator.
        spec: the samples; on the first half of its seeds was chosen, on the second reported.
        source, identity: title of the concept source, and everything that its labels depend on.
        settings: what was asked for.
        layers: name → what was found there, in the order that they were asked for; at least one.
    """

    model: str
    fingerprint: str
    spec: LatentSpec
    source: str
    identity: Mapping[str, Any]
    settings: Settings
    layers: Mapping[str, LayerDissection]

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts."""
        return self._any.concepts

    @property
    def noun(self) -> str:
        """What was dissected: each a ``unit``, or a ``direction``."""
        return self._any.noun

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing that a reader of the tables must know: concepts not seen, dead units."""
        return tuple(self._warnings())

    def layer(self, name: str) -> LayerDissection:
        """What was found at the layer called `name`.

        Raises:
            LayerError: if it was not dissected.
        """
        if name not in self.layers:
            raise LayerError(
                found=f"layer '{name}', which was not dissected",
                expected=f"one of {', '.join(self.layers)}",
                remedy="Choose one of them, or dissect it too.",
            )
        return self.layers[name]

    def units(self) -> pd.DataFrame:
        """A row for each unit of each layer: the concept that it stands for, and how well.

        Columns: layer; unit (number or name); concept (empty: none); iou (at the set threshold, over all samples);
        tuned_quantile (chosen on the first half); held_out_iou (at it, on the second half); baseline (of the concept on
        that half); at the set threshold precision, recall, density and the threshold itself; dead; detector.
        """
        import pandas as pd

        return pd.concat([layer.table() for layer in self.layers.values()], ignore_index=True)

    def iou_table(self, layer: str, held_out: bool = False) -> pd.DataFrame:
        """Units × concepts: the IoU at the set threshold over all samples, or at the tuned one on the second half.

        Raises:
            LayerError: if `layer` was not dissected.
        """
        import pandas as pd

        found = self.layer(layer)
        values = found.held_out if held_out else found.iou
        units, concepts = pd.Index(found.units, name="unit"), pd.Index(found.concepts, name="concept")
        return pd.DataFrame(values.numpy(), units, concepts)

    def summary(self) -> pd.DataFrame:
        """A row for each layer.

        Columns: layer; units; detectors; interpretable (their share of the units); concepts (how many different ones
        they detect); dead.
        """
        import pandas as pd

        rows = [
            {
                "layer": name,
                "units": len(layer.units),
                "detectors": int(layer.detector.sum()),
                "interpretable": float(layer.detector.double().mean()),
                "concepts": len(layer.concept[layer.detector].unique()),
                "dead": int(layer.dead.sum()),
            }
            for name, layer in self.layers.items()
        ]
        return pd.DataFrame(rows)

    def detectors(self) -> pd.DataFrame:
        """Layers × concepts: how many units detect it."""
        import pandas as pd

        counts = [self._detectors(layer).numpy() for layer in self.layers.values()]
        layers, concepts = pd.Index(self.layers, name="layer"), pd.Index(self.names, name="concept")
        return pd.DataFrame(counts, layers, concepts)

    def concepts(self) -> pd.DataFrame:
        """A row for each concept.

        Columns: concept; share (of all pixels); baseline; detectors; layer and unit of the best unit, which is that of
        the best tuned IoU on the first half (the first of equals); its held_out_iou. What was never seen has the share
        0 and no best unit: empty texts.
        """
        import pandas as pd

        return pd.DataFrame([self._concept(number) for number in range(len(self.names))])

    def _concept(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = {
            "concept": self.names[number],
            "share": float(self._any.share[number]),
            "baseline": float(self._any.baseline[number]),
            "detectors": sum(int(self._detectors(layer)[number]) for layer in self.layers.values()),
        }
        layer = max(self.layers.values(), key=lambda layer: float(layer.tuned_iou[:, number].max()))
        unit = layer.best(number)
        if unit is None:
            return {**row, "layer": "", "unit": "", "held_out_iou": 0.0}
        best = {"layer": layer.layer, "unit": str(layer.units[unit])}
        return {**row, **best, "held_out_iou": float(layer.held_out[unit, number])}

    def _detectors(self, layer: LayerDissection) -> torch.Tensor:
        """How many units of `layer` detect each concept, [L] int64."""
        return torch.bincount(layer.concept[layer.detector], minlength=len(self.names))

    def _warnings(self) -> Iterator[str]:
        yield from self._any.warnings()
        for name, layer in self.layers.items():
            if dead := int(layer.dead.sum()):
                yield f"layer '{name}': {dead:,} of {len(layer.units):,} {self.noun}s are dead"

    @property
    def _any(self) -> LayerDissection:
        """A layer to read concepts and their shares from, which are the same in each."""
        return next(iter(self.layers.values()))
