"""The page Dissection: it opens full, a unit can be chosen and linked to, and what cannot be had leaves the rest."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
import streamlit.config
from streamlit.testing.v1 import AppTest

from dashboard.cli import main
from dashboard.dissection.charts import NOTHING, PICK, concepts_chart, detectors_chart, effects_chart, legend
from dashboard.dissection.choices import Choices
from dashboard.dissection.exporting import command
from dashboard.dissection.setting import dissect_these
from dashboard.dissection.state import DISSECTION, dissection_of, judge_of, open_source, source_of, subject_of
from dashboard.dissection.table import chosen_unit, listed
from dashboard.session import Session, embedded, service
from dissect.concepts.colours import Colours
from dissect.effects import single_effects
from dissect.settings import Settings
from dissect.units import Dissection, dissect
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import embedded_names
from rewrite_core.rules.stack import RuleStack
from tests.generators import PLAIN, UP, small_generator, some_rule, spec
from tests.watched import Watched
from tests.work import WAIT

PAGE = Path(__file__).parents[1] / "pages" / "dissection.py"
FEW = Choices(samples=24, begun=True)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service of its own for every test, over an empty cache."""
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    service.clear()
    yield
    service.clear()


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"], ids=["the owner's", "public"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server on the visitor's own machine, and one for everybody."""
    before = streamlit.config.get_option("server.address")
    streamlit.config.set_option("server.address", request.param)
    yield str(request.param)
    streamlit.config.set_option("server.address", before)


@pytest.fixture(scope="module")
def found() -> Dissection:
    return dissect(small_generator(), spec(40), [UP, PLAIN], Colours(), Settings(level=0.0))


def small(seed: int = 0, layer: str = UP, chosen: Choices = FEW) -> Session:
    """A visitor of a small generator, who has asked for its dissection."""
    return Session(small_generator(seed), layer, dissecting=chosen)


def visit(session: Session, **query: str) -> AppTest:
    """The page, once the visitor's jobs have ended."""
    app = AppTest.from_file(str(PAGE), default_timeout=60)
    app.session_state["palimpsest"] = session
    for name, value in query.items():
        app.query_params[name] = value
    return settled(app.run(), session)


def settled(app: AppTest, session: Session) -> AppTest:
    """The page after the jobs that it has begun, and those that follow from them."""
    waited: set[str] = set()
    while new := {asked.job.id for asked in session.asked.values()} - waited:
        for asked in session.asked.values():
            assert asked.job.wait(60)
        waited |= new
        app.run()
    assert not app.exception
    return app


def said(app: AppTest) -> str:
    """Everything that the page says in words."""
    return "\n".join(
        str(part.value) for part in (*app.caption, *app.markdown, *app.error, *app.info, *app.code)
    )


def dissected(session: Session) -> Dissection:
    """What was found for a visitor."""
    found = dissection_of(session)
    assert found is not None
    return found


def units_of(app: AppTest) -> list[int]:
    """The units in the table, in its order."""
    return [int(unit) for unit in app.dataframe[0].value["unit"]]


def test_it_opens_on_an_embedded_generator_with_all_its_layers_dissected():
    generator = embedded(embedded_names()[-1])
    session = Session(generator, generator.default_layer, dissecting=Choices(samples=12))
    app = visit(session)
    found = dissected(session)
    assert list(found.layers) == list(generator.layers)
    assert found.source.startswith("painted")
    assert len(app.dataframe[0].value) == generator.layer(generator.default_layer).in_channels
    assert "Where it is least" in said(app)
    assert app.query_params["layer"] == generator.default_layer


def test_a_generator_without_concepts_of_its_own_is_compared_with_colours():
    session = small()
    app = visit(session)
    assert source_of(session).title == "colours"
    assert units_of(app) == list(listed(session, dissected(session))["unit"])


def test_a_generator_of_ones_own_is_dissected_when_that_is_asked_for():
    session = small(chosen=Choices(samples=24))
    app = visit(session)
    assert "which of its units fire" in said(app)
    assert not session.asked
    app.button[0].click().run()
    assert len(settled(app, session).dataframe[0].value) == small_generator().layer(UP).in_channels


