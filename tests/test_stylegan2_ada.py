"""StyleGAN2-ADA: the published arrays, the fused form in float64, every architecture, classes, truncation, files."""

import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rewrite_core import Rule, RuleStack
from rewrite_core.errors import FileError, LayerError, RequestError
from rewrite_core.generators import LatentSpec, SeededNoise, Source, open_generator, open_source
from rewrite_core.generators.contents import Contents
from rewrite_core.generators.latents import Latents
from rewrite_core.generators.noise import NoNoise, StoredNoise
from rewrite_core.generators.stylegan2_ada import StyleGAN2AdaGenerator, open_stylegan2_ada
from rewrite_core.generators.stylegan2_ada_network import Architecture
from rewrite_core.rules.rule import Provenance
from tests.generators import changed
from tests.nvidia import pickled, pickled_tensorflow, random_stylegan2_ada

REFERENCE = Path(__file__).parent / "reference" / "nvidia"
WHOLE = Path(os.environ.get("PALIMPSEST_REFERENCE", REFERENCE.parent)) / "nvidia"
SMALL, CONDITIONAL = "sg2ada_uncond", "sg2ada_cond"
OTHERS = ("sg2ada_resnet", "sg2ada_skip_clamp", "sg3repo_stylegan2")
TOLERANCE = 1e-5  # of the largest number
BATCHES = 1e-5
ARCHITECTURES: tuple[Architecture, ...] = ("skip", "resnet", "orig")


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    """The whole arrays where they are at hand, else the leading parts of some."""
    path = WHOLE / f"{name}.npz"
    if not path.exists() and not (REFERENCE / path.name).exists():
        pytest.skip(f"PALIMPSEST_REFERENCE names no folder with nvidia/{path.name} in it")
    with np.load(path if path.exists() else REFERENCE / path.name) as arrays:
        return {key: arrays[key] for key in arrays}


