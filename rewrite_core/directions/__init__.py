"""Directions of key space: which contexts a layer tells apart. One file an origin."""

from rewrite_core.directions.context import METHODS, ContextSettings, context_direction
from rewrite_core.directions.difference import difference
from rewrite_core.directions.direction import Direction
from rewrite_core.directions.units import unit_direction

__all__ = ["METHODS", "ContextSettings", "Direction", "context_direction", "difference", "unit_direction"]
