"""The views of the page Directions that scale a direction, compare the tray, and show a layer's spectrum."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.cli import main
from dashboard.directions import moments
from dashboard.directions.choices import DOING, MATCHES, OVERLAPS, SPECTRUM, Choices, Item
from dashboard.directions.exporting import overlap_command, scale_command, spectrum_command
from dashboard.directions.linking import address
from dashboard.directions.moments import moment_of
from dashboard.directions.overlaps import names_of
from dashboard.directions.plots import effect_picture, greatest, matrix_chart
from dashboard.directions.state import keep
from dashboard.session import Session, service
from rewrite_core.directions import unit_direction
from rewrite_core.directions.overlap import interference, query_overlap
from rewrite_core.directions.spectrum import halves_of, noise_warning
from rewrite_core.generators import LatentSpec
from rewrite_core.rules.scaling import scaling_rule
from tests.generators import PLAIN, UP, some_rule
from tests.test_directions_page import said, sent, settled, small, visit

FEW = Choices(samples=24, begun=True)
ALPHA = "directions-alpha"
PAIRS = "directions-pairs"


@pytest.fixture(autouse=True, scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A service of its own for these tests, over a cache that is empty at first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALIMPSEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        service.clear()
        yield
        service.clear()


def of(view: str, *units: int, **chosen: Any) -> Session:
    """A visitor of a small generator on a view, with units in the tray."""
    return small(*units, chosen=replace(FEW, view=view, **chosen))


def pixels(app: AppTest, key: str, which: str) -> list[np.ndarray[Any, Any]]:
    """The pictures that a gallery shows."""
    urls = [picture[which].split(",")[1] for picture in sent(app, key)["pictures"]]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))) for url in urls]


# Effect


def test_pairs_are_drawn_as_the_scaling_rule_draws_them() -> None:
    session = of(DOING, 0)
    app = visit(session)
    app.slider(key=ALPHA).set_value(-1.0).run()
    settled(app, session)
    (item,) = session.tray
    shown = [picture["seed"] for picture in sent(app, PAIRS)["pictures"]]
    rule = scaling_rule(session.generator, item.direction, moment_of(session, PLAIN), -1)
    expected = session.generator.with_rules(rule).draw(session.spec(tuple(shown)))
    assert np.abs(np.stack(pixels(app, PAIRS, "after")).astype(int) - expected).max() <= 1
    assert (
        np.stack(pixels(app, PAIRS, "before")) == session.generator.draw(session.spec(tuple(shown)))
    ).all()
    assert (expected != np.stack(pixels(app, PAIRS, "before"))).any()


def test_it_begins_with_the_best_matches_and_what_is_matched_removed() -> None:
    session = of(DOING, 0)
    text = said(visit(session))
    assert "Changes " in text
    assert "above its 0.99 quantile" in text
    assert "Of its pattern 0 % is left; the published zero leaves " in text


def test_a_kept_rule_draws_the_pictures_that_were_shown() -> None:
    session = of(DOING, 0)
    app = visit(session)
    after = np.stack(pixels(app, PAIRS, "after"))
    shown = tuple(picture["seed"] for picture in sent(app, PAIRS)["pictures"])
    app.button(key="directions-keep").click().run()
    settled(app, session)
    (entry,) = session.stack.entries
    assert np.abs(session.pictures(shown, edited=True).astype(int) - after).max() <= 1
    assert (np.stack(pixels(app, PAIRS, "before")) == session.pictures(shown, edited=True)).all()
    assert session.exploring.alpha == 1
    assert app.button(key="directions-keep").disabled
    assert f"“{entry.rule.name}” is on" in said(app)


def test_two_visitors_share_neither_scale_nor_rule() -> None:
    first, second = of(DOING, 0), of(DOING, 0)
    app, other = visit(first), visit(second)
    app.slider(key=ALPHA).set_value(2.0).run()
    settled(app, first).button(key="directions-keep").click().run()
    settled(other.run(), second)
    assert len(first.stack.entries) == 1
    assert not second.stack.entries
    assert other.slider(key=ALPHA).value == 0
    assert "is on" not in said(other)


def test_a_rule_is_called_as_its_own_visitor_calls_the_direction() -> None:
    first, second = of(DOING, 0), of(DOING)
    keep(second, Item(unit_direction(second.generator, PLAIN, 0).renamed("mine")))
    for session in (first, second):
        settled(visit(session).button(key="directions-keep").click().run(), session)
    names = [session.stack.entries[0].rule.name for session in (first, second)]
    assert names[1] == "no mine"
    assert names[0] != names[1]


def test_the_published_zero_stands_beside_on_the_same_pictures() -> None:
    session = of(DOING, 0, zero=True)
    app = visit(session)
    both = [
        [picture["seed"] for picture in sent(app, key)["pictures"]]
        for key in (PAIRS, "directions-zero-pairs")
    ]
    assert both[0] == both[1]
    assert "of its pattern is left." in said(app)


def test_fresh_pictures_are_those_that_were_not_searched() -> None:
    app = visit(of(DOING, 0, fresh=True))
    assert [picture["seed"] for picture in sent(app, PAIRS)["pictures"]] == list(range(24, 32))


def test_rules_at_earlier_layers_are_told_of_and_drawn() -> None:
    session = of(DOING, 0)
    assert "earlier layer" not in said(visit(session))
    session.add(some_rule(session.generator, UP))
    app = visit(session)
    assert "earlier layer" in said(app)
    shown = tuple(picture["seed"] for picture in sent(app, PAIRS)["pictures"])
    assert (np.stack(pixels(app, PAIRS, "before")) == session.pictures(shown, edited=True)).all()


def test_the_scale_is_in_the_address_and_comes_back_by_it() -> None:
    session = of(DOING, 0, alpha=-1.5)
    assert "alpha=-1.5" in address(session)
    other = of(DOING, 0)
    visit(other, view=DOING, alpha="-1.5")
    assert other.exploring.alpha == -1.5
    visit(other, alpha="7")
    assert "alpha" in other.exploring.problem or "scale" in other.exploring.problem


def test_effects_are_coloured_on_a_scale_that_reaches_them() -> None:
    assert greatest(np.array([[0.0, 0.163]])) == pytest.approx(0.2)
    assert greatest(np.zeros((2, 2))) > 0
    shown = effect_picture(np.array([[0.0, 0.2]]), 0.2)
    assert shown[0, 0].tolist() == [0x44, 0x01, 0x54]
    assert shown[0, 1].tolist() == [0xFD, 0xE7, 0x25]


# Overlaps


def test_overlaps_are_those_of_the_layer_and_others_are_left_out() -> None:
    session = of(OVERLAPS, 0, 5)
    keep(session, Item(unit_direction(session.generator, UP, 0).renamed("elsewhere")))
    session.layer = PLAIN
    text = said(visit(session))
    assert "collide" in text
    assert "Left out, of other layers: elsewhere (up)" in text


def test_one_direction_alone_is_told_what_to_do() -> None:
    text = said(visit(of(OVERLAPS, 0)))
    assert "add another" in text
    assert "collide" not in text


def test_the_pair_most_likely_to_collide_is_the_one_of_the_strongest_interference() -> None:
    session = of(OVERLAPS, 0, 4, 5)
    first, second, _ = (item.direction for item in session.tray)
    near = torch.nn.functional.normalize(first.vectors + 0.05 * second.vectors)
    keep(session, Item(replace(first, vectors=near, name="near")))
    directions = [item.direction for item in session.tray]
    effect = interference(directions, moment_of(session, PLAIN)).fill_diagonal_(0).abs()
    row, column = divmod(int(effect.argmax()), len(directions))
    names = names_of(session.tray.items)
    assert "near" in (names[row], names[column])
    assert f"**{names[row]}** and **{names[column]}** are most likely to collide" in said(visit(session))


def test_cells_say_what_the_engine_says() -> None:
    session = of(OVERLAPS, 0, 5)
    directions = [item.direction for item in session.tray]
    matrix = query_overlap(directions, moment_of(session, PLAIN)).numpy()
    names = names_of(session.tray.items)
    data = matrix_chart(names, matrix, 200).to_dict()["datasets"]
    (rows,) = data.values()
    assert {(row["row"], row["column"]): row["value"] for row in rows}[(names[0], names[1])] == matrix[0, 1]


def test_directions_of_the_same_name_are_told_apart() -> None:
    session = of(OVERLAPS, 0, 5)
    twins = [Item(item.direction.renamed("twin")) for item in session.tray]
    assert names_of(twins) == ["twin (1)", "twin (2)"]


# Spectrum


def test_the_spectrum_says_whether_the_samples_were_enough() -> None:
    session = of(SPECTRUM, 0)
    app = visit(session)
    assert {metric.label for metric in app.metric} >= {"Effective rank", "Condition", "Stable"}
    assert "samples are enough" in said(app) or any("too few" in warning.value for warning in app.warning)


def test_all_layers_are_listed_when_asked_for() -> None:
    session = of(SPECTRUM, 0)
    app = visit(session)
    settled(app.button(key="spectrum-all").click().run(), session)
    (table,) = [frame.value for frame in app.dataframe]
    assert list(table["layer"]) == list(session.generator.layers)
    assert not table.isna().any(axis=None)


def test_the_spectrum_is_that_of_the_layer_in_the_sidebar() -> None:
    session = of(SPECTRUM, 0)
    session.layer = UP
    assert f"of {UP}" in said(visit(session))
    assert f"layer={UP}" in address(session)
    assert "direction=" not in address(session)


def noise(session: Session, samples: int) -> str:
    direction = session.tray.items[0].direction
    return noise_warning(direction, halves_of(session.generator, PLAIN, LatentSpec.of(range(samples))))


def test_a_direction_that_rests_on_noise_is_warned_of() -> None:
    session = of(SPECTRUM, 6)
    app = visit(session)
    assert noise(session, 24)
    assert noise(session, 24) in [warning.value.replace("\\", "") for warning in app.warning]


def test_a_direction_that_is_sound_is_said_to_be() -> None:
    session = of(SPECTRUM, 0, samples=400)
    text = said(visit(session))
    assert not noise(session, 400)
    assert "Two halves of the samples agree to" in text


def test_the_warning_stands_beside_the_matches_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "SAMPLES", 2)
    session = of(MATCHES, 0)
    assert noise(session, 2) in said(visit(session))


# Commands


def test_commands_are_lines_that_the_command_line_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = of(DOING, 0, 5)
    session.add(some_rule(session.generator, UP))
    monkeypatch.chdir(tmp_path)
    items = session.tray.items
    lines = [
        scale_command(session, items[0], -1.0, session.spec((1, 2))),
        overlap_command(session, items),
        spectrum_command(session, PLAIN, 24),
    ]
    Path("MODEL").mkdir()
    for line in lines:
        for name, content in line.files.items():
            Path(name).write_bytes(content)
        _, *words = shlex.split(line.text)
        parse(words)


def parse(words: list[str]) -> None:
    """Read a command line as `palimpsest` does, without running it."""
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None
        command, context = found, click.Context(found, parent=context)
    command.make_context(command.name, words)
