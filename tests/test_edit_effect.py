"""What an edit changes: inside its context, elsewhere, where it took effect; against planted truth, and to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dissect.edit_effect import EditEffect, Protected, edit_effect
from dissect.edit_regions import context_level, example_change, regions_of
from dissect.scaled import INSIDE, changes, effect_map, inside_outside
from rewrite_core import LatentSpec
from rewrite_core.directions import Direction
from rewrite_core.errors import Cancelled, LayerError, ModelMismatch, PalimpsestError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.memory import heat, level
from rewrite_core.pictures import Mask
from rewrite_core.rules.regions import Painted
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rule import Provenance, Rule
from rewrite_core.statistics import Scene
from tests.generators import DOWN, PLAIN, UP, painted, small_generator, some_rule, spec
from tests.nvidia import random_stylegan3
from tests.planted import COLOURS, DRAWS, SHAPES, Shapes, planted_generator

GREEN = DRAWS[SHAPES]["green"][0]


def direction_of(generator: Generator, layer: str = PLAIN, unit: int | None = None) -> Direction:
    """A unit's own direction, or one across all units."""
    units = generator.layer(layer).in_channels
    vector = torch.linspace(-1, 1, units).double() if unit is None else torch.eye(units).double()[unit]
    return Direction(
        (vector / vector.norm())[None],
        layer,
        "unit",
        torch.ones(1).double(),
        fingerprint=generator.pristine.fingerprint,
    )


def recoloured(generator: Generator, strength: float = 1.0) -> Rule:
    """What draws green squares draws blue ones instead, and nothing else changes."""
    delta = torch.tensor([0.0, -1.0, 1.0, 0.0])[:, None, None, None]  # [O, 1, 1, 1]
    made_for = Provenance(
        model=generator.name, fingerprint=generator.fingerprint, layer=SHAPES, strength=strength
    )
    return Rule(torch.eye(8)[GREEN : GREEN + 1], delta, made_for)


def clearly_green(generator: Generator, count: int = 30) -> LatentSpec:
    """Pictures in which some square is green, and none so faintly that one would not see it."""
    keys = generator.keys(generator.latents(LatentSpec.of(range(200))), SHAPES).keys[:, GREEN].flatten(1)
    faintest = keys.masked_fill(keys == 0, torch.inf).amin(1)  # [N]
    seeds = ((faintest > 0.2) & faintest.isfinite()).nonzero().flatten().tolist()
    return LatentSpec.of(seeds[:count])


def small_effect(pictures: LatentSpec, **options: Any) -> EditEffect:
    generator = small_generator()
    after = generator.with_rules(some_rule(generator))
    return edit_effect(generator, after, direction_of(generator), pictures, **options)


def test_of_a_planted_unit_all_of_the_change_is_inside_and_every_context_took_effect():
    generator = planted_generator()
    view, pictures = generator.with_rules(recoloured(generator)), clearly_green(generator)
    found = edit_effect(generator, view, direction_of(generator, SHAPES, GREEN), pictures, level=0.0)
    assert len(pictures) == 30
    assert found.inside.value > 0.1
    assert (found.outside.value, found.outside.low, found.outside.high) == (0, 0, 0)
    assert found.took_effect.value == 1
    assert found.took_effect.pictures == 30
    assert found.inside.low < found.inside.value < found.inside.high


def test_a_picture_without_the_planted_context_is_not_counted_among_those_that_have_it():
    generator = planted_generator()
    pictures = LatentSpec.of(range(40))
    keys = generator.keys(generator.latents(pictures), SHAPES).keys[:, GREEN]
    have = (keys > 0).flatten(1).any(1)
    view = generator.with_rules(recoloured(generator))
    found = edit_effect(generator, view, direction_of(generator, SHAPES, GREEN), pictures, level=0.0)
    table = found.pictures()
    assert 0 < int(have.sum()) < 40
    assert found.inside.pictures == found.took_effect.pictures == int(have.sum())
    assert (table["region"] > 0).tolist() == have.tolist()
    assert not table["change"][~have.numpy()].any()
    assert found.outside.value == 0


