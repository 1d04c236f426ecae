"""The page Service: whose jobs a visitor sees, what is stored, who may delete, and the words it is said in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit.config
from playwright.sync_api import Browser, expect
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from dashboard.gathering import command, offered
from dashboard.machine import gauges
from dashboard.running import summary
from dashboard.session import Session, service
from dashboard.storage import depends_on, model_names
from dashboard.words import ago, counted, duration, percent, size
from rewrite_core import LatentSpec
from rewrite_core.jobs import Job
from rewrite_core.statistics import SecondMoment, gather
from tests.browser import APP, browsing, serve, wait_text
from tests.conftest import chromium_path
from tests.generators import PLAIN, UP, small_generator, spec
from tests.watched import Watched
from tests.work import WAIT

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "pages" / "service.py"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service of its own for every test, over an empty cache."""
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    service.clear()
    yield
    service.clear()


@pytest.fixture
def generator() -> Iterator[Watched]:
    watched = Watched.small()
    yield watched
    watched.open()


@pytest.fixture
def owner() -> Iterator[None]:
    """The visitor and the server are on one machine."""
    before = streamlit.config.get_option("server.address")
    streamlit.config.set_option("server.address", "127.0.0.1")
    yield
    streamlit.config.set_option("server.address", before)


def visit(session: Session) -> AppTest:
    app = AppTest.from_file(str(PAGE), default_timeout=WAIT)
    app.session_state["palimpsest"] = session
    return app.run()


def select(app: AppTest, *rows: int) -> AppTest:
    """Select rows of the table."""
    app.session_state[str(app.dataframe[0].key)] = {
        "selection": {"rows": list(rows), "columns": [], "cells": []}
    }
    return app.run()


def said(app: AppTest) -> str:
    """Everything that the page says in words."""
    texts = [str(part.value) for part in (*app.caption, *app.markdown, *app.code, *app.error)]
    labels = [expander.label for expander in app.expander]
    return "\n".join([*texts, *labels, *(bar.proto.text for bar in app.get("progress"))])


def test_a_visitor_follows_a_job_and_nobody_else_sees_what_it_is(generator):
    ann = Session(generator, UP)
    hers = visit(ann).button(key="gather").click().run()
    assert not hers.exception
    assert "Second moment of up · 1,000 samples" in said(hers)
    assert generator.busy.wait(WAIT)
    (job,) = service().jobs()

    theirs = visit(Session(small_generator(1), UP))
    assert "Another visitor · 0 %" in said(theirs)
    assert "1,000 samples" not in said(theirs)
    assert not [button for button in theirs.button if button.label == "Cancel"]

    generator.open()
    hers.button(key=f"cancel-{job.id}").click().run()
    assert job.wait(WAIT)
    hers.run()
    assert "Second moment of up · 1,000 samples · cancelled" in said(hers)
    assert "cancelled; what was finished is kept" in said(hers)
    assert "cancelled" not in said(theirs.run())


@pytest.mark.usefixtures("owner")
def test_who_owns_the_machine_can_cancel_what_was_asked_for_before_a_reload(generator):
    visit(Session(generator, UP)).button(key="gather").click().run()
    assert generator.busy.wait(WAIT)
    (job,) = service().jobs()
    reloaded = visit(Session(generator, UP))
    assert "Second moment of up · 1,000 samples" in said(reloaded)
    generator.open()
    reloaded.button(key=f"cancel-{job.id}").click().run()
    assert job.wait(WAIT)
    assert job.status == "cancelled"


