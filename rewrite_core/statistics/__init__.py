"""What thousands of samples say about a layer."""

from rewrite_core.statistics.layer import LayerStatistics, layer_statistics
from rewrite_core.statistics.second_moment import SecondMoment
from rewrite_core.statistics.statistic import Statistic
from rewrite_core.statistics.store import Store, default_store, key_of
from rewrite_core.statistics.sweep import sweep

__all__ = [
    "LayerStatistics",
    "SecondMoment",
    "Statistic",
    "Store",
    "default_store",
    "key_of",
    "layer_statistics",
    "sweep",
]
