"""What a generator *is*, in one number: rules, edits, painted concepts and stored statistics are bound to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["fingerprint"]


def fingerprint(family: str, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a generator: family, architecture and float32 tensors; never of a file's bytes."""
    digest = hashlib.sha256(json.dumps([family, architecture], sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        if not tensor.is_floating_point():
            continue  # counters such as num_batches_tracked
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.float().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()
