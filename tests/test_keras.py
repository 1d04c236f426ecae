"""Keras files: pictures that Keras itself drew, the formulas apart from torch, and what is refused.

``reference/keras_*.h5`` were written and run by Keras 3.15 (on its torch backend) with seeded random weights.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rewrite_core.errors import FileError
from rewrite_core.generators import (
    LatentSpec,
    SequentialGenerator,
    Source,
    exported,
    open_generator,
    open_source,
)
from rewrite_core.generators.latents import Latents

h5py = pytest.importorskip("h5py", reason="h5py is an extra: pip install 'palimpsest[keras]'")

REFERENCE = Path(__file__).parent / "reference"
STACK = REFERENCE / "keras_stack.h5"


def pictures(generator: SequentialGenerator, z: NDArray[np.float32]) -> NDArray[Any]:
    """In the range of the stack's own output."""
    low, high = generator.output_range
    drawn = generator.pictures(Latents(torch.from_numpy(z), LatentSpec.of(range(len(z)))))
    return ((drawn + 1) / 2 * (high - low) + low).numpy()


@pytest.mark.parametrize("name", ["stack", "nested", "functional"])
def test_pictures_are_those_that_keras_drew(name: str):
    generator = open_generator(REFERENCE / f"keras_{name}.h5")
    assert isinstance(generator, SequentialGenerator)
    with np.load(REFERENCE / "keras_pictures.npz") as golden:
        drawn = pictures(generator, golden[f"{name}_z"])
        expected = golden[name]
    assert np.abs(drawn - expected).max() < 1e-6


def test_an_upload_opens_too_and_survives_our_own_files():
    generator = open_source(Source("upload", {"mine.h5": STACK.read_bytes()}))
    again = open_source(Source("upload", generator.files()))
    assert again.fingerprint == generator.fingerprint == open_generator(STACK).fingerprint
    assert (generator.name, generator.family) == ("mine", "sequential")
    with pytest.raises(FileError, match="which was not opened from a file that can be written again"):
        exported(generator, "own", {})


# Files as Keras 2 wrote them


