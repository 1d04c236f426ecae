"""A map of keys: what lies together, where each point is from, its concept and its patch; the same for a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dissect.key_map import KeyMap, key_map, purity
from dissect.patches import patches
from rewrite_core import LatentSpec
from rewrite_core.directions.layer_keys import LayerKeys, layer_keys
from rewrite_core.errors import Cancelled, ModelMismatch, RequestError
from rewrite_core.generators import Generator
from tests.generators import small_generator
from tests.planted import SHAPES, Shapes, planted_generator

SPEC = LatentSpec.of(range(12))


@pytest.fixture(scope="module")
def generator() -> Generator:
    return planted_generator()


@pytest.fixture(scope="module")
def keys(generator: Generator) -> LayerKeys:
    return layer_keys(generator, SHAPES, SPEC, size=300)


@pytest.fixture(scope="module")
def found(generator: Generator, keys: LayerKeys) -> KeyMap:
    return key_map(generator, keys, points=200, source=Shapes())


def test_points_are_the_first_of_the_sample(found, keys):
    assert np.array_equal(found.places, keys.sample.places[:200].numpy())
    table = found.table()
    assert list(table) == ["x", "y", "seed", "row", "column", "concept"]
    assert not table.isna().any().any()
    assert table[["x", "y"]].to_numpy().tolist() == found.points.tolist()
    assert table["seed"].isin(SPEC.seeds).all()


def test_each_point_has_the_patch_of_its_place(found, generator):
    pictures = generator.draw(SPEC)[found.places[:, 0]]  # seeds are 0 to 11
    assert np.array_equal(found.patches, patches(pictures, found.places[:, 1:], (24, 24)))


def test_a_concept_covers_half_of_its_cell_and_the_first_counts(found, generator):
    bright = torch.from_numpy(generator.draw(SPEC)) > 127  # [12, 48, 48, 3]
    for (seed, row, column), concept in zip(found.places, found.concepts, strict=True):
        cell = bright[seed, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(4, 3)
        cover = [*cell.double().mean(0).tolist(), float((~cell.any(1)).double().mean())]
        first = next((name for name, share in zip(Shapes().names, cover, strict=True) if share >= 0.5), "")
        assert concept == first
    assert {"red", "green", "dark"} <= set(found.concepts)


def test_without_a_source_no_point_has_a_concept(generator, keys, found):
    plain = key_map(generator, keys, points=200)
    assert set(plain.concepts) == {""}
    assert np.array_equal(plain.points, found.points)
    assert np.array_equal(plain.patches, found.patches)
    assert plain.purity() == (0.0, 0.0)


@pytest.mark.parametrize("method", ["PCA", "t-SNE"])
def test_keys_of_one_direction_lie_together(generator, keys, method):
    draw = torch.Generator().manual_seed(0)
    kinds = torch.randint(3, (120,), generator=draw)
    lengths = torch.rand(120, 1, generator=draw) + 0.5
    planted = lengths * torch.eye(8)[kinds] + 0.1 * torch.randn(
        120, 8, generator=draw
    )  # along units 0, 1 and 2
    sample = replace(keys.sample, keys=planted, places=keys.sample.places[:120])
    found = key_map(generator, replace(keys, sample=sample), method=method, points=120)
    share, chance = purity(found.points, tuple(str(kind) for kind in kinds.tolist()))
    assert chance < 0.4
    assert share > 0.95


def test_the_same_keys_give_the_same_map_whatever_the_number_of_threads(generator, keys):
    one = key_map(generator, keys, method="t-SNE", points=60)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        again = key_map(generator, keys, method="t-SNE", points=60)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(one.points, again.points)
    assert np.isfinite(one.points).all()
    assert np.ptp(one.points[:, 0]) > 0


def test_a_map_is_of_the_unedited_generator(generator, keys, found):
    edited = generator.with_weights({SHAPES: 0 * generator.weight(SHAPES)})
    assert np.array_equal(key_map(edited, keys, points=200).patches, found.patches)


def test_keys_of_another_generator_are_refused(keys):
    with pytest.raises(ModelMismatch, match=r"keys of planted.*keys of small"):
        key_map(small_generator(), keys)


@pytest.mark.parametrize("wrong", [{"method": "UMAP"}, {"points": 4}, {"points": 2001}])
def test_what_no_map_can_be_made_of_is_refused(generator, keys, wrong):
    with pytest.raises(RequestError):
        key_map(generator, keys, **wrong)


def test_equal_keys_give_a_map_of_finite_points(generator, keys):
    sample = keys.sample
    same = replace(keys, sample=replace(sample, keys=torch.ones_like(sample.keys)))
    silent = replace(keys, sample=replace(sample, keys=torch.zeros_like(sample.keys)))
    for some in (same, silent):
        for method in ("PCA", "t-SNE"):
            assert np.isfinite(key_map(generator, some, method=method, points=20).points).all()


def test_progress_ends_at_its_total_and_can_cancel(generator, keys):
    told = []
    key_map(generator, keys, points=20, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        key_map(generator, keys, points=20, progress=stop)


def test_purity_counts_the_nearest_of_the_same_concept():
    points = np.array([[0.0, 0], [0, 1], [9, 0], [9, 1], [4, 4]])
    share, chance = purity(points, ("a", "a", "b", "b", ""), 1)
    assert share == 1.0
    assert chance == pytest.approx(4 / 12)
    assert purity(points, ("a", "b", "a", "b", ""), 1).share == 0.0
    assert purity(points, ("a", "", "", "", "")) == (0.0, 0.0)
