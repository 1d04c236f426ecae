"""Directions of a context: against the published arrays, the formulas, and where there is no answer."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from rewrite_core.directions import METHODS, ContextSettings, Direction, context_direction
from rewrite_core.directions.context import Evidence, oriented, steered
from rewrite_core.errors import MaskError, PalimpsestError, RequestError
from rewrite_core.memory import Observations, observe, outside, second_moment_of, whiten

LAYERS = ("sg_layer6", "sg_layer7", "pg_layer6")
REFERENCE = Path(__file__).parent / "reference"
FIRST_MASK = 40  # rows of obs_selected that the first context mask selects
LEVELS = (0.0, 0.01, 0.5, 0.99, 0.999, 1.0)


@pytest.fixture(params=LAYERS)
def published(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    with np.load(REFERENCE / f"{request.param}_context.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def seen_in(published: dict[str, Tensor], rows: int | None = None) -> Observations:
    return Observations(published["obs_selected"][:rows].double(), published["obs_weight"][:rows].double())


def papers_own(method: str, published: dict[str, Tensor], rank: int, rows: int | None = None) -> Direction:
    """The paper's own mode: neither ridge nor contrast."""
    settings = ContextSettings.model_validate({"method": method, "ridge": 0.0})
    return context_direction(seen_in(published, rows), published["C"], rank, settings, layer="layer6")


def published_side(published: dict[str, Tensor], rows: int | None = None) -> Tensor:
    """What the published code orients a direction by: the sum of the whitened, weighted keys."""
    seen = seen_in(published, rows)
    return seen.weights @ (seen.keys @ whiten(published["C"]).zca)


def context(units: int = 6, positions: int = 20, seed: int = 0) -> tuple[Observations, Tensor]:
    """Keys that share something, and the second moment of many that do not."""
    draw = torch.Generator().manual_seed(seed)
    everything = torch.randn(500, units, generator=draw, dtype=torch.float64) @ torch.diag(
        torch.arange(1.0, units + 1, dtype=torch.float64)
    )
    shared = torch.randn(units, generator=draw, dtype=torch.float64)
    keys = everything[:positions] + 3 * shared
    weights = torch.rand(positions, generator=draw, dtype=torch.float64) + 0.1
    return Observations(keys, weights), everything.T @ everything / 500


def ask(
    seen: Observations, second_moment: Tensor, rank=1, settings: dict[str, Any] | None = None, **more: Any
):
    chosen = ContextSettings.model_validate(settings or {})
    return context_direction(seen, second_moment, rank, chosen, layer="l05", **more)


# The published arrays


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_zca_reproduces_the_published_directions(published: dict[str, Tensor], rank: int):
    vectors = oriented(papers_own("zca", published, rank).vectors, published_side(published))
    torch.testing.assert_close(vectors.float(), published[f"d_zca_rank{rank}"], rtol=0, atol=5e-5)


def test_zca_reproduces_the_published_direction_of_the_first_mask_alone(published: dict[str, Tensor]):
    found = papers_own("zca", published, 1, rows=FIRST_MASK)
    vectors = oriented(found.vectors, published_side(published, FIRST_MASK))
    torch.testing.assert_close(vectors.float(), published["d_zca_firstkeyonly_rank1"], rtol=0, atol=5e-5)


def test_svd_reproduces_the_published_directions(published: dict[str, Tensor]):
    vectors, golden = papers_own("svd", published, 3).vectors, published["d_svd_rank3"].double()
    first = oriented(vectors, papers_own("mean", published, 1).vectors[0])[0]
    torch.testing.assert_close(first, golden[0], rtol=0, atol=5e-5)
    signs = (vectors * golden).sum(1, keepdim=True).sign()  # those of later rows are whatever LAPACK gave
    torch.testing.assert_close(signs * vectors, golden, rtol=0, atol=5e-5)


