"""`palimpsest concepts`: what there is, what it says of pictures, and how well what was painted is learned."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from dashboard.commands.concepts import concepts
from dissect.concepts.catalogue import KINDS, embedded_file
from dissect.concepts.colours import Colours
from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.overlay import labelled
from dissect.concepts.overlay_figure import overlay_figure
from dissect.concepts.painted import train
from rewrite_core.generators import LatentSpec, open_generator
from tests import test_cli
from tests.planted import planted_generator
from tests.test_painted import NAMES, PAINTED, painted_on

ANIME = "anime64-dcgan"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder with the planted model and strokes on its pictures."""
    monkeypatch.chdir(tmp_path)
    generator = planted_generator()
    Path("planted").mkdir()
    for name, content in generator.files().items():
        Path("planted", name).write_bytes(content)
    painted_on(generator, PAINTED).save(Path("strokes.json"))
    return tmp_path


def answer(*words: object) -> Any:
    return test_cli.answer("concepts", *words)


def refused(*words: object) -> str:
    return test_cli.refused("concepts", *words)


def text(*words: object) -> str:
    result = test_cli.palimpsest("concepts", *words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


# List


def test_what_can_be_chosen_for_a_model_is_listed_with_what_else_is_understood():
    said = answer("list", ANIME)
    assert said["model"] == ANIME
    known = {offer["concepts"]: offer for offer in said["known"]}
    assert {"colours", "faces", "embedded:painted"} <= set(known)
    assert known["colours"]["why_not"] == ""
    assert [kind["concepts"] for kind in said["kinds"]] == [kind.form for kind in KINDS]
    lines = text("list", ANIME).splitlines()
    assert any(line.split() == ["embedded:painted", "painted:", ANIME] for line in lines)


def test_a_model_that_no_concepts_ship_with_says_so():
    (offer,) = [offer for offer in answer("list", "planted")["known"] if offer["concepts"] == "embedded"]
    assert offer["why_not"] == "No concepts ship with planted."


# Show


def test_pictures_are_drawn_with_their_labels_and_shares():
    said = answer("show", "planted", "--concepts", "colours", "--seeds", "0-5", "--out", "seen")
    overlays = [f"seen/overlay.{kind}" for kind in ("png", "svg", "pdf")]
    assert said["files"] == [*overlays, "seen/shares.csv"]
    assert all(Path(name).stat().st_size for name in said["files"])
    shares = {row["concept"]: row["share of pixels"] for row in said["shares"]}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["black"] > 0.5
    assert shares["pink"] == 0
    pd.testing.assert_frame_equal(pd.read_csv("seen/shares.csv"), pd.DataFrame(said["shares"]))
    assert said["agreement"] is said["accuracy"] is said["against"] is None


def test_two_sources_are_compared_by_the_concepts_that_they_share():
    words = (
        "show",
        "planted",
        "--concepts",
        "strokes.json",
        "--against",
        "colours",
        "--seeds",
        "0-5",
        "--out",
        "seen",
    )
    said = answer(*words)
    agreement = {row["concept"]: row["IoU"] for row in said["agreement"]}
    assert set(agreement) == {"red", "green", "blue"}
    assert min(agreement.values()) > 0.5
    assert said["accuracy"] < 0.5  # what one calls dark the other calls black
    assert {"seen/against.png", "seen/agreement.csv"} <= set(said["files"])
    assert "against colours: the same concept in" in text(*words)


def test_the_figure_explains_every_colour_below_the_pictures():
    generator = planted_generator()
    found = labelled(generator, LatentSpec.of(range(3)), Colours())
    figure = overlay_figure(found, width="column")
    pictures, legend = figure.axes
    assert [text.get_text() for text in legend.texts] == list(found.names)
    assert len(legend.patches) == len(found.names)
    assert legend.get_position().y1 == pytest.approx(pictures.get_position().y0)
    assert max(text.get_position()[0] for text in legend.texts) < legend.get_xlim()[1]


# Train and eval


def test_learning_again_says_how_well_and_keeps_the_weights():
    said = answer("train", "strokes.json", "planted", "--out", "learned.json")
    generator = planted_generator()
    expected = train(generator, ConceptFile.load(Path("strokes.json")))
    assert said["accuracy"] == expected.evaluation.accuracy
    assert said["accuracy"] > 0.9
    assert said["mean_iou"] == expected.evaluation.mean_iou
    assert [row["concept"] for row in said["concepts"]] == list(NAMES)
    assert said["not_judged"] == []
    assert said["files"] == ["learned.json"]
    kept = ConceptFile.load(Path("learned.json"))
    assert kept.learned == expected.file.learned
    assert kept.digest == expected.file.digest
    del said["files"]
    assert answer("eval", "learned.json", "planted") == {**said, "file": "learned.json"}


def test_a_file_may_be_learned_in_its_own_place():
    before = ConceptFile.load(Path("strokes.json"))
    assert text("eval", "strokes.json", "planted").splitlines()[-1] == "learned just now"
    answer("train", "strokes.json", "planted", "--out", "strokes.json")
    after = ConceptFile.load(Path("strokes.json"))
    assert before.learned is None
    assert after.learned is not None
    assert after.digest == before.digest
    assert text("eval", "strokes.json", "planted").splitlines()[-1] == "as the file has it"


def test_nothing_is_written_unless_asked_for():
    before = Path("strokes.json").read_bytes()
    assert text("train", "strokes.json", "planted").splitlines()[-1].startswith("not saved: --out FILE")
    assert Path("strokes.json").read_bytes() == before


def test_concepts_that_ship_with_a_model_are_judged_by_their_name():
    said = answer("eval", "embedded:painted")  # the embedded default
    assert said["model"] == ANIME
    assert said["accuracy"] > 0.8
    kept = ConceptFile.load(embedded_file("embedded:painted", open_generator(ANIME)))
    assert said["pictures"] == len(kept.seeds)


# Refused


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            ["show", "planted", "--concepts", "hats", "--out", "seen"],
            "concepts 'hats'; expected one of colours",
        ),
        (
            ["show", "planted", "--concepts", "embedded:x", "--out", "seen"],
            "concepts 'embedded:x' for planted",
        ),
        (["show", ANIME, "--concepts", "strokes.json", "--out", "seen"], "concepts painted for planted"),
        (["show", "planted", "--concepts", "none.json", "--out", "seen"], "none.json"),
        (["show", "planted", "--concepts", "planted", "--out", "seen"], "legend.json"),
        (
            ["show", "planted", "--concepts", "colours", "--seeds", "0-1024", "--out", "seen"],
            "1,025 pictures",
        ),
        (["train", "none.json", "planted"], "none.json"),
        (["train", "strokes.json", ANIME], "concepts painted for planted"),
        (["train", "embedded:hats", ANIME], "concepts 'embedded:hats' for anime64-dcgan"),
        (["eval", "planted/model.json", "planted"], "model.json"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_leaves_nothing(words, found):
    assert found in refused(*words)
    assert not Path("seen").exists()


def test_sources_without_a_concept_in_common_cannot_be_compared():
    words = (
        "show",
        ANIME,
        "--concepts",
        "embedded",
        "--against",
        "colours",
        "--seeds",
        "0-1",
        "--out",
        "seen",
    )
    assert "no concept that painted: anime64-dcgan and colours call the same" in refused(*words)
    assert not Path("seen").exists()


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    line = refused("show", "planted", "--concepts", "faces", "--out", "seen")
    assert "pip install 'palimpsest[faces]'" in line


def test_what_ships_is_never_written_over():
    shipped = embedded_file("embedded:painted", open_generator(ANIME))
    before = shipped.read_bytes()
    assert "which belongs to Palimpsest" in refused("train", "embedded:painted", "--out", shipped)
    assert shipped.read_bytes() == before


@pytest.mark.parametrize("name", concepts.commands)
def test_the_examples_of_every_command_are_understood(name):
    command = concepts.commands[name]
    text = CliRunner().invoke(command, ["--help"]).stdout
    lines = text.partition("Example:\n")[2].strip().splitlines()
    assert lines
    for line in lines:
        program, group, called, *words = shlex.split(line)
        assert (program, group, called) == ("palimpsest", "concepts", name)
        command.make_parser(click.Context(command)).parse_args(words)  # an unknown option is an error
