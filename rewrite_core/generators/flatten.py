"""A `torch.nn.Sequential` that somebody hands over → a flat copy whose convolutions are canonical.

Nested stacks are flattened, a module used twice becomes two, weight and spectral norms are folded into plain weights
(they would overwrite an edit), everything is float32 in evaluation mode, and nothing works in place (a picture's keys
and values outlive the step after them). The caller's stack stays as it is, and may go on being trained.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from rewrite_core.errors import FileError
from rewrite_core.generators.convolution import Convolution, Pair
from rewrite_core.generators.stack import ConvolutionModule

__all__ = ["flattened"]


def flattened(stack: nn.Sequential) -> nn.Sequential:
    """The copy; steps are called by their path in `stack`, ``main.0`` becoming ``main_0``.

    Raises:
        FileError: if two steps would have one name, or pictures would depend on the others of their batch.
    """
    flat = nn.Sequential()
    for path, module in _steps(_copied(stack)):
        name = path.replace(".", "_")
        if hasattr(flat, name):
            raise FileError(
                found=f"step '{path}': the name '{name}', as has another step or a part of torch",
                expected="paths that differ with '_' for '.'",
                remedy="Rename the step.",
            )
        flat.add_module(name, _canonical(_baked(module)))
    for name, module in flat.named_modules():
        if getattr(module, "inplace", False):
            module.inplace = False
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None:
            raise FileError(
                found=f"step '{name}': batch norm without running statistics, so that pictures depend on their batch",
                expected="track_running_stats=True",
                remedy="Train with running statistics, or gather them once and keep them.",
            )
    return flat.float().eval().requires_grad_(False)


def _copied(stack: nn.Sequential) -> nn.Sequential:
    """A deep copy, also where an old-style norm has left a computed weight, which torch refuses to copy."""
    attributes = (value for module in stack.modules() for value in vars(module).values())
    computed = {id(value): value.detach().clone() for value in attributes if isinstance(value, Tensor)}
    return copy.deepcopy(stack, computed).eval()  # a norm in training mode would move on whenever it is read


def _steps(stack: nn.Sequential, prefix: str = "") -> Iterable[tuple[str, nn.Module]]:
    for name, module in stack._modules.items():  # named_children() would skip a module that is used twice
        assert module is not None
        if type(module) is nn.Sequential:
            yield from _steps(module, f"{prefix}{name}.")
        else:
            yield prefix + name, module


def _baked(module: nn.Module) -> nn.Module:
    """Fold weight and spectral norms, of torch's new kind and of its old one, into plain weights."""
    if parametrize.is_parametrized(module):
        weights = {name: getattr(module, name).detach() for name in _parametrized(module)}
        module.__class__ = parametrize.type_before_parametrizations(
            module
        )  # the caller's module shares the class
        del module.parametrizations
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight))
    for hook in list(module._forward_pre_hooks.values()):
        if type(hook).__name__ == "SpectralNorm":
            nn.utils.remove_spectral_norm(module)
        elif type(hook).__name__ == "WeightNorm":
            nn.utils.remove_weight_norm(module)
    return module


def _parametrized(module: nn.Module) -> list[str]:
    parametrizations = module.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    return list(parametrizations)


def _canonical(module: nn.Module) -> nn.Module:
    """Our own convolution in place of torch's, where the two can say the same; else a copy of the module's own."""
    if type(module) not in (nn.Conv2d, nn.ConvTranspose2d):
        return copy.deepcopy(module)
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return copy.deepcopy(module)  # runs, but cannot be rewritten
    transposed = isinstance(module, nn.ConvTranspose2d)
    convolution = Convolution(
        _two(module.kernel_size),
        _two(module.stride),
        _two(module.padding),
        _two(module.dilation),
        _two(module.output_padding),
        transposed,
    )
    weight = module.weight.detach()
    weight = weight.transpose(0, 1).contiguous() if transposed else weight  # [O, C, kh, kw]
    return ConvolutionModule(convolution, weight, None if module.bias is None else module.bias.detach())


def _two(taps: Any) -> Pair:
    return (int(taps[0]), int(taps[1]))
