"""The views Map, Methods and Concepts of the page Directions: what is brushed, compared and dissected is shown."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.cli import main
from dashboard.directions.choices import CONCEPTS, MAP, MATCHES, METHODS, Item
from dashboard.directions.compared import compared_of, context_of
from dashboard.directions.exporting import CONTEXT, dissect_command, map_command, methods_command
from dashboard.directions.key_chart import BRUSH, keys_chart, patch_urls
from dashboard.directions.making import examples
from dashboard.directions.mapped import Mapped, mapped_of
from dashboard.directions.mapping import _drag
from dashboard.directions.state import keep
from dashboard.dissection.state import source_of
from dashboard.session import Session, embedded, service
from dashboard.taking import Line
from dissect.key_map import KeyMap
from dissect.units import dissect_directions
from rewrite_core.directions import METHODS as ALL
from rewrite_core.directions import Direction, unit_direction
from rewrite_core.generators import embedded_names
from rewrite_core.rules.request import EditRequest
from tests.test_directions_page import PAGE, named_item, said, seeds, sent, settled

FEW = 32
EYES = "eyes"


@pytest.fixture(autouse=True, scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A service of its own for these tests, over a cache that is empty at first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALIMPSEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        service.clear()
        yield
        service.clear()


def visitor(view: str, *units: int, **chosen: object) -> Session:
    """A visitor of the default generator who looks at few samples, with some units in the tray."""
    generator = embedded(embedded_names()[0])
    session = Session(generator, generator.default_layer)
    for unit in units:
        keep(session, Item(unit_direction(generator, session.layer, unit), link=f"unit:{unit}"))
    begun = {"begun": bool(units), "view": view, "samples": FEW, **chosen}
    session.exploring = replace(session.exploring, **begun)  # type: ignore[arg-type]
    return session


def visit(session: Session) -> AppTest:
    """The page, once the visitor's jobs have ended."""
    app = AppTest.from_file(str(PAGE), default_timeout=60)
    app.session_state["palimpsest"] = session
    return settled(app.run(), session)


def mapped(session: Session) -> Mapped:
    found = mapped_of(session)
    assert found is not None
    return found


def understood(line: Line) -> list[str]:
    """The words of a command line, once the command has understood them."""
    words = shlex.split(line.text)[1:]
    command: click.Command = main
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(str(command.name), list(words), resilient_parsing=False)
    return words


# Map


def test_the_map_opens_with_pictures_of_where_the_direction_matches_best():
    session = visitor(MAP, 3)
    app = visit(session)
    found = mapped(session)
    rows = found.inside(found.around(named_item(session).direction.vectors[0]))
    assert len(rows)
    assert seeds(app, "map-gallery") == list(dict.fromkeys(found.map.places[rows, 0].tolist()))[:24]
    assert f"{len(rows):,} key" in said(app)


def test_what_is_brushed_are_the_keys_in_the_box_nearest_to_its_middle_first():
    session = visitor(MAP, 3)
    visit(session)
    found = mapped(session)
    low, high = np.quantile(found.map.points, [0.3, 0.6], axis=0)
    rows = found.inside((low[0], high[0], low[1], high[1]))
    inside = ((found.map.points >= low) & (found.map.points <= high)).all(1)
    assert set(rows.tolist()) == set(np.flatnonzero(inside).tolist())
    away = np.square((found.map.points[rows] - (low + high) / 2) / (high - low)).sum(1)
    assert (np.diff(away) >= 0).all()
    assert not len(found.inside(()))


def test_the_pictures_are_outlined_where_the_brushed_keys_are():
    session = visitor(MAP, 3)
    app = visit(session)
    plain = {picture["seed"]: picture["before"] for picture in sent(app, "map-gallery")["pictures"]}
    points = mapped(session).map.points
    everything = (
        *map(float, (points[:, 0].min(), points[:, 0].max(), points[:, 1].min(), points[:, 1].max())),
    )
    session.exploring = replace(session.exploring, box=everything)
    app = settled(app.run(), session)
    assert "1,000 keys" in said(app)
    changed = {picture["seed"]: picture["before"] for picture in sent(app, "map-gallery")["pictures"]}
    for seed in plain.keys() & changed.keys():
        assert plain[seed] != changed[seed]