def test_mean_reproduces_the_published_direction(published: dict[str, Tensor]):
    vectors = papers_own("mean", published, 1).vectors
    torch.testing.assert_close(vectors.float(), published["d_mean_rank1"], rtol=0, atol=5e-5)


def test_gandissect_finds_the_published_units_as_far_as_six_quantiles_tell(published: dict[str, Tensor]):
    quantiles = published["unit_quantiles_0_.01_.5_.99_.999_1"].numpy()
    shares = (np.arange(5000) + 0.5) / 5000
    sample = torch.from_numpy(np.stack([np.interp(shares, LEVELS, unit) for unit in quantiles], axis=1))
    found = ask(
        seen_in(published), published["C"], 6, {"method": "gandissect", "ridge": 0.0}, unit_sample=sample
    )
    golden = published["d_gandissect_rank5"].argmax(1).tolist()
    assert set(golden) <= set(found.vectors.argmax(1).tolist())


# The formulas


def test_a_direction_of_rank_1_is_the_query_for_the_leading_combination_of_the_keys():
    seen, moment = context()
    weighted = seen.weights[:, None] * seen.keys
    combination = torch.linalg.svd(weighted @ whiten(moment).zca).U[:, 0] @ weighted  # [C]
    query = torch.linalg.solve(moment, combination)
    cosine = torch.cosine_similarity(ask(seen, moment, settings={"ridge": 0.0}).vectors[0], query, dim=0)
    assert abs(cosine.item()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("method", ["zca", "svd"])
def test_directions_are_orthonormal_nested_and_positive_on_what_was_painted(method: str):
    seen, moment = context()
    found, two = (ask(seen, moment, rank, {"method": method}) for rank in (4, 2))
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(found.head(2).vectors, two.vectors)
    assert (found.vectors @ (seen.weights @ seen.keys) >= 0).all()
    assert len(found.singular_values) == 6
    assert (found.singular_values.diff() <= 0).all()


def test_a_context_made_of_two_keys_shows_two_singular_values():
    _, moment = context()
    keys = torch.eye(6, dtype=torch.float64)[torch.tensor([0, 1] * 10)]
    found = ask(Observations(keys, torch.ones(20, dtype=torch.float64)), moment, rank=2)
    assert (found.singular_values > 1e-10).sum() == 2


def test_the_pattern_of_the_query_for_a_key_is_that_key():
    _, moment = context()
    key = torch.arange(1.0, 7.0, dtype=torch.float64)
    found = ask(Observations(key[None], torch.ones(1, dtype=torch.float64)), moment, settings={"ridge": 0.0})
    pattern = found.pattern(moment)[0]
    torch.testing.assert_close(pattern / pattern.norm(), key / key.norm())


def test_gandissect_gives_one_hot_units_that_are_high_for_themselves_and_never_a_dead_one():
    draw = torch.Generator().manual_seed(0)
    sample = torch.randn(200, 5, generator=draw).double() * torch.tensor([1.0, 100.0, 1.0, 1.0, 0.0])
    keys = torch.tensor([[0.0, 10.0, 2.5, 1.0, 0.0]]).double()  # unit 1 is large, but not for itself
    seen, moment = Observations(keys, torch.ones(1).double()), sample.T @ sample / 200
    found = ask(seen, moment, rank=4, settings={"method": "gandissect"}, unit_sample=sample)
    assert found.vectors.sum(1).tolist() == [1.0] * 4
    assert found.vectors.argmax(1).tolist()[:2] == [2, 3]
    with pytest.raises(RequestError, match="rank 5; expected 1 to 4"):
        ask(seen, moment, rank=5, settings={"method": "gandissect"}, unit_sample=sample)


def test_plain_is_the_mean_key_whatever_the_second_moment():
    seen, moment = context()
    key = seen.weights @ seen.keys / seen.weights.sum()
    for metric in (moment, torch.eye(6, dtype=torch.float64)):
        found = ask(seen, metric, settings={"method": "plain"})
        torch.testing.assert_close(found.vectors[0], key / key.norm())
        assert found.singular_values.tolist() == [1.0]
    with pytest.raises(RequestError, match="rank 2; expected 1 to 1"):
        ask(seen, moment, rank=2, settings={"method": "plain"})
    white = ask(seen, torch.eye(6, dtype=torch.float64), settings={"method": "mean", "ridge": 0.0})
    torch.testing.assert_close(found.vectors, white.vectors)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_direction_keeps_the_mean_key_and_its_generator(method: str):
    seen, moment = context()
    found = ask(
        seen, moment, settings={"method": method}, unit_sample=seen.keys, model="small", fingerprint="ab" * 32
    )
    assert found.key is not None
    torch.testing.assert_close(found.key, seen.weights @ seen.keys / seen.weights.sum())
    assert (found.model, found.fingerprint) == ("small", "ab" * 32)
    assert Direction.load(found.to_bytes()) == found


def test_the_steered_second_moment_is_the_sum_of_its_terms():
    _, moment = context()
    rest, protected = torch.eye(6).double(), torch.ones(6, 6).double()
    settings = ContextSettings(ridge=0.1, contrast=2.0, protect=5.0)
    expected = moment + 0.1 * moment.trace() / 6 * torch.eye(6) + 2.0 * rest + 5.0 * protected
    torch.testing.assert_close(steered(moment, settings, rest=rest, protected=protected), expected)
    plain = ContextSettings(ridge=0.0)
    torch.testing.assert_close(steered(moment, plain, rest=rest), moment)
    torch.testing.assert_close(steered(moment, plain), moment)


@pytest.mark.parametrize("term", ["contrast", "protect"])
def test_contrast_and_protection_turn_the_direction_away_from_their_region(term: str):
    draw = torch.Generator().manual_seed(1)
    keys, areas = torch.randn(2, 6, 8, 8, generator=draw), torch.zeros(2, 8, 8)
    areas[:, :4] = 1.0
    _, moment = context()
    seen, region = observe(keys, areas), observe(keys, outside(areas))
    other: dict[str, Any] = {"rest" if term == "contrast" else "protected": second_moment_of(region)}
    found = [ask(seen, moment, 1, {term: weight}, **other).vectors[0] for weight in (0.0, 10.0, 1000.0)]
    power = [((region.keys @ d).square().mean() / (seen.keys @ d).square().mean()).item() for d in found]
    assert power[0] > power[1] > power[2]


def test_oriented_turns_rows_and_leaves_perpendicular_ones():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.5, 0.5]])
    assert oriented(vectors, torch.tensor([-1.0, 0.0])).tolist() == [[-1.0, 0.0], [0.0, 1.0], [-0.5, 0.5]]


