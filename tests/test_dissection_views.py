"""The views of the page Dissection that try units: found by painting, ablated and inserted, compared."""

from __future__ import annotations

import base64
import io
import json
import shlex
import time
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.canvas import canvas_key
from dashboard.cli import main
from dashboard.dissection.choices import UNITS, Choices
from dashboard.dissection.comparing import COMPARE
from dashboard.dissection.exporting import rank_command
from dashboard.dissection.finding import FIND
from dashboard.dissection.intervening import INTERVENE
from dashboard.dissection.probe import BY_NUMBER, INSERT, PAINTED, QUANTILE, Probe
from dashboard.session import Session, embedded
from dashboard.taking import TABLES
from rewrite_core import LatentSpec, Mask
from rewrite_core.generators import embedded_names
from rewrite_core.generators.own import key_of
from rewrite_core.resources import resource_dir
from rewrite_core.rules.stack import RuleStack
from tests.generators import PLAIN, small_generator, some_rule
from tests.work import WAIT


def visitor(view: str, **probe: Any) -> Session:
    """Someone on a view of the page, with few samples and concepts that need nothing."""
    chosen = Choices(view=view, concepts="colours", samples=8, layers=(PLAIN,), begun=True)
    return Session(small_generator(), PLAIN, dissecting=chosen, probe=Probe(**probe))


def visit(session: Session) -> AppTest:
    app = AppTest.from_file(str(resource_dir("pages") / "dissection.py"), default_timeout=60)
    app.session_state["palimpsest"] = session
    return run(app)


def run(app: AppTest) -> AppTest:
    """Run the page, and again until no job of it is under way."""
    session: Session = app.session_state["palimpsest"]
    end = time.monotonic() + WAIT
    app.run()
    while any(not asked.job.ended for asked in session.asked.values()):
        assert time.monotonic() < end
        next(asked.job for asked in session.asked.values() if not asked.job.ended).wait(WAIT)
        app.run()
    app.run()
    assert not app.exception
    return app


def sent(app: AppTest, key: str) -> dict[str, Any]:
    """What the browser is given to show in a gallery."""
    (proto,) = [part.proto for part in app.get("bidi_component") if part.proto.id.endswith(f"-{key}")]
    data: dict[str, Any] = json.loads(proto.mixed.json or proto.json)
    return data


def stroke(app: AppTest, role: str, image: str) -> None:
    """The browser reports a square painted on a canvas."""
    rgba = np.zeros((432, 432, 4), np.uint8)
    rgba[100:260, 100:260] = (255, 45, 120, 140)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    drawing = {"drawing": {"raw": {"objects": []}, "data": url}, "backgroundFit": None}
    app.session_state[canvas_key(role, image)] = drawing


def texts(app: AppTest) -> str:
    return "\n".join(part.value for part in [*app.markdown, *app.caption, *app.error])


# Find by painting


def painted_on(session: Session, seed: int) -> str:
    return f"{session.generator.fingerprint[:8]}-1.0-None-seed-{seed}"


def test_painting_lists_the_units_of_the_layer_and_keeps_what_is_painted():
    session = visitor(FIND)
    app = visit(session)
    assert "Which units fire here?" in texts(app)
    stroke(app, "find", painted_on(session, 0))
    run(app)
    (table,) = [frame.value for frame in app.dataframe]
    assert sorted(table["unit"]) == list(range(session.generator.layer(PLAIN).in_channels))
    assert table["iou"].is_monotonic_decreasing
    assert not table.isna().any().any()
    session.select(3)
    run(app)
    assert "Also painted: 0" in texts(app)
    stroke(app, "find", painted_on(session, 3))
    run(app)
    assert set(session.probe.on(session.spec((0,)))) == {0, 3}
    assert [item["seed"] for item in sent(app, "find-one")["pictures"]] == [0, 3]


def test_a_unit_that_was_found_leads_to_its_sheet():
    session = visitor(FIND)
    app = visit(session)
    stroke(app, "find", painted_on(session, 0))
    run(app)
    unit = sent(app, "find-units")["pictures"][2]["seed"]
    app.session_state["find-units"] = {
        "pick": {"stamp": sent(app, "find-units")["stamp"], "at": 1, "selected": key_of(unit)}
    }
    run(app)
    assert session.dissecting.unit == (PLAIN, unit)
    app.button(key="sheet-found").click()
    run(app)
    assert session.dissecting.view == UNITS
    assert session.dissecting.unit == (PLAIN, unit)


def test_what_is_erased_is_painted_no_more():
    spec = LatentSpec.of([4])
    region = Mask.rectangle((8, 8), 1, 1, 4, 4)
    probe = Probe().painted(spec, region)
    assert probe.on(LatentSpec.of([0])) == {4: region}
    assert probe.on(LatentSpec.of([0], truncation=0.5)) == {}
    assert probe.painted(spec, Mask(np.zeros((8, 8), np.uint8))).regions == {}


# Ablate and insert


def pairs(app: AppTest) -> list[dict[str, Any]]:
    return list(sent(app, "probe-pairs")["pictures"])


def changed(app: AppTest) -> bool:
    return any(item["before"] != item["after"] for item in pairs(app))


