"""StyleGAN2 checkpoints of random numbers and shapes that tests share, in either layout."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["random_stylegan2", "sequential_layout"]


def random_stylegan2(
    seed: int,
    size: int = 16,
    taps: int = 4,
    noise: bool = True,
    average: bool = True,
    picture_taps: int = 0,
    depth: int = 0,
) -> Any:
    """A rosinality checkpoint of random numbers and channels; `picture_taps` 0: as many as `taps`."""
    choose, draw = np.random.RandomState(seed), torch.Generator().manual_seed(seed)
    dim, depth = int(choose.randint(4, 9)), depth or int(choose.randint(1, 4))
    widths = [int(choose.randint(2, 8)) for _ in range(int(math.log2(size)) - 1)]
    state: dict[str, Tensor] = {}

    def random(name: str, *shape: int, mean: float = 0.0) -> None:
        state[name] = mean + torch.randn(shape, generator=draw)

    def modulated(name: str, inputs: int, outputs: int, kernel: int) -> None:
        random(f"{name}.weight", 1, outputs, inputs, kernel, kernel)
        random(f"{name}.modulation.weight", inputs, dim)
        random(f"{name}.modulation.bias", inputs, mean=1.0)

    def styled(name: str, inputs: int, outputs: int) -> None:
        modulated(f"{name}.conv", inputs, outputs, 3)
        random(f"{name}.noise.weight", 1)
        random(f"{name}.activate.bias", outputs)

    def to_rgb(name: str, inputs: int) -> None:
        modulated(f"{name}.conv", inputs, 3, 1)
        random(f"{name}.bias", 1, 3, 1, 1)

    for index in range(1, depth + 1):
        random(f"style.{index}.weight", dim, dim)
        random(f"style.{index}.bias", dim)
    random("input.input", 1, widths[0], 4, 4)
    styled("conv1", widths[0], widths[0])
    to_rgb("to_rgb1", widths[0])
    for level, (before, after) in enumerate(pairwise(widths)):
        styled(f"convs.{2 * level}", before, after)
        random(f"convs.{2 * level}.conv.blur.kernel", taps, taps)
        styled(f"convs.{2 * level + 1}", after, after)
        to_rgb(f"to_rgbs.{level}", after)
        random(f"to_rgbs.{level}.upsample.kernel", *2 * [picture_taps or taps])
    if noise:
        for index in range(2 * len(widths) - 1):
            side = 4 << (index + 1) // 2
            random(f"noises.noise_{index}", 1, 1, side, side)
    return {"g_ema": state} | ({"latent_avg": torch.randn(dim, generator=draw)} if average else {})


def sequential_layout(checkpoint: dict[str, Any], apart: bool = False) -> dict[str, Tensor]:
    """The state dict that the published code's sequential generator has of the same network."""
    average = checkpoint.get("latent_avg", torch.tensor(0.0))
    state = {"latents.latent_avg": average}
    for name, tensor in checkpoint["g_ema"].items():
        parts = name.split(".")
        weight = "mconv.dconv" if apart and parts[-2:] == ["conv", "weight"] else "mconv"
        if parts[0] == "conv1":
            parts[:2] = ["layer2", "conv", *([weight] if parts[1] == "conv" else parts[1:2])]
        elif parts[0] == "convs":
            parts[:3] = [
                f"layer{int(parts[1]) + 3}",
                "sconv",
                *([weight] if parts[2] == "conv" else parts[2:3]),
            ]
        elif parts[0] == "to_rgb1":
            parts[:1] = ["to_rgb1", "rgb"]
        elif parts[:1] == ["to_rgbs"] and parts[2] == "upsample":
            parts[:3] = [f"up_rgb{int(parts[1]) + 1}"]
        elif parts[0] == "to_rgbs":
            parts[:2] = [f"to_rgb{int(parts[1]) + 2}", "rgb"]
        state[".".join(parts)] = tensor
    return state
