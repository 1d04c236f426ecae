"""Words that come from outside, shown as they are: Streamlit reads labels and messages as Markdown."""

from __future__ import annotations

import re

__all__ = ["plain"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~$:&-])")


def plain(text: str) -> str:
    """`text` with every character that Markdown would act on escaped: a name cannot become a link or a picture."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
