"""Numbers of pictures or units as text, "0-31, 200-212": in range boxes and on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rewrite_core.errors import RequestError

__all__ = ["MOST", "format_ranges", "parse_ranges"]

MOST = 256
"""Pictures that are shown at a time, at most."""


def parse_ranges(text: str, most: int = MOST, noun: str = "picture") -> tuple[int, ...]:
    """The numbers of "200-212, 5", in that order, each once; `noun` says in errors what they number.

    Raises:
        RequestError: on anything but numbers and rising ranges below 2**32, or more than `most` of them.
    """
    numbers: dict[int, None] = {}
    parts = re.split(r"[\s,;]+", re.sub(r"\s*[-–]\s*", "-", text))
    for part in filter(None, parts) if any(parts) else [""]:
        numbers.update(dict.fromkeys(_range(part, most, noun)))
        if len(numbers) > most:
            raise _bad(f"more than {most:,} {noun}s in {_short(text)}")
    return tuple(numbers)


def format_ranges(numbers: Iterable[int]) -> str:
    """The shortest text that `parse_ranges` reads back as `numbers`: runs of three and more become ranges."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _range(part: str, most: int, noun: str) -> range:
    match = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", part)
    if not match:
        raise _bad(f"{_short(part)} among the {noun}s" if part else f"no {noun}s named")
    first, last = int(match[1]), int(match[2] or match[1])
    if last >= 2**32:
        raise _bad(f"{noun} number {last}", "numbers below 2**32")
    if last < first:
        raise _bad(f"the range {part}", "ranges that rise")
    if last - first >= most:
        raise _bad(f"{last - first + 1:,} {noun}s in {part}", f"at most {most:,}")
    return range(first, last + 1)


def _bad(found: str, expected: str = "numbers and ranges such as 200-212, 5") -> RequestError:
    return RequestError(found=found, expected=expected, remedy="Correct the range and try again.")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
