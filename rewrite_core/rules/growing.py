"""Growing a painted region to what its layer takes for the same: "grow to similar".

    found = alike(generator, "l08", painted, statistics)        # [H, W], one pass, kept while a slider moves
    mask = grown(painted, found, 0.6, connected=True)           # a Mask
    mask = grow(generator, "l08", painted, statistics, 0.6, connected=True)      # both

How similar a position is to what was painted is the whitened cosine of its key `k_p` with the mean painted key `k̄` in
the same picture, weighted by area,

    s(p) = k_pᵀ C'⁻¹ k̄ / √(k_pᵀ C'⁻¹ k_p · k̄ᵀ C'⁻¹ k̄),      C' = C + 0.1 · (tr C / n) · I

in the metric in which contexts become directions (`rewrite_core.directions.context`): 1 for the mean painted key itself
and around 0 for what has nothing to do with it. On the layer's grid it is brought to the mask's size bilinearly, as
overlays bring heat, and compared with a threshold. What was painted belongs to the grown mask whatever its similarity,
as softly as it was painted; the size of a mask stays that which it was painted at.

*Connected* means over sides and corners: what is similar is kept only in pieces that touch what was painted, so that
one eye stays one eye; without it the other eye is found too.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import MaskError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.memory import observe, weighted_mean, whiten
from rewrite_core.pictures import Mask
from rewrite_core.rules.painted import painted_keys
from rewrite_core.rules.regions import Painted
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.settings import LatentSettings
from rewrite_core.statistics import LayerStatistics

__all__ = ["RIDGE", "alike", "grow", "grown"]

RIDGE = 0.1
"""Added to C, in mean eigenvalues: what contexts have by default."""


def grow(
    generator: Generator,
    layer: str,
    painted: Painted,
    statistics: LayerStatistics,
    similarity: float,
    *,
    connected: bool,
    latents: LatentSettings | None = None,
) -> Mask:
    """The region `painted`, and what is similar to it in the same picture, as drawn without rules.

    Args:
        generator: it is looked at as it is when pristine, whatever rules it is viewed through.
        layer: whose keys tell what is similar.
        painted: the region.
        statistics: of the layer.
        similarity: 0 to 1, above which a position is similar.
        connected: only what touches the painted region, directly or by way of what is similar.
        latents: how pictures are numbered; as by default if not given.

    Raises:
        LayerError: there is no such layer.
        RequestError: `similarity` is out of range, or the statistics are of another layer.
        MaskError: what is painted covers no position of the layer, or one where its keys are zero.
    """
    found = alike(generator, layer, painted, statistics, latents)
    return grown(painted, found, similarity, connected=connected)


@torch.no_grad()
def alike(
    generator: Generator,
    layer: str,
    painted: Painted,
    statistics: LayerStatistics,
    latents: LatentSettings | None = None,
) -> Tensor:
    """How similar each position of the layer inside the picture is to what is painted: [h, w] float64, -1 to 1.

    Raises:
        LayerError, RequestError, MaskError: as `grow`.
    """
    if statistics.layer != layer:
        raise RequestError(
            found=f"statistics of layer {statistics.layer}",
            expected=f"those of layer {layer}",
            remedy="Gather them with layer_statistics.",
        )
    request = EditRequest(latents=latents or LatentSettings())
    keys, areas = painted_keys(generator.pristine, layer, request, [painted])  # [1, C, h, w], [1, h, w]
    seen = observe(keys, areas)
    zca = whiten(statistics.second_moment, ridge=RIDGE).zca  # [C, C]
    mean = zca @ weighted_mean(seen, seen.keys)  # [C]
    if not mean.norm() > 0:
        raise MaskError(
            found="a painted area where the layer's keys are zero or cancel",
            expected="an area where the layer responds",
            remedy="Paint elsewhere, or choose another layer.",
        )
    inside = generator.layer(layer).inside(keys)[0].to("cpu", torch.float64)  # [C, h, w]
    white = (zca @ inside.flatten(1)).reshape(inside.shape)  # [C, h, w]
    return functional.cosine_similarity(white, mean[:, None, None], dim=0)  # [h, w]


def grown(painted: Painted, alike: Tensor, similarity: float, *, connected: bool) -> Mask:
    """What is painted, and where `alike` [h, w] is above `similarity`, at the size of the painted mask.

    Raises:
        RequestError: `similarity` is out of range.
    """
    if not 0 <= similarity <= 1:
        raise RequestError(
            found=f"a similarity of {similarity:g}", expected="0 to 1", remedy="Give a number in that range."
        )
    large = functional.interpolate(
        alike[None, None], painted.mask.size, mode="bilinear", align_corners=False
    )[0, 0].numpy()  # [H, W]
    pixels = painted.mask.pixels
    similar = large > similarity
    if connected:
        similar = _touching(similar | (pixels > 0), pixels > 0)
    return Mask(np.where(similar & (pixels == 0), np.uint8(255), pixels))


def _touching(region: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pieces of `region` [H, W] that hold a pixel of `seeds`; pixels touch by their sides and corners."""
    from scipy.ndimage import label  # slow to import

    pieces, count = label(region, structure=np.ones((3, 3)))  # [H, W] from 1; 0 outside
    kept = np.zeros(count + 1, dtype=bool)
    kept[pieces[seeds]] = True
    kept[0] = False
    touching: NDArray[np.bool_] = kept[pieces]
    return touching
