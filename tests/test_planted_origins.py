"""Planted truth: from keys of a known mixture every origin finds what is in it, the better the more keys there are."""

import pytest
import torch
from torch import Tensor

from rewrite_core.directions.centres import centres
from rewrite_core.directions.dictionary import Dictionary, DictionarySettings, learn_dictionary
from rewrite_core.directions.direction import Direction
from rewrite_core.directions.independent import independent
from rewrite_core.directions.principal import principal
from tests.planted_keys import as_layer, drawn, nearest_angle, orthonormal, subspace_angle

UNITS = 12


def vectors(directions: list[Direction]) -> Tensor:
    return torch.cat([direction.vectors for direction in directions])


# Principal components: a subspace


def varied(count: int) -> tuple[Tensor, Tensor]:
    """Keys of a large mean that vary along three planted axes [3, C] by 3, 2 and 1.5, and a little otherwise."""
    draw = drawn(1)
    axes = orthonormal(3, UNITS, draw)
    mean = 5 * torch.rand(UNITS, generator=draw, dtype=torch.float64)
    scores = torch.randn(count, 3, generator=draw, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.5])
    noise = 0.5 * torch.randn(count, UNITS, generator=draw, dtype=torch.float64)
    return mean + scores @ axes + noise, axes


def test_principal_components_span_the_planted_subspace_the_better_the_more_keys():
    angles = []
    for count in (100, 10_000):
        rows, axes = varied(count)
        angles.append(subspace_angle(vectors(principal(as_layer(rows), 3)), axes))
    assert angles[0] < 15
    assert angles[1] < 1.5
    assert angles[1] < angles[0] / 4


def test_each_principal_component_is_the_planted_axis_of_its_deviation():
    rows, axes = varied(10_000)
    found = principal(as_layer(rows), 3)
    both = torch.cat([axes, -axes])  # a normal heat has no rare side
    assert nearest_angle(both, vectors(found)).max() < 3
    strengths = found[0].singular_values[:4]
    expected = (torch.tensor([3.0, 2.0, 1.5, 0.0], dtype=torch.float64).square() + 0.25).sqrt()
    torch.testing.assert_close(strengths, expected, rtol=0.03, atol=0)


# Independent components: sources


def mixed(count: int) -> tuple[Tensor, Tensor]:
    """Keys that mix four independent exponential sources, and the query [4, C] that reads each off."""
    draw = drawn(2)
    mixing = torch.randn(4, UNITS, generator=draw, dtype=torch.float64)
    sources = torch.empty(count, 4, dtype=torch.float64).exponential_(generator=draw)
    return 1 + sources @ mixing, torch.linalg.pinv(mixing).T


def test_independent_components_are_the_queries_of_the_planted_sources_the_better_the_more_keys():
    angles = []
    for count in (200, 10_000):
        rows, queries = mixed(count)
        angles.append(nearest_angle(vectors(independent(as_layer(rows), 4)), queries).max())
    assert angles[0] < 30
    assert angles[1] < 4
    assert angles[1] < angles[0] / 3


def test_principal_components_do_not_find_independent_sources():
    rows, queries = mixed(10_000)
    assert nearest_angle(vectors(principal(as_layer(rows), 4)), queries).max() > 20


# Centres: clusters

SHARES = (0.4, 0.3, 0.2, 0.1)


def clustered(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys around four planted means [4, C], the means, and which is whose [N]."""
    draw = drawn(3)
    means = 4 * orthonormal(4, UNITS, draw)
    labels = torch.multinomial(torch.tensor(SHARES), count, replacement=True, generator=draw)
    return means[labels] + torch.randn(count, UNITS, generator=draw, dtype=torch.float64), means, labels


def test_the_keys_of_centres_are_the_planted_means_the_better_the_more_keys():
    angles = []
    for count in (400, 10_000):
        rows, means, _ = clustered(count)
        keys = torch.stack([direction.key for direction in centres(as_layer(rows), 4)])  # type: ignore[misc]
        angles.append(nearest_angle(keys, means).max())
    assert angles[0] < 10
    assert angles[1] < 2.5
    assert angles[1] < angles[0] / 2


def test_a_centre_finds_the_positions_of_its_cluster_and_knows_how_many_they_are():
    rows, means, labels = clustered(4000)
    found = centres(as_layer(rows), 4)
    for place, direction in enumerate(found):
        assert direction.key is not None
        cluster = int((means @ direction.key).argmax())
        assert cluster == place  # by share
        assert direction.provenance["share"] == pytest.approx(SHARES[cluster], abs=0.03)
        heat = rows @ direction.vectors[0]
        inside, outside = heat[labels == cluster], heat[labels != cluster]
        assert (inside[:, None] > outside[:500]).double().mean() > 0.99


# A dictionary: sparse features


def sparse(count: int) -> tuple[Tensor, Tensor]:
    """Keys that are a base and two of 20 planted features [20, C] of unit length, of random strength; and these."""
    draw = drawn(4)
    features = torch.nn.functional.normalize(torch.randn(20, UNITS, generator=draw, dtype=torch.float64))
    chosen = torch.rand(count, 20, generator=draw).topk(2, dim=1).indices  # [N, 2]
    codes = torch.zeros(count, 20, dtype=torch.float64).scatter(
        1, chosen, 0.5 + torch.rand(count, 2, generator=draw, dtype=torch.float64)
    )
    return 0.3 + codes @ features, features


def learned(count: int) -> tuple[Dictionary, Tensor]:
    rows, features = sparse(count)
    settings = DictionarySettings(features=32, active=2, steps=600, batch=64, rate=1e-2)
    return learn_dictionary(as_layer(rows), settings), features


def test_the_keys_of_a_dictionary_are_the_planted_features_the_better_the_more_keys():
    (few, features), (many, _) = learned(100), learned(5000)
    assert nearest_angle(many.decoder, features).max() < 10
    assert nearest_angle(many.decoder, features).median() < 7
    assert nearest_angle(few.decoder, features).median() > 12
    assert many.quality.explained > 0.9 > many.quality.principal + 0.4
