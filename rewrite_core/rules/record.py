"""What an exported model says of itself: which network it was, and which rules are in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rewrite_core.generators import Generator
from rewrite_core.rules.rule import Rule, versions

__all__ = ["record_of"]


def record_of(generator: Generator, rules: Iterable[Rule]) -> dict[str, Any]:
    """Plain JSON: the pristine model's name and fingerprint, each rule's name and digest in order, versions."""
    told = [
        {
            "name": rule.name,
            "layer": rule.layer,
            "rank": rule.rank,
            "strength": rule.strength,
            "digest": rule.digest,
        }
        for rule in rules
    ]
    return {
        "version": 1,
        "model": generator.pristine.name,
        "fingerprint": generator.pristine.fingerprint,
        "rules": told,
        "made_with": versions(),
    }
