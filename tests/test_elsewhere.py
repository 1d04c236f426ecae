"""The expected change elsewhere against brute force: every picture drawn with and without the rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rewrite_core import Store, layer_statistics
from rewrite_core.generators import EPSILON, Generator
from rewrite_core.rules.elsewhere import elsewhere, energy_of
from rewrite_core.rules.low_rank import change
from tests.generators import DOWN, PLAIN, UP, Demodulated, small_generator

LAYERS = [
    (small_generator, UP),
    (small_generator, PLAIN),
    (small_generator, DOWN),
    (Demodulated.small, PLAIN),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def some_rule(generator: Generator, layer: str, rank: int, size: float) -> tuple[Tensor, Tensor]:
    """Directions [R, C] and a delta Λ [O, R, kh, kw] of a given size relative to the weight."""
    draw = torch.Generator().manual_seed(3)
    weight = generator.weight(layer)
    directions = torch.linalg.qr(torch.randn(weight.shape[1], rank, generator=draw)).Q.T
    delta = torch.randn(weight.shape[0], rank, *weight.shape[2:], generator=draw)
    return directions, delta * size * weight.norm() / delta.norm()


def response(generator: Generator, layer: str, weight: Tensor, at) -> Tensor:
    """The layer's response [N, O, H, W], demodulated where it is."""
    drawn = generator.respond(layer, at.keys.double(), weight)
    scales = generator.scales(at)
    if scales is None:
        return drawn
    energy = scales.double().square() @ weight.square().sum((2, 3)).T
    return drawn * (energy + EPSILON).rsqrt()[:, :, None, None]


@pytest.mark.parametrize(("make", "layer"), LAYERS)
@pytest.mark.parametrize("size", [0.01, 0.3, 2.0])
def test_the_change_is_the_mean_squared_change_of_what_the_layer_draws(
    make, layer: str, size: float, store: Store
):
    generator = make()
    statistics = layer_statistics(generator, layer, store=store, samples=30)
    directions, delta = some_rule(generator, layer, 2, size)
    weight = generator.weight(layer).double()
    before = response(generator, layer, weight, statistics.sample)
    after = response(generator, layer, weight + change(delta, directions).double(), statistics.sample)
    expected = float((after - before).square().sum(1).mean() / before.square().sum(1).mean()) ** 0.5
    found = elsewhere(generator, statistics, directions)
    assert found.change(delta.flatten(1)) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert float(found.penalty(delta.flatten(1)).sum()) ** 0.5 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("make", "layer"), LAYERS)
def test_the_parabola_touches_the_penalty_and_never_bends_down(make, layer: str, store: Store):
    generator = make()
    statistics = layer_statistics(generator, layer, store=store, samples=30)
    directions, delta = some_rule(generator, layer, 2, 0.5)
    changed = elsewhere(generator, statistics, directions)
    flat = delta.flatten(1).double().requires_grad_()
    curvature, half_slope = changed.parabola(flat.detach())
    (slope,) = torch.autograd.grad(changed.penalty(flat).sum(), flat)
    torch.testing.assert_close(2 * half_slope, slope, rtol=1e-6, atol=1e-12)
    spectrum = torch.linalg.eigvalsh(curvature)
    assert (spectrum > -1e-6 * spectrum.amax()).all()


def test_a_change_that_no_key_sees_still_changes_every_picture_through_the_norm(store: Store):
    generator = Demodulated.small()
    statistics = layer_statistics(generator, PLAIN, store=store, samples=30)
    _, vectors = torch.linalg.eigh(statistics.second_moment)
    unseen = vectors[:, :1].T.float()  # the direction that occurs least
    weight = generator.weight(PLAIN)
    delta = torch.randn(weight.shape[0], 1, 3, 3, generator=torch.Generator().manual_seed(0))
    lengths = delta.flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
    delta /= 2 * lengths[:, None, None, None]  # half as long as the weight it is added to
    assert elsewhere(generator, statistics, unseen).change(delta.flatten(1)) > 0.05


def test_the_energy_is_a_quadratic_of_the_change(store: Store):
    generator = Demodulated.small()
    at = layer_statistics(generator, PLAIN, store=store, samples=5).sample
    directions, delta = some_rule(generator, PLAIN, 3, 0.7)
    quadratic = energy_of(generator, at, directions)
    direct = generator.energy(at, generator.weight(PLAIN) + change(delta, directions))
    torch.testing.assert_close(quadratic.at(delta.flatten(1)).float(), direct, rtol=1e-5, atol=1e-6)
