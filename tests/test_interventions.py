"""Interventions on planted units: what they change in the picture, by how much, and nowhere else."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dissect import bootstrap
from dissect.bootstrap import interval
from dissect.effects import Effects, causal_effects, single_effects
from dissect.interventions import (
    Directions,
    Intervention,
    ablate,
    ablate_directions,
    apply,
    check,
    concept_values,
    finished,
    insert,
    quantile_values,
    sample,
)
from dissect.ranking import rank_units
from rewrite_core.errors import Cancelled, LayerError, MaskError, PalimpsestError, RequestError
from rewrite_core.generators import Generator, open_generator
from rewrite_core.pictures import Mask
from rewrite_core.statistics import Conditional, Histogram, Scene, SecondMoment, sweep
from tests.generators import PLAIN, UP, small_generator, spec
from tests.labellers import Tints
from tests.nvidia import random_stylegan2_ada, random_stylegan3
from tests.planted import (
    COLOURS,
    CONSTANT,
    DEAD,
    DRAWS,
    LOUD,
    MUTE,
    PLACES,
    SHAPES,
    SILENT,
    UNITS,
    WIDE,
    Shapes,
    drawn_by,
    planted_generator,
)

REFERENCE = Path(__file__).parent / "reference"
FAMILIES = {
    "sequential": small_generator,
    "stylegan2": lambda: open_generator(REFERENCE / "small_stylegan2.pt"),
    "stylegan2-ada": random_stylegan2_ada,
    "stylegan3": random_stylegan3,
    "proggan": lambda: open_generator(REFERENCE / "small_proggan.pth"),
}
SEEN = Shapes()
MANY = spec(30)  # more than a micro-batch
SIDE = (48, 48)


@pytest.fixture(scope="module")
def planted() -> Generator:
    return planted_generator()


# What is drawn


@pytest.mark.parametrize("layer", [PLACES, SHAPES])
def test_strength_zero_changes_nothing_to_the_bit(planted, layer):
    before = planted.sample(MANY)
    for one in (ablate(layer, range(UNITS), strength=0), insert(layer, [0], [LOUD], strength=0)):
        assert torch.equal(sample(planted, MANY, [one]), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_interventions_every_family_draws_what_it_always_does_from_any_layer(family):
    generator = FAMILIES[family]()
    latents = generator.latents(spec(2))
    drawn = generator.sample(spec(2))
    for layer in generator.layers:
        assert torch.equal(finished(generator, generator.keys(latents, layer), []), drawn)
    assert torch.equal(sample(generator, spec(2), []), drawn)


def test_interventions_at_several_layers_are_made_in_order_of_depth(planted):
    at_shapes, at_places = ablate(SHAPES, [0]), insert(PLACES, [0], [LOUD])
    both = sample(planted, MANY, [at_shapes, at_places])
    assert torch.equal(
        both, sample(planted, MANY, [at_shapes])
    )  # what the earlier inserts the later takes away
    assert not torch.equal(both, sample(planted, MANY, [at_places]))


def test_an_ablation_takes_away_what_the_units_draw_and_nothing_else(planted):
    before, after = planted.sample(MANY) > 0, sample(planted, MANY, [ablate(SHAPES, [1])]) > 0
    assert before[:, 1].any()
    assert not after[:, 1].any()
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])


def test_the_generator_and_the_batch_stay_as_they_were(planted):
    at = planted.keys(planted.latents(spec(3)), SHAPES)
    keys, pictures = at.keys.clone(), planted.sample(spec(3))
    changed = apply(planted, at, insert(SHAPES, [1, 2], [LOUD, LOUD]))
    assert bool((changed.keys[:, [1, 2]] == LOUD).all())
    assert torch.equal(at.keys, keys)
    assert torch.equal(planted.sample(spec(3)), pictures)


def test_strength_blends_between_untouched_and_forced(planted):
    at = planted.keys(planted.latents(spec(3)), SHAPES)
    half = apply(planted, at, insert(SHAPES, [0], [LOUD], strength=0.5))
    torch.testing.assert_close(half.keys[:, 0], (at.keys[:, 0] + LOUD) / 2)


# Regions


def test_a_region_limits_an_ablation_to_itself_and_the_receptive_field(planted):
    region = Mask.rectangle(SIDE, 0, 0, 24, 48)  # rows 0 to 11 of shapes
    before = planted.sample(MANY)
    after = sample(planted, MANY, [ablate(SHAPES, range(UNITS), region=region)])
    assert torch.equal(before[:, :, 25:], after[:, :, 25:])  # bilinear enlargement reaches one pixel further
    assert not bool((after[:, :, :23] > 0).any())
    assert bool((before[:, :, :23] > 0).any())


def test_an_insertion_makes_the_shape_appear_where_it_is_painted(planted):
    region = Mask.rectangle(SIDE, 12, 12, 24, 24)  # one cell of places: rows and columns 6 to 11 of shapes
    one = insert(PLACES, [0], [LOUD], region=region)
    red = sample(planted, MANY, [one])[:, 0] > 0  # [N, 48, 48]
    disc = red[:, 12:24, 12:24]
    assert bool((disc == disc[0]).all())
    assert 0.5 < float(disc[0].double().mean()) < 1
    outside = torch.ones(SIDE, dtype=torch.bool)
    outside[11:25, 11:25] = False
    assert torch.equal(red[:, outside], (planted.sample(MANY)[:, 0] > 0)[:, outside])


def test_a_region_is_brought_to_the_grid_by_area(planted):
    at = planted.keys(planted.latents(spec(2)), PLACES)  # a cell is 12 × 12 pixels
    region = Mask.rectangle(SIDE, 0, 0, 6, 15)  # half of the first cell, an eighth of the second
    inserted = apply(planted, at, insert(PLACES, [DEAD], [8.0], region=region)).keys[0, DEAD]
    assert inserted[0].tolist() == [4.0, 1.0, 0.0, 0.0]
    assert not inserted[1:].any()


def test_a_soft_region_counts_in_part(planted):
    at = planted.keys(planted.latents(spec(2)), PLACES)
    region = Mask(np.full(SIDE, 51, dtype=np.uint8))  # 51 of 255: a fifth
    inserted = apply(planted, at, insert(PLACES, [DEAD], [5.0], strength=0.5, region=region))
    torch.testing.assert_close(inserted.keys[:, DEAD], torch.full_like(inserted.keys[:, DEAD], 0.5))


def test_a_region_never_touches_margins_and_everywhere_does():
    generator = random_stylegan3()
    layer = max(generator.layers.values(), key=lambda layer: layer.key_margin)
    assert layer.key_margin > 0
    at = generator.keys(generator.latents(spec(1)), layer.name)
    whole = Mask(np.full(generator.picture_size, 255, dtype=np.uint8))
    painted = apply(generator, at, ablate(layer.name, [0], region=whole)).keys[:, 0]
    assert not layer.inside(painted).any()
    edge = layer.key_margin
    assert torch.equal(painted[:, :edge], at.keys[:, 0, :edge])
    assert painted[:, :edge].any()
    assert not apply(generator, at, ablate(layer.name, [0])).keys[:, 0].any()


# Directions


def random_keys(generator: Generator, layer: str) -> tuple[Tensor, Tensor]:
    moment = sweep(generator, spec(40), {layer: [SecondMoment()]})[layer][0]
    assert isinstance(moment, SecondMoment)
    return moment.matrix, generator.keys(generator.latents(spec(4)), layer).keys


def test_ablated_directions_read_zero_and_what_is_uncorrelated_stays():
    generator = small_generator()
    moment, keys = random_keys(generator, PLAIN)
    draw = torch.Generator().manual_seed(0)
    queries = torch.randn(2, len(moment), generator=draw)
    at = generator.keys(generator.latents(spec(4)), PLAIN)
    after = apply(generator, at, ablate_directions(PLAIN, queries, moment)).keys
    scale = torch.einsum("mc,nchw->nmhw", queries, keys).abs().max()
    assert torch.einsum("mc,nchw->nmhw", queries, after).abs().max() < 1e-5 * scale
    # A reading e is uncorrelated with the queries where e C Dᵀ = 0: it keeps its value.
    other = torch.randn(len(moment), generator=draw, dtype=torch.float64)
    pattern = moment @ queries.double().T  # [C, M]
    other -= pattern @ torch.linalg.solve(pattern.T @ pattern, pattern.T @ other)
    before, kept = (torch.einsum("c,nchw->nhw", other.float(), maps) for maps in (keys, after))
    torch.testing.assert_close(kept, before, rtol=1e-4, atol=1e-4)


def test_directions_that_are_units_of_an_uncorrelated_layer_are_units(planted):
    at = planted.keys(planted.latents(MANY), SHAPES)
    rows = torch.eye(UNITS)[[0, 2]]
    for region in (None, Mask.rectangle(SIDE, 3, 4, 30, 41)):
        by_direction = ablate_directions(SHAPES, rows, torch.eye(UNITS), region=region)
        by_unit = ablate(SHAPES, [0, 2], region=region)
        torch.testing.assert_close(apply(planted, at, by_direction).keys, apply(planted, at, by_unit).keys)


def test_inserting_along_a_direction_sets_its_reading():
    generator = small_generator()
    moment, _ = random_keys(generator, PLAIN)
    queries = torch.randn(2, len(moment), generator=torch.Generator().manual_seed(1))
    at = generator.keys(generator.latents(spec(4)), PLAIN)
    one = Intervention(PLAIN, Directions.of(queries, moment), (3.0, -2.0))
    readings = torch.einsum("mc,nchw->nmhw", queries, apply(generator, at, one).keys)
    torch.testing.assert_close(readings[:, 0], torch.full_like(readings[:, 0], 3.0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(readings[:, 1], torch.full_like(readings[:, 1], -2.0), rtol=1e-3, atol=1e-3)


# Effects


@pytest.mark.parametrize("layer", [SHAPES, COLOURS])
def test_each_unit_alone_takes_away_just_the_pixels_that_it_draws(planted, layer):
    found = single_effects(planted, MANY, layer, SEEN)
    drawn = drawn_by(planted, MANY, layer)  # [N, C]
    assert found.sets == tuple(map(str, range(planted.layer(layer).in_channels)))
    for colour, units in DRAWS[layer].items():
        label = SEEN.names.index(colour)
        for unit in range(len(found.sets)):
            lost = found.before[:, label] - found.after[unit, :, label]
            expected = drawn[:, unit] if unit in units else torch.zeros_like(lost)
            assert torch.equal(lost, expected), (colour, unit)


@pytest.mark.parametrize("layer", [PLACES, SHAPES])
def test_units_that_draw_nothing_have_no_effect_at_all(planted, layer):
    found = single_effects(planted, MANY, layer, SEEN, SILENT)
    assert not found.changes.any()
    table = found.table()
    assert (table[["effect", "low", "high", "relative"]] == 0).all(axis=None)


def test_the_table_says_the_exact_share_with_its_sign_and_interval(planted):
    sets = {"red gone": [ablate(SHAPES, DRAWS[SHAPES]["red"])], "blue in": [insert(PLACES, [2], [LOUD])]}
    table: Any = causal_effects(planted, MANY, SEEN, sets).table().set_index(["set", "concept"])
    share = (planted.sample(MANY) > 0).double().mean((0, 2, 3))  # [3]
    gone = table.loc[("red gone", "red")]
    assert gone["before"] == pytest.approx(float(share[0]))
    assert gone["after"] == 0
    assert gone["effect"] == pytest.approx(-float(share[0]))
    assert gone["low"] < gone["effect"] < gone["high"] < 0
    assert gone["relative"] == -1
    assert table.loc[("red gone", "green"), "effect"] == 0
    assert table.loc[("red gone", "dark"), "effect"] > 0
    assert table.loc[("blue in", "blue"), "low"] > 0
    assert not table.isna().any(axis=None)


def test_a_concept_that_is_never_there_has_effect_zero_and_no_nan(planted):
    table = causal_effects(planted, spec(3), Shapes(unseen=True), {"a": [ablate(SHAPES, [0])]}).table()
    never = table[table["concept"] == "purple"]
    assert (never[["before", "after", "effect", "low", "high", "relative"]] == 0).all(axis=None)


def test_the_average_causal_effect_is_inserted_less_ablated(planted):
    region = Mask.rectangle(SIDE, 12, 12, 24, 24)
    sets = {
        "ablated": [ablate(PLACES, [0], region=region)],
        "inserted": [insert(PLACES, [0], [LOUD], region=region)],
    }
    found = causal_effects(planted, MANY, SEEN, sets)
    table: Any = found.average_causal_effect("inserted", "ablated").set_index("concept")
    own = found.table().set_index(["set", "concept"])["effect"]
    for concept in SEEN.names:
        expected = own["inserted", concept] - own["ablated", concept]
        assert table.loc[concept, "effect"] == pytest.approx(expected)
    disc = sample(planted, MANY, sets["inserted"])[0, 0] > 0
    alone = sample(planted, MANY, sets["ablated"])[0, 0] > 0
    assert table.loc["red", "effect"] == pytest.approx(float((disc & ~alone).sum()) / math.prod(SIDE))
    assert table.loc["red", "low"] == pytest.approx(table.loc["red", "high"])  # the same in every picture
    with pytest.raises(RequestError, match="'moved'; expected one of ablated, inserted"):
        found.average_causal_effect("moved", "ablated")


def test_effects_of_other_pictures_merge_to_those_of_all(planted):
    sets = {"a": [ablate(SHAPES, [0])], "b": [ablate(SHAPES, [1])]}
    whole = causal_effects(planted, spec(7), SEEN, sets)
    parts = [causal_effects(planted, some, SEEN, sets) for some in (spec(3), spec(4, first=3))]
    merged = parts[0].merge(parts[1])
    assert merged.seeds == whole.seeds
    assert torch.equal(merged.before, whole.before)
    assert torch.equal(merged.after, whole.after)
    with pytest.raises(RequestError, match="effects of other interventions"):
        whole.merge(replace(whole, sets=("a", "c")))


def test_progress_counts_every_picture_and_may_cancel(planted):
    seen = []
    causal_effects(planted, MANY, SEEN, {"a": [ablate(SHAPES, [0])]}, lambda *at: seen.append(at))
    assert seen == [(25, 60), (50, 60), (55, 60), (60, 60)]

    def cancel(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        single_effects(planted, MANY, SHAPES, SEEN, progress=cancel)


@dataclass(frozen=True)
class Soft(Tints):
    """How red, green and blue each of some blocks of pixels is; `scale` NaN makes nonsense of it."""

    scale: float = 1.0
    title: str = "tints"
    pixels_only: bool = True

    def check(self, generator: Generator) -> None:
        """Any pictures will do."""

    def __call__(self, scene: Scene) -> Tensor:
        labels: Tensor = Tints.__call__(self, scene)
        return self.scale * labels


def test_soft_labels_count_where_they_are_above_one_half(planted):
    found = causal_effects(planted, spec(5), Soft(), {"a": [ablate(SHAPES, [0])]})
    labels = Soft()(Scene(planted.sample(spec(5)), planted.latents(spec(5))))
    assert found.pixels == 5 * 7
    assert torch.equal(found.before, (labels > 0.5).sum((2, 3)))


def test_pictures_that_are_not_numbers_are_not_measured(planted):
    """They used to be called black."""
    torn = [insert(SHAPES, [0], [3e38]), insert(COLOURS, [0], [-3e38])]
    assert not sample(planted, spec(1), torn).isfinite().all()
    with pytest.raises(PalimpsestError, match="pixels that are NaN or infinite in pictures 0 to 1"):
        causal_effects(planted, spec(2), SEEN, {"torn": torn})


def test_labels_that_are_not_numbers_are_refused(planted):
    with pytest.raises(PalimpsestError, match="NaN or infinite in pictures 0 to 1"):
        causal_effects(planted, spec(2), Soft(scale=math.nan), {})


# Ranking


def test_greedy_ranking_finds_the_units_that_draw_a_colour_the_greater_first(planted):
    candidates = [WIDE, MUTE, 5, CONSTANT, 1, 0, DEAD]
    found = rank_units(planted, spec(60), SHAPES, "red", SEEN, candidates, 3)
    assert found.units == (0, 5, WIDE)  # what adds nothing comes in the order given
    assert found.single.seeds == tuple(range(30))
    assert found.curve.seeds == tuple(range(30, 60))
    table = found.table()
    assert table["units"].tolist() == [1, 2, 3]
    assert table["added"].tolist() == [0, 5, WIDE]
    assert table["after"].tolist()[1:] == [0, 0]
    assert table["relative"].tolist()[1:] == [-1, -1]
    assert (table["high"] < 0).all()


def test_a_ranking_is_the_same_when_no_batch_can_be_kept(planted, monkeypatch):
    kept = rank_units(planted, spec(20), SHAPES, "red", SEEN, [0, 1, 5], 2)
    monkeypatch.setattr("dissect.ranking.KEPT", 0)
    seen: list[tuple[int, int]] = []
    again = rank_units(planted, spec(20), SHAPES, "red", SEEN, [0, 1, 5], 2, lambda *at: seen.append(at))
    assert again.units == kept.units
    assert torch.equal(again.curve.after, kept.curve.after)
    assert seen[-1] == (100, 100)  # (4 + 3) sets of 10 pictures, then 3 of the other 10


# Intervals


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says():
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(80, 400, generator=draw, dtype=torch.float64).square()  # mean 1/3
    low, high = interval(values, resamples=1000)
    covered = float(((low <= 1 / 3) & (high >= 1 / 3)).double().mean())
    assert 0.9 < covered < 0.99


def test_an_interval_is_that_of_a_plain_bootstrap_and_the_same_every_time():
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = interval(values, resamples=1000)
    random = np.random.RandomState(0)
    means = np.stack([values.numpy()[random.randint(50, size=50)].mean(0) for _ in range(1000)])
    expected = np.quantile(means, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(torch.stack([low, high]).numpy(), expected, atol=1e-12)
    assert torch.equal(interval(values, resamples=1000)[0], low)


def test_an_interval_does_not_depend_on_how_many_resamples_are_made_at_a_time(monkeypatch):
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = torch.stack(interval(values, resamples=300))
    monkeypatch.setattr(bootstrap, "_NUMBERS", 700)
    torch.testing.assert_close(torch.stack(interval(values, resamples=300)), whole, rtol=0, atol=1e-12)


def test_an_interval_of_one_picture_is_its_value():
    low, high = interval(torch.tensor([[0.25, -1.0]]))
    assert low.tolist() == high.tolist() == [0.25, -1.0]
    assert not interval(torch.zeros(0, 2))[0].any()


# Values to insert


def test_values_are_the_units_means_where_the_concept_is(planted):
    statistic = Conditional(SEEN)
    seen = sweep(planted, MANY, {SHAPES: [statistic]})[SHAPES][0]
    assert isinstance(seen, Conditional)
    (value, silent) = concept_values(seen, "green", [1, DEAD])
    assert 0 < value < 5
    assert silent == 0
    painted = causal_effects(planted, spec(5), SEEN, {"in": [insert(SHAPES, [1], [value])]}).table()
    assert painted.set_index("concept").loc["green", "after"] == 1
    with pytest.raises(RequestError, match="concept 'hat'; expected one of red"):
        concept_values(seen, "hat", [1])
    with pytest.raises(RequestError, match="unit 8; expected units from 0 to 7"):
        concept_values(seen, "green", [UNITS])


def test_a_concept_that_was_never_seen_gives_no_value(planted):
    seen = sweep(planted, spec(3), {SHAPES: [Conditional(Shapes(unseen=True))]})[SHAPES][0]
    assert isinstance(seen, Conditional)
    with pytest.raises(RequestError, match="'purple' in none of 3 samples"):
        concept_values(seen, "purple", [0])


def test_values_may_be_a_high_quantile(planted):
    seen = sweep(planted, MANY, {SHAPES: [Histogram()]})[SHAPES][0]
    assert isinstance(seen, Histogram)
    assert quantile_values(seen, [CONSTANT, DEAD]) == (1.0, 0.0)
    assert quantile_values(seen, [0], 1.0) == (float(seen.greatest[0]),)


# Bad input


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: ablate(SHAPES, []), "0 values for 0 units"),
        (lambda: insert(SHAPES, [1, 2], [1.0]), "1 values for 2 units"),
        (lambda: insert(SHAPES, [1], [math.nan]), "a value that is NaN or infinite"),
        (lambda: insert(SHAPES, [1], [-1e39]), "too large for float32"),
        (lambda: ablate(SHAPES, [1], strength=1.5), "strength 1.5; expected from 0"),
        (lambda: ablate(SHAPES, [1], strength=math.nan), "strength nan"),
        (lambda: ablate(SHAPES, [1], region=Mask(np.zeros(SIDE, dtype=np.uint8))), "an empty region"),
        (lambda: ablate_directions(SHAPES, torch.ones(1, 3), torch.eye(8)), r"directions \[1, 3\] and"),
        (lambda: ablate_directions(SHAPES, torch.full((1, 8), math.inf), torch.eye(8)), "all numbers finite"),
        (lambda: ablate_directions(SHAPES, torch.ones(2, 8), torch.eye(8)), "say the same twice"),
        (lambda: ablate_directions(SHAPES, torch.ones(1, 8), torch.zeros(8, 8)), "match nothing"),
    ],
)
def test_what_cannot_be_intervened_is_refused_at_once(make, problem):
    with pytest.raises(RequestError, match=problem):
        make()


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (ablate("l99", [0]), "layer 'l99'; expected one of places, shapes, colours"),
        (ablate(SHAPES, [8]), "unit 8; expected units from 0 to 7 of layer 'shapes'"),
        (ablate(SHAPES, [-1]), "unit -1; expected units from 0 to 7"),
        (ablate(SHAPES, [2, 2]), "unit 2 twice"),
        (
            ablate_directions(SHAPES, torch.ones(1, 5), torch.eye(5)),
            "directions of 5 units; expected 8 units",
        ),
        (
            ablate(SHAPES, [0], region=Mask.rectangle((32, 32), 0, 0, 5, 5)),
            "a region of 32×32 pixels; expected 48×48",
        ),
    ],
    ids=str,
)
def test_what_the_generator_has_not_is_refused_before_anything_is_drawn(planted, one, problem):
    at = planted.keys(planted.latents(spec(1)), SHAPES)
    for work in (
        lambda: sample(planted, spec(0), [one]),
        lambda: apply(planted, at, one),
        lambda: finished(planted, at, [one]),
        lambda: causal_effects(planted, spec(1), SEEN, {"one": [one]}),
    ):
        with pytest.raises(PalimpsestError, match=problem):
            work()


def test_an_intervention_is_called_by_its_units_or_by_how_many_there_are():
    assert str(ablate("l08", [17])) == "ablate unit 17 of l08"
    assert str(insert("l08", range(8), [1.0] * 8)) == "insert units 0, 1, 2, 3, 4, 5, 6, 7 of l08"
    assert str(ablate("l08", range(511, -1, -1))) == "ablate 512 units (511, 510, 509, …) of l08"


def test_very_many_units_are_checked_in_no_time(planted):
    began = time.process_time()
    with pytest.raises(RequestError, match="unit 8; expected units from 0 to 7"):
        check(planted, [ablate(SHAPES, range(100_000))])
    assert time.process_time() - began < 2


def test_a_batch_at_another_layer_is_refused(planted):
    at = planted.keys(planted.latents(spec(1)), SHAPES)
    with pytest.raises(LayerError, match="an intervention at 'places' for a batch at 'shapes'"):
        apply(planted, at, ablate(PLACES, [0]))
    with pytest.raises(LayerError, match="'places' after 'shapes'"):
        finished(planted, at, [ablate(PLACES, [0])])


def test_a_source_that_knows_unedited_samples_only_may_not_judge(planted):
    with pytest.raises(PalimpsestError, match="which know unedited samples only"):
        causal_effects(planted, spec(1), Shapes(pixels_only=False), {"a": [ablate(SHAPES, [0])]})
    with pytest.raises(PalimpsestError, match="which know unedited samples only"):
        rank_units(planted, spec(4), SHAPES, "red", Shapes(pixels_only=False), [0, 1], 1)


@pytest.mark.parametrize(
    ("concept", "candidates", "count", "pictures", "problem"),
    [
        ("hat", [0, 1], 1, 4, "concept 'hat'; expected one of red, green, blue, dark"),
        ("red", [0, 1], 3, 4, "3 units of 2 candidates"),
        ("red", [0, 1], 0, 4, "0 units of 2 candidates"),
        ("red", [0, 1], 1, 1, "on 1 pictures"),
        ("red", [0, 9], 1, 4, "unit 9"),
        ("red", [], 1, 4, "0 values for 0 units"),
    ],
)
def test_a_ranking_that_cannot_be_made_is_refused(planted, concept, candidates, count, pictures, problem):
    with pytest.raises(RequestError, match=problem):
        rank_units(planted, spec(pictures), SHAPES, concept, SEEN, candidates, count)


def test_no_pictures_are_refused(planted):
    with pytest.raises(RequestError, match="0 samples"):
        causal_effects(planted, spec(0), SEEN, {})


def test_no_intervention_is_no_effect(planted):
    found = causal_effects(planted, spec(2), SEEN, {})
    assert isinstance(found, Effects)
    assert found.table().empty
    same = causal_effects(planted, spec(2), SEEN, {"nothing": []})
    assert not same.changes.any()
    assert str(ablate(SHAPES, [1, 2], strength=0.5)) == "ablate units 1, 2 of shapes at strength 0.5"
    assert str(insert(SHAPES, [1], [2])) == "insert unit 1 of shapes"


def test_a_mask_error_is_said_of_regions():
    with pytest.raises(MaskError):
        ablate(UP, [0], region=Mask(np.zeros(SIDE, dtype=np.uint8)))
