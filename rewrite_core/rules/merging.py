"""Several rules of one layer as one rule: the sum of their changes, at the rank that the sum has.

Rules of a layer add up exactly, ``Σ sᵢ Λᵢ Dᵢ``, so their sum is itself a rule::

    D = stacked Dᵢ  [ΣR, C]     Λ = stacked sᵢ Λᵢ  [O, ΣR, kh, kw]

Stacked directions depend on each other where rules act on the same context. The sum is compressed without ever making
the change [O, C, kh, kw] itself: with ``Dᵀ = Q T`` (QR), and ``Λ Tᵀ = U S Vᵀ`` (singular values, output
channels and taps taken together), it is ``(U S) (Q V)ᵀ``. Singular values that float32 cannot tell from 0 beside the
parts are left out: nothing else is lost. The new directions are orthonormal, strongest first, each turned the way the
parts point, and the strength is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rewrite_core.errors import LayerError, ModelMismatch, RequestError
from rewrite_core.rules.rule import Provenance, Rule, versions

__all__ = ["merged"]

ROUNDING = torch.finfo(torch.float32).eps
"""Singular values below this share of the largest part are rounding: the parts are float32."""


def merged(rules: Sequence[Rule], name: str) -> Rule:
    """One rule, called `name`, that changes the layer as all `rules` together do, to float32's rounding.

    A sum that vanishes is a rule of rank 1 that changes nothing.

    Raises:
        RequestError: there are no rules, or they are of several layers.
        ModelMismatch: they were made for several generators.
        LayerError: they were made for weights of several shapes.
    """
    _require_one_weight(rules)
    directions = torch.cat([_exact(rule.directions) for rule in rules])  # [ΣR, C]
    basis, triangle = torch.linalg.qr(directions.T)  # Q [C, m], T [m, ΣR]
    parts = [  # sᵢ Λᵢ Tᵢᵀ: what each rule does, [O·kh·kw, m]
        rule.strength * _exact(rule.delta).movedim(1, 3).flatten(0, 2) @ columns.T
        for rule, columns in zip(rules, triangle.split([rule.rank for rule in rules], dim=1), strict=True)
    ]
    left, strengths, right = torch.linalg.svd(sum(parts[1:], parts[0]), full_matrices=False)
    strengths = torch.where(strengths > ROUNDING * max(part.norm() for part in parts), strengths, 0.0)
    rank = max(1, int((strengths > 0).sum()))
    kept = right[:rank] @ basis.T  # [r, C]
    turn = torch.where(kept @ directions.sum(0) < 0, -1.0, 1.0).to(kept)  # [r]
    outputs, _, height, width = rules[0].delta.shape
    kernels = (left[:, :rank] * strengths[:rank] * turn).reshape(outputs, height, width, rank)
    delta = kernels.movedim(3, 1).contiguous()  # [O, r, kh, kw]
    return Rule((turn[:, None] * kept).float(), delta.float(), _described(rules, name))


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _require_one_weight(rules: Sequence[Rule]) -> None:
    layers = list(dict.fromkeys(rule.layer for rule in rules))
    if len(layers) != 1:
        raise RequestError(
            found=f"rules at {', '.join(layers)}" if rules else "no rule to merge",
            expected="rules at one layer",
            remedy="Merge those of a layer at a time.",
        )
    made_for = {rule.provenance.fingerprint: rule.provenance.model for rule in rules}
    if len(made_for) > 1:
        told = [f"{model} ({fingerprint[:12]})" for fingerprint, model in made_for.items()]
        raise ModelMismatch(
            found=f"rules made for {' and '.join(told[:2])}",
            expected="rules made for one generator",
            remedy="Merge those of a generator at a time.",
        )
    shapes = {(rule.delta.shape[0], rule.directions.shape[1], *rule.delta.shape[2:]) for rule in rules}
    if len(shapes) > 1:
        raise LayerError(
            found=f"rules for weights {' and '.join(str(list(shape)) for shape in sorted(shapes)[:2])}",
            expected="rules for one weight",
            remedy="Merge rules that were made at one layer.",
        )


def _described(rules: Sequence[Rule], name: str) -> Provenance:
    digests = tuple(rule.digest for rule in rules)
    beneath = dict.fromkeys(digest for rule in rules for digest in rule.provenance.beneath)
    return Provenance(
        model=rules[0].provenance.model,
        fingerprint=rules[0].provenance.fingerprint,
        layer=rules[0].layer,
        name=name,
        beneath=tuple(digest for digest in beneath if digest not in digests),
        merged=digests,
        made_with=versions(),
    )
