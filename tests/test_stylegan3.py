"""StyleGAN3: the published arrays, the fused form in float64 (both kinds), layers, files."""

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

from rewrite_core import EditRequest, Mask, Rule, RuleStack
from rewrite_core.directions.matches import matches
from rewrite_core.errors import FileError, RequestError
from rewrite_core.generators import LatentSpec, Source, open_source
from rewrite_core.generators.contents import Contents
from rewrite_core.generators.latents import Latents
from rewrite_core.generators.stylegan3 import StyleGAN3Generator, open_stylegan3
from rewrite_core.generators.stylegan3_network import LayerShape
from rewrite_core.rules.goal import copy_paste
from rewrite_core.rules.painted import painted_keys
from rewrite_core.rules.rule import Provenance
from tests.generators import changed, painted
from tests.nvidia import pickled, random_stylegan3

REFERENCE = Path(__file__).parent / "reference" / "nvidia"
WHOLE = Path(os.environ.get("PALIMPSEST_REFERENCE", REFERENCE.parent)) / "nvidia"
TOLERANCE = 1e-5  # of the largest number


@cache
def golden() -> dict[str, np.ndarray]:
    """The whole arrays where they are at hand, else the leading parts of some."""
    path = WHOLE / "sg3_t.npz"
    with np.load(path if path.exists() else REFERENCE / path.name) as arrays:
        return {key: arrays[key] for key in arrays}


