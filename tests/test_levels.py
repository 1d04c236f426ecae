"""Several thresholds a unit: one pass counts to the bit what a pass for each would."""

import json
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.statistics import Batch, Store, fetch
from rewrite_core.statistics.intersection import DETECTED, Intersection
from rewrite_core.statistics.kernels import kernel
from rewrite_core.statistics.overlaps import MOST_LEVELS, Counts, axis, counted_by_kernel, counted_by_torch
from tests.generators import PLAIN, small_generator, spec
from tests.labellers import Bright, Tints

UNITS, LABELLER = 6, Tints()  # red, green, blue
LEVELS = torch.linspace(-0.5, 1.5, 5) + torch.linspace(-0.3, 0.3, UNITS)[:, None]  # [C, T]
WAYS = (counted_by_kernel, counted_by_torch)


def some_batch(count: int = 4, seed: int = 0, key: Any = (5, 4), label: Any = (16, 12)) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    keys = torch.randn(count, UNITS, *key, generator=draw)
    return Batch(keys, tuple(range(count)), torch.rand(count, 3, *label, generator=draw) < 0.3)


def seen(levels: Tensor = LEVELS, seed: int = 0) -> Intersection:
    return Intersection(levels, LABELLER).update(some_batch(seed=seed))


def same(first: Intersection, second: Intersection) -> bool:
    one, other = first.state(), second.state()
    return (
        first.parameters() == second.parameters()
        and one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) for name in one)
    )


def level_by_level(count: Any, keys: Tensor, levels: Tensor, *rest: Any) -> Counts:
    """The counts of each level alone, side by side."""
    alone = [count(keys, level[:, None].contiguous(), *rest) for level in levels.T]
    shared, units = (torch.cat([counts[part] for counts in alone], 1) for part in (0, 1))
    return shared, units, alone[0][2]


# What is counted


@pytest.mark.parametrize("count", WAYS)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("special", ["none", "nan", "infinity", "integers", "constant", "huge", "denormal"])
def test_every_level_is_counted_as_if_alone(count: Any, align_corners: bool, special: str):
    assert kernel("intersection"), "numba is missing"
    draw = torch.Generator().manual_seed(3)
    for key, label in [((4, 4), (32, 32)), ((5, 7), (13, 9)), ((8, 3), (5, 5)), ((1, 6), (3, 1))]:
        maps = torch.randn(3, UNITS, *key, generator=draw)
        levels = torch.randn(UNITS, 6, generator=draw).sort(1).values
        odd = torch.rand(maps.shape, generator=draw) < 0.2
        if special == "nan":
            maps[odd] = torch.nan
        elif special == "infinity":
            maps[odd] = torch.inf * maps[odd].sign()
        elif special == "integers":
            maps, levels = maps.round(), levels.round()
        elif special == "constant":  # between two levels, and equal to each of them
            maps = levels.T[:3, :, None, None].expand(3, UNITS, *key).clone()
        elif special == "huge":
            maps = maps.sign() * torch.finfo(torch.float32).max
        elif special == "denormal":
            maps, levels = maps * 1e-42, levels * 1e-42
        labels = torch.rand(3, 4, *label, generator=draw) < 0.4
        rows, columns = axis(key[0], label[0], align_corners), axis(key[1], label[1], align_corners)
        together = count(maps, levels, labels, rows, columns)
        expected = level_by_level(counted_by_kernel, maps, levels, labels, rows, columns)
        for one, other in zip(together, expected, strict=True):
            assert one.dtype == torch.int64
            assert torch.equal(one, other)
        assert special in ("huge", "denormal") or together[1].any()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.data())
