"""What `palimpsest edit` draws of an edit: the figure in the paper's layout, and the animation of its strength."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dashboard.commands.console import progress
from dashboard.commands.output import Output, require_drawable, require_place
from rewrite_core.errors import FileError

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core import EditRequest, Generator, LatentSpec, Rule, RuleStack

__all__ = ["FILMS", "draw_animation", "draw_figure", "film_path"]

FILMS = (".gif", ".mp4")


def film_path(path: Path | None) -> Path | None:
    """The path of an animation, before any work.

    Raises:
        FileError: it ends otherwise, or cannot be written.
    """
    if path is None:
        return None
    if path.suffix.lower() not in FILMS:
        raise FileError(
            found=f"'{path}' to write an animation to",
            expected="a file ending in .gif or .mp4",
            remedy="Choose another name.",
        )
    require_place(path)
    return path


def draw_figure(
    out: Output,
    generator: Generator,
    request: EditRequest,
    rules: Sequence[Rule],
    spec: LatentSpec,
    width: Width,
    quiet: bool,
) -> list[str]:
    """What was painted over pictures before and after, and its caption beside it as ``.txt``; the files' names."""
    from dissect.edit_figures import edit_caption, edit_figure
    from dissect.edit_pictures import edited_pairs, painted_edit
    from dissect.figures import save_figure
    from rewrite_core.files import write_bytes

    require_drawable(len(spec))
    with progress("Drawing the figure", quiet):
        pairs = edited_pairs(generator, generator.with_rules(_stack(rules)), spec)
        figure = edit_figure(painted_edit(generator, request), pairs, rules[-1].name, width=width)
    save_figure(figure, out.path)
    caption = out.path.with_suffix(".txt")
    write_bytes(caption, f"{edit_caption(generator, rules[-1], spec)}\n".encode())
    return [str(out.path), str(caption)]


def draw_animation(
    path: Path, generator: Generator, rules: Sequence[Rule], spec: LatentSpec, quiet: bool
) -> str:
    """Pictures while the rules grow from nothing to their strength and shrink again; the file's name.

    Raises:
        RequestError: too many pictures.
        PalimpsestError: there is no ffmpeg for an MP4, or it fails.
    """
    from dissect.animation import gif, mp4, strength_frames, there_and_back
    from rewrite_core.files import write_bytes

    with progress("Drawing the animation", quiet) as advance:
        frames = there_and_back(strength_frames(generator, rules, spec, progress=advance))
    write_bytes(path, gif(frames) if path.suffix.lower() == ".gif" else mp4(frames))
    return str(path)


def _stack(rules: Sequence[Rule]) -> RuleStack:
    from rewrite_core import RuleStack

    stack = RuleStack()
    for rule in rules:
        stack = stack.push(rule)
    return stack
