"""Jobs: how they end, what they report, who sees them, and what a page shows of them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.progress import Job, JobManager, Progress
from rewrite_core.errors import FileError, RequestError

WAIT = 10.0


class Gate:
    """Work that reports one step and then waits to be let through."""

    def __init__(self, steps: int = 4) -> None:
        self.steps, self.started, self.opened = steps, threading.Event(), threading.Event()

    def __call__(self, progress: Progress) -> str:
        progress(1, self.steps)
        self.started.set()
        assert self.opened.wait(WAIT)
        progress(self.steps, self.steps)
        return "through"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def answer(progress: Progress) -> int:
    progress(1, 1)
    return 42


def fail(error: Exception) -> Callable[[Progress], None]:
    def work(progress: Progress) -> None:
        raise error

    return work


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
    assert job.remaining == pytest.approx(3 * job.seconds, rel=0.5)
    gate.opened.set()
    assert ended(job) == "done"
    assert job.remaining is None


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


def page() -> None:
    import streamlit as st

    from dashboard.progress import follow, jobs

    def start() -> None:
        st.session_state["job"] = jobs().submit("ann", "Solving", st.session_state["work"])

    def take(result: str) -> None:
        st.session_state["taken"] = (*st.session_state.get("taken", ()), result)

    st.session_state["runs"] = st.session_state.get("runs", 0) + 1
    st.write(st.session_state.get("taken", ()))
    st.button("Try", on_click=start)
    if "job" in st.session_state:
        follow(st.session_state["job"], take)


def started(work: Callable[[Progress], object]) -> AppTest:
    app = AppTest.from_function(page)
    app.session_state["work"] = work
    app.run().button[0].click().run()
    assert not app.exception
    return app


def test_quick_work_is_taken_in_the_same_click_and_shows_no_bar():
    app = started(answer)
    assert app.session_state["taken"] == (42,)
    assert not app.get("progress")
    assert app.session_state["runs"] == 3  # the page, the click, and once more with the result
    app.run()
    assert (app.session_state["taken"], app.session_state["runs"]) == ((42,), 4)


def test_longer_work_shows_its_share_and_cancel_and_leaves_the_page_usable(gate):
    app = started(gate)
    [bar] = app.get("progress")
    assert bar.proto.value == 25
    assert bar.proto.text.startswith("Solving · 25 % · about ")
    gate.opened.set()
    assert app.session_state["job"].wait(WAIT)
    app.run()
    assert app.session_state["taken"] == ("through",)
    assert not app.get("progress")


def test_cancel_is_heard_and_nothing_is_taken(gate):
    app = started(gate)
    app.button(key=f"cancel-{app.session_state['job'].id}").click().run()
    assert app.get("progress")[0].proto.text == "Solving · stopping…"
    gate.opened.set()
    assert app.session_state["job"].wait(WAIT)
    app.run()
    assert app.caption[0].value == "Solving: cancelled."
    assert "taken" not in app.session_state


def test_why_a_job_failed_stays_in_sight():
    app = started(fail(FileError(found="a folder", expected="a file", remedy="Choose a file.")))
    for _ in range(2):
        assert app.error[0].value == "a folder; expected a file. Choose a file."
        app.run()


def test_the_manager_is_one_for_all_visitors():
    assert started(answer).session_state["job"].label == "Solving"