def test_numbers_are_those_of_all_pictures_at_once():
    generator, pictures = small_generator(), spec(60)
    direction, rule = direction_of(generator), some_rule(generator)
    after = generator.with_rules(rule)
    found = edit_effect(generator, after, direction, pictures)
    before_drawn, after_drawn = generator.draw(pictures), after.draw(pictures)
    maps = heat(generator.keys(generator.latents(pictures), PLAIN).keys, direction.vectors[0])
    told = inside_outside(before_drawn, after_drawn, maps, found.level)
    assert found.inside.value == pytest.approx(told.inside, abs=1e-6)
    assert found.outside.value == pytest.approx(told.outside, abs=1e-6)
    np.testing.assert_allclose(found.average_map, effect_map(before_drawn, after_drawn), atol=1e-6)
    expected = changes(pictures.seeds, before_drawn, after_drawn)
    np.testing.assert_allclose(found.pictures()["change"], expected["change"], atol=1e-6)
    ranked = expected.sort_values("change", ascending=False, kind="stable")["seed"].tolist()
    assert found.most(5) == ranked[:5]
    assert found.least(5) == ranked[::-1][:5]
    assert found.pictures()["region"].mean() == pytest.approx(told.share)


def test_the_level_is_the_quantile_over_all_positions():
    generator, pictures = small_generator(), spec(60)
    direction = direction_of(generator)
    maps = heat(generator.keys(generator.latents(pictures), PLAIN).keys, direction.vectors[0])
    found = context_level(generator, direction, pictures)
    assert float((maps > found).double().mean()) == pytest.approx(1 - INSIDE, abs=2e-3)
    assert found == pytest.approx(level(maps, INSIDE), rel=0.02)
    assert edit_effect(generator, generator, direction, pictures).level == found


def test_whatever_the_order_of_blocks_every_number_is_the_same_to_the_bit():
    generator = small_generator()
    one, two, three = spec(75).blocks(generator.micro_batch)
    assert len(three) == generator.micro_batch
    shuffled = replace(one, seeds=three.seeds + one.seeds + two.seeds)
    whole, other = (small_effect(each, level=0.5) for each in (spec(75), shuffled))
    merged = (
        small_effect(two, level=0.5).merge(small_effect(three, level=0.5)).merge(small_effect(one, level=0.5))
    )
    for found in (other, merged):
        assert (found.inside, found.outside, found.took_effect) == (
            whole.inside,
            whole.outside,
            whole.took_effect,
        )
        assert found.bar == whole.bar
        assert torch.equal(found.average_map, whole.average_map)
        assert found.most(9) == whole.most(9)
        again = found.pictures().sort_values("seed", ignore_index=True)
        assert again.equals(whole.pictures())


def test_effects_measured_otherwise_do_not_merge():
    one = small_effect(spec(4), level=0.5)
    for other in (
        small_effect(spec(4), level=0.6),
        small_effect(LatentSpec.of(range(4), truncation=0.7), level=0.5),
        small_effect(spec(4), level=0.5, request=EditRequest(paste=painted(1, 2, 2, 8, 8))),
    ):
        with pytest.raises(RequestError, match="measured in another way"):
            one.merge(other)


def test_took_effect_is_judged_by_the_painted_example():
    generator, pictures = small_generator(), spec(50)
    direction, after = direction_of(generator), generator.with_rules(some_rule(generator))
    wanted = 2 * small_effect(pictures, level=0.5).pictures()["inside"].median()
    drawn = [one.draw(pictures).astype(float) for one in (generator, after)]
    apart = np.abs(drawn[1] - drawn[0]).mean(3) / 255  # [N, H, W]
    seed, row, column = np.argwhere(apart == apart.flat[np.abs(apart - wanted).argmin()])[0].tolist()
    request = EditRequest(paste=painted(seed, row, column, row + 1, column + 1))
    found = edit_effect(generator, after, direction, pictures, level=0.5, request=request)
    assert found.example == pytest.approx(apart[seed, row, column])
    assert found.bar == pytest.approx(apart[seed, row, column] / 2)
    table = found.pictures()
    among = table[table["region"] > 0]
    assert found.took_effect.value == pytest.approx((among["inside"] >= found.bar).mean())
    assert 0 < found.took_effect.value < 1
    assert found.took_effect.low < found.took_effect.value < found.took_effect.high


