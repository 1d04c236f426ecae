"""ProgGAN: the published arrays, layers that split the network, views, files."""

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core import EditRequest, Rule, Store, rewrite
from rewrite_core.errors import FileError, LayerError, RequestError
from rewrite_core.generators import (
    LatentSpec,
    ProgGANGenerator,
    Source,
    exported,
    open_generator,
    open_source,
)
from rewrite_core.generators.contents import Contents
from rewrite_core.generators.proggan import open_proggan
from rewrite_core.rules.rule import Provenance

REFERENCE = Path(__file__).parent / "reference"
CHECKPOINT = REFERENCE / "small_proggan.pth"
LAYERS = [f"layer{number}" for number in range(1, 11)]
TOLERANCE = 3e-6  # of the published arrays
BATCHES = 3e-5  # between batches of different sizes: rounding alone moves the published pictures by 1e-5


@pytest.fixture(scope="module")
def small() -> ProgGANGenerator:
    generator = open_generator(CHECKPOINT)
    assert isinstance(generator, ProgGANGenerator)
    return generator


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(REFERENCE / "proggan_forward.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def tensors() -> dict[str, Tensor]:
    return dict(torch.load(CHECKPOINT, weights_only=True))


def opened(content: dict[str, Tensor]) -> ProgGANGenerator:
    return open_proggan(Contents("random", "random.pth", content))


def near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_pictures_and_keys_are_the_published_ones(small, golden):
    latents = small.latents(LatentSpec.of(range(4), "rows"))
    assert torch.equal(latents.z[:, :, None, None], golden["z"])
    near(small.pictures(latents), golden["image"])
    near(small.keys(latents, "layer6").keys[:1], golden["z0_layer6_key"], 2 * TOLERANCE)


def test_layers_and_sizes_are_read_off_the_tensors(small):
    assert (small.name, small.family, small.resolution, small.latent_dim) == (
        "small_proggan",
        "proggan",
        64,
        32,
    )
    assert list(small.layers) == LAYERS
    grids = [(layer.key_size[0], layer.value_size[0]) for layer in small.layers.values()]
    assert grids == [
        (1, 4),
        (4, 4),
        (8, 8),
        (8, 8),
        (16, 16),
        (16, 16),
        (32, 32),
        (32, 32),
        (64, 64),
        (64, 64),
    ]
    assert small.default_layer == "layer6"
    assert torch.equal(small.weight("layer9"), tensors()["layer9.conv.weight"])
    with pytest.raises(LayerError, match="layer 'layer11'; expected one of layer1"):
        small.weight("layer11")


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_splits_the_network(small, layer):
    latents = small.latents(LatentSpec((3, 1)))
    at, described = small.keys(latents, layer), small.layer(layer)
    values = small.values(at)
    assert at.keys.shape == (2, described.in_channels, *described.key_size)
    assert values.shape == (2, described.out_channels, *described.value_size)
    assert torch.equal(
        values, torch.conv2d(at.keys, small.weight(layer), padding=3 if layer == "layer1" else 1)
    )
    assert torch.equal(small.render(at, values), small.pictures(latents))


def test_one_pass_stops_at_several_layers(small):
    latents = small.latents(LatentSpec((3,)))
    together = small.inputs(latents, ["layer6", "layer1"])
    assert set(together) == {"layer1", "layer6"}
    assert torch.equal(together["layer6"].keys, small.keys(latents, "layer6").keys)


def test_a_picture_is_the_same_alone_and_in_a_batch(small):
    alone = small.pictures(small.latents(LatentSpec((11,))))[0]
    near(small.pictures(small.latents(LatentSpec((0, 1, 11))))[2], alone, BATCHES)
    sample = small.sample(LatentSpec.of(range(3)))
    assert torch.equal(small.sample(LatentSpec.of(range(3))), sample)


def test_truncation_is_refused_since_latents_are_normalised(small):
    with pytest.raises(RequestError, match=r"truncation 0.5; expected 1, since small_proggan normalises"):
        small.sample(LatentSpec((0,), truncation=0.5))


def test_a_view_holds_a_rule_and_leaves_the_base_as_it_was(small):
    spec, weight = LatentSpec.of(range(2)), small.weight("layer5")
    before, kept = small.sample(spec), weight.clone()
    provenance = Provenance(model=small.name, fingerprint=small.fingerprint, layer="layer5")
    rule = Rule(torch.ones(1, 32), torch.ones(24, 1, 3, 3), provenance)
    view = small.with_rules(rule)
    near(view.weight("layer5"), kept + 1)
    assert not torch.allclose(view.sample(spec), before, atol=0.01)
    assert torch.equal(small.sample(spec), before)
    assert torch.equal(weight, kept)
    others = {name: tensor.data_ptr() for name, tensor in small.tensors() if name != "layer5.conv.weight"}
    assert others.items() <= {name: tensor.data_ptr() for name, tensor in view.tensors()}.items()


def test_an_edit_from_the_published_request_is_solved(small, tmp_path):
    request = EditRequest.load(REFERENCE / "request.json").model_copy(update={"layer": "layer6"})
    edit = rewrite(small, request, store=Store(tmp_path))
    assert edit.solved.loss < 0.98 * edit.solved.loss_before


def test_an_export_opens_as_the_same_generator(small):
    again = open_source(Source("upload", small.files()))
    assert (again.name, again.fingerprint) == (small.name, small.fingerprint)
    assert torch.equal(again.sample(LatentSpec((2,))), small.sample(LatentSpec((2,))))
    description = json.loads(small.files()["model.json"]) | {"colour": "red"}
    with pytest.raises(FileError, match="colour is 'red'"):
        open_source(Source("upload", small.files() | {"model.json": json.dumps(description).encode()}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"layer4.wscale.b": None},
            r"no tensor 'layer4.wscale.b'; expected 'layer4.wscale.b' \[32\]",
        ),
        (
            {"layer4.conv.weight": torch.zeros(32, 32, 5, 5)},
            r"\[32, 32, 5, 5\]; expected .* \[32, 32, 3, 3\]",
        ),
        (
            {"layer1.conv.weight": torch.zeros(3)},
            r"'layer1.conv.weight' \[3\]; expected 'layer1.conv.weight', whose axis 1",
        ),
        ({"layer10.conv.weight": None}, "9 layers; expected two for each resolution"),
        (
            {"layer2.wscale.b": torch.tensor(1.0)},
            r"'layer2.wscale.b' \[\]; expected 'layer2.wscale.b' \[32\]",
        ),
        ({"output_64x64.wscale.b": None}, "no tensor 'output_64x64.wscale.b'"),
        ({"output_32x32.wscale.b": torch.zeros(3)}, "expected no tensor 'output_32x32.wscale.b'"),
        (
            {"layer3.wscale.b": torch.full((32,), math.inf)},
            "32 of 32 numbers in 'layer3.wscale.b' are NaN or infinite",
        ),
    ],
)
def test_tensors_that_do_not_make_a_network_are_refused(changes: dict[str, Any], problem: str):
    content = {name: tensor for name, tensor in (tensors() | changes).items() if tensor is not None}
    with pytest.raises(FileError, match=problem) as refusal:
        opened(content)
    assert "\n" not in str(refusal.value)


