"""The page Directions: it opens full, directions of every origin come into the tray, and where they match is shown."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.canvas import canvas_key
from dashboard.cli import main
from dashboard.directions.charts import positions_chart
from dashboard.directions.choices import MOST, PAINT, PAINTED, Choices, Context, Item, Overlay, Range, Tray
from dashboard.directions.exporting import match_command, nearest_command
from dashboard.directions.found import SEARCH, found_of
from dashboard.directions.linking import address
from dashboard.directions.making import named, require_link
from dashboard.directions.origins import PROPOSING
from dashboard.directions.sending import send
from dashboard.directions.state import chosen, keep, look_at, remove, rename
from dashboard.session import Session, embedded, service
from rewrite_core.directions import Direction, unit_direction
from rewrite_core.directions.origins import ORIGINS
from rewrite_core.errors import ModelMismatch, RequestError
from rewrite_core.generators import embedded_names
from rewrite_core.generators.own import key_of
from rewrite_core.memory import level
from rewrite_core.rules.stack import RuleStack
from tests.generators import PLAIN, UP, painted, small_generator, some_rule

PAGE = Path(__file__).parents[1] / "pages" / "directions.py"
FEW = Choices(samples=24)


@pytest.fixture(autouse=True, scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A service of its own for these tests, over a cache that is empty at first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALIMPSEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        service.clear()
        yield
        service.clear()


def small(*units: int, chosen: Choices = FEW) -> Session:
    """A visitor of a small generator with some of its units in the tray."""
    session = Session(small_generator(), PLAIN, exploring=chosen)
    for unit in units:
        keep(session, Item(unit_direction(session.generator, PLAIN, unit), link=f"unit:{unit}"))
    return session


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
    """Everything that the page says in words, without Markdown's escapes."""
    parts = (*app.caption, *app.markdown, *app.error, *app.info, *app.code)
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def sent(app: AppTest, key: str) -> dict[str, Any]:
    """What the browser is given to show in a gallery."""
    (proto,) = [part.proto for part in app.get("bidi_component") if f"-{key}" in part.proto.id]
    data: dict[str, Any] = json.loads(proto.mixed.json or proto.json)
    return data


def seeds(app: AppTest, key: str = "matches-gallery") -> list[int]:
    return [int(picture["seed"]) for picture in sent(app, key)["pictures"]]


def named_item(session: Session) -> Item:
    item = chosen(session)
    assert item is not None
    return item


# What it opens with


def test_it_opens_with_an_example_and_where_it_matches():
    generator = embedded(embedded_names()[0])
    session = Session(generator, generator.default_layer, exploring=Choices(samples=40))
    app = visit(session)
    assert [item.name for item in session.tray] == ["eyes"]
    found = found_of(session, named_item(session))
    assert found is not None
    assert seeds(app) == found.matches.top(24)
    assert app.query_params["direction"] == ["eyes"] or app.query_params["direction"] == "eyes"
    assert "What else does l08 treat as this?" in said(app)


def test_a_generator_without_examples_says_what_can_be_done():
    session = small()
    app = visit(session)
    assert "What does small look up?" in said(app)
    assert not session.asked


def test_the_example_is_not_brought_back_once_it_is_removed():
    session = small(chosen=replace(FEW, begun=True))
    generator = embedded(embedded_names()[0])
    session.open(generator)
    session.exploring = replace(FEW, begun=True)
    visit(session)
    assert not len(session.tray)


# Matches


def test_top_middle_and_bottom_are_the_ends_and_the_middle_of_the_ranking():
    session = small(3)
    session.exploring = replace(session.exploring, samples=90)
    app = visit(session)
    found = found_of(session, named_item(session))
    assert found is not None
    expectations: list[tuple[Range, list[int]]] = [
        ("Top", found.matches.top(24)),
        ("Middle", found.matches.middle(24)),
        ("Bottom", found.matches.bottom(24)),
    ]
    for part, expected in expectations:
        session.exploring = replace(session.exploring, range=part)
        app.run()
        assert seeds(app) == expected


