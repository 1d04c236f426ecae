"""Sparse coding of keys: a k-sparse autoencoder, and how it is trained.

Makhzani & Frey, *k-Sparse Autoencoders* (2013, arXiv 1312.5663), as Gao et al., *Scaling and evaluating sparse
autoencoders* (2024, arXiv 2406.04093) train them:

    p = E k + b          z = the `active` greatest of max(p, 0), all others 0          k̂ = z D + b'

Rows of the decoder `D` have unit length, held there after every step; the encoder starts as the decoder; `b'` starts as
the mean key and is subtracted before the encoder while it is trained (here it is in `b`). The loss is the squared error
alone: that only `active` features may speak is what makes it sparse, so there is no penalty to be tuned.

Features that die are not revived. On the default layer of the embedded default neither way to do it was worth having:
with the auxiliary loss of Gao et al. no fewer were unused, and with dead ones drawn anew from large errors a few fewer,
for a little less explained. A lower learning rate leaves fewer; more features than a layer has use for die in any case.

Everything here is plain tensors: keys [M, C], codes [M, F].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.jobs import Progress
from rewrite_core.settings import Settings

__all__ = ["DictionarySettings", "SparseCoder", "fit"]

_DECAY = 0.3  # the share of steps, at the end, over which the learning rate falls to 0
_REPORT = 20  # steps between two reports of progress


class DictionarySettings(Settings):
    """How a sparse dictionary is learned."""

    features: int | None = Field(default=None, ge=1, le=1 << 16)
    """None: four for each unit of the layer."""
    active: int | None = Field(default=None, ge=1, le=1 << 12)
    """How many features may make up one key, at most; None: one for each 16 units, and at least 4."""
    steps: int = Field(default=2000, ge=1, le=1_000_000)
    batch: int = Field(default=256, ge=1, le=1 << 16)
    """Keys in a step."""
    rate: float = Field(default=1e-3, gt=0, le=1)
    """Adam's learning rate, for keys of unit variance."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    """Of the first decoder, and of the order of the keys."""

    def resolved(self, units: int) -> DictionarySettings:
        """The same for a layer of so many units: nothing is None.

        Raises:
            RequestError: more features would be active than there are.
        """
        features = self.features or 4 * units
        active = self.active or min(max(4, units // 16), features)
        if active > features:
            raise RequestError(
                found=f"{active} active ones of {features} features",
                expected=f"at most {features}",
                remedy="Ask for more features, or for fewer active ones.",
            )
        return self.model_copy(update={"features": features, "active": active})


@dataclass(frozen=True, eq=False)
class SparseCoder:
    """A trained autoencoder, float32 on the CPU."""

    encoder: Tensor  # [F, C]
    encoder_bias: Tensor  # [F]
    decoder: Tensor  # [F, C] rows of unit length
    decoder_bias: Tensor  # [C]
    active: int

    def encode(self, keys: Tensor) -> Tensor:
        """Codes [M, F] of `keys` [M, C]: never negative, at most `active` of each key above 0."""
        return _greatest(keys.to(self.encoder) @ self.encoder.T + self.encoder_bias, self.active)

    def decode(self, codes: Tensor) -> Tensor:
        """The keys [M, C] that `codes` [M, F] make up."""
        return codes @ self.decoder + self.decoder_bias


def fit(keys: Tensor, settings: DictionarySettings, progress: Progress | None = None) -> SparseCoder:
    """A coder trained on `keys` [M, C], which vary.

    The same keys and settings give the same bits at the same number of threads.

    Raises:
        Cancelled: from `progress`, which is told the steps.
    """
    settings = settings.resolved(keys.shape[1])
    assert settings.active, "settings are resolved"
    mean = keys.mean(0)  # [C]
    scale = math.sqrt(keys.shape[1] / (keys - mean).square().sum(1).mean().item())  # a unit has variance 1
    rows = ((keys - mean) * scale).float()  # [M, C]
    with torch.inference_mode(False), torch.enable_grad():
        encoder, bias, decoder, centre = _train(rows, settings, progress)
    bias = (bias - encoder @ centre) / scale - encoder @ mean.float()  # [F]
    return SparseCoder(encoder, bias, decoder, (centre / scale + mean).float(), settings.active)


def _train(
    rows: Tensor, settings: DictionarySettings, progress: Progress | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encoder [F, C], bias [F], decoder [F, C] and centre [C] for `rows` [M, C] of mean 0 and unit variance."""
    draw = torch.Generator().manual_seed(settings.seed)
    features, active, units = settings.features, settings.active, rows.shape[1]
    assert features, "settings are resolved"
    assert active, "settings are resolved"
    decoder = torch.nn.functional.normalize(torch.randn(features, units, generator=draw))  # [F, C]
    weights = [decoder.clone(), torch.zeros(features), decoder, torch.zeros(units)]
    encoder, bias, decoder, centre = (weight.requires_grad_() for weight in weights)
    adam = torch.optim.Adam([encoder, bias, decoder, centre], lr=settings.rate, fused=True)
    batches = _Batches(rows, settings.batch, draw)
    for step in range(settings.steps):
        if progress and step % _REPORT == 0:
            progress(step, settings.steps)
        left = (settings.steps - step) / settings.steps
        adam.param_groups[0]["lr"] = settings.rate * min(1.0, left / _DECAY)
        batch = batches.next()  # [B, C]
        codes = _greatest((batch - centre) @ encoder.T + bias, active)  # [B, F]
        error = batch - codes @ decoder - centre  # [B, C]
        adam.zero_grad()
        error.square().mean().backward()
        assert decoder.grad is not None
        with torch.no_grad():  # a row may turn, not grow
            decoder.grad -= (decoder.grad * decoder).sum(1, keepdim=True) * decoder
        adam.step()
        with torch.no_grad():
            decoder /= torch.linalg.vector_norm(decoder, dim=1, keepdim=True)
    if progress:
        progress(settings.steps, settings.steps)
    return encoder.detach(), bias.detach(), decoder.detach(), centre.detach()


class _Batches:
    """Rows in random order, `size` at a time, and in another order once too few are left."""

    def __init__(self, rows: Tensor, size: int, draw: torch.Generator) -> None:
        self.rows, self.size, self.draw = rows, min(size, len(rows)), draw
        self._order = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """[B, C]."""
        if len(self._order) < self.size:
            self._order = torch.randperm(len(self.rows), generator=self.draw)
        chosen, self._order = self._order[: self.size], self._order[self.size :]
        return self.rows[chosen]


def _greatest(activations: Tensor, count: int) -> Tensor:
    """`activations` [M, F] where they are among the `count` greatest of their row and above 0, else 0."""
    values, places = activations.topk(count, dim=1)  # [M, count]
    return torch.zeros_like(activations).scatter(1, places, values.relu())
