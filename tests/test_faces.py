"""The face networks: where their labels lie, that they hold still, and what is said when something is missing.

Their worth on any generator is for whoever looks at the labels over samples; what is tested is the wiring. face32 draws
photographs' faces well enough that eyes must come out above mouths.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Polygon
from torch import Tensor

from dissect.concepts import ConceptSource, require_pixels_only
from dissect.concepts.extras import extra_module
from dissect.concepts.face_mesh import POINTS, RINGS, filled, inside
from dissect.concepts.faces import FaceSource, open_faces
from rewrite_core.errors import FileError, PalimpsestError
from rewrite_core.generators import LatentSpec, open_generator
from rewrite_core.generators.latents import Latents
from rewrite_core.resources import resource_dir
from rewrite_core.statistics import Scene
from tests.generators import small_generator

pytest.importorskip("ai_edge_litert", reason="LiteRT is an extra: pip install 'palimpsest[faces]'")

FOLDER = resource_dir("data") / "segmenters" / "faces"
FILES = ("face_landmark.tflite", "hair_segmentation.tflite", "selfie_segmentation.tflite")
COUNT = 4


@pytest.fixture(scope="module")
def source() -> FaceSource:
    return open_faces()


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Faces of photographs, 32 pixels a side."""
    generator = open_generator("face32-dcgan")
    latents = generator.latents(LatentSpec.of(range(COUNT)))
    return Scene(generator.pictures(latents), latents)


@pytest.fixture(scope="module")
def labels(source: FaceSource, scene: Scene) -> Tensor:
    return source(scene)


def shown(pictures: Tensor) -> Scene:
    """A scene of pictures that no generator drew."""
    return Scene(pictures, Latents(torch.zeros(len(pictures), 1), LatentSpec.of(range(len(pictures)))))


def centre(mask: Tensor) -> tuple[float, float]:
    """Mean row and column of a mask."""
    row, column = mask.nonzero().float().mean(0).tolist()
    return row, column


def test_it_is_a_source_that_sees_pixels_alone(source):
    concepts: ConceptSource = source
    require_pixels_only(concepts)
    assert concepts.names == ("hair", "person", "face", "eyes", "brows", "nose", "mouth")
    assert concepts.layers == ()


def test_labels_are_on_the_pictures_own_grid(labels):
    assert labels.shape == (COUNT, 7, 32, 32)
    assert labels.dtype == torch.bool


def test_a_face_has_its_parts_where_faces_have_them(source, labels):
    found = {name: labels[0, at] for at, name in enumerate(source.names)}
    brows, eyes, nose, mouth = (centre(found[name])[0] for name in ("brows", "eyes", "nose", "mouth"))
    assert brows < eyes < nose < mouth
    for part in ("eyes", "brows", "nose", "mouth"):
        assert bool((found[part] <= found["face"]).all()), part
    assert (found["person"] & found["face"]).sum() > 0.9 * found["face"].sum()


def test_a_mirrored_face_has_mirrored_labels(source, scene, labels):
    mirrored = source(shown(scene.pictures[:1].flip(3)))
    (row, column), (row_of, column_of) = centre(labels[0, 5]), centre(mirrored[0, 5])
    assert abs(row - row_of) < 1.5
    assert abs(31 - column - column_of) < 1.5


def test_a_larger_picture_of_a_face_has_the_same_landmarks_in_its_own_pixels(source, scene):
    small = source.landmarks(scene.pictures[:1])
    large = source.landmarks(
        torch.nn.functional.interpolate(scene.pictures[:1], scale_factor=4, mode="bilinear")
    )
    assert small.points.shape == (POINTS, 2)
    assert np.abs(large.points / 4 - small.points).max() < 1


def test_labels_depend_neither_on_order_nor_on_the_batch(source, scene, labels):
    backwards = Scene(scene.pictures.flip(0), scene.latents)
    assert torch.equal(source(backwards).flip(0), labels)
    assert torch.equal(source(shown(scene.pictures[2:3])), labels[2:3])


