"""Rules that grow from nothing to their strength before one's eyes: an animation as GIF, or as MP4 through ffmpeg.

    frames = there_and_back(strength_frames(generator, stack.active, LatentSpec.of(range(8))))  # uint8 [F, H, W, 3]
    write_bytes(Path("edit.gif"), gif(frames))
    write_bytes(Path("edit.mp4"), mp4(frames))

Each frame shows the pictures with the rules at one share of their strength, from 0 to 1, over a bar that tells it.
Rules beneath stay as they are. Below the first layer that the rules change, everything is computed once.

A GIF has 256 colours. They are chosen once for all frames, so that nothing flickers that does not change; the same
frames give the same bytes. An MP4 (H.264) has all colours; ffmpeg is not part of Palimpsest, and is looked for on the
PATH.
"""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.pictures import Picture, enlarge, grid, to_uint8
from rewrite_core.rules.rule import Rule, RuleStack

__all__ = ["FRAMES", "PICTURES", "RATE", "gif", "mp4", "strength_frames", "there_and_back"]

FRAMES, RATE = 25, 12
"""From nothing to the rules' strength; and how many a second."""
PICTURES = 64
"""In a frame, at most: they are all kept at the layer."""
PAUSE = 8
"""Frames for which either end stands still."""
WIDE, BAR = 512, 8
"""Pixels that small pictures fill together, about; and of the bar below them."""
PALETTE = 12
"""Frames, evenly spaced, from which the colours of a GIF are chosen."""
FILLED, EMPTY = (181, 56, 76), (221, 221, 221)


@torch.no_grad()
def strength_frames(
    generator: Generator,
    rules: Sequence[Rule],
    spec: LatentSpec,
    *,
    frames: int = FRAMES,
    columns: int | None = None,
    beneath: Sequence[Rule] = (),
    progress: Progress | None = None,
) -> Picture:
    """Frames [F, H, W, 3] of the pictures of `spec`, with `rules` at shares of their strength from 0 to 1.

    The last frame shows what a stack of `beneath` and `rules` draws, the first what `beneath` draws alone.

    Args:
        generator: whose pictures; of a view, the rules that it is viewed through do not count.
        rules: those that grow, each in proportion to its own strength.
        spec: the pictures.
        frames: how many.
        columns: pictures beside each other; about twice as many as there are rows, if not given.
        beneath: rules that are on all the time.
        progress: called with the frames drawn.

    Raises:
        RequestError: no rule; no picture, or too many; or fewer than 2 frames.
        ModelMismatch, LayerError: a rule was not made for this generator.
        Cancelled: from `progress`.
    """
    _require_some(rules, spec, frames)
    first = min((rule.layer for rule in rules), key=list(generator.layers).index)
    steady = generator.with_rules(_stack(beneath))
    stopped = [steady.keys(steady.latents(block), first) for block in spec.blocks(generator.micro_batch)]
    across = columns or math.ceil(len(spec) / max(1, round((len(spec) / 2) ** 0.5)))
    drawn = []
    for number, share in enumerate(np.linspace(0, 1, frames).tolist(), 1):
        grown = [rule.with_strength(share * rule.strength) for rule in rules]
        view = generator.with_rules(_stack([*beneath, *grown]))
        pictures = np.concatenate([to_uint8(view.render(at, view.values(at))) for at in stopped])
        drawn.append(_frame(pictures, across, share))
        if progress:
            progress(number, frames)
    return np.stack(drawn)


def there_and_back(frames: Picture, pause: int = PAUSE) -> Picture:
    """The frames forwards, standing still at the end, then backwards and still again: a loop without a jump."""
    count = len(frames)
    order = [*range(count), *[count - 1] * pause, *range(count - 2, 0, -1), *[0] * pause]
    return frames[order]


def gif(frames: Picture, rate: float = RATE) -> bytes:
    """Frames [F, H, W, 3] as an endless GIF, `rate` of them a second.

    Raises:
        RequestError: there is no frame, or a rate at which none would be seen.
    """
    _require_frames(frames, rate)
    chosen = np.linspace(0, len(frames) - 1, min(PALETTE, len(frames))).round().astype(int)
    colours = Image.fromarray(np.concatenate(frames[chosen])).quantize(256, Image.Quantize.MEDIANCUT)
    images = [Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    duration = round(1000 / rate)  # in milliseconds
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return file.getvalue()


def mp4(frames: Picture, rate: float = RATE) -> bytes:
    """Frames [F, H, W, 3] as an MP4 (H.264, every player's 4:2:0), `rate` of them a second.

    Raises:
        RequestError: there is no frame, or a rate at which none would be seen.
        PalimpsestError: there is no ffmpeg, or it fails; saying what it said.
    """
    _require_frames(frames, rate)
    program = shutil.which("ffmpeg")
    if program is None:
        raise PalimpsestError(
            found="no ffmpeg on the PATH",
            expected="one, to write an MP4",
            remedy="Install it (Debian's package ffmpeg, Homebrew's ffmpeg), or save a GIF.",
        )
    even = np.pad(frames, ((0, 0), *[(0, side % 2) for side in frames.shape[1:3]], (0, 0)), "edge")
    height, width = even.shape[1:3]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "animation.mp4")  # a pipe will not do: its index is written last
        asked = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            f"{rate:g}",
            "-i",
            "-",
        ]
        kept = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "16", "-movflags", "+faststart"]
        same = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
        command = [program, "-v", "error", "-y", *asked, *kept, *same, str(target)]
        done = subprocess.run(command, input=even.tobytes(), capture_output=True, check=False)
        if done.returncode or not target.is_file():
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
            raise PalimpsestError(
                found=f"ffmpeg that says: {said[-1]}",
                expected="an MP4",
                remedy="Install an ffmpeg with libx264, or save a GIF.",
            )
        return target.read_bytes()


def _frame(pictures: Picture, columns: int, share: float) -> Picture:
    """Pictures [N, H, W, 3] in a grid, small ones enlarged, over a bar that is filled so far."""
    columns = min(columns, len(pictures))
    factor = max(1, WIDE // (columns * pictures.shape[2]))
    page = grid(enlarge(pictures, factor), columns, pad=4)
    bar = np.full((BAR, page.shape[1], 3), EMPTY, dtype=np.uint8)
    bar[:, : round(share * page.shape[1])] = FILLED
    space = np.full((4, page.shape[1], 3), 255, dtype=np.uint8)
    return np.concatenate([page, space, bar])


def _stack(rules: Sequence[Rule]) -> RuleStack:
    stack = RuleStack()
    for rule in rules:
        stack = stack.push(rule)
    return stack


def _require_some(rules: Sequence[Rule], spec: LatentSpec, frames: int) -> None:
    if not rules:
        raise RequestError(found="no rule", expected="at least one that grows", remedy="Switch one on.")
    if not 1 <= len(spec) <= PICTURES:
        raise RequestError(
            found=f"{len(spec)} pictures", expected=f"from 1 to {PICTURES}", remedy="Name other seeds."
        )
    if frames < 2:
        raise RequestError(found=f"{frames} frames", expected="at least 2", remedy=f"{FRAMES} run smoothly.")


def _require_frames(frames: Picture, rate: float) -> None:
    if not len(frames) or not 0.1 <= rate <= 60:
        raise RequestError(
            found=f"{len(frames)} frames, {rate:g} a second",
            expected="at least one, and 0.1 to 60 a second",
            remedy=f"{RATE} a second run smoothly.",
        )
