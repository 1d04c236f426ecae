"""The generator that a command works on, and the rules put on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dashboard.commands.console import warn
from rewrite_core.errors import ModelMismatch, RequestError

if TYPE_CHECKING:
    import torch

    from rewrite_core import Generator, Rule

__all__ = ["DEVICE", "excuse", "opened", "require_half", "under"]

DEVICE = "palimpsest.device"
"""Where a command's context keeps what `--device` said."""


def opened(
    model: str | None, made_for: str = "", *, half: bool = False, device: torch.device | None = None
) -> Generator:
    """The generator at `model`; else the embedded one called `made_for`; else the default one.

    It is on `device`, or without one on that which the command line names.

    Raises:
        FileError: there is no such model, or it is damaged.
        RequestError: there is no such device, or it cannot draw in half precision.
    """
    from rewrite_core import embedded_names, open_generator
    from rewrite_core.generators import find_device

    device = device or find_device(click.get_current_context().meta.get(DEVICE))
    if half:
        require_half(device)
    if model is None and made_for in embedded_names():
        model = made_for
    generator = (open_generator(model) if model else open_generator()).on(device)
    return generator.in_half() if half else generator


def require_half(device: torch.device) -> None:
    """Refuse half precision where it is neither quicker nor tried.

    Raises:
        RequestError: on anything but a GPU.
    """
    if device.type != "cuda":
        raise RequestError(
            found=f"--half on {device}",
            expected="a GPU, where half precision is quicker",
            remedy="Add --device cuda, or leave --half out.",
        )


def excuse(problem: ModelMismatch, force: bool) -> None:
    """Raise `problem` with what to do on a command line; with `force` only warn of it."""
    if not force:
        remedy = "Open the other one with --model, or go on with --force."
        raise ModelMismatch(found=problem.found, expected=problem.expected, remedy=remedy) from None
    warn(f"{problem.found}; expected {problem.expected}. It is used all the same.")


def under(generator: Generator, rules: Sequence[Rule], force: bool = False) -> Generator:
    """A view of `generator` under the rules; one that was made for another is refused, or forced and warned of."""
    from rewrite_core import RuleStack

    stack = RuleStack()
    for rule in rules:
        try:
            rule.check(generator)
        except ModelMismatch as problem:
            excuse(problem, force)
            rule = rule.adopted_by(generator)
        stack = stack.push(rule)
    return generator.with_rules(stack)
