"""The statistics service: one job for the same question, one pass for the same samples, turns between visitors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rewrite_core import LatentSpec
from rewrite_core.errors import Cancelled, LayerError, PalimpsestError, RequestError
from rewrite_core.jobs import Job
from rewrite_core.statistics import SecondMoment, Statistic, Store, sweep
from rewrite_core.statistics.service import Service
from tests.generators import DOWN, PLAIN, UP, small_generator, spec
from tests.watched import Watched
from tests.work import WAIT

MOMENT = SecondMoment()


@pytest.fixture
def generator() -> Iterator[Watched]:
    watched = Watched.small()
    yield watched
    watched.open()


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(Store(tmp_path / "statistics"))


def asked(
    service: Service, generator: Watched, samples: int, visitor: str, layer: str = UP
) -> Job[dict[str, list[Statistic]]]:
    job = service.ask(generator, spec(samples), {layer: [MOMENT]}, visitor=visitor)
    assert isinstance(job, Job)
    return job


def ended(job: Job[Any]) -> str:
    assert job.wait(WAIT)
    return job.status


def moment(answers: dict[str, list[Statistic]] | None, layer: str = UP) -> torch.Tensor:
    assert answers is not None
    (found,) = answers[layer]
    assert isinstance(found, SecondMoment)
    return found.matrix


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal to the accuracy of float32."""
    return torch.allclose(found, expected, rtol=1e-6, atol=1e-6)


def swept(samples: int, layer: str = UP) -> torch.Tensor:
    return moment(sweep(small_generator(), spec(samples), {layer: [MOMENT]}), layer)


def test_what_is_not_stored_takes_a_job_and_is_answered_from_disk_ever_after(service, generator):
    generator.open()
    job = asked(service, generator, 30, "ann")
    assert job.label == "Second moment of up · 30 samples"
    assert ended(job) == "done"
    assert same(moment(job.result), swept(30))
    again = service.ask(generator, spec(30), {UP: [MOMENT]}, visitor="bob")
    assert isinstance(again, dict)
    assert same(moment(again), swept(30))
    assert generator.samples == 30


def test_identical_requests_share_a_job_that_is_waiting_or_running(service, generator):
    running = asked(service, generator, 10, "ann")
    assert generator.busy.wait(WAIT)
    waiting = asked(service, generator, 20, "ann")
    assert asked(service, generator, 10, "bob") is running
    assert asked(service, generator, 20, "bob") is waiting
    generator.open()
    assert [ended(running), ended(waiting)] == ["done", "done"]
    assert generator.passes == [10, 20]


def test_who_leaves_a_shared_job_stops_it_for_nobody_else(service, generator):
    job = asked(service, generator, 10, "ann")
    assert asked(service, generator, 10, "bob") is job
    job.leave("ann")
    generator.open()
    assert ended(job) == "done"


def test_the_work_stops_when_nobody_is_left(service, generator):
    job = asked(service, generator, 400, "ann")
    assert asked(service, generator, 400, "bob") is job
    assert generator.busy.wait(WAIT)
    job.leave("ann")
    job.leave("bob")
    generator.open()
    assert ended(job) == "cancelled"
    assert generator.samples < 400
    assert job.lines[-1].text == "cancelled; what was finished is kept"


def test_a_request_for_what_is_being_cancelled_is_a_job_of_its_own(service, generator):
    job = asked(service, generator, 10, "ann")
    assert generator.busy.wait(WAIT)
    job.leave("ann")
    other = asked(service, generator, 10, "bob")
    assert other is not job
    generator.open()
    assert [ended(job), ended(other)] == ["cancelled", "done"]


def test_visitors_take_turns_however_much_one_of_them_asks(service, generator):
    jobs = [asked(service, generator, 1, "ann")]
    assert generator.busy.wait(WAIT)
    jobs += [asked(service, generator, samples, "ann") for samples in (2, 3, 4)]
    jobs += [asked(service, generator, samples, "bob") for samples in (5, 6)]
    jobs += [
        asked(service, generator, samples, "eve") for samples in (4, 7)
    ]  # 4 is ann's last: it comes sooner
    generator.open()
    assert [ended(job) for job in jobs] == ["done"] * 8
    assert generator.passes == [1, 2, 5, 4, 3, 6, 7]


