"""Matches: heat over many pictures, the pictures that show most of it, and the level that outlines it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rewrite_core.directions import swept
from rewrite_core.directions.index import moment_of
from rewrite_core.directions.matches import Matches, matches, nearest, search
from rewrite_core.errors import Cancelled, LayerError, PalimpsestError, RequestError
from rewrite_core.generators import Generator, LatentSpec, from_sequential, open_generator
from rewrite_core.memory import whiten
from rewrite_core.statistics import Store, default_store
from rewrite_core.statistics.compact import RIDGE
from tests.generators import PLAIN, small_generator, spec


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def query() -> torch.Tensor:
    return torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def found(small: Generator, query: torch.Tensor) -> Matches:
    return matches(small, PLAIN, query, spec(60, first=100))


def test_heat_is_the_query_at_every_position_of_every_picture(
    small: Generator, query: torch.Tensor, found: Matches
):
    keys = small.keys(small.latents(found.spec), PLAIN).keys.double()
    expected = torch.einsum("nchw,c->nhw", keys, query)
    torch.testing.assert_close(found.heat.double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.of(103), found.heat[3])


def test_the_best_pictures_come_first_by_their_seeds(found: Matches):
    peaks = {seed: float(found.of(seed).max()) for seed in found.spec.seeds}
    best = found.top(60)
    assert best == sorted(peaks, key=lambda seed: -peaks[seed])
    assert found.top(5) == best[:5]
    assert set(best) == set(range(100, 160))


def test_equal_pictures_keep_their_order():
    assert Matches(spec(4, first=9), torch.zeros(4, 2, 2)).top(3) == [9, 10, 11]


def test_the_level_is_the_quantile_over_all_positions_of_all_pictures(found: Matches):
    for quantile in (0.5, 0.999):
        expected = float(np.quantile(found.heat.numpy().astype(np.float64), quantile))
        assert found.level(quantile) == pytest.approx(expected, abs=1e-6)
    share = float((found.heat > found.level()).float().mean())
    assert 0.0005 < share <= 0.0015


def test_any_block_of_pictures_matches_the_same(small: Generator, query: torch.Tensor, found: Matches):
    part = matches(small, PLAIN, query, spec(25, first=125))
    assert torch.equal(part.heat, found.heat[25:50])


def test_progress_is_told_and_may_cancel(small: Generator, query: torch.Tensor):
    told: list[tuple[int, int]] = []
    matches(small, PLAIN, query, spec(30), lambda done, total: told.append((done, total)))
    assert told == [(25, 30), (30, 30)]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        matches(small, PLAIN, query, spec(30), stop)


def test_no_pictures_match_nothing(small: Generator, query: torch.Tensor):
    nothing = matches(small, PLAIN, query, spec(0))
    assert nothing.heat.shape == (0, 8, 8)
    assert nothing.top(3) == []
    with pytest.raises(RequestError, match="of 0 values"):
        nothing.level()


def test_an_unknown_layer_is_refused(small: Generator, query: torch.Tensor):
    with pytest.raises(LayerError, match="layer 'nose'"):
        matches(small, "nose", query, spec())


# What a page shows of it


def test_the_worst_and_the_middle_pictures_are_in_the_order_of_their_scores():
    scores = [3.0, 1.0, 2.0, 1.0, 5.0]
    found = Matches(spec(5, first=10), torch.tensor(scores).reshape(5, 1, 1))
    assert found.top(5) == [14, 10, 12, 11, 13]
    assert found.bottom(2) == [11, 13]
    assert found.middle(1) == [12]
    assert found.middle(3) == [10, 12, 11]
    assert found.middle(9) == found.top(9)
    assert found.scores.tolist() == scores


def test_the_best_place_and_the_share_below_a_value(found: Matches):
    row, column = found.best(103)
    assert found.of(103)[row, column] == found.of(103).max()
    value = float(found.heat[5, 2, 3])
    assert found.quantile_of(value) == pytest.approx(float((found.heat < value).float().mean()))
    assert (found.quantile_of(-1e9), found.quantile_of(1e9)) == (0, 1)
    assert found.quantile_of(found.level(0.9)) == pytest.approx(0.9, abs=1e-3)


def test_the_table_has_a_row_for_each_picture_best_first(found: Matches):
    table = found.table()
    assert list(table) == ["seed", "score", "rank", "row", "column"]
    assert list(table["seed"]) == found.top(60)
    assert list(table["rank"]) == list(range(1, 61))
    for picture in table.head(5).to_dict("records"):
        assert picture["score"] == float(found.of(picture["seed"]).max())
        assert (picture["row"], picture["column"]) == found.best(picture["seed"])
    assert Matches(spec(0), torch.empty(0, 2, 2)).table().empty


# Off an index


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("statistics"), default_store().beneath)


def test_a_search_names_the_same_best_pictures_with_the_same_scores(
    small: Generator, query: torch.Tensor, store: Store
):
    exact = matches(small, PLAIN, query, spec(300))
    found = search(small, PLAIN, query, spec(300), store=store)
    assert not found.exact
    assert found.sure >= 24
    assert found.top(24) == exact.top(24)
    for seed in found.top(24):
        torch.testing.assert_close(found.of(seed), exact.of(seed), rtol=1e-5, atol=1e-5)
    off = (found.heat - exact.heat).square().mean().sqrt()
    assert 0 < float(off) < 1.2 * found.error
    assert found.outline == pytest.approx(exact.outline, abs=3 * found.error)


def test_on_a_real_generator_the_best_24_are_those_of_an_exact_search(store: Store):
    generator, chosen = open_generator("anime64-dcgan"), LatentSpec.of(range(400))
    layer = generator.default_layer
    key = generator.keys(generator.latents(LatentSpec((5,))), layer).keys[0, :, 6, 5].double()
    query = whiten(moment_of(generator, layer, store=store).matrix).inverse @ key
    exact = matches(generator, layer, query, chosen)
    found = search(generator, layer, query, chosen, store=store)
    assert found.top(24) == exact.top(24)
    assert found.error < 0.02 * float(exact.heat.square().mean().sqrt())
    assert found.outline == pytest.approx(exact.outline, abs=found.error)


def test_few_pictures_and_too_many_for_an_index_are_drawn(
    small: Generator, query: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    few = search(small, PLAIN, query, spec(90), store=Store(tmp_path / "few"))
    assert few.exact
    assert few.sure == 90
    assert few.error == 0
    assert not Store(tmp_path / "few").entries()
    monkeypatch.setattr("rewrite_core.directions.matches.INDEX_BYTES", 1000)
    store = Store(tmp_path / "many")
    many = search(small, PLAIN, query, spec(130), store=store)
    assert many.exact
    assert [entry.key["statistic"] for entry in store.entries()] == ["along"]
    torch.testing.assert_close(many.heat, matches(small, PLAIN, query, spec(130)).heat, rtol=1e-5, atol=1e-5)


def test_a_search_may_ask_for_more_exact_ranks(small: Generator, query: torch.Tensor, store: Store):
    found = search(small, PLAIN, query, spec(300), store=store, ranks=70)
    assert found.sure >= 70
    assert found.top(70) == matches(small, PLAIN, query, spec(300)).top(70)


def test_a_query_that_matches_nothing_leaves_the_pictures_in_their_order(small: Generator, store: Store):
    found = search(small, PLAIN, torch.zeros(10), spec(300), store=store)
    assert found.top(3) == [0, 1, 2]
    assert not found.heat.any()


# What else the layer treats as a place


@pytest.mark.parametrize("count", [60, 300], ids=["drawn", "off an index"])
def test_the_picked_place_is_its_own_best_match(small: Generator, store: Store, count: int):
    found = nearest(small, PLAIN, 41, (2, 6), spec(count), store=store)
    assert found.top(1) == [41]
    assert found.best(41) == (2, 6)
    assert float(found.of(41).max()) == pytest.approx(1, abs=1e-5)
    assert float(found.heat.abs().max()) < 1 + 1e-5


def test_likeness_is_the_cosine_of_whitened_keys(small: Generator, store: Store):
    found = nearest(small, PLAIN, 500, (2, 6), spec(30), store=store)  # a picture that is not searched
    moment = moment_of(small, PLAIN, store=store).matrix
    zca = whiten(moment + RIDGE * moment.diagonal().mean() * torch.eye(10)).zca
    key = small.keys(small.latents(LatentSpec((500,))), PLAIN).keys[0, :, 2, 6].double()
    keys = small.keys(small.latents(spec(30)), PLAIN).keys.double()
    whitened = torch.einsum("dc,nchw->ndhw", zca, keys)
    expected = torch.cosine_similarity(whitened, (zca @ key)[None, :, None, None])
    torch.testing.assert_close(found.heat.double(), expected, rtol=0, atol=1e-4)


def test_a_place_outside_the_layer_is_refused(small: Generator, store: Store):
    with pytest.raises(RequestError, match=r"row 2, column 8.*8 × 8 positions"):
        nearest(small, PLAIN, 0, (2, 8), spec(30), store=store)


def test_a_place_where_the_layer_is_silent_is_refused(store: Store):
    silent = from_sequential(
        nn.Sequential(
            nn.Linear(4, 12),
            nn.Unflatten(1, (3, 2, 2)),
            nn.Threshold(1e9, 0.0),
            nn.Conv2d(3, 3, 1),
            nn.Tanh(),
        ),
        name="silent",
    )
    with pytest.raises(RequestError, match="nothing but zeros at row 0, column 1 of picture 4"):
        nearest(silent, next(iter(silent.layers)), 4, (0, 1), spec(5), store=store)


# What cannot be


def test_more_heat_than_there_is_room_for_is_refused(
    small: Generator, query: torch.Tensor, store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(swept, "HEAT_BYTES", 4 * 64 * 20)
    for kept in (None, store):
        with pytest.raises(RequestError, match=r"heat of 21 pictures at 8 × 8.*at most 20 pictures"):
            matches(small, PLAIN, query, spec(21), store=kept)


def test_heat_that_is_no_number_is_refused(small: Generator):
    with pytest.raises(PalimpsestError, match=r"NaN or infinite at layer 'plain' in pictures 0 to 2"):
        matches(small, PLAIN, torch.full((10,), 3e38), spec(3))


def test_with_a_store_heat_is_kept_and_goes_on(small: Generator, query: torch.Tensor, tmp_path: Path):
    store, told = Store(tmp_path), []
    first = matches(small, PLAIN, query, spec(60), store=store)
    again = matches(small, PLAIN, query, spec(60), lambda *done: told.append(done), store=store)
    assert not told
    assert torch.equal(again.heat, first.heat)
    torch.testing.assert_close(first.heat, matches(small, PLAIN, query, spec(60)).heat, rtol=1e-5, atol=1e-5)
