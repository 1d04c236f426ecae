"""Scaling what a direction matches: the formula, the pictures, the published zero beside it, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dissect.interventions import ablate_directions, sample
from rewrite_core import LatentSpec, Rule, RuleStack, layer_statistics, open_generator
from rewrite_core.directions import Direction
from rewrite_core.errors import LayerError, ModelMismatch, RequestError
from rewrite_core.generators import Generator
from rewrite_core.rules.rewrite import completed, direction_of
from rewrite_core.rules.scaling import (
    left_over,
    output_channels,
    published_zero_rule,
    scaling_rule,
    written,
)
from rewrite_core.statistics import SecondMoment, fetch
from tests.generators import DOWN, PLAIN, UP, Demodulated, blue_eyes, small_generator, some_rule, spec

DRAWS = LatentSpec.of(range(30))


def direction(
    generator: Generator, layer: str = PLAIN, rank: int = 2, seed: int = 3, name: str = ""
) -> Direction:
    """Random orthonormal vectors."""
    draw = torch.Generator().manual_seed(seed)
    units = generator.layer(layer).in_channels
    vectors = torch.linalg.qr(torch.randn(units, rank, generator=draw, dtype=torch.float64)).Q.T
    return Direction(vectors, layer, "unit", torch.ones(rank, dtype=torch.float64), name)


def moment_of(generator: Generator, layer: str = PLAIN) -> Tensor:
    return fetch(generator, layer, DRAWS, SecondMoment()).matrix


def ill_conditioned(units: int, condition: float = 1e8, seed: int = 5) -> tuple[Tensor, Tensor]:
    """A second moment [C, C], and the query of unit length for a key that it does not stretch either way."""
    draw = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(units, units, generator=draw, dtype=torch.float64)).Q
    powers = condition ** -torch.linspace(0, 1, units, dtype=torch.float64)
    query = basis @ ((basis.T @ torch.ones(units, dtype=torch.float64)) / powers)
    return (basis * powers) @ basis.T, query / query.norm()


def edited(generator: Generator, rule: Rule) -> Tensor:
    return generator.weight(rule.layer).double() + rule.change().double()


def on(weight: Tensor, keys: Tensor) -> Tensor:
    """What a weight [O, C, kh, kw] makes of keys [K, C], tap by tap."""
    return torch.einsum("ocyx,kc->koyx", weight.double(), keys)


# The formula


@pytest.mark.parametrize("alpha", [-2.0, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("rank", [1, 3])
def test_what_the_patterns_are_drawn_as_is_scaled(alpha: float, rank: int):
    generator = small_generator()
    one, moment = direction(generator, rank=rank), moment_of(generator)
    patterns, weight = one.pattern(moment), generator.weight(PLAIN)
    found = on(edited(generator, scaling_rule(generator, one, moment, alpha)), patterns)
    torch.testing.assert_close(
        found, alpha * on(weight, patterns), rtol=1e-5, atol=1e-6 * float(patterns.norm())
    )


def test_keys_that_the_direction_does_not_read_are_drawn_as_before():
    generator = small_generator()
    one, moment = direction(generator), moment_of(generator)
    keys = torch.randn(5, one.units, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unread = keys - keys @ one.vectors.T @ one.vectors
    rule = scaling_rule(generator, one, moment, -2)
    torch.testing.assert_close(
        on(edited(generator, rule), unread), on(generator.weight(PLAIN), unread), rtol=0, atol=1e-5
    )
    assert (on(edited(generator, rule), keys) - on(generator.weight(PLAIN), keys)).abs().max() > 0.1


def test_a_scale_of_1_changes_nothing_and_scales_are_linear():
    generator = small_generator()
    one, moment = direction(generator), moment_of(generator)
    still, removed, turned = (scaling_rule(generator, one, moment, alpha) for alpha in (1, 0, -2))
    assert not still.delta.any()
    assert torch.equal(generator.with_rules(still).sample(spec()), generator.sample(spec()))
    torch.testing.assert_close(turned.delta, 3 * removed.delta)
    torch.testing.assert_close(removed.with_strength(3).change(), turned.change())


def test_on_an_ill_conditioned_second_moment_nothing_is_left_and_the_published_zero_leaves_nearly_all():
    generator = small_generator()
    moment, query = ill_conditioned(generator.layer(PLAIN).in_channels)
    one = replace(direction(generator, rank=1), vectors=query[None])
    weight = generator.weight(PLAIN)
    assert left_over(weight, scaling_rule(generator, one, moment, 0), moment, one) < 1e-6
    assert left_over(weight, published_zero_rule(generator, one), moment, one) > 0.999
    assert left_over(weight, scaling_rule(generator, one, moment, 1), moment, one) == 1


def test_the_published_zero_projects_the_query_out_of_the_weight():
    generator = small_generator()
    one, weight = direction(generator), generator.weight(PLAIN).double()
    expected = weight - torch.einsum("ocyx,rc,rd->odyx", weight, one.vectors, one.vectors)
    torch.testing.assert_close(
        edited(generator, published_zero_rule(generator, one)), expected, rtol=0, atol=1e-6
    )


def test_eyes_are_removed_from_the_default_generator_and_the_published_zero_leaves_most_of_them():
    generator = open_generator("anime64-dcgan")
    request = completed(blue_eyes(), generator)
    statistics = layer_statistics(generator, "l08")
    eyes, moment, weight = (
        direction_of(generator, request, statistics),
        statistics.second_moment,
        generator.weight("l08"),
    )
    assert left_over(weight, scaling_rule(generator, eyes, moment, 0), moment, eyes) < 1e-6
    assert left_over(weight, published_zero_rule(generator, eyes), moment, eyes) > 0.5


# The pictures


@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN])
def test_removing_is_what_the_intervention_on_the_keys_draws(layer: str):
    generator = small_generator()
    one, moment = direction(generator, layer), moment_of(generator, layer)
    drawn = generator.with_rules(scaling_rule(generator, one, moment, 0)).sample(spec())
    expected = sample(generator, spec(), [ablate_directions(layer, one.vectors, moment)])
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)
    assert (drawn - generator.sample(spec())).abs().max() > 0.05


def test_of_a_demodulated_layer_the_weight_is_scaled_and_demodulation_follows():
    generator = Demodulated.small()
    one, moment = direction(generator), moment_of(generator)
    rule = scaling_rule(generator, one, moment, 0)
    assert left_over(generator.weight(PLAIN), rule, moment, one) < 1e-6
    at = generator.keys(generator.latents(spec()), PLAIN)
    forced = ablate_directions(PLAIN, one.vectors, moment).target.forced(
        at.keys, torch.zeros(2), torch.ones(generator.layer(PLAIN).key_size)
    )
    weight = generator.weight(PLAIN)
    response = generator.respond(PLAIN, forced, weight)
    expected = generator.finish(at, response, generator.energy(at, edited(generator, rule).float()))
    torch.testing.assert_close(generator.with_rules(rule).values(at), expected, rtol=0, atol=1e-4)


def test_it_stacks_saves_and_undoes_as_any_rule():
    generator = small_generator()
    one, moment = direction(generator, name="eyes"), moment_of(generator)
    rule = scaling_rule(generator, one, moment, -1)
    again = Rule.load(rule.to_bytes())
    assert again.digest == rule.digest
    assert again.provenance == rule.provenance
    assert again.provenance.request is None
    told = {"alpha": -1.0, "direction": one.digest, "direction_name": "eyes", "method": "unit"}
    assert again.provenance.result == told
    stack = RuleStack().push(some_rule(generator)).push(rule)
    both = generator.with_rules(stack).weight(PLAIN)
    torch.testing.assert_close(
        both.double(), edited(generator, some_rule(generator)) + rule.change(), rtol=0, atol=1e-6
    )
    assert torch.equal(
        generator.with_rules(stack.undo()).weight(PLAIN),
        generator.with_rules(some_rule(generator)).weight(PLAIN),
    )


def test_a_rule_made_through_a_view_is_that_of_the_pristine_weight():
    generator = small_generator()
    one, moment = direction(generator), moment_of(generator)
    view = generator.with_rules(some_rule(generator))
    assert scaling_rule(view, one, moment, 0).digest == scaling_rule(generator, one, moment, 0).digest


def test_rules_are_called_after_what_they_do():
    generator = small_generator()
    one, moment = direction(generator, name="eyes"), moment_of(generator)
    assert scaling_rule(generator, one, moment, 0).name == "no eyes"
    assert scaling_rule(generator, one, moment, -1.5).name == "eyes × −1.5"
    assert scaling_rule(generator, one.renamed(""), moment, 2).name == "unit at plain × 2"
    assert scaling_rule(generator, one, moment, 2, "wide eyes").name == "wide eyes"
    assert published_zero_rule(generator, one).name == "eyes, published zero"


# What it writes


@pytest.mark.parametrize("layer", [UP, PLAIN])
def test_what_a_direction_writes_is_the_least_squares_answer_to_its_readings(layer: str):
    generator = small_generator()
    one = direction(generator, layer)
    keys = torch.rand(200, one.units, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = on(generator.weight(layer), keys).flatten(1)  # [S, O·kh·kw]
    found = written(generator, one, keys.T @ keys / len(keys))
    for vector, values in zip(one.vectors, found, strict=True):
        expected = torch.linalg.lstsq((keys @ vector)[:, None], drawn).solution[0]
        torch.testing.assert_close(values.flatten(), expected)


def test_channels_are_listed_by_what_is_written_to_them():
    values = torch.zeros(2, 3, 1, 2, dtype=torch.float64)
    values[0, 1, 0] = torch.tensor([3.0, 4.0])
    values[0, 2, 0, 0] = -5.0 * 3**0.5
    table = output_channels(values)
    assert list(table.columns) == ["direction", "channel", "norm", "share"]
    first = table[table["direction"] == 0]
    assert first["channel"].tolist() == [2, 1, 0]
    assert first["share"].tolist() == pytest.approx([0.75, 0.25, 0])
    assert first["norm"].tolist() == pytest.approx([5 * 3**0.5, 5, 0])
    second = table[table["direction"] == 1]
    assert second["channel"].tolist() == [0, 1, 2]
    assert (second["share"] == 0).all()


def test_every_output_channel_of_a_transposed_convolution_has_its_row():
    generator = small_generator()
    values = written(generator, direction(generator, UP, rank=1), moment_of(generator, UP))
    assert values.shape == generator.weight(UP)[:, 0][None].shape
    table = output_channels(values)
    assert sorted(table["channel"]) == list(range(generator.layer(UP).out_channels))
    assert table["share"].sum() == pytest.approx(1)


# What is refused


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -10.5])
def test_a_scale_out_of_range_is_refused(alpha: float):
    generator = small_generator()
    with pytest.raises(RequestError, match="expected a number from -10 to 10"):
        scaling_rule(generator, direction(generator), moment_of(generator), alpha)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_direction_that_matches_nothing_is_refused_in_one_line(rank: int):
    generator = small_generator()
    dead = torch.eye(10, dtype=torch.float64)
    dead[0, 0] = 0.0
    one = replace(direction(generator, name="nothing"), vectors=torch.eye(10, dtype=torch.float64)[:rank])
    for made in (lambda: scaling_rule(generator, one, dead, 0), lambda: written(generator, one, dead)):
        with pytest.raises(RequestError, match="'nothing' with a vector that matches nothing") as caught:
            made()
        assert "\n" not in str(caught.value)
    assert left_over(generator.weight(PLAIN), some_rule(generator), torch.zeros(10, 10), one) == 0


@pytest.mark.parametrize("moment", [torch.eye(9), torch.full((10, 10), float("nan"))])
def test_a_second_moment_that_does_not_fit_is_refused(moment: Tensor):
    generator = small_generator()
    with pytest.raises(RequestError, match=r"expected \[10, 10\]"):
        scaling_rule(generator, direction(generator), moment, 0)


def test_a_direction_of_another_generator_or_width_is_refused():
    generator = small_generator()
    one, moment = direction(generator), moment_of(generator)
    with pytest.raises(ModelMismatch):
        scaling_rule(generator, replace(one, model="other", fingerprint="0" * 64), moment, 0)
    with pytest.raises(LayerError):
        published_zero_rule(generator, replace(one, layer=UP))
    with pytest.raises(LayerError):
        written(generator, replace(one, layer="none"), moment)
