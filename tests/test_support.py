"""The table of what is supported: each cell is tried on a small file of its family and layout; the docs hold it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load, save_file

from dashboard.cli import main
from dashboard.commands.families import HEADINGS, families_markdown
from dissect.concepts.colours import Colours
from dissect.interventions import ablate, sample
from dissect.units import dissect
from rewrite_core import EditRequest, SolverSettings, layer_statistics
from rewrite_core.directions import Direction
from rewrite_core.directions.matches import matches
from rewrite_core.directions.matches import search as find
from rewrite_core.errors import FileError, RequestError
from rewrite_core.generators import SUFFIXES, Generator, Source, exported, open_generator, open_source
from rewrite_core.generators.checkpoint import FAMILIES
from rewrite_core.generators.projection import Space, project
from rewrite_core.generators.support import COLUMNS, ROWS, Cell, Row
from rewrite_core.generators.wspace import given
from rewrite_core.rules.rewrite import direction_of
from rewrite_core.rules.rewrite import rewrite as solve
from rewrite_core.rules.scaling import scaling_rule
from rewrite_core.statistics import SecondMoment, Store, default_store, gather
from tests.generators import painted, small_generator, some_rule, spec
from tests.nvidia import pickled, pickled_tensorflow, random_stylegan2_ada, random_stylegan3
from tests.stylegan2 import random_stylegan2, sequential_layout
from tests.test_cli import answer
from tests.test_export import flat
from tests.test_proggan import random_proggan
from tests.test_unnamed import trained, tutorial

REFERENCE = Path(__file__).parent / "reference"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-own-model.md"
TABLE = re.compile(
    r"<!-- palimpsest models --families --markdown -->\n(.*)\n<!-- end of the table -->", re.DOTALL
)

# A file of every layout


def tensors(content: Mapping[str, Any], path: Path) -> Path:
    """`content` as its ending says."""
    if path.suffix == ".safetensors":
        save_file(flat(content), path)
    else:
        torch.save(dict(content), path)
    return path


def our_export(generator: Generator, folder: Path) -> Path:
    for name, content in generator.files().items():
        (folder / name).write_bytes(content)
    return folder


def described(path: Path) -> Path:
    """A folder with ``model.json`` and the tensors in a file with the ending of `path`."""
    files = small_generator().files()
    (path.parent / "model.json").write_bytes(files["model.json"])
    tensors(load(files["model.safetensors"]), path.with_stem("model"))
    return path.parent


def binary(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


def keras(path: Path) -> Path:
    pytest.importorskip("h5py", reason="h5py is an extra: pip install 'palimpsest[keras]'")
    return Path(shutil.copy(REFERENCE / "keras_stack.h5", path))


def bare(path: Path) -> Path:
    state = trained(tutorial(), 12).state_dict()
    return tensors({f"main.{name}": tensor for name, tensor in state.items()}, path)


def stylegan2(path: Path) -> Path:
    return tensors(random_stylegan2(3, size=8), path)


def proggan(path: Path) -> Path:
    return tensors(random_proggan(3, 2, ""), path)


def exported_again(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Our own export of what `make` makes."""

    def made(path: Path) -> Path:
        origin = make(path.parent.parent / f"{path.parent.name}.pth")
        return our_export(open_generator(origin), path.parent)

    return made


MAKERS: dict[Row, Callable[[Path], Path]] = dict(
    zip(
        ROWS,
        (
            stylegan2,
            lambda path: tensors(sequential_layout(random_stylegan2(3, size=8)), path),
            exported_again(stylegan2),
            lambda path: binary(pickled(random_stylegan2_ada(levels=2)), path),
            lambda path: binary(pickled_tensorflow(random_stylegan2_ada(levels=2)), path),
            lambda path: our_export(random_stylegan2_ada(levels=2), path.parent),
            lambda path: binary(pickled(random_stylegan3()), path),
            lambda path: our_export(random_stylegan3(), path.parent),
            proggan,
            exported_again(proggan),
            described,
            keras,
            bare,
        ),
        strict=True,
    )
)
"""How a small file of each row is made: a place for it → what to open."""

Opened = Callable[[Row, str], Generator]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """The generator in a file of a row with one of its endings; each is made and opened once."""

    @cache
    def found(row: Row, suffix: str) -> Generator:
        return open_generator(MAKERS[row](tmp_path_factory.mktemp("row") / f"mine{suffix}"))

    return found


# What each cell says


