"""The index of a layer's keys: read as it says it may be, made once, in shards that several searches share."""

from pathlib import Path

import pytest
import torch

from rewrite_core.directions import index
from rewrite_core.directions.index import index_bytes, key_index, moment_of
from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.generators import Generator, LatentSpec, open_generator
from rewrite_core.memory import heat, whiten
from rewrite_core.statistics import Store, default_store
from tests.generators import DOWN, PLAIN, UP, small_generator, spec
from tests.test_stylegan3 import published


@pytest.fixture(autouse=True)
def alike_each_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("statistics"), default_store().beneath)


def keys_of(generator: Generator, layer: str, latents: LatentSpec) -> torch.Tensor:
    keys = [generator.keys(generator.latents(block), layer).keys for block in latents.blocks(25)]
    return generator.layer(layer).inside(torch.cat(keys))  # [N, C, h, w]


def rms(values: torch.Tensor) -> float:
    return float(values.double().square().mean().sqrt())


@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN])
def test_heat_is_the_query_s_within_what_is_stated(small: Generator, store: Store, layer: str):
    keys, query = keys_of(small, layer, spec(130)), torch.randn(small.layer(layer).in_channels)
    reading = key_index(small, layer, spec(130), store=store).read(query)
    exact = heat(keys, query)
    off = reading.values - exact
    assert rms(off) < 1.2 * reading.typical < 0.03 * rms(exact)
    assert bool((off.abs().flatten(1).amax(1) < 6 * reading.error).all())


def test_on_a_real_generator_the_error_is_about_one_percent(store: Store):
    generator = open_generator("anime64-dcgan")
    layer, chosen = generator.default_layer, LatentSpec.of(range(500, 600))
    keys = keys_of(generator, layer, chosen)
    inverse = whiten(moment_of(generator, layer, store=store).matrix).inverse
    query = inverse @ keys[3, :, 7, 5].double()
    found = key_index(generator, layer, chosen, store=store)
    exact = heat(keys, query)
    assert 0.005 < rms(found.heat(query) - exact) / rms(exact) < 0.02
    likeness = found.similarity(keys[3, :, 7, 5])
    assert float(likeness[3, 7, 5]) == pytest.approx(1, abs=0.002)
    assert int(likeness.argmax()) == 3 * 256 + 7 * 16 + 5


def test_its_size_is_what_was_said_and_lies_on_disk(small: Generator, tmp_path: Path):
    store = Store(tmp_path)
    found = key_index(small, PLAIN, spec(120), store=store)
    assert index_bytes(small.layer(PLAIN), 120) == 120 * 64 * (10 + 4)
    assert found.nbytes == index_bytes(small.layer(PLAIN), 120) + 4 * 10 * 10
    (entry,) = [entry for entry in store.entries() if entry.key["statistic"] == "compact_keys"]
    assert found.nbytes < entry.bytes < found.nbytes + 2000
    assert entry.samples == 120


def test_shards_are_whole_blocks_and_shared(
    small: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index, "SHARD", 150)
    store, told = Store(tmp_path), []
    first = key_index(small, PLAIN, spec(230), store=store)
    assert [shard.samples for shard in first.shards] == [100, 100, 30]
    larger = key_index(
        small, PLAIN, spec(250), store=store, progress=lambda done, total: told.append((done, total))
    )
    assert {total for _, total in told} == {250}
    assert min(done for done, _ in told) == 200  # what the first made is not made again
    assert max(done for done, _ in told) == 250
    query = torch.randn(10)
    assert torch.equal(larger.heat(query)[:200], first.heat(query)[:200])


def test_what_is_finished_when_it_is_cancelled_is_kept(
    small: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index, "SHARD", 100)
    store = Store(tmp_path)

    def stop(done: int, total: int) -> None:
        if done > 100:
            raise Cancelled

    with pytest.raises(Cancelled):
        key_index(small, PLAIN, spec(300), store=store, progress=stop)
    told: list[int] = []
    key_index(small, PLAIN, spec(300), store=store, progress=lambda done, total: told.append(done))
    assert min(told) >= 100


def test_margins_are_no_part_of_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "SAMPLES", 2)
    generator, name, chosen = published(), "L10_84_25", LatentSpec((1,))
    layer = generator.layer(name)
    query = torch.randn(layer.in_channels)
    reading = key_index(generator, name, chosen, store=store).read(query)
    exact = heat(keys_of(generator, name, chosen), query)
    assert layer.key_margin > 0
    assert reading.values.shape == exact.shape == (1, 64, 64)
    assert rms(reading.values - exact) < 1.2 * reading.typical < 0.1 * rms(exact)


def test_one_picture_another_truncation_and_single_positions_are_indexed(store: Store):
    generator = open_generator("face32-dcgan")
    name = next(iter(generator.layers))  # 1 × 1 positions
    chosen = LatentSpec.of((4,), truncation=0.5)
    query = torch.randn(generator.layer(name).in_channels)
    found = key_index(generator, name, chosen, store=store)
    exact = heat(keys_of(generator, name, chosen), query)
    assert exact.shape == (1, 1, 1)
    torch.testing.assert_close(found.heat(query), exact, rtol=0, atol=6 * found.read(query).typical)


def test_an_index_that_is_too_large_is_refused_in_one_line(small: Generator):
    with pytest.raises(
        RequestError, match=r"index of 2,000,000 pictures of layer 'plain', 1\.8 GB.*1 to 1,198,372"
    ):
        key_index(small, PLAIN, spec(2_000_000))
    with pytest.raises(RequestError, match="index of 0 pictures"):
        key_index(small, PLAIN, spec(0))
