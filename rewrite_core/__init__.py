"""The engine of Palimpsest: generators, statistics, memory, directions, rules. No interface, no plotting.

    from rewrite_core import LatentSpec, example_edit, open_generator, rewrite

Names are loaded when they are first used, so that ``import rewrite_core`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewrite_core.directions import ContextSettings, Direction
    from rewrite_core.directions.matches import Matches, matches
    from rewrite_core.errors import PalimpsestError
    from rewrite_core.generators import Generator, LatentSpec, embedded_names, from_sequential, open_generator
    from rewrite_core.generators.own import OwnPicture
    from rewrite_core.pictures import Mask
    from rewrite_core.rules.examples import example_edit
    from rewrite_core.rules.request import EditRequest, Painted
    from rewrite_core.rules.rewrite import Edit, rewrite
    from rewrite_core.rules.rule import Rule
    from rewrite_core.rules.settings import SolverSettings
    from rewrite_core.rules.stack import RuleStack
    from rewrite_core.statistics import LayerStatistics, Store, layer_statistics

_HOMES = {
    "ContextSettings": "directions",
    "Direction": "directions",
    "Edit": "rules.rewrite",
    "EditRequest": "rules.request",
    "Generator": "generators",
    "LatentSpec": "generators",
    "LayerStatistics": "statistics",
    "Mask": "pictures",
    "Matches": "directions.matches",
    "OwnPicture": "generators.own",
    "Painted": "rules.request",
    "PalimpsestError": "errors",
    "Rule": "rules.rule",
    "RuleStack": "rules.stack",
    "SolverSettings": "rules.settings",
    "Store": "statistics",
    "embedded_names": "generators",
    "example_edit": "rules.examples",
    "from_sequential": "generators",
    "layer_statistics": "statistics",
    "matches": "directions.matches",
    "open_generator": "generators",
    "rewrite": "rules.rewrite",
}

__all__ = [
    "ContextSettings",
    "Direction",
    "Edit",
    "EditRequest",
    "Generator",
    "LatentSpec",
    "LayerStatistics",
    "Mask",
    "Matches",
    "OwnPicture",
    "Painted",
    "PalimpsestError",
    "Rule",
    "RuleStack",
    "SolverSettings",
    "Store",
    "embedded_names",
    "example_edit",
    "from_sequential",
    "layer_statistics",
    "matches",
    "open_generator",
    "rewrite",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rewrite_core' has no attribute '{name}'")
    return getattr(import_module(f"rewrite_core.{_HOMES[name]}"), name)