def test_levels_are_exact_whatever_they_are(data: st.DataObject):
    side = st.integers(1, 9)
    key, label = data.draw(st.tuples(side, side)), data.draw(st.tuples(side, side))
    batch = some_batch(2, data.draw(st.integers(0, 99)), key, label)
    numbers = st.floats(-2, 2, width=32)
    count = data.draw(st.integers(1, MOST_LEVELS if data.draw(st.booleans()) else 4))
    row = data.draw(st.lists(numbers, min_size=count, max_size=count).map(sorted))
    levels = torch.tensor(row) + torch.arange(UNITS)[:, None] / 4  # [C, T]
    if data.draw(st.booleans()):  # a map of few numbers, among them the levels
        batch = Batch(levels[0][batch.keys.abs().mul(7).long() % count], batch.seeds, batch.labels)
    assert batch.labels is not None
    align = data.draw(st.booleans())
    rows, columns = axis(key[0], label[0], align), axis(key[1], label[1], align)
    expected = level_by_level(counted_by_torch, batch.keys, levels, batch.labels, rows, columns)
    for way in WAYS:
        found = way(batch.keys, levels, batch.labels, rows, columns)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_one_level_out_of_several_is_that_level_counted_alone():
    several = seen()
    for level in range(LEVELS.shape[1]):
        assert same(several.at(level), seen(LEVELS[:, level]))
    assert same(several.at(-1), seen(LEVELS[:, -1]))
    own = torch.tensor([0, 4, 2, 1, 3, 2])
    assert same(several.at(own), seen(LEVELS[torch.arange(UNITS), own]))
    with pytest.raises(IndexError):
        several.at(LEVELS.shape[1])
    assert same(Intersection(LEVELS, LABELLER).at(2), Intersection(LEVELS[:, 2], LABELLER))


def test_a_level_is_chosen_for_each_unit_and_label():
    several = seen()
    index = torch.randint(0, 5, (UNITS, 3), generator=torch.Generator().manual_seed(1))
    found = several.at_levels(index)
    for unit in range(UNITS):
        for label in range(3):
            alone = several.at(int(index[unit, label]))
            assert found.thresholds[unit, label] == LEVELS[unit, index[unit, label]]
            for name in ("iou", "precision", "recall"):
                assert getattr(found, name)[unit, label] == getattr(alone, name)[unit, label]


def test_every_table_has_the_shape_of_the_levels():
    for levels, shape in ((LEVELS, (UNITS, 5)), (LEVELS[:, :1], (UNITS, 1)), (LEVELS[:, 0], (UNITS,))):
        one = seen(levels)
        assert one.unit_area is not None
        assert one.unit_area.shape == one.density.shape == shape
        for table in (one.iou, one.precision, one.recall):
            assert table.shape == (*shape, 3)
            assert table.dtype == torch.float64


def test_without_numba_torch_counts_the_same(monkeypatch: pytest.MonkeyPatch):
    compiled = seen()
    kernel.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        patch.delitem(sys.modules, "rewrite_core.statistics.intersection_kernel")
        assert kernel("intersection") is None
        assert same(seen(), compiled)
    kernel.cache_clear()


# A mergeable value


@settings(derandomize=True, max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(0, 9))
def test_merging_counts_exactly_in_any_order_and_any_grouping(sizes: list[int], seed: int):
    whole = some_batch(sum(sizes), seed)
    assert whole.labels is not None
    empty = Intersection(LEVELS, LABELLER)
    a, b, c = (
        empty.update(Batch(keys, tuple(range(len(keys))), labels))
        for keys, labels in zip(whole.keys.split(sizes), whole.labels.split(sizes), strict=True)
    )
    for merged in (
        a.merge(b).merge(c),
        a.merge(b.merge(c)),
        c.merge(a).merge(b),
        empty.merge(a).merge(b).merge(c),
    ):
        assert same(merged, empty.update(whole))


def test_it_goes_on_from_its_state():
    further = seen(seed=1).update(some_batch(seed=2))
    restored = Intersection(LEVELS, LABELLER).restore(seen(seed=1).state())
    assert same(restored.update(some_batch(seed=2)), further)


