"""Pictures under a slider: what a pushed rule draws, where it changes them, and how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dissect.scaled import Inside, changes, effect_map, inside_outside, scaled
from rewrite_core import LatentSpec, RuleStack
from rewrite_core.directions import Direction
from rewrite_core.errors import LayerError, ModelMismatch, RequestError
from rewrite_core.generators import Generator
from rewrite_core.memory import heat, level, whiten
from rewrite_core.rules.scaling import scaling_rule
from rewrite_core.statistics import SecondMoment, fetch
from tests.generators import DOWN, PLAIN, UP, Demodulated, small_generator, some_rule
from tests.nvidia import random_stylegan3
from tests.planted import DRAWS, SHAPES, planted_generator

SPEC = LatentSpec.of(range(7))


def pair(seed: int, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures before and after."""
    draw = np.random.RandomState(seed)
    before, after = draw.randint(0, 256, (2, count, 6, 8, 3)).astype(np.uint8)
    return before, after


@pytest.mark.parametrize("generator", [small_generator(), Demodulated.small()], ids=lambda one: one.family)
@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN])
def test_drawing_on_gives_what_a_view_through_the_rule_gives(generator: Generator, layer: str):
    rule = some_rule(generator, layer)
    pictures = scaled(generator, SPEC, layer)
    assert np.array_equal(pictures.before, generator.draw(SPEC))
    assert np.array_equal(pictures.drawn(rule), generator.with_rules(rule).draw(SPEC))
    assert (pictures.drawn(rule) != pictures.before).any()
    assert pictures.nbytes > pictures.before.nbytes
    assert (pictures.spec, pictures.layer) == (SPEC, layer)


def test_rules_that_are_on_stay_on_at_this_layer_and_at_others():
    generator = small_generator()
    on = RuleStack().push(some_rule(generator, UP)).push(some_rule(generator, PLAIN, seed=1))
    rule = some_rule(generator, PLAIN, seed=2)
    found = scaled(generator.with_rules(on), SPEC, PLAIN).drawn(rule)
    expected = generator.with_rules(on.push(rule)).draw(SPEC)
    assert np.abs(found.astype(int) - expected).max() <= 1  # sums of three weights may differ in the last bit
    assert (found != generator.with_rules(RuleStack().push(rule)).draw(SPEC)).any()


def test_of_maps_with_margins_heat_is_of_the_picture_alone():
    generator = random_stylegan3()
    layer = max(generator.layers.values(), key=lambda layer: layer.key_margin)
    pictures = scaled(generator, SPEC, layer.name)
    found = pictures.heat(torch.eye(layer.in_channels)[0])
    keys = generator.keys(generator.latents(SPEC), layer.name).keys
    assert torch.equal(found, layer.inside(keys)[:, 0])
    rule = some_rule(generator, layer.name)
    assert np.array_equal(pictures.drawn(rule), generator.with_rules(rule).draw(SPEC))


def test_a_scale_of_1_draws_the_same_pictures():
    generator = small_generator()
    vectors = torch.eye(generator.layer(PLAIN).in_channels).double()[:1]
    one = Direction(vectors, PLAIN, "unit", torch.ones(1).double())
    moment = fetch(generator, PLAIN, SPEC, SecondMoment()).matrix
    pictures = scaled(generator, SPEC, PLAIN)
    assert np.array_equal(pictures.drawn(scaling_rule(generator, one, moment, 1)), pictures.before)


def test_a_rule_of_another_layer_or_generator_is_refused():
    pictures = scaled(small_generator(), SPEC, PLAIN)
    with pytest.raises(LayerError, match="a rule at 'up' for pictures stopped at 'plain'"):
        pictures.drawn(some_rule(small_generator(), UP))
    with pytest.raises(ModelMismatch):
        pictures.drawn(some_rule(small_generator(seed=1), PLAIN))
    with pytest.raises(LayerError):
        scaled(small_generator(), SPEC, "none")


def test_the_effect_map_is_the_mean_difference_at_each_pixel():
    before, after = pair(0)
    expected = np.abs(after / 255 - before / 255).mean((0, 3))
    found = effect_map(before, after)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert effect_map(np.zeros_like(before), np.full_like(before, 255)).min() == 1


def test_changes_are_listed_picture_by_picture():
    before, after = pair(1)
    after[1] = before[1]
    table = changes([4, 9, 2], before, after)
    assert table["seed"].tolist() == [4, 9, 2]
    assert table["change"].tolist() == pytest.approx(
        np.abs(after / 255 - before / 255).mean((1, 2, 3)).tolist()
    )
    assert table["change"][1] == 0


def test_changes_inside_and_outside_make_up_the_whole():
    before, after = pair(2)
    found = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    told = inside_outside(before, after, found, 0.5)
    matched = (found > 0.5).numpy()
    change = np.abs(after / 255 - before / 255).mean(3)
    assert told.inside == pytest.approx(change[matched].mean(), abs=1e-6)
    assert told.outside == pytest.approx(change[~matched].mean(), abs=1e-6)
    assert told.share == matched.mean()


def test_where_nothing_or_everything_matches_there_is_no_nan():
    before, after = pair(3)
    flat = torch.zeros(3, 2, 2)
    assert inside_outside(before, after, flat, 0.0).inside == 0
    assert inside_outside(before, after, flat, 0.0).share == 0
    assert inside_outside(before, after, flat, -1.0).outside == 0
    none = before[:0]
    assert inside_outside(none, none, flat[:0], 0.0) == Inside(0.0, 0.0, 0.0)
    assert not effect_map(none, none).any()
    assert changes([], none, none).empty


def test_what_does_not_belong_together_is_refused():
    before, after = pair(4)
    for measure in (
        lambda: effect_map(before, after[:2]),
        lambda: changes([1, 2], before, after),
        lambda: inside_outside(before, after, torch.zeros(2, 2, 2), 0.0),
    ):
        with pytest.raises(RequestError):
            measure()


def test_removing_what_draws_red_changes_red_places_and_hardly_others():
    generator, spec = planted_generator(), LatentSpec.of(range(40))
    moment = fetch(generator, SHAPES, spec, SecondMoment()).matrix
    query = whiten(moment).inverse[DRAWS[SHAPES]["red"][0]]
    red = Direction((query / query.norm())[None], SHAPES, "zca", torch.ones(1).double(), "red")
    pictures = scaled(generator, spec, SHAPES)
    after = pictures.drawn(scaling_rule(generator, red, moment, 0))
    told = pictures.inside(red.vectors[0], after)
    assert told.inside > 0.1
    assert told.inside > 20 * told.outside
    maps = heat(generator.keys(generator.latents(spec), SHAPES).keys, red.vectors[0])
    assert torch.equal(pictures.heat(red.vectors[0]), maps)
    assert told == pictures.inside(red.vectors[0], after, above=level(maps, 0.99))
    assert pictures.inside(red.vectors[0], after, above=1e9) == Inside(
        0.0, changes(spec.seeds, pictures.before, after)["change"].mean(), 0.0
    )
