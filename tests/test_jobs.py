"""Jobs: how they end, what they report, whom they belong to, and how threads serve them."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from rewrite_core.errors import FileError, RequestError
from rewrite_core.jobs import LINES, Job, JobManager
from tests.work import WAIT, Gate, answer, fail


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def ended(job: Job[Any]) -> str:
    assert job.wait(WAIT)
    return job.status


def test_a_job_brings_its_result():
    job = JobManager().submit("ann", "Solving", answer)
    assert job.wait(WAIT)
    assert (job.status, job.result, job.error) == ("done", 42, "")
    assert (job.done, job.total) == (1, 1)


def test_progress_and_the_time_left_are_known_while_it_runs(gate):
    job = JobManager().submit("ann", "Solving", gate)
    assert gate.started.wait(WAIT)
    assert (job.status, job.done, job.total) == ("running", 1, 4)
    time.sleep(0.05)  # or the time between two looks at the clock counts
    assert job.remaining == pytest.approx(3 * job.seconds, rel=0.5)
    gate.opened.set()
    assert ended(job) == "done"
    assert job.remaining is None


def test_what_was_there_at_first_costs_nothing_and_every_stage_counts_from_its_own_start():
    job: Job[None] = Job("Sweeping", ("ann",))
    job.start()
    estimates = []
    for done, total in ((800, 1000), (900, 1000), (1, 30), (2, 30)):
        job.advance(done, total)
        estimates.append(job.remaining)
    assert [estimate is None for estimate in estimates] == [True, False, True, False]
    assert job.share == pytest.approx(2 / 30)


def test_a_job_keeps_a_log_of_bounded_length(gate):
    job: Job[None] = Job("Sweeping", ("ann",))
    for number in range(LINES + 5):
        job.say(f"line {number}")
    assert len(job.lines) == LINES
    assert job.lines[-1].text == f"line {LINES + 4}"
    times = [line.time for line in job.lines]
    assert times == sorted(times)


def test_a_job_stops_when_its_last_owner_has_left(gate):
    job = JobManager().submit("ann", "Solving", gate)
    assert gate.started.wait(WAIT)
    assert job.join("bob")
    assert job.join("ann")
    job.leave("eve")
    job.leave("ann")
    assert sorted(job.owners) == ["ann", "bob"]
    job.leave("ann")
    assert (job.owners, job.cancelling) == (("bob",), False)
    job.leave("bob")
    assert (job.owners, job.cancelling) == (("bob",), True)
    assert not job.join("ann")
    gate.opened.set()
    assert ended(job) == "cancelled"
    assert not job.join("ann")


def test_an_owner_leaves_altogether_however_often_it_asked(gate):
    job = JobManager().submit("ann", "Solving", gate)
    for owner in ("bob", "ann"):
        assert job.join(owner)
    job.leave("ann", altogether=True)
    assert job.owners == ("bob",)


def test_an_error_for_the_visitor_is_shown_as_it_is():
    problem = FileError(found="a folder", expected="a file", remedy="Choose a file.")
    job = JobManager().submit("ann", "Opening", fail(problem))
    assert ended(job) == "failed"
    assert job.error == str(problem)


def test_any_other_error_is_one_line_and_its_traceback_goes_to_the_log(caplog):
    job = JobManager().submit("ann", "Solving", fail(ValueError("secret\npath")))
    assert ended(job) == "failed"
    assert job.error == "Solving stopped on ValueError; the server's log says where."
    assert "secret" in caplog.text


def test_a_thread_survives_a_failed_job():
    manager = JobManager(threads=1)
    manager.submit("ann", "Solving", fail(ValueError("no")))
    assert ended(manager.submit("ann", "Solving", answer)) == "done"


def test_a_running_job_stops_at_its_next_report(gate):
    job = JobManager().submit("ann", "Solving", gate)
    assert gate.started.wait(WAIT)
    job.cancel()
    assert job.cancelling
    assert not job.ended
    gate.opened.set()
    assert ended(job) == "cancelled"
    assert job.result is None


def test_a_waiting_job_is_cancelled_at_once_and_never_runs(gate):
    manager = JobManager(threads=1)
    manager.submit("ann", "Solving", gate)
    assert gate.started.wait(WAIT)
    second = Gate()
    job = manager.submit("ann", "Sampling", second)
    assert job.status == "waiting"
    job.cancel()
    assert (job.ended, job.status) == (True, "cancelled")
    gate.opened.set()
    assert ended(manager.submit("ann", "Solving", answer)) == "done"
    assert not second.started.is_set()


def test_cancelling_a_job_that_is_done_changes_nothing():
    job = JobManager().submit("ann", "Solving", answer)
    assert ended(job) == "done"
    job.cancel()
    assert (job.status, job.result) == ("done", 42)


def test_no_more_jobs_run_at_once_than_there_are_threads():
    manager, gates = JobManager(threads=2), [Gate() for _ in range(3)]
    jobs = [manager.submit("ann", "Solving", gate) for gate in gates]
    assert gates[0].started.wait(WAIT)
    assert gates[1].started.wait(WAIT)
    assert jobs[2].status == "waiting"
    for gate in gates:
        gate.opened.set()
    assert [ended(job) for job in jobs] == ["done"] * 3


def test_another_visitors_jobs_never_show():
    manager = JobManager()
    job = manager.submit("ann", "Solving", answer)
    assert manager.of("ann") == [job]
    assert manager.of("bob") == []
    assert manager.get(job.id, "ann") is job
    assert manager.get(job.id, "bob") is None


def test_a_visitor_cannot_queue_without_end_and_does_not_crowd_out_others(gate):
    manager = JobManager(threads=1, unfinished=2)
    manager.submit("ann", "Solving", gate)
    manager.submit("ann", "Solving", answer)
    with pytest.raises(RequestError, match="2 jobs under way; expected at most 2"):
        manager.submit("ann", "Solving", answer)
    manager.submit("bob", "Solving", answer)


def test_only_the_newest_ended_jobs_are_remembered():
    manager = JobManager(threads=1, kept=2)
    jobs = [manager.submit("ann", f"job {number}", answer) for number in range(4)]
    assert [ended(job) for job in jobs] == ["done"] * 4
    assert [job.label for job in manager.of("ann")] == ["job 3", "job 2"]


def test_old_jobs_are_forgotten_with_their_results():
    class Pictures: ...

    manager = JobManager(kept_seconds=0)
    job = manager.submit("ann", "Sampling", lambda progress: Pictures())
    assert ended(job) == "done"
    result = weakref.ref(job.result)
    del job
    assert manager.of("ann") == []
    manager.submit("ann", "Solving", answer).wait(WAIT)  # the thread has let go of the first
    gc.collect()
    assert result() is None


def test_the_end_of_a_job_is_handed_over_once(gate):
    job = JobManager().submit("ann", "Solving", gate)
    assert not job.take()
    gate.opened.set()
    assert ended(job) == "done"
    assert [job.take() for _ in range(3)] == [True, False, False]
    assert [job.take("bob") for _ in range(2)] == [True, False]
