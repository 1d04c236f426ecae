"""A unit's sheet: its pictures by rank, its region where it fires, and numbers that are those of the dissection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from dissect.sheet import ALSO, LOWER, LayerSheets, UnitSheet, layer_sheets, unit_sheet
from dissect.tables import Dissection
from dissect.units import dissect, dissect_directions
from rewrite_core import LatentSpec
from rewrite_core.errors import LayerError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.pictures import to_uint8
from rewrite_core.statistics import Store
from tests.planted import CONSTANT, SHAPES, UNITS, Shapes, planted_generator
from tests.watched import Watched

SPEC = LatentSpec.of(range(100))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("sheets")))


@pytest.fixture(scope="module")
def generator() -> Generator:
    return planted_generator()


@pytest.fixture(scope="module")
def found(generator: Generator, store: Store) -> Dissection:
    return dissect(generator, SPEC, [SHAPES], Shapes(), also=ALSO, store=store)


@pytest.fixture(scope="module")
def sheets(generator: Generator, found: Dissection, store: Store) -> LayerSheets:
    return layer_sheets(generator, found, SHAPES, store=store)


@pytest.fixture(scope="module")
def sheet(sheets: LayerSheets) -> UnitSheet:
    return sheets.sheet(1)


def keys_of(generator: Generator) -> torch.Tensor:
    return generator.keys(generator.latents(SPEC), SHAPES).keys


def test_pictures_are_ranked_by_the_greatest_value_of_the_unit(generator: Generator, sheet: UnitSheet):
    greatest = keys_of(generator)[:, 1].flatten(1).amax(1)  # [N]
    order = greatest.sort(descending=True, stable=True).indices.tolist()
    assert sheet.ranges[0].seeds == tuple(order[:8])
    assert sheet.ranges[-1].seeds == tuple(order[-4:])
    for one in sheet.ranges:
        assert one.maxima == pytest.approx(greatest[list(one.seeds)].tolist())


def test_each_lower_range_shows_pictures_of_it_alone(generator: Generator, sheet: UnitSheet):
    order = keys_of(generator)[:, 1].flatten(1).amax(1).sort(descending=True, stable=True).indices.tolist()
    middle = sheet.ranges[1:-1]
    assert [one.name for one in middle] == ["90–99 %", "75–90 %", "50–75 %"]
    for one, (low, high) in zip(middle, LOWER, strict=True):
        places = [order.index(seed) for seed in one.seeds]
        assert places == sorted(places)
        assert all((1 - high) * 100 <= place + 1e-9 < (1 - low) * 100 for place in places)


def test_a_region_is_where_the_enlarged_map_is_above_the_threshold(generator: Generator, sheet: UnitSheet):
    one = sheet.ranges[0]
    latents = generator.latents(LatentSpec.of(one.seeds))
    large = functional.interpolate(
        generator.keys(latents, SHAPES).keys[:, 1:2], generator.picture_size, mode="bilinear"
    )
    assert np.array_equal(one.masks, (large[:, 0] > sheet.threshold).numpy())
    assert one.masks.any()
    assert np.array_equal(one.pictures, to_uint8(generator.pictures(latents)))


def test_an_outline_runs_around_the_region_and_leaves_it_as_it_is(sheet: UnitSheet):
    one = sheet.ranges[0]
    drawn = one.outlined(3, colour=(1, 2, 3))
    masks = one.masks.repeat(3, axis=1).repeat(3, axis=2)
    assert drawn.shape == (len(one.seeds), 144, 144, 3)
    large = one.pictures.repeat(3, axis=1).repeat(3, axis=2)
    assert np.array_equal(drawn[masks], large[masks])
    line = (drawn == (1, 2, 3)).all(-1)
    assert line.any()
    assert not (line & masks).any()


def test_numbers_are_those_of_the_dissection(found: Dissection, sheet: UnitSheet):
    table = sheet.concepts().set_index("concept")
    assert table.iou.to_dict() == found.iou_table(SHAPES).loc[1].to_dict()
    assert table.held_out_iou.to_dict() == found.iou_table(SHAPES, held_out=True).loc[1].to_dict()
    row = found.units().set_index("unit").loc[1]
    assert (sheet.concept, sheet.detector, sheet.threshold) == ("green", True, row.threshold)
    assert (sheet.layer, sheet.unit, sheet.density) == (SHAPES, 1, row.density)
    assert not table.isna().any(axis=None)


def test_the_histogram_counts_every_position(generator: Generator, sheet: UnitSheet):
    values = keys_of(generator)[:, 1].flatten()
    assert float(sheet.bars.shares.sum()) + sheet.bars.zeros == pytest.approx(1)
    assert sheet.bars.zeros == pytest.approx(float((values == 0).double().mean()))
    assert sheet.above == pytest.approx(float((values > sheet.threshold).double().mean()), abs=0.01)


def test_correlations_are_pearsons(generator: Generator, sheets: LayerSheets):
    flat = keys_of(generator).transpose(0, 1).flatten(1).double()  # [C, NHW]
    for unit in (0, 1, 7):
        for other, value in sheets.sheet(unit).correlated:
            expected = torch.corrcoef(flat[[unit, int(other)]])[0, 1]
            assert value == pytest.approx(float(expected), abs=1e-5)
    assert sheets.sheet(1).correlated[0][1] ** 2 >= sheets.sheet(1).correlated[-1][1] ** 2


def test_a_unit_that_never_changes_is_correlated_with_none(sheets: LayerSheets):
    sheet = sheets.sheet(CONSTANT)
    assert sheet.correlated == ()
    assert sheet.concept == ""
    assert all(CONSTANT not in [other for other, _ in sheets.sheet(unit).correlated] for unit in range(3))


def test_few_samples_make_a_smaller_sheet(generator: Generator, store: Store):
    spec = LatentSpec.of(range(3))
    few = dissect(generator, spec, [SHAPES], Shapes(), store=store)
    sheet = unit_sheet(generator, few, SHAPES, 0, store=store)
    assert [len(one.seeds) for one in sheet.ranges if one.name in ("top", "lowest")] == [3, 3]
    assert all(one.seeds for one in sheet.ranges)


def test_directions_have_sheets_as_units_do(generator: Generator, sheets: LayerSheets, store: Store):
    names = [f"direction {unit}" for unit in range(UNITS)]
    eye = torch.eye(UNITS)
    along = dissect_directions(generator, SPEC, SHAPES, eye, names, Shapes(), store=store)
    one = unit_sheet(generator, along, SHAPES, "direction 1", directions=eye, store=store)
    other = sheets.sheet(1)
    assert one.ranges[0].seeds == other.ranges[0].seeds
    assert np.array_equal(one.ranges[0].masks, other.ranges[0].masks)
    assert one.correlated[0][0] == f"direction {other.correlated[0][0]}"


def test_after_a_dissection_only_the_pictures_are_drawn(tmp_path: Path):
    store, generator = Store(tmp_path), Watched.small()
    generator.open()
    layer = generator.default_layer
    spec = LatentSpec.of(range(20))
    found = dissect(generator, spec, [layer], Shapes(), also=ALSO, store=store)
    before = generator.samples
    sheet = unit_sheet(generator, found, layer, 0, store=store)
    shown = {seed for one in sheet.ranges for seed in one.seeds}
    assert generator.samples == before + len(shown)


def test_what_was_not_dissected_has_no_sheet(generator: Generator, found: Dissection, store: Store):
    with pytest.raises(LayerError):
        unit_sheet(generator, found, "places", 0, store=store)
    with pytest.raises(RequestError):
        unit_sheet(generator, found, SHAPES, UNITS, store=store)