def opens(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert cell.supported
    assert generator.family == row.generator.family
    assert generator.sample(spec(2)).std() > 0


def statistics(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert cell.supported
    layer = generator.default_layer
    (found,) = gather(generator, spec(5), {layer: [SecondMoment()]}, store=Store(folder))[layer]
    keys = generator.keys(generator.latents(spec(5)), layer).keys.double()  # [N, C, h, w]
    assert isinstance(found, SecondMoment)
    assert found.samples == 5
    expected = torch.einsum("nahw,nbhw->ab", keys, keys) / (keys.numel() / keys.shape[1])
    torch.testing.assert_close(found.matrix, expected, rtol=1e-5, atol=1e-8)


def search(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert cell.supported
    layer = generator.layer(generator.default_layer)
    keys = layer.inside(generator.keys(generator.latents(spec(5)), layer.name).keys)  # [N, C, h, w]
    query = keys[3].mean((1, 2))  # [C]
    found = matches(generator, layer.name, query, spec(5))
    expected = torch.einsum("nchw,c->nhw", keys, query)
    torch.testing.assert_close(found.heat, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert len(found.top(2)) == 2


def rewritten(generator: Generator) -> Generator:
    return generator.with_rules(some_rule(generator, generator.default_layer))


def rewrite(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert cell.supported
    before, layer = generator.sample(spec(2)), generator.default_layer
    height, width = generator.picture_size
    corner = (0, 0, height // 2, width // 2)
    source, target = (painted(image, *corner, size=(height, width)) for image in (1, 0))
    request = EditRequest(
        object=source, paste=target, key=(target,), layer=layer, solver=SolverSettings(iterations=3)
    )
    known = layer_statistics(generator, layer, store=Store(folder), samples=20)
    view = generator.with_rules(solve(generator, request, statistics=known).rule)
    changed = [
        name for name in generator.layers if not torch.equal(view.weight(name), generator.weight(name))
    ]
    assert changed == [layer]
    assert not torch.equal(view.sample(spec(2)), before)
    assert torch.equal(generator.sample(spec(2)), before)


def export_safetensors(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert cell.supported
    view = rewritten(generator)
    written = exported(view, "safetensors", {})
    assert set(written) == {"model.json", "model.safetensors", "palimpsest.json"}
    assert torch.equal(open_source(Source("again", written)).sample(spec(2)), view.sample(spec(2)))


def export_own(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    view = rewritten(generator)
    if not cell.supported:
        assert "which was not opened from a file" in refusal(lambda: exported(view, "own", {}))
        return
    written = exported(view, "own", {})
    assert {Path(name).suffix for name in written} == {".json", suffix}
    assert torch.equal(open_source(Source("again", written)).sample(spec(2)), view.sample(spec(2)))


def w_space(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert (generator.styles > 0) == cell.supported
    if not cell.supported:
        assert "has no mapping network" in refusal(lambda: generator.mapped(generator.latents(spec(2))))
        return
    w = generator.mapped(generator.latents(spec(2)))
    assert torch.equal(generator.sample(given(generator, w)), generator.sample(spec(2)))


def projection(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert cell.supported
    picture = generator.draw(spec(1, first=1000))[0]
    if cell.note == "in z alone":
        assert "space 'w'" in refusal(lambda: project(generator, picture, space="w", steps=1))
    spaces: tuple[Space, ...] = ("z",) if cell.note else ("w", "w+")
    for space in spaces:
        found = project(generator, picture, space=space, steps=2)
        assert len(found.losses) == 2
        drawn = generator.draw(found.latents(generator))[0]
        assert abs(drawn.astype(int) - found.picture).max() <= 1


def dissection(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert cell.supported
    layers = list(generator.layers)
    middle, last = layers[len(layers) // 2], layers[-1]
    found = dissect(generator, spec(6), [middle, last], Colours(), store=Store(folder))
    for layer in (middle, last):
        ious = found.iou_table(layer).to_numpy()  # [C, L]
        assert ious.shape == (generator.layer(layer).in_channels, len(Colours().names))
        assert ious.max() > 0
    tables = [found.units(), found.summary(), found.concepts(), found.detectors()]
    tables += [found.iou_table(layer, held_out) for layer in (middle, last) for held_out in (False, True)]
    assert not any(table.isna().to_numpy().any() for table in tables)
    keys = generator.keys(generator.latents(spec(2)), middle).keys  # [N, C, h, w]
    loudest = int(keys.square().mean((0, 2, 3)).argmax())
    before = generator.sample(spec(2))
    assert not torch.equal(sample(generator, spec(2), [ablate(middle, [loudest])]), before)
    assert torch.equal(sample(generator, spec(2), [ablate(middle, [loudest], strength=0.0)]), before)
    assert torch.equal(generator.sample(spec(2)), before)


def directions(generator: Generator, row: Row, suffix: str, cell: Cell, folder: Path) -> None:
    assert cell.supported
    layer, store = generator.default_layer, default_store()  # which the other files of the same network share
    height, width = generator.picture_size
    context = painted(0, 0, 0, height // 2, width // 2, size=(height, width))
    known = layer_statistics(generator, layer, store=store)
    direction = direction_of(generator, EditRequest(key=(context,), layer=layer), known)
    assert Direction.load(direction.to_bytes()) == direction

    (query,) = direction.vectors  # [C]
    found = find(generator, layer, query, spec(12), store=store, ranks=2)
    assert not found.exact
    assert found.sure >= 2
    assert found.top(2) == matches(generator, layer, query, spec(12)).top(2)

    view = generator.with_rules(scaling_rule(generator, direction, known.second_moment, alpha=0))
    drawn, left = (
        torch.einsum("oc...,c->o...", one.weight(layer).double(), direction.pattern(known.second_moment)[0])
        for one in (generator, view)
    )
    assert left.norm() < 1e-5 * drawn.norm()
    assert not torch.equal(view.sample(spec(2)), generator.sample(spec(2)))


def refusal(attempt: Callable[[], Any]) -> str:
    """The one line with which it is refused."""
    with pytest.raises((FileError, RequestError)) as refused:
        attempt()
    assert "\n" not in str(refused.value)
    return str(refused.value)


CHECKS = {
    "open": opens,
    "statistics": statistics,
    "search": search,
    "rewrite": rewrite,
    "export_safetensors": export_safetensors,
    "export_own": export_own,
    "w_space": w_space,
    "projection": projection,
    "dissection": dissection,
    "directions": directions,
}
FILES = [
    pytest.param(row, suffix, id=f"{row.family}, {row.layout.replace('`', '')}, {suffix}")
    for row in ROWS
    for suffix in row.suffixes
]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("row", "suffix"), FILES)
def test_a_cell_says_what_becomes_of_such_a_file(
    row: Row, suffix: str, column: str, opened: Opened, tmp_path: Path
):
    CHECKS[column](opened(row, suffix), row, suffix, row.cells[column], tmp_path)


def test_every_family_and_every_ending_has_its_rows():
    assert {row.family for row in ROWS} == {family.name for family in FAMILIES}
    assert {suffix for row in ROWS for suffix in row.suffixes} == set(SUFFIXES)
    assert len({(row.family, row.layout) for row in ROWS}) == len(ROWS)


# The command, and the docs


def test_the_docs_hold_the_table_that_the_command_writes():
    written = CliRunner().invoke(main, ["models", "--families", "--markdown"]).stdout
    assert written == families_markdown() + "\n"
    shown = TABLE.search(PAGE.read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[1].strip() == written.strip(), (
        "put what palimpsest models --families --markdown writes there"
    )


def test_the_command_answers_with_every_cell():
    rows = answer("models", "--families")
    assert len(rows) == len(ROWS)
    assert all(list(row) == ["family", "layout", "files", *COLUMNS] for row in rows)
    (keras,) = (row for row in rows if row["files"] == [".h5", ".hdf5"])
    assert keras["open"] == {"supported": True, "note": "needs h5py"}
    assert not keras["export_own"]["supported"]
    assert "not written" in keras["export_own"]["note"]
    assert "`" not in json.dumps(rows)


def test_the_table_for_a_terminal_has_a_line_for_each_layout_and_each_note():
    text = CliRunner().invoke(main, ["models", "--families"]).stdout
    table, notes = text.strip("\n").split("\n\n")
    header, *lines = table.splitlines()
    assert all(heading in header for heading in HEADINGS.values())
    assert len(lines) == len(ROWS)
    said = {cell.note.replace("`", "") for row in ROWS for cell in row.cells.values() if cell.note}
    assert {line.partition(") ")[2] for line in notes.splitlines()} == said


@pytest.mark.parametrize(
    "options", [["--markdown"], ["--families", "--markdown", "--json"], ["--families", "anime64-dcgan"]]
)
def test_options_that_contradict_each_other_are_mistakes(options: list[str]):
    assert CliRunner().invoke(main, ["models", *options]).exit_code == 2
