"""The view Spectrum: how many directions a layer's keys take, and whether the samples were enough to know them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.directions.exporting import spectrum_command
from dashboard.directions.moments import certainty, halves
from dashboard.directions.plots import cumulative_chart, eigenvalues_chart
from dashboard.directions.state import chosen
from dashboard.directions.taking import headed, take_away
from dashboard.errors import shown
from dashboard.session import Session, service
from dashboard.text import plain
from dissect.provenance import measured
from rewrite_core.directions.spectrum import SPREAD, Halves, Spectrum, spectra
from rewrite_core.generators import LatentSpec
from rewrite_core.jobs import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["spectrum"]

ONE, ALL = "the spectrum", "all spectra"
"""The purposes of the jobs that halve the samples of the session's layer, and of all."""

Spectra = Mapping[str, Spectrum]

_one: Budget[Spectrum] = Budget(16 << 20, lambda found: 2 * found.eigenvalues.nbytes)
_all: Budget[Spectra] = Budget(
    16 << 20, lambda found: sum(2 * one.eigenvalues.nbytes for one in found.values())
)


def spectrum(visitor: Session) -> None:
    """The session's layer, the direction that is looked at, and a table of all layers."""
    layer, samples = visitor.layer, visitor.exploring.samples
    menu = headed(
        f"Spectrum :gray[of {plain(layer)}]",
        f"Of the second moment C = E[k kᵀ] of its keys, over {samples:,} samples, drawn without rules or truncation.",
    )
    both = halves(visitor, ONE, layer, samples)
    if both is None:
        show_work(visitor, ONE)
    else:
        key = (visitor.generator.pristine.fingerprint, layer, samples)
        found = _one.get(key, lambda: Spectrum.of(layer, both))
        with menu:
            _take_away(visitor, found)
        _layer(visitor, found, both)
    with shown():
        _layers(visitor, samples)


# One layer


def _layer(visitor: Session, found: Spectrum, both: Halves) -> None:
    _numbers(found)
    if found.enough:
        st.caption(
            f":material/check_circle: {found.samples:,} samples are enough: along {found.stable} of "
            f"{len(found.eigenvalues)} eigenvectors their halves agree."
        )
    else:
        st.warning(plain(found.warning), icon=":material/warning:")
    item = chosen(visitor)
    if item is not None and item.direction.layer == found.layer:
        certainty(item, both)
    if not len(found.eigenvalues):
        return
    left, right = st.columns(2, gap="medium")
    with left:
        st.altair_chart(eigenvalues_chart(found), key="spectrum-eigenvalues")
    with right:
        st.altair_chart(cumulative_chart(found), key="spectrum-cumulative")
    st.caption(
        "Dashed: the effective rank. Grey: eigenvectors along which the halves of the samples differ in power by more "
        f"than {100 * SPREAD:.0f} %."
    )


def _numbers(found: Spectrum) -> None:
    """What is worth knowing of it, in a row."""
    dead = found.units - found.alive
    facts = {
        "Effective rank": (
            f"{found.effective_rank:.1f}",
            "The exponential of the eigenvalues' entropy: how many directions carry the power.",
        ),
        "Units": (
            f"{found.units:,}" + (f" ({dead} dead)" if dead else ""),
            "Channels of the layer's keys; dead are those that are always 0.",
        ),
        "Condition": (_condition(found), "The greatest eigenvalue over the least."),
        "Stable": (
            f"{found.stable} of {len(found.eigenvalues)}",
            f"Eigenvectors whose power differs by at most {100 * SPREAD:.0f} % between halves of the samples.",
        ),
    }
    for column, (name, (value, about)) in zip(st.columns(len(facts)), facts.items(), strict=True):
        column.metric(name, value, help=about)


def _condition(found: Spectrum) -> str:
    return f"{found.condition:,.3g}" if math.isfinite(found.condition) else "infinite"


def _take_away(visitor: Session, found: Spectrum) -> None:
    spec = LatentSpec.of(range(found.samples))
    words = measured(f"Spectrum of the keys of {found.layer}.", visitor.generator.pristine, spec)
    figures = {"spectrum": partial(_figure, {found.layer: found})}
    line = spectrum_command(visitor, found.layer, found.samples)
    take_away(visitor, "spectrum", {"eigenvalues": found.table()}, figures, line, words)


def _figure(found: Spectra) -> Figure:
    from dissect.direction_plots import spectrum_figure

    return spectrum_figure(found)


# All layers


def _layers(visitor: Session, samples: int) -> None:
    """A row for each layer, once that is asked for; a click chooses the layer."""
    generator, store = visitor.generator.pristine, service().store
    layers, spec = tuple(generator.layers), LatentSpec.of(range(samples))
    menu = headed("All layers", "Click a row to look at that layer.")
    key = (generator.fingerprint, spec)
    asked = visitor.asked.get(ALL)
    wanted = _all.peek(key) is not None or (asked is not None and asked.key == key)
    place = st.empty()
    if not (wanted or place.button("Compare all layers", icon=":material/play_arrow:", key="spectrum-all")):
        return
    place.empty()

    def work(progress: Progress) -> Spectra:
        return spectra(generator, layers, spec, store=store, progress=progress)

    found = brought(visitor, ALL, key, _all, f"Halving {samples:,} samples of {len(layers)} layers", work)
    if found is None:
        show_work(visitor, ALL)
        return
    table = _summary(found)
    with menu:
        words = measured("Spectra of the keys of all layers.", generator, spec)
        figures = {"spectra": partial(_figure, found)}
        take_away(
            visitor, "spectra", {"layers": table}, figures, spectrum_command(visitor, "", samples), words
        )
    _table(visitor, table)


def _summary(found: Spectra) -> pd.DataFrame:
    """A row for each layer."""
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "units": one.units,
                "alive": one.alive,
                "effective_rank": one.effective_rank,
                "condition": _condition(one),
                "stable": f"{one.stable} of {len(one.eigenvalues)}",
                "enough": one.enough,
            }
            for layer, one in found.items()
        ]
    )


def _table(visitor: Session, rows: pd.DataFrame) -> None:
    column, layers = st.column_config, list(rows["layer"])
    key = f"spectrum-layers-{visitor.layer}"  # a layer chosen elsewhere is marked in another table

    def picked() -> None:
        chosen_rows: Any = st.session_state[key]["selection"]["rows"]
        if chosen_rows:
            visitor.layer = layers[chosen_rows[0]]

    st.dataframe(
        rows,
        key=key,
        hide_index=True,
        height=38 + 35 * min(len(rows), 10),
        column_config={
            "effective_rank": column.NumberColumn("effective rank", format="%.1f"),
            "alive": column.NumberColumn(help="Units that are not always 0."),
            "condition": column.TextColumn(alignment="right", help="The greatest eigenvalue over the least."),
            "stable": column.TextColumn(
                alignment="right", help="Eigenvectors on which the halves of the samples agree."
            ),
            "enough": column.CheckboxColumn(help="Whether all but a twentieth of them are stable."),
        },
        selection_mode="single-row",
        selection_default={"selection": {"rows": [layers.index(visitor.layer)]}},
        on_select=picked,
    )
