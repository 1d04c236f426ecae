"""Latents that no seed names: from a file, mixed of two pictures, or found for one's own picture (`projection.py`).

A file holds, as safetensors, ``.npz`` or ``.npy``, an array called ``w`` or ``z``: [D], [N, D], or for w also
[N, L, D], one for each of the L places where a style enters (``w+``). An array without a name is w where the generator
has styles. Our own files say in their metadata which generator they are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rewrite_core.errors import FileError, ModelMismatch, RequestError
from rewrite_core.files import read_safetensors, require_finite, write_safetensors
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.latents import Latents, LatentSpec
from rewrite_core.generators.reference import as_tensor, read_arrays

__all__ = ["given", "mixed", "read_latents", "write_latents"]

LARGEST_FILE = 1 << 30
PLAIN = LatentSpec(())
"""Truncation 1, and each picture of its own class."""
NAMES = ("w", "z", "w_plus", "latents", "array")


def given(generator: Generator, tensor: Tensor, kind: str = "w", *, like: LatentSpec = PLAIN) -> Latents:
    """Latents of the `kind` w or z: [D] or [N, D], for w also [N, L, D]; noise is that of the first seeds.

    Truncation, and the class of a z, are those of `like`.

    Raises:
        RequestError: if the generator has no such latents.
    """
    tensor = tensor.detach().float()
    tensor = tensor[None] if tensor.ndim == 1 else tensor
    dim, styles = generator.style_dim, generator.styles
    shapes = [(generator.latent_dim,)] if kind == "z" else [(dim,), (styles, dim)] if styles else []
    if tuple(tensor.shape[1:]) not in shapes or not len(tensor):
        wanted = " or ".join(f"[N, {', '.join(map(str, shape))}]" for shape in shapes)
        raise RequestError(
            found=f"latents {kind} {list(tensor.shape)}",
            expected=f"{wanted or 'latents z'}, as {generator.name} takes",
            remedy="Check that they belong to this model.",
        )
    spec = replace(like, seeds=tuple(range(len(tensor))))
    if kind == "z":
        return generator.latents(Latents(tensor, spec))
    return generator.latents(Latents(torch.zeros(len(tensor), generator.latent_dim), spec, tensor))


def mixed(
    generator: Generator, coarse: int, fine: int, crossovers: Sequence[int], *, like: LatentSpec = PLAIN
) -> Latents:
    """Style mixing: for each crossover k the first k styles of seed `coarse` and the others of seed `fine`.

    Noise is that of `coarse`. k = L is the picture of `coarse`; k = 0 that of `fine`, but for its noise.

    Raises:
        RequestError: if the generator has no styles, or not so many.
    """
    styles = generator.styles
    wrong = [k for k in crossovers if not 0 <= k <= styles]
    if not styles or wrong:
        raise RequestError(
            found=f"crossover {wrong[0]}" if styles else f"{generator.name}, which has no styles to mix",
            expected=f"0 to {styles}, the styles of {generator.name}"
            if styles
            else "a generator with styles w",
            remedy="Choose another." if styles else "Open another model.",
        )
    w = generator.mapped(generator.latents(replace(like, seeds=(coarse, fine))))  # [2, D]
    first = torch.arange(styles)[None] < torch.tensor(crossovers)[:, None]  # [K, L]
    mix = torch.where(first[..., None].to(w.device), w[0], w[1])  # [K, L, D]
    return Latents(torch.zeros(len(mix), generator.latent_dim).to(w), LatentSpec((coarse,) * len(mix)), mix)


def read_latents(
    path: Path, generator: Generator, *, like: LatentSpec = PLAIN, force: bool = False
) -> Latents:
    """Latents from a file; see the module. With `force` also those that say they are another generator's.

    Raises:
        FileError: if it is damaged, or holds no latents.
        ModelMismatch: if it is for another generator.
        RequestError: if the latents do not fit, or `like` names a class for a w, which is of one already.
    """
    arrays, metadata = _arrays(path)
    name = next((name for name in NAMES if name in arrays), None)
    if name is None:
        raise FileError(
            found=f"{path}: arrays {', '.join(sorted(arrays)[:5]) or 'none'}",
            expected="one called w or z",
            remedy="Rename it.",
        )
    require_finite({name: arrays[name]}, str(path))
    made_for = metadata.get("fingerprint", generator.fingerprint)
    if made_for != generator.pristine.fingerprint and not force:
        raise ModelMismatch(
            found=f"{path}, made for {metadata.get('model', 'a model')} ({made_for[:12]}…)",
            expected=f"latents for {generator.name} ({generator.pristine.fingerprint[:12]}…)",
            remedy="Open the other model, or go on with --force.",
        )
    kind = "z" if name == "z" or (name in ("latents", "array") and not generator.styles) else "w"
    if kind == "w" and like.label is not None:
        raise RequestError(
            found=f"class {like.label} for latents w",
            expected="no class, since a w is what a latent z and its class became",
            remedy="Leave the class out.",
        )
    return given(generator, arrays[name], kind, like=like)


def write_latents(path: Path, tensor: Tensor, kind: str, generator: Generator) -> None:
    """Write latents as safetensors that say which generator they are for; errors as `write_bytes`."""
    metadata = {"model": generator.pristine.name, "fingerprint": generator.pristine.fingerprint}
    write_safetensors(path, {kind: tensor}, metadata)


def _arrays(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
    if path.suffix.lower() == ".safetensors":
        tensors, metadata = read_safetensors(path, what=str(path), limit_bytes=LARGEST_FILE)
        return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}, metadata
    arrays = read_arrays(path, lambda name, shape, kind: name in NAMES)
    return {name: as_tensor(array, f"{path}: '{name}'") for name, array in arrays.items()}, {}
