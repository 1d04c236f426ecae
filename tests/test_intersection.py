"""Intersection over union: the counts are those of the definition, the same with and without the compiled kernel."""

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, open_generator
from rewrite_core.statistics import Batch, Scene, SecondMoment, Statistic, Store, gather, key_of, sweep
from rewrite_core.statistics.intersection import DETECTED, Intersection
from rewrite_core.statistics.kernels import kernel
from rewrite_core.statistics.key import name_of
from rewrite_core.statistics.overlaps import axis, counted_by_kernel, counted_by_torch
from tests.generators import DOWN, PLAIN, UP, Demodulated, small_generator, spec
from tests.labellers import Bright, Counted, Tints

UNITS = 6
LABELLER = Tints()  # red, green, blue


def some_batch(
    count: int = 4, seed: int = 0, key: Any = (5, 4), label: Any = (16, 12), density: float = 0.3
) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    keys = torch.randn(count, UNITS, *key, generator=draw)
    labels = torch.rand(count, 3, *label, generator=draw) < density
    return Batch(keys, tuple(range(count)), labels)


def empty(**more: Any) -> Intersection:
    return Intersection(torch.linspace(-0.5, 1.5, UNITS), LABELLER, **more)


def counts(statistic: Intersection) -> list[Tensor]:
    state = statistic.state()
    return [state[name] for name in ("intersection", "unit_area", "label_area", "counts")]


def same(first: Intersection, second: Intersection) -> bool:
    return all(torch.equal(one, other) for one, other in zip(counts(first), counts(second), strict=True))