def test_who_asks_again_and_again_does_not_hold_up_who_is_waiting(service, generator):
    first = asked(service, generator, 1, "ann")
    assert generator.busy.wait(WAIT)
    waiting = [asked(service, generator, 2, "bob"), asked(service, generator, 3, "bob")]
    again = asked(service, generator, 4, "ann")
    generator.let(1)
    assert ended(first) == "done"
    generator.open()
    assert [ended(job) for job in (*waiting, again)] == ["done"] * 3
    assert generator.passes == [1, 2, 4, 3]


def test_requests_that_wait_for_the_same_samples_are_one_pass_with_answers_for_each(service, generator):
    first = asked(service, generator, 1, "ann")
    assert generator.busy.wait(WAIT)
    jobs = {layer: asked(service, generator, 30, layer, layer) for layer in (UP, PLAIN, DOWN)}
    generator.open()
    assert ended(first) == "done"
    for layer, job in jobs.items():
        assert ended(job) == "done"
        assert job.result is not None
        assert list(job.result) == [layer]
        assert same(moment(job.result, layer), swept(30, layer))
        assert (job.done, job.total) == (30, 30)
        assert "3 requests in one pass" in [line.text for line in job.lines]
    assert generator.drawn[1:] == [
        (spec(25).seeds, (UP, PLAIN, DOWN)),
        (spec(5, 25).seeds, (UP, PLAIN, DOWN)),
    ]


def test_requests_that_arrive_while_a_pass_runs_join_the_next_one(service, generator):
    jobs = [asked(service, generator, 20, "ann", UP)]
    assert generator.busy.wait(WAIT)
    jobs += [asked(service, generator, 20, "bob", PLAIN), asked(service, generator, 20, "eve", DOWN)]
    generator.open()
    assert [ended(job) for job in jobs] == ["done"] * 3
    assert [layers for _, layers in generator.drawn] == [(UP,), (PLAIN, DOWN)]


def test_a_request_that_is_withdrawn_leaves_the_pass_and_the_others_go_on(service, generator):
    first = asked(service, generator, 1, "ann")
    assert generator.busy.wait(WAIT)
    stays, goes = asked(service, generator, 150, "ann", UP), asked(service, generator, 150, "bob", DOWN)
    generator.let(2)
    assert ended(first) == "done"
    goes.cancel()
    generator.open()
    assert [ended(goes), ended(stays)] == ["cancelled", "done"]
    assert goes.result is None
    assert same(moment(stays.result), swept(150))
    assert generator.drawn[-1][1] == (UP,)


def test_what_one_of_them_did_wrong_does_not_reach_the_others_of_a_pass(service, generator):
    first = asked(service, generator, 1, "ann")
    assert generator.busy.wait(WAIT)
    right, wrong = asked(service, generator, 30, "ann"), asked(service, generator, 30, "bob", "nowhere")
    generator.open()
    assert [ended(job) for job in (first, right, wrong)] == ["done", "done", "failed"]
    assert same(moment(right.result), swept(30))
    assert wrong.error.startswith("layer 'nowhere'; expected one of")
    assert wrong.lines[-1].text == wrong.error


def test_the_thread_survives_an_error_and_says_which_unit_is_not_finite(service, generator):
    generator.open()
    weight = torch.full_like(generator.weight(PLAIN), float("nan"))
    broken = generator.with_weights({PLAIN: weight})
    job = asked(service, broken, 10, "ann", DOWN)
    assert ended(job) == "failed"
    assert "layer 'down' is NaN" in job.error
    assert "\n" not in job.error
    assert ended(asked(service, generator, 10, "ann")) == "done"


def test_a_cancelled_job_goes_on_from_its_blocks_when_it_is_asked_for_again(service, generator):
    job = asked(service, generator, 1000, "ann")
    generator.let(10)  # two blocks of four batches of 25, and half of another
    while len(generator.drawn) < 10:
        assert not job.wait(0.01)
    job.leave("ann")
    while not job.wait(0.01):
        generator.let(1)  # it is noticed between two batches
    assert job.status == "cancelled"
    before = generator.samples
    generator.open()
    later = Service(Store(service.store.folder))  # as after a restart
    again = asked(later, generator, 1000, "ann")
    assert ended(again) == "done"
    kept = 1000 - (generator.samples - before)
    assert 200 <= kept <= before
    assert f"{kept} samples were there already" in [line.text for line in again.lines]
    assert same(moment(again.result), swept(1000))


