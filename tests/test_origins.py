"""Directions that need nothing but a layer's keys: the keys themselves, components, sources, centres, the registry."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rewrite_core.directions.centres import centres
from rewrite_core.directions.direction import Direction
from rewrite_core.directions.independent import independent
from rewrite_core.directions.layer_keys import LayerKeys, layer_keys, rare_side
from rewrite_core.directions.origins import ORIGINS
from rewrite_core.directions.principal import principal
from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.generators import LatentSpec
from rewrite_core.memory import whiten
from rewrite_core.statistics import Reservoir, SecondMoment, Store, fetch
from tests.generators import PLAIN, small_generator, some_rule, spec
from tests.planted_keys import as_layer, drawn

QUICK = [name for name in ORIGINS if name != "dictionary"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> LayerKeys:
    return layer_keys(
        small_generator(), PLAIN, spec(30), size=900, store=Store(tmp_path_factory.mktemp("store"))
    )


def propose(name: str, keys: LayerKeys, count: int, seed: int = 0) -> list[Direction]:
    return ORIGINS[name].propose(keys, count, seed, None)


# The keys of a layer


def test_second_moment_and_sample_are_those_of_the_statistics(keys: LayerKeys, tmp_path: Path):
    store = Store(tmp_path)
    moment = fetch(small_generator(), PLAIN, spec(30), SecondMoment(), store=store)
    sample = fetch(small_generator(), PLAIN, spec(30), Reservoir(900), store=store)
    assert torch.equal(keys.moment.matrix, moment.matrix)
    assert sample.keys is not None
    assert torch.equal(keys.rows, sample.keys.double())
    assert keys.units == 10
    assert (keys.layer, keys.model) == (PLAIN, "small")
    assert keys.fingerprint == small_generator().fingerprint


def test_keys_are_those_of_the_pristine_generator(keys: LayerKeys, tmp_path: Path):
    edited = small_generator().with_rules(some_rule(small_generator(), "up"))
    found = layer_keys(edited, PLAIN, spec(30), size=900, store=Store(tmp_path))
    assert torch.equal(found.rows, keys.rows)
    assert found.fingerprint == keys.fingerprint


def test_the_origin_names_a_run_of_pictures_by_its_ends(keys: LayerKeys):
    assert keys.origin()["seeds"] == "0..29"
    assert keys.origin()["size"] == 900
    scattered = replace(keys, spec=LatentSpec.of([0, 7, 2**32 - 1]))
    assert scattered.origin()["seeds"] == [0, 7, 2**32 - 1]


def test_the_rare_side_has_the_positive_skew():
    rows = torch.empty(500, 1, dtype=torch.float64).exponential_(generator=drawn(0))
    vectors = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert rare_side(vectors, rows).tolist() == [[1.0], [1.0]]
    assert rare_side(vectors, -rows).tolist() == [[-1.0], [-1.0]]
    assert torch.equal(rare_side(vectors, torch.ones(9, 1, dtype=torch.float64)), vectors)


# What all of them have in common


@pytest.mark.parametrize("name", QUICK)
def test_directions_are_of_unit_length_and_know_where_they_are_from(name: str, keys: LayerKeys):
    found = propose(name, keys, 4)
    assert len(found) == 4
    assert len({direction.name for direction in found}) == 4
    for direction in found:
        assert direction.method == name
        assert direction.vectors.shape == (1, 10)
        assert float(direction.vectors.norm()) == pytest.approx(1, abs=1e-12)
        assert direction.provenance["keys"] == keys.origin()
        assert Direction.load(direction.to_bytes()) == direction
        direction.check(small_generator())


@pytest.mark.parametrize("name", QUICK)
def test_the_same_seed_gives_the_same_bits(name: str, keys: LayerKeys):
    assert propose(name, keys, 3, seed=5) == propose(name, keys, 3, seed=5)


@pytest.mark.parametrize("name", ["pca", "ica"])
def test_components_are_turned_to_the_rare_side(name: str, keys: LayerKeys):
    for direction in propose(name, keys, 5):
        heat = (keys.rows @ direction.vectors[0]).numpy()
        assert ((heat - heat.mean()) ** 3).mean() >= 0


@pytest.mark.parametrize("name", list(ORIGINS))
def test_no_direction_and_more_than_there_can_be_are_refused_in_one_line(name: str, keys: LayerKeys):
    few = as_layer(torch.randn(15, 40, generator=drawn(0)))
    for which, count in ((keys, 0), (keys, -3), (few, 30)):
        with pytest.raises(RequestError) as refusal:
            propose(name, which, count)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", list(ORIGINS))
def test_an_origin_can_be_cancelled(name: str, keys: LayerKeys):
    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        ORIGINS[name].propose(keys, 3, 0, stop)


@pytest.mark.parametrize("name", QUICK)
def test_progress_ends_at_its_total(name: str, keys: LayerKeys):
    told: list[tuple[int, int]] = []
    ORIGINS[name].propose(keys, 3, 0, lambda done, total: told.append((done, total)))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("name", QUICK)
def test_dead_units_have_no_part_in_any_direction(name: str, keys: LayerKeys):
    rows = keys.rows.clone()
    rows[:, [2, 7]] = 0
    for direction in propose(name, as_layer(rows), 4):
        assert direction.vectors[0, [2, 7]].abs().max() < 1e-12
        assert direction.vectors.isfinite().all()


# Each on its own


def test_principal_components_are_eigenvectors_of_the_covariance(keys: LayerKeys):
    covariance = np.cov(keys.rows.numpy(), rowvar=False)
    for direction in principal(keys, 4):
        axis = direction.vectors[0].numpy()
        power = float(direction.singular_values[0]) ** 2
        np.testing.assert_allclose(covariance @ axis, power * axis, atol=1e-9)
        assert direction.provenance["explained_variance_ratio"] == pytest.approx(power / covariance.trace())
    rank = np.linalg.matrix_rank(covariance)
    assert [len(direction.singular_values) for direction in principal(keys, 4)] == [
        rank - place for place in range(4)
    ]


def test_components_beyond_those_along_which_keys_vary_are_refused():
    rows = torch.randn(200, 3, generator=drawn(0)) @ torch.randn(3, 8, generator=drawn(1))
    for find in (principal, independent):
        assert len(find(as_layer(rows), 3)) == 3
        with pytest.raises(RequestError, match="at most 3"):
            find(as_layer(rows), 4)


def test_independent_components_are_uncorrelated_in_order_of_what_they_add(keys: LayerKeys):
    found = independent(keys, 4)
    heat = keys.rows @ torch.cat([direction.vectors for direction in found]).T  # [k, 4]
    correlation = torch.corrcoef(heat.T)
    torch.testing.assert_close(correlation, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-8)
    strengths = [float(direction.singular_values[0]) for direction in found]
    assert strengths == sorted(strengths, reverse=True)
    shares = sum(direction.provenance["explained_variance_ratio"] for direction in found)
    expected = sum(direction.provenance["explained_variance_ratio"] for direction in principal(keys, 4))
    assert shares == pytest.approx(expected, rel=1e-6)


def test_sources_that_do_not_converge_say_so():
    rows = torch.randn(40, 12, generator=drawn(0), dtype=torch.float64)
    found = [independent(as_layer(rows), 12, seed) for seed in range(3)]
    assert any(not directions[0].provenance["converged"] for directions in found)
    assert all(direction.vectors.isfinite().all() for direction in found[0])


def test_a_centre_is_the_query_of_its_mean_key(keys: LayerKeys):
    inverse = whiten(keys.moment.matrix, ridge=0.1).inverse
    shares = []
    for direction in centres(keys, 5):
        assert direction.provenance["settings"] == {"ridge": 0.1}  # which stability heeds
        assert direction.key is not None
        query = inverse @ direction.key
        torch.testing.assert_close(direction.vectors[0], query / query.norm())
        strength = (direction.key @ query).sqrt()
        torch.testing.assert_close(direction.singular_values[0], strength)
        shares.append(direction.provenance["share"])
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)


def coinciding(different: int) -> LayerKeys:
    """Keys of which so many are different, one of them 0."""
    rows = torch.eye(6)[torch.arange(60) % different] * (torch.arange(60) % different > 0)[:, None]
    return as_layer(rows)


def test_more_centres_than_there_are_different_keys_are_refused():
    with pytest.raises(RequestError, match="3 different keys"):
        centres(coinciding(3), 4)


def test_a_centre_where_all_units_are_zero_is_left_out():
    assert [direction.name for direction in centres(coinciding(3), 3)] == ["centre 1", "centre 2"]


def test_a_dictionary_proposes_its_most_telling_features():
    found = propose("dictionary", as_layer(torch.randn(60, 3, generator=drawn(0))), 3)
    explained = [direction.provenance["explained"] for direction in found]
    assert len(explained) == 3
    assert explained == sorted(explained, reverse=True)
    assert {direction.method for direction in found} == {"dictionary"}


def test_a_key_of_one_picture_is_enough_for_what_one_picture_shows(tmp_path: Path):
    found = layer_keys(small_generator(), PLAIN, LatentSpec.of([3]), size=10_000, store=Store(tmp_path))
    assert len(found.rows) == 64
    assert found.origin()["seeds"] == [3]
    assert len(principal(found, 2)) == 2


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(keys: LayerKeys, tmp_path: Path):
    small = layer_keys(small_generator(), PLAIN, spec(30), size=100, store=Store(tmp_path))
    assert torch.equal(small.rows, keys.rows[:100])


def test_margins_are_cut_from_the_sample_and_places_count_from_the_picture(tmp_path: Path):
    generator = small_generator()
    plain = layer_keys(generator, PLAIN, spec(5), size=200, store=Store(tmp_path))
    wide = small_generator()
    wide.layers = {**wide.layers, PLAIN: replace(wide.layer(PLAIN), key_margin=2)}
    cut = layer_keys(wide, PLAIN, spec(5), size=200, store=Store(tmp_path))
    places: Tensor = plain.sample.places  # type: ignore[assignment]
    inside = ((places[:, 1:] >= 2) & (places[:, 1:] < 6)).all(1)
    assert torch.equal(cut.rows, plain.rows[inside])
    assert torch.equal(cut.sample.places, places[inside] - torch.tensor([0, 2, 2]))  # type: ignore[arg-type]
