"""What an edit needs to know of a layer: its second moment, a sample of its keys, and how strongly it responds."""

from pathlib import Path

import pytest
import torch

from rewrite_core.errors import LayerError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.statistics import SecondMoment, Store, layer_statistics, sweep
from tests.generators import DOWN, PLAIN, UP, small_generator, spec


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "statistics")


def test_layer_statistics_are_of_the_pristine_network(small: Generator, store: Store):
    view = small.with_weights({UP: small.weight(UP) * 2})
    statistics = layer_statistics(view, PLAIN, store=store, samples=60)
    keys = small.keys(small.latents(spec(60)), PLAIN).keys
    assert statistics.fingerprint == small.fingerprint
    flat = keys.double().movedim(1, -1).flatten(0, -2)  # [N·h·w, C]
    torch.testing.assert_close(statistics.second_moment, flat.T @ flat / len(flat), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(statistics.sample.keys, keys, rtol=0, atol=5e-6)


@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN])
def test_power_is_the_mean_squared_length_of_a_response(small: Generator, store: Store, layer: str):
    statistics = layer_statistics(small, layer, store=store, samples=30)
    response = small.respond(layer, statistics.sample.keys, small.weight(layer))
    assert statistics.power == pytest.approx(float(response.double().square().sum(1).mean()), rel=1e-5)


def test_the_sample_holds_at_most_a_hundred_pictures_and_never_more_than_asked_for(
    small: Generator, store: Store
):
    assert len(layer_statistics(small, UP, store=store, samples=130).sample.keys) == 100
    assert len(layer_statistics(small, UP, store=store, samples=2).sample.keys) == 2
    with pytest.raises(RequestError, match="0 samples; expected at least 1"):
        layer_statistics(small, UP, store=store, samples=0)


def test_a_second_moment_that_is_given_is_taken_as_it_is(small: Generator, store: Store):
    (moment,) = sweep(small, spec(7), {UP: [SecondMoment()]})[UP]
    assert isinstance(moment, SecondMoment)
    statistics = layer_statistics(small, UP, store=store, samples=30, moment=moment)
    assert torch.equal(statistics.second_moment, moment.matrix)
    assert not store.folder.exists()


def test_an_unknown_layer_is_refused(small: Generator, store: Store):
    with pytest.raises(LayerError, match="layer 'nose'"):
        layer_statistics(small, "nose", store=store)
