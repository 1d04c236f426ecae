"""A Keras ``.h5`` file or upload → its ``model_config`` and its weights, through h5py: data, never code.

HDF5 can do more than hold numbers. Followed are hard links alone: a soft or external one may lead to another file.
Read are arrays that lie in the file as they are: a virtual or external one is another file's, a compressed one grows.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewrite_core.errors import FileError
from rewrite_core.files import read_json, require_size
from rewrite_core.generators.contents import Stored
from rewrite_core.generators.keras import described
from rewrite_core.generators.keras_config import Unsaid

__all__ = ["read_h5"]

CONFIG, WEIGHTS = "model_config", "model_weights"
SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_ARRAYS, DEEPEST = 4096, 12


def read_h5(source: Path | bytes, *, what: str, limit_bytes: int) -> Stored:
    """The tensors of a Keras model and the ``model.json`` that describes them.

    Raises:
        FileError: h5py is missing, the file is too large or damaged, or holds what steps cannot say.
    """
    require_size(source, what=what, limit_bytes=limit_bytes)
    h5py = _h5py(what)
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise _damaged(what, "not HDF5")
        try:
            with h5py.File(file, "r") as opened:
                config, weights = _config(opened, what), dict(_weights(h5py, opened))
            description, tensors = described(config, weights, Path(what).stem)
        except FileError:
            raise
        except Unsaid as problem:
            raise FileError(
                found=f"{what}: {problem}",
                expected="a chain of layers that model.json has words for",
                remedy="Describe the stack in a model.json, with its weights as safetensors.",
            ) from None
        except Exception as problem:  # whatever a damaged file makes h5py raise
            raise _damaged(what, f"{type(problem).__name__}: {problem}") from None
    return Stored(tensors, owned=True, description=json.loads(json.dumps(description)))


def _h5py(what: str) -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise FileError(
            found=f"{what}, a Keras file, and no h5py to read it",
            expected="h5py",
            remedy='Install it with: pip install "palimpsest[keras]"',
        ) from None


def _config(opened: Any, what: str) -> Any:
    text = opened.attrs.get(CONFIG)
    if not isinstance(text, str | bytes):
        raise FileError(
            found=f"{what}: weights without {CONFIG}",
            expected="a whole model",
            remedy="Save it with model.save('model.h5') rather than save_weights.",
        )
    return read_json(text, what=f"{what} {CONFIG}")


def _weights(h5py: Any, opened: Any) -> Iterator[tuple[tuple[str, str], NDArray[Any]]]:
    """((layer, variable), array) of every array below ``model_weights``, ``dense/kernel:0`` being (dense, kernel)."""
    seen: set[tuple[str, str]] = set()
    for path, dataset in _arrays(h5py, opened, WEIGHTS, 0):
        layer, variable = path[-2], path[-1].partition(":")[0]
        if (layer, variable) in seen:
            raise Unsaid(f"two arrays called '{layer}/{variable}'")
        seen.add((layer, variable))
        if len(seen) > MOST_ARRAYS:
            raise Unsaid(f"more than {MOST_ARRAYS} arrays")
        if dataset.dtype.kind != "f":
            continue
        if dataset.is_virtual or dataset.external or dataset.id.get_storage_size() != dataset.nbytes:
            raise Unsaid(f"'{layer}/{variable}', which does not lie in the file as it is")
        yield (layer, variable), np.asarray(dataset[()], np.float32)


def _arrays(
    h5py: Any, group: Any, name: str, depth: int, path: tuple[str, ...] = ()
) -> Iterator[tuple[Any, Any]]:
    if depth > DEEPEST or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise Unsaid(f"no group '{name}' in the file itself")
    found = group[name]
    if isinstance(found, h5py.Dataset):
        yield (*path, name), found
    elif isinstance(found, h5py.Group):
        for child in found:
            yield from _arrays(h5py, found, child, depth + 1, (*path, name))


def _damaged(what: str, reason: str) -> FileError:
    return FileError(
        found=f"{what} is damaged or no Keras file ({reason[:100]})",
        expected="a model as model.save('model.h5') writes it",
        remedy="Save or download it again.",
    )
