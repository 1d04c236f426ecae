"""Amounts of memory that a user types: "500MB", "1.5 GB". 1 kB is 1,000 bytes, as in `dashboard.words.size`."""

from __future__ import annotations

import re

from rewrite_core.errors import RequestError

__all__ = ["parse_size"]

UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def parse_size(text: str) -> int:
    """Bytes; a unit may be left out after 0 alone, and its case does not matter.

    Raises:
        RequestError: it is no such amount.
    """
    found = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([kmgt]?b)?\s*", text, re.IGNORECASE)
    if not found or not (found[2] or float(found[1]) == 0):
        raise RequestError(
            found=f"'{text[:40]}' as a size",
            expected="a number with B, kB, MB, GB or TB, such as 500MB",
            remedy="Correct it and try again.",
        )
    return int(float(found[1]) * UNITS[(found[2] or "b").lower()])
