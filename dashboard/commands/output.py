"""What commands write: figures, folders of pictures, files; whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dashboard.commands.console import progress
from rewrite_core.errors import FileError, RequestError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from dissect.figures import Width
    from rewrite_core.generators import Generator, LatentSpec

__all__ = [
    "Output",
    "draw",
    "make_folder",
    "require_apart",
    "require_drawable",
    "require_folder",
    "require_free",
    "require_place",
    "write_figure",
    "write_table",
]

FIGURES = (".png", ".svg", ".pdf")
MOST = 1024
"""Pictures in one figure, at most."""


@dataclass(frozen=True)
class Output:
    """Where pictures go: a figure, by its ending, or a folder of PNG files."""

    path: Path
    figure: bool

    @classmethod
    def at(cls, text: str, folder: bool) -> Output:
        """What `text` names; a folder ends with a slash, exists, or has no ending.

        Raises:
            FileError: it is neither, or it cannot be written there.
        """
        path = Path(text)
        if path.suffix.lower() in FIGURES:
            require_place(path)
            return cls(path, figure=True)
        if folder and (text.endswith("/") or path.is_dir() or not path.suffix):
            require_folder(path)
            return cls(path, figure=False)
        raise FileError(
            found=f"'{text}' to write pictures to",
            expected="a file ending in .png, .svg or .pdf" + (", or a folder" if folder else ""),
            remedy="Choose another name.",
        )


def require_place(path: Path) -> None:
    """Check that a file can be put there, before the work whose result it is to hold.

    Raises:
        FileError: its folder is missing, or the name is a folder's.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise FileError(
            found=f"{path} is a folder" if path.is_dir() else f"no folder {path.parent} for {path.name}",
            expected="the path of a file in a folder that exists",
            remedy="Choose another name, or make the folder.",
        )


def require_folder(path: Path) -> None:
    """Check that `path` is a folder or can become one; it is made when there is something to put in it.

    Raises:
        FileError: it is a file, lies below one, or cannot be made.
    """
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise FileError(
            found=f"{there} is {'read-only' if there.is_dir() else 'a file'}",
            expected="a folder that can be written, or a name that is free",
            remedy="Choose another name.",
        )


def require_free(places: Iterable[Path], force: bool) -> None:
    """Refuse to write a model over files that are there, unless forced.

    Raises:
        FileError: naming the first.
    """
    there = [place for place in places if place.exists()]
    if there and not force:
        raise FileError(
            found=f"{there[0]}, which is there already",
            expected="a name that is free",
            remedy="Choose another name, or replace it with --force.",
        )


def require_apart(place: Path, model: str | None) -> None:
    """Refuse to write a model over `model`, or among the files that ship with Palimpsest; a folder, or one file.

    Raises:
        FileError: saying which.
    """
    from rewrite_core import embedded_names
    from rewrite_core.resources import resource_dir

    held = ""
    if place.resolve().is_relative_to(resource_dir("data").resolve()):
        held = "which belongs to Palimpsest"
    elif model and place.exists() and Path(model).exists() and model not in embedded_names():
        source = Path(model)
        if place.is_file():
            sources = [source] if source.is_file() else [path for path in source.iterdir() if path.is_file()]
        else:
            sources = [source.parent if source.is_file() else source]
        if any(place.samefile(path) for path in sources):
            held = "which holds the model itself"
    if held:
        raise FileError(
            found=f"{place}, {held}",
            expected="another place for what is written",
            remedy="Choose another name.",
        )


def require_drawable(pictures: int, remedy: str = "Name fewer.") -> None:
    """Refuse more pictures than one figure can show.

    Raises:
        RequestError: saying how many it can.
    """
    if pictures > MOST:
        raise RequestError(
            found=f"{pictures:,} pictures in one figure", expected=f"at most {MOST:,}", remedy=remedy
        )


def make_folder(path: Path) -> Path:
    """The folder at `path`, made if need be.

    Raises:
        FileError: it cannot be made.
    """
    from rewrite_core import files  # brings torch

    return files.make_folder(path)


def draw(
    out: Output, generators: Mapping[str, Generator], spec: LatentSpec, width: Width, quiet: bool
) -> list[str]:
    """Draw `spec` by one generator, or by two called "before" and "after", and name the files written.

    In a folder a picture is called by its seed; before and after are folders of their own.
    """
    if not out.figure:
        return [
            path
            for word, generator in generators.items()
            for path in _files(out, word, generator, spec, quiet)
        ]
    require_drawable(len(spec), "Name fewer, or write them to a folder.")
    from dissect.figures import grid_figure, pair_figure, save_figure

    strips = []
    for word, generator in generators.items():
        with progress(f"Drawing {word}".strip(), quiet) as advance:
            strips.append(generator.draw(spec, advance))
    if len(strips) == 2:
        figure = pair_figure(strips[0], strips[1], spec.seeds, width=width)
    else:
        figure = grid_figure(strips[0], spec.seeds, width=width)
    save_figure(figure, out.path)
    return [str(out.path)]


def write_figure(stem: Path, figure: Figure) -> list[str]:
    """A figure as PNG, SVG and PDF, called `stem` with these endings; the names of the files."""
    from dissect.figures import save_figure

    paths = [stem.with_name(stem.name + ending) for ending in FIGURES]
    for path in paths:
        save_figure(figure, path)
    return list(map(str, paths))


def write_table(stem: Path, table: pd.DataFrame) -> str:
    """A table as CSV, called `stem` with that ending; the name of the file."""
    from rewrite_core.files import write_bytes

    path = stem.with_name(stem.name + ".csv")
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())
    return str(path)


def _files(out: Output, word: str, generator: Generator, spec: LatentSpec, quiet: bool) -> Iterator[str]:
    """Draw into the folder a micro-batch at a time, however many there are."""
    from rewrite_core.files import write_bytes
    from rewrite_core.generators import MICRO_BATCH
    from rewrite_core.pictures import encode_png

    folder = make_folder(out.path / word)
    with progress(f"Drawing {word}".strip(), quiet) as advance:
        done = 0
        for block in spec.blocks(MICRO_BATCH):
            for seed, picture in zip(block.seeds, generator.draw(block), strict=True):
                path = folder / f"seed{seed:07d}.png"
                write_bytes(path, encode_png(picture))
                yield str(path)
            done += len(block)
            if advance:
                advance(done, len(spec))