def direct(statistic: Intersection, batch: Batch, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three counts by the loop over labels that was published, in float64."""
    fires = functional.interpolate(
        batch.keys.double(), labels.shape[2:], mode="bilinear", align_corners=statistic.align_corners
    ) > statistic.thresholds.double().reshape(-1, 1, 1)  # [N, C, H, W]
    shared = torch.zeros(fires.shape[1], labels.shape[1], dtype=torch.int64)
    for label in range(labels.shape[1]):
        shared[:, label] = (fires & labels[:, label : label + 1]).sum((0, 2, 3))
    return shared, fires.sum((0, 2, 3)), labels.sum((0, 2, 3))


# What is counted


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("key", [(5, 4), (1, 1), (16, 12), (20, 31), (3, 30)], ids=str)
def test_the_counts_are_those_of_the_definition(key: tuple[int, int], align_corners: bool):
    batch = some_batch(key=key)
    assert batch.labels is not None
    seen = empty(align_corners=align_corners).update(batch)
    for found, expected in zip(counts(seen), direct(seen, batch, batch.labels), strict=False):
        assert torch.equal(found, expected)
    assert (seen.pixels, seen.samples) == (4 * 16 * 12, 4)


def test_iou_precision_and_recall_follow_from_the_counts():
    batch = some_batch()
    assert batch.labels is not None
    seen = empty().update(batch)
    shared, units, labels = direct(seen, batch, batch.labels)
    union = units[:, None] + labels - shared
    torch.testing.assert_close(seen.iou, shared.double() / union, rtol=1e-15, atol=0)
    torch.testing.assert_close(seen.precision, shared.double() / units[:, None], rtol=1e-15, atol=0)
    torch.testing.assert_close(seen.recall, shared.double() / labels, rtol=1e-15, atol=0)


def test_the_density_is_the_share_of_all_pixels_in_which_a_unit_fires():
    batch = some_batch()
    assert batch.labels is not None
    seen = empty().update(batch)
    assert seen.unit_area is not None
    assert torch.equal(seen.density, seen.unit_area.double() / batch.labels[:, 0].numel())


def test_a_dead_unit_and_a_label_that_never_occurs_have_an_iou_of_zero():
    keys, labels = torch.zeros(2, UNITS, 4, 4), torch.zeros(2, 3, 8, 8, dtype=torch.bool)
    seen = Intersection(torch.zeros(UNITS), LABELLER).update(Batch(keys, (0, 1), labels))
    for table in (seen.iou, seen.precision, seen.recall):
        assert torch.equal(table, torch.zeros(UNITS, 3, dtype=torch.float64))
    assert json.dumps(seen.summary(), allow_nan=False)
    assert seen.detectors() == {}


def test_each_unit_has_its_best_label_and_each_label_its_detectors():
    labels = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    labels[:, 0, :4], labels[:, 1, 4:], labels[:, 2, :, :2] = True, True, True
    maps = [
        labels[:, 1],
        labels[:, 0],
        labels[:, 0] & labels[:, 2],
        torch.zeros(1, 8, 8),
        labels[:, 1],
        labels[:, 2],
    ]
    keys = torch.stack([plane.float() for plane in maps], 1)  # the labels' own grid: nothing is interpolated
    seen = Intersection(torch.full((UNITS,), 0.5), LABELLER).update(Batch(keys, (0,), labels))
    label, iou = seen.best()
    assert label.tolist() == [1, 0, 2, 0, 1, 2]  # unit 3 never fires: the first of equals
    assert iou.tolist() == [1.0, 1.0, 0.5, 0.0, 1.0, 1.0]
    assert seen.detectors() == {"green": [0, 4], "red": [1], "blue": [5, 2]}
    assert seen.detectors(above=0.5)["blue"] == [5]
    assert seen.summary()[f"units with an IoU above {DETECTED}"] == 5


def test_a_soft_label_counts_where_it_is_above_one_half():
    batch = some_batch()
    soft = torch.rand(4, 3, 16, 12, generator=torch.Generator().manual_seed(1))
    soft[:, :, 0] = 0.5
    found = empty().update(replace(batch, labels=soft))
    assert same(found, empty().update(replace(batch, labels=soft > 0.5)))
    assert same(found, empty().update(replace(batch, labels=soft.double())))


@pytest.mark.parametrize("grid", [(8, 6), (4, 5), (32, 24)], ids=str)
def test_masks_are_compared_on_the_grid_asked_for(grid: tuple[int, int]):
    batch = some_batch()
    assert batch.labels is not None
    seen = empty(grid=grid).update(batch)
    labels = functional.adaptive_avg_pool2d(batch.labels.double(), grid) > 0.5
    for found, expected in zip(counts(seen), direct(seen, batch, labels), strict=False):
        assert torch.equal(found, expected)
    assert seen.pixels == 4 * grid[0] * grid[1]


def test_half_precision_maps_count_as_the_numbers_that_they_hold():
    batch = some_batch()
    for half in (torch.float16, torch.bfloat16):
        rounded = batch.keys.to(half)
        found = empty().update(replace(batch, keys=rounded))
        assert same(found, empty().update(replace(batch, keys=rounded.float())))


# The kernel and torch


def hostile(name: str, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Maps [3, C, h, w] and thresholds [C] that rounding and special values make hard."""
    draw = torch.Generator().manual_seed(0)
    levels = torch.randn(UNITS, generator=draw)
    maps = {
        "random": torch.randn(3, UNITS, *key, generator=draw),
        "sparse": torch.randn(3, UNITS, *key, generator=draw) - 2,
        "constant at the threshold": levels[:, None, None].expand(3, UNITS, *key).clone(),
        "two values around the threshold": torch.nextafter(
            levels[:, None, None], torch.randn(3, UNITS, *key, generator=draw).sign() * 9
        ),
        "integers": torch.randint(-2, 3, (3, UNITS, *key), generator=draw).float(),
        "negative zero": torch.where(torch.rand(3, UNITS, *key, generator=draw) > 0.5, -0.0, 0.0),
        "huge": torch.randn(3, UNITS, *key, generator=draw).sign() * torch.finfo(torch.float32).max,
        "denormal": torch.randn(3, UNITS, *key, generator=draw) * 1e-42,
        "infinite": torch.full((3, UNITS, *key), torch.inf),
        "not a number": torch.full((3, UNITS, *key), torch.nan),
    }[name]
    if name == "integers":
        levels = levels.round()
    if name in ("negative zero", "denormal"):
        levels = torch.zeros(UNITS)
    return maps, levels


NAMES = ["random", "sparse", "constant at the threshold", "two values around the threshold", "integers"]
NAMES += ["negative zero", "huge", "denormal", "infinite", "not a number"]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_and_torch_count_the_same_to_the_bit(name: str, align_corners: bool):
    assert kernel("intersection"), "numba is missing"
    for key, label in [((4, 4), (32, 32)), ((5, 7), (13, 9)), ((8, 3), (5, 5)), ((1, 6), (3, 1))]:
        maps, levels = hostile(name, key)
        labels = torch.rand(3, 4, *label, generator=torch.Generator().manual_seed(1)) < 0.4
        rows, columns = axis(key[0], label[0], align_corners), axis(key[1], label[1], align_corners)
        by_kernel = counted_by_kernel(maps, levels[:, None], labels, rows, columns)
        by_torch = counted_by_torch(maps, levels[:, None], labels, rows, columns)
        for one, other in zip(by_kernel, by_torch, strict=True):
            assert one.dtype == other.dtype == torch.int64
            assert torch.equal(one, other)


def test_a_map_nowhere_above_its_threshold_fires_nowhere():
    for name in ("constant at the threshold", "negative zero", "not a number"):
        maps, levels = hostile(name, (7, 7))
        labels = torch.ones(3, 3, 100, 100, dtype=torch.bool)
        seen = Intersection(levels, LABELLER).update(Batch(maps, (0, 1, 2), labels))
        assert seen.unit_area is not None
        assert not seen.unit_area.any()


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.data())
def test_the_kernel_and_torch_agree_whatever_the_shapes(data: st.DataObject):
    side = st.integers(1, 9)
    key, label = data.draw(st.tuples(side, side)), data.draw(st.tuples(side, side))
    batch = some_batch(
        2, data.draw(st.integers(0, 99)), key, label, data.draw(st.sampled_from([0.0, 0.1, 1.0]))
    )
    assert batch.labels is not None
    align = data.draw(st.booleans())
    rows, columns = axis(key[0], label[0], align), axis(key[1], label[1], align)
    levels = torch.randn(UNITS, 1, generator=torch.Generator().manual_seed(5))
    answers = [
        count(batch.keys, levels, batch.labels, rows, columns)
        for count in (counted_by_kernel, counted_by_torch)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))


