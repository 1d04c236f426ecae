"""Compact keys: a byte a number, and what is read off them is as near as they say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.statistics import Batch, SecondMoment, Store, fetch, key_of
from rewrite_core.statistics.compact import RIDGE, CompactKeys, compact_bytes
from rewrite_core.statistics.key import name_of
from tests.generators import PLAIN, small_generator, spec

UNITS = 8


@pytest.fixture(autouse=True)
def alike_each_time() -> None:
    torch.manual_seed(0)


def drawn(count: int = 40, seed: int = 0, condition: float = 1e4) -> Tensor:
    """Keys of correlated units, [N, C, h, w]: their second moment has about this condition."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(UNITS, UNITS, generator=torch.Generator().manual_seed(1)))[0]
    scale = torch.logspace(0, -np.log10(condition) / 2, UNITS)
    return torch.einsum("dc,c,nchw->ndhw", turn, scale, torch.randn(count, UNITS, 5, 4, generator=draw))


def moment(keys: Tensor) -> Tensor:
    flat = keys.double().transpose(0, 1).flatten(1)  # [C, P]
    return flat @ flat.T / flat.shape[1]


def seen(keys: Tensor, second_moment: Tensor | None = None, margin: int = 0) -> CompactKeys:
    return CompactKeys(moment(keys) if second_moment is None else second_moment, margin).update(
        Batch.of(keys)
    )


def heat(keys: Tensor, query: Tensor) -> Tensor:
    return torch.einsum("nchw,c->nhw", keys.double(), query.double())


def rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8])
def test_every_query_is_read_as_well_as_every_other(condition: float):
    keys = drawn(condition=condition)
    found, directions = seen(keys), torch.linalg.eigh(moment(keys)).eigenvectors.T
    for query in (*directions, torch.linalg.pinv(moment(keys)) @ keys[3, :, 2, 1].double()):
        exact = heat(keys, query)
        off, stated = rms(found.heat(query) - exact), rms(found.error(query))
        assert 0.75 < off / stated < 1.25
        rare = RIDGE * float(moment(keys).diagonal().mean() * query.square().sum())
        assert stated < 0.015 * (rms(exact) ** 2 + rare) ** 0.5


def test_no_value_is_off_by_more_than_six_times_what_is_stated():
    keys, query = drawn(200), torch.randn(UNITS)
    found = seen(keys)
    assert bool(((found.heat(query) - heat(keys, query)).abs() < 6 * found.error(query)).all())


def test_cosines_are_those_of_whitened_keys():
    keys = drawn()
    found, key = seen(keys), keys[7, :, 1, 2]
    ridged = moment(keys) + RIDGE * moment(keys).diagonal().mean() * torch.eye(UNITS)
    root = torch.linalg.inv(torch.linalg.cholesky(ridged))  # any whitening has the same cosines
    whitened = torch.einsum("dc,nchw->ndhw", root, keys.double())
    expected = torch.cosine_similarity(whitened, (root @ key.double())[None, :, None, None])
    read, error = found.cosine(key)
    assert rms(read - expected) < 1.2 * rms(error) < 0.01
    torch.testing.assert_close(found.exact_cosine(keys, key).double(), expected, rtol=0, atol=1e-3)
    assert int(read.argmax()) == int(expected.argmax()) == 7 * 20 + 1 * 4 + 2
    assert float(found.exact_cosine(keys, key).max()) == pytest.approx(1, abs=1e-5)


def test_a_dead_layer_and_dead_units_give_zeros_and_no_nan():
    dead = torch.zeros(2, UNITS, 5, 4)
    found = seen(dead)
    read, error = found.cosine(torch.ones(UNITS))
    assert not found.heat(torch.ones(UNITS)).any()
    assert not read.any()
    assert not error.any()
    some = drawn()
    some[:, 3] = 0
    found = seen(some)
    query = torch.nn.functional.one_hot(torch.tensor(3), UNITS)
    assert bool(found.heat(query).isfinite().all())
    assert rms(found.heat(query)) < 1e-3 * rms(some)


def test_a_unit_that_its_second_moment_has_never_seen_is_not_lost():
    keys = drawn(condition=1.0)
    keys[:, 3] *= keys[:, 3] > 2
    blind = keys.clone()
    blind[:, 3] = 0
    found = seen(keys, moment(blind))
    query = torch.nn.functional.one_hot(torch.tensor(3), UNITS)
    torch.testing.assert_close(found.heat(query).double(), heat(keys, query), rtol=0.01, atol=1e-3)


def test_a_singular_second_moment_reads_as_well():
    keys = torch.cat([drawn()[:, :4]] * 2, 1)  # rank 4 of 8
    query = torch.randn(UNITS)
    found, exact = seen(keys), heat(keys, query)
    assert rms(found.heat(query) - exact) < 0.02 * rms(exact)


