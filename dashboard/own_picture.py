"""A panel for a picture of the visitor's own: given, projected, and drawn with the rules that are on.

What is found joins the pictures that can be painted on (`Session.take`).
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.errors import shown
from dashboard.progress import follow, jobs
from dashboard.projecting import Projected, projecting, spaces
from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.generators.projection import Space, read_picture
from rewrite_core.pictures import Picture, encode_png, enlarge

__all__ = ["own_picture"]

LIMIT = 16
"""Megabytes of a picture's file."""
SPACE_HELP = (
    "Where latents are searched. w: near what the model draws. w+: a w for each place where a style enters, nearer to "
    "the picture, further from the samples. z: what seeds draw, the only one without a mapping network."
)


def own_picture(session: Session) -> None:
    """The upload, the search under way, and what came of the last one."""
    st.subheader("A picture of your own")
    _search(session)
    if session.projecting:
        follow(session.projecting, session.take)
    if session.projected:
        _result(session, session.projected)


def _search(session: Session) -> None:
    upload, settings = st.columns([1, 1.2], gap="medium")
    with upload:
        file = st.file_uploader(
            "Picture (PNG, JPEG, WebP)",
            type=["png", "jpg", "jpeg", "webp"],
            max_upload_size=LIMIT,
            key="own-picture",
            help="Its middle is brought to the model's size. It stays with your session.",
        )
    with settings:
        steps = st.slider("Steps", 10, 1000, 300, step=10, key="project-steps")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            space = _space(session)
            pressed = st.button(
                "Project",
                type="primary",
                icon=":material/filter_center_focus:",
                key="project",
                disabled=not file,
            )
    if file and pressed:
        with shown():
            _begin(session, file.name, file.getvalue(), space, steps)


def _space(session: Session) -> Space:
    """The space to search; the widget is another one for a family with other spaces."""
    offered = spaces(session.generator)
    return st.segmented_control(
        "Space", offered, default=offered[0], required=True, key=f"space-of-{len(offered)}", help=SPACE_HELP
    )


def _begin(session: Session, name: str, content: bytes, space: Space, steps: int) -> None:
    """Start the search, in place of one that is still under way."""
    picture = read_picture(content, name)
    if session.projecting:
        session.projecting.cancel()
    work = projecting(session.generator.pristine, picture, Path(name).stem, space=space, steps=steps)
    session.projecting = jobs().submit(session.visitor, "Projecting", work)


def _result(session: Session, projected: Projected) -> None:
    """The pictures side by side, how near they are, and downloads."""
    found, name = projected.found, projected.own.name
    pictures = {"given": found.wanted, "projected": found.picture}
    if session.rules.active:
        pictures["with rules"] = session.pictures([projected.own], edited=True)[0]
    for column, (caption, picture) in zip(st.columns(3), pictures.items(), strict=False):
        column.image(_png(session, picture), caption, width="stretch")
    st.caption(
        f"{plain(name)} in {found.space}: loss {found.loss:.4f}, from {found.losses[0]:.4f} "
        f"in {len(found.losses)} steps. On the page Rewriting it is the first of the pictures to paint on."
    )
    with st.container(horizontal=True, key="projected-files"):
        st.download_button(
            "Latents",
            projected.file,
            f"{name}.safetensors",
            on_click="ignore",
            icon=":material/download:",
            help="For `palimpsest sample --latents`.",
        )
        for caption, picture in list(pictures.items())[1:]:
            file = f"{name}-{caption.replace(' ', '-')}.png"
            st.download_button(
                f"PNG, {caption}",
                encode_png(picture),
                file,
                "image/png",
                on_click="ignore",
                icon=":material/download:",
            )


def _png(session: Session, picture: Picture) -> bytes:
    return encode_png(enlarge(picture, session.enlargement))
