"""Any semantic segmenter of the transformers library as a source of concepts.

    source = open_segmenter(Path("segformer-b0"))              # a folder as `save_pretrained` writes it
    source = open_hub_segmenter("nvidia/segformer-b0-finetuned-ade-512-512")    # downloads; nothing else does

It needs ``pip install 'palimpsest[segmenters]'``. A folder holds ``config.json`` (with ``id2label``, the names of the
concepts), ``preprocessor_config.json`` and the weights as safetensors. Nothing in it is executed: no code that comes
with a model, no pickle; and a folder is opened without a word to the network.

Pictures are brought to the model's size and range by its own preprocessor, on the CPU and without torchvision. It
would cut or pad some pictures; here it may not, so that labels lie where their pixels are. The logits are brought to
the pictures' size bilinearly, as the library does, and every pixel carries the one label whose logit is highest.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dissect.concepts.extras import extra_module
from rewrite_core.errors import FileError, PalimpsestError
from rewrite_core.files import read_json, require_finite
from rewrite_core.generators import Generator
from rewrite_core.pictures import to_uint8
from rewrite_core.statistics import Scene

__all__ = ["TransformersSegmenter", "open_hub_segmenter", "open_segmenter"]

MICRO_BATCH = 8
"""Pictures that the network sees at once."""

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_UNCUT = ("do_center_crop", "do_pad")


@dataclass(frozen=True, eq=False)
class TransformersSegmenter:
    """A concept source; it may be asked from several threads, and for pictures on any device.

    Attributes:
        title: what the folder or the model is called.
        names: the labels of ``id2label``, in the order of their numbers.
        digest: SHA-256 of the configuration, the preprocessing and the weights.
    """

    title: str
    names: tuple[str, ...]
    digest: str
    _network: nn.Module
    _preprocess: Any
    _moved: dict[torch.device, nn.Module] = field(default_factory=dict)
    _moving: threading.Lock = field(default_factory=threading.Lock)

    layers: ClassVar[tuple[str, ...]] = ()
    pixels_only: ClassVar[bool] = True
    version: ClassVar[int] = 1
    """Raised whenever the same pictures would get other labels."""

    def check(self, generator: Generator) -> None:
        """Every generator draws RGB, which is all that it takes."""

    def identity(self) -> Mapping[str, Any]:
        """The digest of all that was read, and the version of what surrounds it."""
        return {"labeller": "transformers", "version": self.version, "model": self.digest}

    @torch.no_grad()
    def __call__(self, scene: Scene) -> Tensor:
        """Labels [N, L, H, W] bool, one of which is true at every pixel."""
        network = self._on(scene.pictures.device)
        return torch.cat([self._labels(network, pictures) for pictures in scene.pictures.split(MICRO_BATCH)])

    def _labels(self, network: nn.Module, pictures: Tensor) -> Tensor:
        uncut = {name: False for name in _UNCUT if getattr(self._preprocess, name, None)}
        given = self._preprocess(
            images=list(to_uint8(pictures)), input_data_format="channels_last", return_tensors="pt", **uncut
        )
        logits = network(given["pixel_values"].to(pictures.device)).logits  # [N, L, h, w]
        whole = functional.interpolate(
            logits, pictures.shape[2:], mode="bilinear", align_corners=False
        )  # [N, L, H, W]
        label = whole.argmax(1)  # [N, H, W]
        numbers = torch.arange(len(self.names), device=pictures.device)
        return label[:, None] == numbers[:, None, None]  # [N, L, H, W]

    def _on(self, device: torch.device) -> nn.Module:
        """The network there; the one that was opened stays on the CPU."""
        if device.type == "cpu":
            return self._network
        with self._moving:
            if device not in self._moved:
                self._moved[device] = copy.deepcopy(self._network).to(device)
            return self._moved[device]


def open_segmenter(folder: Path, *, title: str | None = None) -> TransformersSegmenter:
    """The segmenter in `folder`, called `title` or else what the folder is called; nothing is downloaded.

    Raises:
        PalimpsestError: transformers is not installed.
        FileError: the folder is not a whole semantic segmenter that this can open.
    """
    transformers = extra_module("transformers", extra="segmenters", what="a segmenter")
    title = title or folder.resolve().name
    config = _described(folder, title, transformers)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileError(
            found=f"{title}: no weights as safetensors in {folder}",
            expected="model.safetensors",
            remedy="Save it with model.save_pretrained(folder); a pickle (.bin) is not opened, since it can run code.",
        )
    names = _names(config.get("id2label"), title)
    network, preprocess = _loaded(folder, title, transformers)
    require_finite(network.state_dict(), title)
    files = [folder / _CONFIG, folder / _PREPROCESSOR, *folder.glob("*.safetensors.index.json"), *weights]
    return TransformersSegmenter(title, names, _digest(files), network, preprocess)


def open_hub_segmenter(name: str, *, revision: str | None = None) -> TransformersSegmenter:
    """The segmenter that the Hugging Face hub knows as `name` (OWNER/MODEL), downloaded unless its cache has it.

    Raises:
        PalimpsestError: transformers is not installed, there is no such model, or it cannot be downloaded.
        FileError: as `open_segmenter`.
    """
    hub = extra_module("huggingface_hub", extra="segmenters", what="a segmenter of the hub")
    try:
        folder = hub.snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors"])
    except Exception as problem:  # whatever the network, the hub or a name that is none raises
        raise PalimpsestError(
            found=f"{name} cannot be downloaded from the hub ({_one_line(problem)})",
            expected="the name of a public model, such as owner/model",
            remedy="Check name and connection, or give a folder with the model instead.",
        ) from None
    return open_segmenter(Path(folder), title=name)


def _described(folder: Path, title: str, transformers: Any) -> Mapping[str, Any]:
    """The decoded ``config.json`` of a semantic segmenter that is all in its folder."""
    config = read_json(folder / _CONFIG, what=f"{title}: {_CONFIG}")
    config = config if isinstance(config, dict) else {}
    known = set(transformers.models.auto.modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES.values())
    kinds = config.get("architectures")
    if not isinstance(kinds, list) or not known.intersection(map(str, kinds)):
        raise FileError(
            found=f"{title}: {', '.join(map(str, kinds)) if isinstance(kinds, list) else 'no architecture'}",
            expected="a model for semantic segmentation, such as SegformerForSemanticSegmentation",
            remedy="Choose a model of the hub's task image-segmentation that names one of these in config.json.",
        )
    if config.get("backbone") and not config.get("backbone_config"):
        raise FileError(
            found=f"{title}: a backbone that is named ({str(config['backbone'])[:60]}) instead of described",
            expected="a backbone_config in config.json, so that nothing has to be asked of the hub",
            remedy="Open it with transformers and save it again with save_pretrained.",
        )
    return config


def _names(id2label: Any, title: str) -> tuple[str, ...]:
    """The labels by number; two that are called alike are told apart by it."""
    if not isinstance(id2label, dict) or {str(number) for number in range(len(id2label))} != set(id2label):
        raise FileError(
            found=f"{title}: no id2label for every number from 0 on",
            expected="the names of its labels in config.json",
            remedy='Add them: "id2label": {"0": "background", "1": "hair", …}.',
        )
    names = [str(id2label[str(number)]) for number in range(len(id2label))]
    times = Counter(names)
    return tuple(name if times[name] == 1 else f"{name} ({number})" for number, name in enumerate(names))


def _loaded(folder: Path, title: str, transformers: Any) -> tuple[nn.Module, Any]:
    """The network, whole and in evaluation, and what prepares its pictures."""
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet(transformers):
            preprocess = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
            network, report = transformers.AutoModelForSemanticSegmentation.from_pretrained(
                folder,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",  # the configuration's may be code of the hub
                output_loading_info=True,
                **local,
            )
    except Exception as problem:  # whatever a damaged or foreign file makes transformers raise
        raise FileError(
            found=f"{title} cannot be opened ({_one_line(problem)})",
            expected=f"{_CONFIG}, {_PREPROCESSOR} and weights that belong together",
            remedy="Save or download the folder again.",
        ) from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise FileError(
            found=f"{title}: {len(missing)} tensors are missing, such as {missing[0]}",
            expected="weights of the whole segmenter",
            remedy="Save or download the folder again.",
        )
    return network.eval().requires_grad_(False), preprocess


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the library's progress bars and advice, whose settings are the process's own and put back."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _digest(files: Sequence[Path]) -> str:
    """Of the contents, in this order."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _one_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:200]