def test_what_was_gathered_is_listed_and_not_gathered_twice(generator):
    generator.open()
    app = visit(Session(generator, UP))
    app.number_input(key="gather-samples").set_value(60).run()
    app.multiselect(key="gather-layers").set_value([UP, PLAIN]).run()
    app.button(key="gather").click().run()
    assert service().jobs()[-1].wait(WAIT)
    app.run()
    assert "Second moment of up, plain · 60 samples · done in" in said(app)
    table = app.dataframe[0].value
    mine = table[table["state"] == ""]
    assert sorted(mine["layer"]) == [PLAIN, UP]
    assert set(mine["model"]) == {"small"}
    assert set(mine["samples"]) == {60}
    used = [(entry.name, entry.used) for entry in service().store.entries()]
    app.button(key="gather").click().run()
    assert "All of it is stored already." in said(app)
    assert len(service().jobs()) == 1
    assert [(entry.name, entry.used) for entry in service().store.entries()] == used, (
        "nothing was read for it"
    )


def test_sizes_look_like_those_beside_the_table_and_are_numbers():
    gather(small_generator(), spec(10), {UP: [SecondMoment()], PLAIN: [SecondMoment()]})
    shown = visit(Session(small_generator(), UP)).dataframe[0]
    sizes = [entry.bytes for entry in service().store.entries()]
    assert list(shown.value["size"]) == sizes, "it sorts by them"
    texts = convert_arrow_bytes_to_pandas_df(shown.proto.arrow_data.styler.display_values)
    assert list(texts["size"]) == [size(count) for count in sizes]
    assert "format" not in json.loads(shown.proto.columns)["size"]["type_config"], "which would win"


def test_a_model_of_somebody_else_has_no_name():
    small = small_generator()
    gather(small, spec(30), {UP: [SecondMoment()]})
    table = visit(Session(small_generator(1), UP)).dataframe[0].value
    assert table["model"][0] == small.fingerprint[:8]


def test_a_result_says_what_it_depends_on():
    small = small_generator()
    gather(small, LatentSpec.of([3, 1, 4], truncation=0.5), {UP: [SecondMoment()]})
    (entry,) = service().store.entries(shipped=False)
    rows = dict(depends_on(entry, model_names(Session(small, UP))))
    assert rows["model"].startswith("small, sequential, ")
    assert rows["statistic"] == f"second moment, version {SecondMoment.version} of its code"
    assert rows["samples"] == "3 (3, …, 4), numbered by seed, truncation 0.5"
    assert rows["computed"] == "25 pictures at a time in blocks of 100, float32 on cpu"
    app = select(visit(Session(small, UP)), 0)
    assert "1 result, " in said(app)
    assert app.table[0].value.loc["layer", "value"] == UP


def test_deleting_is_confirmed_and_is_for_the_owner_of_the_machine(owner):
    small = small_generator()
    for samples in (10, 20):
        gather(small, spec(samples), {UP: [SecondMoment()]})
    app = select(visit(Session(small, UP)), 0)
    assert len(service().store.entries(shipped=False)) == 2
    assert "Delete 1 result, " in said(app)
    app.button(key="delete").click().run()
    (left,) = service().store.entries(shipped=False)
    assert left.key["seeds"] == "0..9"
    assert "Select rows to see more." in said(app)  # the others have moved up: none of them is selected


def test_pruning_deletes_what_was_used_longest_ago(owner):
    gather(small_generator(), spec(10), {UP: [SecondMoment()]})
    app = visit(Session(small_generator(), UP))
    app.number_input(key="prune-to").set_value(0.0).run()
    app.button(key="prune").click().run()
    assert service().store.entries(shipped=False) == []


def test_on_a_server_for_others_nobody_deletes():
    gather(small_generator(), spec(10), {UP: [SecondMoment()]})
    app = select(visit(Session(small_generator(), UP)), 0)
    keys = {button.key for button in app.button}
    assert "verify" in keys
    assert not {"delete", "prune"} & keys


def test_verifying_finds_a_damaged_file():
    gather(small_generator(), spec(10), {UP: [SecondMoment()], PLAIN: [SecondMoment()]})
    damaged = service().store.entries(shipped=False)[0]
    content = bytearray(damaged.path.read_bytes())
    content[-1] ^= 1
    damaged.path.write_bytes(content)
    app = visit(Session(small_generator(), UP))
    app.button(key="verify").click().run()
    states = app.run().dataframe[0].value["state"]
    assert sum("checksum" in state for state in states) == 1
    assert sum(state == "intact" for state in states) == len(states) - 1


