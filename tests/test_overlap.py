"""What two directions have in common: against brute force over keys, and where the two cosines agree and differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rewrite_core.directions import ContextSettings, Direction, context_direction
from rewrite_core.directions.overlap import interference, key_overlap, query_overlap
from rewrite_core.errors import RequestError
from rewrite_core.memory import Observations

UNITS = 6


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_keys(count: int = 400) -> Tensor:
    """Keys [S, C] of very different power along their directions."""
    stretched: Tensor = torch.rand(count, UNITS, generator=torch.Generator().manual_seed(0)).double()
    return stretched @ torch.diag(4.0 ** torch.arange(UNITS).double()) @ drawn(UNITS, UNITS, seed=1)


KEYS = some_keys()
MOMENT = KEYS.T @ KEYS / len(KEYS)


def of(vectors: Tensor, key: Tensor | None = None) -> Direction:
    rows = torch.linalg.qr(vectors.reshape(-1, UNITS).T).Q.T
    rows = torch.where((rows * vectors.reshape(-1, UNITS)).sum(1, keepdim=True) < 0, -rows, rows)
    return Direction(rows, "l05", "unit", torch.ones(len(rows), dtype=torch.float64), key=key)


def context(keys: Tensor, **settings: float | str) -> Direction:
    chosen = ContextSettings.model_validate({"ridge": 0.0, **settings})
    seen = Observations(keys, torch.ones(len(keys), dtype=torch.float64))
    return context_direction(seen, MOMENT, 1, chosen, layer="l05")


def test_queries_are_compared_by_the_correlation_of_their_heat():
    tray = [of(drawn(UNITS, seed=seed)) for seed in (2, 3, 4)]
    heat = torch.stack([KEYS @ direction.vectors[0] for direction in tray])  # [M, S]
    expected = heat @ heat.T
    expected /= expected.diagonal().sqrt() * expected.diagonal().sqrt()[:, None]
    torch.testing.assert_close(query_overlap(tray, MOMENT), expected)


def test_an_opposite_query_has_the_opposite_sign():
    one, other = drawn(UNITS, seed=2), drawn(UNITS, seed=3)
    found = query_overlap([of(one), of(-one), of(other), of(-other)], MOMENT)
    assert found[0, 1].item() == pytest.approx(-1)
    assert found[0, 3].item() == pytest.approx(-found[0, 2].item())


def test_sets_of_queries_are_compared_by_their_largest_canonical_correlation():
    pair, three = of(drawn(2, UNITS, seed=2)), of(drawn(3, UNITS, seed=3))
    first, second = (torch.linalg.qr(KEYS @ one.vectors.T).Q for one in (pair, three))  # [S, R]
    expected = torch.linalg.svdvals(first.T @ second)[0]
    found = query_overlap([pair, three], MOMENT)
    torch.testing.assert_close(found, torch.tensor([[1.0, expected], [expected, 1.0]], dtype=torch.float64))
    inside = of(three.vectors[1])
    assert query_overlap([three, inside], MOMENT)[0, 1].item() == pytest.approx(1)


def test_keys_are_compared_by_their_whitened_cosine():
    keys = [drawn(UNITS, seed=seed) for seed in (5, 6)]
    tray = [of(drawn(UNITS, seed=2), key) for key in keys]
    a, b = (torch.linalg.solve(torch.linalg.cholesky(MOMENT), key) for key in keys)
    assert key_overlap(tray, MOMENT)[0, 1].item() == pytest.approx((a @ b / (a.norm() * b.norm())).item())


def test_without_a_key_the_pattern_stands_for_it_and_both_cosines_are_the_same():
    tray = [of(drawn(UNITS, seed=2)), of(drawn(2, UNITS, seed=3)), of(drawn(UNITS, seed=4))]
    torch.testing.assert_close(key_overlap(tray, MOMENT), query_overlap(tray, MOMENT))


def test_contexts_found_without_regularisation_overlap_alike_as_queries_and_as_keys():
    first, second = KEYS[:20], KEYS[20:40]
    plain = [context(keys, method="mean") for keys in (first, second)]
    assert all(direction.key is not None for direction in plain)
    torch.testing.assert_close(key_overlap(plain, MOMENT), query_overlap(plain, MOMENT), rtol=0, atol=1e-6)
    torch.testing.assert_close(interference(plain, MOMENT), query_overlap(plain, MOMENT), rtol=0, atol=1e-6)
    steadied = [context(keys, method="mean", ridge=1.0) for keys in (first, second)]
    torch.testing.assert_close(key_overlap(steadied, MOMENT), key_overlap(plain, MOMENT))
    assert (query_overlap(steadied, MOMENT) - key_overlap(steadied, MOMENT)).abs().max() > 0.01


def test_interference_says_which_of_two_rules_fires_on_the_others_key():
    first, second = drawn(2, UNITS, seed=7)
    query = torch.linalg.solve(MOMENT, first)
    turned = query - (query @ second) / (second @ second) * second  # passes by the second key
    tray = [of(turned, first), of(torch.linalg.solve(MOMENT, second), second)]
    found = interference(tray, MOMENT)
    assert found[0, 1].item() == pytest.approx(0, abs=1e-10)
    lengths = [torch.sqrt(key @ torch.linalg.solve(MOMENT, key)) for key in (first, second)]
    reading = tray[1].vectors[0]
    expected = (reading @ first / lengths[0]) / (reading @ second / lengths[1])
    assert found[1, 0].item() == pytest.approx(expected.item())
    assert abs(found[1, 0].item()) > 0.01
    assert found.diagonal().tolist() == pytest.approx([1, 1])


def test_what_matches_nothing_overlaps_with_nothing():
    dead = torch.ones(UNITS, dtype=torch.float64)
    dead[2] = 0
    moment = MOMENT * dead * dead[:, None]
    silent, both = of(torch.eye(UNITS).double()[2]), of(torch.eye(UNITS).double()[2:4])
    tray = [silent, of(torch.eye(UNITS).double()[3]), both]
    expected = torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 1, 1]]).double()
    for measure in (query_overlap, key_overlap, interference):
        torch.testing.assert_close(measure(tray, moment), expected)


def test_an_empty_tray_has_an_empty_matrix():
    for measure in (query_overlap, key_overlap, interference):
        assert measure([], MOMENT).shape == (0, 0)


def test_directions_of_different_layers_or_widths_are_refused():
    one = of(drawn(UNITS, seed=2))
    for measure in (query_overlap, key_overlap, interference):
        with pytest.raises(RequestError, match="directions of l05, l08; expected directions of one layer"):
            measure([one, replace(one, layer="l08")], MOMENT)
        with pytest.raises(RequestError, match=r"expected \[6, 6\]"):
            measure([one], torch.eye(5))
