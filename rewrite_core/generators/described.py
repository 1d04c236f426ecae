"""Tensors and the ``model.json`` that describes them → a `SequentialGenerator`.

The file may hold them under a prefix, and under names with dots where the description has underscores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rewrite_core.errors import FileError
from rewrite_core.generators.contents import Contents
from rewrite_core.generators.description import ABOUT, StackDescription
from rewrite_core.generators.layout import Layout
from rewrite_core.generators.sequential import SequentialGenerator
from rewrite_core.generators.stack import ConvolutionModule

__all__ = ["build_stack", "open_stack", "recognise", "underscored"]


def recognise(contents: Contents) -> bool:
    """Whether a ``model.json`` describes the tensors."""
    return contents.description is not None


def open_stack(contents: Contents) -> SequentialGenerator:
    """Build the stack that ``model.json`` describes from the tensors of ``model.safetensors``.

    Raises:
        FileError: naming the first thing in either file that does not fit.
    """
    description = StackDescription.parse(contents.description, f"{contents.name}/model.json", FileError)
    names = _names(contents, description)
    return build_stack(contents, description, names, contents.layout(names))


def _names(contents: Contents, description: StackDescription) -> dict[str, str]:
    """What the steps call a tensor → what the file does, perhaps under the prefix of a checkpoint.

    Raises:
        FileError: if two tensors have one name once their dots are underscores.
    """
    steps = {step.name for step in description.layers if hasattr(step, "name")}
    for prefix in ("", *contents.prefixes, ""):
        names = contents.under(prefix)
        called = {underscored(ours): theirs for ours, theirs in names.items()}
        if steps <= {name.rpartition(".")[0] for name in called}:
            break
    if len(called) < len(names):
        twice = next(name for name in names.values() if name not in called.values())
        raise FileError(
            found=f"{contents.weights}: the tensor '{twice}', and another one of that name with '_' for '.'",
            expected="names that differ without their dots",
            remedy="Rename one of them.",
        )
    return called


def build_stack(
    contents: Contents,
    description: StackDescription,
    names: Mapping[str, str],
    layout: Layout | None,
    assumed: str = "",
) -> SequentialGenerator:
    """The stack of a description; `names`: what its steps call a tensor → what `contents` does.

    Raises:
        FileError: naming the first tensor that does not fit.
    """
    what = f"{contents.name}/model.json"
    tensors = contents.called(names).floats()
    network = nn.Sequential()
    for index, step in enumerate(description.layers):
        name = getattr(step, "name", f"step{index:02d}")
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in tensors.items()
            if key.startswith(f"{name}.")
        }
        if hasattr(network, name):
            raise FileError(
                found=f"{what}: a step called '{name}', as is another one or a part of torch",
                expected="a name of its own for each step",
                remedy="Rename it, and its tensors in model.safetensors.",
            )
        network.add_module(name, _built(step, own, name, contents.weights))
    _require_used(tensors, network, contents.weights)
    return SequentialGenerator(
        network,
        name=description.name,
        latent=description.latent,
        output_range=description.output_range,
        about=description.model_dump(include=ABOUT, exclude_defaults=True),
        layout=layout,
        assumed=assumed,
    )


def underscored(name: str) -> str:
    """``main.0.weight`` → ``main_0.weight``: the name of a step holds no dot."""
    path, _, kind = name.rpartition(".")
    return f"{path.replace('.', '_')}.{kind}" if path else name


def _built(step: Any, tensors: dict[str, Tensor], name: str, origin: str) -> nn.Module:
    try:
        module: nn.Module = step.build(tensors)
    except (KeyError, ValueError, RuntimeError, IndexError, TypeError) as problem:
        missing = f"no tensor '{name}.{problem.args[0]}'" if isinstance(problem, KeyError) else str(problem)
        raise FileError(
            found=f"{origin}: {missing}",
            expected=f"the tensors of step '{name}' ({step.op})",
            remedy="Save model.json and the tensors from the same network.",
        ) from None
    if isinstance(module, ConvolutionModule) and module.convolution.kernel != tuple(module.weight.shape[2:]):
        raise FileError(
            found=f"{origin}: '{name}.weight' with taps {list(module.weight.shape[2:])}",
            expected=f"the kernel {list(module.convolution.kernel)} that model.json gives",
            remedy="Save model.json and the tensors from the same network.",
        )
    return module


def _require_used(tensors: Mapping[str, Tensor], network: nn.Module, origin: str) -> None:
    """A tensor without a step is a step that model.json forgot: what is drawn would not be what was trained."""
    unused = sorted(set(tensors) - set(network.state_dict()))
    left = [name for name in unused if not name.endswith(".num_batches_tracked")]  # a batch norm's counter
    if left:
        raise FileError(
            found=f"{origin}: {len(left)} of {len(tensors)} tensors, as '{left[0]}', used by no step",
            expected="only the tensors of the steps in model.json",
            remedy="Add the missing steps to model.json, or leave those tensors out.",
        )