def test_every_overlay_is_drawn():
    session = small(3)
    app = visit(session)
    pictures = {"Outline": sent(app, "matches-gallery")["pictures"][0]["before"]}
    overlays: list[Overlay] = ["Heat", "None"]
    for overlay in overlays:
        session.exploring = replace(session.exploring, overlay=overlay)
        app.run()
        assert not app.exception
        pictures[overlay] = sent(app, "matches-gallery")["pictures"][0]["before"]
    assert len(set(pictures.values())) == 3


def test_quantiles_of_a_heat_map_are_shares_of_all_positions():
    session = small(3)
    visit(session)
    found = found_of(session, named_item(session))
    assert found is not None
    heat, every = found.matches.of(5), found.matches.heat
    expected = torch.tensor([[float((every < value).double().mean()) for value in row] for row in heat])
    assert np.allclose(found.quantiles(heat), expected.numpy())
    assert found.level(0.9) == level(every, 0.9)
    graded = found.graded(heat)
    assert float(graded.min()) >= 0
    assert float(graded.max()) <= 1


def test_a_click_on_a_picture_shows_it_closely_on_every_page():
    session = small(3)
    app = visit(session)
    third = seeds(app)[2]
    stamp = sent(app, "matches-gallery")["stamp"]
    app.session_state["matches-gallery"] = {"pick": {"stamp": stamp, "at": 1, "selected": key_of(third)}}
    settled(app.run(), session)
    assert session.exploring.picture == session.selected == third
    assert app.number_input(key=f"directions-picture-{third}").value == third


def test_a_click_on_a_position_asks_what_else_the_layer_treats_as_it():
    session = small(3)
    app = visit(session)
    picture = seeds(app)[0]
    hottest = seeds(app, "nearest-gallery")
    session.exploring = replace(session.exploring, picture=picture, place=(picture, 6, 1))
    settled(app.run(), session)
    nearest = sent(app, "nearest-gallery")["pictures"]
    assert nearest[0]["seed"] == picture  # nothing is more like it than itself
    assert nearest[0]["note"] == "1.00"
    assert seeds(app, "nearest-gallery") != hottest


def test_any_picture_can_be_looked_at_also_one_that_was_not_searched():
    session = small(3)
    app = visit(session)
    session.exploring = replace(session.exploring, picture=5000)
    app = settled(app.run(), session)
    keys = session.generator.keys(session.generator.latents(session.spec((5000,))), PLAIN).keys
    assert f"{float(keys[0, 3].max()):.3g}" in said(app)


def test_cells_of_a_fine_grid_are_joined_and_stand_for_their_hottest_position():
    heat = torch.rand(100, 60, generator=torch.Generator().manual_seed(0))
    chart = positions_chart(np.zeros((100, 60, 3), np.uint8), heat, heat.double().numpy(), (0, 9, 9), 200)
    cells = chart.layer[1].data
    assert isinstance(cells, pd.DataFrame)
    assert len(cells) == 34 * 30
    values = heat.double().numpy()
    for row, column, top, bottom, left, right, hottest in cells[
        ["row", "column", "top", "bottom", "left", "right", "heat"]
    ].to_numpy():
        assert hottest == values[int(row), int(column)]
        assert hottest == values[int(top) : int(bottom), int(left) : int(right)].max()


def test_the_last_search_stays_on_screen_until_the_next_is_there():
    session = small(3)
    app = visit(session)
    before = seeds(app)
    session.exploring = replace(session.exploring, samples=30_000)
    app.run()
    assert len(app.get("progress"))
    assert seeds(app) == before
    session.asked[SEARCH].job.cancel()


# The tray


def test_choosing_a_direction_of_another_layer_switches_the_layer():
    session = small(3)
    keep(session, Item(unit_direction(session.generator, UP, 2), link="unit:2"))
    assert session.layer == UP
    app = visit(session)
    first, _ = session.tray
    app.button(key=f"direction-{first.key}").click()
    settled(app.run(), session)
    assert session.layer == PLAIN
    assert named_item(session) is first
    assert app.query_params["layer"] in (PLAIN, [PLAIN])


def test_a_direction_is_renamed_removed_and_kept_once():
    session = small(3, 4, 3)
    assert len(session.tray) == 2
    four = session.tray.items[1]
    rename(session, four.key, "  a name ")
    rename(session, four.key, " ")
    assert [item.name for item in session.tray] == ["unit 3", "a name"]
    look_at(session, four.key)
    remove(session, four.key)
    assert named_item(session).name == "unit 3"