def test_the_line_for_many_machines_asks_for_the_same(generator):
    visitor = Session(generator, UP, origin="my models/gan")
    line = command(visitor, [UP, PLAIN], ["second_moment"], 500)
    assert shlex.split(line) == [
        *("torchrun", "--nproc-per-node", "2", "-m", "dashboard.cli", "stats", "compute", "my models/gan"),
        *("--layer", "up", "--layer", "plain", "--statistic", "second_moment", "--seeds", "0-499"),
    ]
    assert "--layer all" in command(visitor, list(generator.layers), ["second_moment"], 500)
    assert command(visitor, [UP], ["second_moment"], 1000) in said(visit(visitor))


def test_only_statistics_that_need_no_more_than_the_layer_are_offered():
    assert "second_moment" in offered()
    for empty in offered().values():
        assert (empty.needs().labeller, empty.needs().beside) == (None, None)


def test_the_machine_is_described():
    found = {gauge.name: gauge for gauge in gauges(small_generator())}
    assert found["Device"].text.startswith("CPU, 1 thread of ")
    assert found["Batches"].text == "25 pictures each, 1 at once"
    assert 0 < (found["Memory"].share or 0) < 1


def test_numbers_in_words():
    assert [percent(0.254), percent(1)] == ["25 %", "100 %"]
    assert [size(count) for count in (0, 999, 1000, 33_912, 21.5e9, 3e15)] == [
        *("0 B", "999 B", "1 kB", "33.9 kB", "21.5 GB", "3e+03 TB"),
    ]
    assert [duration(seconds) for seconds in (0.2, 99, 180, 7200, 200_000)] == [
        *("1 s", "99 s", "3 min", "2 h", "2 days"),
    ]
    assert [ago(0), ago(30)] == ["now", "30 s ago"]
    assert [counted(1, "job"), counted(1200, "job")] == ["1 job", "1,200 jobs"]


def test_the_sidebar_tells_running_jobs_from_waiting_ones():
    first, second = (Job[None](label, ("ann",)) for label in ("Solving", "Searching"))
    assert summary([]) == ""
    assert summary([first, second]) == "2 jobs waiting"
    first.start()
    first.advance(1, 4)
    assert summary([first, second]) == "1 job running · 25 %"


def test_a_wrong_setting_is_one_line_on_every_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PALIMPSEST_CACHE_LIMIT", "abc")
    app = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=WAIT).run()
    assert not app.exception
    assert [error.value for error in app.error] == [
        "PALIMPSEST\\_CACHE\\_LIMIT=abc; expected a number of GB, such as 20. Correct the variable, or unset it."
    ]


@pytest.mark.browser
def test_a_job_outlives_its_page_and_the_sidebar_leads_back_to_it(browser: Browser):
    chromium_path()
    with serve(APP) as address, browsing(browser, f"{address}/service") as page:
        samples = page.locator(".st-key-gather-samples input")
        samples.fill("300000")
        samples.press("Enter")
        expect(page.locator(".st-key-spread")).to_contain_text("Spread")
        page.locator(".st-key-gather button").click()
        wait_text(page, r"300,000 samples · \d+ % · about \d+", timeout=30)
        page.get_by_role("link", name="Model").click()
        wait_text(page, "What anime64.dcgan draws")
        wait_text(page, r"1 job running · \d+ %", within="jobs-running")
        page.locator(".st-key-jobs-running a").click()
        page.get_by_role("button", name="Cancel").click()
        wait_text(page, "300,000 samples · cancelled")
        expect(page.locator(".st-key-jobs-running a")).to_have_count(0, timeout=20_000)
