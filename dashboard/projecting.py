"""A picture of the visitor's own as the open generator draws it: reading it, the search as a job, what came of it.

    picture = read_picture(content, "mine.png")
    job = jobs().submit(visitor, "Projecting", projecting(generator, picture, "mine", space="w", steps=300))
    job.result.under(session.edited())       # the same latents with the rules that are on

The search is `rewrite_core.generators.projection`, as `palimpsest project` makes it: on the generator without rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import streamlit as st

from rewrite_core.generators import Generator
from rewrite_core.generators.projection import Projection, Space, project
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture

__all__ = ["Projected", "projecting", "spaces"]


@dataclass(frozen=True, eq=False)
class Projected:
    """A projection, under the `name` of the picture's file, and the file of its latents (safetensors)."""

    name: str
    found: Projection
    file: bytes

    def under(self, view: Generator) -> Picture:
        """What the latents are drawn as by a view of the generator, [H, W, 3]; drawn once for each view."""
        return _drawn(view.fingerprint, self.file, view, self.found)


def spaces(generator: Generator) -> list[Space]:
    """Where latents can be searched, the usual one first."""
    return ["w", "w+", "z"] if generator.styles else ["z"]


def projecting(
    generator: Generator, picture: Picture, name: str, *, space: Space | None, steps: int
) -> Callable[[Progress], Projected]:
    """The search for the latents of `picture`, as the work of a job."""

    def work(progress: Progress) -> Projected:
        found = project(generator, picture, space=space, steps=steps, progress=progress)
        return Projected(name, found, _latents_file(found, generator))

    return work


def _latents_file(found: Projection, generator: Generator) -> bytes:
    """What `palimpsest project --out` writes."""
    with TemporaryDirectory() as folder:
        place = Path(folder) / "latents.safetensors"
        found.save(place, generator)
        return place.read_bytes()


@st.cache_resource(max_entries=16, show_spinner=False)
def _drawn(fingerprint: str, file: bytes, _view: Generator, _found: Projection) -> Picture:
    """Drawn once for a view, which `fingerprint` stands for, and the latents in `file`."""
    picture: Picture = _view.draw(_found.latents(_view))[0]
    return picture
