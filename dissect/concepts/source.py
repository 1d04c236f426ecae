"""A concept source: where the pixel labels come from that give units their meaning.

Every source is a `Labeller` (so any statistic can count with it, in the same pass over the samples) that also says for
which pictures it may be asked. A painted concept reads feature maps of the unedited generator, and label maps on disk
are of unedited samples; such a source may not judge an edit or an intervention, in whose pictures an erased eye would
still read as an eye. What measures those takes a source that sees pixels alone.

A new source is one file beside this one, and one line in `dissect.concepts.catalogue`.
"""

from __future__ import annotations

from typing import Protocol

from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator
from rewrite_core.statistics import Labeller

__all__ = ["ConceptSource", "require_pixels_only"]


class ConceptSource(Labeller, Protocol):
    """A labeller whose labels are concepts: hair, eyes, background, or the colour red."""

    @property
    def title(self) -> str:
        """What it is called on screen and in captions, such as ``painted: face32`` or ``colours``."""
        ...

    @property
    def pixels_only(self) -> bool:
        """Whether its labels depend on the pictures alone: then it may label edited ones too."""
        ...

    def check(self, generator: Generator) -> None:
        """See that it can label what `generator` draws; called before any sample is drawn.

        Raises:
            PalimpsestError: it was made for another generator, or for this one without its edits.
        """
        ...


def require_pixels_only(source: ConceptSource) -> None:
    """See that `source` may judge edited pictures.

    Raises:
        PalimpsestError: it may not.
    """
    if not source.pixels_only:
        raise PalimpsestError(
            found=f"the concepts '{source.title}', which know unedited samples only",
            expected="a source that sees pixels alone",
            remedy="Use a segmenter, colours, or these concepts distilled into a network that sees pixels.",
        )
