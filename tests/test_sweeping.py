"""A sweep: every cell is what `rewrite` gives there, its numbers are true of it, and what cannot be says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from dashboard.cli import main
from dissect.sweep_figure import numbers, sweep_caption, sweep_figure, swept_pictures
from rewrite_core import EditRequest, Rule, example_edit, layer_statistics, open_generator, rewrite
from rewrite_core.errors import Cancelled, LayerError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.sweeping import Sweep, sweep
from rewrite_core.statistics import LayerStatistics
from tests.generators import PLAIN, UP, painted, small_generator

LAYERS, RANKS = (PLAIN, UP), (1, 2)


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def statistics(small: Generator) -> dict[str, LayerStatistics]:
    return {layer: layer_statistics(small, layer, samples=50) for layer in LAYERS}


def asked(**changes: Any) -> EditRequest:
    context = (painted(1, 4, 4, 10, 10), painted(2, 6, 2, 12, 8))
    request = EditRequest(object=painted(0, 4, 6, 10, 12), paste=painted(1, 4, 4, 10, 10), key=context)
    return request.model_copy(update=changes)


@pytest.fixture(scope="module")
def found(small: Generator, statistics: dict[str, LayerStatistics]) -> Sweep:
    return sweep(small, asked(), LAYERS, RANKS, statistics_of=statistics.__getitem__, name="blue")


def test_every_cell_is_what_rewrite_gives_there(small, statistics, found):
    assert [(cell.layer, cell.rank) for cell in found.cells] == [(a, r) for a in LAYERS for r in RANKS]
    for cell in found.cells:
        request = asked(layer=cell.layer, rank=cell.rank)
        edit = rewrite(small, request, statistics=statistics[cell.layer], name="blue")
        assert cell.edit is not None
        assert cell.edit.rule.digest == edit.rule.digest
        assert cell.edit.rule.provenance == edit.rule.provenance.model_copy(
            update={"result": cell.edit.rule.provenance.result}
        )
        assert cell.share == edit.solved.loss / edit.solved.loss_before
        assert found.at(cell.layer, cell.rank) is cell


def test_generalisation_is_the_change_of_the_other_contexts_over_that_of_the_example(small, found):
    request = found.request
    for cell in found.solved:
        view = small.with_rules(cell.edit.rule)
        changes = []
        for region in (request.paste, request.key[1]):
            latents = latents_of(small, request, region.image)
            apart = (view.pictures(latents) - small.pictures(latents)).abs().mean((0, 1))
            area = region.mask.area(small.picture_size)
            changes.append(float((apart * area).sum() / area.sum()))
        assert cell.generalisation == pytest.approx(changes[1] / changes[0], rel=1e-4)
    assert found.contexts == 1


def test_without_another_context_there_is_nothing_to_generalise_to(small, statistics):
    request = asked(key=asked().key[:1])
    found = sweep(small, request, [PLAIN], [1], statistics_of=statistics.__getitem__)
    assert (found.contexts, found.cells[0].generalisation) == (0, 0.0)
    assert numbers(found.cells[0], found.contexts) == numbers(found.cells[0], 1)[:2]


@pytest.mark.parametrize("operation", ["erase", "remove"])
def test_an_erasure_and_a_removal_are_swept_with_their_first_context_as_the_example(
    small, statistics, operation
):
    request = asked(operation=operation, object=None, paste=None, erase_units=250)
    found = sweep(small, request, [PLAIN], [1], statistics_of=statistics.__getitem__)
    assert found.solved
    assert found.contexts == 1
    assert found.cells[0].generalisation > 0


def test_what_cannot_be_solved_says_why_in_its_cell_and_leaves_no_gap_in_the_table(small, statistics):
    found = sweep(small, asked(), [PLAIN], [1, 4000], statistics_of=statistics.__getitem__)
    assert found.at(PLAIN, 4000).edit is None
    assert "rank 4000" in found.at(PLAIN, 4000).problem
    assert list(found.table()["rank"]) == [1]
    assert not found.table().isna().any(axis=None)
    assert list(found.problems()["rank"]) == [4000]


def test_layers_and_ranks_count_once_and_have_to_be_there(small, statistics):
    found = sweep(small, asked(), [PLAIN, PLAIN], [1, 1], statistics_of=statistics.__getitem__)
    assert len(found.cells) == 1
    for layers, ranks, error in (
        (["l99"], [1], LayerError),
        ([], [1], RequestError),
        ([PLAIN], [], RequestError),
        ([PLAIN], [0], RequestError),
    ):
        with pytest.raises(error):
            sweep(small, asked(), layers, ranks, statistics_of=statistics.__getitem__)
    with pytest.raises(RequestError, match="Paint"):
        sweep(small, asked(key=()), [PLAIN], [1], statistics_of=statistics.__getitem__)


def test_it_can_be_cancelled_while_a_cell_is_solved(small, statistics):
    calls = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 1 and calls.count((1, 4)) == 3:  # the second cell's solver is at work
            raise Cancelled

    with pytest.raises(Cancelled):
        sweep(small, asked(), LAYERS, RANKS, statistics_of=statistics.__getitem__, progress=progress)
    assert max(done for done, _ in calls) == 1


def test_the_figure_has_a_picture_without_and_with_the_rule_for_every_cell(small, statistics, found):
    request = asked()
    partly = sweep(small, request, [PLAIN], [1, 4000], statistics_of=statistics.__getitem__)
    before, after = swept_pictures(small, partly, 1)
    assert list(after) == [(PLAIN, 1)]
    (axes,) = sweep_figure(partly, before, after, "Layers by ranks").axes
    assert len(axes.images) == 2
    said = {text.get_text() for text in axes.texts}
    assert {"rank 1", "rank 4000", PLAIN, "—", *numbers(partly.cells[0], 1)} <= said
    assert "1 other painted context" in sweep_caption(small, partly, 1)
    many = sweep(small, request, [PLAIN], range(100, 130), statistics_of=statistics.__getitem__)
    with pytest.raises(RequestError, match="ranks in one figure"):
        sweep_figure(many, before, {}, width="column")


def test_the_command_writes_table_figure_and_every_rule(tmp_path: Path):
    line = [
        "sweep",
        "blue-eyes",
        "--layers",
        "l05,l08",
        "--ranks",
        "1,2",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    result = CliRunner().invoke(main, line, prog_name="palimpsest")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [(cell["layer"], cell["rank"]) for cell in answer["cells"]] == [
        ("l05", 1), ("l05", 2), ("l08", 1), ("l08", 2),
    ]  # fmt: skip
    names = {Path(name).name for name in answer["files"]}
    assert {"sweep.csv", "sweep.png", "sweep.svg", "sweep.pdf"} < names
    rule = Rule.load(tmp_path / "out" / "l08-rank2.safetensors")
    generator = open_generator("anime64-dcgan")
    same = rewrite(generator, example_edit("blue-eyes").model_copy(update={"layer": "l08", "rank": 2}))
    assert torch.allclose(rule.change(), same.rule.change(), atol=1e-6)
    assert answer["cells"][3]["digest"] == rule.digest


def test_the_command_refuses_a_layer_that_there_is_not():
    result = CliRunner().invoke(main, ["sweep", "blue-eyes", "--layers", "l99"], prog_name="palimpsest")
    assert result.exit_code == 1
    assert "l99" in result.output
