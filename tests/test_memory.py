"""Whitening, observations, unit ranks and heat: against the published arrays, and against brute force."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rewrite_core.errors import MaskError, PalimpsestError, RequestError
from rewrite_core.memory import (
    SPECTRAL_CUT,
    Observations,
    heat,
    level,
    matching_query,
    observe,
    outside,
    rank_images,
    regularised,
    score,
    second_moment_of,
    unit_energy,
    unit_quantile,
    weighted_mean,
    whiten,
)

LAYERS = ("sg_layer6", "sg_layer7", "pg_layer6")
REFERENCE = Path(__file__).parent / "reference"
FIRST_MASK = 40  # rows of obs_selected that the first context mask selects


def load(name: str) -> dict[str, Tensor]:
    with np.load(REFERENCE / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.fixture(params=LAYERS)
def published(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    return load(f"{request.param}_context")


def seen_in(published: dict[str, Tensor], rows: int | None = None) -> Observations:
    return Observations(published["obs_selected"][:rows].double(), published["obs_weight"][:rows].double())


def sample_moment(units: int, positions: int, seed: int = 0) -> Tensor:
    keys = torch.randn(positions, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return keys.T @ keys / positions


def some_keys(n: int = 3, units: int = 4, size: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(n, units, size, size, generator=torch.Generator().manual_seed(seed))


# Whitening


def test_whitening_reproduces_the_published_arrays(published: dict[str, Tensor]):
    whitening, probe = whiten(published["C"]), published["probe_k"].double()
    torch.testing.assert_close(whitening.zca.float(), published["zca"], rtol=0, atol=5e-6)
    torch.testing.assert_close((probe @ whitening.zca).float(), published["zca_probe"], rtol=0, atol=5e-6)
    query = (probe @ whitening.inverse).float()
    torch.testing.assert_close(query, published["Cinv_probe"], rtol=1e-5, atol=1e-4)


def test_the_second_moment_holds_the_mean_square_of_each_unit(published: dict[str, Tensor]):
    power = published["C"].diagonal()
    torch.testing.assert_close(power, published["mean_square_per_unit"], rtol=0, atol=2e-4)


@pytest.mark.parametrize("positions", [3, 6, 200], ids=["few positions", "barely enough", "plenty"])
def test_whitened_keys_are_uncorrelated_where_there_are_any(positions: int):
    moment = sample_moment(units=6, positions=positions)
    whitening = whiten(moment)
    projector = whitening.zca @ moment @ whitening.zca
    torch.testing.assert_close(projector @ projector, projector)
    torch.testing.assert_close(projector.trace().item(), float(min(positions, 6)))
    torch.testing.assert_close(whitening.zca @ whitening.zca, whitening.inverse)
    assert whitening.rank == min(positions, 6)


def test_dead_units_are_left_out_and_the_others_are_whitened_as_if_alone():
    moment = torch.zeros(5, 5, dtype=torch.float64)
    living = torch.tensor([0, 2, 3])
    moment[living[:, None], living] = sample_moment(units=3, positions=50)
    whitening, alone = whiten(moment, ridge=0.1), whiten(moment[living[:, None], living], ridge=0.1)
    assert whitening.alive.tolist() == [True, False, True, True, False]
    assert whitening.zca[~whitening.alive].abs().sum() == 0
    torch.testing.assert_close(whitening.zca[living[:, None], living], alone.zca)
    torch.testing.assert_close(whitening.eigenvalues, alone.eigenvalues)


def test_a_second_moment_of_zeros_whitens_everything_to_zero():
    whitening = whiten(torch.zeros(4, 4), ridge=0.1)
    assert whitening.zca.tolist() == whitening.inverse.tolist() == torch.zeros(4, 4).tolist()
    assert (whitening.rank, whitening.effective_rank, whitening.condition) == (0, 0.0, float("inf"))


def test_eigenvalues_below_the_cut_are_discarded_and_those_above_are_kept():
    spectrum = torch.tensor([1.0, 2 * SPECTRAL_CUT, SPECTRAL_CUT / 2], dtype=torch.float64)
    whitening = whiten(torch.diag(spectrum))
    assert whitening.rank == 2
    assert whitening.condition == pytest.approx(0.5 / SPECTRAL_CUT)
    assert whitening.zca[2, 2] == 0


def test_a_negative_eigenvalue_from_rounding_is_no_nan():
    moment = torch.tensor([[1.0, 1 + 1e-7], [1 + 1e-7, 1.0]], dtype=torch.float64)
    whitening = whiten(moment)
    assert whitening.zca.isfinite().all()
    assert whitening.eigenvalues[-1] == 0


def test_the_ridge_is_in_units_of_the_mean_power_of_the_living_units():
    moment = torch.diag(torch.tensor([3.0, 0.0, 1.0]))
    assert regularised(moment, 0.5).diagonal().tolist() == [4.0, 0.0, 2.0]
    assert torch.equal(regularised(moment, 0.0), moment.double())


def test_a_ridge_lowers_the_condition_and_raises_the_effective_rank():
    moment = sample_moment(units=6, positions=8)
    plain, ridged = whiten(moment), whiten(moment, ridge=0.1)
    assert ridged.condition < plain.condition
    assert plain.effective_rank < ridged.effective_rank <= 6
    assert whiten(torch.eye(6)).effective_rank == pytest.approx(6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_second_moment_with_nan_is_refused_in_one_line(bad: float):
    moment = torch.eye(3)
    moment[1, 1] = bad
    with pytest.raises(PalimpsestError, match="NaN or infinite values in the second moment") as caught:
        whiten(moment)
    assert "\n" not in str(caught.value)


# Observations


def test_observations_are_the_keys_under_the_mask_with_their_areas():
    keys, areas = some_keys(n=2), torch.zeros(2, 5, 5)
    areas[0, 1, 2], areas[0, 0, 4], areas[1, 3, 3] = 1.0, 0.25, 0.5
    seen = observe(keys, areas)
    assert seen.weights.tolist() == [0.25, 1.0, 0.5]
    expected = torch.stack([keys[0, :, 0, 4], keys[0, :, 1, 2], keys[1, :, 3, 3]])
    assert torch.equal(seen.keys, expected.double())


def test_one_picture_may_come_without_a_batch_axis():
    keys, areas = some_keys(n=1), torch.rand(1, 5, 5)
    assert torch.equal(observe(keys[0], areas[0]).keys, observe(keys, areas).keys)


def test_a_mask_of_another_size_than_the_keys_is_refused():
    with pytest.raises(MaskError, match=r"shape \[3, 8, 8\]; expected one area for each key, \[3, 5, 5\]"):
        observe(some_keys(n=3), torch.ones(3, 8, 8))


def test_keys_with_nan_are_refused():
    keys = some_keys()
    keys[0, 0, 0, 0] = float("nan")
    with pytest.raises(PalimpsestError, match="NaN or infinite values in the keys"):
        observe(keys, torch.ones(3, 5, 5))


def test_the_outside_of_a_mask_begins_where_nothing_is_painted():
    assert outside(torch.tensor([0.0, 0.1, 1.0])).tolist() == [1.0, 0.0, 0.0]


def test_the_second_moment_of_a_region_weighs_each_position_by_its_area():
    keys, areas = some_keys(n=2), torch.rand(2, 5, 5)
    flat, weights = keys.double().permute(0, 2, 3, 1).reshape(-1, 4), areas.double().flatten()
    expected = torch.einsum("p,pi,pj->ij", weights, flat, flat) / weights.sum()
    torch.testing.assert_close(second_moment_of(observe(keys, areas)), expected)


def test_inside_and_outside_make_up_the_whole():
    keys, areas = some_keys(n=2), (torch.rand(2, 5, 5) > 0.6).float()
    inside, rest = second_moment_of(observe(keys, areas)), second_moment_of(observe(keys, outside(areas)))
    share = areas.double().mean()
    everything = second_moment_of(observe(keys, torch.ones(2, 5, 5)))
    torch.testing.assert_close(share * inside + (1 - share) * rest, everything)


def test_a_region_of_nothing_has_a_second_moment_of_zero():
    assert second_moment_of(observe(some_keys(), torch.zeros(3, 5, 5))).tolist() == torch.zeros(4, 4).tolist()


def test_a_mean_over_a_mask_of_zero_area_is_refused():
    empty = observe(some_keys(), torch.zeros(3, 5, 5))
    with pytest.raises(MaskError, match="cover no position"):
        weighted_mean(empty, empty.keys)
    with pytest.raises(MaskError, match="cover no position"):
        matching_query(empty, whiten(torch.eye(4)))


def test_the_units_of_greatest_energy_are_the_published_ones(published: dict[str, Tensor]):
    energy = unit_energy(seen_in(published), published["C"])
    assert rank_images(energy, 8).tolist() == published["normdissect_top"].tolist()


def test_dead_units_have_no_energy():
    seen = Observations(torch.tensor([[1.0, 0.0]]).double(), torch.ones(1).double())
    assert unit_energy(seen, torch.diag(torch.tensor([0.5, 0.0]))).tolist() == [2.0, 0.0]


# Unit quantiles


def test_unit_quantiles_are_midranks_and_ties_share_one():
    sample = torch.randint(-3, 4, (41, 5), generator=torch.Generator().manual_seed(0)).float().relu()
    values = torch.tensor([[-1.0], [0.0], [0.5], [1.0], [3.0], [9.0]]).expand(6, 5)
    below = (sample[None] < values[:, None]).double().mean(1)
    equal = (sample[None] == values[:, None]).double().mean(1)
    midrank = (below + equal / 2).clamp(0.5 / 41, 1 - 0.5 / 41)
    torch.testing.assert_close(unit_quantile(sample, values), midrank)


def test_unit_quantiles_do_not_depend_on_the_order_of_the_sample_and_never_reach_one():
    sample = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    quantiles = unit_quantile(sample, sample)
    assert torch.equal(quantiles, unit_quantile(sample.flip(0), sample))
    assert quantiles.sort(0).values[:, 0].tolist() == pytest.approx([(i + 0.5) / 100 for i in range(100)])
    assert (-torch.log1p(-unit_quantile(sample, torch.full((1, 3), 99.0)))).isfinite().all()


def test_a_quantile_in_an_empty_sample_is_refused():
    with pytest.raises(RequestError, match="an empty sample of keys"):
        unit_quantile(torch.zeros(0, 3), torch.zeros(1, 3))


# Match


def test_match_selection_asks_the_published_query(published: dict[str, Tensor]):
    query = matching_query(seen_in(published, FIRST_MASK), whiten(published["C"]))
    torch.testing.assert_close(query.float(), published["query_key_single_selection"], rtol=0, atol=5e-5)
    assert query.norm().item() == pytest.approx(1)


def test_a_context_of_zero_keys_cannot_be_matched():
    with pytest.raises(MaskError, match="keys are zero"):
        matching_query(observe(torch.zeros(1, 4, 5, 5), torch.ones(1, 5, 5)), whiten(torch.eye(4)))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_heat_of_picture_0_peaks_as_published(layer: str):
    published = load(f"{layer}_context")
    found = heat(load("image0_keys")[layer], published["d_zca_rank1"][0])
    assert found.shape == (1, 16, 16)
    torch.testing.assert_close(score(found), published["search_max_per_image"][:1], rtol=0, atol=5e-6)


def test_pictures_are_ranked_as_published(published: dict[str, Tensor]):
    found = rank_images(published["search_max_per_image"], 12)
    assert found.tolist() == published["search_top12_imgnums"].tolist()


def test_pictures_of_equal_score_come_in_their_own_order():
    assert rank_images(torch.tensor([1.0, 2.0, 1.0, 2.0, 3.0]), 4).tolist() == [4, 1, 3, 0]
    assert rank_images(torch.zeros(100), 3).tolist() == [0, 1, 2]


def test_heat_is_the_dot_product_at_each_position_in_the_dtype_of_the_keys():
    keys, query = some_keys(), torch.arange(4.0, dtype=torch.float64)
    found = heat(keys, query)
    assert found.dtype == torch.float32
    assert found[2, 1, 3].item() == pytest.approx(float(keys[2, :, 1, 3].double() @ query), rel=1e-6)


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("shape", [(1,), (2, 3, 4), (7, 16, 16)])
def test_the_level_agrees_with_numpy(shape: tuple[int, ...], quantile: float):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert level(values, quantile) == pytest.approx(float(np.quantile(values.numpy(), quantile)), abs=1e-12)


def test_the_level_of_more_values_than_torch_quantile_takes():
    values = torch.arange(2.0**24 + 5, dtype=torch.float32).flip(0)  # exact up to 2²⁴: the middle is
    assert level(values, 0.5) == (len(values) - 1) / 2


@pytest.mark.parametrize(("count", "quantile"), [(3, 1.5), (3, float("nan")), (0, 0.5)])
def test_a_level_that_does_not_exist_is_refused(count: int, quantile: float):
    with pytest.raises(RequestError, match="a quantile from 0 to 1"):
        level(torch.ones(count), quantile)
