"""StyleGAN2: the published arrays, the fused form in float64, noise and truncation, views, files."""

import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rewrite_core import EditRequest, Rule, RuleStack, Store, rewrite
from rewrite_core.errors import FileError, LayerError, RequestError
from rewrite_core.generators import (
    LatentSpec,
    SeededNoise,
    Source,
    StyleGAN2Generator,
    exported,
    open_generator,
    open_source,
)
from rewrite_core.generators.contents import Contents
from rewrite_core.generators.generator import LayerInput
from rewrite_core.generators.stylegan2 import open_stylegan2
from rewrite_core.generators.stylegan2_network import upsampled
from rewrite_core.rules.published import PublishedNoise
from rewrite_core.rules.rule import Provenance
from tests.stylegan2 import random_stylegan2, sequential_layout

ROOT = Path(__file__).parents[1]
REFERENCE = Path(__file__).parent / "reference"
CHECKPOINT = REFERENCE / "small_stylegan2.pt"
LAYERS = [f"layer{number}" for number in range(2, 11)]
TOLERANCE = 3e-6  # of the published arrays
BATCHES = 1e-5  # between batches of different sizes


@pytest.fixture(scope="module")
def small() -> StyleGAN2Generator:
    generator = open_generator(CHECKPOINT)
    assert isinstance(generator, StyleGAN2Generator)
    return generator


