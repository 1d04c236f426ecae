"""What can be taken away from an edit: all in one file, the edit, rules, pictures for a paper, edited weights."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import streamlit as st

from dashboard.errors import shown
from dashboard.lines import command_line, latent_options, model_of
from dashboard.rewriting.printing import printing
from dashboard.rewriting.restoring import workspace_of
from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.generators import Form, Generator, exported
from rewrite_core.generators.own import PictureId, short
from rewrite_core.rules.library import file_stem
from rewrite_core.rules.record import record_of
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.workspace import SUFFIX

__all__ = ["FORMATS", "command", "model_zip", "rule_files", "save_menu", "weights_download"]

FOLDER = "Model folder"
FORMATS = {"PNG": "image/png", "SVG": "image/svg+xml", "PDF": "application/pdf"}


def save_menu(session: Session, images: Sequence[PictureId]) -> None:
    """A menu with everything that can be saved now; `images` are the pairs on screen."""
    with st.popover("Save", icon=":material/download:", key="save-menu"):
        if not session.unpainted:
            content = session.request().to_json()
            st.download_button("Edit (JSON)", content, "edit.json", "application/json", on_click="ignore")
            _published(session)
        rules = session.rules.active
        if rules or session.stack.entries or not session.unpainted:
            _everything(session)
        if not rules:
            st.caption("Try an edit to save its rule, its pictures and the edited weights.")
            return
        for index, (rule, name) in enumerate(zip(rules, rule_files(rules), strict=True)):
            label = f"Rule “{plain(rule.name)}”"
            st.download_button(label, rule.to_bytes(), name, on_click="ignore", key=f"save-rule-{index}")
        printing(session, images)
        _figure(session, images)
        weights_download(session, "Edited weights", key="save-weights")
        seeds = tuple(image for image in images if isinstance(image, int))
        numbered = "" if len(seeds) == len(images) else "numbered "
        st.caption(f"The {numbered}pairs from a terminal, with the files above")
        st.code(command(session, seeds), language="bash", wrap_lines=True)


def _everything(session: Session) -> None:
    """One file with all of it, for Open and for `palimpsest edit`."""
    with shown():
        content = workspace_of(session).to_bytes()
        st.download_button(
            "Everything (one file)",
            content,
            f"{file_stem(session.title or session.generator.name)}{SUFFIX}",
            "application/json",
            on_click="ignore",
            key="save-everything",
            help="The edit, all rules with switches and strengths, which model they are for, and the pictures on view. "
            "Open takes it here; `palimpsest edit` makes it again.",
        )


def _published(session: Session) -> None:
    """The edit for the published interface, and what that cannot be told."""
    file = session.request().to_published()
    st.download_button(
        "Edit, published format (JSON)",
        file.to_json(),
        "edit-published.json",
        "application/json",
        on_click="ignore",
        key="save-published",
        disabled=not file.data,
    )
    if file.warning:
        st.caption(plain(file.warning))


def weights_download(session: Session, label: str, key: str) -> None:
    """A toggle, and behind it the edited weights as a zip: packing them takes a moment.

    They come as a model folder, or in the layout of the file that the model was opened from, if that is another one.
    """
    if not st.toggle(label, key=key):
        return
    view = session.edited()
    form: Form = "safetensors"
    if view.layout is not None and not view.layout.ours:
        own = f"As it came ({view.layout.suffix})"
        chosen = st.segmented_control(
            "Layout", [FOLDER, own], default=FOLDER, key=f"{key}-layout", label_visibility="collapsed"
        )
        form = "own" if chosen == own else "safetensors"
    content = model_zip(view.fingerprint, form, view, session.rules.active)
    label = "Model folder (zip)" if form == "safetensors" else "Model file and record (zip)"
    st.download_button(label, content, f"{view.name}.zip", on_click="ignore")


def command(session: Session, seeds: tuple[int, ...]) -> str:
    """The command that makes the pairs of these `seeds` from the saved rules."""
    options = {"--model": model_of(session), **latent_options(session.spec(seeds))}
    return command_line("apply", options, "pairs.png", *rule_files(session.rules.active), "--pairs")


def rule_files(rules: Sequence[Rule]) -> list[str]:
    """A file name for each rule, none of them twice and none that needs quotes."""
    stems = [file_stem(rule.name) for rule in rules]
    return [
        f"{stem}{f'-{index + 1}' if stems.count(stem) > 1 else ''}.safetensors"
        for index, stem in enumerate(stems)
    ]


@st.cache_resource(max_entries=4, show_spinner=False)
def model_zip(fingerprint: str, form: Form, _generator: Generator, _rules: Sequence[Rule]) -> bytes:
    """A checkpoint's files as one zip, which opens again once it is unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in exported(_generator, form, record_of(_generator, _rules)).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _figure(session: Session, images: Sequence[PictureId]) -> None:
    chosen = st.segmented_control("Pairs as a figure", list(FORMATS), key="save-format")
    if chosen:
        from dissect.figures import pair_figure, save_figure  # matplotlib takes a while to import

        before, after = session.pictures(images), session.pictures(images, edited=True)
        figure = pair_figure(before, after, [short(image) for image in images])
        content = save_figure(figure, chosen.lower())
        name = f"pairs.{chosen.lower()}"
        st.download_button(name, content, name, FORMATS[chosen], on_click="ignore", key="save-figure")