def test_without_an_example_the_tenth_that_changes_most_stands_for_it():
    found = small_effect(spec(50), level=0.5)
    table = found.pictures()
    inside = np.sort(table["inside"][table["region"] > 0])[::-1]
    strongest = inside[: int(np.ceil(len(inside) / 10))]
    assert found.bar == pytest.approx(np.median(strongest) / 2)


def test_a_soft_mask_counts_as_far_as_it_covers():
    generator = small_generator()
    after = generator.with_rules(some_rule(generator))
    pixels = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (16, 1))
    drawn = [one.draw(LatentSpec.of([3])).astype(float) for one in (generator, after)]
    apart = np.abs(drawn[1] - drawn[0]).mean(3)[0] / 255  # [H, W]
    request = EditRequest(paste=Painted(3, Mask(pixels)))
    expected = (apart * pixels).sum() / pixels.sum()
    assert example_change(generator, after, request) == pytest.approx(expected)


def test_the_example_of_an_erasure_is_its_context():
    generator = small_generator()
    after = generator.with_rules(some_rule(generator))
    context = (painted(1, 2, 2, 6, 6), painted(2, 4, 4, 10, 10))
    each = [example_change(generator, after, EditRequest(operation="erase", key=(one,))) for one in context]
    both = example_change(generator, after, EditRequest(operation="erase", key=context))
    assert both == pytest.approx((16 * each[0] + 36 * each[1]) / 52)
    assert example_change(generator, after, EditRequest(key=context)) == 0


def test_where_nothing_changes_nothing_took_effect():
    generator = small_generator()
    request = EditRequest(paste=painted(3, 2, 4, 9, 12))
    for asked in (None, request):
        found = edit_effect(generator, generator, direction_of(generator), spec(10), request=asked)
        assert found.took_effect.pictures > 0
        assert (found.inside.value, found.outside.value, found.took_effect.value) == (0, 0, 0)


def test_where_nothing_matches_or_everything_there_is_no_nan():
    for above in (1e9, -1e9):
        found = small_effect(spec(6), level=above)
        assert not found.table().isna().any(axis=None)
        assert not found.pictures().isna().any(axis=None)
    assert small_effect(spec(6), level=1e9).took_effect.pictures == 0
    assert small_effect(spec(6), level=-1e9).outside.pictures == 0
    one = small_effect(spec(1), level=-1e9).inside
    assert one.low == one.value == one.high > 0


def test_the_table_names_what_was_measured():
    assert small_effect(spec(4)).table()["measure"].tolist() == [
        "change inside the context",
        "change outside it",
        "took effect",
    ]


def test_protected_regions_are_those_of_the_picture_before():
    generator, pictures = planted_generator(), LatentSpec.of(range(30))
    view = generator.with_rules(recoloured(generator))
    direction = direction_of(generator, SHAPES, GREEN)
    kept = Protected(Shapes(), ("green", "red"))
    found = edit_effect(generator, view, direction, pictures, level=0.0, protect=kept)
    before, after = generator.draw(pictures), view.draw(pictures)
    there = (generator.sample(pictures)[:, :2] > 0).any(1).numpy()  # [N, H, W]
    apart = np.abs(after.astype(float) - before).mean(3) / 255
    assert found.protected.value == pytest.approx(apart[there].mean())
    assert found.table()["measure"].tolist()[2] == "change in green, red"
    dark = edit_effect(
        generator, view, direction, pictures, level=0.0, protect=Protected(Shapes(), ("dark",))
    )
    assert dark.protected.value < found.protected.value / 10