def test_a_tray_that_is_full_says_so():
    session = Session(small_generator(), UP)
    units = session.generator.layer(UP).in_channels
    some = [
        unit_direction(session.generator, layer, unit) for layer in (UP, PLAIN) for unit in range(units - 2)
    ]
    tray = Tray().added(*(Item(direction) for direction in some))
    more = [
        Item(replace(some[0], vectors=torch.nn.functional.normalize(torch.rand(1, units).double())))
        for _ in range(MOST)
    ]
    with pytest.raises(RequestError, match=f"at most {MOST}"):
        tray.added(*more)


def test_a_saved_direction_comes_back_and_one_of_another_generator_does_not():
    session = small(3)
    loaded = Direction.load(named_item(session).direction.to_bytes())
    other = Session(small_generator(1), PLAIN)
    with pytest.raises(ModelMismatch):
        keep(other, Item(loaded))
    again = small()
    keep(again, Item(loaded))
    assert named_item(again).key == named_item(session).key


def test_visitors_have_trays_of_their_own_and_another_model_empties_them():
    one, other = small(3), small()
    visit(one)
    visit(other)
    assert not len(other.tray)
    one.open(small_generator(1))
    assert not len(one.tray)
    assert one.exploring == Choices()


# New directions


def paint(app: AppTest, session: Session, button: str) -> None:
    """Paint a square on the selected picture and press a button."""
    image = (
        f"{session.generator.fingerprint[:8]}-{session.truncation}-{session.label}-{key_of(session.selected)}"
    )
    rgba = np.zeros((432, 432, 4), np.uint8)
    rgba[100:300, 100:300] = (255, 45, 120, 140)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    mounts = [mount for mount in range(9) if canvas_key("context", image, mount) in app.session_state]
    drawing = {"drawing": {"raw": {"objects": []}, "data": url}, "backgroundFit": None}
    app.session_state[canvas_key("context", image, mounts[-1])] = drawing
    app.run()
    app.button(key=f"paint-context-{button}").click()
    settled(app.run(), session)


def test_a_painted_context_becomes_a_direction_that_rewriting_can_take_over():
    session = small(chosen=replace(FEW, view=PAINT))
    app = visit(session)
    paint(app, session, "Add to “this”")
    assert len(session.exploring.context.this) == 1
    app.text_input(key="context-name-context 1-False").input("corner")
    app.button(key="context-add").click()
    settled(app.run(), session)
    item = named_item(session)
    assert (item.name, item.direction.method) == ("corner", "mean")
    assert seeds(app) == found(session)
    send(session, item)
    assert session.draft.key == session.exploring.context.this
    assert session.draft.given is None
    assert (session.layer, session.view) == (PLAIN, "Paint")


def found(session: Session) -> list[int]:
    """The best matches of the chosen direction."""
    known = found_of(session, named_item(session))
    assert known is not None
    return known.matches.top(24)


def test_this_and_not_that_is_a_difference_and_goes_to_rewriting_as_given():
    context = Context(this=(painted(0, 2, 2, 8, 8),), that=(painted(1, 8, 8, 14, 14),))
    session = small(chosen=replace(FEW, context=context, view=PAINT))
    app = visit(session)
    app.button(key="context-add").click()
    settled(app.run(), session)
    item = named_item(session)
    assert item.direction.method == "difference"
    send(session, item)
    assert session.draft.given == item.direction
    assert not session.unpainted


def test_rewriting_shows_what_is_given_and_can_do_without_it():
    session = small(3)
    send(session, named_item(session))
    app = AppTest.from_file(str(PAGE.with_name("rewriting.py")), default_timeout=60)
    app.session_state["palimpsest"] = session
    app.run()
    assert "unit 3" in app.button(key="remove-given").label
    assert not app.button(key="search").disabled
    app.button(key="remove-given").click().run()
    assert session.draft.given is None
    assert app.button(key="search").disabled


