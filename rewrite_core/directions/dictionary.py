"""A sparse dictionary of a layer: many features, few of which at a time make up any key.

A sparse autoencoder (`rewrite_core.directions.sparse`) with more features than the layer has units is trained on the
layer's keys. Each feature has two vectors: its row of the encoder is the *query* that finds it, its row of the decoder
the *key* that it adds, of unit length::

    pre-activations  p = E k + b                    [F]
    code             z = the greatest `active` of max(p, 0), all others 0
    reconstruction   k̂ = z D + b'

It is today's successor of the single unit: a feature may be one unit, which `features` tells, or a combination that no
single unit stands for.

    dictionary = learn_dictionary(layer_keys(generator, "l08", spec), DictionarySettings(), progress)
    dictionary.quality.explained, dictionary.quality.principal     # of held-out keys; PCA of as many numbers
    dictionary.features().head()
    dictionary.direction(17)
    dictionary.save("l08.dictionary.safetensors")

Axes: features `F`, units `C`, keys `M`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rewrite_core.directions.dictionary_file import Told, pack, unpack
from rewrite_core.directions.dictionary_quality import Quality, measured
from rewrite_core.directions.direction import Direction
from rewrite_core.directions.layer_keys import LayerKeys
from rewrite_core.directions.sparse import DictionarySettings, SparseCoder, fit
from rewrite_core.errors import LayerError, ModelMismatch, RequestError
from rewrite_core.files import write_bytes
from rewrite_core.generators import Generator
from rewrite_core.jobs import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dictionary", "DictionarySettings", "Quality", "learn_dictionary"]

HELD_OUT = 10
"""One key in so many is held out: nothing is learned from it."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse dictionary of one layer's keys.

    Attributes:
        coder: its encoder and decoder.
        layer: whose keys they are.
        model: name of the generator.
        fingerprint: of the pristine generator.
        settings: how it was learned; nothing in them is None.
        quality: how well it describes the keys.
        origin: the keys that it was learned from, and versions of what learned it: JSON.
    """

    coder: SparseCoder
    layer: str
    model: str
    fingerprint: str
    settings: DictionarySettings
    quality: Quality
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def encoder(self) -> Tensor:
        """The query of each feature, [F, C] float32."""
        return self.coder.encoder

    @property
    def encoder_bias(self) -> Tensor:
        """What is added to the heat of each query, [F]."""
        return self.coder.encoder_bias

    @property
    def decoder(self) -> Tensor:
        """The key that each feature adds, [F, C], of unit length."""
        return self.coder.decoder

    @property
    def decoder_bias(self) -> Tensor:
        """The key that no feature adds to, [C]."""
        return self.coder.decoder_bias

    def encode(self, keys: Tensor) -> Tensor:
        """How much of each feature makes up `keys` [M, C]: [M, F], at most `settings.active` of a key above 0."""
        return self.coder.encode(keys)

    def decode(self, codes: Tensor) -> Tensor:
        """The keys [M, C] that `codes` [M, F] make up."""
        return self.coder.decode(codes)

    def features(self) -> pd.DataFrame:
        """A row for each feature, the one that explains most first.

        Columns: `feature` (its number), `density` and `explained` (`Quality.density` and `Quality.removed`), `dead`,
        `unit` (the single unit whose axis lies nearest to its decoder row), and `cosine` with that axis: near 1 the
        feature is that unit, near -1 the unit upside down, in between a direction that no unit stands for.
        """
        import pandas as pd

        nearest = self.decoder.abs().argmax(1)  # [F]
        table = pd.DataFrame(
            {
                "feature": range(len(self.decoder)),
                "density": self.quality.density.numpy(),
                "explained": self.quality.removed.numpy(),
                "dead": self.quality.dead.numpy(),
                "unit": nearest.numpy(),
                "cosine": self.decoder.gather(1, nearest[:, None])[:, 0].double().numpy(),
            }
        )
        return table.sort_values("explained", ascending=False, kind="stable", ignore_index=True)

    def direction(self, feature: int) -> Direction:
        """The query of `feature`, with the key that it adds; its strength is the share of variance it explains.

        Its heat and its pre-activation differ by a scale and a bias, which are in the provenance: `bias / scale` is
        added to the heat before it is compared with those of the other features.

        Raises:
            RequestError: there is no such feature.
        """
        if not 0 <= feature < len(self.encoder):
            raise RequestError(
                found=f"feature {feature} of the dictionary of {self.layer}",
                expected=f"0 to {len(self.encoder) - 1}",
                remedy="Choose one of its table.",
            )
        query, quality = self.encoder[feature].double(), self.quality
        length = torch.linalg.vector_norm(query)
        return Direction(
            vectors=(query / length)[None],  # [1, C]
            layer=self.layer,
            method="dictionary",
            singular_values=quality.removed[feature].clamp(min=0)[None],
            name=f"feature {feature}",
            provenance={
                **self.origin,  # first: a file may say anything there
                "feature": feature,
                "scale": float(length),
                "bias": float(self.encoder_bias[feature]),
                "density": float(quality.density[feature]),
                "explained": float(quality.removed[feature]),
                "dead": bool(quality.dead[feature]),
                "settings": self.settings.model_dump(),
            },
            model=self.model,
            fingerprint=self.fingerprint,
            key=self.decoder[feature].double(),
        )

    def leading(self, count: int) -> list[Direction]:
        """The directions of the `count` features that explain most; fewer where the others are dead.

        Raises:
            RequestError: `count` is not positive.
        """
        if count < 1:
            raise RequestError(
                found=f"{count} features", expected="at least 1", remedy="Ask for one or more."
            )
        table = self.features()
        return [self.direction(int(feature)) for feature in table[~table["dead"]]["feature"][:count]]

    def check(self, generator: Generator) -> None:
        """Raise unless it was learned from `generator` and is as wide as its layer.

        Raises:
            ModelMismatch: with both fingerprints.
            LayerError: the layer is missing, or of another width.
        """
        have = generator.pristine.fingerprint
        if self.fingerprint != have:
            raise ModelMismatch(
                found=f"a dictionary of {self.model} ({self.fingerprint[:12]})",
                expected=f"one of {generator.name} ({have[:12]})",
                remedy="Open the generator it was learned from, or learn one of this.",
            )
        units = generator.layer(self.layer).in_channels
        if self.encoder.shape[1] != units:
            raise LayerError(
                found=f"a dictionary of {self.encoder.shape[1]} units",
                expected=f"{units}, the width of the keys of {self.layer} in {generator.name}",
                remedy="Open the generator it was learned from, or learn one of this.",
            )

    def save(self, path: Path | str) -> None:
        """Write its file, whole or not at all. A `FileError` says why it cannot be."""
        write_bytes(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Its file's content: the same dictionary always gives the same bytes."""
        quality = self.quality
        told = Told(
            layer=self.layer,
            model=self.model,
            fingerprint=self.fingerprint,
            settings=self.settings,
            explained=quality.explained,
            principal=quality.principal,
            single=quality.single,
            keys=quality.keys,
            held_out=quality.held_out,
            origin=dict(self.origin),
        )
        tensors = {
            "encoder": self.encoder,
            "encoder_bias": self.encoder_bias,
            "decoder": self.decoder,
            "decoder_bias": self.decoder_bias,
            "density": quality.density,
            "removed": quality.removed,
        }
        return pack(told, tensors)

    @classmethod
    def load(cls, source: Path | str | bytes, what: str = "dictionary file") -> Dictionary:
        """Read a dictionary's file, or its content; `what` names the latter in errors.

        Raises:
            FileError: it is none, of a newer version, damaged, not finite, or contradicts itself; nothing in it is
                ever executed.
        """
        if not isinstance(source, bytes):
            source = Path(source)
            what = source.name
        told, tensors = unpack(source, what)
        quality = Quality(
            explained=told.explained,
            principal=told.principal,
            single=told.single,
            keys=told.keys,
            held_out=told.held_out,
            density=tensors.pop("density"),
            removed=tensors.pop("removed"),
        )
        coder = SparseCoder(**tensors, active=told.settings.active or 1)
        return cls(coder, told.layer, told.model, told.fingerprint, told.settings, quality, told.origin)


