"""Baselines: what they report is true of the rules they make, and each does what it is there to be compared for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rewrite_core import EditRequest, open_generator
from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.generators import Generator
from rewrite_core.memory import rank_images, unit_energy
from rewrite_core.rules.baselines import BASELINES, ITERATIONS, RATE, full_rank, projected
from rewrite_core.rules.descent import descend
from rewrite_core.rules.example import Example
from rewrite_core.rules.made import Made
from rewrite_core.rules.overfit import overfit, pasted
from rewrite_core.rules.painted import latents_of, observations_of
from rewrite_core.rules.published import PublishedSettings, projection, published_solve
from rewrite_core.rules.rewrite import completed, direction_of, goals_of
from rewrite_core.rules.rule import Rule, composed
from rewrite_core.rules.solve import loss_of
from rewrite_core.statistics import LayerStatistics, layer_statistics
from tests.generators import PLAIN, Demodulated, painted, small_generator

CONSTRAINED = [name for name, baseline in BASELINES.items() if baseline.constrained]
OF_VALUES = [name for name in BASELINES if name != "overfit"]
STEPS = 60
REQUESTS = Path(__file__).parents[1] / "benchmarks" / "requests"


def asked(rank: int = 2, layer: str = PLAIN, operation: str = "paste") -> EditRequest:
    context = (painted(1, 4, 4, 10, 10), painted(2, 6, 2, 12, 8))
    request = EditRequest(
        object=painted(0, 4, 6, 10, 12), paste=painted(1, 4, 4, 10, 10), key=context, layer=layer, rank=rank
    )
    return request.model_copy(update={"operation": operation, "erase_units": 250})  # of 512: 5 of 10


@pytest.fixture(scope="module", params=["plain", "demodulated"])
def generator(request: pytest.FixtureRequest) -> Generator:
    return small_generator() if request.param == "plain" else Demodulated.small()


@pytest.fixture(scope="module")
def statistics(generator: Generator) -> LayerStatistics:
    return layer_statistics(generator, PLAIN, samples=50)


@pytest.fixture(scope="module")
def face() -> tuple[Generator, EditRequest, LayerStatistics]:
    """A real face, eyes pasted over its eyes."""
    generator = open_generator("face32-dcgan")
    request = EditRequest.load(REQUESTS / "face32-dcgan-eyes.json")
    return generator, request, layer_statistics(generator, str(request.layer))


def weights(generator: Generator, made: Made) -> dict[str, torch.Tensor]:
    return composed(generator, made.rules)


@pytest.mark.parametrize("name", OF_VALUES)
@pytest.mark.parametrize("operation", ["paste", "erase"])
def test_the_loss_is_that_of_the_very_weight_that_is_kept(generator, statistics, name, operation):
    request = asked(operation=operation)
    made = BASELINES[name].make(generator, request, statistics, iterations=STEPS)
    (goal,) = goals_of(generator, completed(request, generator), statistics)
    assert made.loss_before == pytest.approx(loss_of(generator, goal, generator.weight(PLAIN)))
    assert made.loss == pytest.approx(loss_of(generator, goal, weights(generator, made)[PLAIN]))
    assert name == "unit ablation" or made.loss < made.loss_before


@pytest.mark.parametrize("name", OF_VALUES)
def test_rules_are_made_for_the_generator_and_survive_a_file(generator, statistics, name):
    made = BASELINES[name].make(generator, asked(), statistics, iterations=3)
    for rule in made.rules:
        rule.check(generator)
        assert rule.provenance.result["baseline"] == name
        assert Rule.load(rule.to_bytes()).digest == rule.digest
        assert EditRequest.from_json(rule.provenance.request or {}) == completed(asked(), generator)
    edited = generator.with_rules(made.rules[0])
    assert not torch.equal(edited.weight(made.rules[0].layer), generator.weight(made.rules[0].layer))


@pytest.mark.parametrize("name", CONSTRAINED)
def test_a_constrained_baseline_reads_the_directions_of_the_context_alone(generator, statistics, name):
    made = BASELINES[name].make(generator, asked(), statistics, iterations=STEPS)
    directions = direction_of(generator, asked(), statistics).vectors
    torch.testing.assert_close(made.rules[0].directions.double(), directions, atol=1e-6, rtol=0)
    change = made.rules[0].change()
    torch.testing.assert_close(projection(change, made.rules[0].directions), change, atol=1e-5, rtol=1e-4)


def test_without_a_constraint_the_loss_is_far_lower(generator, statistics):
    full = full_rank(generator, asked(), statistics, iterations=300)
    held = projected(generator, asked(), statistics, iterations=300, every=1, gradient=True)
    assert full.loss < 0.2 * full.loss_before
    assert full.loss < 0.5 * held.loss


def test_the_published_schedule_is_the_published_loop(generator, statistics):
    (goal,) = goals_of(generator, completed(asked(), generator), statistics)
    directions = direction_of(generator, asked(), statistics).vectors.float()
    weight = generator.weight(PLAIN)
    rate = RATE * float(weight.square().mean().sqrt())
    theirs = published_solve(generator, goal, directions, PublishedSettings(iterations=25, rate=rate))
    ours = BASELINES["published schedule"].make(generator, asked(), statistics, iterations=25)
    torch.testing.assert_close(
        weights(generator, ours)[PLAIN], theirs.weight, atol=1e-3, rtol=1e-3
    )  # L1 has kinks
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)


def test_unit_ablation_silences_the_units_that_fire_most_on_the_context(generator, statistics):
    made = BASELINES["unit ablation"].make(generator, asked(rank=3), statistics)
    seen = observations_of(generator, PLAIN, completed(asked(), generator))
    units = rank_images(unit_energy(seen, statistics.second_moment), 3)
    edited = weights(generator, made)[PLAIN]
    assert edited[:, units].count_nonzero() == 0
    others = [unit for unit in range(edited.shape[1]) if unit not in units]
    assert torch.equal(edited[:, others], generator.weight(PLAIN)[:, others])


def test_overfit_draws_the_pasted_picture_by_all_layers_from_there_on(face):
    generator, _, statistics = face
    made = overfit(*face, iterations=100)
    layers = list(generator.layers)
    assert [rule.layer for rule in made.rules] == layers[layers.index(statistics.layer) :]
    assert made.measured == "pixels"
    assert made.loss < 0.2 * made.loss_before
    (one,) = pasted(*face)
    view = generator.with_weights(weights(generator, made))
    assert made.loss == pytest.approx(one.off(view.render(one.at, view.values(one.at))))


def test_an_erasure_is_overfitted_to_what_its_values_are_drawn_as(generator, statistics):
    request = asked(operation="erase")
    (goal,) = goals_of(generator, completed(request, generator), statistics)
    (one,) = pasted(generator, request, statistics)
    torch.testing.assert_close(one.wanted, generator.render(one.at, goal.wanted))
    assert one.box == (4, 4, 10, 10)


def test_the_pasted_picture_has_the_copied_pixels_where_it_was_pasted_and_its_own_elsewhere(
    generator, statistics
):
    request = asked()
    (one,) = pasted(generator, request, statistics)
    wanted = one.wanted
    copied, own = (generator.pictures(latents_of(generator, request, image)) for image in (0, 1))
    assert one.box == (4, 4, 10, 10)
    torch.testing.assert_close(wanted[..., 4:10, 4:10], copied[..., 4:10, 6:12])
    wanted[..., 4:10, 4:10] = own[..., 4:10, 4:10]
    torch.testing.assert_close(wanted, own)


def test_a_perceptual_network_has_a_say(face):
    coarse = nn.AvgPool2d(8)
    generator = face[0]
    (one,) = pasted(*face)

    def off(weight: float) -> float:
        made = overfit(*face, iterations=20, perceptual=coarse, weight=weight)
        view = generator.with_weights(weights(generator, made))
        return float((coarse(view.render(one.at, view.values(one.at))) - coarse(one.wanted)).abs().mean())

    assert off(100.0) < off(0.0)


@pytest.mark.parametrize("name", ["full rank", "projected gradient", "published schedule"])
def test_cancelling_returns_what_there_is(generator, statistics, name):
    def progress(done: int, total: int) -> None:
        assert total == STEPS
        if done == 15:  # between two projections of the published schedule
            raise Cancelled

    made = BASELINES[name].make(generator, asked(), statistics, progress, iterations=STEPS)
    assert (made.iterations, made.stopped) == (15, "cancelled")
    assert made.loss < made.loss_before
    if BASELINES[name].constrained:
        assert made.rules[0].rank == 2


def test_an_overfit_that_is_cancelled_returns_what_there_is(face):
    def progress(done: int, total: int) -> None:
        if done == 30:
            raise Cancelled

    generator, request, statistics = face
    made = overfit(generator, request, statistics, progress, iterations=100)
    assert (made.iterations, made.stopped) == (30, "cancelled")
    assert made.loss < made.loss_before


def test_the_network_stays_as_it_was(generator, statistics):
    before = {name: tensor.clone() for name, tensor in generator.tensors()}
    for baseline in BASELINES.values():
        baseline.make(generator, asked(), statistics, iterations=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.tensors())
    assert not any(tensor.requires_grad for _, tensor in generator.tensors())


def test_it_works_in_a_thread_that_records_no_gradients(generator, statistics):
    with torch.no_grad():
        made = full_rank(generator, asked(), statistics, iterations=20)
    assert made.loss < made.loss_before


def test_the_best_unknowns_are_returned_and_the_last_where_asked_for():
    def loss(unknowns):
        return unknowns[0].square().sum()

    start = [torch.tensor([1.0])]
    best, last = (
        descend(loss, start, iterations=1, rate=3.0, settle=False, best=best) for best in (True, False)
    )  # steps far beyond the minimum
    assert loss(best.unknowns) <= 1.0 < loss(last.unknowns)
    assert start[0].item() == 1.0
    assert descend(loss, start, iterations=200, rate=0.1).unknowns[0].abs().item() < 1e-3


def test_every_baseline_says_what_it_is():
    assert ITERATIONS == 2001
    for name, baseline in BASELINES.items():
        assert baseline.title.lower() == name
        assert baseline.about.endswith(".")
        assert baseline.iterations >= 0


def test_several_pairs_are_held_to_together(generator, statistics):
    """The loss is the mean over them, and each is met better than by the other's rule alone."""
    second = Example(painted(3, 4, 4, 10, 10), painted(2, 6, 2, 12, 8), flip="horizontal")
    both = asked().model_copy(update={"examples": (second,)})
    goals = goals_of(generator, completed(both, generator), statistics)
    made = full_rank(generator, both, statistics, iterations=150)
    alone = full_rank(generator, asked(), statistics, iterations=150)
    kept, single = (weights(generator, one)[PLAIN] for one in (made, alone))
    assert made.loss == pytest.approx(sum(loss_of(generator, goal, kept) for goal in goals) / 2)
    assert loss_of(generator, goals[1], kept) < loss_of(generator, goals[1], single)
    assert len(pasted(generator, both, statistics)) == 2
    assert len(overfit(generator, both, statistics, iterations=2).rules) == 3


@pytest.mark.parametrize("name", list(BASELINES))
def test_what_has_no_goal_has_no_baseline(generator, statistics, name):
    with pytest.raises(RequestError, match="no goal"):
        BASELINES[name].make(generator, asked(operation="remove"), statistics, iterations=2)
