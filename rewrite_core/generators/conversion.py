"""A generator as files of our own format, and the proof that they hold the same generator.

A folder holds what `export` writes: ``model.json``, ``model.safetensors`` and the record. A single file is the second,
with the content of the others in its metadata under `DESCRIPTION` and `RECORD`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rewrite_core.errors import FileError
from rewrite_core.files import read_safetensors, to_safetensors_bytes, write_bytes
from rewrite_core.generators.checkpoint import DESCRIPTION, open_generator
from rewrite_core.generators.export import RECORD, exported
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.latents import LatentSpec

__all__ = ["converted", "require_same", "write_model"]

COMPARED = LatentSpec.of(range(8))


def converted(generator: Generator, record: Mapping[str, Any], *, single: bool) -> dict[str, bytes]:
    """The files' contents by name: those of a folder, or with `single` one that needs no other.

    Raises:
        FileError: if the generator has parts that no file describes.
    """
    files = exported(generator, "safetensors", record)
    if not single:
        return files
    weights = files["model.safetensors"]
    tensors, metadata = read_safetensors(weights, what=generator.name)
    metadata |= {DESCRIPTION: files[DESCRIPTION].decode(), RECORD: json.dumps(record)}
    return {"model.safetensors": to_safetensors_bytes(tensors, metadata)}


def write_model(files: Mapping[Path, bytes]) -> None:
    """Write each file whole or not at all, in a folder that is made if need be; errors as `write_bytes`."""
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)


def require_same(generator: Generator, path: Path) -> None:
    """Open what was written at `path`, and see that it is the same generator.

    Raises:
        FileError: if it has another fingerprint or draws other pictures.
    """
    again = open_generator(path).on(generator.device)
    same = torch.equal(again.sample(COMPARED), generator.sample(COMPARED))
    if again.fingerprint != generator.fingerprint or not same:
        raise FileError(
            found=f"{path}, which opens as another generator ({again.fingerprint[:12]}…)",
            expected=f"the one it was written from ({generator.fingerprint[:12]}…)",
            remedy="Do not use it; please report this.",
        )
