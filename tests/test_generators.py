"""Generators: the same seed is the same picture; layers compute what torch computes; views leave no trace."""

import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.errors import Cancelled, LayerError
from rewrite_core.generators import (
    MICRO_BATCH,
    Generator,
    LatentSpec,
    embedded_names,
    from_sequential,
    open_generator,
)
from rewrite_core.generators.convolution import Convolution
from rewrite_core.rules.stack import RuleStack
from tests.generators import DOWN, PLAIN, UP, Demodulated, seeded, small_generator, some_rule, spec, stacks
from tests.nvidia import random_stylegan2_ada, random_stylegan3

TOLERANCE = 5e-6  # between batches of different sizes
ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "tests" / "reference"


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def anime() -> Generator:
    return open_generator("anime64-dcgan")


# The same seed, the same picture


@pytest.mark.parametrize("name", ["small", "anime"])
@pytest.mark.parametrize("batch", [1, 3, 7, 25])
def test_a_picture_is_the_same_in_any_batch_and_order(name: str, batch: int, request: pytest.FixtureRequest):
    generator: Generator = request.getfixturevalue(name)
    alone = generator.pictures(generator.latents(LatentSpec((11,))))[0]
    seeds = [*range(batch)]
    seeds[batch // 2] = 11
    for order in (seeds, seeds[::-1]):
        together = generator.pictures(generator.latents(LatentSpec.of(order)))[order.index(11)]
        torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE)


def test_a_sample_is_bit_identical_at_the_fixed_micro_batch(anime: Generator):
    both = anime.sample(spec(2 * MICRO_BATCH))
    assert both.shape == (2 * MICRO_BATCH, 3, 64, 64)
    assert torch.equal(both[MICRO_BATCH:], anime.sample(spec(MICRO_BATCH, first=MICRO_BATCH)))


def test_fewer_pictures_are_drawn_at_a_time_where_any_step_makes_large_maps():
    steps = [nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 3, 1)]
    assert from_sequential(nn.Sequential(*steps)).micro_batch == MICRO_BATCH
    larger = [nn.Upsample(scale_factor=16), nn.Upsample(scale_factor=16), nn.Upsample(scale_factor=2)]
    generator = from_sequential(nn.Sequential(*steps, *larger))  # [3, 1024, 1024]
    assert generator.micro_batch == 10
    for name in embedded_names():
        assert open_generator(name).micro_batch == MICRO_BATCH


def test_the_largest_map_is_that_of_any_step_not_of_layers_alone():
    steps = [nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 5, 1)]
    assert from_sequential(nn.Sequential(*steps, nn.Conv2d(5, 3, 1))).largest_map == 5 * 2 * 2
    larger = from_sequential(nn.Sequential(*steps, nn.Upsample(scale_factor=8), nn.Conv2d(5, 3, 1, 2)))
    assert larger.largest_map == 5 * 16 * 16
    for name in embedded_names():
        generator = open_generator(name)
        values = (
            layer.out_channels * layer.value_size[0] * layer.value_size[1]
            for layer in generator.layers.values()
        )
        assert generator.largest_map >= max(values)


def test_a_picture_is_the_same_in_another_process(anime: Generator, tmp_path: Path):
    script = (
        "import sys, torch; from rewrite_core import LatentSpec, open_generator\n"
        "torch.save(open_generator().sample(LatentSpec.of(range(3))), sys.argv[1])"
    )
    path = tmp_path / "pictures.pt"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=ROOT)
    torch.testing.assert_close(torch.load(path), anime.sample(spec(3)), rtol=0, atol=TOLERANCE)


def test_sampling_tells_its_progress_and_can_be_cancelled(small: Generator):
    told: list[tuple[int, int]] = []
    small.sample(spec(60), lambda done, total: told.append((done, total)))
    assert told == [(25, 60), (50, 60), (60, 60)]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        small.sample(spec(60), stop)
    assert small.sample(spec(0)).shape == (0, 3, 16, 16)


def test_truncation_moves_latents_towards_the_average(small: Generator):
    mean = small.pictures(small.latents(LatentSpec((1,), truncation=0.0)))
    other = small.pictures(small.latents(LatentSpec((2,), truncation=0.0)))
    assert torch.equal(mean, other)
    half, full = (small.latents(LatentSpec((1,), truncation=psi)) for psi in (0.5, 1.0))
    assert not torch.equal(small.pictures(half), small.pictures(full))


# A layer is a linear map


def random_convolution(draw: np.random.Generator) -> Convolution:
    kernel, stride, dilation = (tuple(int(n) for n in draw.integers(1, 4, 2)) for _ in range(3))
    padding = tuple(int(draw.integers(0, size)) for size in kernel)
    if draw.random() < 0.5:
        return Convolution(kernel, stride, padding, dilation)  # type: ignore[arg-type]
    extra = tuple(int(draw.integers(0, max(pair))) for pair in zip(stride, dilation, strict=True))
    crop = tuple(int(n) for n in draw.integers(0, 2, 4))
    return Convolution(kernel, stride, padding, dilation, extra, True, crop)  # type: ignore[arg-type]


