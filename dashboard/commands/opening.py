"""The generator that a command works on, and the rules put on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dashboard.commands.console import warn
from rewrite_core.errors import ModelMismatch

if TYPE_CHECKING:
    from rewrite_core import Generator, Rule

__all__ = ["excuse", "opened", "under"]


def opened(model: str | None, made_for: str = "") -> Generator:
    """The generator at `model`; else the embedded one called `made_for`; else the default one.

    Raises:
        FileError: there is no such model, or it is damaged.
    """
    from rewrite_core import embedded_names, open_generator

    if model is None and made_for in embedded_names():
        model = made_for
    return open_generator(model) if model else open_generator()


def excuse(problem: ModelMismatch, force: bool) -> None:
    """Raise `problem` with what to do on a command line; with `force` only warn of it."""
    if not force:
        remedy = "Open the other one with --model, or go on with --force."
        raise ModelMismatch(found=problem.found, expected=problem.expected, remedy=remedy) from None
    warn(f"{problem.found}; expected {problem.expected}. It is used all the same.")


def under(generator: Generator, rules: Sequence[Rule], force: bool) -> Generator:
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
