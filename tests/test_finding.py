"""Which units fire where a region is painted: the planted ones first, and exactly as a loop would count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from dissect.finding import MARK, OUTLINE, find_units
from dissect.settings import CUSTOMARY
from dissect.units import levels_of
from rewrite_core import LatentSpec, Mask
from rewrite_core.errors import LayerError, MaskError, RequestError
from rewrite_core.pictures import to_uint8
from rewrite_core.statistics import Histogram, fetch
from tests.generators import PLAIN, small_generator
from tests.planted import CONSTANT, DEAD, SHAPES, drawn_by, planted_generator

SAMPLES = LatentSpec.of(range(64))


@pytest.fixture(scope="module")
def planted():
    return planted_generator()


@pytest.fixture(scope="module")
def distribution(planted):
    return fetch(planted, SHAPES, SAMPLES, Histogram())


def where(generator, seed, channel):
    """Where picture `seed` shows the colour of `channel`."""
    picture = generator.pictures(generator.latents(LatentSpec.of([seed])))[0]
    return Mask.from_array((picture[channel] > 0).numpy())


def showing(generator, unit, count):
    """Seeds of the first pictures that show what `unit` draws."""
    drawn = drawn_by(generator, SAMPLES)[:, unit]
    return [seed for seed in SAMPLES.seeds if drawn[seed]][:count]


@pytest.mark.parametrize(("unit", "channel"), [(1, 1), (2, 2)])
def test_the_unit_that_draws_what_is_painted_comes_first(planted, distribution, unit, channel):
    seeds = showing(planted, unit, 2)
    regions = [where(planted, seed, channel) for seed in seeds]
    found = find_units(planted, LatentSpec.of(seeds), regions, SHAPES, distribution)
    assert found.order[0] == unit
    assert found.iou[unit] > 0.5 > 4 * found.iou[found.order[1]]
    assert found.lift[unit] > 5
    assert found.rank_inside[unit] > 0.75 > 0.55 > found.rank_outside[unit]  # at the rim the own map is 0
    assert found.inside[unit] > 0.5
    assert found.outside[unit] < 0.1


def test_one_painted_picture_is_enough(planted, distribution):
    seed = showing(planted, 1, 1)
    found = find_units(planted, LatentSpec.of(seed), [where(planted, seed[0], 1)], SHAPES, distribution)
    assert found.order[0] == 1


def test_units_that_never_fire_score_nothing_and_no_number_is_missing(planted, distribution):
    seeds = showing(planted, 1, 1)
    found = find_units(planted, LatentSpec.of(seeds), [where(planted, seeds[0], 1)], SHAPES, distribution)
    table = found.table().set_index("unit")
    assert not table.isna().any().any()
    assert np.isfinite(table.drop(columns="layer").to_numpy(float)).all()
    assert (table.loc[[DEAD, CONSTANT], ["iou", "lift", "inside", "outside"]] == 0).all().all()


def test_the_table_is_sorted_and_says_what_the_tensors_say(planted, distribution):
    seeds = showing(planted, 2, 1)
    found = find_units(planted, LatentSpec.of(seeds), [where(planted, seeds[0], 2)], SHAPES, distribution)
    table = found.table()
    assert table["iou"].is_monotonic_decreasing
    assert tuple(table["unit"]) == found.order
    assert table["lift"].tolist() == found.lift[list(found.order)].tolist()
    assert found.baseline == pytest.approx(found.regions.mean())


def test_scores_are_those_of_a_plain_loop():
    generator = small_generator()
    spec = LatentSpec.of([3, 8, 5])
    regions = [Mask.rectangle(generator.picture_size, 2, 3, 9, 4 + 2 * place) for place in range(1, 4)]
    histogram = fetch(generator, PLAIN, SAMPLES, Histogram())
    found = find_units(generator, spec, regions, PLAIN, histogram)
    keys = generator.layer(PLAIN).inside(generator.keys(generator.latents(spec), PLAIN).keys)
    large = functional.interpolate(keys, generator.picture_size, mode="bilinear")
    painted = torch.stack([torch.from_numpy(region.pixels > 0) for region in regions])
    levels = levels_of(histogram, CUSTOMARY).values
    for unit in range(keys.shape[1]):
        scores = []
        for level in levels[unit]:
            fires = large[:, unit] > level
            scores.append(float((fires & painted).sum()) / float((fires | painted).sum()))
        assert found.iou[unit] == pytest.approx(max(scores))
        fires = large[:, unit] > found.threshold[unit]
        assert np.array_equal(found.fires(unit), fires.numpy())
        assert found.inside[unit] == pytest.approx(float(fires[painted].double().mean()))
        assert found.outside[unit] == pytest.approx(float(fires[~painted].double().mean()))


def test_a_region_of_another_size_is_brought_to_the_picture(planted, distribution):
    seeds = showing(planted, 1, 1)
    region = where(planted, seeds[0], 1)
    large = Mask(region.pixels.repeat(9, 0).repeat(9, 1))
    found = [
        find_units(planted, LatentSpec.of(seeds), [one], SHAPES, distribution) for one in (region, large)
    ]
    assert np.array_equal(found[0].regions, found[1].regions)
    assert torch.equal(found[0].iou, found[1].iou)


def test_pictures_are_outlined_where_the_unit_fires(planted, distribution):
    spec = LatentSpec.of(showing(planted, 1, 2))
    regions = [where(planted, seed, 1) for seed in spec.seeds]
    found = find_units(planted, spec, regions, SHAPES, distribution)
    assert np.array_equal(found.pictures, to_uint8(planted.sample(spec)))
    shown = found.outlined(1, 3)
    assert shown.shape == (2, 144, 144, 3)
    fires = found.fires(1).repeat(3, 1).repeat(3, 2)
    large = found.pictures.repeat(3, 1).repeat(3, 2)
    marked = (shown == MARK).all(-1)
    assert np.array_equal(shown[fires & ~marked], large[fires & ~marked])
    painted = found.regions.repeat(3, 1).repeat(3, 2)
    assert marked.any()
    assert not (marked & painted).any()
    assert ((shown == OUTLINE).all(-1) & ~fires).any()


@pytest.mark.parametrize("value", [0, 255])
def test_a_region_of_nothing_or_of_everything_is_refused(planted, distribution, value):
    region = Mask(np.full(planted.picture_size, value, dtype=np.uint8))
    with pytest.raises(MaskError, match=r"painted; expected a region"):
        find_units(planted, LatentSpec.of([0]), [region], SHAPES, distribution)


def test_what_does_not_fit_together_is_refused(planted, distribution):
    region = where(planted, showing(planted, 1, 1)[0], 1)
    with pytest.raises(RequestError, match="1 regions for 2 pictures"):
        find_units(planted, LatentSpec.of([0, 1]), [region], SHAPES, distribution)
    other = replace(distribution, extremes=distribution.extremes[:, :4], counts=distribution.counts[:4])
    with pytest.raises(RequestError, match="4 distributions"):
        find_units(planted, LatentSpec.of([0]), [region], SHAPES, other)
    with pytest.raises(LayerError):
        find_units(planted, LatentSpec.of([0]), [region], "none", distribution)
