"""`palimpsest dissect`: the report it writes, what it says, and what it refuses before any work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dashboard.cli import main
from rewrite_core.generators import Generator
from tests.generators import DOWN, PLAIN, UP, small_generator, some_rule

FEW = ("--seeds", "0-11", "--concepts", "colours", "--sheets", "1")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for each test."""
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    for name, content in small_generator().files().items():
        (folder / name).write_bytes(content)
    return folder


def palimpsest(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dissect", *map(str, arguments)], prog_name="palimpsest")


def refused(*arguments: object, status: int = 1) -> str:
    result = palimpsest(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    return result.stderr


def test_a_rule_holds_in_what_is_dissected_and_the_manifest_says_so(model: Path, tmp_path: Path):
    some_rule(small_generator(), PLAIN).save(tmp_path / "loud.safetensors")
    given = (model, *FEW, "--layers", DOWN)
    plain, ruled = tmp_path / "plain", tmp_path / "ruled"
    assert palimpsest(*given, "--out", plain).exit_code == 0
    result = palimpsest(*given, "--rule", tmp_path / "loud.safetensors", "--out", ruled)
    assert result.exit_code == 0, result.output
    before, after = (json.loads((out / "manifest.json").read_text("utf-8")) for out in (plain, ruled))
    assert before["fingerprint"] == small_generator().fingerprint != after["fingerprint"]
    assert "--rule" in shlex.split(after["command"])
    assert (plain / "tables" / "units.csv").read_bytes() != (ruled / "tables" / "units.csv").read_bytes()


def test_a_report_is_written_and_told(model: Path, tmp_path: Path):
    out = tmp_path / "report"
    layers = f"{UP},{PLAIN}"
    result = palimpsest(model, *FEW, "--layers", layers, "--grid", "16x12", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [row["layer"] for row in answer["layers"]] == [UP, PLAIN]
    assert answer["samples"] == 12
    assert answer["report"] == str(out / "report.html")
    assert all(Path(name).is_file() for name in answer["files"])
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["settings"]["grid"] == [16, 12]
    assert manifest["layers"] == [UP, PLAIN]
    assert manifest["judge"] == "colours"
    typed = shlex.split(manifest["command"])
    assert typed[:3] == ["palimpsest", "dissect", str(model)]
    assert typed[typed.index("--seeds") + 1] == "0-11"
    assert typed[typed.index("--grid") + 1] == "16x12"
    assert typed[-2:] == ["--out", "report"]
    assert "--json" not in typed

    again = tmp_path / "again" / "report"
    second = CliRunner().invoke(main, [*typed[1:-1], str(again)])  # from a warm store
    assert second.exit_code == 0, second.output
    assert (again / "report.html").read_bytes() == (out / "report.html").read_bytes()
    assert second.stdout.splitlines()[-1] == f"The report is {again / 'report.html'}"
    assert re.search(rf"{UP} +\d+ +\d+ \(\d+%\)", second.stdout)


def test_what_cannot_be_written_to_is_refused_before_any_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    monkeypatch.setattr(Generator, "inputs", None)  # whoever draws fails
    for name in ("full", "full/mine.txt"):
        said = refused(model, *FEW, "--out", tmp_path / name)
        assert re.fullmatch(r"palimpsest: error: [^\n]+\n", said)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--layers", "l99"), "l99"),
        (("--layers", " , "), "no layer"),
        (("--concepts", "nothing-of-the-kind"), "nothing-of-the-kind"),
        (("--quantile", "1.5"), "quantile 1.5"),
        (("--level", "-1"), "level"),
        (("--seeds", "3"), "1 samples"),
        (("--judge", "embedded"), "embedded"),
    ],
)
def test_what_makes_no_sense_is_one_line(model: Path, tmp_path: Path, options: tuple[str, str], word: str):
    said = refused(model, *FEW, *options, "--out", tmp_path / "out")
    assert re.fullmatch(r"palimpsest: error: [^\n]+\n", said)
    assert word in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("grid", ["0", "8x8x8", "a", "x8", "99999"])
def test_a_grid_that_is_none_is_explained(model: Path, tmp_path: Path, grid: str):
    assert "--grid" in refused(model, *FEW, "--grid", grid, "--out", tmp_path / "out", status=2)


def test_interrupted_it_says_how_to_go_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dissect.report.beside", interrupt)
    result = palimpsest(model, *FEW, "--layers", UP, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "the same command goes on from there" in result.stderr
    assert not (tmp_path / "out").exists()
