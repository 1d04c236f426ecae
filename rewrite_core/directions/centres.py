"""Centres of whitened keys: what k-means takes for the layer's own contexts.

In the coordinates `Z k`, where `Z = C'^(-1/2)`, no direction of key space is commoner than another, so that clusters
are not merely the units of greatest power. The centre of a cluster is `m = mean(Z k) = Z k̄`, with `k̄` the mean key of
its positions, and the query for it is ``d = Z m = C'⁻¹ k̄``: what `rewrite_core.directions.context` makes of a painted
context by its mean key. `C'` has the same ridge as there, without which the directions that the layer hardly uses would
decide as much as all others.
"""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch import Tensor

from rewrite_core.directions.context import ContextSettings
from rewrite_core.directions.direction import Direction
from rewrite_core.directions.layer_keys import LayerKeys
from rewrite_core.directions.quiet import unconverged_in_silence
from rewrite_core.errors import RequestError
from rewrite_core.memory import whiten

__all__ = ["centres"]

_STARTS = 4


def centres(keys: LayerKeys, count: int, seed: int = 0) -> list[Direction]:
    """The centres of `count` clusters of the sampled keys, the one of most positions first.

    Its strength is ``|m|``, in root mean squares of a typical direction; `key` is the mean key `k̄` of its positions,
    and its provenance gives the share of all positions that they are. Positions where every unit is 0 have no
    direction: a centre there is left out.

    Raises:
        RequestError: `count` is not positive, or there are not so many different keys.
    """
    keys.require(count, 2 * count, "centres")
    ridge = ContextSettings().ridge
    whitening = whiten(keys.moment.matrix, ridge=ridge)
    labels = _clusters(keys.rows @ whitening.zca, count, seed)  # [k]
    sizes = labels.bincount(minlength=count)  # [count]
    if not bool(sizes.all()):
        raise RequestError(
            found=f"{int((sizes > 0).sum())} different keys of {keys.layer} in the sample",
            expected=f"at least {count}, one for each centre",
            remedy="Ask for fewer centres, or choose another layer.",
        )
    order = sizes.argsort(descending=True, stable=True).tolist()
    found: list[Direction] = []
    for cluster in order:
        key = keys.rows[labels == cluster].mean(0)  # [C]
        centre = whitening.zca @ key  # [C]
        if not bool(centre.any()):
            continue
        provenance = {
            "centre": len(found) + 1,
            "of": count,
            "seed": seed,
            "share": int(sizes[cluster]) / len(labels),
            "settings": {"ridge": ridge},
            "made_with": {"scikit-learn": version("scikit-learn")},
        }
        strength = torch.linalg.vector_norm(centre)[None]  # [1]
        name = f"centre {len(found) + 1}"
        found.append(keys.direction(whitening.zca @ centre, "k-means", strength, name, provenance, key))
    return found


def _clusters(points: Tensor, count: int, seed: int) -> Tensor:
    """Which of `count` clusters each of `points` [k, C] belongs to, [k] int64; some are empty if points coincide."""
    from sklearn.cluster import KMeans

    with unconverged_in_silence():  # it warns of points that coincide, too
        found = KMeans(count, n_init=_STARTS, random_state=seed).fit(points.numpy())
    return torch.from_numpy(found.labels_).long()