def test_brushed_keys_become_a_direction_that_is_hotter_on_them_than_on_the_others():
    session = visitor(MAP, 3)
    app = visit(session)
    found = mapped(session)
    item = named_item(session)
    rows = found.inside(found.around(item.direction.vectors[0]))
    app.button(key="map-direction").click()
    settled(app.run(), session)
    made = named_item(session).direction
    assert session.exploring.view == MATCHES
    assert made.method == "mean"
    assert made.provenance["places"] == found.map.places[rows].tolist()
    heat = found.rows @ made.vectors[0]
    others = np.setdiff1d(np.arange(len(heat)), rows)
    hot, rest = (float(heat[torch.as_tensor(some)].mean()) for some in (rows, others))
    assert hot > 1.5 * max(rest, 0)
    assert hot > 0
    assert Direction.load(made.to_bytes()) == made


@pytest.mark.parametrize("choice", [{"marks": "Patches"}, {"coloured": "Heat"}])
def test_every_look_of_the_map_is_drawn(choice):
    session = visitor(MAP, 3, **choice)
    app = visit(session)
    assert len(sent(app, "map-gallery")["pictures"])
    assert ("Heat of “unit 3”" in said(app)) == ("coloured" in choice)


def test_a_map_without_a_direction_of_its_layer_waits_for_a_brush():
    session = visitor(MAP, 3, coloured="Heat")
    session.layer = "l05"
    app = visit(session)
    assert "Drag a box over the map" in said(app)
    assert "The tray has no direction of l05" in said(app)


def test_a_drag_is_kept_and_a_click_beside_it_takes_it_away(monkeypatch):
    session = visitor(MAP, 3)
    selection = {"selection": {BRUSH: {"x": [0.5, -0.5], "y": [0.1, 0.2]}}}
    monkeypatch.setattr("streamlit.session_state", {"map-1": selection})
    _drag(session, "map-1")
    assert session.exploring == replace(session.exploring, box=(-0.5, 0.5, 0.1, 0.2))
    selection["selection"] = {}
    _drag(session, "map-1")
    assert session.exploring == replace(session.exploring, box=())


def some_map(count: int = 400) -> KeyMap:
    random = np.random.default_rng(0)
    points, places = random.normal(size=(count, 2)), random.integers(0, 16, (count, 3))
    patches = random.integers(0, 255, (count, 12, 12, 3)).astype(np.uint8)
    names = ("", "hair", "eyes")
    return KeyMap(
        points, places, "PCA", patches, tuple(names[k % 7 % 3] for k in range(count)), "l08", "some"
    )


def rows_of(chart: Any) -> pd.DataFrame:
    """What a chart, or one of its layers, draws."""
    rows = chart.data
    assert isinstance(rows, pd.DataFrame)
    return rows


def test_patches_on_the_map_do_not_cover_each_other_and_every_key_is_on_it():
    found = some_map()
    chart = keys_chart(found, None, "Patches", (-1, 1, -1, 1), 500)
    points, frames, pictures = (rows_of(layer) for layer in chart.layer)
    assert len(points) + len(pictures) == len(found.points)
    assert frames.equals(pictures)
    scale = 500 / (found.points.max(0) - found.points.min(0)).max()
    places = pictures[["x", "y"]].to_numpy() * scale
    apart = np.abs(places[:, None] - places[None]).max(-1) + 1e9 * np.eye(len(places))
    assert apart.min() > 24


def test_what_is_sent_of_a_patch_is_small():
    smooth = np.linspace(0, 255, 12)[None, :, None, None] * np.ones((50, 1, 12, 3))
    urls = patch_urls(np.ascontiguousarray(smooth.astype(np.uint8)))
    assert len(set(urls)) == 1
    assert max(map(len, urls)) < 400


def test_rare_concepts_and_hot_keys_lie_on_top():
    found, heat = some_map(), np.linspace(1, 0, 400)
    by_concept = rows_of(keys_chart(found, None, "Points", None, 500))["concept"]
    assert list(dict.fromkeys(by_concept)) == ["no concept", "hair", "eyes"]
    assert rows_of(keys_chart(found, heat, "Points", None, 500))["heat"].is_monotonic_increasing


# Methods


def test_methods_are_judged_by_the_concept_that_the_direction_is_called_by():
    session = visitor(METHODS)
    app = visit(session)
    item = named_item(session)
    request = context_of(item)
    assert request is not None
    sides = compared_of(session, item, request)
    assert sides is not None
    assert sides.found.concept == EYES == app.selectbox(key="methods-concept").value
    assert set(ALL) < set(sides.found.matches)
    best = sides.found.matches[item.direction.method].top(10)
    for row, method in enumerate(sides.found.matches, 1):
        assert seeds(app, f"methods-row-{row}") == best
        notes = [picture["note"] for picture in sent(app, f"methods-row-{row}")["pictures"]]
        ranking = sides.found.matches[method].top(len(sides.found.spec))
        assert notes == [f"#{1 + ranking.index(seed)}" for seed in best]
    session.exploring = replace(session.exploring, pictured="Top of each")
    app = settled(app.run(), session)
    for row, matches in enumerate(sides.found.matches.values(), 1):
        assert seeds(app, f"methods-row-{row}") == matches.top(24)