# Layouts


def random_proggan(seed: int, levels: int, prefix: str) -> dict[str, Tensor]:
    """A state dict of random numbers and channels at 4·2^(levels-1) pixels."""
    draw, choose = torch.Generator().manual_seed(seed), random.Random(seed)
    widths = [choose.randint(1, 6) for _ in range(2 * levels + 1)]
    state = {}
    for index, (before, after) in enumerate(pairwise(widths), start=1):
        taps = 3 if index > 1 else 4
        state[f"layer{index}.conv.weight"] = torch.randn(after, before, taps, taps, generator=draw)
        state[f"layer{index}.wscale.b"] = torch.randn(after, generator=draw)
    size = 2 << levels
    state[f"output_{size}x{size}.conv.weight"] = torch.randn(3, widths[-1], 1, 1, generator=draw)
    state[f"output_{size}x{size}.wscale.b"] = torch.randn(3, generator=draw)
    return {prefix + name: tensor for name, tensor in state.items()}


def interpreted(state: dict[str, Tensor], z: Tensor) -> Tensor:
    """The published formulas, apart from our modules."""
    x = z[:, :, None, None]
    for name in [key.removesuffix(".conv.weight") for key in state if key.endswith("conv.weight")]:
        weight, bias = state[f"{name}.conv.weight"], state[f"{name}.wscale.b"]
        taps, last = weight.shape[-1], name.startswith("output")
        x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
        if not last and name != "layer1" and int(name[5:]) % 2:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        gain = (1 if last else math.sqrt(2)) / taps / math.sqrt(weight.shape[1])
        x = gain * torch.conv2d(x, weight, padding={4: 3, 3: 1, 1: 0}[taps]) + bias[:, None, None]
        x = x.clamp(-1, 1) if last else torch.where(x > 0, x, 0.2 * x)
    return x


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10_000),
    levels=st.integers(1, 4),
    prefix=st.sampled_from(["", "module.", "state_dict.", "g_ema."]),
    suffix=st.sampled_from([".pth", ".safetensors"]),
)
def test_any_shape_opens_as_the_published_formulas_and_goes_back_bit_for_bit(seed, levels, prefix, suffix):
    state = random_proggan(seed, levels, prefix)
    nested = frozenset({prefix[:-1]}) - {"", "module"}
    generator = open_proggan(Contents("random", f"random{suffix}", state, nested=nested))
    latents = generator.latents(LatentSpec((seed, 1)))
    bare = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    near(generator.pictures(latents), interpreted(bare, latents.z), 1e-5)
    back = generator.own_layout()
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    for files in (exported(generator, "own", {}), generator.files()):
        again = open_source(Source("again", files))
        assert again.fingerprint == generator.fingerprint
        assert torch.equal(again.sample(latents.spec), generator.sample(latents.spec))
