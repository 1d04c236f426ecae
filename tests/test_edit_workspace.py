"""`palimpsest edit` of a file that holds everything, and the figures that it draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dashboard.cli import main
from rewrite_core import Rule, RuleStack, example_edit, open_generator, rewrite
from rewrite_core.rules.settings import ModelRef
from rewrite_core.rules.stack import Entry
from rewrite_core.rules.workspace import Workspace


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    """A rule at half its strength, one that is off, and a trial."""
    anime = open_generator()
    eyes = rewrite(anime, example_edit("blue-eyes"), name="Blue eyes").rule
    hair = rewrite(anime, example_edit("orange-hair"), name="Orange hair").rule
    return Workspace(
        model=ModelRef(name=anime.name, fingerprint=anime.fingerprint),
        layer="l08",
        draft=example_edit("orange-hair"),
        entries=(Entry(eyes.with_strength(0.5)), Entry(eyes.renamed("off"), on=False)),
        trial=hair,
    )


@pytest.fixture
def file(workspace: Workspace, tmp_path: Path) -> Path:
    path = tmp_path / "study.palimpsest.json"
    workspace.save(path)
    return path


def asked(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["edit", *map(str, arguments), "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["edit", *map(str, arguments), "--quiet"])
    assert result.exit_code != 0
    return result.output


def test_its_rules_are_solved_again_to_the_bit_and_written(workspace: Workspace, file: Path, tmp_path: Path):
    answer = asked(file, "--rule", tmp_path / "rules.safetensors")
    assert [(rule["name"], rule["on"], rule["outcome"]) for rule in answer["rules"]] == [
        ("Blue eyes", True, "same"),
        ("off", False, "same"),
        ("Orange hair", True, "same"),
    ]
    assert [Path(name).name for name in answer["files"]] == ["rules-1.safetensors", "rules-2.safetensors"]
    assert [Rule.load(name).digest for name in answer["files"]] == [rule.digest for rule in workspace.rules]


def test_its_pairs_are_those_of_the_whole_stack(workspace: Workspace, file: Path, tmp_path: Path):
    asked(file, "--pairs", f"{tmp_path}/pairs/", "--seeds", "7")
    anime, stack = open_generator(), RuleStack()
    for rule in workspace.rules:
        stack = stack.push(rule)
    wanted = anime.with_rules(stack).draw(workspace.draft.latents.spec([7]))[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "pairs/after/seed0000007.png")), wanted)


def test_it_takes_no_setting(file: Path):
    assert "takes no setting" in " ".join(refused(file, "--rank", "2").split())


def test_a_damaged_one_is_one_line(file: Path):
    data = json.loads(file.read_bytes())
    data["rules"][0]["digest"] = "0" * 64
    file.write_text(json.dumps(data))
    assert "digest" in refused(file)


def test_the_figure_has_its_caption_beside_it_and_the_animation_moves(tmp_path: Path):
    figure, film = tmp_path / "edit.png", tmp_path / "edit.gif"
    answer = asked("blue-eyes", "--figure", figure, "--animation", film, "--seeds", "1000-1001")
    assert answer["files"] == [str(figure), str(tmp_path / "edit.txt"), str(film)]
    caption = (tmp_path / "edit.txt").read_text()
    assert "at l08, rank 1, strength 1" in caption
    assert "seeds 1000" in caption
    with Image.open(figure) as page:
        assert page.width > 1000
    with Image.open(film) as moving:
        assert getattr(moving, "n_frames", 1) > 20


def test_an_animation_of_another_kind_is_refused_before_any_work(tmp_path: Path):
    assert ".gif or .mp4" in refused("blue-eyes", "--animation", tmp_path / "edit.avi")
