"""One visitor's state, and what all visitors share.

A `Session` belongs to one visitor: the open generator, the layer, the rule stack, the edit being painted and its trial.
Its parts are values that are replaced, never changed in place, and nothing in it can be reached from another visitor's
session. What is shared is read only: loaded generators, their statistics, and pictures already drawn, each named by all
that it depends on (`st.cache_resource`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.background import Asked
from dashboard.budget import Budget
from dashboard.directions.choices import Choices as Exploring
from dashboard.directions.choices import Tray
from dashboard.dissection.choices import Choices
from dashboard.dissection.painting import Painting
from dashboard.dissection.probe import Probe
from dashboard.projecting import Projected
from rewrite_core.directions.matches import Matches
from rewrite_core.generators import Generator, LatentSpec, embedded_names, find_device, open_generator
from rewrite_core.generators.own import OwnPicture, PictureId
from rewrite_core.jobs import Job, Progress
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import Edit, check_model
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.settings import LatentSettings, ModelRef
from rewrite_core.rules.stack import RuleStack
from rewrite_core.statistics import LayerStatistics, SecondMoment, default_store, layer_statistics
from rewrite_core.statistics.layer import SAMPLES
from rewrite_core.statistics.service import Service

__all__ = ["THE_APP", "Session", "drawn", "embedded", "service", "session", "statistics_of"]

THE_APP = "the app"
"""Who asks for statistics that no visitor has asked for."""
MOST_OWN = 24
"""Pictures of a visitor's own to choose from: the newest."""


