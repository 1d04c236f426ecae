"""Statistics: merging equals having seen both; an answer is served only to the question that it belongs to."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewrite_core.errors import Cancelled, FileError, LayerError, RequestError
from rewrite_core.files import read_safetensors, write_safetensors
from rewrite_core.generators import Generator, LatentSpec, embedded_names, open_generator
from rewrite_core.statistics import (
    SecondMoment,
    Statistic,
    Store,
    default_store,
    key_of,
    layer_statistics,
    sweep,
)
from tests.generators import DOWN, PLAIN, UP, small_generator, spec

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "statistics")


def some_keys(count: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, 5, 4, generator=torch.Generator().manual_seed(seed)) + 0.5


class Later(SecondMoment):
    """What another release computes."""

    version = 2


def direct(keys: Tensor) -> Tensor:
    """C in float64, straight from the formula."""
    flat = keys.double().movedim(1, -1).flatten(0, -2)  # [N·h·w, C]
    return flat.T @ flat / len(flat)


def seen(keys: Tensor) -> SecondMoment:
    return SecondMoment().update(keys)


class Asked:
    """Counts how many samples are drawn."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


def swept(store: Store, generator: Generator, layer: str, latents: LatentSpec, version: int = 1) -> bool:
    """Whether `store` had to compute the answer."""
    asked = Asked()
    store.fetch(generator, layer, latents, SecondMoment() if version == 1 else Later(), asked)
    return bool(asked.calls)


# Second moment