def test_without_numba_torch_gives_the_same_counts(monkeypatch: pytest.MonkeyPatch):
    compiled = empty().update(some_batch())
    kernel.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        patch.delitem(sys.modules, "rewrite_core.statistics.intersection_kernel")
        assert kernel("intersection") is None
        assert same(empty().update(some_batch()), compiled)
    kernel.cache_clear()


def test_threads_do_not_change_a_count():
    single = empty().update(some_batch(9))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert same(empty().update(some_batch(9)), single)
    finally:
        torch.set_num_threads(threads)


def test_labels_in_any_memory_layout_are_the_same_labels():
    batch = some_batch()
    assert batch.labels is not None
    turned = batch.labels.transpose(2, 3).contiguous().transpose(2, 3)
    assert same(empty().update(replace(batch, labels=turned)), empty().update(batch))


# A mergeable value


@settings(derandomize=True, max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(0, 9))
def test_merging_counts_exactly_in_any_order_and_any_grouping(sizes: list[int], seed: int):
    whole = some_batch(sum(sizes), seed)
    assert whole.labels is not None
    parts = [
        empty().update(Batch(keys, tuple(range(len(keys))), labels))
        for keys, labels in zip(whole.keys.split(sizes), whole.labels.split(sizes), strict=True)
    ]
    a, b, c = parts
    together = empty().update(whole)
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        assert same(merged, together)


