"""What a page shows of a job: nothing for quick work, else a bar with Cancel; and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from streamlit.testing.v1 import AppTest

from rewrite_core.errors import FileError
from rewrite_core.jobs import Progress
from tests.work import WAIT, Gate, answer, fail


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


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


def test_cancel_withdraws_a_visitor_from_a_job_that_goes_on_for_another(gate):
    app = AppTest.from_function(shared_page)
    app.session_state["work"] = gate
    app.run()
    job = app.session_state["job"]
    app.button(key=f"cancel-{job.id}").click().run()
    assert app.caption[0].value == "Solving: cancelled."
    assert (job.owners, job.cancelling) == (("bob",), False)


def test_a_shared_job_is_handed_over_to_each_visitor(gate):
    apps = [AppTest.from_function(shared_page) for _ in range(2)]
    apps[0].session_state["work"] = gate
    apps[0].run()
    apps[1].session_state["job"] = apps[0].session_state["job"]
    apps[1].run()
    gate.opened.set()
    assert apps[0].session_state["job"].wait(WAIT)
    for app in apps:
        assert app.run().session_state["taken"] == "through"


def shared_page() -> None:
    import streamlit as st

    from dashboard.progress import follow, jobs

    if "job" not in st.session_state:
        st.session_state["job"] = jobs().submit("ann", "Solving", st.session_state["work"])
        st.session_state["job"].join("bob")
    follow(st.session_state["job"], lambda result: st.session_state.update(taken=result), visitor="ann")


def test_why_a_job_failed_stays_in_sight():
    app = started(fail(FileError(found="a folder", expected="a file", remedy="Choose a file.")))
    for _ in range(2):
        assert app.error[0].value == "a folder; expected a file. Choose a file."
        app.run()


def test_the_manager_is_one_for_all_visitors():
    assert started(answer).session_state["job"].label == "Solving"