def test_fetch_waits_and_says_how_far_it_is(service, generator):
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        generator.open()

    found = service.fetch(generator, UP, spec(200), MOMENT, visitor="ann", progress=progress)
    assert same(found.matrix, swept(200))
    assert seen
    assert generator.samples == 200
    again = service.fetch(generator, UP, spec(200), MOMENT, visitor="bob")
    assert (torch.equal(again.matrix, found.matrix), generator.samples) == (True, 200)


def test_fetch_that_is_cancelled_withdraws_once(service, generator):
    job = asked(service, generator, 50, "ann")

    def progress(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        service.fetch(generator, UP, spec(50), MOMENT, visitor="ann", progress=progress)
    assert (job.owners, job.cancelling) == (("ann",), False)
    with pytest.raises(Cancelled):
        service.fetch(generator, DOWN, spec(50), MOMENT, visitor="ann", progress=progress)
    generator.open()
    assert ended(job) == "done"
    assert [job.status for job in service.jobs()] == ["cancelled", "done"]


def test_fetch_gives_up_when_its_visitor_leaves_the_job_elsewhere(service, generator):
    def progress(done: int, total: int) -> None:
        service.jobs()[0].leave("ann", altogether=True)

    job = asked(service, generator, 50, "bob")
    with pytest.raises(Cancelled):
        service.fetch(generator, UP, spec(50), MOMENT, visitor="ann", progress=progress)
    generator.open()
    assert ended(job) == "done"


def test_fetch_fails_with_what_the_job_failed_with(service, generator):
    with pytest.raises(LayerError, match="layer 'nowhere'"):
        service.fetch(generator, "nowhere", spec(50), MOMENT, visitor="ann")


def test_many_threads_that_fetch_the_same_draw_it_once(service: Service, generator: Watched):
    generator.open()

    def fetch(number: int) -> SecondMoment:
        return service.fetch(generator, UP, spec(100), MOMENT, visitor=f"visitor {number % 3}")

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(fetch, range(24)))
    assert all(same(moment.matrix, swept(100)) for moment in found[:3])
    assert generator.samples == 100


def test_a_visitor_has_a_limited_number_of_jobs_under_way(generator, tmp_path):
    service = Service(Store(tmp_path), unfinished=2)
    jobs = [asked(service, generator, samples, "ann") for samples in (1, 2)]
    bobs = asked(service, generator, 3, "bob")
    for samples in (3, 4):  # a job of another's counts, too
        with pytest.raises(RequestError, match="2 jobs under way; expected at most 2"):
            service.ask(generator, spec(samples), {UP: [MOMENT]}, visitor="ann")
    assert asked(service, generator, 2, "ann") is jobs[1]
    generator.open()
    assert [ended(job) for job in (*jobs, bobs)] == ["done"] * 3


def test_ended_jobs_are_remembered_for_a_while_without_their_answers(generator, tmp_path):
    generator.open()
    service = Service(Store(tmp_path), kept=2)
    jobs = [asked(service, generator, samples, "ann") for samples in (1, 2, 3)]
    assert [ended(job) for job in jobs] == ["done"] * 3
    asked(service, generator, 4, "ann").wait(WAIT)  # the thread is done with the others
    remembered = [job for job in service.jobs() if job.id in {job.id for job in jobs}]
    assert [job.label for job in remembered] == [job.label for job in reversed(jobs[2:])]
    assert all(job.result is None and job.ended and job.lines for job in remembered)
    assert jobs[0].result is not None


def test_samples_are_part_of_what_is_asked(service, generator):
    generator.open()
    specs: list[Callable[[], LatentSpec]] = [
        lambda: spec(5),
        lambda: spec(5, 1),
        lambda: LatentSpec.of(range(5), truncation=0.5),
        lambda: LatentSpec.of(range(5), "rows"),
    ]
    found = [service.fetch(generator, UP, of(), MOMENT, visitor="ann").matrix for of in specs]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_no_samples_are_an_error_of_the_job(service, generator):
    with pytest.raises(PalimpsestError, match="0 samples"):
        service.fetch(generator, UP, spec(0), MOMENT, visitor="ann")
