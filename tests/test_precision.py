"""Average precision, its curve and its interval: against the definition, counted threshold by threshold."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dissect import precision
from dissect.precision import average_precision, place_alone, precision_of
from rewrite_core.errors import RequestError


def drawn(pictures: int = 40, signal: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Heat [N, 4, 5], higher by `signal` where a concept of a quarter of the positions is, which it also returns."""
    draw = torch.Generator().manual_seed(seed)
    truth = torch.rand(pictures, 4, 5, generator=draw) < 0.25
    return torch.randn(pictures, 4, 5, generator=draw) + signal * truth, truth


def by_hand(heat: Tensor, truth: Tensor) -> float:
    """Σ (R_n − R_{n−1}) P_n over every threshold, ties together."""
    total, before = 0.0, 0.0
    for threshold in heat.unique().flip(0):
        found = heat >= threshold
        hits = int((found & truth).sum())
        recall, precise = hits / int(truth.sum()), hits / int(found.sum())
        total, before = total + (recall - before) * precise, recall
    return total


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_its_definition(ties: bool):
    heat, truth = drawn()
    heat = heat.relu().round() if ties else heat
    assert average_precision(heat, truth) == pytest.approx(by_hand(heat, truth), abs=1e-12)


def test_knowing_all_is_1_and_knowing_nothing_is_the_share():
    heat, truth = drawn(400, signal=0.0)
    assert precision_of(truth.float(), truth).average == 1
    blind = precision_of(torch.zeros_like(heat), truth)
    assert blind.average == pytest.approx(blind.share) == pytest.approx(float(truth.double().mean()))
    assert average_precision(heat, truth) == pytest.approx(blind.share, abs=0.02)


def test_every_point_of_the_curve_is_that_of_a_threshold():
    heat, truth = drawn(100)
    found = precision_of(heat, truth)
    order = heat.flatten().argsort(descending=True)
    hits = truth.flatten()[order].cumsum(0).double().numpy()
    recall, precise = hits / hits[-1], hits / np.arange(1, len(hits) + 1)
    assert (np.diff(found.recall) >= 0).all()
    assert found.recall[-1] == 1
    assert found.precision[-1] == pytest.approx(found.share)
    for point in zip(found.recall, found.precision, strict=True):
        assert np.hypot(recall - point[0], precise - point[1]).min() < 1e-12
    assert found.curve().notna().all(axis=None)


def test_the_interval_is_that_of_whole_pictures_resampled(monkeypatch):
    heat, truth = drawn(60, signal=1.5)
    found = precision_of(heat, truth)
    random = np.random.default_rng(3)
    again = [average_precision(heat[rows], truth[rows]) for rows in random.integers(60, size=(400, 60))]
    low, high = np.quantile(again, [0.025, 0.975])
    assert found.low < found.average < found.high
    assert found.low == pytest.approx(low, abs=0.015)
    assert found.high == pytest.approx(high, abs=0.015)
    monkeypatch.setattr(
        precision, "LEVELS", 64
    )  # few thresholds move neither the average nor, much, the interval
    coarse = precision_of(heat, truth)
    assert coarse.average == found.average
    assert (coarse.low, coarse.high) == pytest.approx((found.low, found.high), abs=0.02)


def test_copies_of_a_picture_narrow_no_interval():
    heat, truth = drawn(1)
    found = precision_of(heat.expand(20, -1, -1), truth.expand(20, -1, -1))
    assert found.low == pytest.approx(found.average) == pytest.approx(found.high)


def test_resamples_without_the_concept_are_left_out():
    heat, truth = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2, dtype=torch.bool)
    heat[0, 0, 0], truth[0, 0, 0] = 1.0, True
    found = precision_of(heat, truth)
    assert (found.low, found.average, found.high) == (1, 1, 1)


def test_place_alone_is_how_often_the_others_have_it_there():
    _, truth = drawn(5)
    place = place_alone(truth)
    for picture in range(5):
        others = truth[[other for other in range(5) if other != picture]].double().mean(0)
        torch.testing.assert_close(place[picture], others)
    aligned = torch.zeros(9, 3, 3, dtype=torch.bool)
    aligned[:, 1] = True
    assert average_precision(place_alone(aligned), aligned) == 1


@pytest.mark.parametrize(
    ("heat", "truth", "said"),
    [
        (torch.zeros(2, 3, 3), torch.zeros(2, 3, 4, dtype=torch.bool), "Pool the labels"),
        (torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, dtype=torch.bool), "half of no position"),
    ],
)
def test_what_cannot_be_judged_is_refused(heat: Tensor, truth: Tensor, said: str):
    with pytest.raises(RequestError, match=said):
        precision_of(heat, truth)
