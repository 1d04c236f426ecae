"""The menu behind ⋯ of the page Directions, with its link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from dashboard.directions.linking import address
from dashboard.session import Session
from dashboard.taking import NO_LINE, Line, headed
from dashboard.taking import take_away as taken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["headed", "take_away"]


def take_away(
    visitor: Session,
    name: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Callable[[], Figure]],
    line: Line = NO_LINE,
    caption: str = "",
) -> None:
    """`dashboard.taking.take_away` with a link to what is on screen."""
    taken(name, tables, figures, line, caption, address(visitor))