def layer(kind: str, name: str, /, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


def saved(path: Path, config: Any, weights: dict[str, NDArray[Any]]) -> Path:
    with h5py.File(path, "w") as file:
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        for name, value in weights.items():
            layer = name.partition("/")[0]
            group.create_dataset(f"{layer}/{name}:0", data=value)
    return path


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": list(layers)}}


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.RandomState(len(shape)).standard_normal(shape).astype(np.float32)


def small() -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Dense → map 2×3×4 → transposed convolution, kernel 4, stride 2, same: all that Keras 2 says of it."""
    layers = [
        layer("Dense", "dense", batch_input_shape=[None, 5], units=24, activation="linear"),
        layer("Reshape", "reshape", target_shape=[2, 3, 4]),
        layer("LeakyReLU", "leaky", alpha=0.25),
        layer("BatchNormalization", "norm", axis=[3], epsilon=0.01),
        layer(
            "Conv2DTranspose", "up", strides=[2, 2], padding="same", activation="tanh", output_padding=None
        ),
    ]
    weights: dict[str, NDArray[Any]] = {
        "dense/kernel": random(5, 24), "dense/bias": random(24),
        "norm/gamma": random(4), "norm/beta": random(4),
        "norm/moving_mean": random(4), "norm/moving_variance": np.abs(random(4)) + 0.5,
        "up/kernel": random(4, 4, 3, 4), "up/bias": random(3),
    }  # fmt: skip
    return layers, weights


def computed(weights: dict[str, NDArray[Any]], z: NDArray[np.float32]) -> NDArray[np.float64]:
    """The small stack in numpy, [H, W, C] throughout, the transposed convolution as a scatter."""
    x = (z @ weights["dense/kernel"] + weights["dense/bias"]).reshape(-1, 2, 3, 4).astype(np.float64)
    x = np.where(x > 0, x, 0.25 * x)
    x = (x - weights["norm/moving_mean"]) / np.sqrt(weights["norm/moving_variance"] + 0.01)
    x = x * weights["norm/gamma"] + weights["norm/beta"]
    full = np.zeros((len(z), 2 * 2 + 2, 2 * 3 + 2, 3))
    for row in range(2):
        for column in range(3):
            patch = np.einsum("nc,yxoc->nyxo", x[:, row, column], weights["up/kernel"])
            full[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += patch
    drawn: NDArray[np.float64] = np.tanh(full[:, 1:5, 1:7] + weights["up/bias"])
    return drawn.transpose(0, 3, 1, 2)


def functional(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The same layers as a functional model of Keras 2, listed in another order."""
    given = {"class_name": "InputLayer", "config": {"name": "z", "batch_input_shape": [None, 5]}}
    names = ["z", *(one["config"]["name"] for one in layers)]
    nodes = [[], *([[[before, 0, 0, {}]]] for before in names)]
    listed = [
        {**one, "name": name, "inbound_nodes": node}
        for one, name, node in zip([given, *layers], names, nodes, strict=False)
    ]
    return {"class_name": "Model", "config": {"name": "model", "layers": listed[::-1]}}


@pytest.mark.parametrize("form", ["Sequential", "functional", "a model in a model"])
def test_a_file_of_keras_2_draws_what_its_formulas_say(tmp_path: Path, form: str):
    layers, weights = small()
    config = {
        "Sequential": lambda: sequential(*layers),
        "functional": lambda: functional(layers),
        "a model in a model": lambda: functional([sequential(*layers) | {"name": "inner"}]),
    }[form]
    if form == "a model in a model":
        config_of = config()
        config_of["config"]["layers"][0]["name"] = "inner"
        path = saved(tmp_path / "small.h5", config_of, weights)
    else:
        path = saved(tmp_path / "small.h5", config(), weights)
    generator = open_generator(path)
    assert isinstance(generator, SequentialGenerator)
    z = random(3, 5)
    assert np.abs(pictures(generator, z) - computed(weights, z)).max() < 1e-5


# What is refused


def changed(index: int, **config: Any) -> Callable[[list[dict[str, Any]], dict[str, Any]], Any]:
    return lambda layers, weights: layers[index]["config"].update(config)


def inserted(index: int, one: dict[str, Any]) -> Callable[[list[dict[str, Any]], dict[str, Any]], Any]:
    return lambda layers, weights: layers.insert(index, one)


REFUSED: dict[str, tuple[Callable[[list[dict[str, Any]], dict[str, Any]], Any], str]] = {
    "code": (inserted(1, layer("Lambda", "code", function=["4wEAAAA=", None])), "a Lambda layer, which holds code"),
    "an unknown layer": (inserted(1, layer("MultiHeadAttention", "look")), "a layer MultiHeadAttention"),
    "an unknown activation": (changed(4, activation="mish"), "an activation mish"),
    "channels first": (changed(4, data_format="channels_first"), "Conv2DTranspose with channels first"),
    "output padding": (changed(4, output_padding=[1, 1]), "the settings of the Conv2DTranspose layer 'up'"),
    "strides of a text": (changed(4, strides=["2", "2"]), "strides"),
    "huge strides": (changed(4, strides=[10**9, 10**9]), "strides"),
    "another axis": (changed(3, axis=[1]), "the settings of the BatchNormalization layer 'norm'"),
    "an infinite epsilon": (changed(3, epsilon=1e308 * 10), "Infinity"),
    "a map of another size": (changed(1, target_shape=[2, 3, 5]), "the settings of the Reshape layer"),
    "a map of 10¹²": (changed(1, target_shape=[10**6, 10**6, 1]), "the settings of the Reshape layer"),
    "no input": (lambda layers, weights: layers[0]["config"].pop("batch_input_shape"), "no input shape"),
    "no weights": (lambda layers, weights: weights.pop("up/kernel"), "no kernel of the layer 'up'"),
    "another kernel": (lambda layers, weights: weights.update({"up/kernel": random(4, 4, 3, 9)}), "Conv2DTranspose"),
    "NaN": (lambda layers, weights: weights.update({"up/bias": np.full(3, np.nan)}), "NaN or infinite"),
    "no layers": (lambda layers, weights: layers.clear(), "no chain of layers"),
    "too many layers": (lambda layers, weights: layers.extend(layers[2:3] * 600), "or too many"),
    "two of one name": (inserted(4, small()[0][3]), "two layers called 'norm'"),
}  # fmt: skip


@pytest.mark.parametrize("which", REFUSED)
def test_what_steps_cannot_say_is_refused_in_one_line(tmp_path: Path, which: str):
    change, problem = REFUSED[which]
    layers, weights = small()
    change(layers, weights)
    with pytest.raises(FileError, match=problem) as refusal:
        open_generator(saved(tmp_path / "small.h5", sequential(*layers), weights))
    assert "\n" not in str(refusal.value)


def test_branches_are_refused(tmp_path: Path):
    layers, weights = small()
    config = functional(layers)
    config["config"]["layers"][0]["inbound_nodes"] = [[["norm", 0, 0, {}], ["leaky", 0, 0, {}]]]
    with pytest.raises(FileError, match="branches at the layer 'up'"):
        open_generator(saved(tmp_path / "small.h5", config, weights))


def test_weights_without_a_model_are_refused(tmp_path: Path):
    with pytest.raises(FileError, match="weights without model_config; expected a whole model"):
        open_generator(saved(tmp_path / "small.h5", None, small()[1]))


def test_without_h5py_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(FileError, match="no h5py to read it; expected h5py"):
        open_generator(STACK)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused(kept: float):
    data = STACK.read_bytes()
    with pytest.raises(FileError, match="is damaged or no Keras file") as refusal:
        open_source(Source("upload", {"cut.h5": data[: int(kept * len(data))]}))
    assert "\n" not in str(refusal.value)


def external_link(group: Any) -> None:
    group["up/up/bias:0"] = h5py.ExternalLink("/etc/hostname", "/x")


def soft_link(group: Any) -> None:
    group["again"] = h5py.SoftLink("/model_weights")


def external_data(group: Any) -> None:
    group.create_dataset("other/bias:0", (3,), "f4", external=[("/etc/hostname", 0, 12)])


def virtual_data(group: Any) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (3,))
    group.create_virtual_dataset("other/bias:0", layout)


def bomb(group: Any) -> None:
    group.create_dataset("other/bias:0", (10**7,), "f4", compression="gzip", chunks=(10**6,))[:] = 0


def claim(group: Any) -> None:
    group.create_dataset("other/bias:0", (10**6, 10**6), "f4")  # nothing of it is in the file


@pytest.mark.parametrize("put", [external_link, soft_link, external_data, virtual_data, bomb, claim])
def test_arrays_that_are_not_in_the_file_as_they_are_are_refused(tmp_path: Path, put: Callable[[Any], None]):
    layers, weights = small()
    del weights["up/bias"]
    path = saved(tmp_path / "small.h5", sequential(*layers), weights)
    with h5py.File(path, "a") as file:
        put(file["model_weights"])
    with pytest.raises(FileError, match=r"does not lie in the file as it is|in the file itself") as refusal:
        open_generator(path)
    assert "\n" not in str(refusal.value)
