"""Segmenters of the transformers library: the library's own labels, from a folder, with nothing asked of a network.

The models are tiny and their weights random; what they say means nothing, but must be what transformers says.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from dissect.concepts import ConceptSource, require_pixels_only
from dissect.concepts.transformers_segmenter import (
    MICRO_BATCH,
    TransformersSegmenter,
    open_hub_segmenter,
    open_segmenter,
)
from rewrite_core.errors import FileError, PalimpsestError
from rewrite_core.generators import LatentSpec
from rewrite_core.generators.latents import Latents
from rewrite_core.pictures import to_uint8
from rewrite_core.statistics import Scene
from tests.generators import small_generator

transformers = pytest.importorskip(
    "transformers", reason="transformers is an extra: pip install 'palimpsest[segmenters]'"
)

NAMES = ("background", "hair", "eye")
PREPROCESSING = {
    "image_processor_type": "SegformerImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
SEGFORMER = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [3, 3],
    "strides": [2, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
}
MOBILE = {
    "image_size": 64,
    "hidden_sizes": [16, 16, 16],
    "neck_hidden_sizes": [8, 8, 8, 8, 8, 16, 16],
    "aspp_out_channels": 8,
    "num_attention_heads": 2,
}
MOBILE_PREPROCESSING = {
    "image_processor_type": "MobileViTImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 72},
    "do_center_crop": True,
    "crop_size": {"height": 64, "width": 64},
    "do_rescale": True,
    "do_flip_channel_order": True,
}


def saved(folder: Path, model: Any, preprocessing: dict[str, Any]) -> Path:
    """`folder` with `model` in it, whose weights are drawn lively enough that several labels win somewhere."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 2 / max(1, parameter[0].numel()) ** 0.5, generator=draw)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def segformer(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    config = transformers.SegformerConfig(**SEGFORMER, id2label=dict(enumerate(names)))
    return saved(folder, transformers.SegformerForSemanticSegmentation(config), PREPROCESSING)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copied(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copied"))


@pytest.fixture(scope="module")
def source(tiny: Path) -> TransformersSegmenter:
    return open_segmenter(tiny)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """More pictures than the network sees at once, 16 pixels a side."""
    generator = small_generator()
    latents = generator.latents(LatentSpec.of(range(MICRO_BATCH + 2)))
    return Scene(generator.pictures(latents), latents)


def described(folder: Path, **changes: Any) -> Path:
    """`folder` with these fields of ``config.json`` changed, or left out where they are None."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def said(folder: Path, kind: Any, pictures: Tensor) -> list[Tensor]:
    """What transformers itself says of each picture, [H, W] int64 by its own post-processing."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = kind.from_pretrained(folder)
    images = [Image.fromarray(picture) for picture in to_uint8(pictures)]
    size = (pictures.shape[2], pictures.shape[3])
    with torch.no_grad():
        result = model(**processor(images=images, return_tensors="pt"))
    maps: list[Tensor] = processor.post_process_semantic_segmentation(
        result, target_sizes=[size] * len(images)
    )
    return maps


# What it says


def test_it_is_a_source_that_sees_pixels_alone(source):
    concepts: ConceptSource = source
    require_pixels_only(concepts)
    concepts.check(small_generator())
    assert (concepts.title, concepts.names, concepts.layers) == ("tiny", NAMES, ())


def test_labels_are_those_that_transformers_gives(source, scene, tiny):
    labels = source(scene)
    assert labels.shape == (MICRO_BATCH + 2, len(NAMES), 16, 16)
    assert labels.dtype == torch.bool
    assert (labels.sum(1) == 1).all()
    assert labels.any((0, 2, 3)).sum() > 1  # the test means little where one label is everywhere
    expected = torch.stack(said(tiny, transformers.SegformerForSemanticSegmentation, scene.pictures))
    assert torch.equal(labels.int().argmax(1), expected)


def test_a_preprocessor_that_cuts_the_edge_may_not(tmp_path, scene):
    config = transformers.MobileViTConfig(**MOBILE, id2label=dict(enumerate(NAMES)))
    model = transformers.MobileViTForSemanticSegmentation(config)
    folder = saved(tmp_path / "mobile", model, MOBILE_PREPROCESSING)
    labels = open_segmenter(folder)(scene)
    whole = {**MOBILE_PREPROCESSING, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(whole))
    expected = torch.stack(said(folder, transformers.MobileViTForSemanticSegmentation, scene.pictures))
    assert torch.equal(labels.int().argmax(1), expected)


def test_pictures_need_not_be_square(source):
    pictures = torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scene = Scene(pictures, Latents(torch.zeros(1, 1), LatentSpec.of([0])))
    assert source(scene).shape == (1, len(NAMES), 10, 14)


def test_the_identity_depends_on_the_files_and_not_on_where_they_are(source, copied):
    assert open_segmenter(copied).identity() == source.identity()
    described(copied, id2label={"0": "background", "1": "hair", "2": "mouth"})
    assert open_segmenter(copied).identity() != source.identity()


def test_labels_that_are_called_alike_are_told_apart_by_number(copied):
    described(copied, id2label={"0": "wall", "1": "screen", "2": "screen"})
    assert open_segmenter(copied).names == ("wall", "screen (1)", "screen (2)")


def test_opening_and_labelling_leave_the_librarys_settings_and_say_nothing(tiny, scene, capfd):
    logging = transformers.utils.logging
    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    open_segmenter(tiny)(scene)
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before
    assert capfd.readouterr() == ("", "")


# Nothing is downloaded unasked


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """No way out of this process; what tried to get out."""
    tried: list[Any] = []

    def refuse(*address: Any, **options: Any) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def test_a_folder_is_opened_without_a_word_to_the_network(tiny, alone):
    open_segmenter(tiny)
    assert not alone


def test_a_backbone_that_would_be_looked_up_is_refused(copied, alone):
    described(
        copied, architectures=["UperNetForSemanticSegmentation"], model_type="upernet", backbone="owner/model"
    )
    with pytest.raises(FileError, match="a backbone that is named"):
        open_segmenter(copied)
    assert not alone


def test_a_hub_name_is_asked_for_and_its_failure_is_one_line(alone, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PalimpsestError, match="owner/model cannot be downloaded from the hub") as caught:
        open_hub_segmenter("owner/model")
    assert "\n" not in str(caught.value)
    assert alone


@pytest.mark.parametrize("name", ["", "a/b/c", "../somewhere"])
def test_what_is_no_hub_name_is_refused(name, alone):
    with pytest.raises(PalimpsestError, match="cannot be downloaded"):
        open_hub_segmenter(name)
    assert not alone


def test_what_the_hubs_cache_holds_is_opened_under_its_name(tiny, source, tmp_path, monkeypatch, alone):
    place = tmp_path / "models--owner--model"
    shutil.copytree(tiny, place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    opened = open_hub_segmenter("owner/model")
    assert opened.title == "owner/model"
    assert opened.identity() == source.identity()
    assert not alone


# What is missing or wrong


def test_without_transformers_the_error_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PalimpsestError, match=r"no transformers;.*pip install 'palimpsest\[segmenters\]'"):
        open_segmenter(tiny)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"config\.json cannot be read"):
        open_segmenter(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"config\.json cannot be read"):
        open_segmenter(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", '{"architectures": 3}', '{"architectures": [{}]}'])
def test_a_configuration_that_is_none_is_refused(copied, text):
    (copied / "config.json").write_text(text)
    with pytest.raises(FileError, match="copied"):
        open_segmenter(copied)


def test_a_classifier_is_refused(tmp_path):
    config = transformers.SegformerConfig(**SEGFORMER, id2label=dict(enumerate(NAMES)))
    folder = saved(tmp_path / "cats", transformers.SegformerForImageClassification(config), PREPROCESSING)
    with pytest.raises(
        FileError, match="cats: SegformerForImageClassification; expected a model for semantic"
    ):
        open_segmenter(folder)


def test_a_classifier_under_a_segmenters_name_is_refused(tmp_path):
    config = transformers.SegformerConfig(**SEGFORMER, id2label=dict(enumerate(NAMES)))
    folder = saved(tmp_path / "cats", transformers.SegformerForImageClassification(config), PREPROCESSING)
    described(folder, architectures=["SegformerForSemanticSegmentation"])
    with pytest.raises(FileError, match=r"cats: \d+ tensors are missing, such as decode_head"):
        open_segmenter(folder)


@pytest.mark.parametrize("labels", [None, [], {"1": "hair", "2": "eye"}, {"a": "hair"}])
def test_labels_without_names_are_refused(copied, labels):
    with pytest.raises(FileError, match="no id2label"):
        open_segmenter(described(copied, id2label=labels))


def test_more_names_than_labels_are_refused(copied):
    described(copied, id2label={"0": "a", "1": "b", "2": "c", "3": "d"})
    with pytest.raises(FileError, match="copied cannot be opened") as caught:
        open_segmenter(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_refused(copied, name):
    (copied / name).unlink()
    with pytest.raises(FileError, match="copied"):
        open_segmenter(copied)


def test_a_pickle_is_not_opened(copied, tiny):
    (copied / "model.safetensors").unlink()
    torch.save(load_file(tiny / "model.safetensors"), copied / "pytorch_model.bin")
    with pytest.raises(FileError, match="since it can run code"):
        open_segmenter(copied)


def test_code_that_comes_with_a_model_is_not_run(copied):
    (copied / "evil.py").write_text("raise SystemExit('run')")
    entry = {"AutoConfig": "evil.Config", "AutoModelForSemanticSegmentation": "evil.Model"}
    described(copied, auto_map=entry, model_type="evil")
    with pytest.raises(FileError, match="copied cannot be opened"):
        open_segmenter(copied)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"no weights", lambda data: b""]
)
def test_damaged_weights_are_refused(copied, damage):
    path = copied / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match="copied cannot be opened") as caught:
        open_segmenter(copied)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(copied):
    tensors = load_file(copied / "model.safetensors")
    tensors["decode_head.classifier.bias"][0] = np.nan
    save_file(tensors, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(FileError, match=r"1 of 3 numbers in 'decode_head\.classifier\.bias' are NaN"):
        open_segmenter(copied)
