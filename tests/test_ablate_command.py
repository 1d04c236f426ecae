"""`palimpsest ablate`: planted units do what they are known to do, in files, tables and answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dissect.concepts.colours import Colours
from dissect.effects import causal_effects
from dissect.interventions import ablate
from dissect.ranking import likely_units
from dissect.units import dissect
from rewrite_core.errors import RequestError
from rewrite_core.generators import LatentSpec
from tests.planted import DRAWS, LOUD, PLACES, SHAPES, SILENT, UNITS, planted_generator
from tests.test_cli import answer, palimpsest, refused

SAMPLES = ("--samples", "1000-1019")
UNIT = ("ablate", "planted", "--layer", SHAPES, "--units", "1", *SAMPLES)
PAIRS = ["out/pairs.png", "out/pairs.svg", "out/pairs.pdf"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder with the planted model, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    Path("planted").mkdir()
    for name, content in planted_generator().files().items():
        Path("planted", name).write_bytes(content)
    return tmp_path


def region(*box: int, size: tuple[int, int] = (48, 48)) -> Path:
    """A PNG, white in the box (top, left, bottom, right) if there is one."""
    pixels = np.zeros(size, dtype=np.uint8)
    if box:
        top, left, bottom, right = box
        pixels[top:bottom, left:right] = 255
    Image.fromarray(pixels).save("region.png")
    return Path("region.png")


def effect(said: Any, concept: str, name: str = "ablated") -> dict[str, Any]:
    (row,) = [row for row in said["effects"] if (row["set"], row["concept"]) == (name, concept)]
    return dict(row)


def test_ablating_what_draws_green_leaves_none_and_says_so():
    said = answer(*UNIT, "--out", "out")
    assert said["files"] == [*PAIRS, "out/effects.csv", "out/ablate.json"]
    assert all(Path(name).stat().st_size for name in said["files"])
    green, red = effect(said, "green"), effect(said, "red")
    assert green["before"] > 0
    assert (green["after"], green["relative"]) == (0, -1)
    assert green["low"] <= green["effect"] <= green["high"] < 0
    assert red["effect"] == 0
    assert (said["units"], said["values"], said["samples"]) == ([1], [0.0], "1000-1019")


def test_the_files_hold_what_the_answer_says_and_what_python_computes():
    said = answer(*UNIT, "--out", "out")
    kept = json.loads(Path("out/ablate.json").read_text("utf-8"))
    assert said == {**kept, "files": said["files"]}
    table = pd.read_csv("out/effects.csv")
    expected = causal_effects(
        planted_generator(), LatentSpec.of(range(1000, 1020)), Colours(), {"ablated": [ablate(SHAPES, [1])]}
    ).table()
    pd.testing.assert_frame_equal(table, expected, rtol=0, atol=1e-15)
    pd.testing.assert_frame_equal(table, pd.DataFrame(said["effects"]))
    assert not table.isna().any(axis=None)


def test_a_reader_gets_the_effects_the_largest_first():
    text = palimpsest(*UNIT, "--out", "out").stdout
    lines = text.splitlines()
    assert lines[0] == "planted, ablate unit 1 of shapes: 20 samples, concepts: colours"
    assert lines[3].split() == ["concept", "before", "after", "effect", "95", "%", "interval"]
    assert {lines[4].split()[0], lines[5].split()[0]} <= {"green", "black", "blue"}
    assert lines[-1] == "pictures and tables in out"


def test_a_concept_is_inserted_where_it_is_painted():
    painted = region(12, 12, 24, 24)  # one cell of places
    said = answer(
        "ablate", "planted", "--layer", PLACES, "--units", "2", "--insert", LOUD, "--region", painted, *SAMPLES,
        "--out", "out",
    )  # fmt: skip
    assert said["values"] == [LOUD]
    assert effect(said, "blue", "inserted")["low"] > 0
    assert effect(said, "blue", "ablated")["high"] <= 0
    both = effect(said, "blue", "inserted - ablated")
    difference = effect(said, "blue", "inserted")["effect"] - effect(said, "blue", "ablated")["effect"]
    assert both["effect"] == pytest.approx(difference)


@pytest.mark.parametrize("value", ["red", "quantile"])
def test_what_is_inserted_may_follow_from_the_samples(value):
    said = answer(
        "ablate", "planted", "--layer", SHAPES, "--units", "0,3", "--insert", value, *SAMPLES, "--out", "out"
    )
    drawing, dead = said["values"]
    assert drawing > 0.05
    assert dead == 0
    assert effect(said, "red", "inserted")["low"] > 0


def test_no_strength_changes_nothing():
    said = answer(*UNIT, "--strength", 0, "--out", "out")
    assert {row["effect"] for row in said["effects"]} == {0}


def test_the_units_that_a_concept_hangs_on_are_found_and_their_curve_is_kept():
    said = answer(
        "ablate", "planted", "--layer", SHAPES, "--rank", "red", "--candidates", 4, "--count", 2, *SAMPLES,
        "--out", "out",
    )  # fmt: skip
    assert tuple(said["units"]) == DRAWS[SHAPES]["red"]
    ranking = said["ranking"]
    assert ranking["concept"] == "red"
    assert len(ranking["candidates"]) == 4
    assert [row["added"] for row in ranking["curve"]] == said["units"]
    assert ranking["curve"][-1]["relative"] == -1
    assert said["samples"] == "1010-1019"  # those that did not choose
    assert effect(said, "red")["before"] == ranking["curve"][-1]["before"]
    pd.testing.assert_frame_equal(pd.read_csv("out/ranking.csv"), pd.DataFrame(ranking["curve"]))
    assert {"out/ranking.png", "out/ranking.svg", "out/ranking.pdf"} <= set(said["files"])


def test_units_that_are_named_are_ranked_among_themselves():
    said = answer(
        "ablate", "planted", "--layer", SHAPES, "--rank", "red", "--units", "3,5,6", "--count", 1, *SAMPLES,
        "--out", "out",
    )  # fmt: skip
    assert (said["ranking"]["candidates"], said["units"]) == ([3, 5, 6], [5])


def test_a_concept_that_is_never_there_is_ranked_without_complaint():
    said = answer(
        "ablate", "planted", "--layer", SHAPES, "--rank", "purple", "--units", "0,1", "--count", 2, *SAMPLES,
        "--out", "out",
    )  # fmt: skip
    assert [row["effect"] for row in said["ranking"]["curve"]] == [0, 0]


def test_the_likeliest_units_are_those_that_fire_where_the_concept_is():
    spec = LatentSpec.of(range(60))
    found = dissect(planted_generator(), spec, [SHAPES], Colours()).layers[SHAPES]
    likely = likely_units(found, "red", UNITS)
    assert set(likely[:2]) == set(DRAWS[SHAPES]["red"])
    assert set(likely) == set(range(UNITS))
    assert likely_units(found, "green", 1) == DRAWS[SHAPES]["green"]
    assert not set(likely[:2]) & set(SILENT)
    with pytest.raises(RequestError, match="concept 'hat'"):
        likely_units(found, "hat", 1)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--layer", "l99", "--units", "1"], "layer 'l99'; expected one of places, shapes, colours"),
        (["--units", "8"], "unit 8; expected units from 0 to 7 of layer 'shapes'"),
        (["--units", "3-x"], "'3-x' among the units"),
        (["--units", "4294967296"], "unit number 4294967296"),
        (["--units", "1", "--strength", "2"], "strength 2; expected from 0"),
        (
            ["--units", "1", "--insert", "hat"],
            "'hat' to insert; expected a number, quantile, or one of black",
        ),
        (["--units", "1", "--insert", "nan"], "'nan' to insert; expected a number"),
        (["--units", "1", "--insert", "grey"], "'grey' in none of 1,000 samples"),
        (["--rank", "hat"], "concept 'hat'; expected one of black"),
        (["--rank", "red", "--units", "0,1", "--count", "3"], "3 units of 2 candidates"),
        (["--rank", "red", "--count", "9"], "9 units of 8 candidates"),
        (["--rank", "red", "--samples", "7"], "4 units of 8 candidates, on 1 pictures"),
        (["--units", "1", "--insert", "1e39"], "too large for float32"),
        (["--units", "1", "--concepts", "hats"], "concepts 'hats'; expected one of colours"),
        (["--units", "1", "--concepts", "embedded"], "concepts 'embedded' for planted"),
        (["--units", "1", "--region", "none.png"], "none.png"),
        (["--units", "1", "--region", "planted/model.json"], "model.json: a mask that cannot be decoded"),
        (["--units", "1", "--samples", "9-3"], "the range 9-3"),
        (["--units", "1", "--seeds", "0-1024"], "1,025 pictures in one figure"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_leaves_nothing(options, found):
    layer = [] if "--layer" in options else ["--layer", SHAPES]
    assert found in refused("ablate", "planted", *layer, *SAMPLES, *options, "--out", "out")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (region, "region.png: an empty region; expected a painted one"),
        (
            lambda: region(0, 0, 9, 9, size=(64, 64)),
            "a region of 64×64 pixels; expected 48×48, as planted draws",
        ),
    ],
    ids=["empty", "another size"],
)
def test_a_region_that_does_not_fit_is_refused(make, found):
    assert found in refused(*UNIT, "--region", make(), "--out", "out")


def test_concepts_that_know_unedited_samples_only_are_refused():
    words = ("ablate", "anime64-dcgan", "--units", "3", "--concepts", "embedded:painted", "--out", "out")
    assert "which know unedited samples only" in refused(*words)


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'palimpsest[faces]'" in refused(*UNIT, "--concepts", "faces", "--out", "out")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], "Nothing to ablate"),
        (["--units", "1", "--count", "2"], "are of --rank"),
        (["--units", "1", "--rank", "red", "--candidates", "4"], "give one"),
    ],
)
def test_options_that_contradict_each_other_are_explained(options, found):
    result = palimpsest("ablate", "planted", *options, "--out", "out")
    assert result.exit_code == 2
    assert found in result.output
