"""Rewriting end to end, on the embedded generator: a blue eye pasted once turns eyes nobody painted on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewrite_core.directions import METHODS, ContextSettings
from rewrite_core.errors import Cancelled, LayerError, MaskError, RequestError
from rewrite_core.generators import Generator, LatentSpec, open_generator
from rewrite_core.pictures import Mask
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.rewrite import Edit, completed, direction_of, goals_of, rewrite
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.settings import SolverSettings
from rewrite_core.statistics import LayerStatistics, Store, layer_statistics
from tests.generators import PLAIN, blue_eyes, painted, small_generator

REFERENCE = Path(__file__).parent / "reference"
FRESH = LatentSpec.of(range(1000, 1050))
EYES, HAIR = (slice(25, 42), slice(11, 52)), (slice(0, 15), slice(0, 64))


@pytest.fixture(scope="module")
def anime() -> Generator:
    return open_generator("anime64-dcgan")


@pytest.fixture(scope="module")
def statistics(anime: Generator) -> LayerStatistics:
    return layer_statistics(anime, "l08")


@pytest.fixture(scope="module")
def before(anime: Generator) -> Tensor:
    return anime.sample(FRESH)


@pytest.fixture(scope="module")
def edit(anime: Generator, statistics: LayerStatistics) -> Edit:
    return rewrite(anime, blue_eyes(), statistics=statistics)


def changed(generator: Generator, rule: Rule, before: Tensor) -> Tensor:
    """Mean absolute change of fresh pictures, [H, W]."""
    return (generator.with_rules(rule).sample(FRESH) - before).abs().mean((0, 1))


def with_direction(request: EditRequest, **settings: Any) -> EditRequest:
    return request.model_copy(update={"direction": ContextSettings.model_validate(settings)})


# The example


def test_a_rule_acts_on_eyes_that_were_never_painted_on(anime: Generator, edit: Edit, before: Tensor):
    assert edit.solved.loss < 0.75 * edit.solved.loss_before
    assert edit.solved.elsewhere < 0.3
    change = changed(anime, edit.rule, before)
    assert change[EYES].mean() > 0.1
    assert change[EYES].mean() > 3 * change[HAIR].mean()
    assert torch.equal(anime.sample(FRESH), before)


def test_the_rule_draws_what_was_wanted_as_far_as_it_says(
    anime: Generator, edit: Edit, statistics: LayerStatistics
):
    (goal,) = goals_of(anime, completed(blue_eyes(), anime), statistics)
    top, left, bottom, right = goal.box
    for generator, loss in (
        (anime, edit.solved.loss_before),
        (anime.with_rules(edit.rule), edit.solved.loss),
    ):
        off = goal.wanted - generator.values(goal.at)
        assert float(off[..., top:bottom, left:right].abs().mean()) == pytest.approx(loss, rel=1e-4)


def test_a_rule_of_the_embedded_generator_takes_kilobytes(edit: Edit):
    assert len(edit.rule.to_bytes()) < 16 * 1024


def test_the_file_of_a_rule_is_enough_to_make_it_again(
    anime: Generator, edit: Edit, statistics: LayerStatistics
):
    rule = Rule.load(edit.rule.to_bytes())
    assert rule.provenance.request is not None
    request = EditRequest.from_json(rule.provenance.request)
    assert request.model is not None
    assert (request.model.fingerprint, request.layer) == (anime.fingerprint, "l08")
    again = rewrite(anime, request, statistics=statistics)
    assert again.rule.digest == rule.digest
    assert rule.provenance.result == edit.solved.summary()
    assert rule.name == "paste at l08"
    assert rewrite(anime, request, statistics=statistics, name="blue").rule.name == "blue"


def test_an_edit_is_solved_on_the_pristine_network_whatever_is_on(
    anime: Generator, edit: Edit, statistics: LayerStatistics
):
    view = anime.with_rules(edit.rule)
    again = rewrite(view, blue_eyes(), statistics=statistics)
    assert again.rule.digest == edit.rule.digest
    assert again.rule.provenance.fingerprint == anime.fingerprint


def test_a_published_file_can_be_rewritten_by(anime: Generator):
    request = EditRequest.load(REFERENCE / "request.json").model_copy(update={"layer": "l08"})
    assert request.latents.scheme == "rows"
    found = rewrite(anime, request).solved
    assert found.loss < found.loss_before


# Every setting


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rank", [1, 3])
def test_every_method_makes_a_rule(
    anime: Generator, statistics: LayerStatistics, before: Tensor, method: str, rank: int
):
    request = with_direction(blue_eyes(), method=method).model_copy(update={"rank": rank})
    if method in ("mean", "plain") and rank > 1:
        with pytest.raises(RequestError, match="rank 3; expected 1 to 1"):
            rewrite(anime, request, statistics=statistics)
        return
    found = rewrite(anime, request, statistics=statistics)
    assert (found.direction.method, found.rule.rank) == (method, rank)
    assert found.solved.loss < 0.9 * found.solved.loss_before
    change = changed(anime, found.rule, before)
    assert change[EYES].mean() > 1.5 * change[HAIR].mean()


def test_protected_regions_change_less_at_the_same_effect(
    anime: Generator, statistics: LayerStatistics, before: Tensor
):
    hair = tuple(painted(image, 0, 0, 15, 64, size=(64, 64)) for image in range(50, 70))
    shares = []
    for weight in (0.0, 3.0, 10.0):
        request = with_direction(blue_eyes(), protect=weight).model_copy(update={"protect": hair})
        change = changed(anime, rewrite(anime, request, statistics=statistics).rule, before)
        shares.append(float(change[HAIR].mean() / change[EYES].mean()))
    assert shares[1] < 0.8 * shares[0]
    assert shares[2] < 0.9 * shares[1]


def test_contrast_spares_what_was_left_unpainted(
    anime: Generator, edit: Edit, statistics: LayerStatistics, before: Tensor
):
    request = with_direction(blue_eyes(), contrast=3.0)
    plain, steered = (
        changed(anime, rule, before)
        for rule in (edit.rule, rewrite(anime, request, statistics=statistics).rule)
    )
    assert steered[HAIR].mean() / steered[EYES].mean() < 0.9 * plain[HAIR].mean() / plain[EYES].mean()


def test_protecting_nothing_protects_nothing(anime: Generator, edit: Edit, statistics: LayerStatistics):
    request = with_direction(blue_eyes(), protect=10.0)
    assert rewrite(anime, request, statistics=statistics).rule.digest == edit.rule.digest


def test_masks_on_one_picture_are_joined(anime: Generator, statistics: LayerStatistics):
    """Two overlapping contexts of one picture count no position twice."""
    whole = painted(6, 25, 16, 39, 50, size=(64, 64))
    parts = (painted(6, 25, 16, 39, 40, size=(64, 64)), painted(6, 25, 30, 39, 50, size=(64, 64)))
    one, two = (
        direction_of(anime, blue_eyes().model_copy(update={"key": key}), statistics).vectors
        for key in ((whole,), parts)
    )
    assert float((one * two).sum()) == pytest.approx(1, abs=0.02)


def test_erasing_silences_the_context(anime: Generator, statistics: LayerStatistics, before: Tensor):
    request = blue_eyes().model_copy(update={"operation": "erase", "object": None, "paste": None})
    found = rewrite(anime, request, statistics=statistics)
    assert found.rule.name == "erase at l08"
    assert found.solved.loss < 0.7 * found.solved.loss_before
    change = changed(anime, found.rule, before)
    assert change[EYES].mean() > 2 * change[HAIR].mean()


def test_locality_trades_the_loss_for_what_changes_elsewhere(anime: Generator, statistics: LayerStatistics):
    runs = []
    for locality in (0.0, 1.0, 10.0):
        solver = SolverSettings(locality=locality)
        request = blue_eyes().model_copy(update={"solver": solver, "rank": 3})
        runs.append(rewrite(anime, request, statistics=statistics).solved)
    assert runs[0].loss < runs[1].loss < runs[2].loss < runs[2].loss_before
    assert runs[0].elsewhere > runs[1].elsewhere > runs[2].elsewhere


# What is missing or wrong


def test_without_a_layer_the_default_one_is_rewritten(anime: Generator, edit: Edit):
    request = blue_eyes().model_copy(update={"layer": None})
    assert completed(request, anime).layer == anime.default_layer == "l08"
    assert rewrite(anime, request).rule.digest == edit.rule.digest


INCOMPLETE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no object": ({"object": None}, RequestError, "no object in the edit"),
    "no paste": ({"paste": None}, RequestError, "no paste in the edit"),
    "no context": ({"key": ()}, RequestError, "no key in the edit"),
    "no such layer": ({"layer": "l99"}, LayerError, "layer 'l99' in the edit; expected one of l02, l05"),
    "an empty mask": (
        {"object": Painted(2, Mask.from_array(torch.zeros(9, 9, dtype=torch.bool).numpy()))},
        MaskError,
        "an empty mask in object",
    ),
    "a mask too small": (
        {"paste": Painted(2, Mask.rectangle((2048, 2048), 3, 3, 4, 4))}, MaskError, "too small for a grid",
    ),
    "more directions than units": ({"rank": 65}, RequestError, "rank 65; expected 1 to"),
}  # fmt: skip


@pytest.mark.parametrize("which", INCOMPLETE)
def test_a_request_that_cannot_be_carried_out_is_refused_in_one_line(
    anime: Generator, statistics: LayerStatistics, which: str
):
    changes, error, message = INCOMPLETE[which]
    with pytest.raises(error, match=message) as problem:
        rewrite(anime, blue_eyes().model_copy(update=changes), statistics=statistics)
    assert "\n" not in str(problem.value)


def test_statistics_of_something_else_are_refused(anime: Generator, tmp_path: Path):
    other = layer_statistics(anime, "l05", store=Store(tmp_path), samples=5)
    with pytest.raises(RequestError, match=r"statistics of l05 .*; expected those of l08"):
        rewrite(anime, blue_eyes(), statistics=other)
    small = small_generator()
    elsewhere = layer_statistics(small, PLAIN, store=Store(tmp_path), samples=5)
    request = EditRequest(
        object=painted(1, 0, 0, 4, 4), paste=painted(2, 0, 0, 4, 4), key=(painted(2, 0, 0, 4, 4),)
    )
    with pytest.raises(RequestError, match=r"expected those of plain in small"):
        rewrite(small_generator(1), request.model_copy(update={"layer": PLAIN}), statistics=elsewhere)


# Progress


def test_progress_covers_statistics_and_solver_and_either_can_be_cancelled(tmp_path: Path):
    small, store = small_generator(), Store(tmp_path)
    region = painted(2, 4, 4, 12, 12)
    request = EditRequest(object=painted(1, 2, 2, 9, 9), paste=region, key=(region,), layer=PLAIN)
    told: list[tuple[int, int]] = []

    def stop_at(total: int) -> Any:
        def progress(done: int, of: int) -> None:
            told.append((done, of))
            if of == total:
                raise Cancelled

        return progress

    with pytest.raises(Cancelled):
        rewrite(small, request, store=store, progress=stop_at(1000))
    found = rewrite(small, request, store=store, progress=stop_at(request.solver.iterations))
    assert (1000, 1000) in told
    assert (1000, 1000) in told
    assert found.solved.stopped == "cancelled"
    assert found.solved.loss == found.solved.loss_before
