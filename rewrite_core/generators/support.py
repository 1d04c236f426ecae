"""What can be done with which checkpoint: family × layout × support, as the docs print it and the tests prove it.

The layouts are listed in `ROWS`; whether something works with one of them is looked up where the code decides it: the
readers of files (`SUFFIXES`), the endings that are written anew (`WRITTEN`), and the class of generator that the family
opens. What the protocol asks of every `Generator` works with all of them. A new column is a line in `COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_type_hints

from rewrite_core.generators.checkpoint import FAMILIES, SUFFIXES
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.layout import WRITTEN

__all__ = ["COLUMNS", "ROWS", "Cell", "Row"]

NETWORK_PICKLE = ".pkl"
"""Ending of the files that are written by changing numbers in a copy."""
OUR_EXPORT = "`model.json` and `model.safetensors`"
STATE_DICT = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class Cell:
    """Whether something works; `note`: under what condition, how, or why not, in a few words, names set as code."""

    supported: bool
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One way in which checkpoints of a family are laid out.

    Attributes:
        family: its name in `FAMILIES`.
        layout: in a few words, with names set as code.
        suffixes: of the file with the tensors.
        needs: what must be there for it to open, beside the file.
    """

    family: str
    layout: str
    suffixes: tuple[str, ...]
    needs: str = ""

    @property
    def generator(self) -> type[Generator]:
        """The class that the family opens."""
        family = next(family for family in FAMILIES if family.name == self.family)
        opened: type[Generator] = get_type_hints(family.open)["return"]
        return opened

    @property
    def has_styles(self) -> bool:
        """Whether there is a mapping network, and so a space W."""
        return self.generator.styles is not Generator.styles

    @property
    def cells(self) -> dict[str, Cell]:
        """A cell for each of `COLUMNS`."""
        return {column: cell(self) for column, cell in COLUMNS.items()}


def _open(row: Row) -> Cell:
    return Cell(set(row.suffixes) <= set(SUFFIXES), row.needs)


def _any_generator(_: Row) -> Cell:
    return Cell(True)


def _export_own(row: Row) -> Cell:
    if set(row.suffixes) <= set(WRITTEN):
        return Cell(True)
    if row.suffixes == (NETWORK_PICKLE,):
        return Cell(True, "in a copy of the file, which must still be where it was opened")
    return Cell(False, f"{' and '.join(f'`{suffix}`' for suffix in row.suffixes)} are not written")


def _w_space(row: Row) -> Cell:
    return Cell(True) if row.has_styles else Cell(False, "there is no mapping network")


def _projection(row: Row) -> Cell:
    return Cell(True) if row.has_styles else Cell(True, "in z alone")


COLUMNS: Mapping[str, Callable[[Row], Cell]] = {
    "open": _open,
    "statistics": _any_generator,
    "search": _any_generator,
    "rewrite": _any_generator,
    "export_safetensors": _any_generator,
    "export_own": _export_own,
    "w_space": _w_space,
    "projection": _projection,
    "dissection": _any_generator,
    "directions": _any_generator,
}
"""What may be done → what becomes of it with the checkpoints of a row."""

ROWS = (
    Row("stylegan2", "rosinality: `g_ema` and `latent_avg`, or the state dict alone", STATE_DICT),
    Row("stylegan2", "sequential, of the published code", STATE_DICT),
    Row("stylegan2", OUR_EXPORT, (".safetensors",)),
    Row("stylegan2-ada", "network pickle, PyTorch line", (NETWORK_PICKLE,)),
    Row("stylegan2-ada", "network pickle, TensorFlow line", (NETWORK_PICKLE,)),
    Row("stylegan2-ada", OUR_EXPORT, (".safetensors",)),
    Row("stylegan3", "network pickle, PyTorch line", (NETWORK_PICKLE,)),
    Row("stylegan3", OUR_EXPORT, (".safetensors",)),
    Row("proggan", "state dict of the published code", STATE_DICT),
    Row("proggan", OUR_EXPORT, (".safetensors",)),
    Row("sequential", "`model.json` and the tensors", STATE_DICT),
    Row("sequential", "Keras model that is one chain", (".h5", ".hdf5"), "needs h5py"),
    Row(
        "dcgan", "bare state dict", STATE_DICT, "if its tensors leave nothing open, else with a `model.json`"
    ),
)
"""Every layout that opens."""