def test_another_opening_and_another_thread_say_the_same(source, scene, labels):
    some = shown(scene.pictures[:2])
    found = [open_faces()(some)]
    threads = [threading.Thread(target=lambda: found.append(source(some))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(torch.equal(other, labels[:2]) for other in found)


def test_pictures_are_left_as_they_were(source, scene):
    before = scene.pictures.clone()
    source(scene)
    assert torch.equal(scene.pictures, before)


def test_noise_has_no_face(source):
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert source.landmarks(noise[:1]).presence < 0.1
    assert not source(shown(noise))[:, 2:].any()


def test_a_picture_need_not_be_square(source, scene):
    square = source.landmarks(scene.pictures[:1])
    wide = torch.nn.functional.pad(scene.pictures[:1], (6, 2, 0, 0), mode="replicate")  # [1, 3, 32, 40]
    assert source(shown(wide)).shape == (1, 7, 32, 40)
    assert np.abs(source.landmarks(wide).points - (6, 0) - square.points).mean() < 1.5


def test_any_generator_will_do_but_small_pictures_are_cautioned_against(source):
    small = small_generator()
    source.check(small)
    assert "16 pixels" in source.caution(small)
    assert source.caution(open_generator("anime64-dcgan")) == ""


def test_the_identity_names_the_files_that_ship_and_their_provenance(source):
    digests = {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in FILES}
    assert source.identity() == {"labeller": "faces", "version": source.version, "files": digests}
    assert set(digests.values()) == set(re.findall("[0-9a-f]{64}", (FOLDER / "PROVENANCE.md").read_text()))


# The mesh


def test_what_is_inside_a_ring_is_what_another_implementation_says():
    draw = np.random.RandomState(0)
    size = (20, 30)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], 1)
    for corners in (3, 4, 9):
        angles = np.sort(draw.rand(corners)) * 2 * np.pi
        reach = (4 + 14 * draw.rand(corners))[:, None]  # some rings leave the picture
        ring = (15, 10) + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        assert np.array_equal(inside(ring, size).ravel(), Polygon(ring).contains_points(centres))


def test_a_ring_outside_the_picture_holds_no_pixel():
    ring = np.array([(-9.0, -9.0), (-2.0, -9.0), (-2.0, -3.0)])
    assert not inside(ring, (8, 8)).any()
    assert not inside(ring + 30, (8, 8)).any()


def test_rings_are_points_of_the_mesh_and_none_twice():
    for rings in RINGS.values():
        used = [point for ring in rings for point in ring]
        assert len(set(used)) == len(used)
        assert 0 <= min(used) <= max(used) < POINTS


def test_every_concept_of_the_mesh_has_a_mask():
    points = np.random.RandomState(0).rand(POINTS, 2) * 16
    masks = filled(points, (16, 16))
    assert masks.shape == (len(RINGS), 16, 16)
    assert masks.any((1, 2)).all()


# What is missing or wrong


def test_without_litert_the_error_says_what_to_install(monkeypatch):
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PalimpsestError, match=r"ai-edge-litert.*pip install 'palimpsest\[faces\]'"):
        open_faces()


def test_a_package_that_cannot_be_loaded_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_runtime.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        PalimpsestError, match=r"no broken-runtime that can be loaded .*a_module_that_nobody_has"
    ):
        extra_module("broken_runtime", extra="faces", what="a test")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    return tmp_path


def test_a_missing_file_is_named(copied):
    (copied / FILES[0]).unlink()
    with pytest.raises(FileError, match=r"face_landmark\.tflite cannot be read"):
        open_faces(copied)


@pytest.mark.parametrize("content", [b"", b"no network", b"\x18\0\0\0TFL3" + bytes(64)])
def test_a_file_that_is_no_network_is_refused(copied, content):
    (copied / FILES[1]).write_bytes(content)
    with pytest.raises(FileError, match=r"hair_segmentation\.tflite"):
        open_faces(copied)


def test_a_truncated_network_is_refused(copied):
    whole = (copied / FILES[2]).read_bytes()
    (copied / FILES[2]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"selfie_segmentation\.tflite"):
        open_faces(copied)


def test_another_network_under_the_name_is_refused(copied):
    (copied / FILES[0]).write_bytes((copied / FILES[2]).read_bytes())
    with pytest.raises(FileError, match=r"face_landmark\.tflite .*1 × 256 × 256 × 3.*1404"):
        open_faces(copied)