def test_a_statistic_is_a_value_and_goes_on_from_its_state():
    first, second = some_batch(seed=1), some_batch(seed=2)
    seen = empty().update(first)
    kept = [table.clone() for table in counts(seen)]
    further = seen.update(second)
    assert all(torch.equal(one, other) for one, other in zip(counts(seen), kept, strict=True))
    assert same(empty().restore(seen.state()).update(second), further)
    assert empty().merge(seen) is seen
    assert seen.merge(empty()) is seen
    assert empty().state() == {}
    assert empty().restore({}).summary() == {"samples": 0}


def spoiled(name: str, value: Tensor) -> dict[str, Tensor]:
    return {**empty().update(some_batch()).state(), name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("intersection", torch.zeros(UNITS, 2, dtype=torch.int64)),
        ("intersection", torch.zeros(UNITS + 1, 3, dtype=torch.int64)),
        ("intersection", torch.zeros(UNITS, 3)),
        ("intersection", torch.full((UNITS, 3), -1)),
        ("intersection", torch.full((UNITS, 3), 700)),
        ("unit_area", torch.full((UNITS,), 10**9)),
        ("label_area", torch.full((3,), 10**9)),
        ("counts", torch.tensor([768])),
    ],
)
def test_a_malformed_state_is_refused(name: str, value: Tensor):
    with pytest.raises(ValueError):  # noqa: PT011
        empty().restore(spoiled(name, value))


def test_a_state_with_something_missing_is_refused():
    state = empty().update(some_batch()).state()
    for name in state:
        with pytest.raises(KeyError):
            empty().restore({other: table for other, table in state.items() if other != name})


# What it is asked with


def test_thresholds_labels_grid_and_alignment_are_part_of_the_key():
    small = small_generator()
    asked = [
        empty(),
        Intersection(torch.linspace(-0.5, 1.6, UNITS), LABELLER),
        empty(grid=(8, 8)),
        empty(align_corners=True),
        Intersection(torch.linspace(-0.5, 1.5, UNITS), Tints((5, 8))),
        Intersection(torch.linspace(-0.5, 1.5, UNITS), Tints(names=("r", "g", "b"))),
        Intersection(torch.linspace(-0.5, 1.5, UNITS), Bright()),
    ]
    assert len({name_of(key_of(small, PLAIN, spec(), one)) for one in asked}) == len(asked)
    again = Intersection(torch.linspace(-0.5, 1.5, UNITS).double().float(), Tints())
    assert key_of(small, PLAIN, spec(), again) == key_of(small, PLAIN, spec(), asked[0])


def shown(batch: Batch) -> Tensor:
    assert batch.labels is not None
    return batch.labels


def test_what_cannot_be_counted_is_refused_in_one_line():
    batch = some_batch()
    wrong: list[Any] = [
        lambda: Intersection(torch.tensor([0.0, torch.nan]), LABELLER),
        lambda: Intersection(torch.zeros(2, 2, 2), LABELLER),
        lambda: empty(grid=(0, 4)),
        lambda: Intersection(torch.zeros(UNITS - 1), LABELLER).update(batch),
        lambda: empty().update(replace(batch, labels=None)),
        lambda: empty().update(replace(batch, labels=shown(batch)[:-1])),  # a map less than pictures
        lambda: empty().update(replace(batch, labels=shown(batch)[..., :0])),
        lambda: Intersection(torch.zeros(UNITS), Bright()).update(batch),
    ]
    for attempt in wrong:
        with pytest.raises(RequestError) as refusal:
            attempt()
        assert "\n" not in str(refusal.value)


# Through one pass


def of_generator(generator: Generator, layer: str, labeller: Bright | Tints, count: int = 30) -> Batch:
    """Keys and labels of the first pictures, each drawn from the start, a micro-batch at a time."""
    parts = [generator.latents(block) for block in spec(count).blocks(generator.micro_batch)]
    keys = torch.cat([generator.keys(latents, layer).keys for latents in parts])
    with torch.no_grad():
        labels = torch.cat([labeller(Scene(generator.pictures(latents), latents)) for latents in parts])
    return Batch.of(keys, labels=labels)


