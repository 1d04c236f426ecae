"""Pictures made elsewhere, to compare a generator with; and arrays from files of unknown origin.

A reference is pictures with the latents they were made from:

* ``.npz``: an array of pictures, and one of latents called ``z`` [N, D] or of ``seeds`` [N]; without either, picture i
  is seed i. Pictures are float [N, 3, H, W] in [-1, 1] or uint8 [N, H, W, 3]. ``c`` [N, classes], one-hot, gives their
  classes; a width of 0 is that of a model without any.
* ``.npy``: the pictures alone.
* a folder of ``seed0000042.png`` files; a ``sample.json`` in it gives scheme and truncation.

No file is executed, and its arrays' sizes are looked at before they are unpacked.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import require_size
from rewrite_core.generators.bulk_manifest import MANIFEST, Manifest
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.latents import Latents, LatentSpec

__all__ = ["Reference", "as_tensor", "from_bytes", "read_arrays", "read_reference", "unfit"]

LARGEST_REFERENCE = 1 << 30
"""Bytes of pictures in a reference."""
LATENTS = ("z", "seeds", "c")
PLAIN = LatentSpec(())
"""Truncation 1, and each picture of its own class."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Pictures made elsewhere [N, 3, H, W] in [-1, 1], the seeds they are of, and their z [N, D] where it is given.

    Attributes:
        bytes: whether they were bytes once, so that a difference below 1/255 cannot be seen.
        classes: of each picture, where the file says so.
    """

    name: str
    pictures: Tensor
    spec: LatentSpec
    bytes: bool
    z: Tensor | None = None
    classes: tuple[int, ...] | None = None

    def latents(self, generator: Generator, place: int, count: int) -> Latents:
        """Those of `count` pictures from `place`, which are of one class, on the generator's device."""
        label = self.classes[place] if self.classes else self.spec.label
        spec = replace(self.spec, seeds=self.spec.seeds[place : place + count], label=label)
        if self.z is None:
            return generator.latents(spec)
        return generator.latents(Latents(self.z[place : place + count], spec))

    def blocks(self, size: int) -> Iterator[tuple[int, int]]:
        """Place and count of pictures in their order, at most `size` and of one class at a time."""
        place, total = 0, len(self.pictures)
        while place < total:
            end = min(place + size, total)
            if self.classes:
                label = self.classes[place]
                end = next((at for at in range(place, end) if self.classes[at] != label), end)
            yield place, end - place
            place = end


def read_reference(path: Path, *, array: str = "", like: LatentSpec = PLAIN) -> Reference:
    """Pictures to compare with: a folder, ``.npz`` or ``.npy``; `array` names one of several in an ``.npz``.

    Truncation and class are those of `like`, unless a folder says its own.

    Raises:
        FileError: if there are none, or their form is not known.
    """
    if path.is_dir():
        return _read_folder(path, like)
    arrays = read_arrays(path, _wanted)
    name = array or _only(arrays, path)
    if name not in arrays:
        raise unfit(str(path), f"no array '{name}'", f"one of {', '.join(sorted(arrays))}")
    pictures, were_bytes = _pictures(arrays[name], f"{path}: '{name}'")
    seeds = arrays.get("seeds", np.arange(len(pictures)))
    if seeds.ndim != 1 or seeds.dtype.kind not in "iu":
        raise unfit(str(path), f"'seeds' {seeds.dtype} {list(seeds.shape)}", "whole numbers [N]")
    given = as_tensor(arrays["z"], f"{path}: 'z'").flatten(1) if "z" in arrays else None  # [N, D]
    if len(seeds) != len(pictures) or (given is not None and len(given) != len(pictures)):
        raise unfit(
            str(path),
            f"{len(pictures)} pictures of {len(seeds if given is None else given)} latents",
            "one each",
        )
    spec = replace(like, seeds=tuple(map(int, seeds.tolist())))
    classes = _classes(arrays["c"], len(pictures), str(path)) if "c" in arrays and arrays["c"].size else None
    if classes and like.label not in (None, *classes):
        raise unfit(str(path), f"pictures of the classes {sorted(set(classes))}", f"of class {like.label}")
    return Reference(path.name, pictures, spec, were_bytes, given, classes)


def _classes(array: NDArray[np.generic], count: int, what: str) -> tuple[int, ...]:
    """The class of each picture from one-hot rows [N, classes]."""
    rows = as_tensor(array, f"{what}: 'c'")
    if (
        rows.ndim != 2
        or len(rows) != count
        or not ((rows == 0) | (rows == 1)).all()
        or (rows.sum(1) != 1).any()
    ):
        raise unfit(what, f"'c' {list(rows.shape)}", f"a class for each picture, one-hot [{count}, classes]")
    return tuple(rows.argmax(1).tolist())


Wanted = Callable[[str, tuple[int, ...], "np.dtype[np.generic]"], bool]


