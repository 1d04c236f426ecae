"""Whether a generator was opened right, as plain values: for the model page and `palimpsest verify`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewrite_core.generators import Generator
    from rewrite_core.generators.agreement import Agreement
    from rewrite_core.generators.generator import Progress
    from rewrite_core.generators.reference import Reference

__all__ = ["agreement_row", "described_agreement", "verified", "with_other_noise"]

AS_OPENED = "as opened"


def verified(generator: Generator, progress: Progress | None = None) -> dict[str, Any]:
    """Facts, weights, samples, memory, and everything unusual in them."""
    from rewrite_core.generators.fidelity import facts, samples, weights
    from rewrite_core.generators.footprint import footprint

    known, tensors, drawn = facts(generator), weights(generator), samples(generator, progress)
    return {
        "truncation": not known.truncation,
        "not_truncated_because": known.truncation,
        "noise": known.noise,
        "assumed": generator.assumed,
        "weights": _without_findings(asdict(tensors)),
        "samples": _without_findings(asdict(drawn)),
        "memory": asdict(footprint(generator)),
        "findings": [asdict(finding) for finding in (*tensors.findings, *drawn.findings)],
    }


def with_other_noise(generator: Generator) -> dict[str, Generator]:
    """The generator, and where it has noise also with noise from elsewhere: what pictures usually differ by."""
    from rewrite_core.generators import NoNoise, SeededNoise, StyleGAN2AdaGenerator, StyleGAN2Generator
    from rewrite_core.rules.published import PublishedNoise

    tried: dict[str, Generator] = {AS_OPENED: generator}
    if isinstance(generator, StyleGAN2Generator):
        tried["with the noise that the published code draws"] = generator.with_noise(PublishedNoise())
    if isinstance(generator, StyleGAN2Generator | StyleGAN2AdaGenerator):
        tried["with noise drawn from the seed"] = generator.with_noise(SeededNoise())
        tried["without noise"] = generator.with_noise(NoNoise())
    return tried


def agreement_row(found: Agreement, reference: Reference) -> dict[str, Any]:
    """The agreement as JSON values."""
    return {
        "against": reference.name,
        "verdict": found.verdict,
        **asdict(found),
        "psnr": found.psnr if math.isfinite(found.psnr) else None,
    }


def described_agreement(row: Mapping[str, Any]) -> str:
    """An agreement in words."""
    how = "" if row["how"] == AS_OPENED else f" {row['how']}"
    text = f"{row['verdict']}{how}: {row['count']} pictures, "
    if not row["largest"]:
        return f"{text}no difference at all"
    text += f"at most {row['largest']:.2g} of the largest number apart (mean {row['mean']:.2g}, {row['psnr']:.1f} dB)"
    if row["verdict"] != "different":
        return text
    text += f"; {row['beyond']:.1%} of the numbers by more than a byte shows, most in picture {row['worst']}"
    return f"{text}. They would agree, but {row['reason']}" if row["reason"] else text


def _without_findings(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "findings"}