@pytest.mark.parametrize("make", [small_generator, Demodulated.small], ids=["plain", "demodulated"])
@pytest.mark.parametrize("labeller", [Bright(), Tints()], ids=["bright", "tints"])
def test_a_pass_counts_what_the_pictures_show(make: Any, labeller: Bright | Tints):
    generator = make()
    batch = of_generator(generator, PLAIN, labeller)
    levels = batch.keys.movedim(1, 0).flatten(1).quantile(0.9, dim=1)
    (found,) = sweep(generator, spec(30), {PLAIN: [Intersection(levels, labeller)]})[PLAIN]
    assert isinstance(found, Intersection)
    assert same(found, Intersection(levels, labeller).update(batch))
    assert 0 < float(found.iou.max()) < 1


@pytest.mark.parametrize(
    ("generator", "layers"),
    [
        (small_generator(), [UP]),
        (small_generator(), [DOWN]),
        (small_generator(), [DOWN, UP, PLAIN]),
        (Demodulated.small(), [PLAIN]),
        (Demodulated.small(), [PLAIN, UP]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else value.name,
)
def test_labels_are_of_the_pictures_that_the_generator_draws(generator: Generator, layers: list[str]):
    labeller = Counted(Bright())
    first, *others = layers
    wanted: dict[str, list[Statistic]] = {layer: [SecondMoment()] for layer in others}
    wanted[first] = [Intersection(torch.zeros(generator.layer(first).in_channels), labeller)]
    sweep(generator, spec(30), wanted)
    torch.testing.assert_close(torch.cat(labeller.pictures), generator.sample(spec(30)), rtol=0, atol=1e-6)
    assert sum(labeller.seeds, ()) == spec(30).seeds


def test_statistics_that_share_a_labeller_label_each_micro_batch_once():
    generator, labeller = small_generator(), Counted(Bright())
    wanted: dict[str, list[Statistic]] = {
        UP: [Intersection(torch.zeros(12), labeller), Intersection(torch.ones(12), labeller)],
        DOWN: [Intersection(torch.zeros(9), labeller)],
    }
    sweep(generator, spec(30), wanted)
    assert [len(pictures) for pictures in labeller.pictures] == [25, 5]


def test_an_answer_is_stored_and_served_for_these_labels_only(tmp_path: Any):
    generator, store, labeller = small_generator(), Store(tmp_path), Counted(Bright())
    wanted: dict[str, list[Statistic]] = {PLAIN: [Intersection(torch.zeros(10), labeller)]}
    (computed,) = gather(generator, spec(6), wanted, store=store)[PLAIN]
    (served,) = gather(generator, spec(6), wanted, store=store)[PLAIN]
    assert isinstance(computed, Intersection)
    assert isinstance(served, Intersection)
    assert same(computed, served)
    assert len(labeller.pictures) == 1
    other: dict[str, list[Statistic]] = {PLAIN: [Intersection(torch.zeros(10), Bright((-0.2, 0.0)))]}
    (another,) = gather(generator, spec(6), other, store=store)[PLAIN]
    assert isinstance(another, Intersection)
    assert not same(another, served)


def test_stylegan2_is_labelled_by_its_own_pictures():
    generator = open_generator("tests/reference/small_stylegan2.pt")
    labeller = Counted(Bright())
    layer = list(generator.layers)[3]
    sweep(
        generator, spec(3), {layer: [Intersection(torch.zeros(generator.layer(layer).in_channels), labeller)]}
    )
    torch.testing.assert_close(torch.cat(labeller.pictures), generator.sample(spec(3)), rtol=0, atol=1e-6)


def test_the_digest_is_of_the_float32_numbers():
    levels = np.linspace(0, 1, UNITS)
    wide, narrow = torch.from_numpy(levels), torch.from_numpy(levels).float()
    assert Intersection(wide, LABELLER).parameters() == Intersection(narrow, LABELLER).parameters()