def test_margins_are_left_out():
    keys = drawn()
    inside = seen(keys[..., 1:-1, 1:-1], moment(keys))
    assert torch.equal(seen(keys, moment(keys), margin=1).codes[0], inside.codes[0])


@settings(derandomize=True, max_examples=25, deadline=None, database=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 5))
def test_merging_is_seeing_one_after_the_other(sizes: list[int], place: int):
    keys = drawn(sum(sizes))
    empty = CompactKeys(moment(keys))
    parts = [empty.update(Batch.of(part)) for part in keys.split(sizes)]
    left, right = empty, empty
    for part in parts[:place]:
        left = left.merge(part)
    for part in parts[place:]:
        right = right.merge(part)
    found, query = left.merge(right), torch.randn(UNITS)
    whole = empty
    for part in keys.split(sizes):
        whole = whole.update(Batch.of(part))
    assert torch.equal(found.heat(query), whole.heat(query))
    assert found.samples == sum(sizes)


def test_it_is_restored_from_its_state_and_says_its_size():
    found = seen(drawn())
    again = CompactKeys(found.second_moment).restore(found.state())
    query = torch.randn(UNITS)
    assert torch.equal(again.heat(query), found.heat(query))
    assert found.nbytes == 40 * compact_bytes(UNITS, 20)
    said = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert said == {"units": UNITS, "samples": 40, "positions": 20, "bytes": found.nbytes + 4 * UNITS**2}
    assert CompactKeys(found.second_moment).restore({}).samples == 0
    assert CompactKeys(found.second_moment).summary() == {"samples": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"codes": torch.zeros(40, 5, 4, UNITS + 1, dtype=torch.int8)},
        {"scales": torch.zeros(40, 5, 5)},
        {"basis": torch.zeros(UNITS, UNITS).double()},
    ],
    ids=["units", "positions", "double"],
)
def test_a_state_of_another_form_is_refused(change: dict[str, Tensor]):
    found = seen(drawn())
    with pytest.raises(ValueError, match="shape"):
        found.restore({**found.state(), **change})


def test_what_does_not_fit_is_refused_in_one_line():
    with pytest.raises(RequestError, match="second moment of shape"):
        CompactKeys(torch.zeros(3, 4))
    with pytest.raises(RequestError, match="second moment of shape"):
        CompactKeys(torch.full((3, 3), torch.nan))
    with pytest.raises(RequestError, match="of 4 units for a layer of 8"):
        CompactKeys(torch.eye(4)).update(Batch.of(drawn()))


def test_its_key_follows_from_the_second_moment():
    one, other = (CompactKeys(moment(drawn(seed=seed))).parameters() for seed in (0, 1))
    assert one == CompactKeys(moment(drawn())).parameters() != other


# On disk


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Store, Path, CompactKeys]:
    """A store with the compact keys of 30 pictures, and the file that they are in."""
    generator, store = small_generator(), Store(tmp_path)
    empty = CompactKeys(fetch(generator, PLAIN, spec(30), SecondMoment(), store=store).matrix)
    found = fetch(generator, PLAIN, spec(30), empty, store=store)
    return store, tmp_path / f"{name_of(key_of(generator, PLAIN, spec(30), empty))}.safetensors", found


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_a_stored_file_is_mapped_and_survives_being_deleted(kept: tuple[Store, Path, CompactKeys]):
    store, path, found = kept
    again = fetch(small_generator(), PLAIN, spec(30), CompactKeys(found.second_moment), store=store)
    assert str(path) in Path("/proc/self/maps").read_text()
    path.unlink()
    assert torch.equal(again.heat(torch.ones(10)), found.heat(torch.ones(10)))


@pytest.mark.parametrize("place", [0.3, 0.9], ids=["within", "near the end"])
def test_a_damaged_file_is_set_aside_and_made_again(place: float, kept: tuple[Store, Path, CompactKeys]):
    store, path, found = kept
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    (entry,) = [entry for entry in store.entries() if entry.path == path]
    assert "wrong checksum" in store.verify(entry)
    again = fetch(small_generator(), PLAIN, spec(30), CompactKeys(found.second_moment), store=store)
    assert path.with_suffix(".damaged").exists()
    assert torch.equal(again.heat(torch.ones(10)), found.heat(torch.ones(10)))
    assert store.verify(entry) == ""


def test_a_file_cut_short_is_set_aside(kept: tuple[Store, Path, CompactKeys]):
    store, path, found = kept
    path.write_bytes(path.read_bytes()[:-100])
    fetch(small_generator(), PLAIN, spec(30), CompactKeys(found.second_moment), store=store)
    assert path.with_suffix(".damaged").exists()
