"""A concept file while it is painted: a value with a history, which does not know how it is shown.

    painting = Painting.of(file)
    painting = painting.stroked(mask)             # what is on the canvas by now
    painting = painting.turned(concept="eyes")    # from here on the canvas is empty again
    painting = painting.changed(painting.file.with_concept("mouth"))
    painting = painting.undone().redone()

A canvas keeps its strokes for as long as the picture under it stays the same. So what lies under it is the file as it
was when the canvas was last empty (`base`), and the file is always `base` with what is on the canvas now. Whoever calls
anything but `stroked` has to empty the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.distilled import DistilledConcepts
from dissect.concepts.painted import PaintedConcepts
from dissect.concepts.strokes import UNKNOWN, Strokes
from rewrite_core.errors import PalimpsestError
from rewrite_core.pictures import Colour, Mask, Picture

__all__ = ["SUGGESTED", "Painting", "tinted"]

SUGGESTED = 12
"""Pictures that are offered to be painted on."""
STEPS = 32
"""Changes that can be taken back."""


@dataclass(frozen=True, eq=False)
class Painting:
    """What one visitor paints.

    Attributes:
        file: the concepts and strokes, with those on the canvas.
        base: the same without those on the canvas.
        past: what Undo brings back, the newest last; `future` what Redo does, the next one last.
        seed: the picture on the canvas.
        concept: the one that strokes are of; empty while there is none.
        erasing: whether strokes erase.
        wanted: the file that was last asked to be learned.
        learned: what was last learned.
        teacher: what was last asked to be distilled, and `distilled` what came of it, once it has.
        problem: why the last change was refused; empty after any other.
    """

    file: ConceptFile
    base: ConceptFile
    past: tuple[ConceptFile, ...] = ()
    future: tuple[ConceptFile, ...] = ()
    seed: int = 0
    concept: str = ""
    erasing: bool = False
    wanted: ConceptFile | None = None
    learned: PaintedConcepts | None = None
    teacher: PaintedConcepts | None = None
    distilled: DistilledConcepts | None = None
    problem: str = ""

    @classmethod
    def of(cls, file: ConceptFile) -> Self:
        """Begin with `file`; what was learned from it is there to be seen."""
        return cls(file, file, wanted=file if file.learned else None)._settled()

    # What there is.

    @property
    def current(self) -> bool:
        """Whether what was last learned was learned from exactly these strokes."""
        return self.learned is not None and self.learned.file.digest == self.file.digest

    @property
    def lacking(self) -> bool:
        """Whether what was last asked to be learned is still to come."""
        wanted = self.wanted
        return wanted is not None and (self.learned is None or self.learned.file.digest != wanted.digest)

    @property
    def pixels(self) -> int:
        """How many pixels are painted on all pictures."""
        return sum(int(np.count_nonzero(some.labels != UNKNOWN)) for some in self.file.strokes)

    @property
    def here(self) -> int:
        """How many pixels of the chosen concept are painted on this picture."""
        if not self.concept:
            return 0
        return int(np.count_nonzero(self.file.on(self.seed).labels == self.file.number(self.concept)))

    @property
    def suggested(self) -> tuple[int, ...]:
        """Pictures to paint on: those that are painted, filled up with the first ones."""
        seeds = [*self.file.seeds, *range(SUGGESTED)]
        return tuple(dict.fromkeys(seeds))[:SUGGESTED]

    # What can be done with it.

    def stroked(self, mask: NDArray[np.bool_]) -> Self:
        """The same with these strokes [H, W], of any size, on the canvas."""
        if not (mask.any() and (self.concept or self.erasing)):
            return self._pushed(self.base)
        strokes = Mask.from_array(mask).resized(self.file.size)
        if self.erasing:
            return self._pushed(self.base.erased(self.seed, strokes))
        return self._pushed(self.base.with_stroke(self.seed, self.concept, strokes))

    def turned(
        self, *, seed: int | None = None, concept: str | None = None, erasing: bool | None = None
    ) -> Self:
        """The same on another picture, with another concept, or with the eraser."""
        return replace(
            self,
            base=self.file,
            seed=self.seed if seed is None else seed,
            concept=self.concept if concept is None else concept,
            erasing=self.erasing if erasing is None else erasing,
            problem="",
        )

    def changed(self, file: ConceptFile, concept: str = "") -> Self:
        """The same with another file, and one of its concepts chosen."""
        return replace(self._pushed(file), base=file, concept=concept or self.concept)._settled()

    def taught(self) -> Self:
        """The same with what was last learned to be distilled."""
        return replace(self, teacher=self.learned, distilled=None, problem="")

    def distilling(self, distilled: DistilledConcepts) -> Self:
        """The same with what came of it."""
        return replace(self, distilled=distilled)

    def cleared(self) -> Self:
        """The same with nothing on this picture."""
        return self.changed(self.file.erased(self.seed))

    def without(self, concept: str) -> Self:
        """The same without a concept and its strokes; as it is if there is none of that name any more."""
        return self.changed(self.file.without(concept)) if concept in self.file.concepts else self

    def refused(self, problem: PalimpsestError) -> Self:
        """The same, and why a change was refused."""
        return replace(self, problem=str(problem))

    def undone(self) -> Self:
        """The same before the last change; nothing happens where there was none."""
        return self._moved(self.past[:-1], (*self.future, self.file), self.past[-1:])

    def redone(self) -> Self:
        """The same with the change that was taken back last."""
        return self._moved((*self.past, self.file), self.future[:-1], self.future[-1:])

    def wanting(self) -> Self:
        """The same with these strokes to be learned."""
        return replace(self, wanted=self.file, problem="")

    def knowing(self, learned: PaintedConcepts) -> Self:
        """The same with what was learned."""
        return replace(self, learned=learned)

    def _moved(
        self, past: tuple[ConceptFile, ...], future: tuple[ConceptFile, ...], to: tuple[ConceptFile, ...]
    ) -> Self:
        if not to:
            return self
        return replace(self, file=to[0], base=to[0], past=past, future=future)._settled()

    def _pushed(self, file: ConceptFile) -> Self:
        if file == self.file:
            return self
        return replace(self, file=file, past=(*self.past, self.file)[-STEPS:], future=())

    def _settled(self) -> Self:
        """The same with a concept that there is."""
        names = self.file.concepts
        concept = self.concept if self.concept in names else next(iter(names), "")
        return replace(self, concept=concept, problem="")


def tinted(picture: Picture, strokes: Strokes, colours: Sequence[Colour], opacity: float = 0.55) -> Picture:
    """A picture [H, W, 3] with the strokes on it, each in the colour of its concept."""
    cover = np.where(strokes.labels == UNKNOWN, 0.0, opacity)[..., None]  # [H, W, 1]
    paint = np.array([*colours, (0, 0, 0)], dtype=np.float64)[
        strokes.labels
    ]  # [H, W, 3]; UNKNOWN is the last
    blended: Picture = (picture * (1 - cover) + paint * cover).round().astype(np.uint8)
    return blended
