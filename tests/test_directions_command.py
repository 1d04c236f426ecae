"""`palimpsest directions`: what is found, matched, scaled and compared is what the engine says; errors are one line."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from dashboard.commands.directions import directions
from dashboard.commands.directions_map import PLACED
from dashboard.commands.directions_origins import CONTEXT, DICTIONARY, FINDERS, KEYS, PAINTED
from dashboard.commands.directions_spectrum import _close
from dissect.key_map import METHODS as PLACINGS
from rewrite_core import EditRequest, LatentSpec, Rule, layer_statistics, open_generator
from rewrite_core.directions import METHODS, Direction
from rewrite_core.directions.dictionary import Dictionary
from rewrite_core.directions.matches import matches
from rewrite_core.directions.origins import ORIGINS
from rewrite_core.generators import embedded_folder
from rewrite_core.rules.rewrite import direction_of
from rewrite_core.rules.scaling import scaling_rule
from rewrite_core.rules.settings import ModelRef
from tests import test_cli
from tests.generators import DOWN, PLAIN, painted, small_generator, some_rule

ROOT = Path(__file__).resolve().parents[1]
ANIME = "anime64-dcgan"
SHORT = ("--seeds", "0-39")
ALIVE = 1
"""A unit of the layer that fires."""
ALIVE = 4
"""A unit of the layer that fires."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder with a small model, two contexts painted on it, and a rule of it."""
    monkeypatch.chdir(tmp_path)
    generator = small_generator()
    Path("small").mkdir()
    for name, content in generator.files().items():
        Path("small", name).write_bytes(content)
    context("this", painted(0, 2, 2, 8, 8), painted(3, 2, 2, 8, 8)).save(Path("this.json"))
    context("that", painted(1, 8, 8, 14, 14)).save(Path("that.json"))
    some_rule(generator).save("rule.safetensors")
    return tmp_path


def context(name: str, *key: Any, **settings: Any) -> EditRequest:
    made_for = ModelRef(name="small", fingerprint=small_generator().fingerprint)
    return EditRequest(key=key, layer=PLAIN, model=made_for, **settings)


def answer(*words: object) -> Any:
    return test_cli.answer("directions", *words)


def refused(*words: object) -> str:
    return test_cli.refused("directions", *words)