def test_a_direction_says_where_it_came_from_in_json():
    seen, moment = context()
    found = ask(seen, moment, rank=2, name="eyes", provenance={"seeds": [2, 5]})
    assert (found.layer, found.method, found.name, found.rank) == ("l05", "zca", "eyes", 2)
    told = json.loads(json.dumps(found.provenance))
    assert told["seeds"] == [2, 5]
    assert told["observations"] == 20
    assert ContextSettings.parse(told["settings"], "the rule") == ContextSettings()
    assert 1 < told["effective_rank"] <= 6


def test_every_method_of_the_settings_is_registered():
    assert set(get_args(ContextSettings.model_fields["method"].annotation)) == set(METHODS)


# Where there is little to go by


@pytest.mark.parametrize("method", ["zca", "svd", "mean"])
def test_one_observation_gives_its_own_query(method: str):
    _, moment = context()
    key = torch.arange(-2.0, 4.0, dtype=torch.float64)
    seen = Observations(key[None], torch.tensor([0.3], dtype=torch.float64))
    query = torch.linalg.solve(moment, key)
    found = ask(seen, moment, settings={"method": method, "ridge": 0.0})
    torch.testing.assert_close(found.vectors[0], query / query.norm())
    with pytest.raises(RequestError, match="rank 2; expected 1 to 1"):
        ask(seen, moment, rank=2, settings={"method": method})


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_dead_units_take_no_part_in_any_direction(ridge: float):
    seen, moment = context()
    dead = torch.ones(6, dtype=torch.float64)
    dead[2] = 0
    seen, moment = Observations(seen.keys * dead, seen.weights), moment * dead * dead[:, None]
    for method in ("zca", "svd", "mean", "plain"):
        found = ask(seen, moment, settings={"method": method, "ridge": ridge})
        assert found.vectors[0, 2] == pytest.approx(0, abs=1e-15)
    with pytest.raises(RequestError, match="rank 6; expected 1 to 5"):
        ask(seen, moment, rank=6, settings={"ridge": ridge})


