"""The command line as its users meet it: examples that work, answers for scripts, errors of one line."""

from __future__ import annotations

import json
import os
import pickle
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

from dashboard.cli import COMMANDS, main
from dashboard.commands.output import FIGURES
from dashboard.commands.requests import SETTINGS
from dashboard.commands.run import run as run_app
from dissect.figures import FORMATS, WIDTHS
from rewrite_core import EditRequest, Generator, LatentSpec, Rule, open_generator
from rewrite_core.directions import METHODS
from rewrite_core.generators import embedded_folder
from rewrite_core.generators.latents import Scheme
from rewrite_core.pictures import Mask, encode_png
from rewrite_core.rules.request import Painted, Patch
from rewrite_core.rules.settings import EditSettings

ROOT = Path(__file__).resolve().parents[1]
ANIME = "anime64-dcgan"
EDIT = embedded_folder(ANIME) / "edits" / "blue-eyes.json"


def palimpsest(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="palimpsest")


def answer(*arguments: object) -> Any:
    """What a command that succeeds says to a script; it says nothing else."""
    result = palimpsest(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    """The one line with which a command fails."""
    result = palimpsest(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"palimpsest: error: [^\n]+\n", result.stderr)
    return result.stderr


def refused_after_warning(*arguments: object) -> str:
    """The one line with which a command fails that was told to go on."""
    result = palimpsest(*arguments)
    assert result.exit_code == 1, result.output
    assert re.fullmatch(r"(palimpsest: warning: [^\n]+\n)?palimpsest: error: [^\n]+\n", result.stderr)
    return result.stderr.splitlines()[-1]


def picture(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def drawn(generator: Generator, seeds: tuple[int, ...], **spec: Any) -> np.ndarray:
    return generator.draw(LatentSpec(seeds, **spec))


LONG = {"ablate", "dissect"}
"""Commands whose examples are only read: a thousand samples take a while. Shorter ones run in `tests/test_docs.py`."""


def examples(command: click.Command) -> list[list[str]]:
    """The commands at the end of a help text, word by word."""
    text = CliRunner().invoke(command, ["--help"]).stdout
    lines = text.partition("Example:\n")[2].strip().splitlines()
    words = [shlex.split(line) for line in lines]
    assert words, f"{command.name} shows no example"
    assert all(line[:2] == ["palimpsest", command.name] or line[1] in main.commands for line in words)
    return [line[1:] for line in words]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def rule(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rule") / "blue-eyes.safetensors"
    answer("edit", EDIT, "--rule", path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of a visitor's own: the embedded one, with one weight changed."""
    path = tmp_path / "own"
    path.mkdir()
    for name, content in open_generator(ANIME).files().items():
        (path / name).write_bytes(content)
    change_weights(path, lambda tensors: tensors["l08.weight"].mul_(1.01))
    return path


def kept_request() -> dict[str, Any]:
    """The request in the rule file that the command wrote."""
    request = Rule.load("rule.safetensors").provenance.request
    assert request is not None
    return request


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def change_edit(change: Callable[[dict[str, Any]], Any]) -> Path:
    data = json.loads(EDIT.read_text())
    change(data)
    path = Path("edit.json")
    path.write_text(json.dumps(data))
    return path


# Help


def test_the_help_lists_every_command_and_loads_nothing_heavy():
    code = "import sys; from dashboard.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"  {command.name} " in done.stdout for command in COMMANDS)
    loaded = done.stdout.splitlines()[-1].split()
    assert {"torch", "numpy", "streamlit", "matplotlib", "PIL", "pydantic"}.isdisjoint(loaded)


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command is not run_app], ids=lambda c: c.name
)
def test_the_example_of_a_command_works_from_nothing(command):
    for words in examples(command):
        if command.name in LONG:
            command.make_context(command.name, words[1:]).close()
            continue
        result = palimpsest(*words)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""


def test_the_example_of_run_serves_the_app():
    ((*words, last),) = examples(run_app)
    command = [sys.executable, "-m", "dashboard.cli", *words, last, "--port", "0"]  # the last --port counts
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        url = next(
            found[0] for line in server.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line))
        )
        with urllib.request.urlopen(f"{url}/_stcore/health") as reply:
            assert reply.read() == b"ok"
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)
    assert server.returncode == 0


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_every_option_says_what_it_is_for(command):
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_every_setting_of_an_edit_can_be_overridden():
    def leaves(model: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for name, field in model.model_fields.items():
            inner = field.annotation
            found |= leaves(inner, (*path, name)) if hasattr(inner, "model_fields") else {(*path, name)}
        return found

    files_own = {("model",), ("latents", "scheme")}  # which pictures the numbers in the file mean
    assert {setting.path for setting in SETTINGS.values()} == leaves(EditSettings) - files_own


def choices(kind: Any) -> tuple[str, ...]:
    assert isinstance(kind, click.Choice)
    return tuple(kind.choices)


def test_the_choices_are_those_of_the_engine():
    assert choices(SETTINGS["method"].type) == tuple(METHODS)
    assert choices(SETTINGS["flip"].type) == get_args(EditSettings.model_fields["flip"].annotation)
    assert choices(SETTINGS["operation"].type) == get_args(EditSettings.model_fields["operation"].annotation)
    sample = {option.name: option.type for option in main.commands["sample"].params}
    assert choices(sample["scheme"]) == get_args(Scheme)
    assert choices(sample["width"]) == tuple(WIDTHS)
    assert tuple(f".{kind}" for kind in FORMATS) == FIGURES


def test_the_version_is_shown():
    assert re.match(r"palimpsest \S+, torch \S+", palimpsest("--version").stdout)


# Answers


def test_a_command_works_as_a_process_of_its_own():
    command = [sys.executable, "-m", "dashboard.cli", "models", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [model["name"] for model in json.loads(done.stdout)] == [ANIME, "face32-dcgan"]
    assert done.stderr == ""


def test_models_describes_the_layers_of_a_model_at_a_path(model):
    (described,) = answer("models", model)
    generator = open_generator(model)
    assert described["fingerprint"] == generator.fingerprint
    rewritable = [layer for layer in described["layers"] if layer["rewritable"]]
    assert [layer["name"] for layer in rewritable] == list(generator.layers)
    assert (rewritable[2]["in_channels"], rewritable[2]["value_size"]) == (64, [32, 32])
    assert not next(layer for layer in described["layers"] if layer["kind"] == "linear")["rewritable"]


def test_models_prints_a_table_with_the_examples_that_ship():
    text = palimpsest("models").stdout
    assert re.search(r"l08 +transposed conv +64→32 +16×16→32×32 +4×4 +yes \(default\)", text)
    assert "example edits: blue-eyes" in text


@pytest.mark.parametrize("kind", FORMATS)
def test_sample_writes_a_figure_of_the_kind_that_its_name_says(kind):
    answer("sample", "--seeds", "0-5", "--out", f"grid.{kind}")
    assert (
        Path(f"grid.{kind}")
        .read_bytes()
        .startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    )


def test_sample_writes_a_folder_of_pictures_called_by_their_seeds():
    said = answer("sample", ANIME, "--seeds", "40, 3-5", "--truncation", 0.7, "--out", "new/folder/")
    names = [f"new/folder/seed{seed:07d}.png" for seed in (40, 3, 4, 5)]
    assert said["files"] == names
    expected = drawn(open_generator(ANIME), (40, 3, 4, 5), truncation=0.7)
    np.testing.assert_array_equal([picture(name) for name in names], expected)


def test_sample_can_count_in_rows_as_published_edits_do():
    answer("sample", "--seeds", "7", "--scheme", "rows", "--out", "rows/")
    expected = drawn(open_generator(ANIME), (7,), scheme="rows")[0]
    np.testing.assert_array_equal(picture("rows/seed0000007.png"), expected)


def test_edit_solves_a_rule_and_shows_pairs():
    said = answer("edit", EDIT, "--rule", "rule.safetensors", "--pairs", "pairs/", "--seeds", "1002-1003")
    assert said["loss"] < said["loss_before"]
    assert said["name"] == "blue-eyes"
    generator, rule = open_generator(ANIME), Rule.load("rule.safetensors")
    for folder, shown in (("before", generator), ("after", generator.with_rules(rule))):
        pairs = [picture(f"pairs/{folder}/seed000{seed}.png") for seed in (1002, 1003)]
        np.testing.assert_array_equal(pairs, drawn(shown, (1002, 1003)))


def test_edit_keeps_the_settings_of_the_file_unless_told_otherwise():
    options = [
        "--rank",
        2,
        "--layer",
        "l05",
        "--locality",
        1,
        "--method",
        "svd",
        "--ridge",
        0.2,
        "--name",
        "test",
    ]
    said = answer(
        "edit", "blue-eyes", *options, "--contrast", 0.5, "--iterations", 5, "--rule", "rule.safetensors"
    )
    assert (said["layer"], said["rank"], said["name"]) == ("l05", 2, "test")
    assert said["iterations"] <= 5
    request = EditRequest.from_json(kept_request())
    asked = EditRequest.load(EDIT)
    assert (request.solver.locality, request.solver.iterations) == (1.0, 5)
    assert (request.direction.method, request.direction.ridge, request.direction.contrast) == (
        "svd",
        0.2,
        0.5,
    )
    assert (request.direction.protect, request.latents, request.key) == (3.0, asked.latents, asked.key)


def test_edit_reads_a_file_of_the_published_interface():
    published = change_edit(lambda data: data.pop("palimpsest"))
    said = answer("edit", published, "--layer", "l08", "--rule", "rule.safetensors")
    assert said["name"] == "edit"
    assert kept_request()["palimpsest"]["latents"]["scheme"] == "rows"


def test_edit_writes_the_published_format_and_warns_of_what_it_cannot_say():
    result = palimpsest("edit", EDIT, "--scale", 2, "--flip", "both", "--published", "theirs.json")
    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert "pictures by their seeds" in line
    assert "a paste with scale or flip" in line
    theirs = json.loads(Path("theirs.json").read_text())
    assert list(theirs) == ["object", "paste", "key"]
    rows = EditRequest.load(Path("theirs.json"))
    again = palimpsest("edit", "theirs.json", "--layer", "l08", "--published", "again.json")
    assert (again.exit_code, again.stderr) == (0, "")
    assert EditRequest.load(Path("again.json")) == rows


def test_edit_pastes_a_colour_or_a_patch_where_the_layer_permits():
    said = answer("edit", EDIT, "--layer", "l14", "--colour", "#2060e0", "--rule", "rule.safetensors")
    assert said["loss"] < said["loss_before"]
    assert EditRequest.from_json(kept_request()).object == Patch.of_colour("#2060e0")
    Path("hat.png").write_bytes(encode_png(np.full((5, 5, 3), 200, np.uint8)))
    answer("edit", EDIT, "--layer", "l14", "--patch", "hat.png", "--rule", "rule.safetensors")
    assert EditRequest.from_json(kept_request()).object == Patch(np.full((5, 5, 3), 200, np.uint8))
    assert "expected l14, which does" in refused("edit", EDIT, "--colour", "#2060e0")
    assert "the colour 'blue'; expected #rrggbb" in refused("edit", EDIT, "--colour", "blue")
    both = palimpsest("edit", EDIT, "--colour", "#2060e0", "--patch", "hat.png")
    assert "Give --colour or --patch, not both." in both.output


def test_edit_removes_what_the_context_shows():
    said = answer("edit", EDIT, "--operation", "remove", "--alpha", 0.25, "--rule", "rule.safetensors")
    assert (said["loss_before"], said["stopped"]) == (1.0, "closed form")
    assert said["loss"] == pytest.approx(0.25, abs=1e-4)


def test_edit_says_when_nothing_is_kept():
    assert "--rule" in palimpsest("edit", EDIT).stdout
    assert list(Path().iterdir()) == []


def test_an_edit_for_another_model_can_be_forced(model):
    result = palimpsest(
        "edit", EDIT, "--model", model, "--force", "--layer", "l02", "--rule", "rule.safetensors"
    )
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"palimpsest: warning: [^\n]+\n", result.stderr)
    assert Rule.load("rule.safetensors").provenance.fingerprint == open_generator(model).fingerprint


def test_apply_draws_pictures_under_a_rule(rule):
    answer("apply", rule, "--seeds", "5", "--out", "after/")
    expected = drawn(open_generator(ANIME).with_rules(Rule.load(rule)), (5,))[0]
    np.testing.assert_array_equal(picture("after/seed0000005.png"), expected)


def test_apply_at_strength_0_changes_nothing(rule):
    answer("apply", rule, "--strength", 0, "--seeds", "5", "--out", "after/")
    np.testing.assert_array_equal(picture("after/seed0000005.png"), drawn(open_generator(ANIME), (5,))[0])


def test_apply_puts_rules_on_each_other(rule):
    said = answer("apply", rule, rule, "--seeds", "5", "--out", "after/")
    assert [found["layer"] for found in said["rules"]] == ["l08", "l08"]
    expected = drawn(open_generator(ANIME).with_rules(Rule.load(rule).with_strength(2.0)), (5,))[0]
    assert np.abs(picture("after/seed0000005.png").astype(int) - expected).max() <= 1


def test_apply_saves_a_model_that_opens_again_and_draws_the_same(rule):
    said = answer("apply", rule, "--weights", "edited")
    names = ("model.json", "model.safetensors", "palimpsest.json")
    assert said["files"] == [f"edited/{name}" for name in names]
    expected = drawn(open_generator(ANIME).with_rules(Rule.load(rule)), (5, 6))
    np.testing.assert_array_equal(drawn(open_generator("edited"), (5, 6)), expected)
    record = json.loads(Path("edited/palimpsest.json").read_text())
    assert (record["model"], record["fingerprint"]) == (ANIME, open_generator(ANIME).fingerprint)
    assert [told["digest"] for told in record["rules"]] == [Rule.load(rule).digest]


def test_apply_saves_the_layout_that_the_model_came_in_or_what_the_rules_add(rule):
    answer("apply", rule, "--weights", "own", "--layout", "own")
    answer("apply", rule, "--weights", "delta", "--layout", "delta")
    before, after = (
        load_file(folder / "model.safetensors") for folder in (embedded_folder(ANIME), Path("own"))
    )
    (added,) = load_file(f"delta/{ANIME}-edited-delta.safetensors").items()
    assert (
        [name for name in before if not torch.equal(before[name], after[name])]
        == [added[0]]
        == ["l08.weight"]
    )
    assert list(before) == list(after)
    torch.testing.assert_close(before["l08.weight"] + added[1], after["l08.weight"])


def test_a_rule_for_another_model_can_be_forced(rule, model):
    result = palimpsest("apply", rule, "--model", model, "--force", "--out", "grid.png")
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"palimpsest: warning: [^\n]+\n", result.stderr)


