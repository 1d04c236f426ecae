"""Hair, person, face, eyes, brows, nose and mouth, by three small networks that see pixels alone.

    source = open_faces()                       # needs: pip install 'palimpsest[faces]'
    labels = source(scene)                      # [N, 7, H, W] bool, at the pictures' own size

The networks are Google's, made for photographs of one person (MediaPipe, Apache 2.0; ``data/segmenters/faces/``). The
files tell their shapes and nothing else, so what goes in and comes out is taken from MediaPipe's published graphs:

* *hair*: RGB in [0, 1], and as a fourth channel the mask of the frame before, which is zero for a picture that stands
  alone; comes out as two logits a pixel, of which the second is hair.
* *person*: RGB in [0, 1]; comes out as a probability.
* *face*: RGB in [0, 1] of a square crop round a face; comes out as 468 points (x, y, depth, in pixels of the crop) and
  the logit that there is a face.

No face is searched for: the crop is the picture itself, framed by its own edge (`MARGIN`). That is right for generators
of aligned faces, and for no others. A picture whose face is less sure than `PRESENCE` has no face, eyes, brows, nose or
mouth. A network that never saw such pictures can be sure and wrong, though, as these are with drawn faces: look at the
labels over samples before trusting a number that follows from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dissect.concepts.face_mesh import POINTS, RINGS, filled
from dissect.concepts.litert import Array, LiteNetwork
from rewrite_core.files import read_bytes
from rewrite_core.generators import Generator
from rewrite_core.resources import resource_dir
from rewrite_core.statistics import Scene

__all__ = ["MARGIN", "PRESENCE", "FaceSource", "Landmarks", "open_faces"]

MARGIN = 1 / 4
"""Share of the longer side by which a picture's edge is repeated on all sides before the networks see it.

MediaPipe looks for landmarks in a crop half as wide again as the face, and an aligned face fills its picture. Of 300
samples of face32-dcgan 96% then pass `PRESENCE`, 79% unframed; hair above the forehead is mostly missed unframed.
"""
PRESENCE = 0.9
"""Probability of a face below which none is drawn. Above it are 96% of face32-dcgan, 28% of anime64-dcgan, no noise."""
FAMILIAR_SIDE = 64
"""Pictures of a shorter side are unlike all that the networks have seen."""

_LIMIT = 16 << 20


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Where the face of a picture is.

    Attributes:
        points: x and y [468, 2] of the face mesh, in pixels of the picture from its top left corner.
        presence: the probability that there is a face.
    """

    points: Array
    presence: float


@dataclass(frozen=True, eq=False)
class FaceSource:
    """A concept source; it may be asked from several threads. Every picture is labelled by itself."""

    hair: LiteNetwork
    person: LiteNetwork
    face: LiteNetwork
    digests: Mapping[str, str] = field(default_factory=dict)

    title: ClassVar[str] = "faces"
    names: ClassVar[tuple[str, ...]] = ("hair", "person", *RINGS)
    layers: ClassVar[tuple[str, ...]] = ()
    pixels_only: ClassVar[bool] = True
    version: ClassVar[int] = 1
    """Raised whenever the same pictures would get other labels."""

    def check(self, generator: Generator) -> None:
        """Every generator draws RGB, which is all that it takes."""

    def caution(self, generator: Generator) -> str:
        """What to say beside labels of this generator's pictures; empty if nothing."""
        if generator.resolution >= FAMILIAR_SIDE:
            return ""
        return (
            f"The face networks learned from photographs; these pictures have {generator.resolution} pixels a side. "
            "Look at the labels over samples first."
        )

    def identity(self) -> Mapping[str, Any]:
        """The files' digests and the version of what surrounds them."""
        return {"labeller": "faces", "version": self.version, "files": dict(self.digests)}

    @torch.no_grad()
    def __call__(self, scene: Scene) -> Tensor:
        """Labels [N, 7, H, W] bool, in the order of `names`."""
        pictures = scene.pictures.float().cpu()  # [N, 3, H, W]
        labels = [self._labels(picture) for picture in pictures.split(1)]
        return torch.stack(labels).to(scene.pictures.device)

    @torch.no_grad()
    def landmarks(self, picture: Tensor) -> Landmarks:
        """The face in one picture [1, 3, H, W] in [-1, 1], be there one or not."""
        return self._landmarks(_Framed.of(picture.float().cpu()))

    def _labels(self, picture: Tensor) -> Tensor:
        """[7, H, W] bool of one picture [1, 3, H, W] in [-1, 1]."""
        framed = _Framed.of(picture)
        hair, person, face = self._hair(framed), self._person(framed), self._landmarks(framed)
        shown = face.presence >= PRESENCE
        parts = filled(face.points, framed.size) if shown else np.zeros((len(RINGS), *framed.size), bool)
        return torch.cat([hair[None], person[None], torch.from_numpy(parts)])

    def _hair(self, framed: _Framed) -> Tensor:
        """[H, W] bool."""
        before = torch.zeros_like(framed.pixels[:, :1])
        (logits,) = self.hair(_input(torch.cat([framed.pixels, before], 1), self.hair))  # [1, h, w, 2]
        return framed.unframed(torch.from_numpy(logits[..., 1] - logits[..., 0]).sigmoid()) > 0.5

    def _person(self, framed: _Framed) -> Tensor:
        """[H, W] bool."""
        (probability,) = self.person(_input(framed.pixels, self.person))  # [1, h, w, 1]
        return framed.unframed(torch.from_numpy(probability[..., 0])) > 0.5

    def _landmarks(self, framed: _Framed) -> Landmarks:
        mesh, logit = self.face(_input(framed.pixels, self.face))
        scale = framed.pixels.shape[-1] / self.face.input_shape[1]
        points = mesh.reshape(POINTS, 3)[:, :2] * scale - (framed.left, framed.top)  # [468, 2]
        return Landmarks(points, float(torch.from_numpy(logit).sigmoid()))