@cache
def published(transform: str = "") -> StyleGAN3Generator:
    """The generator whose arrays those are, perhaps with another transform of its input."""
    arrays = golden()
    derived = json.loads(str(arrays["meta_json"]))
    layers = [
        {
            "name": name,
            "up": layer["up_factor"],
            "down": layer["down_factor"],
            "padding": layer["padding"][:2],
            "clamp": layer["conv_clamp"],
            "torgb": layer["is_torgb"],
        }
        for name, layer in derived["layers"].items()
    ]
    sampling = derived["input"]
    description = {
        "schema": "stylegan3/1",
        "name": "sg3_t",
        "output_scale": 0.25,
        "input": {
            "size": sampling["size"][0],
            "rate": sampling["sampling_rate"],
            "bandwidth": sampling["bandwidth"],
        },
        "layers": layers,
    }
    tensors = {key[3:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("sd/")}
    if transform:
        tensors["synthesis.input.transform"] = torch.from_numpy(arrays[transform])
    return open_stylegan3(Contents("sg3_t", "sg3_t.npz", tensors, description))


def given_latents(psi: float, cutoff: int | None = None) -> Latents:
    z = torch.from_numpy(golden()["z"])
    return Latents(z, LatentSpec.of(range(len(z)), truncation=psi, cutoff=cutoff))


def near(found: Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Equal to within `tolerance` of the largest number, as far as `expected` goes along each axis."""
    part = found.detach().numpy()[tuple(slice(length) for length in expected.shape)]
    assert part.shape == expected.shape
    assert np.abs(part - expected).max() <= tolerance * np.abs(expected).max()


# What the published implementation computes


def test_latents_w_are_the_published_ones():
    for key, psi, cutoff in (("ws_psi1", 1.0, None), ("ws_psi07", 0.7, None), ("ws_psi05_cut2", 0.5, 2)):
        near(published().keys(given_latents(psi, cutoff), "L0_36_32").rest["ws"], golden()[key])


@pytest.mark.parametrize(
    ("key", "psi", "transform"),
    [
        ("img_const_psi1", 1.0, ""),
        ("img_const_psi07", 0.7, ""),
        ("img_transform_b_psi1", 1.0, "transform_b"),
    ],
)
def test_pictures_are_the_published_ones(key, psi, transform):
    if key not in golden():
        pytest.skip("only the whole arrays have it")
    near(published(transform).pictures(given_latents(psi)), golden()[key])


def test_the_input_is_the_published_one():
    at = published().keys(given_latents(1.0), "L0_36_32")
    near(published().network.synthesis["input"](at.rest["ws"][:1, 0]), golden()["input_out_psi1_first"])


# The separated form is the fused one


def fully(state: dict[str, Tensor], name: str, x: Tensor, rate: float = 1.0) -> Tensor:
    weight = state[f"{name}.weight"]
    return x @ (weight * rate / math.sqrt(weight.shape[1])).T + state[f"{name}.bias"] * rate


def resampled(x: Tensor, kernel: Tensor | None, up: int, down: int, padding: tuple[int, int]) -> Tensor:
    """upfirdn2d as it is defined, of a kernel of two axes, or of one that is used along both."""
    kernel = torch.ones(1, dtype=x.dtype) if kernel is None else kernel
    plane = kernel[:, None] * kernel if kernel.ndim == 1 else kernel
    n, c, h, w = x.shape
    grown = x.new_zeros(n, c, h, up, w, up)
    grown[:, :, :, 0, :, 0] = x
    padded = functional.pad(grown.reshape(n, c, h * up, w * up), (*padding, *padding))
    taps = len(plane)
    windows = padded.unfold(2, taps, 1).unfold(3, taps, 1)[:, :, ::down, ::down]
    return torch.einsum("nchwyx,yx->nchw", windows, up**2 * plane.flip(0, 1))


def fused_layer(state: dict[str, Tensor], layer: LayerShape, x: Tensor, w: Tensor) -> Tensor:
    """A layer as StyleGAN3 defines it: weights and styles normalised, each picture's weight demodulated."""
    name = f"synthesis.{layer.name}"
    style, weight = fully(state, f"{name}.affine", w), state[f"{name}.weight"]
    if layer.torgb:
        own = weight * (style / math.sqrt(layer.inputs))[:, None, :, None, None]
    else:
        weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
        style = style * style.square().mean().rsqrt()  # over the batch
        own = weight * style[:, None, :, None, None]
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    own = own * state[f"{name}.magnitude_ema"].rsqrt()
    around = layer.kernel - 1
    y = torch.cat(
        [functional.conv2d(one[None], its, padding=around) for one, its in zip(x, own, strict=True)]
    )
    y = y + state[f"{name}.bias"][:, None, None]
    y = resampled(y, state.get(f"{name}.up_filter"), layer.up, 1, layer.padding)
    y = y if layer.torgb else functional.leaky_relu(y, 0.2) * math.sqrt(2)
    y = y if layer.clamp is None else y.clamp(-layer.clamp, layer.clamp)
    return resampled(y, state.get(f"{name}.down_filter"), 1, layer.down, (0, 0))


def waves(generator: StyleGAN3Generator, state: dict[str, Tensor], w: Tensor) -> Tensor:
    """The input, place by place."""
    shape, name = generator.shape.input, "synthesis.input"
    drawn = []
    for t in fully(state, f"{name}.affine", w):
        c, s, x0, y0 = (t / t[:2].norm()).tolist()
        turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
        shift = torch.tensor([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]], dtype=torch.float64)
        move = turn @ shift @ state[f"{name}.transform"]
        freqs = state[f"{name}.freqs"] @ move[:2, :2]
        phases = state[f"{name}.phases"] + state[f"{name}.freqs"] @ move[:2, 2]
        amplitude = (1 - (freqs.norm(dim=1) - shape.bandwidth) / (shape.rate / 2 - shape.bandwidth)).clamp(
            0, 1
        )
        along = (torch.arange(shape.size, dtype=torch.float64) + 0.5 - shape.size / 2) / shape.rate
        angles = along[None, :, None] * freqs[:, 0] + along[:, None, None] * freqs[:, 1] + phases  # [H, W, C]
        features = amplitude * torch.sin(2 * math.pi * angles)
        drawn.append((features @ (state[f"{name}.weight"] / math.sqrt(shape.channels)).T).permute(2, 0, 1))
    return torch.stack(drawn)


def fused_picture(generator: StyleGAN3Generator, z: Tensor) -> Tensor:
    """The whole network in the fused form and float64."""
    state = {name: tensor.double() for name, tensor in generator.network.state_dict().items()}
    w = z.double()
    w = w * (w.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for index in range(len(generator.shape.mapping.widths)):
        w = functional.leaky_relu(fully(state, f"mapping.fc{index}", w, 0.01), 0.2) * math.sqrt(2)
    x = waves(generator, state, w)
    for layer in generator.shape.layers:
        x = fused_layer(state, layer, x, w)
    return (x * generator.shape.output_scale).expand(-1, 3, -1, -1)


shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**20),
        "resolution": st.sampled_from([8, 16]),
        "count": st.integers(3, 5),
        "kernel": st.sampled_from([1, 3]),
        "radial": st.booleans(),
        "clamp": st.sampled_from([None, 0.9, 256.0]),
        "average": st.booleans(),
        "picture_channels": st.sampled_from([3, 3, 1]),
    }
)