@pytest.fixture(scope="module")
def published(small: StyleGAN2Generator) -> StyleGAN2Generator:
    return small.with_noise(PublishedNoise())


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(REFERENCE / "stylegan_forward.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def rows(*images: int, truncation: float = 1.0) -> LatentSpec:
    return LatentSpec(images, "rows", truncation)


def singly(generator: StyleGAN2Generator, truncation: float = 1.0) -> Tensor:
    latents = [generator.latents(rows(image, truncation=truncation)) for image in range(8)]
    return torch.cat([generator.pictures(one) for one in latents])


def near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


# What the published implementation computes


def test_latents_are_the_published_ones(published, golden):
    latents = published.latents(rows(*range(8)))
    assert torch.equal(latents.z, golden["z"])
    near(published.keys(latents, "layer2").rest["w"], golden["w"])


def test_pictures_are_the_published_ones_with_its_noise(published, golden):
    near(published.pictures(published.latents(rows(*range(8)))), golden["image_batch8"])
    near(singly(published), golden["image_single"])
    near(singly(published, truncation=0.5), golden["image_single_trunc05"])


@pytest.mark.parametrize("layer", [3, 4, 5, 6, 7])
def test_a_layer_computes_what_the_published_one_does(published, golden, layer):
    at = published.keys(published.latents(rows(0)), f"layer{layer}")
    near(at.rest["style"], golden[f"z0_layer{layer}_style"])
    near(at.keys, golden[f"z0_layer{layer}_key"])
    values = published.values(at)
    near(values, golden[f"z0_layer{layer}_value"])
    near(published.render(at, values), golden["image_single"][:1])
    enlarged = upsampled(at.rest["rgb"], published.network.to_rgbs[0].upsample.kernel)
    near(enlarged, golden[f"z0_layer{layer}_rgb_running"])


def test_the_canonical_weight_is_the_stored_one(small):
    stored = torch.load(CHECKPOINT, weights_only=True)["g_ema"]
    assert torch.equal(small.weight("layer2"), stored["conv1.conv.weight"][0])
    assert torch.equal(small.weight("layer7"), stored["convs.4.conv.weight"][0])


def test_size_channels_and_layers_are_read_off_the_tensors(small):
    assert (small.name, small.family, small.resolution, small.latent_dim) == (
        "small_stylegan2",
        "stylegan2",
        64,
        32,
    )
    assert list(small.layers) == LAYERS
    grids = [(layer.key_size[0], layer.value_size[0]) for layer in small.layers.values()]
    assert grids == [(4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)]
    assert [layer.kind for layer in small.layers.values()][:3] == ["conv", "transposed conv", "conv"]
    assert (small.layers["layer7"].in_channels, small.layers["layer7"].out_channels) == (32, 24)


# The separated form is the fused one


def opened(checkpoint: Any, name: str = "random") -> StyleGAN2Generator:
    tensors = {f"g_ema.{key}": value for key, value in checkpoint["g_ema"].items()}
    tensors |= {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    return open_stylegan2(Contents(name, f"{name}.pt", tensors))


def filtered(x: Tensor, kernel: Tensor, up: int, before: int, after: int) -> Tensor:
    """Zeros between, zeros around, then a true convolution: upfirdn2d as it is defined."""
    n, c, h, w = x.shape
    grown = x.new_zeros(n, c, h, up, w, up)
    grown[:, :, :, 0, :, 0] = x
    padded = functional.pad(grown.reshape(n, c, h * up, w * up), (before, after, before, after))
    taps = len(kernel)
    windows = padded.unfold(2, taps, 1).unfold(3, taps, 1)  # [n, c, H, W, taps, taps]
    return torch.einsum("nchwyx,yx->nchw", windows, kernel.flip(0, 1))


def fused(
    state: dict[str, Tensor], name: str, x: Tensor, w: Tensor, up: bool, noise: Tensor | None
) -> Tensor:
    """A modulated convolution as StyleGAN2 defines it: each picture's weight is scaled, demodulated, then applied."""
    weight, conv = state[f"{name}.conv.weight"], f"{name}.conv.modulation"
    style = functional.linear(w, state[f"{conv}.weight"] / math.sqrt(w.shape[1]), state[f"{conv}.bias"])
    weight = weight / math.sqrt(weight[0, 0].numel()) * style[:, None, :, None, None]  # [N, O, C, k, k]
    if noise is None:
        return torch.cat([functional.conv2d(one[None], own) for one, own in zip(x, weight, strict=True)])
    weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    drawn = []
    for one, own in zip(x, weight, strict=True):
        if up:
            kernel = state[f"{name}.conv.blur.kernel"]
            excess = len(kernel) - 4
            grown = functional.conv_transpose2d(one[None], own.transpose(0, 1), stride=2)
            drawn.append(filtered(grown, kernel, 1, (excess + 1) // 2 + 1, excess // 2 + 1))
        else:
            drawn.append(functional.conv2d(one[None], own, padding=1))
    y = (
        torch.cat(drawn)
        + state[f"{name}.noise.weight"] * noise
        + state[f"{name}.activate.bias"][:, None, None]
    )
    return math.sqrt(2) * functional.leaky_relu(y, 0.2)


def fused_picture(checkpoint: dict[str, Any], z: Tensor) -> Tensor:
    """The whole network in the fused form and float64."""
    state: dict[str, Tensor] = {name: tensor.double() for name, tensor in checkpoint["g_ema"].items()}
    x = z.double()
    x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
    for index in range(1, sum(name.startswith("style.") for name in state) // 2 + 1):
        weight = state[f"style.{index}.weight"] * 0.01 / math.sqrt(x.shape[1])
        x = functional.leaky_relu(
            functional.linear(x, weight, state[f"style.{index}.bias"] * 0.01), 0.2
        ) * math.sqrt(2)
    w, x = x, state["input.input"].expand(len(z), -1, -1, -1)
    x = fused(state, "conv1", x, w, False, state["noises.noise_0"])
    rgb = fused(state, "to_rgb1", x, w, False, None) + state["to_rgb1.bias"]
    for level in range(sum(name.endswith("upsample.kernel") for name in state)):
        x = fused(state, f"convs.{2 * level}", x, w, True, state[f"noises.noise_{2 * level + 1}"])
        x = fused(state, f"convs.{2 * level + 1}", x, w, False, state[f"noises.noise_{2 * level + 2}"])
        kernel = state[f"to_rgbs.{level}.upsample.kernel"]
        excess = len(kernel) - 2
        before = filtered(rgb, kernel, 2, (excess + 1) // 2 + 1, excess // 2)
        rgb = fused(state, f"to_rgbs.{level}", x, w, False, None) + state[f"to_rgbs.{level}.bias"] + before
    return rgb


@pytest.mark.parametrize("seed", range(6))
def test_pictures_of_random_networks_are_those_of_the_fused_form(seed):
    checkpoint = random_stylegan2(seed, size=[8, 16, 32][seed % 3], taps=2 + seed)
    generator = opened(checkpoint)
    latents = generator.latents(LatentSpec.of(range(3)))
    expected = fused_picture(checkpoint, latents.z)
    found = generator.pictures(latents).double()
    assert found.shape == expected.shape == (3, 3, generator.resolution, generator.resolution)
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("seed", range(8))
def test_the_separated_form_is_the_fused_one_in_float64(seed):
    checkpoint = random_stylegan2(seed, size=8, taps=2 + seed)
    generator, state = opened(checkpoint), {k: v.double() for k, v in checkpoint["g_ema"].items()}
    generator.network.double()
    draw = torch.Generator().manual_seed(seed)
    for name, module in (("layer2", "conv1"), ("layer3", "convs.0"), ("layer4", "convs.1")):
        layer = generator.layer(name)
        x = torch.randn(2, layer.in_channels, *layer.key_size, generator=draw).double()
        w = torch.randn(2, generator.latent_dim, generator=draw).double()
        noise = torch.randn(2, 1, *layer.value_size, generator=draw).double()
        modulation = f"{module}.conv.modulation"
        style = w @ (state[f"{modulation}.weight"] / math.sqrt(w.shape[1])).T + state[f"{modulation}.bias"]
        latents = generator.latents(LatentSpec((0, 1)))
        at = LayerInput(name, style[:, :, None, None] * x, latents, {"style": style, "noise": noise})
        found = generator.values(at)
        assert found.shape[2:] == layer.value_size
        torch.testing.assert_close(
            found, fused(state, module, x, w, name == "layer3", noise), rtol=1e-11, atol=1e-11
        )


def test_the_response_is_linear_for_any_number_of_channels(small):
    draw = torch.Generator().manual_seed(0)
    for name in ("layer2", "layer5"):
        keys, directions = torch.randn(2, 32, 4, 4, generator=draw), torch.randn(3, 32, generator=draw)
        delta = torch.randn(7, 3, 3, 3, generator=draw)
        projected = torch.einsum("nchw,rc->nrhw", keys, directions)
        whole = small.respond(name, keys, torch.einsum("oryx,rc->ocyx", delta, directions))
        near(small.respond(name, projected, delta), whole, 1e-5)


def test_a_box_of_the_value_is_finished_with_its_own_part_of_the_noise(small):
    latents = small.latents(rows(0, 1))
    for name in ("layer6", "layer7"):
        at, weight = small.keys(latents, name), small.weight(name)
        part = small.respond(name, at.keys, weight)[..., 2:9, 3:8]
        found = small.finish(at, part, small.energy(at, weight), (2, 3, 9, 8))
        assert torch.equal(found, small.values(at)[..., 2:9, 3:8])


def test_values_can_be_differentiated_through_the_demodulation(small):
    at = small.keys(small.latents(rows(0)), "layer5")
    weight = small.weight("layer5").clone().requires_grad_()
    value = (
        small.finish(at, small.respond("layer5", at.keys, weight), small.energy(at, weight)).square().mean()
    )
    (slope,) = torch.autograd.grad(value, weight, create_graph=True)
    (bend,) = torch.autograd.grad(slope.square().sum(), weight)
    slope, weight = slope.detach(), weight.detach()
    assert (
        slope * weight
    ).sum().abs() < 1e-4 * slope.norm() * weight.norm()  # demodulation undoes a change of scale
    assert bend.norm() > 0


# The same seed, the same picture


@pytest.fixture(params=["stored", "seeded"])
def noisy(request, small: StyleGAN2Generator) -> StyleGAN2Generator:
    return small if request.param == "stored" else small.with_noise(SeededNoise())


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_splits_the_network(noisy, layer):
    latents = noisy.latents(LatentSpec((3, 1)))
    at = noisy.keys(latents, layer)
    assert torch.equal(noisy.render(at, noisy.values(at)), noisy.pictures(latents))


def test_one_pass_stops_at_several_layers(small):
    latents = small.latents(LatentSpec((3,)))
    together = small.inputs(latents, ["layer6", "layer3"])
    assert set(together) == {"layer3", "layer6"}
    assert torch.equal(together["layer6"].keys, small.keys(latents, "layer6").keys)
    with pytest.raises(LayerError, match="layer 'layer1'; expected one of layer2"):
        small.inputs(latents, ["layer1"])


@pytest.mark.parametrize("batch", [2, 7, 25])
def test_a_picture_is_the_same_alone_and_in_any_batch(noisy, batch):
    alone = noisy.pictures(noisy.latents(LatentSpec((11,))))[0]
    for place in (0, batch - 1):
        seeds = list(range(100, 100 + batch))
        seeds[place] = 11
        together = noisy.pictures(noisy.latents(LatentSpec.of(seeds)))
        near(together[place], alone, BATCHES)


def test_a_sample_is_bit_identical_before_and_after_other_work(noisy):
    before = noisy.sample(LatentSpec.of(range(3)))
    torch.randn(5)
    noisy.sample(LatentSpec.of(range(7, 12), truncation=0.5))
    assert torch.equal(noisy.sample(LatentSpec.of(range(3))), before)


def test_a_picture_is_the_same_in_another_process(noisy, tmp_path):
    script = (
        "import sys, torch; from rewrite_core import LatentSpec, open_generator\n"
        "from rewrite_core.generators import SeededNoise\n"
        "torch.set_num_threads(int(sys.argv[3]))\n"
        "generator = open_generator(sys.argv[1])\n"
        "generator = generator.with_noise(SeededNoise()) if sys.argv[4] == 'seeded' else generator\n"
        "torch.save(generator.sample(LatentSpec.of(range(3))), sys.argv[2])"
    )
    path = tmp_path / "pictures.pt"
    arguments = [str(CHECKPOINT), str(path), str(torch.get_num_threads()), noisy.noise.kind]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=ROOT)
    assert torch.equal(torch.load(path), noisy.sample(LatentSpec.of(range(3))))


def test_seeded_noise_differs_by_seed_and_layer_and_is_standard_normal(small):
    noise, latents = SeededNoise(), small.latents(LatentSpec((5, 6)))
    first, second = noise(small.layers["layer9"], latents)
    other = noise(small.layers["layer10"], latents)[0]
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten(), other.flatten()]))
    near(correlation, torch.eye(3), 0.05)
    assert abs(first.mean()) < 0.05
    assert abs(first.std() - 1) < 0.05
    assert torch.equal(noise(small.layers["layer9"], small.latents(LatentSpec((6,))))[0], second)


def test_noise_is_seeded_where_the_checkpoint_stores_none():
    generator = opened(random_stylegan2(0, noise=False))
    assert generator.noise == SeededNoise()
    first, second = generator.pictures(generator.latents(LatentSpec((1, 2), truncation=0.0)))
    assert not torch.allclose(first, second, atol=1e-3)


def test_another_source_of_noise_is_another_generator(small, published):
    seeded = small.with_noise(SeededNoise())
    assert len({small.fingerprint, seeded.fingerprint, published.fingerprint}) == 3
    assert seeded.weight("layer6").data_ptr() == small.weight("layer6").data_ptr()


# Truncation


def test_truncation_moves_w_towards_the_average(small):
    average = small.network.latent_avg
    full, half, none = (
        small.keys(small.latents(LatentSpec((4,), truncation=psi)), "layer2").rest["w"]
        for psi in (1.0, 0.5, 0.0)
    )
    near(half, (average + full) / 2)
    near(none, average[None])


def test_truncation_without_an_average_is_refused():
    generator = opened(random_stylegan2(1, average=False), "plain")
    generator.sample(LatentSpec((0,)))
    with pytest.raises(
        RequestError, match=r"truncation 0.5; expected 1, since plain does not hold its average"
    ):
        generator.sample(LatentSpec((0,), truncation=0.5))


def test_an_average_of_the_wrong_shape_is_refused_not_ignored():
    checkpoint = random_stylegan2(1)
    expected = opened(checkpoint).fingerprint
    average = checkpoint["latent_avg"]
    assert opened(checkpoint | {"latent_avg": average[None]}).fingerprint == expected
    assert opened(checkpoint | {"latent_avg": torch.tensor(0)}).network.latent_avg is None
    with pytest.raises(FileError, match=r"'latent_avg' \[1\]; expected 'latent_avg' \[\d\]"):
        opened(checkpoint | {"latent_avg": average.mean()})


# Rules


def some_rule(generator: StyleGAN2Generator, layer: str, seed: int) -> Rule:
    draw = torch.Generator().manual_seed(seed)
    out, units, *taps = generator.weight(layer).shape
    provenance = Provenance(model=generator.name, fingerprint=generator.fingerprint, layer=layer)
    return Rule(torch.randn(2, units, generator=draw), torch.randn(out, 2, *taps, generator=draw), provenance)


def test_views_under_eight_threads_leave_the_base_bit_identical(small):
    spec = LatentSpec((0,))
    before, weights = small.sample(spec), {name: small.weight(name).clone() for name in LAYERS}
    stacks = [RuleStack().push(some_rule(small, layer, seed)) for seed, layer in enumerate(LAYERS[:8])]
    alone = [small.with_rules(stack).sample(spec) for stack in stacks]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(2):
            if not torch.equal(small.with_rules(stacks[index]).sample(spec), alone[index]):
                wrong.append(index)
            if not torch.equal(small.sample(spec), before):
                wrong.append(-1)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert torch.equal(small.sample(spec), before)
    assert all(torch.equal(small.weight(name), weights[name]) for name in LAYERS)


def test_a_view_shares_every_tensor_but_the_edited_weight(small):
    view = small.with_rules(some_rule(small, "layer6", 0))
    own = {
        name
        for (name, mine), (_, theirs) in zip(view.tensors(), small.tensors(), strict=True)
        if mine is not theirs
    }
    shared = {
        name
        for name, tensor in view.tensors()
        if tensor.data_ptr() in {t.data_ptr() for _, t in small.tensors()}
    }
    assert {name for name, _ in small.tensors()} - shared == {"convs.3.conv.weight"}
    assert "convs.3.conv.weight" in own
    assert view.pristine is small


def test_an_edit_from_the_published_request_is_solved(small, tmp_path):
    request = EditRequest.load(REFERENCE / "request.json").model_copy(update={"layer": "layer6"})
    edit = rewrite(small, request, store=Store(tmp_path))
    assert edit.solved.loss < 0.98 * edit.solved.loss_before
    changed = small.with_rules(edit.rule).sample(LatentSpec((0,))) - small.sample(LatentSpec((0,)))
    assert changed.abs().max() > 0.01


# Files


def saved(generator: StyleGAN2Generator, **changes: Any) -> Source:
    files = generator.files()
    description = json.loads(files["model.json"]) | changes
    return Source("upload", files | {"model.json": json.dumps(description).encode()})


def test_an_export_opens_as_the_same_generator(noisy):
    again = open_source(Source("upload", noisy.files()))
    assert (again.name, again.fingerprint) == (noisy.name, noisy.fingerprint)
    spec = LatentSpec((2,), truncation=0.7)
    assert torch.equal(again.sample(spec), noisy.sample(spec))


def test_an_export_holds_the_rules(small):
    view = small.with_rules(some_rule(small, "layer7", 0))
    again = open_source(Source("upload", view.files()))
    assert torch.equal(again.weight("layer7"), view.weight("layer7"))
    assert torch.equal(again.sample(LatentSpec((2,))), view.sample(LatentSpec((2,))))


def test_noise_that_was_handed_in_cannot_be_saved(published):
    with pytest.raises(FileError, match="noise of kind 'published'; expected stored or seeded noise"):
        published.files()


def test_a_description_with_an_unknown_field_is_refused(small):
    with pytest.raises(FileError, match=r"upload/model.json: colour is 'red'"):
        open_source(saved(small, colour="red"))
    with pytest.raises(FileError, match="expected 'stylegan2/1'"):
        open_source(saved(small, schema="stylegan2/9"))


def test_a_state_dict_alone_opens_too(small, tmp_path):
    state = torch.load(CHECKPOINT, weights_only=True)["g_ema"]
    torch.save(state, tmp_path / "small.pt")
    generator = open_generator(tmp_path / "small.pt")
    assert torch.equal(generator.sample(LatentSpec((1,))), small.sample(LatentSpec((1,))))


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        (
            "convs.3.conv.weight",
            None,
            r"no tensor 'convs.3.conv.weight'; expected 'convs.3.conv.weight' \[1, ",
        ),
        ("convs.3.noise.weight", torch.zeros(2), r"'convs.3.noise.weight' \[2\]; expected .* \[1\]"),
        ("convs.9.noise.weight", torch.zeros(1), r"'convs.9.noise.weight' \[1\]; expected no tensor"),
        ("noises.noise_2", None, "no tensor 'noises.noise_2'"),
        ("style.1.weight", None, "no tensor 'style.1.weight'"),
        ("input.input", torch.zeros(()), r"'input.input' \[\]; expected 'input.input', whose axis 1"),
        (
            "convs.0.conv.blur.kernel",
            torch.zeros(17, 17),
            "kernels of 17 and 4 taps; expected 8 to 1024 px, 1 to 16 taps",
        ),
        ("style.1.weight", torch.zeros(4, 0), r"'style.1.weight' \[4, 0\]; expected"),
        ("conv1.conv.modulation.weight", torch.zeros(4, 0), r"weight' \[4, 0\]; expected"),
        ("conv1.activate.bias", torch.tensor(math.nan), "NaN"),
    ],
)
def test_tensors_that_do_not_make_a_network_are_refused(name, tensor, problem):
    checkpoint = random_stylegan2(0)
    checkpoint["g_ema"].pop(name, None)
    if tensor is not None:
        checkpoint["g_ema"][name] = tensor
    with pytest.raises(FileError, match=problem) as refusal:
        opened(checkpoint)
    assert "\n" not in str(refusal.value)