@dataclass
class Session:
    """What one visitor has open.

    Attributes:
        draft: the edit being painted.
        label: the class that pictures are drawn of, None for each picture's own.
        tried: the request last handed to the solver; from then on every change of the draft is solved again.
        trial: its solution, drawn on top of the stack until it is kept or dropped.
        dropped: the trial that Undo took away, for Redo.
        projected: what the last search for a picture of the visitor's own found, and `projecting` the one under way.
        own: the visitor's own pictures, the newest first: projected, or painted on in an edit that was loaded.
        selected: the picture that every gallery has selected.
        view: which of the rewriting page's views is shown.
        dissecting: what is chosen on the page Dissection, and `asked` the jobs of its views, by what they are for.
        painting: the concepts that the visitor paints there, and `probe` what they find, ablate and compare.
        exploring: what is chosen on the page Directions, and `tray` the directions that the visitor has there.
        origin: the path that the generator was opened from, if it was.
        title: what a trial of the draft is called until it is kept under another name.
    """

    generator: Generator
    layer: str
    visitor: str = field(default_factory=lambda: uuid.uuid4().hex)
    truncation: float = 1.0
    label: int | None = None
    stack: RuleStack = field(default_factory=RuleStack)
    draft: EditRequest = field(default_factory=EditRequest)
    tried: EditRequest | None = None
    trial: Edit | None = None
    dropped: Edit | None = None
    solving: Job[Edit] | None = None
    searching: Job[Matches] | None = None
    matches: Matches | None = None
    projecting: Job[Projected] | None = None
    projected: Projected | None = None
    dissecting: Choices = field(default_factory=Choices)
    asked: Mapping[str, Asked] = field(default_factory=dict)
    painting: Painting | None = None
    probe: Probe = field(default_factory=Probe)
    exploring: Exploring = field(default_factory=Exploring)
    tray: Tray = field(default_factory=Tray)
    own: tuple[OwnPicture, ...] = ()
    selected: PictureId = 0
    view: str = "Paint"
    title: str = ""
    origin: str = ""
    problem: str = ""

    # What is open.

    def open(self, generator: Generator, origin: str = "") -> None:
        """Open another generator; the rules and masks of the last one do not fit it."""
        asked = (asked.job for asked in self.asked.values())
        for job in (self.solving, self.searching, self.projecting, *asked):
            if job:
                job.cancel()
        fresh = Session(generator, generator.default_layer, self.visitor, origin=origin)
        self.__dict__.update(fresh.__dict__)

    def request(self) -> EditRequest:
        """The draft at the session's layer, truncation and class, for the open generator."""
        model = ModelRef(name=self.generator.name, fingerprint=self.generator.fingerprint)
        return self.draft.model_copy(update={"layer": self.layer, "latents": self.latents, "model": model})

    @property
    def latents(self) -> LatentSettings:
        """What the draft's numbers mean, at the session's truncation and class."""
        return self.draft.latents.model_copy(update={"truncation": self.truncation, "label": self.label})

    @property
    def unpainted(self) -> bool:
        """Whether nothing is painted or given yet."""
        draft = self.draft
        return not (draft.object or draft.paste or draft.key or draft.given or draft.examples)

    def select(self, image: PictureId | None) -> None:
        """The picture that every gallery has selected, unless none was."""
        self.selected = self.selected if image is None else image

    def adopt(self, pictures: Iterable[OwnPicture]) -> None:
        """Put pictures of the visitor's own before those that there are to choose from."""
        self.own = tuple(dict.fromkeys((*pictures, *self.own)))[:MOST_OWN]

    def take(self, projected: Projected) -> None:
        """Show what a search found, and have it ready to be painted on."""
        self.projected = projected
        self.adopt([projected.own])
        self.selected, self.view = projected.own, "Paint"

    def clear_edit(self) -> None:
        """Start painting anew; the stack of kept rules stays."""
        self.draft, self.title, self.problem = EditRequest(), "", ""
        self._settle(trial=None)

    def _settle(self, trial: Edit | None, dropped: Edit | None = None) -> None:
        """Show this trial and no other: whatever is still being solved would overrule the visitor."""
        if self.solving:
            self.solving.cancel()
        self.trial, self.dropped, self.solving = trial, dropped, None
        self.tried = EditRequest.from_json(trial.rule.provenance.request or {}) if trial else None

    def change(self, **parts: object) -> None:
        """Replace parts of the draft."""
        self.draft = self.draft.model_copy(update=parts)

    def load(self, request: EditRequest, title: str) -> None:
        """Take over a saved edit, opening the embedded generator that it was made for.

        Raises:
            ModelMismatch: if it was made for a generator that is not open, with the fingerprints of both.
            LayerError: if it names a layer that there is not.
            RequestError: if a picture's latents are not such as the generator takes; a MaskError where a mask is empty.
        """
        request.require_areas()
        for name in embedded_names():
            if (
                request.model
                and request.model.fingerprint == embedded(name).fingerprint != self.generator.fingerprint
            ):
                self.open(embedded(name))
        check_model(request, self.generator)
        layer = self.generator.layer(request.layer).name if request.layer else self.layer
        self.clear_edit()
        self.draft = request
        self.adopt(request.own)
        self.truncation, self.label = request.latents.truncation, request.latents.label
        self.title = title
        self.layer = layer

    # The rules.

    @property
    def rules(self) -> RuleStack:
        """The rules that what is drawn obeys: the stack, and the trial on top."""
        return self.stack.push(self.trial.rule) if self.trial else self.stack

    def keep(self, name: str) -> None:
        """Put the trial on the stack."""
        if self.trial:
            self.stack = self.stack.push(self.trial.rule.renamed(name))
            self._settle(trial=None)

    def add(self, rule: Rule) -> None:
        """Put a rule from a file on the stack, once it is known to fit."""
        rule.check(self.generator)
        self.stack = self.stack.push(rule)

    def undo(self) -> None:
        """Drop the trial, or else take back the last change of the stack."""
        if self.trial:
            self._settle(trial=None, dropped=self.trial)
        else:
            self.stack = self.stack.undo()

    def redo(self) -> None:
        """Bring back what Undo took."""
        if self.dropped:
            self._settle(trial=self.dropped)
        else:
            self.stack = self.stack.redo()

    def revert(self) -> None:
        """The generator as it was loaded; Undo brings the stack back."""
        self._settle(trial=None, dropped=self.trial or self.dropped)
        self.stack = self.stack.clear()

    # What is drawn.

    def edited(self) -> Generator:
        """A view of the open generator in which the rules hold."""
        return self.generator.with_rules(self.rules)

    @property
    def enlargement(self) -> int:
        """The whole factor at which lines drawn over a picture are finer than its pixels."""
        return max(1, 256 // self.generator.resolution)

    def spec(self, seeds: tuple[int, ...]) -> LatentSpec:
        """The latents of pictures by number, as this visitor's draft counts them."""
        return self.latents.spec(seeds)

    def pictures(self, images: Sequence[PictureId], *, edited: bool = False) -> NDArray[np.uint8]:
        """Pictures [N, H, W, 3], by number or of the visitor's own, with or without the rules."""
        view = self.edited() if edited else self.generator
        numbers = tuple(image for image in images if isinstance(image, int))
        numbered = drawn(self.spec(numbers), view)
        if len(numbers) == len(images):
            return numbered
        rest = iter(numbered)
        return np.stack([next(rest) if isinstance(image, int) else drawn(image, view)[0] for image in images])

    @property
    def embedded_name(self) -> str:
        """The name of the embedded generator that is open; empty for any other, whatever it is called."""
        return next(
            (name for name in embedded_names() if embedded(name).fingerprint == self.generator.fingerprint),
            "",
        )


def session() -> Session:
    """This visitor's session, opened on the default embedded generator."""
    if "palimpsest" not in st.session_state:
        generator = embedded(embedded_names()[0])
        st.session_state["palimpsest"] = Session(generator, generator.default_layer)
    current: Session = st.session_state["palimpsest"]
    return current


@st.cache_resource(max_entries=8, show_spinner=False)
def embedded(name: str) -> Generator:
    """An embedded generator, loaded once for all visitors."""
    return open_generator(name).on(find_device())


_drawn: Budget[NDArray[np.uint8]] = Budget(512 << 20, lambda pictures: pictures.nbytes)
_gathered: Budget[LayerStatistics] = Budget(
    2 << 30, lambda found: found.sample.keys.nbytes + found.responses.nbytes
)


def drawn(what: LatentSpec | OwnPicture, generator: Generator) -> NDArray[np.uint8]:
    """Pictures [N, H, W, 3], drawn once for all visitors; a view's fingerprint is not its pristine network's."""

    def draw() -> NDArray[np.uint8]:
        return generator.draw(what.latents(generator) if isinstance(what, OwnPicture) else what)

    return _drawn.get((generator.fingerprint, what), draw)


@st.cache_resource(show_spinner=False)
def service() -> Service:
    """The statistics service of this process."""
    return Service(default_store())


def statistics_of(
    generator: Generator, layer: str, progress: Progress | None = None, *, visitor: str = THE_APP
) -> LayerStatistics:
    """Statistics of a layer, kept for all visitors; called from a job's thread."""
    pristine = generator.pristine

    def gathered() -> LayerStatistics:
        spec = LatentSpec.of(range(SAMPLES))
        moment = service().fetch(pristine, layer, spec, SecondMoment(), visitor=visitor, progress=progress)
        return layer_statistics(pristine, layer, moment=moment)

    return _gathered.get((pristine.fingerprint, layer), gathered)