@dataclass(frozen=True)
class Active:
    """Where a unit of a layer is active: labels that are read off keys, on the layer's own grid, softly."""

    title: str = "active"
    pixels_only: bool = False
    layers: tuple[str, ...] = (COLOURS, SHAPES)
    names: tuple[str, ...] = ("green", "never")

    def identity(self) -> Mapping[str, Any]:
        return {"source": self.title}

    def check(self, generator: Generator) -> None:
        if generator.pristine is not generator:
            raise PalimpsestError(found="rules", expected="none", remedy="Switch them off.")

    def __call__(self, scene: Scene) -> Tensor:
        on = (scene.maps[SHAPES][:, GREEN] > 0).float()  # [N, h, w]
        return torch.stack([on, torch.zeros_like(on)], 1)


def test_what_is_protected_may_be_read_off_the_layers_of_the_unedited_picture():
    generator, pictures = planted_generator(), LatentSpec.of(range(30))
    view = generator.with_rules(recoloured(generator))
    direction = direction_of(generator, SHAPES, GREEN)
    found = edit_effect(
        generator, view, direction, pictures, level=0.0, protect=Protected(Active(), ("green",))
    )
    plain = edit_effect(generator, view, direction, pictures, level=0.0)
    assert found.inside == plain.inside
    assert found.protected.value > found.inside.value  # the same shapes, without their soft edges
    never = edit_effect(
        generator, view, direction, pictures, level=0.0, protect=Protected(Active(), ("never",))
    )
    assert never.protected.pictures == 0
    with pytest.raises(PalimpsestError, match="Switch them off"):
        edit_effect(view, view, direction, pictures, protect=Protected(Active(), ("green",)))


@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN])
def test_regions_are_found_at_any_layer_whatever_layer_is_changed(layer: str):
    generator = small_generator()
    after = generator.with_rules(some_rule(generator, PLAIN))
    found = edit_effect(generator, after, direction_of(generator, layer), spec(30), level=0.1)
    inside = regions_of(generator, direction_of(generator, layer), 0.1, spec(30))
    assert found.pictures()["region"].tolist() == pytest.approx(inside.double().mean((1, 2)).tolist())


def test_of_maps_with_margins_regions_are_of_the_picture_alone():
    generator = random_stylegan3()
    layer = max(generator.layers.values(), key=lambda layer: layer.key_margin)
    direction = direction_of(generator, layer.name, 0)
    after = generator.with_rules(some_rule(generator, layer.name))
    found = edit_effect(generator, after, direction, spec(2), level=0.0)
    inside = layer.inside(generator.keys(generator.latents(spec(2)), layer.name).keys)[:, 0]
    same_size = tuple(inside.shape[1:]) == generator.picture_size
    assert found.counts.total.shape == generator.picture_size
    if same_size:
        assert found.pictures()["region"].tolist() == (inside > 0).double().mean((1, 2)).tolist()
    assert found.inside.value > 0


def test_progress_tells_pictures_and_may_cancel():
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done > 50:
            raise Cancelled

    with pytest.raises(Cancelled):
        small_effect(spec(130), level=0.5, progress=progress)
    assert told == [(25, 130), (50, 130), (75, 130)]
    told.clear()
    small_effect(spec(50), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (50, 50)
    assert any(later[0] < earlier[0] for earlier, later in pairwise(told))  # a stage for the level, then one


def test_what_cannot_be_measured_is_refused_before_a_picture_is_drawn():
    generator = small_generator()
    direction = direction_of(generator)
    with pytest.raises(RequestError, match="0 samples"):
        edit_effect(generator, generator, direction, spec(0))
    with pytest.raises(RequestError, match="the same size"):
        edit_effect(generator, planted_generator(), direction, spec(2))
    with pytest.raises(ModelMismatch):
        edit_effect(small_generator(1), small_generator(1), direction, spec(2))
    with pytest.raises(LayerError):
        edit_effect(generator, generator, replace(direction, layer="none"), spec(2))
    for concepts in ((), ("purple",)):
        with pytest.raises(RequestError):
            edit_effect(generator, generator, direction, spec(2), protect=Protected(Shapes(), concepts))


def test_pictures_of_nan_are_refused():
    generator = small_generator()
    broken = generator.with_weights({DOWN: torch.full_like(generator.weight(DOWN), torch.nan)})
    with pytest.raises(PalimpsestError, match="NaN"):
        edit_effect(generator, broken, direction_of(generator), spec(2), level=0.0)
