"""What can be taken away from an edit: the edit itself, the rule, pictures for a paper, edited weights, the command."""

from __future__ import annotations

import io
import zipfile

import streamlit as st

from dashboard.gallery import format_ranges
from dashboard.session import Session
from rewrite_core.generators import Generator

__all__ = ["model_zip", "save_menu"]

FORMATS = {"PNG": "image/png", "SVG": "image/svg+xml", "PDF": "application/pdf"}


def save_menu(session: Session, seeds: tuple[int, ...]) -> None:
    """A menu with everything that can be saved now; `seeds` are the pairs on screen."""
    with st.popover("Save", icon=":material/download:"):
        request = session.request()
        if request.key or request.object:
            st.download_button(
                "Edit (JSON)", request.to_json(), "edit.json", "application/json", on_click="ignore"
            )
        rules = session.rules.active
        if not rules:
            st.caption("Try an edit to save its rule, its pictures and the edited weights.")
            return
        st.download_button(
            f"Rule “{rules[-1].name}”",
            rules[-1].to_bytes(),
            "rule.safetensors",
            on_click="ignore",
            key="save-rule",
        )
        _figure(session, seeds)
        if st.toggle("Edited weights", key="save-weights"):
            view = session.edited()
            st.download_button(
                "Model folder (zip)",
                model_zip(view.fingerprint, view),
                f"{view.name}-edited.zip",
                on_click="ignore",
            )
        st.caption("The same from a terminal")
        st.code(command(session, seeds), language="bash", wrap_lines=True)


def command(session: Session, seeds: tuple[int, ...]) -> str:
    """The command that makes the pairs on screen from the saved edit."""
    return (
        f"palimpsest edit edit.json --model {session.generator.name} "
        f'--rule rule.safetensors --pairs pairs.png --seeds "{format_ranges(seeds)}"'
    )


@st.cache_resource(max_entries=4, show_spinner=False)
def model_zip(fingerprint: str, _generator: Generator) -> bytes:
    """A checkpoint's files as one zip, which opens again once it is unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _generator.files().items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _figure(session: Session, seeds: tuple[int, ...]) -> None:
    chosen = st.segmented_control("Pairs as a figure", list(FORMATS), key="save-format")
    if chosen:
        from dashboard.figures import pair_figure, save_figure  # matplotlib takes a while to import

        figure = pair_figure(session.pictures(seeds), session.pictures(seeds, edited=True), seeds)
        content = save_figure(figure, chosen.lower())
        name = f"pairs.{chosen.lower()}"
        st.download_button(name, content, name, FORMATS[chosen], on_click="ignore", key="save-figure")