def test_a_row_of_the_table_opens_the_sheet_of_its_unit():
    session = small()
    app = visit(session)
    unit = units_of(app)[3]
    key = str(app.dataframe[0].key)
    app.session_state[key] = {"selection": {"rows": [3], "columns": [], "cells": []}}
    settled(app.run(), session)
    assert session.dissecting.unit == (UP, unit)
    assert app.query_params["unit"] == str(unit)
    assert f"Unit {unit} " in app.get("html")[-1].proto.body


def test_next_and_previous_go_through_the_rows_and_the_table_follows():
    session = small()
    app = visit(session)
    first, second = units_of(app)[:2]
    settled(app.button(key="unit-next").click().run(), session)
    assert session.dissecting.unit == (UP, second)
    settled(app.button(key="unit-previous").click().run(), session)
    assert session.dissecting.unit == (UP, first)
    assert app.button(key="unit-previous").disabled


def test_a_link_leads_to_its_layer_and_unit():
    session = small()
    app = visit(session, view="Units", layer=PLAIN, unit="2")
    assert session.layer == PLAIN
    assert session.dissecting.unit == (PLAIN, 2)
    assert "Unit 2 " in app.get("html")[-1].proto.body


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"layer": "l99"}, "l99"),
        ({"layer": UP, "unit": "99"}, "unit 99"),
        ({"view": "Somewhere"}, "view Somewhere"),
        ({"concepts": "/etc/passwd.json"}, "passwd"),
        ({"model": "unheard"}, "model unheard"),
        ({"concept": "<script>"}, "concept <script>"),
        ({"layer": "l" * 300, "unit": "1"}, f"layer {'l' * 80};"),
    ],
)
def test_a_link_to_what_there_is_not_is_explained_and_the_page_stays(query, problem):
    app = visit(small(), **query)
    words = said(app).replace("\\", "").replace("'", "")
    assert problem in words
    assert len(app.dataframe)


def test_concepts_that_cannot_be_had_leave_the_last_good_ones():
    session = small()
    dissect_these(session, "no/such.json", (), 30, Settings())
    app = visit(session)
    assert "no/such.json" in said(app).replace("\\", "")
    assert source_of(session).title == "colours"
    assert session.dissecting.samples == FEW.samples
    assert len(app.dataframe)


def test_a_public_server_opens_no_file_that_a_visitor_names(server):
    with pytest.raises(PalimpsestError) as problem:
        open_source(small_generator(), "no/such.json")
    assert ("which this server does not offer" in str(problem.value)) == (server != "127.0.0.1")


def test_visitors_choose_independently_and_share_what_was_found():
    ann, ben = small(), small()
    hers = visit(ann)
    theirs = visit(ben, layer=PLAIN)
    settled(hers.run(), ann)
    assert (ann.layer, ben.layer) == (UP, PLAIN)
    assert dissection_of(ann) is dissection_of(ben)
    assert DISSECTION not in ben.asked  # it was there
    assert len(theirs.dataframe[0].value) != len(hers.dataframe[0].value)


def test_the_page_is_there_while_the_work_goes_on_and_the_work_can_be_cancelled():
    watched = Watched.small(seed=5)
    session = Session(watched, UP, dissecting=FEW)
    app = AppTest.from_file(str(PAGE), default_timeout=60)
    app.session_state["palimpsest"] = session
    app.run()
    assert watched.busy.wait(WAIT)
    job = session.asked[DISSECTION].job
    assert any("Dissecting 4 layers · colours · 24 samples" in bar.proto.text for bar in app.get("progress"))
    assert len(app.get("button_group"))  # the choice of views
    app.button(key=f"cancel-{job.id}").click().run()
    watched.open()
    assert job.wait(WAIT)
    app.run()
    assert job.status == "cancelled"
    app.button(key=f"again-{DISSECTION}").click().run()
    assert len(settled(app, session).dataframe[0].value)


def test_filters_narrow_the_table():
    session = small()
    app = visit(session)
    everything = units_of(app)
    app.text_input(key="units-search").set_value(str(everything[2])).run()
    assert units_of(settled(app, session)) == [everything[2]]
    app.text_input(key="units-search").set_value("").run()
    app.toggle(key="units-layers").set_value(True).run()
    assert set(settled(app, session).dataframe[0].value["layer"]) == set(session.generator.layers)


