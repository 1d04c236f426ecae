"""Whether a generator draws given pictures: the proof that a checkpoint was opened right.

    reference = read_reference(Path("golden.npz"))
    found = agreement({"as opened": generator}, reference)
    found.verdict, found.largest, found.psnr

A reference is pictures made elsewhere, with the latents they were made from:

* ``.npz``: an array of pictures, and one of latents called ``z`` [N, D] or of ``seeds`` [N]; without either, picture i
  is seed i. Pictures are float [N, 3, H, W] in [-1, 1] or uint8 [N, H, W, 3].
* ``.npy``: the pictures alone.
* a folder of ``seed0000042.png`` files; a ``sample.json`` in it gives scheme and truncation.

Differences are shares of the largest absolute value in the reference (of 255 where it is bytes). Up to 1e-5 the
pictures are ``same``; up to 1/255 they are ``same to a byte``; beyond that they are ``different``, and the commonest
reasons are tried on them, such as channels in another order.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import require_size
from rewrite_core.generators.bulk import MANIFEST, Manifest
from rewrite_core.generators.generator import Generator, Progress
from rewrite_core.generators.latents import Latents, LatentSpec
from rewrite_core.pictures import to_uint8

__all__ = ["Agreement", "Reference", "Verdict", "agreement", "read_arrays", "read_reference"]

Verdict = Literal["same", "same to a byte", "different"]

SAME, BYTE = 1e-5, 1 / 255
LARGEST_REFERENCE = 1 << 30
"""Bytes of pictures in a reference."""
LATENTS = ("z", "seeds")

REASONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "the given pictures' channels are blue, green, red": lambda x: x.flip(1),
    "the given pictures are mirrored": lambda x: x.flip(3),
    "the given pictures are upside down": lambda x: x.flip(2),
    "the given numbers are from 0 to 1": lambda x: 2 * x - 1,
    "the given pictures are negatives": lambda x: -x,
}


@dataclass(frozen=True, eq=False)
class Reference:
    """Pictures made elsewhere [N, 3, H, W] in [-1, 1], the seeds they are of, and their z [N, D] where it is given.

    Attributes:
        bytes: whether they were bytes once, so that a difference below 1/255 cannot be seen.
    """

    name: str
    pictures: Tensor
    spec: LatentSpec
    bytes: bool
    z: Tensor | None = None

    def latents(self, generator: Generator, place: int, count: int) -> Latents:
        """Those of `count` pictures from `place`, on the generator's device."""
        spec = replace(self.spec, seeds=self.spec.seeds[place : place + count])
        if self.z is None:
            return generator.latents(spec)
        return Latents(self.z[place : place + count].to(generator.device), spec)


@dataclass(frozen=True)
class Agreement:
    """How near a generator's pictures are to those of a reference.

    Attributes:
        how: which of the generators that were tried came nearest.
        largest, mean: absolute difference, as a share of the reference's largest number.
        psnr: in decibels; infinite where nothing differs.
        beyond: share of the numbers that differ by more than a byte can show.
        worst: the seed of the picture with the largest difference.
        reason: what would make them agree, where one of the usual mistakes does; else empty.
    """

    how: str
    count: int
    largest: float
    mean: float
    psnr: float
    beyond: float
    worst: int
    reason: str

    @property
    def verdict(self) -> Verdict:
        """In words."""
        return (
            "same"
            if self.largest <= SAME
            else "same to a byte"
            if self.largest <= BYTE + 1e-6
            else "different"
        )


