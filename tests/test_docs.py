"""The documentation keeps up with the code: everything that a user may say is named in it, and its examples run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydantic import TypeAdapter

from dashboard.cli import main
from rewrite_core import ContextSettings, SolverSettings, example_edit
from rewrite_core.files import read_json
from rewrite_core.generators.checkpoint import FAMILIES
from rewrite_core.generators.description import StackDescription
from rewrite_core.generators.stack import STEPS, Step
from rewrite_core.rules.settings import EditSettings, LatentSettings
from tests.generators import small_generator

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
COMMANDS, FORMAT = "docs/commands.md", "docs/your-own-model.md"

CODE = re.compile(r"``?([^`\n]+)``?")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return BLOCK.sub("", TEXT[page])


def words(*pages: str) -> set[str]:
    """Everything set as code in the prose of these pages, or of all, and the words that it consists of."""
    found = {code.strip() for page in pages or TEXT for code in CODE.findall(prose(page))}
    return found | {word for code in found for word in re.split(r"[\s.,:=\"'(){}]+", code)}


def blocks(language: str, *pages: str) -> list[tuple[str, str]]:
    """The blocks of code of one language, each with the page it is on."""
    return [
        (page, code) for page in pages or TEXT for kind, code in BLOCK.findall(TEXT[page]) if kind == language
    ]


def command_lines(*pages: str) -> list[list[str]]:
    """What these pages, or all, tell a reader to type after `palimpsest`."""
    lines = [line for _, code in blocks("bash", *pages) for line in code.splitlines()]
    typed = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in typed if line[:1] == ["palimpsest"]]


# Everything is named


def app_pages() -> list[str]:
    """Titles of the app's pages, read off `dashboard/app.py`, which draws when it is imported."""
    tree = ast.parse((ROOT / "dashboard" / "app.py").read_text(encoding="utf-8"))
    (pages,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["PAGES"]
    )
    return [title for _, title, _ in ast.literal_eval(pages)]


def tracked(*patterns: str) -> Iterator[str]:
    """The texts of all files of these kinds that git tracks or would track."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    yield from ((ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).is_file())


@pytest.mark.parametrize("title", app_pages())
def test_every_page_of_the_app_has_its_heading(title):
    assert title in HEADING.findall(TEXT["docs/guide.md"])


@pytest.mark.parametrize("name", main.commands)
def test_every_command_and_every_option_is_described(name):
    assert f"`palimpsest {name}`" in HEADING.findall(TEXT[COMMANDS])
    options = {flag for option in main.commands[name].params for flag in option.opts if flag.startswith("-")}
    assert options <= words(COMMANDS)


def test_every_family_is_named():
    assert {family.name for family in FAMILIES} <= words()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_every_step_of_a_model_and_every_field_of_it_is_described(step):
    assert {step.model_fields["op"].default, *step.model_fields} <= words(FORMAT)


def test_every_field_of_a_model_description_is_described():
    assert {field.alias or name for name, field in StackDescription.model_fields.items()} <= words(FORMAT)


@pytest.mark.parametrize("settings", [EditSettings, ContextSettings, SolverSettings, LatentSettings])
def test_every_setting_of_an_edit_is_described(settings):
    assert set(settings.model_fields) <= words("docs/guide.md")


def test_every_environment_variable_is_described():
    used = {
        name
        for text in tracked("*.py", ".ci", "Makefile")
        for name in re.findall(r"PALIMPSEST_[A-Z_]+", text)
    }
    assert used <= words()


# Everything named is there


@pytest.mark.parametrize("page", TEXT)
def test_every_link_and_picture_leads_somewhere(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in map(slug, HEADING.findall(there.read_text(encoding="utf-8"))), target


def slug(heading: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_picture_is_shown_and_small():
    shown = {target.rpartition("/")[2] for page in TEXT for target in LINK.findall(TEXT[page])}
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert picture.name in shown
        assert picture.stat().st_size < 300_000, picture.name


# Examples run


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples presuppose: a model of one's own, and a saved edit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALIMPSEST_RULES", str(tmp_path / "rules"))
    (tmp_path / "my-gan").mkdir()
    for name, content in small_generator().files().items():
        (tmp_path / "my-gan" / name).write_bytes(content)
    example_edit("blue-eyes").save(tmp_path / "edit.json")
    return tmp_path


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_examples_run(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "__example__"})


def test_the_model_descriptions_are_valid():
    steps: TypeAdapter[list[Any]] = TypeAdapter(list[Step])
    described = set()
    for page, code in blocks("json", FORMAT):
        example = read_json(code, what=page)
        if isinstance(example, dict):
            StackDescription.parse(example, page)
        else:
            described |= {step.op for step in steps.validate_json(code)}
    assert described == {step.model_fields["op"].default for step in STEPS}


@pytest.mark.parametrize("line", command_lines(), ids=" ".join)
def test_command_lines_are_understood(line):
    command = main.commands[line[0]]
    context = click.Context(command, info_name=line[0])
    given, _, _ = command.make_parser(context).parse_args(line[1:])  # an option that there is not is an error
    for parameter in command.params:
        if not isinstance(parameter.type, click.Path) and isinstance(given.get(parameter.name or ""), str):
            parameter.type_cast_value(context, given[parameter.name or ""])


def test_the_commands_run_in_the_order_they_are_shown_and_every_field_of_their_answers_is_described(
    workplace,
):
    known = words(COMMANDS)
    for line in command_lines(COMMANDS):
        if line[0] != "run":
            done = CliRunner().invoke(main, [*line, *([] if "--json" in line else ["--json"])])
            assert done.exit_code == 0, f"{line}: {done.output}"
            assert fields(json.loads(done.stdout)) <= known, line


def fields(answer: Any) -> set[str]:
    """The names of all fields of an answer, to any depth."""
    if isinstance(answer, list):
        return set().union(*map(fields, answer))
    if isinstance(answer, dict):
        return set(answer).union(*map(fields, answer.values()))
    return set()


def test_the_picture_of_the_readme_is_what_its_command_draws(workplace):
    (line,) = [shlex.split(code)[1:] for code in CODE.findall(prose("README.md")) if "--pairs" in code]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    name = line[line.index("--pairs") + 1]
    drawn, shown = pixels(workplace / name), pixels(ROOT / "docs" / "pictures" / name)
    assert drawn.shape == shown.shape
    assert np.abs(drawn - shown).mean() < 1  # of 255: the last bits depend on the number of threads


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)