def test_the_effect_of_a_unit_is_measured_when_asked_for():
    session = small()
    app = visit(session)
    layer, unit = chosen_unit(session, dissected(session), listed(session, dissected(session)))
    app.button(key="effect").click().run()
    settled(app, session)
    expected = single_effects(session.generator, spec(24), layer, Colours(), [unit]).table()
    assert len(app.get("vega_lite_chart")) + len(app.get("arrow_vega_lite_chart")) >= 4
    assert session.dissecting.caused == (layer, unit)
    assert session.asked["effect"].job.status == "done"
    assert len(expected)


def test_rules_apply_to_concepts_that_see_pixels_and_to_no_others():
    session = small()
    ruled = some_rule(session.generator)
    session.stack = RuleStack().push(ruled)
    assert subject_of(session).fingerprint == session.edited().fingerprint
    generator = embedded(embedded_names()[-1])
    painted = Session(generator, generator.default_layer)
    painted.stack = RuleStack().push(some_rule(generator, generator.default_layer))
    assert not source_of(painted).pixels_only
    assert subject_of(painted) is generator
    assert judge_of(painted).pixels_only


def test_the_command_says_what_was_chosen_and_is_understood():
    session = small(chosen=replace(FEW, layers=(UP, PLAIN), settings=Settings(0.98, 0.1)))
    session.truncation = 0.7
    line = shlex.split(command(session).text)
    assert line[:2] == ["palimpsest", "dissect"]
    dissecting = main.commands["dissect"]
    given, _, _ = dissecting.make_parser(click.Context(dissecting)).parse_args(line[2:])
    assert given == {
        "model": "MODEL",
        "layers": "up,plain",
        "concepts": "colours",
        "seeds": "0-23",
        "truncation": "0.7",
        "quantile": "0.98",
        "level": "0.1",
        "out": "dissection",
    }


def test_under_rules_the_commands_take_the_files_of_the_rules():
    session = small()
    rule = some_rule(session.generator)
    session.stack = RuleStack().push(rule)
    line = command(session)
    words = shlex.split(line.text)
    (name,) = line.files
    assert words[:5] == ["palimpsest", "dissect", "MODEL", "--rule", name]
    assert line.files[name] == rule.to_bytes()


def test_the_rules_are_in_the_command_of_concepts_that_see_them_alone():
    name = embedded_names()[0]
    session = Session(embedded(name), embedded(name).default_layer)
    session.stack = RuleStack().push(some_rule(session.generator, session.layer))
    assert "--rule" not in command(session).text  # painted concepts: of the generator as it was loaded
    session.dissecting = replace(session.dissecting, concepts="embedded:distilled")
    assert "--rule" in command(session).text


def test_the_overview_counts_every_unit_once_and_names_what_detects_nothing(found):
    chart = detectors_chart(found).to_dict()
    rows = next(iter(chart["datasets"].values()))
    counted = {layer: sum(row["units"] for row in rows if row["layer"] == layer) for layer in found.layers}
    assert counted == {layer: len(there.units) for layer, there in found.layers.items()}
    assert {row["concept"] for row in rows} <= {*found.names, NOTHING}
    assert any(parameter["name"] == PICK for parameter in chart["params"])


def test_a_concept_has_one_colour_in_all_charts(found):
    name = found.names[3]
    effects = single_effects(small_generator(), spec(8), UP, Colours(), [0]).table()
    sheet = found.layers[UP]
    rows = found.concepts().assign(iou=sheet.iou[0].numpy(), precision=0.0, recall=0.0)
    colours = []
    for chart in (concepts_chart(rows), effects_chart(effects)):
        scale = next(part for part in chart.to_dict()["layer"] if "color" in part["encoding"])["encoding"][
            "color"
        ]
        names, colour = scale["scale"]["domain"], scale["scale"]["range"]
        colours.append(dict(zip(names, colour, strict=True))[name])
    assert len(set(colours)) == 1
    assert colours[0] in legend([name])


def test_names_of_concepts_are_no_markup():
    assert "<b>" not in legend(["<b>bold</b>"])
