"""Where the numbers of a dissection come from, in words for a caption and as JSON to compute them again.

    caption("Detectors by layer.", found)   # the text, then model, layers, samples, thresholds, concepts, versions
    manifest(found)                         # the same for a program; `Dissection` follows from it to the bit

Neither holds a date: the same dissection is described by the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dissect.tables import Dissection
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.rules.rule import versions

__all__ = ["FORMAT", "INTERVALS", "VERSION", "caption", "manifest", "measured", "runs", "samples_in_words"]

INTERVALS = "95 % bootstrap intervals over pictures"
FORMAT, VERSION = "palimpsest-dissection", 1


def caption(text: str, dissection: Dissection, layer: str | None = None) -> str:
    """`text`, and what a reader needs to know where it came from: for one `layer`, or for all that were dissected."""
    layers = [layer] if layer else list(dissection.layers)
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(layers)}"
    settings = dissection.settings
    noun = dissection.noun
    return (
        f"{text} Generator {dissection.model} ({dissection.fingerprint[:12]}), {where}; "
        f"{samples_in_words(dissection.spec)}; concepts: {dissection.source}. "
        f"A {noun} fires above its {settings.quantile:g} quantile, and for a held-out IoU above the quantile that is "
        f"best on the first half of the samples, measured on the second; a detector has a held-out IoU above "
        f"{settings.level:g} and above that of a {noun} that fires everywhere. {_made_with()}"
    )


def measured(text: str, generator: Generator, spec: LatentSpec, concepts: str = "") -> str:
    """`text`, and where its numbers came from: pictures of `spec`, and the `concepts` that they were judged by."""
    judged = f"; concepts: {concepts}" if concepts else ""
    return (
        f"{text} Generator {generator.name} ({generator.fingerprint[:12]}); {samples_in_words(spec)}{judged}. "
        f"{_made_with()}"
    )


def _made_with() -> str:
    return f"Made with {', '.join(f'{name} {version}' for name, version in versions().items())}."


def samples_in_words(spec: LatentSpec) -> str:
    """``1,000 samples (seeds 0-999, truncation 0.7)``."""
    what = "seeds" if spec.scheme == "seed" else "rows"
    said = [f"{what} {runs(spec.seeds)}"]
    if spec.truncation != 1:
        said.append(f"truncation {spec.truncation:g}")
    if spec.cutoff is not None:
        said.append(f"of the first {spec.cutoff} styles")
    if spec.label is not None:
        said.append(f"class {spec.label}")
    return f"{len(spec):,} samples ({', '.join(said)})"


def manifest(dissection: Dissection) -> dict[str, Any]:
    """Everything that the numbers depend on, as JSON values."""
    spec, settings = dissection.spec, dissection.settings
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": dissection.model,
        "fingerprint": dissection.fingerprint,
        "layers": list(dissection.layers),
        "samples": {
            "seeds": runs(spec.seeds),
            "scheme": spec.scheme,
            "truncation": spec.truncation,
            "cutoff": spec.cutoff,
            "class": spec.label,
        },
        "concepts": {
            "source": dissection.source,
            "names": list(dissection.names),
            "identity": dict(dissection.identity),
        },
        "settings": {
            "quantile": settings.quantile,
            "level": settings.level,
            "grid": None if settings.grid is None else list(settings.grid),
        },
        "versions": versions(),
        "warnings": list(dissection.warnings),
    }


def runs(seeds: Sequence[int]) -> str:
    """``0-999, 1200``: what ``--seeds`` reads back in the same order."""
    found: list[list[int]] = []
    for seed in seeds:
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