def learn_dictionary(
    keys: LayerKeys, settings: DictionarySettings | None = None, progress: Progress | None = None
) -> Dictionary:
    """A dictionary of the sampled keys, the last tenth of which (the sample is in random order) is held out.

    The same keys and settings give the same bits at the same number of threads. It takes about a minute for a layer of
    some hundred units.

    Raises:
        RequestError: more features are to be active than there are, there are fewer keys than features, or the keys do
            not vary.
        Cancelled: from `progress`, which is told the steps.
    """
    settings = (settings or DictionarySettings()).resolved(keys.units)
    assert settings.features
    keys.require(settings.features, max(settings.features, 2 * HELD_OUT), "features")
    held_out = len(keys.rows) // HELD_OUT
    learned, unseen = keys.rows[:-held_out], keys.rows[-held_out:]  # [M, C], [m, C]
    for part in (learned, unseen):
        if not bool((part != part[0]).any()):
            raise RequestError(
                found=f"keys of {keys.layer} that are all the same",
                expected="keys that vary",
                remedy="Draw more pictures, or choose another layer.",
            )
    coder = fit(learned, settings, progress)
    origin = {"keys": keys.origin(), "made_with": {"torch": torch.__version__}}
    quality = measured(coder, learned, unseen)
    return Dictionary(coder, keys.layer, keys.model, keys.fingerprint, settings, quality, origin)