def agreement(
    tried: Mapping[str, Generator],
    reference: Reference,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """The best agreement of any generator in `tried` (what it is called → the generator), which end with the first.

    `batch` is how many pictures to draw at a time, where that matters (the published noise depends on it).

    Raises:
        FileError: if the reference's pictures or latents are not of this generator's size.
    """
    best: Agreement | None = None
    for how, generator in tried.items():
        _require_fit(generator, reference)
        drawn = _drawn(generator, reference, batch or generator.micro_batch, progress)
        found = _compared(how, drawn, reference, reference.pictures)
        if best is None or found.largest < best.largest:
            best = found
        if best.verdict == "same":
            return best
        for reason, change in REASONS.items():
            changed = _compared(how, drawn, reference, change(reference.pictures))
            if best.verdict == "different" and changed.verdict != "different":
                best = replace(found, reason=reason)
    assert best is not None, "no generator to try"
    return best


def _drawn(generator: Generator, reference: Reference, batch: int, progress: Progress | None) -> Tensor:
    """The generator's own pictures, through bytes where the reference's were."""
    parts = []
    for place in range(0, len(reference.pictures), batch):
        with torch.no_grad():
            drawn = generator.pictures(reference.latents(generator, place, batch)).cpu()
        parts.append(_from_bytes(to_uint8(drawn)) if reference.bytes else drawn)
        if progress:
            progress(min(place + batch, len(reference.pictures)), len(reference.pictures))
    return torch.cat(parts)


def _compared(how: str, drawn: Tensor, reference: Reference, wanted: Tensor) -> Agreement:
    scale = 2.0 if reference.bytes else max(float(wanted.abs().max()), 1e-12)
    off = (drawn - wanted).abs().double() / scale  # [N, 3, H, W]
    square = float(((drawn - wanted).double() / 2).square().mean())  # the range is 2 wide
    return Agreement(
        how=how,
        count=len(wanted),
        largest=float(off.max()),
        mean=float(off.mean()),
        psnr=-10 * math.log10(square) if square else math.inf,
        beyond=float((off > BYTE + 1e-6).double().mean()),
        worst=reference.spec.seeds[int(off.flatten(1).amax(1).argmax())],
        reason="",
    )


def _require_fit(generator: Generator, reference: Reference) -> None:
    have, need = tuple(reference.pictures.shape[1:]), (3, *generator.picture_size)
    if have != need:
        raise _unfit(reference.name, f"pictures {list(have)}", f"{list(need)}, as {generator.name} draws")
    if reference.z is not None and reference.z.shape[1] != generator.latent_dim:
        size = f"latents of {reference.z.shape[1]} numbers"
        raise _unfit(reference.name, size, f"{generator.latent_dim}, as {generator.name} takes")


# Reading


def read_reference(path: Path, *, array: str = "", truncation: float = 1.0) -> Reference:
    """Pictures to compare with: a folder, ``.npz`` or ``.npy``; `array` names one of several in an ``.npz``.

    Raises:
        FileError: if there are none, or their form is not known.
    """
    if path.is_dir():
        return _read_folder(path, truncation)
    arrays = read_arrays(path, _wanted)
    name = array or _only(arrays, path)
    if name not in arrays:
        raise _unfit(str(path), f"no array '{name}'", f"one of {', '.join(sorted(arrays))}")
    pictures, were_bytes = _pictures(arrays[name], f"{path}: '{name}'")
    seeds = arrays.get("seeds", np.arange(len(pictures)))
    z = arrays.get("z")
    if len(seeds) != len(pictures) or (z is not None and len(z) != len(pictures)):
        raise _unfit(
            str(path), f"{len(pictures)} pictures of {len(seeds if z is None else z)} latents", "one each"
        )
    spec = LatentSpec.of(map(int, seeds.tolist()), truncation=truncation)
    given = None if z is None else torch.from_numpy(z.astype(np.float32)).flatten(1)  # [N, D]
    return Reference(path.name, pictures, spec, were_bytes, given)


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
        raise _unfit(str(path), f"a damaged or foreign file ({reason})", "numpy's .npz or .npy") from None


def _unpacked(archive: zipfile.ZipFile, wanted: Wanted) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Arrays of an ``.npz``, whose sizes are looked at before they are unpacked."""
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if info.file_size > LARGEST_REFERENCE:
            raise ValueError(f"'{name}' has {info.file_size:,} bytes")
        with archive.open(info) as member:
            shape, kind = _header(member)
        if wanted(name, shape, kind):
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


def _only(arrays: Mapping[str, NDArray[np.generic]], path: Path) -> str:
    count = next((len(arrays[name]) for name in LATENTS if name in arrays), None)
    names = sorted(
        name for name, array in arrays.items() if name not in LATENTS and count in (None, len(array))
    )
    if not names:
        raise _unfit(str(path), "no array of pictures", "float [N, 3, H, W] or uint8 [N, H, W, 3]")
    if len(names) > 1:
        raise _unfit(str(path), f"arrays {', '.join(names)}", "one to compare with: name it with --array")
    return names[0]


def _pictures(array: NDArray[np.generic], what: str) -> tuple[Tensor, bool]:
    """Pictures [N, 3, H, W] in [-1, 1], and whether they were bytes."""
    images = array.ndim == 4 and array.size > 0
    if images and array.dtype == np.uint8 and array.shape[3] == 3:
        return _from_bytes(array), True
    if images and array.dtype.kind == "f" and 3 in (array.shape[1], array.shape[3]):
        tensor = torch.from_numpy(array.astype(np.float32))
        if not torch.isfinite(tensor).all():
            raise _unfit(what, "NaN or infinite numbers", "finite ones")
        return (tensor if array.shape[1] == 3 else tensor.permute(0, 3, 1, 2)), False  # [N, 3, H, W]
    raise _unfit(what, f"{array.dtype} {list(array.shape)}", "float [N, 3, H, W] or uint8 [N, H, W, 3]")


def _from_bytes(pictures: NDArray[np.generic]) -> Tensor:
    """Bytes [N, H, W, 3] → [N, 3, H, W] in [-1, 1], at even steps of 2/255."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _read_folder(folder: Path, truncation: float) -> Reference:
    files = {
        int(match[1]): path
        for path in sorted(folder.iterdir())
        if (match := re.fullmatch(r"seed([0-9]{1,10})\.png", path.name))
    }
    if not files:
        raise _unfit(str(folder), "no file called seed0000042.png", "pictures called by their seeds")
    pictures = [_opened(path) for path in files.values()]
    if len({picture.shape for picture in pictures}) > 1:
        raise _unfit(str(folder), "pictures of several sizes", "one size")
    spec = LatentSpec.of(files, truncation=truncation)
    if (folder / MANIFEST).exists():
        made = Manifest.load(folder).spec
        spec = replace(made, seeds=spec.seeds)
    return Reference(folder.name, _from_bytes(np.stack(pictures)), spec, bytes=True)


def _opened(path: Path) -> NDArray[np.uint8]:
    """A picture [H, W, 3]."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _unfit(str(path), "a damaged picture", "a PNG file") from None


def _unfit(what: str, found: str, expected: str) -> FileError:
    return FileError(
        found=f"{what}: {found}", expected=expected, remedy="Check that it belongs to this model."
    )