def text(*words: object) -> str:
    result = test_cli.palimpsest("directions", *words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def warned(*words: object) -> tuple[Any, list[str]]:
    """What a command says to a script, and its warnings."""
    result = test_cli.palimpsest(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr.splitlines()


def misused(*words: object) -> str:
    """What is said of a mistake in the command line itself."""
    result = test_cli.palimpsest("directions", *words)
    assert result.exit_code == 2, result.output
    return str(result.stderr)


def saved(name: str = "d.safetensors", *words: object) -> Path:
    """The file of a direction of the small model."""
    answer("find", "small", "--context", "this.json", *SHORT, "--out", name, *words)
    return Path(name)


# Find


def test_a_context_becomes_the_direction_of_the_engine_with_what_halves_say_of_it():
    said = answer("find", "small", "--context", "this.json", "--rank", 2, *SHORT, "--out", "d.safetensors")
    found = Direction.load("d.safetensors")
    generator = open_generator("small")
    request = EditRequest.load(Path("this.json")).model_copy(update={"rank": 2})
    expected = direction_of(generator, request, layer_statistics(generator, PLAIN))
    torch.testing.assert_close(found.vectors, expected.vectors)
    assert (found.name, found.method, found.fingerprint) == ("this", "zca", generator.fingerprint)
    (told,) = said["directions"]
    assert told["singular_values"] == found.singular_values.tolist()
    assert told["digest"] == found.digest
    assert len(told["stability"]) == 2
    assert said["files"] == ["d.safetensors"]


def test_a_context_is_read_by_the_method_of_its_file_unless_an_origin_is_named():
    context("mean", painted(0, 2, 2, 8, 8), direction={"method": "mean"}).save(Path("mean.json"))
    (told,) = answer("find", "small", "--context", "mean.json", *SHORT)["directions"]
    assert told["origin"] == "mean"
    matched = answer("match", "mean.json", "--model", "small", "--seeds", "0-4", "--top", 2)["direction"]
    assert matched["digest"] == told["digest"]
    (named,) = answer("find", "small", "--context", "mean.json", "--origin", "zca", *SHORT)["directions"]
    assert named["origin"] == "zca"
    assert "find without --origin needs --context" in misused("find", "small")


@pytest.mark.parametrize("origin", [*PAINTED, "difference"])
def test_every_origin_that_is_painted_gives_one_direction(origin):
    words = ("--not", "that.json") if origin == "difference" else ()
    (told,) = answer("find", "small", "--context", "this.json", "--origin", origin, *words, *SHORT)[
        "directions"
    ]
    assert (told["origin"], told["layer"], told["rank"]) == (origin, PLAIN, 1)


@pytest.mark.parametrize("origin", KEYS)
def test_the_keys_give_several_directions_or_the_one_that_is_asked_for(origin):
    words = ("find", "small", "--origin", origin, "--layer", PLAIN, "--count", 3, *SHORT)
    said = answer(*words, "--out", "several/")
    assert len(said["directions"]) == len(said["files"]) == 3
    two = Direction.load(said["files"][1])
    assert two.method == origin
    (told,) = answer(*words, "--number", 2, "--name", "two", "--out", "two.safetensors")["directions"]
    assert told["name"] == "two"
    assert Direction.load("two.safetensors") == two.renamed("two")
    assert f"number 4 of {origin}; expected 1 to 3" in refused(*words, "--number", 4)


def test_a_unit_and_a_rule_are_directions_too():
    (unit,) = answer("find", "small", "--origin", "unit", "--unit", ALIVE, "--layer", PLAIN, *SHORT)[
        "directions"
    ]
    assert unit["origin"] == "unit"
    answer(
        "find", "small", "--origin", "rule", "--rule", "rule.safetensors", *SHORT, "--out", "d.safetensors"
    )
    of_rule = Direction.load("d.safetensors")
    wanted = Rule.load("rule.safetensors").directions.double()
    rest = wanted - wanted @ of_rule.vectors.T @ of_rule.vectors
    assert rest.abs().max() < 1e-6


def test_a_dictionary_is_learned_and_its_features_are_directions():
    said = answer(
        "dictionary", "small", "--layer", PLAIN, "--features", 20, "--active", 2, "--steps", 60, *SHORT,
        "--out", "dictionary.safetensors",
    )  # fmt: skip
    assert (said["features"], said["active"]) == (20, 2)
    assert 0 < said["explained"] <= 1
    best = said["best"][0]["feature"]
    words = ("find", "small", "--origin", DICTIONARY, "--from", "dictionary.safetensors", *SHORT)
    (told,) = answer(*words, "--number", best, "--out", "one.safetensors")["directions"]
    assert told["name"] == f"feature {best}"
    several = answer(*words, "--count", 2)["directions"]
    assert several[0]["digest"] == told["digest"]
    assert refused(*words, "--number", 20).startswith("palimpsest: error: feature 20")


def test_a_dictionary_of_dead_features_gives_no_direction():
    answer(
        "dictionary", "small", "--layer", PLAIN, "--features", 8, "--active", 2, "--steps", 1, *SHORT,
        "--out", "dictionary.safetensors",
    )  # fmt: skip
    learned = Dictionary.load(Path("dictionary.safetensors"))
    none = replace(learned.quality, density=torch.zeros_like(learned.quality.density))
    replace(learned, quality=none).save("dead.safetensors")
    line = refused("find", "small", "--origin", DICTIONARY, "--from", "dead.safetensors", *SHORT)
    assert line.startswith("palimpsest: error: no direction by dictionary")


def test_a_name_that_two_models_ship_is_that_of_the_model_that_is_named():
    for model, words in ((ANIME, ()), ("face32-dcgan", ("--model", "face32-dcgan"))):
        assert answer("match", "eyes", *words, "--seeds", "0-9", "--top", 2)["model"] == model


# Show, export


def test_a_file_is_shown_and_exported_in_full():
    found = Direction.load(saved())
    shown = answer("show", "d.safetensors")
    assert (shown["name"], shown["rank"], shown["units"]) == ("this", 1, 10)
    assert shown["provenance"] == json.loads(json.dumps(dict(found.provenance)))
    assert text("show", "d.safetensors").startswith(f"this: zca, layer {PLAIN} of small (")
    for ending in ("json", "csv", "npz"):
        assert answer("export", "d.safetensors", "--out", f"d.{ending}")["files"] == [f"d.{ending}"]
    assert json.loads(Path("d.json").read_text("utf-8"))["vectors"] == found.vectors.tolist()
    table = pd.read_csv("d.csv")
    np.testing.assert_allclose(table["vector_1"], found.vectors[0])
    assert found.key is not None
    np.testing.assert_allclose(table["key"], found.key.numpy())
    with np.load("d.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["vectors"], found.vectors)
        assert json.loads(str(arrays["about"]))["layer"] == PLAIN


# Match


def test_matches_are_those_of_the_engine():
    found = Direction.load(saved())
    said = answer("match", "d.safetensors", "--model", "small", *SHORT, "--top", 5, "--out", "matched/")
    expected = matches(open_generator("small"), PLAIN, found.vectors[0], LatentSpec.of(range(40)))
    assert [one["seed"] for one in said["top"]] == expected.top(5)
    assert [one["score"] for one in said["top"]] == pytest.approx(
        [float(expected.of(seed).max()) for seed in expected.top(5)], rel=1e-5
    )
    best = said["top"][0]
    assert (best["row"], best["column"]) == expected.best(best["seed"])
    assert said["level"] == pytest.approx(expected.level(0.999), rel=0.01)
    rows = pd.read_csv("matched/scores.csv")
    assert len(rows) == 40
    assert rows["seed"].tolist()[:5] == expected.top(5)
    assert {Path(name).stem for name in said["files"]} == {"matches", "scores", "patches", "match"}
    assert all(Path(name).stat().st_size for name in said["files"])


def test_a_context_is_matched_as_its_direction_and_drawn_in_one_figure():
    saved()
    by_file = answer("match", "d.safetensors", "--model", "small", *SHORT, "--top", 3)
    by_context = answer("match", "this.json", "--model", "small", *SHORT, "--top", 3, "--out", "matches.svg")
    assert by_context["top"] == by_file["top"]
    assert by_context["files"] == ["matches.svg"]
    assert f">{by_context['top'][0]['seed']}</text>" in Path("matches.svg").read_text()


def test_a_place_is_most_like_itself():
    said = answer("match", "--model", "small", "--near", "5:3,4", "--layer", PLAIN, *SHORT, "--top", 3)
    assert said["near"] == {"seed": 5, "row": 3, "column": 4}
    best = said["top"][0]
    assert (best["seed"], best["row"], best["column"]) == (5, 3, 4)
    assert best["score"] == pytest.approx(1, abs=1e-5)


# Scale


def test_scaling_says_what_changes_where_and_keeps_the_rule():
    found = Direction.load(saved())
    words = ("scale", "d.safetensors", "--model", "small", "--seeds", "0-3")
    said = answer(*words, "--alpha", "0,1,2", "--zero", "--out", "scaled/")
    effects = {row["alpha"]: row for row in said["effects"]}
    assert effects["1"]["change"] == 0
    assert effects["0"]["left_over"] == pytest.approx(0, abs=1e-5)
    assert effects["2"]["left_over"] == pytest.approx(2, abs=1e-5)
    assert effects["0"]["change"] > 0
    assert effects["published zero"]["left_over"] > effects["0"]["left_over"]
    stems = {Path(name).stem for name in said["files"]}
    assert stems == {"scaled", "published-zero", "effects", "changes", "channels"}
    assert len(pd.read_csv("scaled/changes.csv")) == 4 * 4

    answer(*words, "--alpha", "-1", "--save-rule", "turned.safetensors")
    generator = open_generator("small")
    moment = layer_statistics(generator, PLAIN).second_moment
    expected = scaling_rule(generator, found, moment, -1)
    torch.testing.assert_close(Rule.load("turned.safetensors").change(), expected.change())


# Spectrum, overlap


def test_the_spectrum_of_every_layer_is_told_and_too_few_samples_are_warned_of():
    words = ("directions", "spectrum", "small", "--layer", PLAIN)
    said, warnings = warned(*words, *SHORT, "--out", "spectrum/")
    (layer,) = said["layers"]
    assert layer["layer"] == PLAIN
    assert 1 <= layer["effective_rank"] <= layer["rank"] <= layer["alive"] == 7
    assert len(pd.read_csv("spectrum/eigenvalues.csv")) == layer["rank"]
    assert not layer["enough"]
    assert warnings == [f"palimpsest: warning: {layer['warning']}"]
    assert {Path(name).stem for name in said["files"]} == {"spectrum", "eigenvalues", "layers"}


def test_a_direction_overlaps_with_itself_and_such_pairs_are_pointed_out():
    saved()
    said = answer(
        "overlap", "d.safetensors", "this.json", "that.json", "--model", "small", "--out", "overlaps/"
    )
    assert said["directions"] == ["this (1)", "this (2)", "that"]
    np.testing.assert_allclose(np.diag(said["queries"]), 1)
    assert said["queries"][0][1] == pytest.approx(1)
    assert {"this (1)", "this (2)"} == {said["close"][0]["one"], said["close"][0]["other"]}
    table = pd.read_csv("overlaps/queries.csv")
    assert table["direction"].tolist() == said["directions"]
    np.testing.assert_allclose(table[said["directions"]], said["queries"])


def test_a_rule_that_fires_on_the_other_context_makes_a_pair_close_whichever_comes_first():
    one_way = torch.tensor([[1.0, 0.1], [-0.6, 1.0]])
    apart = {"queries": torch.eye(2), "keys": torch.eye(2)}
    assert _close(["a", "b"], apart) == []
    for matrix in (one_way, one_way.T):
        (pair,) = _close(["a", "b"], {**apart, "interference": matrix})
        assert (pair["one"], pair["other"]) == ("a", "b")
        assert pair["interference"] == pytest.approx(-0.6)


def test_directions_of_two_layers_are_not_compared():
    saved()
    answer(
        "find", "small", "--origin", "unit", "--unit", 0, "--layer", DOWN, *SHORT, "--out", "u.safetensors"
    )
    line = refused("overlap", "d.safetensors", "u.safetensors", "--model", "small")
    assert f"directions of {PLAIN}, {DOWN}; expected directions of one layer" in line


# Methods, map


def test_every_method_is_judged_by_a_concept():
    said = answer(
        "methods", "this.json", "--model", "small", "--concept", "black", "--concepts", "colours", *SHORT,
        "--out", "methods/",
    )  # fmt: skip
    assert {row["method"] for row in said["precision"]} == {*METHODS, "zca, ridge 0"}
    assert all(row["low"] <= row["average_precision"] <= row["high"] for row in said["precision"])
    assert set(said["rankings"]) == {*METHODS, "zca, ridge 0"}
    assert {"heat", "curves", "precision", "rankings", "overlaps"} == {
        Path(name).stem for name in said["files"]
    }


def test_without_a_concept_methods_are_compared_by_their_rankings():
    said = answer("methods", "this.json", "--model", "small", *SHORT)
    assert said["precision"] == []
    assert said["concept"] is said["source"] is None
    (zca,) = [row["shared"] for row in said["top_overlap"] if row["method"] == "zca"]
    assert zca["zca"] == 1


@pytest.mark.parametrize("method", PLACED)
def test_keys_are_placed_and_written(method):
    words = ("--layer", PLAIN, "--method", method, "--points", 60, "--concepts", "colours")
    said = answer("map", "small", *words, *SHORT, "--out", "map/")
    assert said["method"] == PLACED[method]
    points = pd.read_csv("map/points.csv")
    assert len(points) == said["points"] == 60
    assert points["seed"].isin(range(40)).all()
    assert 0 <= said["purity"]["chance"] <= 1


# Dissect


def test_directions_are_dissected_in_place_of_units():
    saved("d.safetensors", "--rank", 2)
    answer(
        "find",
        "small",
        "--origin",
        "unit",
        "--unit",
        ALIVE,
        "--layer",
        PLAIN,
        *SHORT,
        "--out",
        "u.safetensors",
    )
    words = (
        "--direction",
        "d.safetensors",
        "--direction",
        "u.safetensors",
        "--concepts",
        "colours",
        "--sheets",
        1,
    )
    said, warnings = warned("dissect", "small", *words, "--seeds", "0-11", "--out", "report")
    assert any("no direction can detect it" in line for line in warnings)
    (layer,) = said["layers"]
    assert (layer["layer"], layer["units"]) == (PLAIN, 3)
    units = pd.read_csv("report/tables/units.csv", keep_default_na=False)
    assert units["unit"].tolist() == ["this 1", "this 2", f"unit {ALIVE}"]
    manifest = json.loads(Path("report/manifest.json").read_text("utf-8"))
    assert [one["digest"] for one in manifest["directions"]] == [
        Direction.load(name).digest for name in ("d.safetensors", "u.safetensors")
    ]
    typed = shlex.split(manifest["command"])
    assert [typed[place + 1] for place, word in enumerate(typed) if word == "--direction"] == [
        "d.safetensors",
        "u.safetensors",
    ]
    page = re.sub(r"<[^>]*>", "", Path("report/report.html").read_text("utf-8"))
    assert f"Which directions of layer {PLAIN} fire" in page

    plain, _ = warned("dissect", "small", "--layers", PLAIN, *words[4:], "--seeds", "0-11", "--out", "units")
    assert plain["layers"][0]["units"] == 10
    by_unit = pd.read_csv("units/tables/iou.csv").query(f"unit == {ALIVE}").reset_index(drop=True)
    by_name = pd.read_csv("report/tables/iou.csv").query(f"unit == 'unit {ALIVE}'").reset_index(drop=True)
    pd.testing.assert_frame_equal(by_unit.drop(columns="unit"), by_name.drop(columns="unit"))


# Refused


def test_a_direction_of_another_model_is_refused_and_can_be_forced():
    saved()
    other = small_generator(seed=1)
    Path("other").mkdir()
    for name, content in other.files().items():
        Path("other", name).write_bytes(content)
    words = ("match", "d.safetensors", "--model", "other", *SHORT, "--top", 2)
    line = refused(*words)
    assert "--force" in line
    assert other.fingerprint[:12] in line
    result = test_cli.palimpsest("directions", *words, "--force")
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"palimpsest: warning: [^\n]+\n", result.stderr)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["show", "rule.safetensors"], "which is a rule; expected a direction"),
        (["match", "rule.safetensors"], "find --origin rule --rule rule.safetensors"),
        (["show", "this.json"], "which is a context; expected a direction"),
        (["show", "none.safetensors"], "none.safetensors"),
        (["match", "hats"], "no context 'hats'; expected the path of a file, or one of"),
        (["match", "small/model.safetensors"], "a direction's file"),
        (["match", "empty.json", "--model", "small"], "a context"),
        (["match", "this.json", "--model", ANIME], "an edit made for small"),
        (["match", "--near", "5:99,4", "--model", "small", "--layer", PLAIN, *SHORT], "99"),
        (["match", "--near", "5:1,4", "--model", "small", "--layer", "l99"], "l99"),
        (["match", "this.json", "--model", "small", "--out", "x.txt"], "'x.txt' to write pictures to"),
        (["find", "small", "--context", "this.json", "--layer", "l99"], "l99"),
        (["find", "small", "--context", "this.json", "--rank", "99"], "rank 99"),
        (["find", "small", "--origin", "unit", "--unit", "10", "--layer", PLAIN], "10"),
        (["find", "small", "--origin", "pca", "--number", "0"], "number 0"),
        (
            ["find", "small", "--origin", "pca", "--out", "one.safetensors"],
            "one file, one.safetensors, for several",
        ),
        (["find", "--origin", "rule", "--rule", "this.json"], "this.json"),
        (["find", "--origin", "dictionary", "--from", "rule.safetensors"], "rule.safetensors"),
        (
            ["find", "small", "--context", "this.json", "--origin", "difference", "--not", "eyes"],
            ANIME,
        ),
        (["scale", "this.json", "--model", "small", "--alpha", "11"], "a scale of 11"),
        (["export", "rule.safetensors", "--out", "x.json"], "which is a rule"),
        (
            [
                "methods",
                "this.json",
                "--model",
                "small",
                "--concept",
                "hats",
                "--concepts",
                "colours",
                *SHORT,
            ],
            "hats",
        ),
        (["spectrum", "small", "--layer", "l99"], "l99"),
        (["spectrum", "small", "--seeds", "3"], "1 sample"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(words, found):
    Path("empty.json").write_text(json.dumps({"palimpsest": {"version": 1, "layer": PLAIN}}))
    assert found in refused(*words)


def test_only_known_endings_are_exported_to():
    saved()
    assert "a name ending in .json, .csv, .npz" in refused("export", "d.safetensors", "--out", "d.txt")
    assert not Path("d.txt").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["find", "small"], "find without --origin needs --context"),
        (["find", "small", "--origin", "unit"], "--origin unit needs --unit"),
        (
            ["find", "small", "--context", "this.json", "--unit", "3"],
            "find without --origin does not take --unit",
        ),
        (["find", "small", "--origin", "difference", "--context", "this.json"], "--not is for"),
        (["find", "small", "--origin", "unit", "--unit", "3", "--rank", "2"], "does not take --rank"),
        (["find", "small", "--context", "this.json", "--number", "2"], "does not take --number"),
        (["match"], "Give a direction or a context"),
        (["match", "this.json", "--near", "5:1,1"], "Give a direction or a context"),
        (["match", "this.json", "--layer", PLAIN], "--layer is of --near"),
        (["match", "--near", "5"], "such as 5:7,8"),
        (["scale", "this.json", "--alpha", "0,1", "--save-rule", "x.safetensors"], "give one --alpha"),
        (["scale", "this.json", "--alpha", "nan"], "numbers such as"),
        (["methods", "this.json", "--concepts", "colours"], "--concepts needs a --concept"),
    ],
)
def test_a_mistake_in_the_command_line_is_explained(words, found):
    assert found in misused(*words)