def test_levels_are_stored_and_served(tmp_path: Any):
    generator, store, labeller = small_generator(), Store(tmp_path), Bright()
    levels = torch.linspace(-1, 1, 4).expand(10, 4)
    computed = fetch(generator, PLAIN, spec(30), Intersection(levels, labeller), store=store)
    served = fetch(generator, PLAIN, spec(30), Intersection(levels, labeller), store=store)
    assert same(computed, served)
    alone = fetch(generator, PLAIN, spec(30), Intersection(levels[:, 1], labeller), store=store)
    assert same(served.at(1), alone)
    assert len(store.entries()) == 2


def spoiled(name: str) -> dict[str, Tensor]:
    state = seen().state()
    return {
        "fewer levels": {**state, "unit_area": state["unit_area"][:, :4]},
        "one level": seen(LEVELS[:, 0]).state(),
        "more above a higher level": {**state, "unit_area": state["unit_area"].flip(1)},
        "more shared than there is": {**state, "intersection": state["intersection"] + 700},
    }[name]


@pytest.mark.parametrize(
    "name", ["fewer levels", "one level", "more above a higher level", "more shared than there is"]
)
def test_a_malformed_state_is_refused(name: str):
    with pytest.raises(ValueError, match=r"counts|more pixels"):
        Intersection(LEVELS, LABELLER).restore(spoiled(name))


# What it is asked with


def test_what_is_stored_of_one_threshold_a_unit_keeps_its_name():
    assert Intersection.version == 1
    assert Intersection(torch.tensor([0.25, 0.5]), LABELLER).parameters() == {
        "thresholds": "ab2a21ab5e1262d555eea5678035e8fe",
        "units": 2,
        "lowest threshold": 0.25,
        "highest threshold": 0.5,
        "grid": "labels",
        "align_corners": False,
        "labels": ["red", "green", "blue"],
        "labeller": {"labeller": "tints", "grid": [5, 7]},
    }


def test_levels_are_part_of_the_key():
    asked = [LEVELS, LEVELS + 1e-3, LEVELS[:, :1], LEVELS[:, 0], LEVELS.reshape(5, UNITS).sort(1).values]
    keys = {json.dumps(Intersection(levels, LABELLER).parameters()) for levels in asked}
    assert len(keys) == len(asked)
    assert Intersection(LEVELS, LABELLER).parameters()["levels"] == 5


def test_what_cannot_be_counted_is_refused_in_one_line():
    wrong: list[Any] = [
        lambda: Intersection(LEVELS.flip(1), LABELLER),
        lambda: Intersection(torch.zeros(UNITS, 0), LABELLER),
        lambda: Intersection(torch.zeros(UNITS, MOST_LEVELS + 1), LABELLER),
        lambda: Intersection(torch.tensor([[0.0, torch.inf]]), LABELLER),
        lambda: Intersection(LEVELS[1:], LABELLER).update(some_batch()),
        lambda: seen().best(),
        lambda: seen().detectors(),
        lambda: seen(LEVELS[:, 0]).at(0),
        lambda: seen(LEVELS[:, 0]).at_levels(torch.zeros(UNITS, 3, dtype=torch.int64)),
    ]
    for attempt in wrong:
        with pytest.raises(RequestError) as refusal:
            attempt()
        assert "\n" not in str(refusal.value)


def test_a_level_may_occur_twice_and_nothing_be_above_any():
    twice = seen(LEVELS[:, [0, 0, 3, 3]])
    assert same(twice.at(0), twice.at(1))
    assert same(twice.at(2), seen(LEVELS[:, 3]))
    nothing = seen(LEVELS + 100)
    assert not nothing.iou.any()
    assert not nothing.density.any()


def test_the_summary_is_of_the_best_level_of_each_unit():
    several = seen()
    said = several.summary()
    assert json.dumps(said, allow_nan=False)
    assert (said["units"], said["levels"], said["highest IoU"]) == (UNITS, 5, float(several.iou.max()))
    detecting = (several.iou.amax((1, 2)) > DETECTED).sum()
    assert said[f"units with an IoU above {DETECTED}"] == int(detecting)
    assert "levels" not in several.at(0).summary()
    assert Intersection(LEVELS, LABELLER).summary() == {"samples": 0}
