"""The notebook in `docs/` runs from top to bottom, in order, in an empty folder, and is one that Jupyter opens.

Jupyter is not needed for that: a notebook is JSON, and its cells are Python without magics.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

NOTEBOOK = Path(__file__).parents[1] / "docs" / "rewriting.ipynb"
DATA: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CELLS: list[dict[str, Any]] = DATA["cells"]


def test_it_is_a_notebook_of_version_4_without_outputs():
    assert (DATA["nbformat"], DATA["nbformat_minor"]) == (4, 5)
    assert DATA["metadata"]["kernelspec"]["language"] == "python"
    assert set(DATA) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    for cell in CELLS:
        common = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert set(cell) == common | {"execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        else:
            assert (cell["cell_type"], set(cell)) == ("markdown", common)


def test_its_cells_run_in_order_and_show_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with matplotlib.rc_context({"backend": "agg"}):
        shown = [run("".join(cell["source"]), names) for cell in CELLS if cell["cell_type"] == "code"]
    figures = [one for one in shown if isinstance(one, Figure)]
    assert len(figures) == 6
    assert all(len(figure.axes) for figure in figures)
    solved = names["edit"].solved
    assert solved.loss < solved.loss_before
    before, after = (names[view].draw(names["fresh"]) for view in ("generator", "edited"))
    assert np.any(before != after, axis=(1, 2, 3)).all()
    effect = names["effect"]
    assert effect.inside.low > effect.outside.high
    assert names["made"].loss < names["made"].loss_before
    assert shown[-1] == ["eyes-direction.safetensors", "eyes.json", "eyes.pdf", "eyes.safetensors"]


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell in the namespace of those before it; the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    *rest, last = tree.body
    if not isinstance(last, ast.Expr):
        exec(compile(tree, NOTEBOOK.name, "exec"), names)
        return None
    exec(compile(ast.Module(rest, []), NOTEBOOK.name, "exec"), names)
    return eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)
