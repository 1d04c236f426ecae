"""A uniform sample of keys: the same for any batches, order and split, and as random as it says."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.statistics import Batch, Store, fetch, key_of
from rewrite_core.statistics.reservoir import SIZE, Reservoir
from tests.generators import PLAIN, Demodulated, small_generator, spec

MASK = 2**64 - 1


def maps_of(seeds: Sequence[int], height: int = 4, width: int = 3) -> Tensor:
    """Keys [N, 3, h, w] that say where they are from: picture, row and column."""
    keys = torch.zeros(len(seeds), 3, height, width)
    keys[:, 0] = torch.tensor(list(seeds), dtype=torch.float32)[:, None, None]
    keys[:, 1] = torch.arange(height)[:, None]
    keys[:, 2] = torch.arange(width)
    return keys


def seen(seeds: Sequence[int], empty: Reservoir | None = None, **sides: int) -> Reservoir:
    return (empty or Reservoir(20)).update(Batch(maps_of(seeds, **sides), tuple(seeds)))


def same(first: Reservoir, second: Reservoir) -> bool:
    one, other = first.state(), second.state()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def splitmix(state: int) -> int:
    """The step of splitmix64 as Steele, Lea and Flood (2014) print it, in Python's own integers."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 31)


def priority_of(salt: int, *place: int) -> int:
    """The documented formula."""
    mixed = splitmix(salt)
    for number in place:
        mixed = splitmix((mixed + number) & MASK)
    return mixed >> 1


def positions(seeds: Sequence[int], height: int = 4, width: int = 3) -> Iterator[tuple[int, int, int]]:
    return ((seed, row, column) for seed in seeds for row in range(height) for column in range(width))


# What is kept


def test_the_first_number_of_splitmix64_is_the_published_one():
    assert splitmix(0) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("salt", [0, 7, 2**63 - 1])
def test_the_positions_of_lowest_priority_are_kept_in_order(salt: int):
    seeds = [5, 0, 2**32 - 1, 17]
    found = seen(seeds, Reservoir(20, salt))
    lowest = sorted(positions(seeds), key=lambda place: priority_of(salt, *place))[:20]
    assert found.priorities is not None
    assert found.priorities.tolist() == [priority_of(salt, *place) for place in lowest]
    assert list(zip(found.seeds.tolist(), found.rows.tolist(), found.columns.tolist(), strict=True)) == lowest


def test_every_key_is_the_one_at_its_place():
    found = seen(range(9))
    assert found.keys is not None
    assert found.keys.dtype == torch.float32
    assert torch.equal(found.keys, torch.stack([found.seeds, found.rows, found.columns], 1).float())


def test_all_positions_are_kept_where_there_are_no_more_than_asked_for():
    for size in (24, 25, SIZE):
        found = seen([3, 4], Reservoir(size))
        places = zip(found.seeds.tolist(), found.rows.tolist(), found.columns.tolist(), strict=True)
        assert sorted(places) == sorted(positions([3, 4]))
        assert (found.positions, found.samples) == (24, 2)


def test_a_smaller_sample_is_the_beginning_of_a_larger_one():
    small, large = seen(range(30), Reservoir(5)), seen(range(30), Reservoir(50))
    assert small.keys is not None
    assert large.keys is not None
    assert torch.equal(small.keys, large.keys[:5])


def test_the_sample_is_uniform_over_pictures_rows_and_columns():
    found = seen(range(2000), Reservoir(4000), height=5, width=4)
    for index, count in ((found.seeds // 100, 20), (found.rows, 5), (found.columns, 4)):
        counts = index.bincount(minlength=count).double()
        expected = 4000 / count
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < count - 1 + 4 * (2 * (count - 1)) ** 0.5
    other = seen(range(2000), Reservoir(4000, salt=1), height=5, width=4)
    both = len(set(map(tuple, found.places.tolist())) & set(map(tuple, other.places.tolist())))  # type: ignore[union-attr]
    assert abs(both - 400) < 100  # of 40,000 positions, a tenth is in each


def test_half_precision_keys_are_kept_as_the_numbers_that_they_are():
    keys = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    for half in (torch.float16, torch.bfloat16):
        rounded = keys.to(half)
        found, expected = (Reservoir(9).update(Batch.of(each)) for each in (rounded, rounded.float()))
        assert same(found, expected)


def test_maps_in_any_memory_layout_are_the_same_maps():
    keys = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    turned = keys.to(memory_format=torch.channels_last)
    assert same(Reservoir(9).update(Batch.of(turned)), Reservoir(9).update(Batch.of(keys)))


# A mergeable value


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=3, max_size=30, unique=True), st.integers(1, 400), st.data())
def test_any_order_and_any_split_gives_the_same_sample(seeds: list[int], size: int, data: st.DataObject):
    empty = Reservoir(size, salt=data.draw(st.integers(0, 3)))
    together = seen(seeds, empty)
    order = data.draw(st.permutations(seeds))
    first, second = sorted(
        data.draw(st.tuples(st.integers(1, len(seeds) - 1), st.integers(1, len(seeds) - 1)))
    )
    a, b, c = (
        seen(part, empty) if part else empty for part in (order[:first], order[first:second], order[second:])
    )
    assert same(a.merge(b).merge(c), together)
    assert same(a.merge(b.merge(c)), together)
    assert same(c.merge(a).merge(b), together)
    gone_on = seen(order[first:], a)
    assert same(gone_on, together)


