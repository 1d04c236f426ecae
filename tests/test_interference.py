"""Which rules get in each other's way: two numbers, checked against the formula on real keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rewrite_core import LayerStatistics, RuleStack, layer_statistics
from rewrite_core.errors import ModelMismatch
from rewrite_core.generators import Generator
from rewrite_core.rules.interference import CONTEXT, NOTABLE, interference
from rewrite_core.rules.rule import Rule
from tests.generators import PLAIN, UP, Demodulated, small_generator, some_rule


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def known(small: Generator) -> LayerStatistics:
    return layer_statistics(small, PLAIN, samples=40)


def stacked(*rules: Rule) -> RuleStack:
    stack = RuleStack()
    for rule in rules:
        stack = stack.push(rule)
    return stack


def on_units(generator: Generator, *units: int, name: str = "a rule", seed: int = 0) -> Rule:
    """A rule that reads only these units of the layer."""
    rule = some_rule(generator, PLAIN, seed, name)
    directions = torch.eye(rule.directions.shape[1])[list(units)]
    return replace(rule, directions=directions, delta=rule.delta[:, : len(units)].contiguous())


def written(rule: Rule, keys: Tensor) -> Tensor:
    """‖strength · ΛD k‖² of keys [n, C], the long way: [n]."""
    return torch.einsum("ocyx,nc->noyx", rule.change().double(), keys.double()).square().sum((1, 2, 3))


def test_the_measured_number_is_what_one_rule_writes_in_the_others_context(
    small: Generator, known: LayerStatistics
):
    one, other = (
        some_rule(small, seed=1, name="one").with_strength(0.5),
        some_rule(small, seed=2, name="other"),
    )
    keys = known.sample.keys.movedim(1, 3).flatten(0, 2)  # [M·h·w, C]
    found = interference(stacked(one, other), small, lambda layer: known, least=0)
    assert [{item.disturbed, item.by} for item in found] == [{0, 1}, {0, 1}]
    for item in found:
        mine, others = (one, other) if item.disturbed == 0 else (other, one)
        power = written(mine, keys)
        context = power.topk(int(CONTEXT * len(keys))).indices
        expected = (written(others, keys[context]).sum() / power[context].sum()).sqrt()
        assert item.changed == pytest.approx(float(expected), rel=1e-4)
    assert found[0].changed >= found[1].changed


def test_the_same_rule_twice_changes_all_that_it_writes(small: Generator, known: LayerStatistics):
    rule = some_rule(small)
    for item in interference(stacked(rule, rule), small, lambda layer: known):
        assert item.changed == pytest.approx(1)
        assert item.overlap == pytest.approx(1, abs=1e-5)


def test_the_strengths_count(small: Generator, known: LayerStatistics):
    rule = some_rule(small)
    found = interference(stacked(rule, rule.with_strength(-0.5)), small, lambda layer: known, least=0)
    assert {(item.disturbed, round(item.changed, 4)) for item in found} == {(0, 0.5), (1, 2.0)}


def test_only_what_is_on_at_one_layer_and_writes_is_compared(small: Generator, known: LayerStatistics):
    def nobody(layer: str) -> LayerStatistics:
        raise AssertionError(f"statistics of {layer} are not needed")

    rule = some_rule(small)
    assert interference(RuleStack(), small, nobody, least=0) == ()
    assert interference(stacked(rule, some_rule(small, UP)), small, nobody, least=0) == ()
    assert interference(stacked(rule, rule).toggle(0), small, nobody, least=0) == ()
    (found,) = interference(stacked(rule, rule.with_strength(0)), small, lambda layer: known, least=0)
    assert (found.disturbed, found.changed) == (0, 0)


def test_a_warning_takes_a_quarter_and_says_both_numbers(small: Generator, known: LayerStatistics):
    rule = some_rule(small, name="hat")
    faint = rule.renamed("").with_strength(0.9 * NOTABLE)
    (found,) = interference(stacked(rule, faint), small, lambda layer: known)
    assert found.disturbed == 1
    assert found.sentence == "“hat” changes 444 % of what “rule 2” writes at plain (overlap 1.00)."
    stronger = rule.renamed("cap").with_strength(1.1 * NOTABLE)
    assert len(interference(stacked(rule, stronger), small, lambda layer: known)) == 2


def test_rules_whose_directions_depend_on_each_other_are_compared_all_the_same(
    small: Generator, known: LayerStatistics
):
    unit = int(known.second_moment.diagonal().argmax())
    rules = stacked(on_units(small, unit, unit), on_units(small, unit))
    found = interference(rules, small, lambda layer: known, least=0)
    assert len(found) == 2
    assert all(abs(item.overlap) == pytest.approx(1, abs=1e-5) for item in found)


def test_a_demodulated_layer_is_compared_too():
    generator = Demodulated.small()
    rules = stacked(some_rule(generator), some_rule(generator, seed=1))
    found = interference(
        rules, generator, lambda layer: layer_statistics(generator, layer, samples=20), least=0
    )
    assert len(found) == 2
    assert all(0 < item.changed < 100 for item in found)


def test_a_rule_of_another_generator_is_refused(small: Generator, known: LayerStatistics):
    strange = some_rule(small_generator(1))
    with pytest.raises(ModelMismatch):
        interference(stacked(some_rule(small), strange), small, lambda layer: known)