def test_the_second_moment_is_the_mean_outer_product_over_every_position():
    moment = seen(some_keys())
    assert isinstance(moment, Statistic)
    torch.testing.assert_close(moment.matrix, direct(some_keys()), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(moment.mean, some_keys().double().mean((0, 2, 3)), rtol=1e-12, atol=0)
    assert (moment.positions, moment.samples) == (12 * 20, 12)
    assert moment.matrix.dtype == torch.float64


def test_a_long_sum_does_not_drift():
    keys = torch.rand(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moment = SecondMoment()
    for block in keys.split(25):
        moment = moment.update(block)
    torch.testing.assert_close(moment.matrix, direct(keys), rtol=1e-7, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_any_split_into_batches_gives_the_same_second_moment(seed: int):
    draw = torch.Generator().manual_seed(seed)
    sizes: list[int] = []
    while sum(sizes) < 40:
        sizes.append(int(torch.randint(1, 15, (1,), generator=draw)))
    keys = some_keys(sum(sizes), seed)
    together, moment = seen(keys), SecondMoment()
    for block in keys.split(sizes):
        moment = moment.update(block)
    torch.testing.assert_close(moment.matrix, together.matrix, rtol=1e-8, atol=1e-10)
    assert moment.positions == together.positions


def test_merging_equals_having_seen_both():
    keys = some_keys(20)
    first, second, third = (seen(part) for part in keys.split([3, 9, 8]))
    together = seen(keys)
    for merged in (first.merge(second).merge(third), first.merge(second.merge(third))):
        torch.testing.assert_close(merged.matrix, together.matrix, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(merged.mean, together.mean, rtol=1e-12, atol=1e-14)
        assert merged.samples == together.samples
    assert SecondMoment().merge(first) is first
    assert first.merge(SecondMoment()) is first


def test_a_statistic_is_a_value():
    moment = seen(some_keys())
    kept = moment.matrix.clone()
    moment.update(some_keys(seed=1))
    moment.merge(seen(some_keys(seed=2)))
    assert torch.equal(moment.matrix, kept)


def test_a_second_moment_goes_on_from_its_state():
    first, second = some_keys().split(6)
    resumed = SecondMoment().restore(seen(first).state()).update(second)
    assert torch.equal(resumed.matrix, seen(first).update(second).matrix)
    assert resumed.samples == 12


# One pass


def test_one_sweep_feeds_every_statistic_of_every_layer(small: Generator):
    layers = [UP, PLAIN, DOWN]
    found = sweep(small, spec(30), {layer: [SecondMoment(), SecondMoment()] for layer in layers})
    inputs = small.inputs(small.latents(spec(30)), layers)
    for layer in layers:
        for statistic in found[layer]:
            assert isinstance(statistic, SecondMoment)
            torch.testing.assert_close(statistic.matrix, direct(inputs[layer].keys), rtol=1e-5, atol=1e-6)
            assert statistic.samples == 30


def test_a_sweep_tells_its_progress_and_can_be_cancelled(small: Generator):
    asked = Asked()
    sweep(small, spec(60), {UP: [SecondMoment()]}, asked)
    assert asked.calls == [(25, 60), (50, 60), (60, 60)]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        sweep(small, spec(60), {UP: [SecondMoment()]}, stop)


# The store


def test_a_stored_answer_is_served_bit_for_bit(small: Generator, store: Store):
    first = store.fetch(small, UP, spec(30), SecondMoment())
    assert not swept(store, small, UP, spec(30))
    again = store.fetch(small, UP, spec(30), SecondMoment())
    assert torch.equal(again.matrix, first.matrix)
    assert (again.positions, again.samples) == (first.positions, first.samples)


def test_whatever_the_answer_depends_on_asks_again(small: Generator, store: Store):
    store.fetch(small, UP, spec(5), SecondMoment())
    view = small.with_weights({PLAIN: small.weight(PLAIN) + 1})
    assert swept(store, view, UP, spec(5)), "another weight"
    assert swept(store, small_generator(1), UP, spec(5)), "another model"
    assert swept(store, small, PLAIN, spec(5)), "another layer"
    assert swept(store, small, UP, spec(6)), "more seeds"
    assert swept(store, small, UP, spec(5, first=1)), "other seeds"
    assert swept(store, small, UP, LatentSpec((0, 1, 2, 4, 3))), "another order"
    assert swept(store, small, UP, replace(spec(5), truncation=0.5)), "another truncation"
    assert swept(store, small, UP, replace(spec(5), scheme="rows")), "another scheme"
    assert swept(store, small, UP, spec(5), version=2), "another version of the code"
    assert not swept(store, small, UP, spec(5))


def test_keys_are_short_json(small: Generator):
    key = key_of(small, UP, spec(1000), SecondMoment())
    assert json.loads(json.dumps(key)) == key
    assert key["seeds"] == "0..999"
    assert key_of(small, UP, LatentSpec((3, 5)), SecondMoment())["seeds"] == [3, 5]


def only_file(store: Store) -> Path:
    (path,) = store.folder.glob("*.safetensors")
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def put_another_answer(path: Path) -> None:
    tensors, header = read_safetensors(path, what="a statistic")
    header["key"] = header["key"].replace(UP, PLAIN)
    write_safetensors(path, tensors, header)


def forget_a_tensor(path: Path) -> None:
    tensors, header = read_safetensors(path, what="a statistic")
    del tensors["counts"]
    write_safetensors(path, tensors, header)


def put_a_pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x04.")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [truncate, flip_a_bit, put_another_answer, forget_a_tensor, put_a_pickle, empty]
)
def test_a_damaged_file_is_set_aside_and_computed_again(
    damage: Any, small: Generator, store: Store, caplog: pytest.LogCaptureFixture
):
    first = store.fetch(small, UP, spec(5), SecondMoment())
    path = only_file(store)
    damage(path)
    with caplog.at_level(logging.WARNING):
        again = store.fetch(small, UP, spec(5), SecondMoment())
    assert "set aside" in caplog.text
    assert torch.equal(again.matrix, first.matrix)
    assert path.with_suffix(".damaged").exists()
    assert not swept(store, small, UP, spec(5))


def test_read_only_folders_answer_first_and_are_never_written(small: Generator, store: Store, tmp_path: Path):
    store.fetch(small, UP, spec(5), SecondMoment())
    above = Store(tmp_path / "above", (tmp_path / "missing", store.folder))
    assert not swept(above, small, UP, spec(5))
    assert not above.folder.exists()

    kept = only_file(store).read_bytes()[:-20]
    only_file(store).write_bytes(kept)
    assert swept(above, small, UP, spec(5))
    assert only_file(store).read_bytes() == kept
    assert not swept(above, small, UP, spec(5))


def unwritable_folders(tmp_path: Path) -> list[Path]:
    """Places that even root cannot write to: below a file, and (on Linux) an existing folder."""
    blocker = tmp_path / "file"
    blocker.touch()
    proc = Path("/proc/self")
    return [blocker / "statistics", *([proc] if proc.exists() else [])]


def test_a_folder_that_cannot_be_written_still_serves(
    small: Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    expected = Store(tmp_path / "good").fetch(small, UP, spec(5), SecondMoment())
    for folder in unwritable_folders(tmp_path):
        caplog.clear()
        served = Store(folder).fetch(small, UP, spec(5), SecondMoment())
        assert torch.equal(served.matrix, expected.matrix)
        assert "not stored" in caplog.text
        with pytest.raises(FileError):
            Store(folder).put(key_of(small, UP, spec(5), served), served)


def test_an_unknown_layer_is_refused_before_anything_is_drawn(small: Generator, store: Store):
    with pytest.raises(LayerError, match="layer 'nose'"):
        store.fetch(small, "nose", spec(5), SecondMoment())
    assert not store.folder.exists()


FETCH = """
import sys
from pathlib import Path
from rewrite_core.generators import LatentSpec
from rewrite_core.statistics import SecondMoment, Store
from tests.generators import small_generator
swept = []
store = Store(Path(sys.argv[1]))
generator = small_generator()
print("ready", flush=True)
sys.stdin.readline()
spec = LatentSpec.of(range(500))
moment = store.fetch(generator, "up", spec, SecondMoment(), lambda done, total: swept.append(done))
print(max(swept, default=0), float(moment.matrix.sum()), flush=True)
"""


def test_processes_that_ask_at_once_compute_it_once(tmp_path: Path):
    command = [sys.executable, "-c", FETCH, str(tmp_path / "statistics")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(answer[0] for answer in answers) == ["0", "500"]
    assert answers[0][1] == answers[1][1]


def test_waiting_for_another_can_be_cancelled(small: Generator, store: Store):
    def stop(done: int, total: int) -> None:
        raise Cancelled

    def nested(
        done: int, total: int
    ) -> None:  # while the first holds the lock, another visitor asks and gives up
        with pytest.raises(Cancelled):
            Store(store.folder).fetch(small, UP, spec(5), SecondMoment(), stop)

    store.fetch(small, UP, spec(5), SecondMoment(), nested)
    assert not swept(store, small, UP, spec(5))


def test_a_cancelled_sweep_stores_nothing_and_lets_the_next_one_in(small: Generator, store: Store):
    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        store.fetch(small, UP, spec(5), SecondMoment(), stop)
    assert not list(store.folder.glob("*.safetensors"))
    assert swept(store, small, UP, spec(5))


def test_the_default_store_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    assert default_store().folder == tmp_path / "statistics"


@pytest.mark.parametrize("name", embedded_names())
def test_embedded_generators_start_warm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    generator = open_generator(name)
    for layer in generator.layers:
        asked = Asked()
        layer_statistics(generator, layer, progress=asked)
        assert not asked.calls, layer
    assert not (tmp_path / "statistics").exists()


# What an edit needs to know


def test_layer_statistics_are_of_the_pristine_network(small: Generator, store: Store):
    view = small.with_weights({UP: small.weight(UP) * 2})
    statistics = layer_statistics(view, PLAIN, store=store, samples=60)
    keys = small.keys(small.latents(spec(60)), PLAIN).keys
    assert statistics.fingerprint == small.fingerprint
    torch.testing.assert_close(statistics.second_moment, direct(keys), rtol=1e-5, atol=1e-6)
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
