"""What thousands of samples say about a layer."""

from rewrite_core.statistics.along import Along
from rewrite_core.statistics.catalogue import STATISTICS
from rewrite_core.statistics.conditional import Conditional
from rewrite_core.statistics.cross_covariance import CrossCovariance
from rewrite_core.statistics.exact import exact_quantiles
from rewrite_core.statistics.gather import fetch, gather
from rewrite_core.statistics.histogram import Histogram
from rewrite_core.statistics.intersection import Intersection
from rewrite_core.statistics.key import key_of
from rewrite_core.statistics.labels import Labels
from rewrite_core.statistics.layer import LayerStatistics, layer_statistics
from rewrite_core.statistics.maxima import Maxima
from rewrite_core.statistics.reservoir import Reservoir
from rewrite_core.statistics.second_moment import SecondMoment
from rewrite_core.statistics.service import Service
from rewrite_core.statistics.statistic import Batch, Labeller, Needs, Scene, Statistic
from rewrite_core.statistics.store import Store, default_store
from rewrite_core.statistics.sweep import sweep

__all__ = [
    "STATISTICS",
    "Along",
    "Batch",
    "Conditional",
    "CrossCovariance",
    "Histogram",
    "Intersection",
    "Labeller",
    "Labels",
    "LayerStatistics",
    "Maxima",
    "Needs",
    "Reservoir",
    "Scene",
    "SecondMoment",
    "Service",
    "Statistic",
    "Store",
    "default_store",
    "exact_quantiles",
    "fetch",
    "gather",
    "key_of",
    "layer_statistics",
    "sweep",
]