def test_a_singular_second_moment_gives_directions_inside_what_it_spans():
    draw = torch.Generator().manual_seed(0)
    basis = torch.randn(3, 6, generator=draw, dtype=torch.float64)
    everything = torch.randn(50, 3, generator=draw, dtype=torch.float64) @ basis
    seen = Observations(everything[:10], torch.ones(10, dtype=torch.float64))
    found = ask(seen, everything.T @ everything / 50, rank=3, settings={"ridge": 0.0})
    inside = torch.linalg.lstsq(basis.T, found.vectors.T).solution.T @ basis
    torch.testing.assert_close(inside, found.vectors)
    with pytest.raises(RequestError, match="rank 4; expected 1 to 3"):
        ask(seen, everything.T @ everything / 50, rank=4, settings={"ridge": 0.0})


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_1_is_refused(rank: int):
    seen, moment = context()
    with pytest.raises(RequestError, match=f"rank {rank}; expected 1 to 6"):
        ask(seen, moment, rank=rank)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_context_of_zero_area_is_refused(method: str):
    empty = observe(torch.ones(2, 6, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(MaskError, match="cover no position"):
        ask(empty, torch.eye(6), settings={"method": method}, unit_sample=torch.randn(10, 6))
    unweighted = Observations(torch.ones(3, 6).double(), torch.zeros(3).double())
    with pytest.raises(MaskError, match="cover no position"):
        ask(unweighted, torch.eye(6), settings={"method": method}, unit_sample=torch.randn(10, 6))


@pytest.mark.parametrize("method", ["zca", "svd", "mean", "plain"])
def test_a_context_where_the_layer_says_nothing_is_refused(method: str):
    with pytest.raises(MaskError, match=r"keys are (all )?zero"):
        ask(observe(torch.zeros(1, 6, 4, 4), torch.ones(1, 4, 4)), torch.eye(6), settings={"method": method})


def test_settings_that_lack_their_input_are_refused():
    seen, moment = context()
    with pytest.raises(RequestError, match="contrast 3 without the rest"):
        ask(seen, moment, settings={"contrast": 3.0})
    with pytest.raises(RequestError, match="gandissect without a sample"):
        ask(seen, moment, settings={"method": "gandissect"})


def test_nan_in_any_second_moment_is_refused():
    seen, moment = context()
    with pytest.raises(PalimpsestError, match="NaN or infinite values in the second moment"):
        ask(seen, moment, protected=torch.full((6, 6), float("nan")))


@pytest.mark.parametrize(
    "bad", [{"ridge": -0.1}, {"contrast": -1}, {"protect": float("nan")}, {"method": "pca"}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]):
    with pytest.raises(RequestError, match=f"the edit: {next(iter(bad))} is "):
        ContextSettings.parse(bad, "the edit")


def test_evidence_without_a_unit_sample_serves_the_other_methods():
    seen, moment = context()
    vectors, strengths = METHODS["zca"](Evidence(seen, whiten(moment)), 2)
    assert vectors.shape == (2, 6)
    assert strengths.shape == (6,)