def read_arrays(path: Path, wanted: Wanted) -> dict[str, NDArray[np.generic]]:
    """The arrays of an ``.npz`` that are `wanted` (name, shape, type), or that of an ``.npy``, called ``array``.

    Raises:
        FileError: if it is damaged or too large; nothing in it is executed.
    """
    require_size(path, what=str(path), limit_bytes=LARGEST_REFERENCE)
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return {"array": np.lib.format.read_array(file, allow_pickle=False)}
            with zipfile.ZipFile(file) as archive:
                return dict(_unpacked(archive, wanted))
    except (
        OSError,
        ValueError,
        EOFError,
        MemoryError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as problem:
        reason = str(problem).partition("\n")[0][:120]
        raise unfit(str(path), f"a damaged or foreign file ({reason})", "numpy's .npz or .npy") from None


def _unpacked(archive: zipfile.ZipFile, wanted: Wanted) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Arrays of an ``.npz``, whose sizes are looked at before any is unpacked."""
    chosen = []
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        with archive.open(info) as member:
            shape, kind = _header(member)
        if wanted(name, shape, kind):
            chosen.append((name, info))
    size = sum(info.file_size for _, info in chosen)
    if size > LARGEST_REFERENCE:
        raise ValueError(f"{size:,} bytes once unpacked")
    for name, info in chosen:
        with archive.open(info) as member:
            yield name, np.lib.format.read_array(member, allow_pickle=False)


def _wanted(name: str, shape: tuple[int, ...], kind: np.dtype[np.generic]) -> bool:
    """Whether an array may be pictures or latents."""
    return name in LATENTS or (len(shape) == 4 and kind.kind in "fu" and 3 in (shape[1], shape[3]))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of an array, of which nothing else is read."""
    first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    return shape, kind


def as_tensor(array: NDArray[np.generic], what: str) -> Tensor:
    """Latents [N, …] as float32.

    Raises:
        FileError: if they are no finite numbers.
    """
    if array.ndim == 0 or array.dtype.kind not in "fiu":
        raise unfit(what, f"{array.dtype} {list(array.shape)}", "numbers [N, D]")
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is refused
        tensor = torch.from_numpy(array.astype(np.float32))
    if not torch.isfinite(tensor).all():
        raise unfit(what, "NaN or infinite numbers", "finite ones")
    return tensor


def _only(arrays: Mapping[str, NDArray[np.generic]], path: Path) -> str:
    count = next((len(arrays[name]) for name in LATENTS if name in arrays and arrays[name].ndim), None)
    names = sorted(
        name for name, array in arrays.items() if name not in LATENTS and count in (None, len(array))
    )
    if not names:
        raise unfit(str(path), "no array of pictures", "float [N, 3, H, W] or uint8 [N, H, W, 3]")
    if len(names) > 1:
        raise unfit(str(path), f"arrays {', '.join(names)}", "one to compare with: name it with --array")
    return names[0]


def _pictures(array: NDArray[np.generic], what: str) -> tuple[Tensor, bool]:
    """Pictures [N, 3, H, W] in [-1, 1], and whether they were bytes."""
    images = array.ndim == 4 and array.size > 0
    if images and array.dtype == np.uint8 and array.shape[3] == 3:
        return from_bytes(array), True
    if images and array.dtype.kind == "f" and 3 in (array.shape[1], array.shape[3]):
        tensor = torch.from_numpy(array.astype(np.float32))
        if not torch.isfinite(tensor).all():
            raise unfit(what, "NaN or infinite numbers", "finite ones")
        return (tensor if array.shape[1] == 3 else tensor.permute(0, 3, 1, 2)), False  # [N, 3, H, W]
    raise unfit(what, f"{array.dtype} {list(array.shape)}", "float [N, 3, H, W] or uint8 [N, H, W, 3]")


def from_bytes(pictures: NDArray[np.generic]) -> Tensor:
    """Bytes [N, H, W, 3] → [N, 3, H, W] in [-1, 1], at even steps of 2/255."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _read_folder(folder: Path, like: LatentSpec) -> Reference:
    files = {
        int(match[1]): path
        for path in sorted(folder.iterdir())
        if (match := re.fullmatch(r"seed([0-9]{1,10})\.png", path.name))
    }
    if not files:
        raise unfit(str(folder), "no file called seed0000042.png", "pictures called by their seeds")
    pictures = [_opened(path) for path in files.values()]
    if len({picture.shape for picture in pictures}) > 1:
        raise unfit(str(folder), "pictures of several sizes", "one size")
    spec = replace(like, seeds=tuple(files))
    if (folder / MANIFEST).exists():
        made = Manifest.load(folder).spec
        spec = replace(made, seeds=spec.seeds)
    return Reference(folder.name, from_bytes(np.stack(pictures)), spec, bytes=True)


def _opened(path: Path) -> NDArray[np.uint8]:
    """A picture [H, W, 3]."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise unfit(str(path), "a damaged picture", "a PNG file") from None


def unfit(what: str, found: str, expected: str) -> FileError:
    """The error for a file, or something in it, that is not what it should be."""
    return FileError(
        found=f"{what}: {found}", expected=expected, remedy="Check that it belongs to this model."
    )
