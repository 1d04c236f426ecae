"""Painted concepts as a concept source: train on strokes, label every sample.

    painted = train(generator, file)          # or: painted = open_painted(path, generator)
    painted.evaluation.table()                # held out, by concept
    painted.file.save(path)                   # strokes, and what was learned from them

Each pixel gets the one concept that scores highest; so whatever else is in the pictures has to be painted too, as a
concept such as background. Labels are read off the feature maps of the unedited generator, so they may be asked of
unedited samples only: a view with rules is refused, and so is every use that shows edited pictures.

What was learned is kept in the concept file beside the strokes. Learning again elsewhere may differ in the last bits,
and these weights, not the strokes, are the identity under which statistics are stored: a file that carries them gives
the same labels, and finds the same statistics, on every machine. They count only for the strokes and settings that they
were learned from; with others they are learned anew.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.evaluation import Evaluation
from dissect.concepts.learning import VERSION, Learned, LearningSettings, learn
from dissect.concepts.readout import Readout
from rewrite_core.errors import FileError, ModelMismatch, PalimpsestError
from rewrite_core.files import read_json, read_safetensors, require_finite, to_safetensors_bytes
from rewrite_core.generators import Generator, Progress
from rewrite_core.rules.rule import versions
from rewrite_core.statistics import Scene

__all__ = ["PaintedConcepts", "check_file", "open_painted", "require_painted", "train"]

_WEIGHT = "weight."
_REMEDY = "Remove 'learned' from the file: it is learned again from the strokes."


@dataclass(frozen=True, eq=False)
class PaintedConcepts:
    """A concept source (`dissect.concepts.source`) that was painted.

    Attributes:
        file: the strokes, with what was learned from them.
        learned: the readout, the ridge, and how well concepts are read when held out.
        soft: whether labels are probabilities; else each pixel has one concept.
    """

    file: ConceptFile
    learned: Learned
    soft: bool = False

    pixels_only = False

    @property
    def title(self) -> str:
        """What it is called on screen."""
        return f"painted: {self.file.model.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts."""
        return self.file.concepts

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it reads."""
        return self.learned.readout.layers

    @property
    def evaluation(self) -> Evaluation:
        """How well concepts are read on pictures that were held out."""
        return self.learned.evaluation

    def identity(self) -> Mapping[str, Any]:
        """What its labels depend on: the learned weights, and how they are read."""
        return {
            "source": "painted",
            "version": VERSION,
            "names": list(self.names),
            "readout": self.learned.readout.digest,
            "size": list(self.file.size),
            "soft": self.soft,
        }

    def check(self, generator: Generator) -> None:
        """See that `generator` is the one whose pictures were painted, without rules.

        Raises:
            ModelMismatch: it is another, or a view with rules.
        """
        check_file(self.file, generator)

    @torch.no_grad()
    def __call__(self, scene: Scene) -> Tensor:
        """Labels [N, L, R, R] of the scene: bool, one concept in each pixel; or, if soft, probabilities."""
        scores = self.learned.readout(scene.maps, self.file.size)  # [N, L, R, R]
        if self.soft:
            return scores.softmax(1)
        numbers = torch.arange(len(self.names), device=scores.device)[:, None, None]  # [L, 1, 1]
        return scores.argmax(1, keepdim=True) == numbers


def train(
    generator: Generator,
    file: ConceptFile,
    settings: LearningSettings | None = None,
    progress: Progress | None = None,
) -> PaintedConcepts:
    """Learn the concepts of `file` and judge them on pictures held out in turn.

    Raises:
        ModelMismatch: the file is for another generator, or this one has rules.
        PalimpsestError: there are fewer than two concepts, or one without strokes.
        LayerError: the settings name a layer that there is not.
        Cancelled: from `progress`.
    """
    settings = settings or LearningSettings()
    check_file(file, generator)
    require_painted(file)
    learned = learn(generator, file, settings, progress)
    return PaintedConcepts(file.with_learned(_to_bytes(learned, _origin(file, settings))), learned)


def open_painted(
    source: Path | bytes | ConceptFile,
    generator: Generator,
    settings: LearningSettings | None = None,
    progress: Progress | None = None,
) -> PaintedConcepts:
    """Open a concept file: with what was learned from these strokes with these settings, if it has that; else `train`.

    Raises:
        FileError: the file is damaged.
        ModelMismatch, PalimpsestError, LayerError, Cancelled: see `train`.
    """
    file = source if isinstance(source, ConceptFile) else ConceptFile.load(source)
    check_file(file, generator)
    require_painted(file)
    if file.learned is not None:
        learned = _from_bytes(file, generator, _origin(file, settings or LearningSettings()))
        if learned is not None:
            return PaintedConcepts(file, learned)
    return train(generator, file, settings, progress)


def check_file(file: ConceptFile, generator: Generator) -> None:
    """See that `file` is of the pictures of `generator`, without rules.

    Raises:
        ModelMismatch: it is of another's, of a view with rules, or of pictures of another size.
    """
    made_for, have = file.model.fingerprint, generator.fingerprint
    if made_for == have:
        if file.size != generator.picture_size:
            raise ModelMismatch(
                found="strokes on pictures of {}×{} pixels".format(*file.size),
                expected="{}×{}, as {} draws them".format(*generator.picture_size, generator.name),
                remedy="Open a concept file that was not changed by hand.",
            )
        return
    if made_for == generator.pristine.fingerprint:
        raise ModelMismatch(
            found=f"{generator.pristine.name} with rules",
            expected="the generator without rules, since painted concepts know unedited samples only",
            remedy="Switch the rules off, or use a source that sees pixels alone.",
        )
    raise ModelMismatch(
        found=f"concepts painted for {file.model.name} ({made_for[:12]})",
        expected=f"concepts painted for {generator.name} ({have[:12]})",
        remedy="Open the generator they were painted for.",
    )


def require_painted(file: ConceptFile) -> None:
    """See that there are two concepts or more, all with strokes: what can be learned.

    Raises:
        PalimpsestError: it says which concept is lacking.
    """
    if len(file.concepts) < 2:
        raise PalimpsestError(
            found=f"only the concept {file.concepts[0]!r}" if file.concepts else "no concept",
            expected="two or more, so that there is something to tell apart",
            remedy="Add and paint another, such as background.",
        )
    painted = {number for some in file.strokes for number in np.unique(some.labels).tolist()}
    for number, name in enumerate(file.concepts):
        if number not in painted:
            raise PalimpsestError(
                found=f"the concept {name!r} without strokes",
                expected="strokes of every concept",
                remedy=f"Paint {name} on a few pictures, or remove it.",
            )


def _origin(file: ConceptFile, settings: LearningSettings) -> str:
    """SHA-256 of strokes, settings and the version of the method: what the weights follow from."""
    whole = [file.digest, settings.model_dump(mode="json"), VERSION]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def _require_possible(file: ConceptFile, learned: Learned) -> None:
    """See that numbers read from a file can have come of its strokes; a ValueError says which cannot."""
    found, most = learned.evaluation, len(file.strokes) * file.size[0] * file.size[1]
    if not 0 < learned.ridge < math.inf:
        raise ValueError(f"a ridge of {learned.ridge}")
    if not 0 <= found.pictures <= len(file.strokes):
        raise ValueError("more pictures held out than painted, or fewer than none")
    if not found.confusion.size or found.confusion.min() < 0 or found.confusion.max() > most:
        raise ValueError("counts of pixels that cannot be")


def _to_bytes(learned: Learned, origin: str) -> bytes:
    """What was learned, as a safetensors file."""
    tensors = {f"{_WEIGHT}{layer}": weight for layer, weight in learned.readout.weights.items()}
    tensors |= {"bias": learned.readout.bias, "confusion": torch.from_numpy(learned.evaluation.confusion)}
    header = {
        "origin": origin,
        "layers": list(learned.readout.layers),
        "ridge": learned.ridge,
        "pictures": learned.evaluation.pictures,
        "made_with": versions() | {"scikit-learn": version("scikit-learn")},
    }
    return to_safetensors_bytes(tensors, {"palimpsest": json.dumps(header)})


def _from_bytes(file: ConceptFile, generator: Generator, origin: str) -> Learned | None:
    """What `_to_bytes` wrote; None if it was learned from something else.

    Raises:
        FileError: it is damaged, or does not fit the generator's layers.
    """
    what = "what the concept file says was learned"
    tensors, metadata = read_safetensors(file.learned or b"", what=what, limit_bytes=64 << 20)
    try:
        header = read_json(metadata["palimpsest"], what=what)
        if header["origin"] != origin:
            return None
        weights = {layer: tensors[f"{_WEIGHT}{layer}"].float() for layer in header["layers"]}
        readout, confusion = Readout(weights, tensors["bias"].float()), tensors["confusion"].long()
        evaluation = Evaluation(file.concepts, int(header["pictures"]), confusion.numpy())
        learned = Learned(readout, float(header["ridge"]), evaluation)
        _require_possible(file, learned)
    except (KeyError, TypeError, ValueError) as problem:
        raise FileError(found=f"{what} is damaged ({problem})", expected="weights", remedy=_REMEDY) from None
    concepts = len(file.concepts)
    shapes = {layer: (concepts, generator.layer(layer).in_channels) for layer in weights}
    fits = all(weights[layer].shape == shapes[layer] for layer in weights) and weights
    if not fits or readout.bias.shape != (concepts,) or confusion.shape != (concepts, concepts):
        raise FileError(found=f"{what} has other shapes", expected=f"weights {shapes}", remedy=_REMEDY)
    require_finite(tensors, what)
    return learned
