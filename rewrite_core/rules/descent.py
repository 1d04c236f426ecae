"""Adam for the baselines: the one loop in which they differ by what they keep, and when.

    found = descend(loss, [weight], iterations=500, rate=0.05, progress=progress)
    found.unknowns, found.iterations, found.stopped

`steer` is what becomes of each gradient, and `keep` of the unknowns, now and then and at the end. What is returned has
been kept: it is what `keep` made of it, whatever ended the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.errors import Cancelled
from rewrite_core.jobs import Progress

__all__ = ["Descent", "Loss", "descend"]

Unknowns = Sequence[Tensor]
Loss = Callable[[Unknowns], Tensor]


@dataclass(frozen=True, eq=False)
class Descent:
    """What Adam came to, without a gradient; the steps that it took; ``iterations`` or ``cancelled``."""

    unknowns: tuple[Tensor, ...]
    iterations: int
    stopped: str


def _same(tensor: Tensor) -> Tensor:
    return tensor


def descend(
    loss: Loss,
    start: Unknowns,
    *,
    iterations: int,
    rate: float,
    progress: Progress | None = None,
    steer: Callable[[Tensor], Tensor] = _same,
    keep: Callable[[Tensor], Tensor] = _same,
    every: int = 1,
    best: bool = True,
    settle: bool = True,
) -> Descent:
    """Minimise `loss` from `start` by Adam.

    Args:
        loss: a scalar of the unknowns.
        start: where it begins; these tensors stay as they are.
        iterations: steps, at most.
        rate: Adam's learning rate, as a share of the RMS of each unknown at the start.
        progress: called before each step; `Cancelled` from it ends the loop, and what there is is returned.
        steer: what becomes of each unknown's gradient.
        keep: what becomes of each unknown, after the first step, each `every` steps, and at the end.
        every: see `keep`.
        best: return the kept unknowns of the least loss, the start among them; otherwise the last ones.
        settle: let the rate fall to 0 along a line, so that the unknowns come to rest.
    """
    unknowns = [tensor.detach().clone().requires_grad_() for tensor in start]
    adam = torch.optim.Adam([{"params": [tensor], "lr": rate * _rms(tensor)} for tensor in unknowns])
    fall = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - settle * step / max(1, iterations))
    least, found, kept = float("inf"), _taken(unknowns), True
    step, stopped = 0, "iterations"
    while step < iterations:
        try:
            if progress:
                progress(step, iterations)
        except Cancelled:
            stopped = "cancelled"
            break
        value = _slopes(loss, unknowns, steer)
        if best and kept and value < least:
            least, found = value, _taken(unknowns)
        adam.step()
        fall.step()
        kept = step % every == 0 or step == iterations - 1
        if kept:
            _put(unknowns, keep)
        step += 1
    if not kept:
        _put(unknowns, keep)
    with torch.no_grad():
        if not best or float(loss(unknowns)) < least:
            found = _taken(unknowns)
    return Descent(found, step, stopped)


def _slopes(loss: Loss, unknowns: Sequence[Tensor], steer: Callable[[Tensor], Tensor]) -> float:
    """Give each unknown its gradient, steered; the loss."""
    with torch.enable_grad():
        value = loss(unknowns)
        slopes = torch.autograd.grad(value, unknowns)
    for unknown, slope in zip(unknowns, slopes, strict=True):
        unknown.grad = steer(slope)
    return float(value.detach())


def _put(unknowns: Sequence[Tensor], keep: Callable[[Tensor], Tensor]) -> None:
    with torch.no_grad():
        for unknown in unknowns:
            unknown.copy_(keep(unknown))


def _taken(unknowns: Unknowns) -> tuple[Tensor, ...]:
    return tuple(unknown.detach().clone() for unknown in unknowns)


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().square().mean().sqrt())
