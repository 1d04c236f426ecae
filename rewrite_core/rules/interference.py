"""Which rules of a stack get in each other's way, and how much: two numbers for every two rules of one layer.

    for found in interference(stack, generator, lambda layer: layer_statistics(generator, layer)):
        print(found.sentence)   # “blue hair” changes 62 % of what “no eyes” writes at l08 (overlap 0.55).

A rule adds Λ (D k) to what the layer draws for a key k. Rules at one layer add up exactly, so none loses what it
writes; but where another writes too, the sum is what neither was solved for. Of a rule A and another B,

* *overlap* says how strongly B's directions read A's pattern, in readings of B's own:
  `rewrite_core.directions.overlap.interference` in the metric of C = E[k kᵀ]. It knows where B fires, not what it
  writes there.
* *changed* is measured: the positions of the layer's key sample in which A writes most, one in a hundred of them, are
  A's own context in real pictures; there, ``changed = RMS ‖Λ_B (D_B k)‖ / RMS ‖Λ_A (D_A k)‖``, tap by tap and with both
  strengths, is how much of what A writes changes when B is on as well. 0: nothing; 1: B writes as much there as A does.

Both take the layer before demodulation (StyleGAN2), which then scales the two rules alike, and both need A and B in
that order: a faint rule suffers from a strong one and not the other way round. Rules at different layers are not
compared. Off rules, and rules that write nothing, interfere with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from rewrite_core.directions import overlap
from rewrite_core.generators import Generator
from rewrite_core.rules.merging import merged
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.stack import RuleStack
from rewrite_core.statistics import LayerStatistics

__all__ = ["NOTABLE", "Interference", "interference"]

NOTABLE = 0.25
"""From here on it is worth a warning: B changes a quarter of what A writes."""
CONTEXT = 0.01
"""A rule's own context: the positions in which it writes most, as a share of all."""


@dataclass(frozen=True)
class Interference:
    """What becomes of rule A, `disturbed`, when B, `by`, is on as well; both by place in the stack, and by name."""

    disturbed: int
    by: int
    names: tuple[str, str]
    layer: str
    overlap: float
    changed: float

    @property
    def sentence(self) -> str:
        """Both numbers in one line."""
        one, other = self.names
        return (
            f"“{other}” changes {100 * self.changed:.0f} % of what “{one}” writes at {self.layer} "
            f"(overlap {abs(self.overlap):.2f})."
        )


def interference(
    stack: RuleStack,
    generator: Generator,
    statistics: Callable[[str], LayerStatistics],
    *,
    least: float = NOTABLE,
) -> tuple[Interference, ...]:
    """Every two active rules of a layer of which one changes at least `least` of what the other writes; worst first.

    `statistics` gives those of a layer, and is asked only for layers that have two active rules or more.

    Raises:
        ModelMismatch, LayerError: a rule was not made for `generator`.
    """
    places: dict[str, list[int]] = {}
    for place, entry in enumerate(stack.entries):
        if entry.on:
            entry.rule.check(generator)
            places.setdefault(entry.rule.layer, []).append(place)
    found = [
        one
        for layer, at in places.items()
        if len(at) > 1
        for one in _of_layer([stack.entries[place].rule for place in at], at, generator, statistics(layer))
    ]
    return tuple(sorted((one for one in found if one.changed >= least), key=lambda one: -one.changed))


def _of_layer(
    rules: Sequence[Rule], places: Sequence[int], generator: Generator, statistics: LayerStatistics
) -> list[Interference]:
    """Every ordered pair of `rules`, which are at `places` of the stack."""
    whole = [merged([rule], rule.name) for rule in rules]  # orthonormal directions, strength folded in
    overlaps = overlap.interference([rule.direction() for rule in whole], statistics.second_moment)
    keys = generator.layer(statistics.layer).inside(statistics.sample.keys).flatten(2)  # [M, C, P]
    contexts = [_context(rule, keys) for rule in whole]  # [1, C, n]
    names = [rule.name or f"rule {place + 1}" for rule, place in zip(rules, places, strict=True)]
    return [
        Interference(
            disturbed=places[one],
            by=places[other],
            names=(names[one], names[other]),
            layer=statistics.layer,
            overlap=float(overlaps[other, one]),
            changed=(float(_power(whole[other], contexts[one]).sum()) / own) ** 0.5,
        )
        for one, other in permutations(range(len(rules)), 2)
        if (own := float(_power(whole[one], contexts[one]).sum())) > 0
    ]


def _power(rule: Rule, keys: Tensor) -> Tensor:
    """‖Λ (D k)‖² over output channels and taps, for keys [M, C, P]: [M, P] float64."""
    delta = rule.delta.double()
    gram = torch.einsum("oryx,osyx->rs", delta, delta).to(keys.device)  # ΛᵀΛ [R, R]
    readings = (rule.directions.to(keys) @ keys).double()  # [M, R, P]
    return torch.einsum("mrp,rs,msp->mp", readings, gram, readings).clamp(min=0)


def _context(rule: Rule, keys: Tensor) -> Tensor:
    """The keys for which a rule writes most, of `keys` [M, C, P]: [1, C, n]."""
    power = _power(rule, keys).flatten()  # [M·P]
    best = power.topk(max(1, int(CONTEXT * len(power)))).indices
    sample, position = best // keys.shape[2], best % keys.shape[2]
    return keys[sample, :, position].T[None]  # [n, C] → [1, C, n]
