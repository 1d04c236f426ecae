"""Stacks of rules: every change is exact and can be undone, and with all rules off nothing has happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core import LatentSpec, open_generator
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.stack import RuleStack
from tests.generators import DOWN, PLAIN, UP, small_generator, some_rule, spec


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


def formula(generator: Generator, rules: list[Rule], layer: str) -> Tensor:
    """``W + Σ strength · ΛD`` in float64."""
    weight = generator.weight(layer).double()
    for rule in rules:
        change = torch.einsum("oryx,rc->ocyx", rule.delta.double(), rule.directions.double())
        weight = weight + rule.strength * change
    return weight


@pytest.fixture
def three(small: Generator) -> list[Rule]:
    return [
        some_rule(small, PLAIN, 1, "one"),
        some_rule(small, UP, 2, "two"),
        some_rule(small, PLAIN, 3, "three"),
    ]


def stacked(rules: list[Rule]) -> RuleStack:
    stack = RuleStack()
    for rule in rules:
        stack = stack.push(rule)
    return stack


def names(stack: RuleStack) -> list[str]:
    return [entry.rule.name for entry in stack.entries]


def test_a_stack_composes_every_rule_that_is_on(small: Generator, three: list[Rule]):
    stack = stacked(three).with_strength(2, -0.5).toggle(1)
    weights = stack.compose(small)
    assert set(weights) == {PLAIN}
    expected = formula(small, [three[0], three[2].with_strength(-0.5)], PLAIN)
    torch.testing.assert_close(weights[PLAIN], expected.float(), rtol=1e-5, atol=1e-6)
    view = small.with_rules(stack.toggle(1))
    torch.testing.assert_close(view.weight(UP), formula(small, [three[1]], UP).float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(view.weight(PLAIN), weights[PLAIN])
    assert torch.equal(view.weight(DOWN), small.weight(DOWN))


def test_a_stack_with_everything_off_is_the_pristine_generator(small: Generator, three: list[Rule]):
    stack = stacked(three)
    for index in range(3):
        stack = stack.toggle(index)
    assert stack.active == ()
    assert small.with_rules(stack) is small


def test_opposite_rules_cancel_to_the_bit_in_any_company(small: Generator):
    for seed in range(5):
        rule, other = some_rule(small, seed=seed), some_rule(small, seed=seed + 10)
        pair = stacked([rule, rule.with_strength(-1)])
        assert torch.equal(pair.compose(small)[PLAIN], small.weight(PLAIN))
        company = stacked([rule, other, rule.with_strength(-1)])
        assert torch.equal(company.compose(small)[PLAIN], other.compose(small)[PLAIN])


def test_the_order_of_rules_does_not_matter_at_all(small: Generator):
    rules = [some_rule(small, seed=seed).with_strength(0.3 * seed) for seed in range(1, 4)]
    weights = [stacked(list(order)).compose(small)[PLAIN] for order in permutations(rules)]
    for weight in weights[1:]:
        assert torch.equal(weight, weights[0])


def test_undo_and_redo_walk_through_every_change(three: list[Rule]):
    stack = stacked(three)
    history = [
        stack,
        stack.toggle(0),
        stack.toggle(0).with_strength(1, 0.5),
        stack.toggle(0).with_strength(1, 0.5).remove(2),
    ]
    latest = stack.toggle(0).with_strength(1, 0.5).remove(2).clear()
    assert latest.entries == ()
    for expected in reversed(history):
        latest = latest.undo()
        assert described(latest) == described(expected)
    for expected in history[1:]:
        latest = latest.redo()
        assert described(latest) == described(expected)
    assert latest.redo().entries == ()


def described(stack: RuleStack) -> list[tuple[str, float, bool]]:
    return [(entry.rule.name, entry.rule.strength, entry.on) for entry in stack.entries]


def test_a_change_after_undo_forgets_what_was_undone(three: list[Rule]):
    stack = stacked(three).undo().toggle(0)
    assert stack.redo() is stack
    assert names(stack.undo()) == ["one", "two"]


def test_nothing_to_undo_or_redo_is_no_error(three: list[Rule]):
    assert RuleStack().undo() == RuleStack().redo() == RuleStack()
    stack = stacked(three)
    assert stack.redo() is stack
    assert stack.undo().undo().undo().undo().entries == ()
    assert RuleStack().clear().past == ()


def test_positions_count_from_the_end_as_well(three: list[Rule]):
    stack = stacked(three)
    assert names(stack.remove(-1)) == ["one", "two"]
    assert described(stack.toggle(-1)) == described(stack.toggle(2))
    assert described(stack.with_strength(-3, 0.5)) == described(stack.with_strength(0, 0.5))
    for change in (stack.remove, stack.toggle):
        with pytest.raises(IndexError):
            change(3)


def test_a_stack_is_a_value(three: list[Rule]):
    stack = stacked(three)
    before = described(stack)
    stack.toggle(0)
    stack.remove(1)
    stack.push(three[0])
    assert described(stack) == before
    with pytest.raises(FrozenInstanceError):
        stack.entries = ()  # type: ignore[misc]


def test_undoing_brings_back_the_same_pictures(small: Generator, three: list[Rule]):
    stack = stacked(three[:2])
    before = small.with_rules(stack).sample(spec())
    after = stack.push(three[2])
    assert not torch.allclose(small.with_rules(after).sample(spec()), before, atol=1e-3)
    assert torch.equal(small.with_rules(after.undo()).sample(spec()), before)


def test_one_wrong_rule_spoils_the_stack_whether_or_not_it_is_alone(small: Generator, three: list[Rule]):
    stack = stacked([*three, some_rule(small_generator(1))])
    with pytest.raises(PalimpsestError):
        stack.compose(small)
    assert set(stack.toggle(3).compose(small)) == {PLAIN, UP}


# Order, copies, names


def test_a_rule_moves_to_the_place_that_is_named(three: list[Rule]):
    stack = stacked(three)
    assert names(stack.move(0, 2)) == ["two", "three", "one"]
    assert names(stack.move(2, 0)) == ["three", "one", "two"]
    assert names(stack.move(-1, 1)) == ["one", "three", "two"]
    assert stack.move(1, 1) is stack
    with pytest.raises(IndexError):
        stack.move(0, 3)


def test_a_duplicate_lies_above_the_rule_and_changes_no_picture_until_it_is_on(
    small: Generator, three: list[Rule]
):
    stack = stacked(three)
    copied = stack.duplicate(0)
    assert described(copied)[:2] == [("one", 1.0, True), ("one copy", 1.0, False)]
    assert same_weights(copied, stack, small)
    twice = copied.toggle(1).compose(small)[PLAIN].double() - small.weight(PLAIN)
    expected = formula(small, [three[0], three[0], three[2]], PLAIN) - small.weight(PLAIN)
    torch.testing.assert_close(twice, expected, rtol=1e-4, atol=1e-6)


def test_a_rule_gets_another_name_and_nothing_else(small: Generator, three: list[Rule]):
    stack = stacked(three)
    renamed = stack.rename(1, "hat")
    assert names(renamed) == ["one", "hat", "three"]
    assert same_weights(renamed, stack, small)
    assert names(renamed.undo()) == ["one", "two", "three"]
    assert stack.rename(1, "two") is stack


def same_weights(one: RuleStack, other: RuleStack, generator: Generator) -> bool:
    first, second = one.compose(generator), other.compose(generator)
    return first.keys() == second.keys() and all(torch.equal(first[layer], second[layer]) for layer in first)


# A drag is one step


def dragged(stack: RuleStack, index: int, *strengths: float) -> RuleStack:
    for strength in strengths:
        stack = stack.with_strength(index, strength)
    return stack


def test_the_strengths_of_one_drag_are_one_step(three: list[Rule]):
    stack = stacked(three)
    after = dragged(stack, 0, 0.8, 0.5, -0.25)
    assert after.entries[0].rule.strength == -0.25
    assert len(after.past) == len(stack.past) + 1
    assert after.undo().entries == stack.entries
    assert after.undo().redo().entries == after.entries


def test_a_drag_that_returns_leaves_no_step(three: list[Rule]):
    stack = stacked(three)
    after = dragged(stack, 1, 0.5, 2.0, 1.0)
    assert (after.entries, after.past) == (stack.entries, stack.past)
    assert stack.with_strength(1, 1.0) is stack


@pytest.mark.parametrize(
    "between",
    [
        lambda stack: stack.with_strength(1, 0.3),
        lambda stack: stack.toggle(0),
        lambda stack: stack.rename(0, "hat"),
        lambda stack: stack.move(0, 1).move(1, 0),
        lambda stack: stack.toggle(2),
    ],
    ids=["another rule's strength", "its switch", "its name", "its place", "another's switch"],
)
def test_any_other_change_ends_the_drag(three: list[Rule], between: Callable[[RuleStack], RuleStack]):
    first = between(dragged(stacked(three), 0, 0.8, 0.5))
    second = dragged(first, 0, 0.2, 0.1)
    assert len(second.past) == len(first.past) + 1
    assert second.undo().entries == first.entries


def test_a_drag_goes_on_from_the_strength_that_a_redo_brought_back(three: list[Rule]):
    stack = stacked(three)
    again = dragged(dragged(stack, 0, 0.5).undo().redo(), 0, 0.25)
    assert again.undo().entries == stack.entries
    assert again.redo() is again


# Merging


def test_merged_rules_draw_what_they_drew_before(small: Generator):
    rules = [some_rule(small, PLAIN, seed).with_strength(0.5 * seed - 1) for seed in range(5)]
    stack = stacked([*rules[:3], some_rule(small, UP), *rules[3:]])
    merged = stack.merge([0, 2, 4, -1], "all")
    assert names(merged) == ["all", "a rule", "a rule"]
    torch.testing.assert_close(
        merged.compose(small)[PLAIN], stack.compose(small)[PLAIN], rtol=1e-5, atol=1e-6
    )
    before, after = (small.with_rules(each).sample(spec()) for each in (stack, merged))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    assert merged.undo().entries == stack.entries


def test_a_rule_that_is_off_is_not_merged(three: list[Rule]):
    with pytest.raises(RequestError, match="rule 'three' to be merged, which is off"):
        stacked(three).toggle(2).merge([0, 2], "both")


def test_rules_of_several_layers_are_not_merged(three: list[Rule]):
    with pytest.raises(RequestError, match="rules at plain, up; expected rules at one layer") as problem:
        stacked(three).merge([0, 1], "both")
    assert "\n" not in str(problem.value)


# Anything, in any order

NAMES = ("undo", "redo", "toggle", "strength", "move", "duplicate", "rename", "remove", "merge")
PLACES = st.integers(0, 7)
STRENGTHS = st.floats(-1, 2, width=16)
OPERATIONS = st.lists(st.tuples(st.sampled_from(NAMES), PLACES, PLACES, STRENGTHS), min_size=10, max_size=10)


def acted(stack: RuleStack, name: str, one: int, other: int, strength: float) -> RuleStack:
    """One operation; places count round, and there must be rules for all but undo and redo."""
    count = len(stack.entries)
    if name in ("undo", "redo"):
        return stack.undo() if name == "undo" else stack.redo()
    if not count:
        return stack
    one, other = one % count, other % count
    if name == "merge":
        layer = stack.entries[one].rule.layer
        places = [
            place for place, entry in enumerate(stack.entries) if entry.on and entry.rule.layer == layer
        ]
        return stack.merge(places, "merged") if places else stack
    acts: dict[str, Callable[[], RuleStack]] = {
        "toggle": lambda: stack.toggle(one),
        "strength": lambda: stack.with_strength(one, strength),
        "move": lambda: stack.move(one, other),
        "duplicate": lambda: stack.duplicate(one),
        "rename": lambda: stack.rename(one, f"rule {other}"),
        "remove": lambda: stack.remove(one),
    }
    return acts[name]()


GENERATOR = small_generator()
LOADED = {name: tensor.clone() for name, tensor in GENERATOR.tensors()}
START = [some_rule(GENERATOR, layer, seed) for seed, layer in enumerate((PLAIN, UP, PLAIN, DOWN))]


@given(OPERATIONS)
@settings(max_examples=30, deadline=None)
def test_ten_operations_in_any_order_leave_no_trace_once_all_rules_are_off(
    operations: list[tuple[str, int, int, float]],
):
    stack = stacked(START)
    for operation in operations:
        after = acted(stack, *operation)
        if after is not stack and operation[0] not in ("undo", "redo"):
            assert after.undo().redo() == after
        stack = after
        check(stack)
    for place, entry in enumerate(stack.entries):
        stack = stack.toggle(place) if entry.on else stack
    view = GENERATOR.with_rules(stack)
    assert view.fingerprint == GENERATOR.fingerprint
    assert all(torch.equal(view.weight(layer), LOADED_WEIGHTS[layer]) for layer in GENERATOR.layers)
    assert all(torch.equal(tensor, LOADED[name]) for name, tensor in GENERATOR.tensors())


LOADED_WEIGHTS = {layer: GENERATOR.weight(layer).clone() for layer in GENERATOR.layers}


def check(stack: RuleStack) -> None:
    """The composed weights are the formula's, from the pristine ones, whatever happened before."""
    view = GENERATOR.with_rules(stack)
    for layer in (PLAIN, UP, DOWN):
        expected = formula(GENERATOR, [rule for rule in stack.active if rule.layer == layer], layer)
        torch.testing.assert_close(view.weight(layer), expected.float(), rtol=1e-5, atol=1e-6)


@given(OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_undoing_everything_and_redoing_it_comes_back(operations: list[tuple[str, int, int, float]]):
    stack = RuleStack(stacked(START).entries)
    for operation in operations:
        stack = acted(stack, *operation)
    back = stack
    while back.past:
        back = back.undo()
    assert back.entries == RuleStack(stacked(START).entries).entries
    for _ in stack.past:
        back = back.redo()
    assert back == stack


def test_rules_at_several_layers_of_a_real_generator_leave_its_pictures_once_they_are_off():
    generator = open_generator("face32-dcgan")
    before = generator.draw(LatentSpec.of(range(2)))
    layers = list(generator.layers)[1:4]
    stack = stacked([some_rule(generator, layer, seed) for seed, layer in enumerate([*layers, layers[0]])])
    assert (generator.with_rules(stack).draw(LatentSpec.of(range(2))) != before).any()
    for place in range(4):
        stack = dragged(stack, place, 0.5, -1.0).toggle(place)
    assert (generator.with_rules(stack).draw(LatentSpec.of(range(2))) == before).all()
