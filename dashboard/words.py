"""Shares, times, sizes and counts, as a page says them."""

from __future__ import annotations

__all__ = ["ago", "counted", "duration", "percent", "share", "size"]


def percent(share: float) -> str:
    """0.254 → ``25 %``."""
    return f"{100 * share:.0f} %"


def share(value: float) -> str:
    """Small shares, with a digit behind the point below 10 %: 0.163 → ``16 %``, 0.0104 → ``1.0 %``."""
    return percent(value) if value >= 0.0995 else f"{100 * value:.1f} %"


def size(count: float) -> str:
    """Bytes, as ``12.3 MB``: powers of 1000, like every file manager."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def duration(seconds: float) -> str:
    """``12 s``, ``3 min``, ``5 h`` or ``2 days``."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    if seconds < 100 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{round(seconds / 3600)} h"
    return f"{round(seconds / 86_400)} days"


def ago(seconds: float) -> str:
    """How long ago something was: ``3 min ago``."""
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


def counted(count: int, noun: str) -> str:
    """``1 job``, ``1,200 jobs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