@settings(max_examples=12, deadline=None)
@given(shapes)
def test_pictures_of_random_networks_are_those_of_the_fused_form(shape):
    generator = random_stylegan3(**shape)
    latents = generator.latents(LatentSpec((3, 5)))
    expected = fused_picture(generator, latents.z)
    found = generator.pictures(latents).double()
    assert found.shape == expected.shape == (2, 3, shape["resolution"], shape["resolution"])
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@settings(max_examples=12, deadline=None)
@given(shapes, st.sampled_from([0, 1, 4]))
def test_files_of_any_layout_open_as_the_same_generator(shape, classes):
    generator = random_stylegan3(**shape, classes=classes)
    spec = LatentSpec((2, 7), truncation=0.7 if shape["average"] else 1.0)
    expected = generator.sample(spec)
    for source in (
        Source("upload", generator.files()),
        Source("random.pkl", {"random.pkl": pickled(generator, protocol=2 + shape["seed"] % 4)}),
    ):
        again = open_source(source)
        assert isinstance(again, StyleGAN3Generator)
        assert (again.name, again.fingerprint) == (generator.name, generator.fingerprint)
        for (name, mine), (other, theirs) in zip(again.tensors(), generator.tensors(), strict=True):
            assert name == other
            assert torch.equal(mine, theirs)
        assert torch.equal(again.sample(spec), expected)


# Every layer splits the network


@pytest.fixture(params=["t", "r"], scope="module")
def each(request) -> StyleGAN3Generator:
    kernel, radial = (3, False) if request.param == "t" else (1, True)
    return random_stylegan3(7, kernel=kernel, radial=radial, clamp=2.0, classes=3)


def test_every_layer_splits_the_network(each):
    latents = each.latents(LatentSpec((3, 1)))
    expected = each.pictures(latents)
    assert len(each.layers) == 5
    for name, layer in each.layers.items():
        at = each.keys(latents, name)
        assert at.keys.shape[1:] == (layer.in_channels, *layer.key_size)
        values = each.values(at)
        assert values.shape[1:] == (layer.out_channels, *layer.value_size)
        assert torch.equal(each.render(at, values), expected)
        part = each.respond(name, at.keys, each.weight(name))[..., 1:4, 2:3]
        finished = each.finish(at, part, each.energy(at, each.weight(name)), (1, 2, 4, 3))
        torch.testing.assert_close(finished, values[..., 1:4, 2:3], rtol=0, atol=0)


def test_a_rule_at_any_layer_changes_a_view_alone_and_an_export_holds_it(each):
    spec = LatentSpec((0,))
    before, draw = each.sample(spec), torch.Generator().manual_seed(1)
    for name in each.layers:
        out, units, *taps = each.weight(name).shape
        rule = Rule(
            torch.randn(2, units, generator=draw),
            torch.randn(out, 2, *taps, generator=draw),
            Provenance(model=each.name, fingerprint=each.fingerprint, layer=name),
        )
        view = each.with_rules(RuleStack().push(rule))
        after = view.sample(spec)
        assert not torch.equal(after, before)
        assert torch.equal(each.sample(spec), before)
        assert torch.equal(open_source(Source("upload", view.files())).sample(spec), after)


@pytest.mark.parametrize("name", ["L11_84_20", "L12_84_16", "L13_64_16"])
def test_a_place_painted_on_the_picture_is_the_place_that_the_layer_draws(name):
    generator, latents = published(), given_latents(1.0)
    latents = Latents(latents.z[:1], LatentSpec((0,)))
    layer, at = generator.layers[name], generator.keys(latents, name)
    pixels = torch.zeros(64, 64)
    pixels[16:20, 36:40] = 255
    mask = Mask(pixels.byte().numpy())
    values = generator.values(at)
    touched = values + 5 * mask.area(layer.value_size, layer.value_margin)
    change = (generator.render(at, touched) - generator.render(at, values)).square().sum((0, 1))  # [64, 64]
    places = torch.arange(64) + 0.5
    across, down = (
        (change.sum(0) * places).sum() / change.sum(),
        (change.sum(1) * places).sum() / change.sum(),
    )
    assert abs(down - 18) < 1
    assert abs(across - 38) < 1