def open_faces(folder: Path | None = None) -> FaceSource:
    """The source that ships with Palimpsest; `folder` holds the three files, if not its own.

    Raises:
        PalimpsestError: LiteRT is not installed.
        FileError: a file is missing, or not the network that its name says.
    """
    folder = folder or resource_dir("data") / "segmenters" / "faces"
    names = ("hair_segmentation.tflite", "selfie_segmentation.tflite", "face_landmark.tflite")
    contents = {name: read_bytes(folder / name, what=name, limit_bytes=_LIMIT) for name in names}
    hair, person, face = (
        LiteNetwork(content, what=name, extra="faces") for name, content in contents.items()
    )
    hair.require((1, -1, -1, 4), (1, -1, -1, 2))
    person.require((1, -1, -1, 3), (1, -1, -1, 1))
    face.require((1, -1, -1, 3), (1, 1, 1, 3 * POINTS), (1, 1, 1, 1))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return FaceSource(hair, person, face, digests)


@dataclass(frozen=True, eq=False)
class _Framed:
    """A picture of `size` (H, W) in the middle of a square, `pixels` [1, 3, S, S] in [0, 1], its edge repeated."""

    pixels: Tensor
    size: tuple[int, int]
    top: int
    left: int

    @classmethod
    def of(cls, picture: Tensor) -> _Framed:
        """Of a picture [1, 3, H, W] in [-1, 1]."""
        height, width = picture.shape[2:]
        side = max(height, width) + 2 * round(MARGIN * max(height, width))
        top, left = (side - height) // 2, (side - width) // 2
        around = (left, side - width - left, top, side - height - top)
        pixels = functional.pad(picture.add(1).div(2).clamp(0, 1), around, mode="replicate")  # [1, 3, S, S]
        return cls(pixels, (height, width), top, left)

    def unframed(self, values: Tensor) -> Tensor:
        """What a network says of the square, [1, h, w], on the picture's own pixels, [H, W]."""
        height, width = self.size
        whole = _scaled(values[:, None], (self.pixels.shape[2], self.pixels.shape[3]))[0, 0]  # [S, S]
        return whole[self.top : self.top + height, self.left : self.left + width]


def _input(pixels: Tensor, network: LiteNetwork) -> Array:
    """A square [1, C, S, S] as the network takes it, [1, h, w, C]."""
    _, height, width, _ = network.input_shape
    values: Array = _scaled(pixels, (height, width)).permute(0, 2, 3, 1).numpy()
    return values


def _scaled(values: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(values, size, mode="bilinear", align_corners=False, antialias=True)
