"""The solver: its quadratic forms against brute force, its optimum against a bound, its report against the rule."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.generators import Generator, from_sequential, open_generator
from rewrite_core.rules.goal import Goal, copy_paste
from rewrite_core.rules.low_rank import basis_responses, change, response_moment
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rule import Provenance, Rule
from rewrite_core.rules.settings import SolverSettings
from rewrite_core.rules.solve import Solved, loss_of, solve
from rewrite_core.statistics import LayerStatistics, Store, layer_statistics
from tests.generators import DOWN, PLAIN, UP, Demodulated, painted, seeded, small_generator, spec

LAYERS = (UP, PLAIN, DOWN)


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("statistics"))


def goal_at(generator: Generator, layer: str) -> Goal:
    request = EditRequest(object=painted(1, 2, 2, 9, 10), paste=painted(2, 5, 6, 12, 14))
    return copy_paste(generator, layer, request)


def some_directions(generator: Generator, layer: str, rank: int, seed: int = 0) -> Tensor:
    units = generator.layer(layer).in_channels
    draw = torch.Generator().manual_seed(seed)
    rows: Tensor = torch.linalg.qr(torch.randn(units, rank, generator=draw)).Q.T.contiguous()  # [R, C]
    return rows


def some_delta(generator: Generator, layer: str, rank: int, seed: int = 0) -> Tensor:
    found = generator.layer(layer)
    shape = (found.out_channels, rank, *found.convolution.kernel)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def solved(
    generator: Generator, store: Store, layer: str = PLAIN, rank: int = 2, **settings: Any
) -> tuple[Solved, Goal, Tensor, LayerStatistics]:
    statistics = layer_statistics(generator, layer, store=store, samples=100)
    goal, directions = goal_at(generator, layer), some_directions(generator, layer, rank)
    found = solve(generator, goal, directions, statistics, SolverSettings(**settings))
    return found, goal, directions, statistics


# The response is linear in Λ


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rank", [1, 3])
def test_basis_responses_add_up_to_the_response_of_any_change(small: Generator, layer: str, rank: int):
    directions, delta = some_directions(small, layer, rank), some_delta(small, layer, rank)
    keys = small.keys(small.latents(spec()), layer).keys
    basis = basis_responses(small, layer, keys, directions)  # [N, B, H, W]
    summed = torch.einsum("ob,nbyx->noyx", delta.flatten(1), basis)
    expected = small.respond(layer, keys, change(delta, directions))
    torch.testing.assert_close(summed, expected, rtol=1e-4, atol=1e-4)


def squared_response(generator: Generator, layer: str, keys: Tensor, weight: Tensor) -> float:
    return float(generator.respond(layer, keys, weight).double().square().sum(1).mean())


@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN, "l05", "l14"])
def test_the_trace_form_is_the_exact_expected_squared_change(small: Generator, layer: str):
    """3×3 taps, stride 2, and 4×4 transposed taps with padding, with crop, and with an uneven crop."""
    generator = small if layer in small.layers else open_generator("anime64-dcgan")
    keys = generator.keys(generator.latents(spec(27)), layer).keys
    directions = some_directions(generator, layer, 2)
    moment = response_moment(generator, layer, keys, directions).double()
    for seed in range(3):
        delta = some_delta(generator, layer, 2, seed)
        flat = delta.flatten(1).double()
        exact = squared_response(generator, layer, keys, change(delta, directions))
        assert float(torch.trace(flat @ moment @ flat.T)) == pytest.approx(exact, rel=1e-4)


def test_no_change_can_have_a_negative_square(small: Generator):
    """On an enlarged map neighbouring taps see the same keys: float32 would make their difference imaginary."""
    keys = small.keys(small.latents(spec(30)), DOWN).keys
    spectrum = torch.linalg.eigvalsh(response_moment(small, DOWN, keys, some_directions(small, DOWN, 2)))
    assert spectrum[0] >= -1e-12 * spectrum[-1]


def test_a_change_at_one_tap_of_a_stride_touches_only_its_phase():
    """A transposed convolution of kernel and stride 2 draws each output position from exactly one tap."""
    stack = nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)), nn.ConvTranspose2d(3, 3, 2, 2))
    generator = from_sequential(seeded(stack))
    keys = generator.keys(generator.latents(spec(30)), "2").keys
    moment = response_moment(generator, "2", keys, some_directions(generator, "2", 1))
    projected = torch.einsum("nchw,c->nhw", keys, some_directions(generator, "2", 1)[0])
    torch.testing.assert_close(
        moment, torch.eye(4).double() * float(projected.square().mean()) / 4, rtol=1e-5, atol=0
    )


# What is reported is true of the rule


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("locality", [0.0, 0.3])
def test_the_reported_loss_and_change_are_those_of_the_rule(
    small: Generator, store: Store, layer: str, locality: float
):
    found, goal, directions, statistics = solved(small, store, layer, locality=locality)
    made_for = Provenance(model=small.name, fingerprint=small.fingerprint, layer=layer)
    view = small.with_rules(Rule(directions, found.delta, made_for))
    top, left, bottom, right = goal.box
    for generator, loss in ((small, found.loss_before), (view, found.loss)):
        off = goal.wanted - generator.values(goal.at)
        assert float(off[..., top:bottom, left:right].abs().mean()) == pytest.approx(loss, rel=1e-4)
    assert found.loss < found.loss_before
    changed = squared_response(small, layer, statistics.sample.keys, change(found.delta, directions))
    assert found.elsewhere == pytest.approx(math.sqrt(changed / statistics.power), rel=1e-3)
    assert found.iterations > 0
    assert found.seconds > 0
    assert set(json.loads(json.dumps(found.summary()))) == {
        "loss_before", "loss", "elsewhere", "iterations", "stopped", "seconds"
    }  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_more_locality_never_changes_more_elsewhere_nor_fits_better(
    small: Generator, store: Store, layer: str
):
    runs = [solved(small, store, layer, locality=locality)[0] for locality in (0, 0.1, 0.3, 1, 3, 10, 100)]
    for less, more in pairwise(runs):
        assert more.elsewhere <= less.elsewhere * 1.005
        assert more.loss >= less.loss * 0.995
    assert runs[-1].elsewhere < 0.2 * runs[0].elsewhere


def test_higher_rank_never_fits_worse(small: Generator, store: Store):
    losses = [solved(small, store, PLAIN, rank, locality=0.0)[0].loss for rank in (1, 2, 4, 8)]
    assert losses == sorted(losses, reverse=True)


# The optimum


def dual_bound(
    generator: Generator, goal: Goal, directions: Tensor, statistics: LayerStatistics, locality: float
) -> float:
    """A number that no Λ can go below, by ADMM on the convex dual of a plain layer's objective.

    min a·Σ|y - Bᵀλ| + c·λᵀMλ  ≥  νᵀy - (Bν)ᵀM⁻¹(Bν) / 4c for every |ν| ≤ a, one such problem an output channel.
    """
    layer = goal.at.layer
    top, left, bottom, right = goal.box
    cut = (..., slice(top, bottom), slice(left, right))
    basis = basis_responses(generator, layer, goal.at.keys, directions)[cut].double().flatten(2)[0]  # [B, P]
    y = (goal.wanted - generator.values(goal.at))[cut].double().flatten(2)[0]  # [O, P]
    moment = response_moment(generator, layer, statistics.sample.keys, directions).double()
    a, c = 1 / float(y.abs().sum()), locality / statistics.power
    step = 10 * a / float(y.abs().mean())
    system = torch.linalg.pinv(2 * c * moment + step * basis @ basis.T, rtol=1e-9, hermitian=True)
    inverse = torch.linalg.pinv(
        moment, rtol=1e-9, hermitian=True
    )  # taps on an enlarged map are not independent
    z, u, best = torch.zeros_like(y), torch.zeros_like(y), 0.0
    for iteration in range(1500):
        flat = step * (y - z + u) @ basis.T @ system  # [O, B]
        off = y - flat @ basis
        z = off + u
        z = z.sign() * (z.abs() - a / step).clamp(min=0)
        u = u + off - z
        if iteration % 50 == 49:
            prices = (step * u).clamp(-a, a)
            pulled = prices @ basis.T  # [O, B]
            cost = (pulled @ inverse * pulled).sum() / (4 * c)
            best = max(best, float((prices * y).sum() - cost))
    return best


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("rank", "locality"), [(1, 0.3), (3, 0.05), (3, 1.0)])
def test_no_rule_is_more_than_a_percent_better(
    small: Generator, store: Store, layer: str, rank: int, locality: float
):
    found, goal, directions, statistics = solved(small, store, layer, rank, locality=locality)
    changed = squared_response(small, layer, statistics.sample.keys, change(found.delta, directions))
    reached = found.loss / found.loss_before + locality * changed / statistics.power
    least = dual_bound(small, goal, directions, statistics, locality)
    assert 0 < least <= reached * 1.0001
    assert reached <= 1.01 * least
    assert found.stopped == "converged"


def adam(generator: Generator, goal: Goal, directions: Tensor, shape: tuple[int, ...], steps: int) -> float:
    """The loss that a long plain gradient descent on Λ reaches."""
    delta = torch.zeros(shape, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    top, left, bottom, right = goal.box
    best = math.inf
    for _ in range(steps):
        weight = generator.weight(goal.at.layer) + change(delta, directions)
        response = generator.respond(goal.at.layer, goal.at.keys, weight)
        values = generator.finish(goal.at, response, generator.energy(goal.at, weight))
        loss = (goal.wanted - values)[..., top:bottom, left:right].abs().mean()
        best = min(best, float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return best


@pytest.mark.parametrize("rank", [1, 3])
def test_a_demodulated_nonlinear_layer_is_solved_as_well_as_by_long_descent(store: Store, rank: int):
    generator = Demodulated.small()
    found, goal, directions, _ = solved(generator, store, PLAIN, rank, locality=0.0, iterations=100)
    assert loss_of(generator, goal, generator.weight(PLAIN)) == pytest.approx(found.loss_before)
    edited = generator.weight(PLAIN) + change(found.delta, directions)
    assert loss_of(generator, goal, edited) == pytest.approx(found.loss, rel=1e-5)
    descended = adam(generator, goal, directions, tuple(found.delta.shape), 500)
    assert found.loss <= 1.02 * descended


def test_a_demodulated_layer_heeds_locality(store: Store):
    runs = [solved(Demodulated.small(), store, PLAIN, 2, locality=locality)[0] for locality in (0, 0.3, 3)]
    assert runs[0].elsewhere > runs[1].elsewhere > runs[2].elsewhere
    assert runs[0].loss < 1.01 * runs[1].loss  # without convexity, to the solver's precision
    assert runs[1].loss < runs[2].loss < runs[2].loss_before


# Where there is nothing to solve


@pytest.mark.parametrize("locality", [0.0, 0.3])
def test_directions_that_never_fire_change_nothing(small: Generator, store: Store, locality: float):
    statistics = layer_statistics(small, PLAIN, store=store, samples=100)
    goal, settings = goal_at(small, PLAIN), SolverSettings(locality=locality)
    found = solve(small, goal, torch.zeros(2, 10), statistics, settings)
    assert found.loss == found.loss_before
    assert found.elsewhere == 0
    assert not found.delta.any()


@pytest.mark.parametrize("locality", [0.0, 0.3])
def test_a_direction_that_only_the_goal_knows_stays_finite(small: Generator, store: Store, locality: float):
    statistics = layer_statistics(small, PLAIN, store=store, samples=100)
    silent = replace(
        statistics, sample=replace(statistics.sample, keys=torch.zeros_like(statistics.sample.keys))
    )
    goal, directions = goal_at(small, PLAIN), some_directions(small, PLAIN, 2)
    found = solve(small, goal, directions, silent, SolverSettings(locality=locality))
    assert found.delta.isfinite().all()
    assert found.loss < found.loss_before


@pytest.mark.parametrize("locality", [0.0, 0.3])
def test_what_is_there_already_needs_no_rule(small: Generator, store: Store, locality: float):
    statistics = layer_statistics(small, PLAIN, store=store, samples=100)
    request = EditRequest(object=painted(2, 4, 4, 10, 10), paste=painted(2, 4, 4, 10, 10))
    goal, directions = copy_paste(small, PLAIN, request), some_directions(small, PLAIN, 2)
    found = solve(small, goal, directions, statistics, SolverSettings(locality=locality))
    assert (found.loss_before, found.loss, found.elsewhere) == (0, 0, 0)
    assert not found.delta.any()

    wanted = goal.wanted * (1 + 1e-7)  # the same up to rounding, which is not worth a rule
    nearly = solve(
        small, Goal(goal.at, wanted, goal.box), directions, statistics, SolverSettings(locality=0.3)
    )
    assert nearly.elsewhere < 1e-4


def test_more_unknowns_than_values_wanted_stay_finite(small: Generator, store: Store):
    statistics = layer_statistics(small, PLAIN, store=store, samples=100)
    goal = replace(goal_at(small, PLAIN), box=(3, 3, 4, 4))
    found = solve(small, goal, some_directions(small, PLAIN, 10), statistics, SolverSettings(locality=0.0))
    assert found.delta.isfinite().all()
    assert found.loss < 0.01 * found.loss_before


def test_more_unknowns_than_memory_holds_are_refused_with_the_rank_that_fits(small: Generator, store: Store):
    statistics = layer_statistics(small, PLAIN, store=store, samples=100)
    with pytest.raises(RequestError) as problem:
        solve(small, goal_at(small, PLAIN), torch.zeros(430, 10), statistics, SolverSettings())
    assert str(problem.value) == (
        "rank 430 at plain, which is 34,830 unknowns; expected a rank of at most 429 there. "
        "Lower the rank, or choose another layer."
    )


def test_a_layer_whose_weight_is_zero_can_be_taught(store: Store):
    stack = nn.Sequential(
        nn.Linear(8, 640), nn.Unflatten(1, (10, 8, 8)), nn.ReLU(), nn.Conv2d(10, 3, 3, padding=1)
    )
    seeded(stack)
    nn.init.zeros_(stack.get_parameter("3.weight"))
    generator = from_sequential(stack)
    statistics = layer_statistics(generator, "3", store=store, samples=50)
    assert statistics.power == 0
    goal = goal_at(generator, "3")
    goal = replace(goal, wanted=goal.wanted + 0.1)
    found = solve(generator, goal, some_directions(generator, "3", 2), statistics, SolverSettings())
    assert found.delta.isfinite().all()
    assert found.loss < found.loss_before


# Progress


def test_progress_counts_iterations(small: Generator, store: Store):
    statistics = layer_statistics(small, PLAIN, store=store, samples=100)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    goal, directions = goal_at(small, PLAIN), some_directions(small, PLAIN, 2)
    found = solve(small, goal, directions, statistics, SolverSettings(iterations=40), progress)
    assert told == [(index, 40) for index in range(found.iterations)]
    assert found.stopped == "converged"
    short = solve(small, goal, directions, statistics, SolverSettings(iterations=3), progress)
    assert (short.iterations, short.stopped) == (3, "iterations")
    assert found.loss <= short.loss < short.loss_before


def test_cancelling_returns_the_best_so_far(small: Generator, store: Store):
    statistics = layer_statistics(small, PLAIN, store=store, samples=100)
    goal, directions = goal_at(small, PLAIN), some_directions(small, PLAIN, 2)
    losses = []
    for after in range(6):

        def stop(done: int, total: int, after: int = after) -> None:
            if done == after:
                raise Cancelled

        found = solve(small, goal, directions, statistics, SolverSettings(locality=0.0), stop)
        assert (found.iterations, found.stopped) == (after, "cancelled")
        losses.append(found.loss)
    assert losses[0] == found.loss_before
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_is_never_worse_than_no_rule(small: Generator, store: Store, seed: int):
    """One wild value among many: the first, least-squares-like steps chase it."""
    statistics = layer_statistics(small, PLAIN, store=store, samples=100)
    goal = goal_at(small, PLAIN)
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(goal.wanted.shape, generator=draw)
    goal = replace(goal, wanted=small.values(goal.at) + 1e-3 * noise + 10 * (noise > 2.2))
    for iterations in range(1, 6):
        settings = SolverSettings(locality=0.0, iterations=iterations)
        found = solve(small, goal, some_directions(small, PLAIN, 3, seed), statistics, settings)
        assert found.loss <= found.loss_before * (1 + 1e-6)


def test_the_same_problem_has_the_same_answer(small: Generator, store: Store):
    first, second = (solved(small, store)[0] for _ in range(2))
    assert torch.equal(first.delta, second.delta)
