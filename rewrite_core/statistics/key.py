"""What a stored statistic depends on, and the name that follows from it.

A result is named by a hash of everything that it depends on: the weights' fingerprint and the family, the layer, the
samples (seeds, scheme, truncation and its cutoff, class), micro-batch and block size, the statistic with its parameters
and the version of its code, dtype and kind of device. So a stale answer cannot be served, and there is nothing to
invalidate. The number of threads is not in it: on a CPU every block is computed by one thread, however many there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.statistics.statistic import Statistic
from rewrite_core.statistics.sweep import MICRO_BATCHES

__all__ = ["FORMAT", "Key", "canonical", "key_of", "name_of", "samples_of"]

Key = Mapping[str, Any]

FORMAT = 2
"""Raised when the files or the keys change their form; a file of a newer one is left alone and not read."""


def key_of(generator: Generator, layer: str, spec: LatentSpec, statistic: Statistic) -> dict[str, Any]:
    """Everything that the statistic of these samples depends on, as JSON values."""
    return {
        **samples_of(generator, spec),
        "layer": layer,
        "statistic": statistic.kind,
        "version": statistic.version,
        "parameters": dict(statistic.parameters()),
    }


def samples_of(generator: Generator, spec: LatentSpec) -> dict[str, Any]:
    """The part of the key that all statistics of one pass share."""
    return {
        "format": FORMAT,
        "fingerprint": generator.fingerprint,
        "family": generator.family,
        "seeds": _compact(spec.seeds),
        "scheme": spec.scheme,
        "truncation": spec.truncation,
        "cutoff": spec.cutoff,
        "label": spec.label,
        "micro_batch": generator.micro_batch,
        "block": MICRO_BATCHES * generator.micro_batch,
        "dtype": "float32",
        "device": generator.device.type,
    }


def canonical(key: Key) -> str:
    """The one way to write a key."""
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def name_of(key: Key) -> str:
    """128 bits of the key's SHA-256, in hexadecimal."""
    return hashlib.sha256(canonical(key).encode()).hexdigest()[:32]


def _compact(seeds: tuple[int, ...]) -> list[int] | str:
    """A run of seeds as ``first..last``, which keeps keys short."""
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}..{seeds[-1]}"
    return list(seeds)
