"""The spectrum of keys: of planted ones, whether a sample was enough, and directions that rest on noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rewrite_core import ContextSettings, LatentSpec, layer_statistics, open_generator
from rewrite_core.directions import Direction
from rewrite_core.directions.spectrum import (
    FARTHEST,
    Halves,
    Spectrum,
    halves_of,
    noise_warning,
    spectra,
    stability,
)
from rewrite_core.errors import Cancelled, LayerError, RequestError
from rewrite_core.memory import whiten
from rewrite_core.rules.rewrite import completed, direction_of
from rewrite_core.statistics import Batch, SecondMoment, Store, fetch
from tests.generators import PLAIN, UP, blue_eyes, small_generator
from tests.planted import CONSTANT, SHAPES, planted_generator

UNITS, POSITIONS = 48, 4
POWERS = torch.logspace(0, -3, UNITS).double()
"""Of planted keys, along the units themselves."""


def planted(pictures: int, seed: int = 0, powers: Tensor = POWERS, basis: Tensor | None = None) -> Halves:
    """Second moments of two halves of normal keys with these powers; the positions of a picture are all alike.

    Powers are along the units, or along the columns of `basis` [C, C].
    """
    draw = torch.Generator().manual_seed(seed)
    halves = []
    for count in (pictures // 2, pictures - pictures // 2):
        keys = torch.randn(count, len(powers), generator=draw).double() * powers.sqrt()
        keys = (keys if basis is None else keys @ basis.T).float()[:, :, None, None]  # [N, C, 1, 1]
        halves.append(SecondMoment().update(Batch.of(keys.expand(-1, -1, 2, POSITIONS // 2).contiguous())))
    return halves[0], halves[1]


def along(vector: Tensor, ridge: float | None = None, name: str = "") -> Direction:
    rows = (vector / vector.norm()).reshape(1, -1).double()
    told = {} if ridge is None else {"settings": {"ridge": ridge}}
    return Direction(rows, "l05", "zca", torch.ones(1).double(), name, told)


def exact(halves: Halves, moment: Tensor) -> Halves:
    """Halves that agree on `moment` exactly."""
    return replace(halves[0], total=moment * halves[0].positions), replace(
        halves[1], total=moment * halves[1].positions
    )


# Planted keys


def test_many_pictures_are_enough_and_few_are_not_however_many_positions_they_have():
    few, many = (Spectrum.of("l05", planted(pictures)) for pictures in (200, 20_000))
    assert many.enough
    assert many.stable == UNITS
    assert many.warning == ""
    torch.testing.assert_close(many.ratio, torch.ones(UNITS).double(), rtol=0, atol=0.2)
    torch.testing.assert_close(many.eigenvalues, POWERS, rtol=0.2, atol=0)
    assert few.positions == 200 * POSITIONS > UNITS
    assert not few.enough
    assert few.ratio[-8:].mean() > 1.5
    assert "\n" not in few.warning
    assert few.warning.startswith(
        f"l05: 200 samples (800 positions) are too few: along {UNITS - few.stable} of 48 eigenvectors"
    )


def test_the_first_half_overrates_what_it_is_strong_in_and_underrates_what_it_is_weak_in():
    ratio = Spectrum.of("l05", planted(200, powers=torch.ones(UNITS).double())).ratio
    assert ratio[:8].max() < 1 < ratio[-8:].min()


def test_what_the_first_half_never_saw_is_told_as_a_finite_ratio():
    found = Spectrum.of("l05", planted(2 * UNITS // 3))
    assert found.samples < UNITS
    assert len(found.ratio) == len(found.eigenvalues)
    assert found.ratio.isfinite().all()
    assert found.ratio.max() == FARTHEST
    assert not found.enough


def test_its_numbers_are_those_of_the_whitening():
    halves = planted(500)
    found, whole = Spectrum.of("l05", halves), halves[0].merge(halves[1])
    whitening = whiten(whole.matrix)
    assert (found.layer, found.units, found.alive) == ("l05", UNITS, UNITS)
    assert (found.samples, found.positions) == (500, 500 * POSITIONS)
    assert (found.effective_rank, found.condition) == (whitening.effective_rank, whitening.condition)
    assert torch.equal(found.eigenvalues, whitening.eigenvalues)


def test_the_table_has_a_row_for_each_eigenvector():
    table = Spectrum.of("l05", planted(500)).table()
    assert list(table.columns) == ["index", "eigenvalue", "share", "cumulative", "ratio"]
    assert table["index"].tolist() == list(range(UNITS))
    assert table["eigenvalue"].is_monotonic_decreasing
    assert table["share"].sum() == pytest.approx(1)
    assert table["cumulative"].iloc[-1] == pytest.approx(1)
    assert not table.isna().any(axis=None)


def test_a_layer_without_any_keys_has_an_empty_spectrum_and_says_so():
    found = Spectrum.of("l05", planted(20, powers=torch.zeros(UNITS).double()))
    assert (found.alive, len(found.eigenvalues), found.stable, found.enough) == (0, 0, 0, False)
    assert "all zero" in found.warning
    assert found.table().empty


def test_dead_units_are_counted_and_left_out():
    powers = POWERS.clone()
    powers[[3, 17]] = 0
    found = Spectrum.of("l05", planted(20_000, powers=powers))
    assert (found.units, found.alive, len(found.ratio)) == (UNITS, UNITS - 2, UNITS - 2)
    assert found.enough


# Of a generator


def test_halves_are_the_first_and_the_second_half_of_the_seeds_and_together_the_whole():
    generator, spec = small_generator(), LatentSpec.of(range(5, 16))
    first, second = halves_of(generator, PLAIN, spec)
    assert (first.samples, second.samples) == (5, 6)
    alone = fetch(generator, PLAIN, LatentSpec.of(range(5, 10)), SecondMoment())
    assert torch.equal(first.matrix, alone.matrix)
    whole = fetch(generator, PLAIN, spec, SecondMoment())
    torch.testing.assert_close(first.merge(second).matrix, whole.matrix, rtol=1e-6, atol=1e-8)


def test_layers_are_measured_together_and_kept(tmp_path: Path):
    generator, spec, store = planted_generator(), LatentSpec.of(range(60)), Store(tmp_path)
    told: list[tuple[int, int]] = []
    found = spectra(generator, generator.layers, spec, store=store, progress=lambda *at: told.append(at))
    assert list(found) == list(generator.layers)
    assert told[-1] == (60, 60)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {60}
    assert found[SHAPES].units == 8
    assert found[SHAPES].alive == 7
    assert found[SHAPES].positions == 60 * 24 * 24
    told.clear()
    again = spectra(generator, [SHAPES], spec, store=store, progress=lambda *at: told.append(at))
    assert torch.equal(again[SHAPES].ratio, found[SHAPES].ratio)
    assert not told


def test_what_cannot_be_halved_is_refused():
    generator = small_generator()
    for seeds in ([], [3]):
        with pytest.raises(RequestError, match="expected at least 2"):
            spectra(generator, [UP], LatentSpec.of(seeds))
    with pytest.raises(LayerError):
        halves_of(generator, "none", LatentSpec.of(range(4)))


def test_progress_may_end_it(tmp_path: Path):
    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        spectra(small_generator(), [UP], LatentSpec.of(range(4)), store=Store(tmp_path), progress=stop)


# Directions


def test_a_direction_on_which_the_halves_agree_is_stable_whatever_its_power():
    halves = exact(planted(40), torch.diag(POWERS))
    for unit in (0, UNITS - 1):
        assert stability(along(torch.eye(UNITS)[unit]), halves).tolist() == pytest.approx([1])
        assert noise_warning(along(torch.eye(UNITS)[unit]), halves) == ""


def test_stability_is_the_correlation_of_the_heat_of_the_two_halves_queries():
    halves, vector = planted(200), torch.linspace(1, 2, UNITS).double()
    direction = along(vector)
    moment = halves[0].merge(halves[1]).matrix
    first, second = (torch.linalg.solve(half.matrix, moment @ direction.vectors[0]) for half in halves)
    root = torch.linalg.cholesky(moment)
    expected = torch.cosine_similarity(root.T @ first, root.T @ second, dim=0)
    assert stability(direction, halves).tolist() == pytest.approx([expected.item()])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_without_a_ridge_every_direction_is_known_alike_strong_or_weak(share: float):
    """Of normal keys, n independent ones a half, the halves agree to 1 - C/n."""
    halves = planted(2 * round(UNITS / share))
    agreed = torch.cat([stability(along(row), halves) for row in torch.eye(UNITS)])
    assert agreed.mean().item() == pytest.approx(1 - share, abs=0.02)
    assert agreed[: UNITS // 2].mean().item() == pytest.approx(agreed[UNITS // 2 :].mean().item(), abs=0.03)


def test_a_strong_context_does_not_rest_on_noise_where_one_that_rounding_drowns_does():
    powers = torch.logspace(0, -9.5, UNITS).double()
    basis = torch.linalg.qr(torch.randn(UNITS, UNITS, generator=torch.Generator().manual_seed(1)).double()).Q
    halves = planted(4000, powers=powers, basis=basis)
    assert noise_warning(along(basis[:, 0]), halves) == ""
    told = noise_warning(along(basis[:, -1], name="hair"), halves)
    assert told.startswith("'hair' rests on noise: two halves of 4,000 samples agree only to ")
    assert "\n" not in told
    assert noise_warning(along(basis[:, -1], ridge=0.1), halves) == ""


def test_a_context_that_few_pictures_show_rests_on_noise_where_a_common_one_does_not():
    """Unit 0 fires in every picture, unit 1 in two of a thousand."""
    draw = torch.Generator().manual_seed(0)
    keys = torch.rand(2, 500, 4, 2, 2, generator=draw)
    keys[:, :, 1] = 0
    keys[0, [3, 9], 1:] = torch.tensor([[5.0, 4.0, 0.0], [5.0, 0.0, 0.0]])[..., None, None]
    keys[1, [7, 8], 1:] = torch.tensor([[5.0, 0.0, 4.0], [5.0, 0.0, 3.0]])[..., None, None]
    first, second = (SecondMoment().update(Batch.of(half)) for half in keys)
    rare, common = torch.eye(4)[1], torch.eye(4)[0]
    assert noise_warning(along(common), (first, second)) == ""
    assert "rests on noise" in noise_warning(along(rare), (first, second))


def test_the_ridge_of_a_context_steadies_it():
    halves, vector = planted(120), torch.ones(UNITS)
    agreed = [stability(along(vector, ridge), halves).item() for ridge in (0.0, 0.1, 10.0)]
    assert agreed == sorted(agreed)
    assert agreed[-1] - agreed[0] > 0.1
    assert stability(along(vector), halves).item() == agreed[0]


def test_of_several_vectors_it_says_how_many_rest_on_noise():
    halves = planted(120)
    pair = replace(along(torch.eye(UNITS)[0]), vectors=torch.eye(UNITS).double()[[0, UNITS - 1]])
    pair = replace(
        pair, vectors=torch.linalg.qr(torch.stack([torch.ones(UNITS), torch.eye(UNITS)[0]]).double().T).Q.T
    )
    agreed = stability(pair, halves)
    noisy = int((agreed < 0.9).sum())
    assert agreed.shape == (2,)
    assert noisy
    assert f"in {noisy} of its 2 vectors" in noise_warning(pair, halves)


def test_what_matches_nothing_agrees_with_nothing():
    powers = POWERS.clone()
    powers[3] = 0
    dead, halves = along(torch.eye(UNITS)[3], name="dead"), planted(100, powers=powers)
    assert stability(dead, halves).tolist() == [0]
    assert noise_warning(dead, halves).startswith("'dead' matches nothing: in 100 samples")


def test_a_direction_of_another_width_is_refused():
    with pytest.raises(RequestError, match="expected one of 48"):
        stability(along(torch.ones(5)), planted(10))


def test_of_the_default_generator_hundreds_of_pictures_are_enough_for_eyes_and_a_dozen_are_not():
    generator = open_generator("anime64-dcgan")
    statistics = layer_statistics(generator, "l08")
    request = completed(blue_eyes(), generator)
    eyes = direction_of(generator, request, statistics)
    enough = halves_of(generator, "l08", LatentSpec.of(range(200)))
    assert noise_warning(eyes, enough) == ""
    assert stability(eyes, enough).item() > 0.95
    bare = request.model_copy(update={"direction": ContextSettings(ridge=0.0)})
    few = halves_of(generator, "l08", LatentSpec.of(range(12)))
    assert "rests on noise" in noise_warning(direction_of(generator, bare, statistics), few)


def test_a_unit_that_is_always_on_is_known_from_a_few_pictures():
    halves = halves_of(planted_generator(), SHAPES, LatentSpec.of(range(60)))
    constant = torch.eye(8)[CONSTANT]
    assert noise_warning(along(constant), halves) == ""
