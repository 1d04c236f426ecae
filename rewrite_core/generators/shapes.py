"""The shapes that a stack of modules passes on, found on torch's meta device, where nothing is computed.

So a file that asks for absurd sizes is refused before it costs anything. Only a module of the caller's own, which may
look at numbers, is run where meta tensors are not enough for it; no file holds such a module.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from rewrite_core.errors import FileError
from rewrite_core.generators.stack import ConvolutionModule, describe

__all__ = ["LARGEST_MAP", "starts_with_convolution", "trace"]

LARGEST_MAP = 1 << 26
"""Numbers a picture that may pass between two steps."""


def trace(network: nn.Sequential, latent_dim: int, name: str) -> list[tuple[int, ...]]:
    """The shape of one sample before each step and after the last.

    Raises:
        FileError: naming the first step that cannot take what comes to it, or makes too much of it.
    """
    ghost = _without_numbers(network)
    x = torch.empty(2, latent_dim, *((1, 1) if starts_with_convolution(network) else ()), device="meta")
    sizes = [tuple(x.shape[1:])]
    for step, module in ghost.named_children():
        try:
            if isinstance(module, ConvolutionModule):
                _check_map(module, x)
            x = _passed(step, module, network.get_submodule(step), x)
            sizes.append(tuple(x.shape[1:]))
        except Exception as problem:  # whatever a handed-over module raises on the wrong shape
            raise FileError(
                found=f"{name}: step '{step}' ({type(module).__name__}) fails on {list(sizes[-1])}: {problem}",
                expected="a stack that maps latents to pictures step by step",
                remedy="Check the latent size and the order of the steps.",
            ) from None
        if math.prod(sizes[-1]) > LARGEST_MAP:
            raise FileError(
                found=f"{name}: {math.prod(sizes[-1]):,} numbers a picture after step '{step}'",
                expected=f"at most {LARGEST_MAP:,}",
                remedy="Check the scales, strides and paddings.",
            )
    return sizes


@torch.no_grad()
def _passed(step: str, ghost: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    """What a step makes of `x`, on the meta device."""
    try:
        made: Tensor = ghost(x)
        if made.is_meta:
            return made
    except Exception:  # of its own: it may need numbers, or make tensors on a device of its choice
        if describe(step, module) is not None:
            raise
    made = module(torch.randn(x.shape))
    return made.to("meta")


def _check_map(module: ConvolutionModule, x: Tensor) -> None:
    """What a transposed convolution on the meta device does not check for itself."""
    if x.ndim != 4 or x.shape[1] != module.weight.shape[1]:
        raise ValueError(f"the convolution takes [{module.weight.shape[1]}, H, W]")


def _without_numbers(network: nn.Sequential) -> nn.Sequential:
    """A copy on torch's meta device, where tensors have a shape and nothing in them."""
    own = (
        value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)
    )
    tensors = [*network.parameters(), *network.buffers(), *own]
    return copy.deepcopy(network, {id(tensor): tensor.to("meta") for tensor in tensors}).eval()


def starts_with_convolution(network: nn.Module) -> bool:
    """Whether latents enter as a map [N, D, 1, 1] rather than as vectors [N, D]."""
    first = next(network.children(), None)
    return isinstance(first, ConvolutionModule | nn.Conv2d | nn.ConvTranspose2d)
