"""Whether the open model was opened right: what its weights and samples say, and a comparison with given pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from dashboard.errors import shown
from dashboard.session import Session
from dashboard.text import plain
from dashboard.verified import agreement_row, described_agreement, verified, with_other_noise
from dashboard.words import size
from rewrite_core.generators import Generator
from rewrite_core.generators.agreement import agreement
from rewrite_core.generators.reference import read_reference

__all__ = ["fidelity"]

LIMIT = 64
"""Megabytes of pictures that a visitor may compare with."""


def fidelity(session: Session) -> None:
    """Facts, what is unusual, and the comparison."""
    generator = session.generator.pristine
    st.subheader("Fidelity")
    found = _verified(generator, generator.fingerprint)
    st.dataframe(
        [{"property": name, "value": value} for name, value in _facts(found)],
        hide_index=True,
        key="facts",
        column_config={"property": st.column_config.Column(width=96)},
    )
    _findings(found)
    with st.expander("Compare with given pictures", icon=":material/compare:", key="compare"):
        _comparison(session, generator)


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each fact with its name, in words."""
    tensors, drawn, memory = found["weights"], found["samples"], found["memory"]
    yield "weights", f"{tensors['numbers']:,} in {tensors['tensors']} tensors"
    yield "memory", f"{size(memory['weights'])}, and about {size(memory['drawing'])} to draw"
    refused = found["not_truncated_because"]
    yield "truncation", f"no: {refused}" if refused else "yes"
    yield "noise", found["noise"] or "none"
    yield (
        "samples",
        f"mean {drawn['mean']:+.2f}, contrast {drawn['contrast']:.2f}, variety {drawn['variety']:.2f}",
    )


def _findings(found: Mapping[str, Any]) -> None:
    """What is unusual, or that nothing is."""
    findings = found["findings"]
    if not findings:
        st.caption("Nothing unusual in the weights or in the first 16 pictures.")
        return
    shown_now = "; ".join(f"{finding['where']}: {finding['what']}" for finding in findings[:4])
    more = f"; and {len(findings) - 4} more" if len(findings) > 4 else ""
    st.warning(f"Unusual: {plain(shown_now)}{more}.", icon=":material/warning:")


def _comparison(session: Session, generator: Generator) -> None:
    """Pictures made elsewhere, by their file."""
    st.caption(
        "Pictures of this model that another program drew: an .npz with `z` or `seeds` beside the pictures, "
        "or an .npy of pictures from seed 0 on."
    )
    file = st.file_uploader(
        "Pictures (.npz, .npy)", type=["npz", "npy"], max_upload_size=LIMIT, key="given-pictures"
    )
    array = st.text_input(
        "Array", key="given-array", placeholder="the only one", help="Where an .npz has several."
    )
    if file and st.button("Compare", key="compare-now"):
        with shown(), TemporaryDirectory() as folder:
            place = Path(folder) / f"given.{file.name.rpartition('.')[2].lower()}"
            place.write_bytes(file.getvalue())
            reference = read_reference(place, array=array.strip(), like=session.spec(()))
            found = agreement(with_other_noise(generator), reference)
            _verdict(agreement_row(found, reference))


def _verdict(row: Mapping[str, Any]) -> None:
    """The verdict, in its colour and in words."""
    words = described_agreement(row)
    show = st.error if row["verdict"] == "different" else st.success
    show(plain(f"{words[:1].upper()}{words[1:]}."))


@st.cache_resource(max_entries=16, show_spinner=False)
def _verified(_generator: Generator, fingerprint: str) -> dict[str, Any]:
    """Looked at once for all visitors; `fingerprint` stands for the generator."""
    return verified(_generator)