def test_every_picture_is_shown_before_and_after():
    session = visitor(INTERVENE)
    app = visit(session)
    assert [item["seed"] for item in pairs(app)] == list(range(12))
    assert changed(app)
    assert "Ablate units" in texts(app)
    app.slider(key="probe-strength").set_value(0.0)
    run(app)
    assert not changed(app)


@pytest.mark.parametrize("value", [None, QUANTILE])
def test_units_are_inserted_with_a_value_of_theirs(value):
    session = visitor(
        INTERVENE, act=INSERT, by=BY_NUMBER, numbers="1, 4-5", **({"value": value} if value else {})
    )
    app = visit(session)
    assert "Insert units 1, 4, 5 of plain" in texts(app)
    assert changed(app)


def test_a_painted_region_is_all_that_changes_at_a_layer_of_its_own_grid():
    session = visitor(INTERVENE, by=BY_NUMBER, numbers="2", where=PAINTED)
    app = visit(session)
    assert "Paint where to intervene" in texts(app)
    stroke(app, "where", session.generator.fingerprint[:8])
    run(app)
    assert "Ablate unit 2 of plain in a region" in texts(app)
    assert session.probe.region is not None
    assert not session.probe.region.empty


@pytest.mark.parametrize("numbers", ["", "10", "x", "3-1", "2, 2-99"])
def test_units_that_there_are_not_are_refused_in_one_line(numbers):
    app = visit(visitor(INTERVENE, by=BY_NUMBER, numbers=numbers))
    assert len(app.error) == 1
    assert "expected" in app.error[0].value


def test_effects_and_ranking_are_measured_when_asked_for():
    session = visitor(INTERVENE)
    app = visit(session)
    assert not app.get("vega_lite_chart")
    app.button(key="probe-effects").click()
    run(app)
    assert len(app.get("vega_lite_chart")) == 1
    app.button(key="probe-ranking").click()
    run(app)
    assert len(app.get("vega_lite_chart")) == 2
    assert session.probe.by != BY_NUMBER
    app.button(key="probe-use").click()
    run(app)
    assert session.probe.by == BY_NUMBER
    assert app.text_input(key="probe-numbers").value == session.probe.numbers != ""


# Compare


def test_without_a_rule_the_view_says_what_to_do():
    app = visit(visitor(COMPARE))
    assert "No rule is on" in texts(app)


def test_a_rule_is_compared_on_and_off():
    session = visitor(COMPARE)
    session.stack = RuleStack().push(some_rule(session.generator))
    app = visit(session)
    assert any(item["before"] != item["after"] for item in sent(app, "compare-pairs")["pictures"])
    app.button(key="probe-comparing").click()
    run(app)
    said = texts(app)
    for title in ("Concepts that grew or shrank", "Where", "Units that changed meaning"):
        assert f"**{title}**" in said
    units = session.generator.layer(PLAIN).in_channels
    assert f"Of {units} units:" in said
    app.segmented_control(key="compare-kind").set_value("all")
    run(app)
    assert len(app.dataframe[0].value) == units


def test_two_models_are_judged_by_concepts_that_know_both():
    one, other = embedded_names()[:2]
    session = Session(embedded(one), embedded(one).default_layer)
    session.dissecting = Choices(view=COMPARE, samples=8, layers=(session.layer,))
    session.probe = Probe(other=other, compared=8)
    app = visit(session)
    app.button(key="probe-comparing").click()
    run(app)
    assert "cannot judge the pictures of both" in texts(app).replace("\\", "")
    assert "**Concepts that grew or shrank**" in texts(app)
    first, second = map(
        shlex.split, next(code.value for code in app.code if "dissect" in code.value).splitlines()
    )
    assert (first[2], second[2]) == (one, other)
    assert first[first.index("--concepts") + 1] == second[second.index("--concepts") + 1] == "colours"


def test_opening_the_model_that_was_compared_with_compares_the_rules():
    one = embedded_names()[0]
    session = Session(embedded(one), embedded(one).default_layer)
    session.dissecting = Choices(view=COMPARE, samples=8)
    session.probe = Probe(other=one)
    assert "No rule is on" in texts(visit(session))


# Commands


def test_the_command_of_a_ranking_is_understood_whatever_a_concept_is_called():
    session = visitor(INTERVENE)
    session.truncation = 0.5
    line = shlex.split(rank_command(session, "the sky; rm -rf", (3, 1), 2, session.spec((8, 9, 10))).text)
    ablating = main.commands["ablate"]
    given, _, _ = ablating.make_parser(click.Context(ablating)).parse_args(line[2:])
    assert given == {
        "model": "MODEL",
        "layer": PLAIN,
        "ranked": "the sky; rm -rf",
        "units": "3,1",
        "count": "2",
        "concepts": "colours",
        "truncation": "0.5",
        "samples": "8-10",
        "out": "ranked",
    }


def test_tables_are_written_as_csv_and_as_parquet():
    table = pd.DataFrame({"unit": [3, 1], "iou": [0.25, 0.1]})
    csv, parquet = (io.BytesIO(write(table)) for _, write in TABLES.values())
    assert list(TABLES) == ["CSV", "Parquet"]
    pd.testing.assert_frame_equal(pd.read_csv(csv), table)
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), table)