def test_half_precision_opens_in_float32(small):
    checkpoint = torch.load(CHECKPOINT, weights_only=True)
    half = {name: tensor.half() for name, tensor in checkpoint["g_ema"].items()}
    generator = opened({"g_ema": half, "latent_avg": checkpoint["latent_avg"]})
    assert {tensor.dtype for _, tensor in generator.tensors()} == {torch.float32}
    near(generator.sample(LatentSpec((1,))), small.sample(LatentSpec((1,))), 0.1)


def test_large_pictures_are_drawn_a_few_at_a_time(small):
    assert small.micro_batch == 25
    assert opened(random_stylegan2(0, size=1024)).micro_batch < 25


# Layouts


def whole(checkpoint: Any, kind: str) -> Contents:
    """A checkpoint of random numbers as one of the files that people have."""
    state = {f"g_ema.{key}": value for key, value in checkpoint["g_ema"].items()}
    average = {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    match kind:
        case "rosinality":
            return Contents("random", "random.pt", state | average, nested=frozenset({"g_ema"}))
        case "training":
            other = {
                f"{key}.{name}": -value for name, value in checkpoint["g_ema"].items() for key in ("g", "d")
            }
            return Contents(
                "random", "random.pt", {**other, **state, **average}, nested=frozenset({"g", "d", "g_ema"})
            )
        case "state dict":
            return Contents("random", "random.pt", {**checkpoint["g_ema"], **average})
        case "DataParallel":
            parallel = {f"g.module.{key}": value for key, value in checkpoint["g_ema"].items()}
            return Contents("random", "random.pt", parallel | average, nested=frozenset({"g"}))
    return Contents("random", "random.pt", sequential_layout(checkpoint, apart=kind == "sequential, apart"))


LAYOUTS = ["rosinality", "training", "state dict", "DataParallel", "sequential", "sequential, apart"]


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([8, 16, 32]),
    taps=st.integers(1, 6),
    picture_taps=st.integers(2, 5),
    noise=st.booleans(),
    average=st.booleans(),
    kind=st.sampled_from(LAYOUTS),
)
def test_any_shape_in_any_layout_opens_as_the_same_pictures_and_goes_back_bit_for_bit(
    seed: int, size: int, taps: int, picture_taps: int, noise: bool, average: bool, kind: str
):
    checkpoint = random_stylegan2(seed, size, taps, noise, average, picture_taps)
    contents = whole(checkpoint, kind)
    generator = open_stylegan2(contents)
    assert generator.resolution == size
    assert generator.fingerprint == opened(checkpoint).fingerprint
    spec = LatentSpec((seed,), truncation=0.5 if average else 1.0)
    assert torch.equal(generator.sample(spec), opened(checkpoint).sample(spec))
    if noise:
        expected = fused_picture(checkpoint, generator.latents(LatentSpec((seed,))).z)
        found = generator.pictures(generator.latents(LatentSpec((seed,)))).double()
        assert (found - expected).abs().max() <= 5e-5 * expected.abs().max()
    back = generator.own_layout()
    trained = ("g.", "d.") if kind == "training" else ()
    assert list(back) == [name for name in contents.tensors if not name.startswith(trained)]
    assert all(torch.equal(back[name], contents.tensors[name]) for name in back)
    again = open_source(Source("again", exported(generator, "own", {})))
    assert again.fingerprint == generator.fingerprint
    assert open_source(Source("again", generator.files())).fingerprint == generator.fingerprint


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128, 256, 512, 1024])
def test_every_size_opens_with_the_channels_that_its_multiplier_gave(size: int):
    checkpoint = random_stylegan2(size, size, depth=8)
    widths = [
        checkpoint["g_ema"][f"to_rgbs.{level}.conv.weight"].shape[2]
        for level in range(int(math.log2(size)) - 2)
    ]
    generator = opened(checkpoint)
    assert (generator.resolution, generator.shape.depth, len(generator.layers)) == (
        size,
        8,
        2 * int(math.log2(size)) - 3,
    )
    assert list(generator.shape.channels[1:]) == widths


def test_a_single_number_for_an_average_is_none_in_the_sequential_layout():
    generator = open_stylegan2(whole(random_stylegan2(1, average=False), "sequential"))
    with pytest.raises(RequestError, match="does not hold its average"):
        generator.sample(LatentSpec((0,), truncation=0.5))
    assert generator.own_layout()["latents.latent_avg"].shape == ()
