"""What a concept source says of some pictures, labelled in the background and drawn over them; kept for all visitors.

seen = seen_by(visitor, "labels", visitor.generator, spec, source)
if seen is None:
    show_work(visitor, "labels")
else:
    labelled_gallery(seen, "labels")
    concept_table(shares(seen.found), "share of pixels")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard.background import brought
from dashboard.budget import Budget
from dashboard.dissection.state import identity_of
from dashboard.gallery import Picture as Shown
from dashboard.gallery import gallery
from dashboard.session import Session
from dissect.concepts import ConceptSource, Labelled, colour_of, colours_of, labelled, overlay
from dissect.concepts.overlay import legible
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.generators.own import PictureId
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture, enlarge

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Seen", "concept_table", "labelled_gallery", "seen_by"]


LABELS, PLAIN = "labels", "pictures alone"


@dataclass(frozen=True, eq=False)
class Seen:
    """Labelled pictures, and the same enlarged [N, H, W, 3]: `plain`, and with the labels over them."""

    found: Labelled
    plain: Picture
    overlays: Picture

    @property
    def seeds(self) -> tuple[int, ...]:
        """The pictures' numbers."""
        return self.found.spec.seeds


_seen: Budget[Seen] = Budget(
    256 << 20, lambda seen: seen.plain.nbytes + seen.overlays.nbytes + seen.found.labels.nbytes
)


def seen_by(
    visitor: Session, purpose: str, generator: Generator, spec: LatentSpec, source: ConceptSource
) -> Seen | None:
    """The pictures of `spec` as `source` labels them, if that is done or quickly done; else a job is on its way.

    Raises:
        RequestError: the visitor has too many jobs under way.
    """

    def work(progress: Progress) -> Seen:
        found = labelled(generator, spec, source, progress)
        factor = legible((found.pictures.shape[1], found.pictures.shape[2]))
        overlays = overlay(found.pictures, found.labels, colours_of(found.names), factor=factor)
        return Seen(found, enlarge(found.pictures, factor), overlays)

    key = (generator.fingerprint, spec, identity_of(source))
    return brought(visitor, purpose, key, _seen, f"Labelling {len(spec):,} pictures · {source.title}", work)


def labelled_gallery(
    seen: Seen, key: str, *, selected: int | None = None, size: int = 112
) -> PictureId | None:
    """The pictures with the labels over them, or without; the selected one."""
    shows = st.segmented_control(
        "Show", (LABELS, PLAIN), default=LABELS, key=f"{key}-shows", label_visibility="collapsed"
    )
    images = seen.plain if shows == PLAIN else seen.overlays
    pictures = [Shown(seed, image) for seed, image in zip(seen.seeds, images, strict=True)]
    return gallery(pictures, key=key, selected=selected, size=size)


def concept_table(table: pd.DataFrame, drawn: str, words: Mapping[str, str] | None = None) -> None:
    """A table with a row for each concept, beside its colour; the column `drawn`, 0 to 1, is shown as a bar too.

    Args:
        table: a column ``concept``; the others are from 0 to 1 (those called share… in percent), or whole numbers.
        drawn: the column with the bar.
        words: headings, where they are not the columns' names.
    """
    columns = [name for name in table.columns if name != "concept"]
    titles = {name: escape((words or {}).get(name, name)) for name in columns}
    headings = "".join(f"<th colspan='{2 if name == drawn else 1}'>{titles[name]}</th>" for name in columns)
    rows = "".join(_row(row, columns, drawn) for row in table.to_dict("records"))
    st.html(f"<style>{_STYLE}</style><table class='concepts'><tr><th></th>{headings}</tr>{rows}</table>")


def _row(row: Mapping[Any, Any], columns: list[str], drawn: str) -> str:
    name = str(row["concept"])
    colour = "rgb({}, {}, {})".format(*colour_of(name))
    cells = "".join(_cell(column, row[column], colour if column == drawn else "") for column in columns)
    return f"<tr><td><i style='background:{colour}'></i>{escape(name)}</td>{cells}</tr>"


def _cell(column: str, value: object, colour: str) -> str:
    if not isinstance(value, float):
        return f"<td>{value:,}</td>"
    text = _percent(value) if column.startswith("share") else f"{value:.2f}"
    bar = f"<td><b><u style='width:{100 * value:.1f}%;background:{colour}'></u></b></td>" if colour else ""
    return f"{bar}<td>{text}</td>"


def _percent(value: float) -> str:
    if 0 < value < 0.0005:
        return "&lt; 0.1 %"
    return f"{100 * value:.1f} %" if value < 0.9995 else "100 %"


_STYLE = """
.concepts { border-collapse: collapse; font-size: .875rem; width: 100%; }
.concepts th { font-weight: 400; opacity: .7; text-align: right; padding: 0 0 .25rem .75rem; font-size: .8rem; }
.concepts td { padding: .17rem 0 .17rem .75rem; text-align: right; white-space: nowrap;
               font-variant-numeric: tabular-nums; border-top: 1px solid rgba(128, 128, 128, .22); }
.concepts td:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere; }
.concepts i { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .5rem;
              box-shadow: 0 0 0 1px rgba(128, 128, 128, .45); }
.concepts b { display: block; width: 100%; min-width: 3.5rem; height: .5rem; border-radius: .25rem; overflow: hidden;
              background: rgba(128, 128, 128, .2); }
.concepts u { display: block; height: 100%; }
"""
"""Greys that are seen on light and on dark."""
