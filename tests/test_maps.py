"""Maps: every value of every map, in the order of the pictures, however they were batched."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dashboard.gathering import offered
from rewrite_core.statistics import Along, Batch, Store, fetch, key_of, sweep
from rewrite_core.statistics.maps import Maps
from tests.generators import PLAIN, small_generator, spec


@pytest.fixture(autouse=True)
def alike_each_time() -> None:
    torch.manual_seed(0)


def drawn(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


@settings(derandomize=True, max_examples=30, deadline=None, database=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 5))
def test_any_batches_merged_in_order_are_all_the_maps(sizes: list[int], place: int):
    keys = drawn(sum(sizes))
    parts, first = [], 0
    for size in sizes:
        parts.append(Maps().update(Batch.of(keys[first : first + size], first)))
        first += size
    left, right = Maps(), Maps()
    for part in parts[:place]:
        left = left.merge(part)
    for part in parts[place:]:
        right = right.merge(part)
    found = left.merge(right)
    assert torch.equal(found.maps, keys)
    assert found.seeds == tuple(range(sum(sizes)))


def test_merging_does_not_copy_what_was_seen():
    one, other = (Maps().update(Batch.of(drawn(2, seed))) for seed in (0, 1))
    assert [part.data_ptr() for part in one.merge(other).parts] == [
        part.data_ptr() for part in (*one.parts, *other.parts)
    ]


def test_it_is_restored_from_its_state_and_goes_on():
    found = Maps().update(Batch.of(drawn(2))).update(Batch.of(drawn(1, 1), 2))
    again = Maps().restore(found.state())
    assert torch.equal(again.maps, found.maps)
    assert again.seeds == found.seeds == (0, 1, 2)
    assert Maps().restore({}).parts == Maps().restore(Maps().state()).parts == ()
    assert json.loads(json.dumps(found.summary(), allow_nan=False)) == {
        "units": 3,
        "samples": 3,
        "positions": 20,
        "bytes": 4 * 3 * 3 * 20,
    }


@pytest.mark.parametrize(
    "change",
    [{"maps": torch.zeros(2, 3, 4)}, {"maps": torch.zeros(2, 3, 4, 5).double()}, {"seeds": torch.arange(3)}],
    ids=["three axes", "double", "another number of seeds"],
)
def test_a_state_of_another_form_is_refused(change: dict[str, Tensor]):
    state = {**Maps().update(Batch.of(drawn(2))).state(), **change}
    with pytest.raises(ValueError, match="for"):
        Maps().restore(state)


def test_it_is_not_among_what_is_asked_of_all_units_of_a_layer():
    assert "maps" not in offered()
    assert "maxima" in offered()


def test_half_precision_is_kept_as_float32():
    assert Maps().update(Batch.of(drawn(2).half())).maps.dtype == torch.float32


def test_asked_along_queries_they_are_heat_and_kept(tmp_path: Path):
    generator, queries, store = small_generator(), torch.randn(2, 10), Store(tmp_path)
    asked = Along(queries, Maps())
    found = fetch(generator, PLAIN, spec(30), asked, store=store)
    keys = generator.keys(generator.latents(spec(30)), PLAIN).keys
    expected = torch.einsum("mc,nchw->nmhw", queries, keys)
    torch.testing.assert_close(found.inner.maps, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(
        sweep(generator, spec(30), {PLAIN: [asked]})[PLAIN][0].state()["maps"], found.inner.maps
    )
    assert store.has(key_of(generator, PLAIN, spec(30), asked))