def test_directions_to_dissect_have_a_layer_of_their_own():
    saved()
    words = ("dissect", "small", "--direction", "d.safetensors", "--layers", PLAIN, "--out", "out")
    assert test_cli.palimpsest(*words).exit_code == 2
    line = test_cli.refused("dissect", "small", "--direction", "rule.safetensors", "--out", "out")
    assert "which is a rule" in line


def test_what_ships_is_never_written_over():
    shipped = embedded_folder(ANIME) / "contexts" / "eyes.json"
    before = shipped.read_bytes()
    line = refused("find", "--context", "eyes", "--out", shipped.with_suffix(".safetensors"))
    assert "which belongs to Palimpsest" in line
    assert shipped.read_bytes() == before


# Help


def test_the_choices_are_those_of_the_engine():
    assert tuple(METHODS) == PAINTED
    assert {*ORIGINS} == {*KEYS, DICTIONARY}
    assert tuple(PLACED.values()) == PLACINGS
    origin = next(option for option in directions.commands["find"].params if option.name == "origin")
    assert isinstance(origin.type, click.Choice)
    assert {CONTEXT, *origin.type.choices} == set(FINDERS)


@pytest.mark.parametrize("name", directions.commands)
def test_every_subcommand_is_described_with_its_options_and_its_examples_are_understood(name):
    command = directions.commands[name]
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    section = page.partition(f"### `palimpsest directions {name}`\n")[2].partition("\n##")[0]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help
            assert name in ("show", "export") or f"`{option.opts[0]}`" in section, option.opts[0]
    text_ = CliRunner().invoke(command, ["--help"]).stdout
    lines = text_.partition("Example:\n")[2].strip().splitlines()
    assert lines
    for line in lines:
        program, group, called, *words = shlex.split(line)
        assert (program, group, called) == ("palimpsest", "directions", name)
        command.make_parser(click.Context(command)).parse_args(words)  # an unknown option is an error
