"""Rules that grow from 0 to their strength: what each frame shows, and the files it is written to."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from dissect.animation import BAR, FILLED, gif, mp4, strength_frames, there_and_back
from rewrite_core.errors import Cancelled, ModelMismatch, PalimpsestError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.pictures import Picture
from rewrite_core.rules.rule import RuleStack
from tests.generators import DOWN, PLAIN, UP, Demodulated, small_generator, some_rule, spec


def only_picture(frame: Picture, side: int = 16) -> Picture:
    """The one picture of a frame, at its own size."""
    shown = frame[: -BAR - 4]
    factor = len(shown) // side
    return shown[::factor, ::factor]


def moving(count: int = 6, size: tuple[int, int] = (20, 30)) -> Picture:
    """A square that grows on a background of many colours that stands still."""
    frames = np.tile(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), (count, 1, 1, 1))
    for number in range(count):
        frames[number, :8, : 2 + number] = (250, 20, 20)
    return frames


@pytest.mark.parametrize("generator", [small_generator(), Demodulated.small()], ids=lambda one: one.family)
@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN])
def test_it_goes_from_the_generator_as_it_is_to_all_rules_at_their_strength(generator: Generator, layer: str):
    rules = [some_rule(generator, layer).with_strength(0.5), some_rule(generator, PLAIN, seed=1)]
    frames = strength_frames(generator, rules, spec(1), frames=5)
    stack = RuleStack().push(rules[0]).push(rules[1])
    half = RuleStack().push(rules[0].with_strength(0.25)).push(rules[1].with_strength(0.5))
    assert np.array_equal(only_picture(frames[0]), generator.draw(spec(1))[0])
    assert np.array_equal(only_picture(frames[2]), generator.with_rules(half).draw(spec(1))[0])
    assert np.array_equal(only_picture(frames[4]), generator.with_rules(stack).draw(spec(1))[0])


def test_rules_beneath_are_on_all_the_time_at_any_layer():
    generator = small_generator()
    beneath, rule = some_rule(generator, DOWN, seed=3), some_rule(generator, UP)
    frames = strength_frames(generator, [rule], spec(1), frames=2, beneath=[beneath])
    assert np.array_equal(only_picture(frames[0]), generator.with_rules(beneath).draw(spec(1))[0])
    both = RuleStack().push(beneath).push(rule)
    assert np.array_equal(only_picture(frames[1]), generator.with_rules(both).draw(spec(1))[0])


def test_a_bar_tells_the_share_of_the_strength():
    frames = strength_frames(small_generator(), [some_rule(small_generator())], spec(3), frames=5)
    filled = (frames[:, -1] == FILLED).all(-1).mean(1)
    assert filled.tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.01)


def test_there_and_back_has_no_jump():
    loop = there_and_back(np.arange(5, dtype=np.uint8)[:, None, None, None], pause=2).ravel().astype(int)
    assert loop.tolist() == [0, 1, 2, 3, 4, 4, 4, 3, 2, 1, 0, 0]
    assert np.abs(np.diff([*loop, loop[0]])).max() <= 1


def test_a_gif_plays_all_frames_for_ever_and_is_the_same_again():
    frames = moving()
    content = gif(frames, rate=10)
    assert content == gif(frames, rate=10)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.info["loop"], image.info["duration"]) == (0, 100)
        shown = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])
    assert shown.shape == frames.shape
    assert np.abs(shown[:, :8, :2].astype(int) - frames[:, :8, :2]).max() < 16
    still = shown[:, 8:]
    assert (still == still[0]).all()  # nothing flickers


def test_an_mp4_without_ffmpeg_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PalimpsestError, match=r"no ffmpeg on the PATH.*Install it") as problem:
        mp4(moving())
    assert "\n" not in str(problem.value)


def test_what_ffmpeg_complains_of_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho first >&2\necho \"Unknown encoder 'libx264'\" >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(PalimpsestError, match="Unknown encoder 'libx264'") as problem:
        mp4(np.concatenate([moving(size=(200, 300))] * 5))  # more than a pipe holds, and nobody reads it
    assert "\n" not in str(problem.value)


def test_ffmpeg_is_given_raw_frames_of_even_sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\n{ echo "$@"; cat; } > "$last"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    frames = moving(3, (19, 31))
    asked, _, sent = mp4(frames, rate=10).partition(b"\n")
    assert b"rawvideo -pix_fmt rgb24 -s 32x20 -r 10 -i -" in asked
    found = np.frombuffer(sent, np.uint8).reshape(3, 20, 32, 3)
    assert np.array_equal(found[:, :19, :31], frames)
    assert np.array_equal(found[:, 19], found[:, 18])


@pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="no ffmpeg on the PATH: install Debian's package ffmpeg"
)
def test_an_mp4_is_one():
    content = mp4(moving(size=(20, 31)))
    assert content[4:8] == b"ftyp"
    assert content == mp4(moving(size=(20, 31)))


def test_progress_tells_frames_and_may_cancel():
    told = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        strength_frames(
            small_generator(), [some_rule(small_generator())], spec(2), frames=4, progress=progress
        )
    assert told == [(1, 4), (2, 4)]


def test_what_cannot_be_animated_is_refused():
    generator = small_generator()
    rules = [some_rule(generator)]
    for some, pictures, frames in (([], 2, 5), (rules, 0, 5), (rules, 65, 5), (rules, 2, 1)):
        with pytest.raises(RequestError):
            strength_frames(generator, some, spec(pictures), frames=frames)
    with pytest.raises(ModelMismatch):
        strength_frames(small_generator(1), rules, spec(2))
    for shown, rate in ((moving()[:0], 10.0), (moving(), 0.0), (moving(), 1000.0)):
        for write in (gif, mp4):
            with pytest.raises(RequestError):
                write(shown, rate)
