"""Labels on a grid: against counting by hand, and the same however the pictures come."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.statistics import Batch, Scene, Store, fetch, sweep
from rewrite_core.statistics.labels import ALL, Labels
from tests.generators import DOWN, small_generator, spec
from tests.labellers import Bright, Tints

GRID = (4, 4)
quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
pictures = st.dictionaries(st.integers(0, 20), st.integers(0, 4), min_size=1, max_size=8)
"""Seed → how many rows of four the one label covers."""


@dataclass(frozen=True)
class Named:
    """Labels by name, which the batch brings along."""

    names: tuple[str, ...] = ("rows",)
    layers: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        return {"labeller": "named"}

    def __call__(self, scene: Scene) -> Tensor:
        raise NotImplementedError


def batch(labels: Tensor, seeds: tuple[int, ...]) -> Batch:
    return Batch(torch.zeros(len(labels), 2, 3, 3), seeds, labels)


def seen(values: dict[int, int]) -> Labels:
    rows = torch.arange(4)[:, None] < torch.tensor(list(values.values()))[:, None, None, None]  # [N, 1, 4, 1]
    return Labels(Named(), (1, 1)).update(batch(rows.expand(-1, 1, 4, 4), tuple(values)))


def same(one: Labels, other: Labels) -> bool:
    a, b = one.state(), other.state()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def by_hand(labels: Tensor, height: int, width: int) -> Tensor:
    """Shares [N, L, h, w] of cells that hold whole pixels, one after the other."""
    down, across = labels.shape[2] // height, labels.shape[3] // width
    shares = torch.zeros(*labels.shape[:2], height, width, dtype=torch.uint8)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in shares.shape)).tolist():
        picture, label, row, column = place
        cell = labels[picture, label, row * down : (row + 1) * down, column * across : (column + 1) * across]
        shares[picture, label, row, column] = round(ALL * float(cell.double().mean()))
    return shares


@pytest.mark.parametrize("soft", [False, True])
def test_a_share_is_that_of_the_cell_s_area(soft: bool):
    drawn = torch.rand(3, 2, 12, 20, generator=torch.Generator().manual_seed(1))
    labels = drawn if soft else drawn > 0.4
    found = Labels(Named(("one", "other")), (4, 5)).update(batch(labels, (4, 7, 8)))
    assert found.shares is not None
    assert found.shares.dtype == torch.uint8
    assert int((found.shares.int() - by_hand(labels, 4, 5).int()).abs().max()) <= int(soft)


def test_half_a_cell_is_at_least_half_of_it_and_a_pixel_less_is_not():
    labels = torch.zeros(1, 1, 4, 4)
    labels[0, 0, :2] = 1
    half = Labels(Named(), (1, 1)).update(batch(labels, (0,)))
    labels[0, 0, 0, 0] = 0
    less = Labels(Named(), (1, 1)).update(batch(labels, (0,)))
    assert half.at_least(0.5).all()
    assert not less.at_least(0.5).any()
    assert less.at_least(7 / 16).all()


@quick
@given(pictures, pictures, pictures)
def test_merging_is_associative_and_commutative_and_a_picture_counts_once(
    one: dict[int, int], two: dict[int, int], three: dict[int, int]
):
    a, b, c = seen(one), seen(two), seen(three)
    together = a.merge(b).merge(c)
    assert same(together, a.merge(b.merge(c)))
    assert same(together, c.merge(b).merge(a))
    assert same(together, together.merge(b))
    assert together.summary()["samples"] == len(one | two | three)


def test_pictures_are_found_by_their_numbers():
    found = seen({5: 1, 2: 4, 9: 0})
    assert found.seeds is not None
    assert found.seeds.tolist() == [2, 5, 9]
    assert found.of([9, 2, 2]).flatten().tolist() == [0, ALL, ALL]
    assert found.at_least(0.5, [5, 2]).flatten().tolist() == [False, True]
    with pytest.raises(RequestError, match=r"picture 3; expected one of the 3"):
        found.of([2, 3])
    with pytest.raises(RequestError, match="picture 10"):
        found.of([10])


def test_streaming_equals_whole_and_what_is_stored_equals_what_was_seen(tmp_path: Path):
    generator, empty = small_generator(), Labels(Bright(), GRID)
    ((whole,),) = sweep(generator, spec(40), {DOWN: [empty]}).values()
    assert isinstance(whole, Labels)
    latents = generator.latents(spec(40))
    scene = Scene(generator.pictures(latents), latents)
    one_by_one = empty
    for seed, labels in enumerate(Bright()(scene)):
        one_by_one = one_by_one.update(batch(labels[None], (seed,)))
    assert same(whole, one_by_one)
    store = Store(tmp_path)
    assert same(fetch(generator, DOWN, spec(40), empty, store=store), whole)
    assert same(fetch(generator, DOWN, spec(40), empty, store=store), whole)


def test_it_is_a_value_and_the_empty_one_is_neutral():
    first = seen({1: 2, 3: 4})
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    first.merge(seen({1: 4, 2: 1}))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in first.state().items())
    empty = Labels(Named(), (1, 1))
    assert empty.merge(first) is first
    assert first.merge(empty) is first
    assert empty.state() == {}
    assert empty.summary() == {"samples": 0}
    assert same(empty.restore(first.state()), first)
    assert same(first.restore({}), empty)


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("shares", lambda shares: shares.float()),
        ("shares", lambda shares: shares[1:]),
        ("shares", lambda shares: shares.expand(-1, 2, -1, -1)),
        ("seeds", lambda seeds: seeds.flip(0)),
        ("seeds", lambda seeds: seeds.float()),
    ],
)
def test_a_state_of_something_else_is_refused(name: str, spoilt):
    state = seen({1: 2, 3: 4}).state()
    with pytest.raises(ValueError, match=r"shares of shape|pictures"):
        Labels(Named(), (1, 1)).restore({**state, name: spoilt(state[name])})


def test_the_cache_tells_grids_and_labellers_apart():
    keys = [
        json.dumps(labels.parameters())
        for labels in (Labels(Bright(), GRID), Labels(Bright(), (8, 8)), Labels(Tints(), GRID))
    ]
    assert len(set(keys)) == 3


def test_a_summary_is_json():
    summary = Labels(Tints(), GRID).update(batch(torch.full((2, 3, 8, 8), 0.5), (0, 1))).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["share of red"] == pytest.approx(128 / ALL)


@pytest.mark.parametrize("grid", [(0, 4), (4,), ()])
def test_a_grid_that_is_none_is_refused(grid):
    with pytest.raises(PalimpsestError, match="a height and a width"):
        Labels(Bright(), grid)
