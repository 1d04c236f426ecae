"""What `palimpsest ablate` is asked for, made ready: the source that judges, the units, their values, the region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dashboard.commands.console import progress
from rewrite_core.errors import MaskError, RequestError

if TYPE_CHECKING:
    from dissect.concepts.source import ConceptSource
    from dissect.ranking import Ranking
    from rewrite_core.generators import Generator, LatentSpec
    from rewrite_core.pictures import Mask

__all__ = ["load_region", "open_judge", "rank", "values_of"]

SAMPLES = range(1000)
"""What a layer is dissected over, and what means and quantiles of its units are over."""
DISTILLED = "distilled"
LARGEST_FILE = 16 << 20
QUANTILE = "quantile"


def open_judge(text: str | None, generator: Generator) -> ConceptSource:
    """The concepts at `text`, which may judge edited pictures; without it what ships with the model, else colours.

    Raises:
        PalimpsestError: there are none such, or they know unedited samples only.
    """
    from dissect.concepts.catalogue import embedded_concepts, open_concepts
    from dissect.concepts.source import require_pixels_only

    shipped = f"embedded:{DISTILLED}" if DISTILLED in embedded_concepts(generator) else "colours"
    source = open_concepts(text or shipped, generator)
    require_pixels_only(source)
    return source


def load_region(path: Path | None) -> Mask | None:
    """The region painted in a PNG file.

    Raises:
        FileError: it cannot be read.
        MaskError: it is no PNG, or nothing is painted.
    """
    if path is None:
        return None
    from rewrite_core.files import read_bytes
    from rewrite_core.pictures import Mask

    content = read_bytes(path, what=path.name, limit_bytes=LARGEST_FILE)
    try:
        region = Mask.from_png(content)
    except MaskError as problem:
        found, remedy = f"{path.name}: {problem.found}", "Save the region as a PNG, white inside."
        raise MaskError(found=found, expected=problem.expected, remedy=remedy) from None
    if region.empty:
        raise MaskError(
            found=f"{path.name}: an empty region",
            expected="a painted one",
            remedy="Paint white where to intervene.",
        )
    return region


def rank(
    generator: Generator,
    layer: str,
    spec: LatentSpec,
    source: ConceptSource,
    concept: str,
    units: Sequence[int],
    candidates: int,
    count: int,
    quiet: bool,
) -> Ranking:
    """Choose `count` of `units`, or of the `candidates` that fire most where the concept is.

    Raises:
        RequestError: there is no such concept, fewer units than are to be chosen, or fewer than two pictures.
    """
    from dissect.ranking import likely_units, rank_units, require_rankable
    from dissect.shares import concept_index
    from dissect.units import dissect

    concept_index(source.names, concept)
    there = len(units) or min(candidates, generator.layer(layer).in_channels)
    require_rankable(spec, there, count)  # before anything is drawn
    if not units:
        with progress("Dissecting", quiet) as advance:
            found = dissect(generator, _like(spec), [layer], source, progress=advance)
        units = likely_units(found.layers[layer], concept, candidates)
    with progress("Ranking", quiet) as advance:
        return rank_units(generator, spec, layer, concept, source, units, count, advance)


def values_of(
    text: str,
    generator: Generator,
    layer: str,
    units: Sequence[int],
    spec: LatentSpec,
    source: ConceptSource,
    quiet: bool,
) -> tuple[float, ...]:
    """What `--insert` writes into each of `units`: a number, a high quantile, or its mean where a concept is.

    Raises:
        RequestError: it is none of these, or the concept is never there.
    """
    from dissect.interventions import concept_values, quantile_values
    from rewrite_core.statistics import Conditional, Histogram, fetch

    with suppress(ValueError):
        number = float(text)
        if math.isfinite(number):
            return (number,) * len(units)
    if text != QUANTILE and text not in source.names:
        raise RequestError(
            found=f"'{text}' to insert",
            expected=f"a number, {QUANTILE}, or one of {', '.join(source.names)}",
            remedy="Choose one of these.",
        )
    with progress("Looking at the layer", quiet) as advance:
        if text == QUANTILE:
            histogram = fetch(generator, layer, _like(spec), Histogram(), progress=advance)
            return quantile_values(histogram, units)
        conditional = fetch(generator, layer, _like(spec), Conditional(source), progress=advance)
        return concept_values(conditional, text, units)


def _like(spec: LatentSpec) -> LatentSpec:
    """The usual samples, truncated and of the class as those of `spec`."""
    from dataclasses import replace

    return replace(spec, seeds=tuple(SAMPLES))
