"""Every statistic by its name: what the command line offers, and what a stored file's kind means.

A new statistic is one file beside this one, and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping

from rewrite_core.statistics.along import Along
from rewrite_core.statistics.compact import CompactKeys
from rewrite_core.statistics.conditional import Conditional
from rewrite_core.statistics.cross_covariance import CrossCovariance
from rewrite_core.statistics.histogram import Histogram
from rewrite_core.statistics.intersection import Intersection
from rewrite_core.statistics.labels import Labels
from rewrite_core.statistics.maps import Maps
from rewrite_core.statistics.maxima import Maxima
from rewrite_core.statistics.reservoir import Reservoir
from rewrite_core.statistics.second_moment import SecondMoment
from rewrite_core.statistics.statistic import Statistic

__all__ = ["STATISTICS"]

_ALL: tuple[type[Statistic], ...] = (
    SecondMoment,
    Histogram,
    Maxima,
    Reservoir,
    Intersection,
    Conditional,
    Labels,
    CrossCovariance,
    Along,
    Maps,
    CompactKeys,
)

STATISTICS: Mapping[str, type[Statistic]] = {statistic.kind: statistic for statistic in _ALL}
"""Name (`Statistic.kind`) → class."""
