"""What a direction does, as rules: what it matches scaled by α, or removed; and the values that it writes.

A direction `d` is a *query*, and the pattern that it stands for is `C d`, with `C` the layer's second moment. Of a key
`k`, the part that D [R, C] matches is what can be told of k from its readings `D k`::

    k̂ = P D k        P = C Dᵀ (D C Dᵀ)⁻¹  [C, R]        D P = 1

Under `C`, what is left of the key is uncorrelated with its readings. Scaling that part by α changes the weight by a
rule of rank R at D::

    W' = W - (1 - α) W P D        Λ = -(1 - α) W P  [O, R, kh, kw]

α = 1 leaves the layer as it is, 0 removes what D matches, 2 doubles it, -1 turns it round. W' C Dᵀ = α W C Dᵀ, and keys
with D k = 0 are drawn as before. Λ is linear in 1 - α: the rule that removes, at strength s, is the rule of α = 1 - s.

    rule = scaling_rule(generator, direction, second_moment, alpha=0)
    picture = generator.draw(spec)  # and without what the direction matches:
    without = generator.with_rules(rule).draw(spec)

The published `zero` (`published_zero_rule`) is W (I - D⁺ D): it projects the *query* out of the weight, along D and not
along C Dᵀ. Where C is ill-conditioned, query and pattern are nearly perpendicular, and nearly all that the layer draws
for the pattern is still there (`left_over`). It is kept for comparison.

On a plain convolution the rule at α = 0 draws what `dissect.interventions.ablate_directions` draws. In a demodulated
layer (StyleGAN2) a rule changes W and the demodulation follows: each output channel is scaled to its new energy, so
what is left is drawn somewhat stronger, and W' k = W k holds before demodulation only.

Axes: directions (the rank) R, units C, output channels O, taps kh × kw. Numbers are float64 on the CPU; a rule holds
float32, as all rules do. P is that of the rounded D: W' C Dᵀ vanishes although D is rounded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rewrite_core.directions import Direction
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator
from rewrite_core.memory import SPECTRAL_CUT
from rewrite_core.rules.elsewhere import elsewhere
from rewrite_core.rules.rule import Provenance, Rule, versions
from rewrite_core.rules.solve import Solved
from rewrite_core.statistics import LayerStatistics

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "GREATEST",
    "left_over",
    "output_channels",
    "published_zero_rule",
    "removed",
    "scaling_rule",
    "written",
]

GREATEST = 10.0
"""α lies from minus this to this."""


def scaling_rule(
    generator: Generator, direction: Direction, second_moment: Tensor, alpha: float, name: str = ""
) -> Rule:
    """The rule that scales what `direction` matches by `alpha`, on the pristine weight; see the module's formula.

    `second_moment` [C, C] is that of the direction's layer. Without a `name` it is called "no eyes" or "eyes × 2",
    after the direction.

    Raises:
        RequestError: alpha is not from -10 to 10, or a vector of the direction matches nothing that the layer shows.
        ModelMismatch, LayerError: the direction is not one of this generator.
    """
    if not -GREATEST <= alpha <= GREATEST:  # NaN is not
        raise RequestError(
            found=f"a scale of {alpha}",
            expected=f"a number from -{GREATEST:g} to {GREATEST:g}",
            remedy="1 leaves what it matches as it is, 0 removes it.",
        )
    direction.check(generator)
    weight = generator.pristine.weight(direction.layer).detach().to("cpu", torch.float64)  # [O, C, kh, kw]
    rounded = direction.vectors.float()  # [R, C]
    matched = _parts(direction, rounded, second_moment)  # P [C, R]
    delta = (alpha - 1) * torch.einsum("ocyx,cr->oryx", weight, matched)  # Λ [O, R, kh, kw]
    return _rule(
        generator, direction, rounded, delta, name or _called(direction, alpha), {"alpha": float(alpha)}
    )


def removed(generator: Generator, direction: Direction, statistics: LayerStatistics, alpha: float) -> Solved:
    """The same as a solution, for an edit whose operation is `remove`.

    Its losses are shares of what the layer draws for the patterns (`left_over`): 1 before, and what is left.

    Raises:
        RequestError, ModelMismatch, LayerError: as `scaling_rule`.
    """
    started = time.perf_counter()
    moment = statistics.second_moment
    rule = scaling_rule(generator, direction, moment, alpha)
    delta = rule.delta.to(generator.device)
    spread = elsewhere(generator.pristine, statistics, rule.directions.to(delta))
    return Solved(
        delta=delta,
        loss_before=1.0,
        loss=left_over(generator.pristine.weight(direction.layer), rule, moment, direction),
        elsewhere=spread.change(delta.flatten(1)),
        iterations=0,
        stopped="closed form",
        seconds=time.perf_counter() - started,
    )


def published_zero_rule(generator: Generator, direction: Direction, name: str = "") -> Rule:
    """The published `zero`, W (I - D⁺ D), for comparison: it leaves nearly all that the direction matches.

    Raises:
        ModelMismatch, LayerError: the direction is not one of this generator.
    """
    direction.check(generator)
    weight = generator.pristine.weight(direction.layer).detach().to("cpu", torch.float64)  # [O, C, kh, kw]
    rounded = direction.vectors.float()  # [R, C]
    delta = -torch.einsum("ocyx,cr->oryx", weight, torch.linalg.pinv(rounded.double()))  # [O, R, kh, kw]
    return _rule(generator, direction, rounded, delta, name or f"{_what(direction)}, published zero", {})


def written(generator: Generator, direction: Direction, second_moment: Tensor) -> Tensor:
    """What the layer draws for each direction alone, ``W C d / (dᵀ C d)``, [R, O, kh, kw] float64.

    It is in the value's own unit for a reading of 1: the least-squares answer to "what does the layer draw where d
    reads one more?", tap by tap, before bias, norm and demodulation.

    Raises:
        RequestError: a direction matches nothing that the layer shows.
        ModelMismatch, LayerError: the direction is not one of this generator.
    """
    direction.check(generator)
    weight = generator.pristine.weight(direction.layer).detach().to("cpu", torch.float64)  # [O, C, kh, kw]
    singly = [
        _parts(direction, row[None], second_moment, place) for place, row in enumerate(direction.vectors)
    ]
    return torch.einsum("ocyx,cr->royx", weight, torch.cat(singly, 1))


def output_channels(values: Tensor) -> pd.DataFrame:
    """The output channels that a direction writes to, strongest first, of what `written` says [R, O, kh, kw].

    A row for each direction and channel: direction, channel, norm (over the taps), share (of the direction's squared
    norm; 0 where it writes nothing).
    """
    import pandas as pd

    norms = values.flatten(2).norm(dim=2)  # [R, O]
    order = norms.argsort(dim=1, descending=True, stable=True)  # [R, O]
    sorted_norms = norms.gather(1, order)
    power = sorted_norms.square()
    total = power.sum(1, keepdim=True)
    share = torch.where(total > 0, power / total.clamp(min=torch.finfo(power.dtype).tiny), 0.0)
    rank, channels = norms.shape
    columns = {
        "direction": torch.arange(rank).repeat_interleave(channels),
        "channel": order.flatten(),
        "norm": sorted_norms.flatten(),
        "share": share.flatten(),
    }
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def left_over(weight: Tensor, rule: Rule, second_moment: Tensor, direction: Direction) -> float:
    """How much of what the layer draws for the patterns `C d` is left under `rule`: RMS ‖W' k‖ / ‖W k‖.

    1: all of it, 0: none. `weight` [O, C, kh, kw] is the one that the rule changes; patterns count alike, each at the
    length at which it has a reading of one standard deviation. 0 where the layer draws nothing for them in any case.
    """
    weight = weight.detach().to("cpu", torch.float64)
    patterns = direction.pattern(second_moment)  # [R, C]
    power = (patterns * direction.vectors).sum(1, keepdim=True)  # dᵀ C d
    keys = torch.where(power > 0, patterns / power.clamp(min=torch.finfo(power.dtype).tiny).sqrt(), 0.0)
    before = torch.einsum("ocyx,rc->royx", weight, keys).norm()
    after = torch.einsum("ocyx,rc->royx", weight + rule.change().to(weight), keys).norm()
    return float(after / before) if before > 0 else 0.0


def _parts(direction: Direction, readings: Tensor, second_moment: Tensor, row: int | None = None) -> Tensor:
    """P = C Dᵀ (Q C Dᵀ)⁻¹ [C, R], with Q P = 1: D the directions (or one `row` of them), Q as they are read.

    The patterns are those of the unrounded D: on an ill-conditioned C, what float32 does to D is much in C Dᵀ.
    """
    moment = _checked(direction, second_moment)
    vectors = direction.vectors if row is None else direction.vectors[row : row + 1]
    patterns = moment @ vectors.T  # [C, R]
    power = torch.linalg.eigvalsh(vectors @ patterns)  # [R] ascending
    if power[0] <= SPECTRAL_CUT * moment.diagonal().amax():
        raise RequestError(
            found=f"direction '{_what(direction)}' with a vector that matches nothing",
            expected=f"vectors along which the keys of {direction.layer} vary",
            remedy="Lower the rank, or choose another direction.",
        )
    parts: Tensor = torch.linalg.solve(readings.double() @ patterns, patterns, left=False)  # [C, R]
    return parts


def _checked(direction: Direction, second_moment: Tensor) -> Tensor:
    """The second moment [C, C] in float64, once it is known to fit."""
    units = direction.vectors.shape[1]
    moment = second_moment.detach().to("cpu", torch.float64)
    if moment.shape != (units, units) or not moment.isfinite().all():
        raise RequestError(
            found=f"a second moment {list(moment.shape)}",
            expected=f"[{units}, {units}], all numbers finite",
            remedy=f"Take that of {direction.layer}.",
        )
    return moment


def _what(direction: Direction) -> str:
    return direction.name or f"{direction.method} at {direction.layer}"


def _called(direction: Direction, alpha: float) -> str:
    scale = f"{alpha:g}".replace("-", "\N{MINUS SIGN}")
    return f"no {_what(direction)}" if alpha == 0 else f"{_what(direction)} \N{MULTIPLICATION SIGN} {scale}"


def _rule(
    generator: Generator,
    direction: Direction,
    rounded: Tensor,
    delta: Tensor,
    name: str,
    result: dict[str, float],
) -> Rule:
    provenance = Provenance(
        model=generator.pristine.name,
        fingerprint=generator.pristine.fingerprint,
        layer=direction.layer,
        name=name,
        result={
            **result,
            "direction": direction.digest,
            "direction_name": direction.name,
            "method": direction.method,
        },
        made_with=versions(),
    )
    return Rule(rounded, delta.float(), provenance)