def test_without_a_concept_methods_are_compared_and_not_judged():
    session = visitor(METHODS, judged="")
    app = visit(session)
    assert "chance" not in said(app)
    assert "Shared of the best" in said(app)


def test_a_direction_that_was_not_painted_leads_to_those_that_were():
    session = visitor(METHODS, 3)
    app = visit(session)
    assert "“unit 3” was not made from a painted context" in said(app)
    session.exploring = replace(session.exploring, begun=False, wanted=EYES, view=METHODS)
    app = settled(app.run(), session)
    unit = next(item for item in session.tray if item.name == "unit 3")
    session.exploring = replace(session.exploring, chosen=unit.key)
    app.run()
    painted = next(item for item in session.tray if item.name == EYES)
    app.button(key=f"methods-{painted.key}").click()
    settled(app.run(), session)
    assert named_item(session) is painted


def test_the_context_of_a_saved_direction_is_read_back_and_a_damaged_one_is_none():
    session = visitor(MATCHES)
    visit(session)
    item = named_item(session)
    loaded = Item(Direction.load(item.direction.to_bytes()))
    request = context_of(loaded)
    assert request is not None
    assert request.key == EditRequest.load(examples(session.generator)[EYES]).key
    for broken in ({"key": 7}, {"key": [["0", "not a mask"]]}, "text"):
        provenance = {**loaded.direction.provenance, "request": broken}
        assert context_of(Item(replace(loaded.direction, provenance=provenance))) is None


# Concepts


def test_the_directions_of_the_tray_are_dissected_and_what_stands_for_a_concept_comes_first():
    session = visitor(CONCEPTS, 3, 4, 5)
    app = visit(session)
    (table,) = app.dataframe
    rows = table.value
    assert set(rows["unit"]) == {"unit 3", "unit 4", "unit 5"}
    gain = rows["held_out_iou"] - rows["baseline"]
    assert gain[rows["detector"]].is_monotonic_decreasing
    assert gain[~rows["detector"]].is_monotonic_decreasing
    assert not rows.isna().to_numpy().any()


def test_directions_of_one_name_are_told_apart_and_those_of_other_layers_left_out():
    session = visitor(CONCEPTS, 3, 4)
    three, four = session.tray.items
    session.tray = session.tray.renamed(three.key, "same").renamed(four.key, "same")
    keep(session, Item(unit_direction(session.generator, "l05", 1)))
    session.layer = session.generator.default_layer
    app = visit(session)
    (table,) = app.dataframe
    assert set(table.value["unit"]) == {"same (1)", "same (2)"}


def test_dissect_these_leads_from_the_tray_to_the_table():
    session = visitor(MATCHES, 3)
    app = visit(session)
    app.button(key="tray-dissect").click()
    app = settled(app.run(), session)
    assert session.exploring.view == CONCEPTS
    assert len(app.dataframe) == 1


def test_an_empty_tray_says_what_to_do():
    session = visitor(CONCEPTS, 3)
    session.layer = "l05"
    assert "The tray has no direction of l05" in said(visit(session))


# Commands


def test_the_commands_are_ones_that_there_are():
    session = visitor(MAP, 3, marks="Patches")
    visit(session)
    shown = mapped(session)
    assert "--method" not in understood(map_command(session, shown))
    words = understood(map_command(session, replace(shown, map=replace(shown.map, method="t-SNE"))))
    assert {"--thumbnails", "t-sne", "0-31"} <= set(words)
    item = named_item(session)
    generator, layer = session.generator, session.layer
    found = dissect_directions(
        generator, session.spec((0, 1)), layer, item.direction.vectors, ["unit 3"], source_of(session)
    )
    line = dissect_command(session, [item.direction], found)
    assert understood(line).count("--direction") == 1
    (content,) = line.files.values()
    assert Direction.load(content) == item.direction


def test_the_command_of_the_methods_reads_the_context_that_was_compared():
    session = visitor(METHODS)
    visit(session)
    item = named_item(session)
    request = context_of(item)
    assert request is not None
    sides = compared_of(session, item, request)
    assert sides is not None
    line = methods_command(session, request, sides.found, FEW)
    assert understood(line)[0] == CONTEXT
    assert EditRequest.load(line.files[CONTEXT]) == request
