"""Maps of change as pictures: more in red, less in blue, none in a light grey.

The colours are those of a diverging map whose two arms differ in lightness from the middle alike (RdBu of
ColorBrewer, Harrower and Brewer 2003), which readers with any colour blindness tell apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewrite_core.pictures import Picture

__all__ = ["signed"]

_STOPS = np.array(
    [
        [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [242, 242, 242],
        [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43],
    ],
    dtype=np.float64,
)  # fmt: skip


def signed(change: NDArray[np.floating], limit: float | None = None) -> Picture:
    """Maps of change [..., H, W] as pictures [..., H, W, 3], the full colours at ± `limit`.

    Without `limit` it is the greatest change of all the maps together; where nothing changes, all is grey.
    """
    limit = float(np.abs(change).max(initial=0.0)) if limit is None else limit
    share = np.clip(change / limit if limit else np.zeros_like(change), -1, 1) * 0.5 + 0.5  # [..., H, W]
    places = np.linspace(0, 1, len(_STOPS))
    colours = np.stack([np.interp(share, places, channel) for channel in _STOPS.T], axis=-1)  # [..., H, W, 3]
    picture: Picture = colours.round().astype(np.uint8)
    return picture