def test_an_object_is_copied_to_where_it_was_painted_and_heat_is_of_the_picture_alone():
    generator, name = published(), "L10_84_25"
    layer = generator.layers[name]
    request = EditRequest(
        object=painted(1, 8, 8, 24, 24, size=(64, 64)),
        paste=painted(0, 32, 32, 48, 48, size=(64, 64)),
        key=(painted(0, 32, 32, 48, 48, size=(64, 64)),),
        layer=name,
    )
    goal = copy_paste(generator, name, request)
    assert goal.box == tuple(layer.value_margin + place for place in (32, 32, 48, 48))
    keys, areas = painted_keys(generator, name, request, request.key)
    assert areas.shape[1:] == keys.shape[2:]
    assert areas[0, layer.key_margin + 40, layer.key_margin + 40] == 1
    found = matches(generator, name, torch.ones(layer.in_channels), LatentSpec((0,)))
    assert found.heat.shape == (1, 64, 64)


def test_a_picture_is_the_same_alone_and_in_any_batch(each):
    alone = each.pictures(each.latents(LatentSpec((11,))))[0]
    together = each.pictures(each.latents(LatentSpec((3, 11, 4, 1, 5))))[1]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * float(alone.abs().max()))


def test_maps_between_the_filters_bound_the_pictures_drawn_at_a_time():
    published_size = published()
    largest = max(layer.outputs * layer.inner_size**2 for layer in published_size.shape.layers)
    assert published_size._largest_map == largest > 64 * 64 * 32


def test_truncation_without_an_average_is_refused():
    with pytest.raises(
        RequestError, match=r"truncation 0.5; expected 1, since random does not hold its average"
    ):
        random_stylegan3(average=False).sample(LatentSpec((0,), truncation=0.5))


# Files


def refusal(source: Source) -> str:
    with pytest.raises(FileError) as refused:
        open_source(source)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("input", "size"), 1 << 40, "input.size is 1099511627776"),
        (("input", "rate"), 2.0, "expected 1 or 3 channels, a bandwidth below half the rate 2.0"),
        (("input", "rate"), -1.0, "input.rate is -1.0"),
        (("layers", 0, "up"), 1 << 40, "layers.0.up is 1099511627776"),
        (("layers", 0, "up"), 0, "layers.0.up is 0"),
        (("layers", 0, "up"), 8, "expected 20"),
        (("layers", 0, "padding"), [1 << 40, 0], "makes "),
        (("layers", 0, "padding"), [-(1 << 40), 0], "makes "),
        (("layers", 0, "name"), "../L0", "layers.0.name is '../L0'"),
        (("layers", 0, "clamp"), 0, "layers.0.clamp is 0"),
        (("layers",), [], "layers is []"),
        (("output_scale",), None, "output_scale is None"),
    ],
)
def test_descriptions_that_say_something_else_are_refused(place: Any, value: Any, problem: str):
    def describe(description: dict[str, Any]) -> None:
        inside: Any = description
        for part in place[:-1]:
            inside = inside[part]
        inside[place[-1]] = value

    assert problem in refusal(changed(random_stylegan3(), describe))


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("synthesis.input.freqs", None, "no tensor 'synthesis.input.freqs'"),
        ("synthesis.{layer}.weight", None, "no tensor 'synthesis.{layer}.weight'"),
        ("synthesis.{layer}.bias", torch.zeros(99), "'synthesis.{layer}.bias' [99]; expected"),
        ("synthesis.{layer}.up_filter", torch.zeros(3, 3, 3), "filters of 1 to 128 taps each way"),
        ("synthesis.{layer}.up_filter", torch.zeros(3, 4), "filters of 1 to 128 taps each way"),
        ("synthesis.{layer}.down_filter", torch.zeros(1000), "filters of 1 to 128 taps each way"),
        ("synthesis.{layer}.magnitude_ema", torch.tensor(math.inf), "NaN or infinite"),
    ],
)
def test_tensors_that_do_not_make_a_network_are_refused(name, tensor, problem):
    generator = random_stylegan3()
    layer = next(iter(generator.layers))

    def store(tensors: dict[str, Tensor]) -> None:
        tensors.pop(name.format(layer=layer), None)
        if tensor is not None:
            tensors[name.format(layer=layer)] = tensor

    assert problem.format(layer=layer) in refusal(changed(generator, store=store))


def test_a_map_that_is_no_square_is_refused():
    generator = random_stylegan3()
    content, size = pickled(generator), generator.shape.input.size
    oblong = content.replace(np.array([size, size]).tobytes(), np.array([size, size + 2]).tobytes(), 1)
    assert oblong != content
    assert "expected a square" in refusal(Source("net.pkl", {"net.pkl": oblong}))
