"""Principal components of a layer's keys: where they vary most.

Scikit-learn's PCA centres the keys: it is the eigenvectors of their *covariance* `E[(k - k̄)(k - k̄)ᵀ]`. Those of the
*second moment* `C = E[k kᵀ] = covariance + k̄ k̄ᵀ`, by which directions are compared and whitened, are not centred. Where
the mean key is far from zero, as after a ReLU, the first eigenvector of `C` is little more than that mean, which says
nothing of what differs between positions, and the others have to be perpendicular to it. A spectrum should be that of
`C`; directions to look along should be those of the covariance.

A principal component explains variance; nothing makes it mean one thing. Independent components
(`rewrite_core.directions.independent`) and a dictionary (`rewrite_core.directions.dictionary`) are made for that.
"""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch import Tensor

from rewrite_core.directions.direction import Direction
from rewrite_core.directions.layer_keys import LayerKeys, rare_side
from rewrite_core.errors import RequestError

__all__ = ["principal", "principal_axes"]

_RESOLUTION = 1e-10  # variances below this share of the greatest are rounding


def principal(keys: LayerKeys, count: int) -> list[Direction]:
    """The first `count` principal components of the sampled keys, of most variance first.

    Each is turned to the rare side of its heat. Its strengths are the standard deviations of the keys along it and
    along all later components, in the keys' own units; its provenance gives the share of variance it explains.

    Raises:
        RequestError: `count` is not positive, or the keys vary along fewer directions.
    """
    axes, deviations = principal_axes(keys, count)  # [count, C], [K]
    power = deviations.square()  # [K]
    shares = (power / power.sum()).tolist()
    return [
        keys.direction(
            axis,
            "pca",
            deviations[place:],
            f"PCA {place + 1}",
            {
                "component": place + 1,
                "explained_variance_ratio": shares[place],
                "cumulative": sum(shares[: place + 1]),
                "made_with": {"scikit-learn": version("scikit-learn")},
            },
        )
        for place, axis in enumerate(rare_side(axes, keys.rows))
    ]


def principal_axes(keys: LayerKeys, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` axes, orthonormal rows [count, C], and the standard deviations along all axes [K], descending.

    Raises:
        RequestError: as `principal`.
    """
    from sklearn.decomposition import PCA

    keys.require(count, count + 1, "components")
    found = PCA(svd_solver="covariance_eigh").fit(keys.rows.numpy())
    variances = torch.from_numpy(found.explained_variance_)  # [min(k, C)] descending
    kept = variances[variances > _RESOLUTION * variances[0].clamp(min=0)]  # [K]
    if count > len(kept):
        raise RequestError(
            found=f"{count} components of {keys.layer}",
            expected=f"at most {len(kept)}: its keys vary along no more directions",
            remedy="Ask for fewer.",
        )
    return torch.from_numpy(found.components_[:count].copy()), kept.sqrt()
