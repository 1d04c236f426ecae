"""A picture of the visitor's own as the open generator draws it: reading it, the search as a job, what came of it.

    picture = read_picture(content, "mine.png")
    job = jobs().submit(visitor, "Projecting", projecting(generator, picture, "mine", space="w", steps=300))
    session.take(job.result)                 # from now on one of the pictures that can be painted on

The search is `rewrite_core.generators.projection`, as `palimpsest project` makes it: on the generator without rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rewrite_core.generators import Generator
from rewrite_core.generators.own import OwnPicture
from rewrite_core.generators.projection import Projection, Space, project
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture

__all__ = ["Projected", "projecting", "spaces"]


@dataclass(frozen=True, eq=False)
class Projected:
    """A projection, as a picture under the name of the picture's file, and the file of its latents (safetensors)."""

    own: OwnPicture
    found: Projection
    file: bytes


def spaces(generator: Generator) -> list[Space]:
    """Where latents can be searched, the usual one first."""
    return ["w", "w+", "z"] if generator.styles else ["z"]


def projecting(
    generator: Generator, picture: Picture, name: str, *, space: Space | None, steps: int
) -> Callable[[Progress], Projected]:
    """The search for the latents of `picture`, as the work of a job."""

    def work(progress: Progress) -> Projected:
        found = project(generator, picture, space=space, steps=steps, progress=progress)
        return Projected(found.named(name), found, _latents_file(found, generator))

    return work


def _latents_file(found: Projection, generator: Generator) -> bytes:
    """What `palimpsest project --out` writes."""
    with TemporaryDirectory() as folder:
        place = Path(folder) / "latents.safetensors"
        found.save(place, generator)
        return place.read_bytes()
