"""Class-conditional moments: those of the definition, with labels as area averages on the layer's grid."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator
from rewrite_core.statistics import Batch, Scene, SecondMoment, Store, fetch, key_of
from rewrite_core.statistics.conditional import LARGEST, Conditional
from rewrite_core.statistics.cross_covariance import CrossCovariance
from rewrite_core.statistics.intersection import Intersection
from rewrite_core.statistics.sweep import sweep
from tests.generators import PLAIN, Demodulated, small_generator, spec
from tests.labellers import Bright, Counted, Tints
from tests.nvidia import random_stylegan3

LABELLER = Tints()


def some_batch(count: int = 6, seed: int = 0, key: Any = (5, 4), label: Any = (10, 12)) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    keys = torch.randn(count, 7, *key, generator=draw) + 0.5
    labels = torch.rand(count, 3, *label, generator=draw)
    labels[:, 1] = labels[:, 1].round()
    labels[:, 2] = 0
    return Batch.of(keys, labels=labels)


def seen(batch: Batch) -> Conditional:
    return Conditional(LABELLER).update(batch)


def direct(batch: Batch, label: int) -> tuple[Tensor, Tensor, Tensor]:
    """Σ w, E[k | label] and E[k kᵀ | label] in float64, straight from the formula."""
    assert batch.labels is not None
    _, _, height, width = batch.keys.shape
    share = functional.adaptive_avg_pool2d(batch.labels.double(), (height, width))[:, label]  # [N, h, w]
    weight = share.sum()
    mean = torch.einsum("nhw,nchw->c", share, batch.keys.double()) / weight
    second = torch.einsum("nhw,nchw,ndhw->cd", share, batch.keys.double(), batch.keys.double()) / weight
    return weight, mean, second


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("label", [(10, 12), (5, 4), (3, 7), (1, 1)], ids=str)
def test_the_moments_are_those_of_the_definition(label: tuple[int, int]):
    batch = some_batch(label=label)
    found = seen(batch)
    for at in (0, 1):
        weight, mean, second = direct(batch, at)
        close(found.mean(at), mean)
        close(found.second_moment(at), second)
        close(found.covariance(at), second - torch.outer(mean, mean), 3e-6)
        assert found.share(at) == pytest.approx(float(weight) / (6 * 20), rel=1e-6)


def test_a_label_that_was_never_seen_has_moments_of_zero():
    found = seen(some_batch())
    assert not found.mean(2).any()
    assert not found.covariance(2).any()
    assert found.share(2) == 0
    assert json.dumps(found.summary(), allow_nan=False)


def test_a_label_that_is_everywhere_has_the_moments_of_the_layer():
    batch = some_batch()
    everywhere = replace(batch, labels=torch.ones(6, 3, 10, 12, dtype=torch.bool))
    moment, found = SecondMoment().update(batch), seen(everywhere)
    close(found.second_moment(1), moment.matrix)
    close(found.mean(1), moment.mean)


def test_a_long_sum_does_not_drift():
    draw = torch.Generator().manual_seed(0)
    keys, labels = torch.rand(300, 3, 16, 16, generator=draw), torch.rand(300, 3, 16, 16, generator=draw)
    found = Conditional(LABELLER)
    for some, marks in zip(keys.split(25), labels.split(25), strict=True):
        found = found.update(Batch.of(some, labels=marks))
    close(found.second_moment(0), direct(Batch.of(keys, labels=labels), 0)[2], 2e-7)


def test_half_precision_keys_are_summed_as_the_numbers_that_they_hold():
    batch = some_batch()
    for half in (torch.float16, torch.bfloat16):
        found = seen(replace(batch, keys=batch.keys.to(half)))
        expected = seen(replace(batch, keys=batch.keys.to(half).float()))
        assert torch.equal(found.second_moment(0), expected.second_moment(0))


@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=3), st.integers(0, 9))
def test_merging_is_associative_and_commutative(sizes: list[int], seed: int):
    whole = some_batch(sum(sizes), seed)
    assert whole.labels is not None
    split = zip(whole.keys.split(sizes), whole.labels.split(sizes), strict=True)
    a, b, c = (seen(Batch.of(keys, labels=labels)) for keys, labels in split)
    one, *others = (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b))
    for other in others:
        for name, table in one.state().items():
            torch.testing.assert_close(other.state()[name], table, rtol=1e-12, atol=1e-12)
        assert (other.positions, other.samples) == (one.positions, one.samples)
    close(one.second_moment(0), seen(whole).second_moment(0), 1e-6)


def test_a_statistic_is_a_value_and_goes_on_from_its_state():
    first, second = some_batch(seed=1), some_batch(seed=2)
    found = seen(first)
    kept = {name: table.clone() for name, table in found.state().items()}
    further = found.update(second)
    assert all(torch.equal(table, kept[name]) for name, table in found.state().items())
    resumed = Conditional(LABELLER).restore(found.state()).update(second)
    assert all(torch.equal(table, further.state()[name]) for name, table in resumed.state().items())
    assert Conditional(LABELLER).merge(found) is found
    assert found.merge(Conditional(LABELLER)) is found
    assert Conditional(LABELLER).restore({}).summary() == {"samples": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total", torch.zeros(3, 7, 6, dtype=torch.float64)),
        ("total", torch.zeros(2, 7, 7, dtype=torch.float64)),
        ("total", torch.zeros(3, 7, 7)),
        ("total", torch.zeros((), dtype=torch.float64)),
        ("first", torch.zeros(3, 6, dtype=torch.float64)),
        ("weight", torch.zeros(4, dtype=torch.float64)),
        ("weight", torch.zeros(3, dtype=torch.int64)),
        ("counts", torch.tensor([1, 2, 3])),
    ],
)
def test_a_malformed_state_is_refused(name: str, value: Tensor):
    state = seen(some_batch()).state()
    with pytest.raises(ValueError):  # noqa: PT011
        Conditional(LABELLER).restore({**state, name: value})
    del state[name]
    with pytest.raises(KeyError):
        Conditional(LABELLER).restore(state)


def test_moments_too_large_for_memory_are_refused_in_one_line():
    units = int((LARGEST / 3) ** 0.5) + 1
    batch = Batch.of(torch.zeros(1, units, 1, 1), labels=torch.ones(1, 3, 1, 1))
    with pytest.raises(RequestError, match=r"for each of 3 labels; expected at most 2 labels") as refusal:
        seen(batch)
    assert "\n" not in str(refusal.value)


def test_labels_that_the_labeller_does_not_name_are_refused():
    for labels in (None, torch.ones(6, 2, 4, 4), torch.ones(5, 3, 4, 4), torch.ones(6, 3)):
        with pytest.raises(RequestError, match=r"expected \[6, 3, H, W\]"):
            seen(replace(some_batch(), labels=labels))


def test_another_labeller_is_another_question():
    small = small_generator()
    keys = [
        key_of(small, PLAIN, spec(), Conditional(one))
        for one in (Tints(), Tints((5, 8)), Bright(), Bright((0.5,)))
    ]
    assert all(one != other for at, one in enumerate(keys) for other in keys[:at])


@pytest.mark.parametrize("generator", [small_generator(), Demodulated.small()], ids=lambda one: one.name)
def test_a_pass_sums_where_the_pictures_show_the_label(generator: Generator, tmp_path: Any):
    labeller = Counted(Bright())
    found = fetch(generator, PLAIN, spec(30), Conditional(labeller), store=Store(tmp_path))
    with torch.no_grad():
        latents = generator.latents(spec(30))
        keys = generator.keys(latents, PLAIN).keys
        pictures = generator.pictures(latents)
    torch.testing.assert_close(torch.cat(labeller.pictures), pictures, rtol=0, atol=1e-5)
    labels = Bright()(Scene(torch.cat(labeller.pictures), latents))
    for label in (0, 1):
        weight, mean, second = direct(Batch.of(keys, labels=labels), label)
        assert weight > 0
        close(found.mean(label), mean, 1e-5)
        close(found.second_moment(label), second, 1e-5)
    assert found.share(0) > found.share(1)  # each level holds the next
    drawn = len(labeller.pictures)
    fetch(generator, PLAIN, spec(30), Conditional(labeller), store=Store(tmp_path))
    assert len(labeller.pictures) == drawn  # served from disk


def test_labels_are_laid_over_the_part_of_a_map_that_is_in_the_picture():
    generator = random_stylegan3(resolution=16)
    name, layer = next((name, layer) for name, layer in generator.layers.items() if layer.key_margin)
    margin, labeller = layer.key_margin, Tints()
    (found,) = sweep(generator, spec(6), {name: [Conditional(labeller)]})[name]
    at = generator.keys(generator.latents(spec(6)), name)
    labels = labeller(Scene(generator.render(at, generator.values(at)), at.latents))
    inside = at.keys[..., margin:-margin, margin:-margin]
    _, mean, second = direct(Batch.of(inside, labels=labels), 0)
    assert isinstance(found, Conditional)
    assert found.positions == 6 * inside[0, 0].numel() < 6 * at.keys[0, 0].numel()
    close(found.mean(0), mean)
    close(found.second_moment(0), second)


def test_units_are_counted_in_the_picture_alone_and_layers_compared_there():
    generator = random_stylegan3(resolution=16)
    names = [name for name, layer in generator.layers.items() if layer.key_margin][:2]
    one, other = (generator.layer(name) for name in names)
    labeller, levels = Bright(), torch.zeros(one.in_channels)
    wanted = [Intersection(levels, labeller), CrossCovariance(names[1])]
    counted, together = sweep(generator, spec(5), {names[0]: wanted})[names[0]]
    stopped = generator.inputs(generator.latents(spec(5)), names)
    at = stopped[names[1]]
    labels = labeller(Scene(generator.render(at, generator.values(at)), at.latents))
    keys = one.inside(stopped[names[0]].keys)
    expected = wanted[0].update(Batch(keys, spec(5).seeds, labels))
    assert same(counted.state(), expected.state())
    beside = other.inside(at.keys)
    assert same(together.state(), wanted[1].update(Batch(keys, spec(5).seeds, beside=beside)).state())


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