def test_search_names_the_pictures_that_show_the_context_most_and_draws_them():
    said = answer("search", EDIT, "--seeds", "0-99", "--top", 5, "--out", "matches.svg")
    scores = [match["score"] for match in said["matches"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert all(f">{match['seed']}</text>" in Path("matches.svg").read_text() for match in said["matches"])


def test_search_needs_no_more_than_a_context():
    context = change_edit(lambda data: [data.pop(part) for part in ("object", "paste")])
    assert len(answer("search", context, "--seeds", "0-49", "--top", 3)["matches"]) == 3


def test_figures_may_be_as_wide_as_a_column(rule):
    for width in WIDTHS:
        answer("apply", rule, "--pairs", "--width", width, "--out", f"{width}.png")
        assert picture(f"{width}.png").shape[1] <= WIDTHS[width] * 300


# Progress


def on_terminal(*commands: list[str]) -> list[str]:
    """What each command writes to a terminal's stderr."""
    code = (
        f"import sys\nfrom dashboard.cli import main\nfor words in {list(commands)}:\n"
        "    main(words, standalone_mode=False)\n    print('<end>', end='', file=sys.stderr)"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs
    ) as done:
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # how Linux says that the other end is closed
            while block := os.read(ours, 65536):
                seen += block
    os.close(ours)
    assert done.returncode == 0, seen
    return seen.decode().split("<end>")[:-1]


def test_progress_is_shown_on_a_terminal_unless_told_to_be_quiet(folder):
    words = ["sample", "--seeds", "0-99", "--out", str(folder / "pictures/")]
    shown, quiet = on_terminal(words, [*words, "--quiet"])
    assert "Drawing" in shown
    assert "100/100" in shown
    assert quiet == ""


# Bad input


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that makes a file when it is opened; the test fails if anything does."""
    mark = tmp_path / "executed"
    content = pickle.dumps(Bomb(mark))
    pickle.loads(content)
    assert mark.exists()
    mark.unlink()
    yield content
    assert not mark.exists()


def test_a_pickle_in_place_of_a_rule_is_never_executed(bomb):
    Path("rule.safetensors").write_bytes(bomb)
    assert "save it as safetensors" in refused("apply", "rule.safetensors", "--out", "grid.png")


def test_a_pickle_in_place_of_a_model_is_never_executed(bomb, model):
    (model / "model.safetensors").write_bytes(bomb)
    assert "save it as safetensors" in refused("sample", model, "--out", "grid.png")
    Path("model.pt").write_bytes(bomb)
    assert "expected a .pt or .pth file of tensors" in refused("models", "model.pt")


def test_a_pickle_in_place_of_an_edit_is_never_executed(bomb):
    Path("edit.json").write_bytes(bomb)
    assert "expected JSON. Check that it is the right, whole file." in refused("edit", "edit.json")


def test_a_truncated_file_is_refused(rule, model):
    Path("rule.safetensors").write_bytes(rule.read_bytes()[:-100])
    assert "Save or download it again." in refused("apply", "rule.safetensors", "--out", "grid.png")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "Save or download it again." in refused("models", model)
    Path("edit.json").write_bytes(EDIT.read_bytes()[:-100])
    assert "Check that it is the right, whole file." in refused("edit", "edit.json")


@pytest.mark.parametrize(
    ("path", "value", "found", "expected"),
    [
        (("object",), 5, "object is 5", "[picture number, PNG data URL]"),
        (("object",), ["two", "data:"], "object.0 is 'two'", "a picture number"),
        (("key",), {}, "key is {}", "a list of"),
        (("palimpsest",), [], "palimpsest is []", "an object"),
        (("palimpsest", "version"), "1", "version is '1'", "a version number"),
        (("palimpsest", "rank"), "two", "rank is 'two'", "a valid integer"),
        (("palimpsest", "rank"), 1.5, "rank is 1.5", "a valid integer"),
        (("palimpsest", "direction"), None, "direction is None", "an object"),
        (("palimpsest", "solver", "locality"), True, "locality is True", "a valid number"),
        (("palimpsest", "latents", "scheme"), 0, "scheme is 0", "'seed' or 'rows'"),
    ],
)
def test_json_with_a_wrong_type_names_the_field(path, value, found, expected):
    def put(data: dict[str, Any]) -> None:
        for name in path[:-1]:
            data = data[name]
        data[path[-1]] = value

    line = refused("edit", change_edit(put))
    assert found in line
    assert expected in line
    assert re.search(r"Correct \S+( \S+)* and try again\.", line)


def test_json_that_is_no_edit_is_refused():
    Path("edit.json").write_text("[1, 2]")
    assert "expected an object" in refused("search", "edit.json")


@pytest.mark.parametrize("part", ["object", "paste", "key"])
def test_a_mask_of_zero_area_is_refused(part):
    nothing = Painted(2, Mask(np.zeros((64, 64), dtype=np.uint8))).to_json()
    edit = change_edit(lambda data: data.update({part: [nothing] if part == "key" else nothing}))
    line = refused("edit", edit)
    assert f"an empty mask in {part} (picture 2)" in line
    assert "Paint on that picture again, or remove it." in line


def test_a_context_of_zero_area_cannot_be_searched_for():
    nothing = Painted(2, Mask(np.zeros((64, 64), dtype=np.uint8))).to_json()
    assert "Paint" in refused("search", change_edit(lambda data: data.update(key=[nothing])))


@pytest.mark.parametrize("command", ["edit", "search"])
def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(command):
    line = refused(command, EDIT, "--layer", "l99")
    assert "layer 'l99'" in line
    assert "one of l02, l05, l08, l11, l14" in line
    assert "Choose one of these layers" in line


@pytest.mark.parametrize("command", ["edit", "search"])
def test_an_edit_for_another_model_is_refused_with_both_fingerprints(command, model):
    line = refused(command, EDIT, "--model", model)
    assert all(open_generator(name).fingerprint[:12] in line for name in (ANIME, model))
    assert "--force" in line


def test_a_rule_for_another_model_is_refused_with_both_fingerprints(rule, model):
    line = refused("apply", rule, "--model", model, "--out", "grid.png")
    assert all(open_generator(name).fingerprint[:12] in line for name in (ANIME, model))
    assert "Open the other one with --model, or go on with --force." in line


def test_a_rule_of_another_shape_cannot_be_forced(rule):
    line = refused_after_warning("apply", rule, "--model", "face32-dcgan", "--force", "--out", "grid.png")
    assert "c0, c1, c2" in line


def test_weights_that_are_not_numbers_are_refused(model):
    change_weights(model, lambda tensors: tensors["l08.weight"].view(-1)[0].fill_(torch.nan))
    line = refused("sample", model, "--out", "grid.png")
    assert "1 of 32,768 numbers in 'l08.weight' are NaN or infinite" in line
    assert "use another copy" in line


def test_a_rule_that_is_not_numbers_is_refused(rule):
    good = Rule.load(rule)
    Rule(good.directions * torch.nan, good.delta, good.provenance).save("rule.safetensors")
    assert "NaN or infinite" in refused("apply", "rule.safetensors", "--out", "grid.png")


@pytest.mark.parametrize(
    ("seeds", "found"),
    [
        ("", "no pictures named"),
        (" , ", "no pictures named"),
        ("a-b", "'a-b' among the pictures"),
        ("9-3", "the range 9-3"),
        ("0-4294967296", "picture number 4294967296"),
        ("0-1000000", "1,000,001 pictures"),
    ],
)
def test_seeds_that_name_no_pictures_are_refused(seeds, found):
    line = refused("sample", "--seeds", seeds, "--out", "grid.png")
    assert found in line
    assert "Correct the range and try again." in line


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--rank", 0, "greater than or equal to 1"),
        ("--locality", -1, "greater than or equal to 0"),
        ("--ridge", "nan", "a finite number"),
        ("--contrast", "inf", "a finite number"),
        ("--truncation", 3, "less than or equal to 2"),
        ("--iterations", 0, "greater than or equal to 1"),
    ],
)
def test_a_setting_out_of_range_is_refused(option, value, expected):
    assert f"expected {expected}" in refused("edit", EDIT, option, value)


def test_a_rank_above_what_the_context_shows_is_refused():
    assert "Lower the rank" in refused("edit", EDIT, "--rank", 1000)


@pytest.mark.parametrize("strength", ["nan", "inf", "1e39", "-101"])
def test_a_strength_out_of_range_is_refused(rule, strength):
    line = refused("apply", rule, "--strength", strength, "--out", "grid.png")
    assert "expected a number from -100 to 100" in line


def test_a_file_that_is_not_there_is_named(rule):
    assert "no edit 'nowhere.json'" in refused("edit", "nowhere.json")
    assert "nowhere.safetensors" in refused("apply", "nowhere.safetensors", "--out", "grid.png")
    assert "anime64-dcgan, face32-dcgan" in refused("models", "nowhere")
    assert "~nosuchuser/model" in refused("models", "~nosuchuser/model")


# Where output goes


@pytest.mark.parametrize(
    ("place", "remedy"),
    [
        ("missing/grid.png", "make the folder"),
        ("grid.jpg", ".png, .svg or .pdf, or a folder"),
        ("file", "Choose another name."),
        ("file/deeper/", "Choose another name."),
        ("folder.png", "Choose another name"),
        ("x" * 300 + ".png", "File name too long"),
    ],
)
def test_pictures_that_cannot_be_written_are_refused_before_they_are_drawn(place, remedy):
    Path("file").touch()
    Path("folder.png").mkdir()
    assert remedy in refused("sample", "--seeds", "0-999999", "--out", place)
    assert sorted(path.name for path in Path().iterdir()) == ["file", "folder.png"]


def test_a_rule_that_cannot_be_written_is_refused_before_it_is_solved():
    assert "no folder missing" in refused("edit", EDIT, "--rule", "missing/rule.safetensors")


def test_weights_go_to_a_folder_that_is_not_the_model_itself(rule, model):
    Path("file").touch()
    assert "file is a file" in refused("apply", rule, "--weights", "file")
    Path("link").symlink_to(model)
    for source in (model, model / "model.json", model / "model.safetensors", "own/../own", "link"):
        line = refused("apply", rule, "--model", source, "--force", "--weights", model)
        assert "holds the model itself" in line


def test_weights_replace_no_other_model_unless_forced(rule):
    Path("other").mkdir()
    Path("other/model.safetensors").write_bytes(b"mine")
    assert "there already" in refused("apply", rule, "--weights", "other")
    assert [path.name for path in Path("other").iterdir()] == ["model.safetensors"]
    answer("apply", rule, "--weights", "other", "--force")
    assert open_generator("other").layers.keys() == open_generator(ANIME).layers.keys()


@pytest.mark.parametrize("options", [[], ["--model", ANIME]])
def test_weights_never_replace_what_ships_with_palimpsest(rule, options):
    before = open_generator(ANIME).fingerprint
    for place in (embedded_folder(ANIME), embedded_folder("face32-dcgan"), embedded_folder("new")):
        assert "belongs to Palimpsest" in refused("apply", rule, *options, "--weights", place)
    assert open_generator(ANIME).fingerprint == before
    assert not embedded_folder("new").exists()


def test_a_name_from_a_file_cannot_steer_the_terminal(rule):
    name = "blue\x1b[31m\x9b2J\reyes\x7f"
    Rule.load(rule).renamed(name).save("rule.safetensors")
    words = ["apply", "rule.safetensors", "--seeds", "5", "--out", "grid.png"]
    text = palimpsest(*words).stdout
    assert text.startswith("blue\\u001b[31m\\u009b2J\\u000deyes\\u007f on ")
    assert palimpsest(*words, "--json").stdout.replace("\n", "").isprintable()
    assert answer(*words)["rules"][0]["name"] == name
    assert "\x1b" not in refused("apply", "rule.safetensors", "--model", "face32-dcgan", "--out", "grid.png")


def test_a_figure_holds_a_limited_number_of_pictures():
    assert "write them to a folder" in refused("sample", "--seeds", "0-2000", "--out", "grid.png")


def test_an_older_file_of_that_name_is_replaced():
    Path("grid.png").write_text("old")
    answer("sample", "--seeds", "1", "--out", "grid.png")
    assert picture("grid.png").size


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_reported_in_one_line():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "dashboard.cli", "models"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "palimpsest: error: output: No space left on device\n"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["sample"],
        ["sample", "--scheme", "x"],
        ["edit"],
        ["apply"],
        ["run", "--models", "nowhere"],
    ],
)
def test_a_mistake_in_the_command_line_is_explained_with_status_2(words):
    result = palimpsest(*words)
    assert result.exit_code == 2
    assert "Usage: palimpsest" in result.stderr


def test_apply_with_nowhere_to_write_is_a_mistake_in_the_command_line(rule):
    assert palimpsest("apply", rule).exit_code == 2


# The app


@pytest.fixture
def started(monkeypatch) -> Iterator[list[list[str]]]:
    """The arguments that Streamlit is given in place of starting it."""
    import streamlit.web.cli

    calls: list[list[str]] = []
    monkeypatch.setattr(streamlit.web.cli, "main", lambda words, standalone_mode: calls.append(words))
    monkeypatch.delenv("PALIMPSEST_MODELS", raising=False)
    yield calls
    os.environ.pop("PALIMPSEST_MODELS", None)


def test_run_leaves_to_the_configuration_what_it_is_not_told(started):
    assert palimpsest("run").exit_code == 0
    assert started == [["run", str(ROOT / "dashboard" / "app.py")]]


def test_run_serves_the_models_of_a_folder(started, model):
    assert palimpsest("run", "--models", model.parent, "--no-browser").exit_code == 0
    assert os.environ["PALIMPSEST_MODELS"] == str(model.parent.resolve())
    assert started[0][2:] == ["--server.headless=true"]


def test_run_for_other_machines_accepts_any_name_or_those_it_is_given(started):
    palimpsest("run", "--host", "0.0.0.0", "--port", "0")
    palimpsest("run", "--host", "0.0.0.0", "--allow", "lab.example")
    assert started[0][2:] == ["--server.port=0", "--server.address=0.0.0.0", "--server.allowedHosts=*"]
    assert started[1][2:] == ["--server.address=0.0.0.0", "--server.allowedHosts=lab.example"]


def test_run_on_a_port_that_is_taken_says_so(started):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused("run", "--port", taken.getsockname()[1])
    assert "Choose another --port" in line
    assert "expected an address of this machine" in refused("run", "--host", "192.0.2.1")
    assert started == []