def test_a_convolution_is_torchs_with_canonical_weights_and_linear_in_key_and_weight():
    choose, draw = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(40):
        convolution = random_convolution(choose)
        keys = torch.randn(2, 3, 9, 8, generator=draw)
        weight, other = torch.randn(2, 5, 3, *convolution.kernel, generator=draw)
        c = convolution
        if c.transposed:
            top, left = c.crop[0], c.crop[2]
            torchs = functional.conv_transpose2d(
                keys,
                weight.transpose(0, 1),
                stride=c.stride,
                padding=c.padding,
                output_padding=c.output_padding,
                dilation=c.dilation,
            )
            torchs = torchs[:, :, top : torchs.shape[2] - c.crop[1], left : torchs.shape[3] - c.crop[3]]
        else:
            torchs = functional.conv2d(keys, weight, stride=c.stride, padding=c.padding, dilation=c.dilation)
        torch.testing.assert_close(c(keys, weight), torchs, rtol=0, atol=0)
        mixed = c(keys, 2 * weight - other)
        torch.testing.assert_close(mixed, 2 * c(keys, weight) - c(keys, other), rtol=1e-4, atol=1e-4)


def flat_steps(stack: nn.Sequential) -> list[nn.Module]:
    steps: list[nn.Module] = []
    for module in stack:
        steps += flat_steps(module) if type(module) is nn.Sequential else [module]
    return steps


@pytest.mark.parametrize("which", stacks())
def test_every_layer_splits_the_network_into_what_torch_computes(which: str):
    stack = seeded(stacks()[which]())
    generator = from_sequential(stack)
    latents = generator.latents(spec(3))
    x = latents.z[:, :, None, None] if which == "latents as a map" else latents.z
    layers = iter(generator.layers.values())
    passed: list[tuple[str, Tensor, Tensor]] = []
    for module in flat_steps(stack):
        before, x = x, module(x)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            passed.append((next(layers).name, before, x))
    assert next(layers, None) is None
    low, high = generator.output_range
    expected = ((x - low) / (high - low) * 2 - 1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(generator.pictures(latents), expected, rtol=1e-5, atol=2e-6)

    inputs = generator.inputs(latents, list(generator.layers))
    for name, keys, values in passed:
        at, layer = inputs[name], generator.layer(name)
        torch.testing.assert_close(at.keys, keys, rtol=1e-5, atol=2e-6)
        assert (layer.in_channels, *layer.key_size) == keys.shape[1:]
        assert (layer.out_channels, *layer.value_size) == values.shape[1:]
        response = generator.respond(name, at.keys, generator.weight(name))
        finished = generator.finish(at, response, generator.energy(at, generator.weight(name)))
        torch.testing.assert_close(finished, values, rtol=1e-5, atol=5e-6)
        assert torch.equal(generator.values(at), finished)
        torch.testing.assert_close(generator.render(at, finished), expected, rtol=1e-5, atol=5e-6)


def test_a_demodulated_layer_splits_the_network_too():
    generator = Demodulated.small()
    latents = generator.latents(spec(3))
    at = generator.keys(latents, PLAIN)
    boxed = generator.respond(PLAIN, at.keys, generator.weight(PLAIN))[..., 2:5, 1:7]
    part = generator.finish(at, boxed, generator.energy(at, generator.weight(PLAIN)), (2, 1, 5, 7))
    assert torch.equal(part, generator.values(at)[..., 2:5, 1:7])
    torch.testing.assert_close(generator.render(at, generator.values(at)), generator.pictures(latents))


def test_layers_are_described_in_order(small: Generator):
    assert list(small.layers) == [UP, PLAIN, DOWN, "last"]
    assert [layer.kind for layer in small.layers.values()] == ["transposed conv", "conv", "conv", "conv"]
    assert small.default_layer == DOWN
    assert small.resolution == 16
    with pytest.raises(LayerError, match="layer 'nose'; expected one of up, plain, down, last"):
        small.keys(small.latents(spec()), "nose")


def test_one_pass_stops_at_several_layers(small: Generator):
    latents = small.latents(spec())
    together = small.inputs(latents, [DOWN, UP])
    assert set(together) == {UP, DOWN}
    for layer in (UP, DOWN):
        assert torch.equal(together[layer].keys, small.keys(latents, layer).keys)


def test_rendering_leaves_the_values_as_they_are():
    stack = nn.Sequential(
        nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True)
    )
    generator = from_sequential(seeded(stack.append(nn.Conv2d(5, 3, 1))))
    at = generator.keys(generator.latents(spec()), "2")
    values = generator.values(at)
    kept = values.clone()
    generator.render(at, values)
    assert torch.equal(values, kept)


