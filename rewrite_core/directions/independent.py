"""Independent components of a layer's keys: sources that vary independently of each other.

FastICA (Hyvärinen & Oja, *Independent component analysis: algorithms and applications*, Neural Networks 2000) looks
for the unmixing directions along which the keys, once they are centred, cut to their leading principal components and
made of unit variance, are as far from normal as can be: ``k = k̄ + A s``, ``s = W (k - k̄)``. A direction is a row of
`W`; what its source adds to a key is the column of `A` with the same number.

It is scikit-learn's implementation, started from seeded random numbers. Another seed may give other components where
sources are nearly normal; how far from normal each is, its excess kurtosis, is in the provenance.
"""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch import Tensor

from rewrite_core.directions.direction import Direction
from rewrite_core.directions.layer_keys import LayerKeys, rare_side
from rewrite_core.directions.principal import principal_axes
from rewrite_core.directions.quiet import unconverged_in_silence

__all__ = ["independent"]

_ITERATIONS = 500
_TOLERANCE = 1e-4


def independent(keys: LayerKeys, count: int, seed: int = 0) -> list[Direction]:
    """`count` independent components of the first `count` principal ones, the one that adds most variance first.

    Each is turned to the rare side of its heat. Its strength is the standard deviation that its source gives the
    keys, ``|a|`` for its column `a` of `A`; its provenance says whether FastICA converged.

    Raises:
        RequestError: `count` is not positive, or the keys vary along fewer directions.
    """
    axes, deviations = principal_axes(keys, count)  # [count, C], [K]
    scores = (keys.rows - keys.rows.mean(0)) @ axes.T  # [k, count]
    unmixing, iterations = _fast_ica(scores / deviations[:count], seed)  # [count, count]
    unmixing = unmixing / deviations[:count]
    power = torch.linalg.inv(unmixing).square().sum(0)  # [count] |a|², the axes being orthonormal
    order = power.argsort(descending=True, stable=True)
    queries = rare_side((unmixing @ axes)[order], keys.rows)  # [count, C]
    sources = scores @ unmixing[order].T  # [k, count], of mean 0 and variance 1
    kurtosis = (sources.pow(4).mean(0) / sources.square().mean(0).square() - 3).tolist()
    shares = (power[order] / deviations.square().sum()).tolist()
    return [
        keys.direction(
            query,
            "ica",
            power[order[place]].sqrt()[None],
            f"ICA {place + 1}",
            {
                "component": place + 1,
                "of": count,
                "seed": seed,
                "explained_variance_ratio": shares[place],
                "excess_kurtosis": kurtosis[place],
                "converged": iterations < _ITERATIONS,
                "iterations": iterations,
                "made_with": {"scikit-learn": version("scikit-learn")},
            },
        )
        for place, query in enumerate(queries)
    ]


def _fast_ica(white: Tensor, seed: int) -> tuple[Tensor, int]:
    """The unmixing matrix [count, count] of `white` [k, count], uncorrelated and of variance 1; and how many rounds."""
    from sklearn.decomposition import FastICA

    solver = FastICA(whiten=False, random_state=seed, max_iter=_ITERATIONS, tol=_TOLERANCE)
    with unconverged_in_silence():
        found = solver.fit(white.numpy())
    return torch.from_numpy(found.components_.copy()), found.n_iter_