def test_a_picture_seen_twice_counts_twice():
    once, twice = seen(range(4), Reservoir(30)), seen([*range(4), 2], Reservoir(30))
    assert once.places is not None
    assert twice.places is not None
    first, second = once.places.tolist(), twice.places.tolist()
    doubled = [place for place in first for _ in range(2 if place[0] == 2 else 1)]
    assert second == doubled[:30]
    assert same(seen([2], Reservoir(30)).merge(once), seen([2], once))


def test_a_statistic_is_a_value_and_goes_on_from_its_state():
    found = seen(range(5))
    kept = {name: table.clone() for name, table in found.state().items()}
    further = seen(range(5, 30), found)
    found.merge(seen(range(5, 30)))
    assert all(torch.equal(table, kept[name]) for name, table in found.state().items())
    assert same(seen(range(5, 30), Reservoir(20).restore(found.state())), further)
    assert Reservoir(20).merge(found) is found
    assert found.merge(Reservoir(20)) is found
    assert Reservoir(20).state() == {}
    assert Reservoir(20).restore({}).summary() == {"samples": 0}
    assert json.dumps(found.summary(), allow_nan=False)


def swapped(table: Tensor) -> Tensor:
    return table[[1, 0, *range(2, len(table))]]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {**state, "keys": state["keys"][:-1]},
        lambda state: {**state, "keys": state["keys"].double()},
        lambda state: {**state, "keys": state["keys"][0]},
        lambda state: {**state, "places": state["places"][:, :2]},
        lambda state: {**state, "places": state["places"].float()},
        lambda state: {**state, "places": -state["places"]},
        lambda state: {**state, "places": state["places"] + 1},
        lambda state: {**state, "priorities": state["priorities"] + 1},
        lambda state: {**state, "priorities": state["priorities"][:-1]},
        lambda state: {name: swapped(table) for name, table in state.items()},
        lambda state: {**state, "counts": torch.tensor([60, 5, 1])},
        lambda state: {**state, "counts": torch.tensor([10, 5])},
        lambda state: {**state, "counts": torch.tensor(3)[None]},
    ],
)
def test_a_malformed_state_is_refused(spoil: Any):
    with pytest.raises(ValueError):  # noqa: PT011
        Reservoir(20).restore(spoil(seen(range(5)).state()))


def test_a_state_of_another_sample_is_refused():
    state = seen(range(5)).state()
    for other in (Reservoir(19), Reservoir(20, salt=1)):
        with pytest.raises(ValueError):  # noqa: PT011
            other.restore(state)
    for name in state:
        with pytest.raises(KeyError):
            Reservoir(20).restore({kept: table for kept, table in state.items() if kept != name})


# What it is asked with


@pytest.mark.parametrize(("size", "salt"), [(0, 0), (-1, 0), (5, -1), (5, 2**63)])
def test_a_size_or_salt_that_cannot_be_is_refused_in_one_line(size: int, salt: int):
    with pytest.raises(RequestError) as refusal:
        Reservoir(size, salt)
    assert "\n" not in str(refusal.value)


def test_size_and_salt_are_part_of_the_question():
    small = small_generator()
    keys = [key_of(small, PLAIN, spec(), one) for one in (Reservoir(), Reservoir(5), Reservoir(5, 1))]
    assert all(one != other for at, one in enumerate(keys) for other in keys[:at])


@pytest.mark.parametrize("generator", [small_generator(), Demodulated.small()], ids=lambda one: one.name)
def test_a_pass_samples_the_keys_of_the_pictures(generator: Generator, tmp_path: Any):
    found = fetch(generator, PLAIN, spec(130), Reservoir(40), store=Store(tmp_path))  # two blocks
    assert found.keys is not None
    for key, seed, row, column in zip(found.keys, *found.places.T.tolist(), strict=True):  # type: ignore[union-attr]
        maps = generator.keys(generator.latents(LatentSpec.of([seed])), PLAIN).keys
        torch.testing.assert_close(key, maps[0, :, row, column], rtol=1e-5, atol=1e-5)
    lowest = sorted(positions(range(130), 8, 8), key=lambda place: priority_of(0, *place))[:40]
    assert [tuple(place) for place in found.places.tolist()] == lowest  # type: ignore[union-attr]


def test_layers_with_equal_grids_are_sampled_at_the_same_positions():
    maps = torch.randn(9, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    first, second = (Reservoir(20).update(Batch.of(keys)) for keys in (maps, maps[:, :2] + 1))
    assert first.places is not None
    assert second.places is not None
    assert torch.equal(first.places, second.places)