FAMILIES: dict[str, Callable[[], Generator]] = {
    "sequential": small_generator,
    "demodulated": Demodulated.small,
    "stylegan2": lambda: open_generator(REFERENCE / "small_stylegan2.pt"),
    "stylegan2-ada": random_stylegan2_ada,
    "stylegan3": random_stylegan3,
    "proggan": lambda: open_generator(REFERENCE / "small_proggan.pth"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_goes_on_from_any_layer_to_any_later_one(family: str):
    generator = FAMILIES[family]()
    latents = generator.latents(spec(2))
    stopped = generator.inputs(latents, list(generator.layers))
    for (here, at), (there, expected) in combinations_with_replacement(stopped.items(), 2):
        reached = generator.onward(at, there)
        assert reached.layer == there
        assert reached.latents is latents
        assert torch.equal(reached.keys, expected.keys), (here, there)
        assert reached.rest.keys() == expected.rest.keys()
        assert all(torch.equal(value, expected.rest[name]) for name, value in reached.rest.items())
    assert generator.onward(at, at.layer) is at


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rest_of_the_network_draws_the_same_pictures_from_any_layer(family: str):
    generator = FAMILIES[family]()
    latents = generator.latents(spec(2))
    pictures = generator.pictures(latents)
    for at in generator.inputs(latents, list(generator.layers)).values():
        torch.testing.assert_close(
            generator.render(at, generator.values(at)), pictures, rtol=0, atol=TOLERANCE
        )


def test_a_batch_never_goes_back(small: Generator):
    at = small.keys(small.latents(spec()), PLAIN)
    with pytest.raises(LayerError, match="'up' after 'plain'; expected 'plain' or a layer behind it"):
        small.onward(at, UP)
    with pytest.raises(LayerError, match="layer 'nose'"):
        small.onward(at, "nose")


# Views


def test_a_view_shares_every_tensor_but_the_edited_weight(small: Generator):
    before = small.sample(spec())
    view = small.with_rules(some_rule(small, UP))
    ours, theirs = dict(small.tensors()), dict(view.tensors())
    apart = [name for name in ours if ours[name].data_ptr() != theirs[name].data_ptr()]
    assert apart == ["up.weight"]
    assert view.fingerprint != small.fingerprint
    assert view.pristine is small
    assert not torch.allclose(view.sample(spec()), before, atol=1e-3)
    assert torch.equal(small.sample(spec()), before)


def test_a_view_of_a_view_is_composed_from_the_pristine_weights(small: Generator):
    first, second = some_rule(small, UP, 1), some_rule(small, PLAIN, 2)
    view = small.with_rules(first).with_rules(second)
    assert view.pristine is small
    assert torch.equal(view.weight(UP), small.weight(UP))
    assert view.fingerprint == small.with_rules(second).fingerprint
    assert torch.equal(view.sample(spec()), small.with_rules(second).sample(spec()))
    assert view.with_weights({UP: small.weight(UP)}).pristine is small


def test_a_view_without_rules_is_the_generator_itself(small: Generator):
    assert small.with_rules(RuleStack()) is small
    assert small.with_rules(some_rule(small, UP)).with_rules(RuleStack()) is small


def test_visitors_who_draw_at_once_never_see_each_others_rules(small: Generator):
    rules = [None, *(some_rule(small, layer, seed) for seed, layer in enumerate([UP, PLAIN, DOWN]))]
    alone = [(small.with_rules(rule) if rule else small).sample(spec()) for rule in rules]
    leaks: list[str] = []

    def visit(index: int) -> None:
        rule = rules[index]
        for _ in range(20):
            generator = small.with_rules(rule) if rule else small
            if not torch.equal(generator.sample(spec()), alone[index]):
                leaks.append(f"visitor {index}")

    visitors = [threading.Thread(target=visit, args=(index,)) for index in range(len(rules))]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert not leaks


# Devices


def test_a_generator_is_itself_where_it_is(small: Generator):
    assert small.on(torch.device("cpu")) is small


def test_on_another_device_is_a_copy_and_this_one_stays(small: Generator):
    """Torch's device `meta` holds shapes without numbers, and is there on every machine."""
    meta = torch.device("meta")
    view = small.with_rules(some_rule(small))
    for generator in (small, view):
        before = {name: tensor.clone() for name, tensor in generator.tensors()}
        moved = generator.on(meta)
        assert moved.device == meta
        assert moved.pristine.device == meta
        assert type(moved) is type(generator)
        assert (moved.fingerprint, moved.name) == (generator.fingerprint, generator.name)
        assert moved.latents(spec(2)).z.device == meta
        assert moved.pictures(moved.latents(spec(2))).shape == (2, 3, 16, 16)
        assert generator.device == generator.pristine.device == torch.device("cpu")
        assert all(torch.equal(tensor, before[name]) for name, tensor in generator.tensors())
    assert view.on(meta).pristine.fingerprint == small.fingerprint
    assert small.on(meta).pristine.fingerprint == small.fingerprint
