"""Merged rules: the same change, at the rank that the sum has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rewrite_core.errors import LayerError, ModelMismatch, PalimpsestError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.rules.merging import merged
from rewrite_core.rules.rule import Rule
from tests.generators import DOWN, PLAIN, UP, small_generator, some_rule


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


def exact(rule: Rule) -> Tensor:
    """strength · ΛD in float64."""
    return rule.strength * torch.einsum("oryx,rc->ocyx", rule.delta.double(), rule.directions.double())


def assert_same(rule: Rule, change: Tensor) -> None:
    scale = float(change.norm())
    assert float((exact(rule) - change).norm()) <= 1e-6 * scale


@pytest.mark.parametrize("layer", [PLAIN, UP, DOWN])
def test_the_change_is_the_sum_of_the_changes(small: Generator, layer: str):
    rules = [some_rule(small, layer, seed).with_strength(0.7 - seed) for seed in range(3)]
    one = merged(rules, "all")
    assert_same(one, torch.stack([exact(rule) for rule in rules]).sum(0))
    assert (one.name, one.layer, one.strength, one.rank) == ("all", layer, 1.0, 6)
    torch.testing.assert_close(one.directions @ one.directions.T, torch.eye(6), rtol=0, atol=1e-6)
    one.check(small)


def test_rules_on_the_same_directions_take_no_more_room_than_one(small: Generator):
    rule = some_rule(small)
    other = replace(rule, delta=some_rule(small, seed=5).delta)
    one = merged([rule, other.with_strength(-2.0), rule], "all")
    assert one.rank == rule.rank
    assert_same(one, 2 * exact(rule) - 2 * exact(other))


def test_rules_that_cancel_make_a_rule_that_changes_nothing(small: Generator):
    rule = some_rule(small)
    one = merged([rule, rule.with_strength(-1)], "nothing")
    assert one.rank == 1
    assert torch.equal(small.with_rules(one).weight(PLAIN), small.weight(PLAIN))


def test_what_is_left_of_rules_that_nearly_cancel_is_kept(small: Generator):
    rule, faint = some_rule(small), some_rule(small, seed=1).with_strength(1e-4)
    one = merged([rule, faint, rule.with_strength(-1)], "faint")
    assert_same(one, exact(faint))
    assert one.rank == faint.rank


def test_a_full_rank_change_and_more_directions_than_units_stay_within_the_units(small: Generator):
    units = small.weight(PLAIN).shape[1]
    whole = replace(
        some_rule(small), directions=torch.eye(units), delta=0.1 * torch.randn(small.weight(PLAIN).shape)
    )
    rules = [whole, *(some_rule(small, seed=seed) for seed in range(6))]
    one = merged(rules, "all")
    assert one.rank == units
    assert_same(one, torch.stack([exact(rule) for rule in rules]).sum(0))


def test_directions_point_the_way_the_parts_do(small: Generator):
    rule = some_rule(small)
    flat = replace(rule, directions=rule.directions[:1], delta=rule.delta[:, :1])
    for sign in (1, -1):
        part = replace(flat, directions=sign * flat.directions)
        assert float((merged([part], "one").directions * part.directions).sum()) > 0


def test_it_names_the_rules_that_are_in_it(small: Generator):
    rules = [some_rule(small, seed=seed) for seed in range(2)]
    below = replace(
        rules[1], provenance=rules[1].provenance.model_copy(update={"beneath": (rules[0].digest, "f" * 64)})
    )
    one = merged([rules[0], below], "both")
    assert one.provenance.merged == tuple(rule.digest for rule in rules)
    assert one.provenance.beneath == ("f" * 64,)
    again = Rule.load(one.to_bytes())
    assert again.provenance == one.provenance
    assert again.digest == one.digest


def narrow(small: Generator) -> list[Rule]:
    rule = some_rule(small)
    return [rule, replace(rule, directions=rule.directions[:, :-1])]


REFUSED: dict[str, tuple[Callable[[Generator], list[Rule]], type[PalimpsestError], str]] = {
    "none": (lambda small: [], RequestError, "no rule to merge"),
    "two layers": (
        lambda small: [some_rule(small), some_rule(small, UP)],
        RequestError,
        "rules at plain, up",
    ),
    "two models": (
        lambda small: [some_rule(small), some_rule(small_generator(1))],
        ModelMismatch,
        r"rules made for small \([0-9a-f]{12}\) and small",
    ),
    "two shapes": (narrow, LayerError, r"rules for weights \[9, 9, 3, 3\] and \[9, 10, 3, 3\]"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_is_not_of_one_weight_is_refused_in_one_line(small: Generator, which: str):
    make, error, message = REFUSED[which]
    with pytest.raises(error, match=message) as problem:
        merged(make(small), "all")
    assert "\n" not in str(problem.value)
