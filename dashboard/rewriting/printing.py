"""The edit on a page of a paper, and the animation of its strength: made in the background when they are asked for.

`printing` is a part of the menu Save: the paper's layout as PNG, SVG or PDF at print size, with its caption as text,
and pictures whose rules grow from nothing to their strength, as GIF or MP4.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.errors import shown
from dashboard.session import Session
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.generators.own import PictureId
from rewrite_core.jobs import Progress
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rule import Rule

__all__ = ["Printed", "animation_of", "figure_of", "printing"]

FIGURES = {"PNG": "image/png", "SVG": "image/svg+xml", "PDF": "application/pdf"}
FILMS = {"GIF": "image/gif", "MP4": "video/mp4"}
PAIRS, FILMED = 10, 8
"""Pictures in a figure and in an animation: the first of those on screen that have a number."""


@dataclass(frozen=True)
class Printed:
    """A file's content, and what is written under it."""

    content: bytes
    caption: str = ""


_printed: Budget[Printed] = Budget(128 << 20, lambda printed: len(printed.content))


def printing(visitor: Session, images: Sequence[PictureId]) -> None:
    """Figure and animation of the rules that are on; `images` are on screen."""
    rules = visitor.rules.active
    seeds = tuple(image for image in images if isinstance(image, int))
    if not rules or not seeds:
        return
    generator, edited = visitor.generator, visitor.edited()
    told = next((rule for rule in reversed(rules) if rule.provenance.request), None)
    if told and (form := _form("edit", "The edit as a figure", FIGURES, "With its caption, for a page.")):
        spec = visitor.spec(seeds[:PAIRS])
        draw = partial(figure_of, generator, edited, told, spec, form)
        _file(visitor, "edit", form, FIGURES, spec, lambda _: draw())
    about = "The rules that are on grow together. MP4 needs ffmpeg on the server."
    if form := _form("strength", "Strength from 0 to 1, animated", FILMS, about):
        spec = visitor.spec(seeds[:FILMED])
        _file(visitor, "strength", form, FILMS, spec, partial(animation_of, generator, rules, spec, form))


def figure_of(generator: Generator, edited: Generator, rule: Rule, spec: LatentSpec, form: str) -> Printed:
    """The edit that `rule` was solved for, over pictures of `spec` as `generator` and as `edited` draw them.

    Raises:
        RequestError: nothing was painted for it.
    """
    from dissect.edit_figures import edit_caption, edit_figure
    from dissect.edit_pictures import edited_pairs, painted_edit
    from dissect.figures import save_figure  # matplotlib takes a while to import

    request = EditRequest.from_json(rule.provenance.request or {}, f"the request of rule '{rule.name}'")
    painted, pairs = painted_edit(generator, request), edited_pairs(generator, edited, spec)
    figure = edit_figure(painted, pairs, rule.name)
    return Printed(save_figure(figure, form.lower()), edit_caption(generator, rule, spec))


def animation_of(
    generator: Generator, rules: Sequence[Rule], spec: LatentSpec, form: str, progress: Progress | None = None
) -> Printed:
    """Pictures of `spec` while `rules` grow and shrink again.

    Raises:
        PalimpsestError: there is no ffmpeg for an MP4, or it fails.
    """
    from dissect.animation import gif, mp4, strength_frames, there_and_back

    frames = there_and_back(strength_frames(generator, rules, spec, progress=progress))
    return Printed(gif(frames) if form == "GIF" else mp4(frames))


def _form(name: str, label: str, forms: dict[str, str], help: str) -> str | None:
    chosen: str | None = st.segmented_control(label, list(forms), key=f"print-{name}", help=help)
    return chosen


def _file(
    visitor: Session,
    name: str,
    form: str,
    kinds: dict[str, str],
    spec: LatentSpec,
    work: Callable[[Progress], Printed],
) -> None:
    """The file once it is made, with its caption; until then how far it is."""
    purpose = f"print-{name}"
    key: Hashable = (visitor.edited().fingerprint, visitor.rules.active, spec, name, form)
    with shown():
        found = brought(visitor, purpose, key, _printed, f"Making the {form}", work)
        if found is None:
            show_work(visitor, purpose)
            return
    file = f"{name}.{form.lower()}"
    st.download_button(file, found.content, file, kinds[form], on_click="ignore", key=f"{purpose}-file")
    if found.caption:
        st.caption("Caption")
        st.code(found.caption, language=None, wrap_lines=True)
