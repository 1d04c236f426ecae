"""Model: choose or open a generator, see what it draws and how it is built."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st

from dashboard.binding import bound
from dashboard.described import layer_rows
from dashboard.errors import shown
from dashboard.fidelity import fidelity
from dashboard.gallery import Picture, gallery, range_box
from dashboard.opening import offered_models, open_path, open_upload, paths_allowed
from dashboard.own_picture import own_picture
from dashboard.saving import weights_download
from dashboard.session import Session, drawn, embedded, session
from dashboard.text import plain
from rewrite_core.generators import SUFFIXES, Generator, LatentSpec, embedded_folder, embedded_names
from rewrite_core.pictures import encode_png, enlarge, grid

PREVIEW = LatentSpec.of(range(18))


def cards(visitor: Session) -> None:
    """The embedded generators, and the ways to open another."""
    for column, name in zip(st.columns([1, 1, 1.2], gap="medium"), [*embedded_names(), None], strict=False):
        with column, st.container(border=True, height="stretch"):
            if name:
                card(visitor, name)
            else:
                opener(visitor)


def card(visitor: Session, name: str) -> None:
    """One embedded generator with six samples."""
    generator = embedded(name)
    is_open = visitor.generator.fingerprint == generator.fingerprint
    st.markdown(f"**{name}** · {generator.resolution} px · {len(generator.layers)} layers")
    samples = drawn(PREVIEW, generator)
    st.image(encode_png(grid(enlarge(samples, 2), columns=6, pad=4)), width="stretch")
    with st.container(horizontal=True, vertical_alignment="center"):
        label = "Open" if not is_open else "Is open"
        st.button(label, key=f"open-{name}", disabled=is_open, on_click=visitor.open, args=(generator,))
        with st.popover("Licence and origin", type="tertiary"):
            st.markdown((embedded_folder(name) / "PROVENANCE.md").read_text(encoding="utf-8"))


def opener(visitor: Session) -> None:
    """A path on this machine where that is allowed, and an upload."""
    st.markdown("**Your own**")
    offered = offered_models()
    if offered:
        chosen = st.selectbox("Models on this server", offered, index=None, key="offered")
        if chosen and st.button("Open", key="open-offered"):
            _open(visitor, lambda: open_path(chosen), chosen)
    if paths_allowed():
        with st.form("path", border=False):
            path = st.text_input("File or folder on this machine", key="path", placeholder="~/models/my-gan")
            if st.form_submit_button("Open", key="open-path") and path:
                _open(visitor, lambda: open_path(path), path)
    files = st.file_uploader(
        "Upload a checkpoint (.pt, .pth, .pkl, .safetensors, .h5; a stack's model.json with it)",
        type=["json", *(suffix.removeprefix(".") for suffix in SUFFIXES)],
        accept_multiple_files=True,
        key="upload",
    )
    if files and st.button("Open the upload", key="open-upload"):
        _open(visitor, lambda: open_upload({file.name: file.getvalue() for file in files}))


def _open(visitor: Session, opened: Callable[[], Generator], origin: str = "") -> None:
    with shown():
        visitor.open(opened(), origin)
        st.rerun()


def samples(visitor: Session) -> None:
    """What the open generator draws."""

    def store(truncation: float) -> None:
        visitor.truncation = truncation

    numbers, slider = st.columns([1.6, 1], gap="large")
    with numbers:
        seeds = range_box("Pictures", key="model-seeds", default="0-47")
    with slider:
        st.slider(
            "Truncation ψ",
            0.0,
            2.0,
            step=0.05,
            disabled=not visitor.unpainted,
            help="Moves latents towards the average one: 1 leaves them, 0 draws the average picture. While an edit is "
            "painted, it belongs to that edit.",
            **bound("truncation", visitor.truncation, store),
        )
        if visitor.generator.classes:
            _class(visitor)
    pairs = zip(seeds, visitor.pictures(seeds, edited=True), strict=True)
    visitor.select(
        gallery([Picture(*pair) for pair in pairs], key="samples", selected=visitor.selected, size=80)
    )
    if visitor.rules.active:
        st.caption(f"Drawn with: {', '.join(plain(rule.name) for rule in visitor.rules.active)}.")


def _class(visitor: Session) -> None:
    """Which class a conditional generator draws."""

    def store(label: int | None) -> None:
        visitor.label = label

    st.number_input(
        "Class",
        0,
        visitor.generator.classes - 1,
        None,
        placeholder="each picture its own",
        disabled=not visitor.unpainted,
        help=f"0 to {visitor.generator.classes - 1}; empty draws each picture's own, from its seed.",
        **bound("class", visitor.label, store),
    )


def architecture(generator: Generator) -> None:
    """Every layer with weights."""
    rows = [
        {
            "layer": layer["name"],
            "kind": layer["kind"].removesuffix(" conv"),
            "units": f"{layer['in_channels']}→{layer['out_channels']}",
            "grid": f"{layer['key_size'][0]}→{layer['value_size'][0]}" if layer["rewritable"] else "",
            "kernel": "{}×{}".format(*layer["kernel"]) if layer["rewritable"] else "",
            "rewritable": layer["rewritable"],
        }
        for layer in layer_rows(generator)
    ]
    widths = {"layer": 76, "kind": 88, "units": 84, "grid": 62, "kernel": 54, "rewritable": 88}
    columns = {name: st.column_config.Column(width=width) for name, width in widths.items()}
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="layers", column_config=columns)
    st.caption(f"Fingerprint {generator.fingerprint[:16]}…")
    if generator.assumed:
        st.caption(plain(generator.assumed))


def export(visitor: Session) -> None:
    """The weights with the rules in them."""
    if visitor.rules.active:
        weights_download(visitor, "Export with rules", key="export")


def page(visitor: Session) -> None:
    """Cards, samples, a picture of one's own, layers, fidelity."""
    cards(visitor)
    drawn_side, built_side = st.columns([1.45, 1], gap="medium")
    with drawn_side, shown():
        st.subheader(f"What {plain(visitor.generator.name)} draws")
        samples(visitor)
    with drawn_side, shown():
        own_picture(visitor)
    with built_side, shown():
        st.subheader("Layers")
        architecture(visitor.generator.pristine)
        export(visitor)
        fidelity(visitor)


page(session())
