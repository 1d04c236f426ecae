"""Figures of changes: rows by size, in points of the pixels; maps on one scale; the same bytes every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dissect.change_plots import changes_figure, where_figure
from dissect.paper import save_figure

NAMES = ("hair", "eyes", "$x_1$")


@pytest.fixture
def table() -> pd.DataFrame:
    effect = np.array([0.01, -0.2, 0.0])
    return pd.DataFrame({"concept": NAMES, "effect": effect, "low": effect - 0.01, "high": effect + 0.02})


def test_the_greatest_change_is_on_top_and_counted_in_points(table):
    chart: Any = changes_figure(table, "unit 3 of l08 ablated").axes[1]
    assert [label.get_text() for label in chart.get_yticklabels()] == ["eyes", "hair", "$x_1$"]
    assert [bar.get_width() for bar in chart.patches] == pytest.approx([-20.0, 1.0, 0.0])
    lines = [tuple(line.get_xdata()) for line in chart.lines[:3]]
    assert lines == [pytest.approx((-21, -18)), pytest.approx((0, 3)), pytest.approx((-1, 2))]


def test_figures_are_the_same_bytes_every_time(table):
    for kind in ("png", "svg", "pdf"):
        one, other = (save_figure(changes_figure(table, "a title"), kind) for _ in range(2))
        assert one == other


def test_maps_of_where_stand_over_their_names_on_one_scale():
    where = torch.zeros(3, 8, 8, dtype=torch.float64)
    where[0, 2, 2], where[1, 5, 5] = 0.4, -0.2
    figure = where_figure(where, NAMES)
    shown = [image.get_array() for image in figure.axes[0].images]
    assert len(shown) == 3
    assert len(np.unique(np.asarray(shown[2]).reshape(-1, 3), axis=0)) == 1  # no change: one grey
    full, half = (np.ptp(np.asarray(image, float).reshape(-1, 3), axis=0).max() for image in shown[:2])
    assert full > half > 0
    assert {text.get_text() for text in figure.axes[0].texts} >= {"hair", "eyes"}