@cache
def published(name: str) -> StyleGAN2AdaGenerator:
    """The generator whose arrays those are."""
    arrays = golden(name)
    arguments = json.loads(str(arrays["meta_json"]))["init_kwargs"]
    usual_clamp = 256.0 if "channel_base" in arguments else None
    arguments |= arguments.get("synthesis_kwargs", {})
    description = {
        "schema": "stylegan2-ada/1",
        "name": name,
        "architecture": arguments.get("architecture", "skip"),
        "clamp": arguments.get("conv_clamp", usual_clamp),
    }
    tensors = {key[3:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("sd/")}
    return open_stylegan2_ada(Contents(name, f"{name}.npz", tensors, description))


def given_latents(name: str, psi: float, cutoff: int | None = None) -> list[Latents]:
    """The arrays' z: one batch, or one of each class, since a spec has one class."""
    z, c = torch.from_numpy(golden(name)["z"]), golden(name).get("c")
    if c is None:
        return [Latents(z, LatentSpec.of(range(len(z)), truncation=psi, cutoff=cutoff))]
    labels = c.argmax(1).tolist()
    specs = [LatentSpec((i,), truncation=psi, cutoff=cutoff, label=label) for i, label in enumerate(labels)]
    return [Latents(z[i : i + 1], spec) for i, spec in enumerate(specs)]


def near(found: Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Equal to within `tolerance` of the largest number, as far as `expected` goes along each axis."""
    part = found.detach().numpy()[tuple(slice(length) for length in expected.shape)]
    assert part.shape == expected.shape
    assert np.abs(part - expected).max() <= tolerance * np.abs(expected).max()


# What the published implementation computes


@pytest.mark.parametrize("name", [SMALL, CONDITIONAL, *OTHERS])
def test_latents_w_are_the_published_ones(name):
    generator, first = published(name), next(iter(published(name).layers))
    for key, psi, cutoff in (("ws_psi1", 1.0, None), ("ws_psi07", 0.7, None), ("ws_psi05_cut2", 0.5, 2)):
        found = [generator.keys(part, first).rest["ws"] for part in given_latents(name, psi, cutoff)]
        near(torch.cat(found), golden(name)[key])


@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize("psi", [1.0, 0.7])
@pytest.mark.parametrize("name", [SMALL, CONDITIONAL, *OTHERS])
def test_pictures_are_the_published_ones(name, psi, noise):
    generator = published(name) if noise == "const" else published(name).with_noise(NoNoise())
    expected = golden(name).get(f"img_{noise}_psi{'1' if psi == 1 else '07'}")
    if expected is None:
        pytest.skip("only the whole arrays have it")
    near(torch.cat([generator.pictures(part) for part in given_latents(name, psi)]), expected)


@pytest.mark.parametrize("layer", ["b4.conv1", "b16.conv0", "b16.conv1", "b16.torgb"])
def test_a_layer_computes_what_the_published_one_does(layer):
    generator, arrays = published(SMALL), golden("sg2ada_uncond_layers")
    (latents,) = given_latents(SMALL, 1.0)
    at, weight = generator.keys(latents, layer), generator.weight(layer)
    near(at.rest["style"], arrays[f"{layer}/styles"])
    near(at.keys, arrays[f"{layer}/key"])
    response, energy = generator.respond(layer, at.keys, weight), generator.energy(at, weight)
    near(response, arrays[f"{layer}/conv_raw"])
    if energy is None:
        assert layer.endswith("torgb")
    else:
        scales = torch.rsqrt(energy + 1e-8)
        near(scales, arrays[f"{layer}/dcoefs"])
        near(response * scales[:, :, None, None], arrays[f"{layer}/conv_demod"])
    near(generator.finish(at, response, energy), arrays[f"{layer}/out"])


def test_features_and_pictures_between_resolutions_are_the_published_ones():
    generator, arrays = published(SMALL), golden("sg2ada_uncond_layers")
    (latents,) = given_latents(SMALL, 1.0)
    found = generator.inputs(latents, ["b8.torgb", "b16.conv0", "b16.torgb", "b32.conv0"])
    near(found["b8.torgb"].rest["x"], arrays["b8/block_x"])
    near(found["b16.torgb"].rest["x"], arrays["b16/block_x"])
    near(found["b16.conv0"].rest["rgb"], arrays["b8/block_img"])
    near(found["b32.conv0"].rest["rgb"], arrays["b16/block_img"])


# The separated form is the fused one


def filtered(x: Tensor, kernel: Tensor, up: int, before: int, after: int) -> Tensor:
    """Zeros between, zeros around, then a true convolution: upfirdn2d as it is defined."""
    n, c, h, w = x.shape
    grown = x.new_zeros(n, c, h, up, w, up)
    grown[:, :, :, 0, :, 0] = x
    padded = functional.pad(grown.reshape(n, c, h * up, w * up), (before, after, before, after))
    taps = len(kernel)
    windows = padded.unfold(2, taps, 1).unfold(3, taps, 1)  # [n, c, H, W, taps, taps]
    return torch.einsum("nchwyx,yx->nchw", windows, kernel.flip(0, 1))


def blur(state: dict[str, Tensor], name: str) -> Tensor:
    kernel = state[f"{name}.resample_filter"]
    return 4 * (kernel[:, None] * kernel if kernel.ndim == 1 else kernel)


def enlarged(x: Tensor, kernel: Tensor) -> Tensor:
    return filtered(x, kernel, 2, (len(kernel) + 1) // 2, (len(kernel) - 2) // 2)


def fully(state: dict[str, Tensor], name: str, x: Tensor, rate: float = 1.0) -> Tensor:
    weight = state[f"{name}.weight"]
    return x @ (weight * rate / math.sqrt(weight.shape[1])).T + state[f"{name}.bias"] * rate


def fused(
    state: dict[str, Tensor], name: str, x: Tensor, w: Tensor, up: bool, gain: float, clamp: Any
) -> Tensor:
    """A layer as StyleGAN2-ADA defines it: each picture has a demodulated weight of its own."""
    style = fully(state, f"{name}.affine", w)
    weight = state[f"{name}.weight"] * style[:, None, :, None, None]  # [N, O, C, k, k]
    weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    drawn = []
    for one, own in zip(x, weight, strict=True):
        if up:
            kernel = blur(state, name)
            before, after = 1 + (len(kernel) + 1) // 2, 1 + (len(kernel) - 2) // 2
            drawn.append(functional.conv2d(filtered(one[None], kernel, 2, before, after), own.flip(2, 3)))
        else:
            drawn.append(functional.conv2d(one[None], own, padding=1))
    y = torch.cat(drawn)
    if f"{name}.noise_const" in state:
        y = y + state[f"{name}.noise_const"] * state[f"{name}.noise_strength"]
    y = functional.leaky_relu(y + state[f"{name}.bias"][:, None, None], 0.2) * math.sqrt(2) * gain
    return y if clamp is None else y.clamp(-clamp * gain, clamp * gain)


def fused_picture(generator: StyleGAN2AdaGenerator, z: Tensor, labels: Tensor | None) -> Tensor:
    """The whole network in the fused form and float64."""
    state = {name: tensor.double() for name, tensor in generator.network.state_dict().items()}
    architecture, clamp = generator.shape.architecture, generator.shape.clamp
    x = z.double()
    x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
    if labels is not None:
        y = fully(state, "mapping.embed", functional.one_hot(labels, generator.classes).double())
        x = torch.cat([x, y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1e-8)], 1)
    for index in range(sum(name.startswith("mapping.fc") for name in state) // 2):
        x = functional.leaky_relu(fully(state, f"mapping.fc{index}", x, 0.01), 0.2) * math.sqrt(2)
    w, x = x, state["synthesis.b4.const"].expand(len(z), -1, -1, -1)
    rgb: Tensor | None = None
    for size in (4 << level for level in range(len(generator.shape.channels))):
        block = f"synthesis.b{size}"
        shortcut, gain = None, 1.0
        if architecture == "resnet" and size > 4:
            gain, weight = math.sqrt(0.5), state[f"{block}.skip.weight"]
            shortcut = functional.conv2d(x, weight / math.sqrt(weight.shape[1]))
            shortcut = enlarged(shortcut, blur(state, f"{block}.skip")) * gain
        if size > 4:
            x = fused(state, f"{block}.conv0", x, w, True, 1.0, clamp)
        x = fused(state, f"{block}.conv1", x, w, False, gain, clamp)
        x = x if shortcut is None else x + shortcut
        if rgb is not None:
            rgb = enlarged(rgb, blur(state, block))
        if architecture == "skip" or size == generator.resolution:
            weight = state[f"{block}.torgb.weight"]
            style = fully(state, f"{block}.torgb.affine", w) / math.sqrt(weight.shape[1])
            y = (
                functional.conv2d(x * style[:, :, None, None], weight)
                + state[f"{block}.torgb.bias"][:, None, None]
            )
            y = y if clamp is None else y.clamp(-clamp, clamp)
            rgb = y if rgb is None else rgb + y
    assert rgb is not None
    return rgb.expand(-1, 3, -1, -1)


shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**20),
        "architecture": st.sampled_from(ARCHITECTURES),
        "levels": st.integers(2, 4),
        "classes": st.sampled_from([0, 0, 1, 4]),
        "depth": st.integers(1, 3),
        "taps": st.sampled_from([(4, 4), (2, 2), (3, 3), (5, 5), (8,), (9,)]),
        "noise": st.booleans(),
        "clamp": st.sampled_from([None, 0.9, 256.0]),
        "average": st.booleans(),
        "picture_channels": st.sampled_from([3, 3, 1]),
    }
)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_pictures_of_random_networks_are_those_of_the_fused_form(shape):
    generator = random_stylegan2_ada(**shape)
    labels = torch.tensor([shape["classes"] - 1] * 2) if shape["classes"] else None
    latents = generator.latents(LatentSpec((3, 5), label=shape["classes"] - 1 if shape["classes"] else None))
    expected = fused_picture(generator, latents.z, labels)
    found = generator.pictures(latents).double()
    assert found.shape == expected.shape == (2, 3, generator.resolution, generator.resolution)
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@settings(max_examples=20, deadline=None)
@given(shapes)
def test_files_of_any_layout_open_as_the_same_generator(shape):
    generator = random_stylegan2_ada(**shape)
    spec = LatentSpec((2, 7), truncation=0.7 if shape["average"] else 1.0)
    expected = generator.sample(spec)
    for source in (
        Source("upload", generator.files()),
        Source("random.pkl", {"random.pkl": pickled(generator, protocol=2 + shape["seed"] % 4)}),
    ):
        again = open_source(source)
        assert isinstance(again, StyleGAN2AdaGenerator)
        assert (again.name, again.fingerprint) == (generator.name, generator.fingerprint)
        for (name, mine), (other, theirs) in zip(again.tensors(), generator.tensors(), strict=True):
            assert name == other
            assert torch.equal(mine, theirs)
        assert torch.equal(again.sample(spec), expected)


# Every layer splits the network


@pytest.fixture(params=ARCHITECTURES, scope="module")
def each(request) -> StyleGAN2AdaGenerator:
    return random_stylegan2_ada(7, architecture=request.param, clamp=2.0, classes=3)


def test_all_convolutions_are_layers_in_their_order():
    names = {
        "skip": "b4.conv1 b4.torgb b8.conv0 b8.conv1 b8.torgb",
        "orig": "b4.conv1 b8.conv0 b8.conv1 b8.torgb",
        "resnet": "b4.conv1 b8.skip b8.conv0 b8.conv1 b8.torgb",
    }
    for architecture in ARCHITECTURES:
        generator = random_stylegan2_ada(architecture=architecture, levels=2)
        assert list(generator.layers) == names[architecture].split()
        convolutions = [name for name, place in generator.network.state_dict().items() if place.ndim == 4]
        assert len(generator.layers) == len(convolutions)
        assert generator.default_layer == "b8.conv0"


def test_every_layer_splits_the_network(each):
    latents = each.latents(LatentSpec((3, 1)))
    expected = each.pictures(latents)
    together = each.inputs(latents, list(each.layers))
    for name, layer in each.layers.items():
        at = each.keys(latents, name)
        assert torch.equal(at.keys, together[name].keys)
        assert at.keys.shape[1:] == (layer.in_channels, *layer.key_size)
        values = each.values(at)
        assert values.shape[1:] == (layer.out_channels, *layer.value_size)
        assert torch.equal(each.render(at, values), expected)


def test_the_response_is_linear_for_any_number_of_channels(each):
    draw = torch.Generator().manual_seed(0)
    for name, layer in each.layers.items():
        keys = torch.randn(2, layer.in_channels, *layer.key_size, generator=draw)
        directions = torch.randn(3, layer.in_channels, generator=draw)
        delta = torch.randn(5, 3, *layer.convolution.kernel, generator=draw)
        projected = torch.einsum("nchw,rc->nrhw", keys, directions)
        expected = each.respond(name, keys, torch.einsum("oryx,rc->ocyx", delta, directions))
        torch.testing.assert_close(each.respond(name, projected, delta), expected, rtol=1e-4, atol=1e-4)


def test_a_box_of_the_value_is_finished_with_its_own_part_of_the_noise(each):
    latents = each.latents(LatentSpec((0, 1)))
    for name in each.layers:
        at, weight = each.keys(latents, name), each.weight(name)
        part = each.respond(name, at.keys, weight)[..., 1:4, 2:3]
        found = each.finish(at, part, each.energy(at, weight), (1, 2, 4, 3))
        assert torch.equal(found, each.values(at)[..., 1:4, 2:3])


def test_values_can_be_differentiated_through_the_demodulation(each):
    at = each.keys(each.latents(LatentSpec((0,))), "b8.conv1")
    weight = each.weight("b8.conv1").clone().requires_grad_()
    value = (
        each.finish(at, each.respond("b8.conv1", at.keys, weight), each.energy(at, weight)).square().mean()
    )
    (slope,) = torch.autograd.grad(value, weight)
    assert slope.norm() > 0
    assert (slope * weight.detach()).sum().abs() < 1e-4 * slope.norm() * weight.norm()


def some_rule(generator: StyleGAN2AdaGenerator, layer: str) -> Rule:
    draw = torch.Generator().manual_seed(1)
    out, units, *taps = generator.weight(layer).shape
    provenance = Provenance(model=generator.name, fingerprint=generator.fingerprint, layer=layer)
    return Rule(torch.randn(2, units, generator=draw), torch.randn(out, 2, *taps, generator=draw), provenance)


def test_a_rule_at_any_layer_changes_a_view_alone_and_an_export_holds_it(each):
    spec = LatentSpec((0,))
    before = each.sample(spec)
    for name in each.layers:
        view = each.with_rules(RuleStack().push(some_rule(each, name)))
        after = view.sample(spec)
        assert not torch.equal(after, before)
        assert torch.equal(each.sample(spec), before)
        own = {key for (key, mine), (_, theirs) in zip(view.tensors(), each.tensors(), strict=True)
               if mine.data_ptr() != theirs.data_ptr()}  # fmt: skip
        assert own == {f"synthesis.{name}.weight"}
        assert torch.equal(open_source(Source("upload", view.files())).sample(spec), after)


# Classes


def test_a_picture_without_a_class_has_one_of_its_own_from_its_seed():
    generator = random_stylegan2_ada(classes=3)
    whole = generator.sample(LatentSpec.of(range(12)))
    of_class = torch.stack([generator.sample(LatentSpec.of(range(12), label=label)) for label in range(3)])
    chosen = [
        [torch.allclose(picture, of, atol=1e-5) for of in of_class[:, i]].index(True)
        for i, picture in enumerate(whole)
    ]
    assert set(chosen) == {0, 1, 2}
    again = generator.sample(LatentSpec((9, 4)))
    torch.testing.assert_close(again, whole[[9, 4]], rtol=0, atol=BATCHES * float(whole.abs().max()))


def test_a_class_that_there_is_not_is_refused():
    conditional, plain = random_stylegan2_ada(classes=3), random_stylegan2_ada()
    with pytest.raises(RequestError, match="class 3; expected a class from 0 to 2"):
        conditional.sample(LatentSpec((0,), label=3))
    with pytest.raises(RequestError, match="class 0; expected no class, since random knows none"):
        plain.sample(LatentSpec((0,), label=0))
    with pytest.raises(RequestError, match="class -1; expected 0 or more"):
        LatentSpec((0,), label=-1)


# Truncation


def test_truncation_moves_w_towards_the_average_up_to_the_cutoff():
    generator = random_stylegan2_ada()
    first = next(iter(generator.layers))

    def ws(psi: float, cutoff: int | None = None) -> Tensor:
        return generator.keys(generator.latents(LatentSpec((4,), truncation=psi, cutoff=cutoff)), first).rest[
            "ws"
        ]

    average, full = generator.network.mapping.get_buffer("w_avg"), ws(1.0)
    torch.testing.assert_close(ws(0.0), average.expand_as(full))
    torch.testing.assert_close(ws(0.5), (average + full) / 2)
    torch.testing.assert_close(ws(0.5, 2)[:, :2], (average + full[:, :2]) / 2)
    assert torch.equal(ws(0.5, 2)[:, 2:], full[:, 2:])
    assert torch.equal(ws(0.5, 0), full)
    assert torch.equal(ws(0.5, 99), ws(0.5))


def test_truncation_without_an_average_and_a_cutoff_elsewhere_are_refused(tmp_path: Path):
    with pytest.raises(
        RequestError, match=r"truncation 0.5; expected 1, since random does not hold its average"
    ):
        random_stylegan2_ada(average=False).sample(LatentSpec((0,), truncation=0.5))
    other = open_generator(Path(__file__).parent / "reference" / "small_stylegan2.pt")
    with pytest.raises(RequestError, match="cutoff 2; expected no cutoff, since small_stylegan2 knows none"):
        other.sample(LatentSpec((0,), truncation=0.5, cutoff=2))


# Noise and batches


def test_noise_is_stored_seeded_or_none_and_each_is_a_generator_of_its_own():
    stored = random_stylegan2_ada()
    assert isinstance(stored.noise, StoredNoise)
    others = [stored.with_noise(SeededNoise()), stored.with_noise(NoNoise())]
    spec = LatentSpec((1,))
    pictures = [generator.sample(spec) for generator in (stored, *others)]
    assert len({generator.fingerprint for generator in (stored, *others)}) == 3
    assert not torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    for generator, picture in zip(others, pictures[1:], strict=True):
        again = open_source(Source("upload", generator.files()))
        assert again.fingerprint == generator.fingerprint
        assert torch.equal(again.sample(spec), picture)
    assert random_stylegan2_ada(noise=False).noise == NoNoise()


def test_a_picture_is_the_same_alone_and_in_any_batch(each):
    alone = each.pictures(each.latents(LatentSpec((11,))))[0]
    together = each.pictures(each.latents(LatentSpec((3, 11, 4, 1, 5, 9, 2))))[1]
    torch.testing.assert_close(together, alone, rtol=0, atol=BATCHES * float(alone.abs().max()))


# Files


def refusal(source: Source) -> str:
    with pytest.raises(FileError) as refused:
        open_source(source)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_descriptions_that_say_something_else_are_refused():
    generator = random_stylegan2_ada()
    assert "colour is 'red'" in refusal(changed(generator, lambda d: d.update(colour="red")))
    assert "architecture is 'round'" in refusal(changed(generator, lambda d: d.update(architecture="round")))
    assert "clamp is -1" in refusal(changed(generator, lambda d: d.update(clamp=-1)))
    assert "no tensor 'synthesis.b16.skip.resample_filter'" in refusal(
        changed(generator, lambda d: d.update(architecture="resnet"))
    )


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("synthesis.b8.conv0.weight", None, "no tensor 'synthesis.b8.conv0.weight'"),
        ("synthesis.b8.conv0.weight", torch.zeros(2), "'synthesis.b8.conv0.weight' [2]; expected"),
        ("synthesis.b8.conv1.weight", None, "no tensor 'synthesis.b8.conv1.weight'; expected"),
        ("synthesis.b4.conv1.noise_const", None, "expected no tensor 'synthesis.b16.conv0.noise_const'"),
        ("synthesis.b8.conv0.resample_filter", torch.zeros(4, 3), "a blur [4, 3]; expected 1 or 3 channels"),
        ("synthesis.b8.conv0.resample_filter", torch.zeros(99), "a blur [99]; expected 1 or 3 channels"),
        ("synthesis.b8.conv0.resample_filter", None, "a blur [0]; expected 1 or 3 channels"),
        ("synthesis.b16.torgb.weight", torch.zeros(4, 2, 1, 1), "pictures of 4 channels"),
        ("mapping.fc0.weight", None, "no tensor 'mapping.fc0.weight'"),
        ("synthesis.b4.const", torch.full((1, 4, 4), math.nan), "NaN"),
    ],
)
def test_tensors_that_do_not_make_a_network_are_refused(name, tensor, problem):
    def store(tensors: dict[str, Tensor]) -> None:
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor

    assert problem in refusal(changed(random_stylegan2_ada(), store=store))


def test_a_mapping_of_the_class_alone_is_refused():
    def store(tensors: dict[str, Tensor]) -> None:
        tensors["mapping.embed.weight"] = torch.zeros(99, 3)

    assert "a mapping network of the class alone" in refusal(
        changed(random_stylegan2_ada(classes=3), store=store)
    )


def test_an_unknown_layer_is_refused_with_those_there_are():
    generator = random_stylegan2_ada(levels=2)
    with pytest.raises(LayerError, match=r"layer 'b8.skip'; expected one of b4.conv1, b4.torgb, b8.conv0"):
        generator.keys(generator.latents(LatentSpec((0,))), "b8.skip")


def test_the_tensorflow_line_opens_with_every_architecture(each):
    if each.shape.filter != (4, 4):
        pytest.skip("the usual blur")
    again = open_source(Source("tf.pkl", {"tf.pkl": pickled_tensorflow(each, conv_clamp=2.0)}))
    assert list(again.layers) == list(each.layers)