def test_a_region_is_removed_and_a_rank_too_high_is_explained():
    context = Context(this=(painted(0, 2, 2, 8, 8), painted(1, 2, 2, 8, 8)), rank=9)
    context = replace(context, settings=context.settings.model_copy(update={"method": "mean"}))
    session = small(chosen=replace(FEW, context=context, view=PAINT))
    app = visit(session)
    assert "rank 9" in said(app)
    app.button(key=f"context-remove-this-0-{key_of(0)}").click()
    settled(app.run(), session)
    assert [region.image for region in session.exploring.context.this] == [1]


@pytest.mark.parametrize("name", ["pca", "k-means"])
def test_what_an_origin_proposes_is_picked_from_a_list(name):
    session = small(chosen=replace(FEW, origin=ORIGINS[name].title))
    app = visit(session)
    app.button(key=f"direction-find-{name}").click()
    settled(app.run(), session)
    assert PROPOSING in session.asked
    app.button(key=f"propose-{name}:2").click()
    settled(app.run(), session)
    item = named_item(session)
    assert (item.direction.method, item.link) == (name, f"{name}:2")
    assert app.button(key=f"propose-{name}:2").disabled


def test_a_unit_and_a_rule_of_the_sidebar_become_directions():
    session = small(chosen=replace(FEW, origin="Unit"))
    session.stack = RuleStack().push(some_rule(session.generator))
    app = visit(session)
    app.number_input(key=f"direction-unit-{PLAIN}").set_value(7)
    app.button(key="direction-add-unit").click()
    settled(app.run(), session)
    assert named_item(session).link == "unit:7"
    session.exploring = replace(session.exploring, origin="Rule")
    app.run()
    app.button(key="direction-add-rule").click()
    settled(app.run(), session)
    assert named_item(session).direction.method == "rule"
    session.exploring = replace(session.exploring, row=1)
    assert seeds(settled(app.run(), session)) == found(session)


def test_the_panel_offers_every_origin():
    app = visit(small())
    offered = app.selectbox(key="direction-origin").options
    assert set(offered) >= {PAINTED, "Unit", "Rule", "File", *(origin.title for origin in ORIGINS.values())}


# Links and commands


def test_a_link_leads_to_its_direction():
    session = small()
    app = visit(session, layer=PLAIN, direction="unit:4", quantile="0.999")
    assert named_item(session).link == "unit:4"
    assert session.exploring.quantile == 0.999
    assert address(session) == "?view=Matches&layer=plain&direction=unit%3A4&samples=24&quantile=0.999"
    assert app.query_params["direction"] in ("unit:4", ["unit:4"])


WRONG = {
    "layer": ("l99", "l99"),
    "direction": ("<script>", "<script>"),
    "view": ("Somewhere", "view Somewhere"),
    "samples": ("1" * 50, "samples 111"),
    "quantile": ("nan", "quantile nan"),
    "model": ("unheard", "model unheard"),
}
"""A value that there is not for each name in an address, and what the page says of it."""


def test_links_to_what_there_is_not_are_explained_and_the_page_stays():
    session = small(3)
    app = visit(session)
    for name, (value, problem) in [*WRONG.items(), ("direction", ("unit:99", "unit:99"))]:
        app.query_params[name] = value
        app = settled(app.run(), session)
        assert problem in said(app).replace("'", "")
        assert seeds(app) == found(session)
        app.query_params.clear()
        app.run()


def test_what_a_link_names_is_what_the_origin_proposes():
    generator = small_generator()
    assert require_link(generator, PLAIN, "pca:2") == PLAIN
    item = named(generator, PLAIN, "pca:2")
    assert item.name == "PCA 2"
    with pytest.raises(RequestError, match="pca:0"):
        require_link(generator, PLAIN, "pca:0")
    with pytest.raises(RequestError, match="number 16"):
        named(generator, PLAIN, "pca:16")  # the layer has ten units


def test_the_commands_are_ones_that_there_are():
    session = small(3)
    visit(session)
    known = found_of(session, named_item(session))
    assert known is not None
    for line in (match_command(session, known), nearest_command(session, known, (3, 2, 1))):
        group, name, *rest = shlex.split(line.text)[1:]
        command = main.commands[group]
        assert isinstance(command, click.Group)
        command.commands[name].make_context(name, rest, resilient_parsing=False)
    (content,) = match_command(session, known).files.values()
    assert Direction.load(content).vectors.equal(known.query[None])
