"""Stacks: described by files, or handed over from torch; what they cannot be is said in one line."""

import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from rewrite_core.errors import FileError, LayerError, PalimpsestError
from rewrite_core.generators import (
    Generator,
    Source,
    embedded_folder,
    embedded_names,
    from_sequential,
    open_generator,
    open_source,
)
from rewrite_core.generators.latents import draw
from tests.generators import UP, changed, seeded, small_generator, small_stack, some_rule, spec, stacks

TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


# Descriptions


def interpreted(description: dict[str, Any], tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """What a model.json says, in plain torch: the formulas of the schema, apart from our modules."""
    for step in description["layers"]:
        own = {
            key.split(".")[1]: value
            for key, value in tensors.items()
            if key.split(".")[0] == step.get("name")
        }
        match step["op"]:
            case "linear":
                x = x @ own["weight"].T + own["bias"]
            case "reshape":
                x = x.reshape(-1, *step["shape"])
            case "conv2d":
                x = functional.conv2d(x, own["weight"], own.get("bias"), step["stride"], step["padding"])
            case "conv_transpose2d":
                padding = step.get("padding", 0)
                x = functional.conv_transpose2d(x, own["weight"], own.get("bias"), step["stride"], padding)
                top, bottom, left, right = step.get("crop", (0, 0, 0, 0))
                x = x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
            case "batch_norm":
                scale = own["weight"] / (own["running_var"] + step["eps"]).sqrt()
                shift = own["bias"] - own["running_mean"] * scale
                x = x * scale[:, None, None] + shift[:, None, None]
            case "act":
                slope = step["fn"]["leaky_relu"] if isinstance(step["fn"], dict) else None
                x = functional.leaky_relu(x, slope) if slope else getattr(torch, step["fn"])(x)
    return x


@pytest.mark.parametrize("name", embedded_names())
def test_an_embedded_model_draws_what_its_description_says(name: str):
    folder = embedded_folder(name)
    description = json.loads((folder / "model.json").read_text())
    generator = open_generator(name)
    latents = generator.latents(spec(2))
    low, high = description["output_range"]
    drawn = interpreted(description, load_file(folder / "model.safetensors"), latents.z)
    expected = (drawn - low) / (high - low) * 2 - 1
    torch.testing.assert_close(generator.pictures(latents), expected, rtol=0, atol=TOLERANCE)
    side = description["resolution"]
    assert generator.picture_size == (side, side)


# A torch.nn.Sequential handed over


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "norm",
    [
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
    ],
    ids=["spectral norm", "weight norm", "old spectral norm", "old weight norm"],
)
def test_norms_are_folded_into_the_weights_and_the_stack_can_go_on_being_trained(norm: Any):
    stack = nn.Sequential(
        norm(nn.Linear(6, 48)),
        nn.Unflatten(1, (12, 2, 2)),
        norm(nn.ConvTranspose2d(12, 6, 4, 2, 1)),
        nn.ReLU(),
        norm(nn.Conv2d(6, 3, 3, padding=1)),
    )
    z = draw(spec(), 6)
    stack(z).sum().backward()  # leaves computed weights, which torch refuses to copy
    names = set(stack.state_dict())
    generator = from_sequential(stack)
    assert stack.training
    assert set(stack.state_dict()) == names
    stack(z).sum().backward()
    assert list(generator.layers) == ["2", "4"]
    assert set(generator.files()) == {"model.json", "model.safetensors"}

    generator = from_sequential(stack)
    expected = stack.eval()(z)
    torch.testing.assert_close(generator.sample(spec()), expected, rtol=0, atol=TOLERANCE)
    edited = generator.with_rules(some_rule(generator, "4"))
    assert not torch.allclose(edited.sample(spec()), expected, atol=1e-3)


def test_a_stack_handed_over_is_copied():
    stack = small_stack()
    generator = from_sequential(stack)
    before = generator.sample(spec())
    with torch.no_grad():
        for tensor in stack.state_dict().values():
            tensor.zero_()
    assert torch.equal(generator.sample(spec()), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_stack_of_another_precision_runs_in_float32(dtype: torch.dtype):
    generator = from_sequential(small_stack().to(dtype))
    assert generator.weight(UP).dtype == torch.float32
    torch.testing.assert_close(generator.sample(spec()), small_generator().sample(spec()), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(12, 12, 3, padding=1, groups=2),
        nn.Conv2d(12, 12, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(12, 12, 3, padding="same"),
    ],
    ids=["grouped", "reflecting", "same"],
)
def test_a_convolution_that_is_not_one_linear_map_of_all_units_runs_but_is_no_layer(module: nn.Module):
    stack = nn.Sequential(nn.Linear(6, 48), nn.Unflatten(1, (12, 2, 2)), module, module, nn.Conv2d(12, 3, 1))
    generator = from_sequential(seeded(stack))
    assert list(generator.layers) == ["4"]
    torch.testing.assert_close(generator.sample(spec()), stack(draw(spec(), 6)), rtol=0, atol=TOLERANCE)
    at = generator.keys(generator.latents(spec()), "4")
    torch.testing.assert_close(generator.render(at, generator.values(at)), generator.sample(spec()))
    with pytest.raises(FileError, match="no word for"):
        generator.files()


class Doubled(nn.Module):
    """A module of the caller's own, with a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.full((1,), 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_modules_of_ones_own_run_as_they_are():
    stack = nn.Sequential(nn.Linear(6, 12), nn.Unflatten(1, (3, 2, 2)), Doubled(), nn.Conv2d(3, 3, 1))
    generator = from_sequential(seeded(stack))
    torch.testing.assert_close(generator.sample(spec()), stack(draw(spec(), 6)), rtol=0, atol=TOLERANCE)


class Levelled(nn.Module):
    """A module of the caller's own that looks at numbers, and whose `repr` does not say all of it."""

    def __init__(self, level: float = 1.0) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        slope = torch.linspace(0, 1, x.shape[-1])
        return x * slope * (self.level / (1 + float(slope.max())))


def own_stack(module: nn.Module) -> nn.Sequential:
    return seeded(
        nn.Sequential(nn.Linear(6, 12), nn.Unflatten(1, (3, 2, 2)), module, nn.Conv2d(3, 3, 1), nn.Tanh())
    )


def test_a_module_of_ones_own_may_look_at_numbers():
    stack = own_stack(Levelled())
    generator = from_sequential(stack)
    assert generator.picture_size == (2, 2)
    torch.testing.assert_close(generator.sample(spec()), stack(draw(spec(), 6)), rtol=0, atol=TOLERANCE)


def test_attributes_of_ones_own_modules_are_in_the_fingerprint():
    prints = [from_sequential(own_stack(Levelled(level))).fingerprint for level in (1.0, 1.0, 9.0)]
    assert prints[0] == prints[1] != prints[2]


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


def test_a_stack_that_draws_at_random_is_refused():
    with pytest.raises(FileError, match="two different pictures of one latent") as problem:
        from_sequential(own_stack(Noisy()))
    assert "\n" not in str(problem.value)


def test_steps_whose_paths_join_to_one_name_are_refused():
    stack = nn.Sequential()
    stack.add_module("a", nn.Sequential(OrderedDict(b_c=nn.Linear(6, 12))))
    stack.add_module("a_b", nn.Sequential(OrderedDict(c=nn.Unflatten(1, (3, 2, 2)))))
    with pytest.raises(FileError, match=r"step 'a_b\.c': the name 'a_b_c', as has another step"):
        from_sequential(stack)


@pytest.mark.parametrize(
    ("module", "kept"),
    [
        (nn.Upsample(scale_factor=32), False),
        (nn.LeakyReLU(2.0), False),
        (nn.ELU(alpha=2.0), False),
        (nn.ReLU(inplace=True), True),
    ],
    ids=["upsampled 32 times", "steep", "another alpha", "in place"],
)
def test_what_a_file_cannot_say_runs_all_the_same(module: nn.Module, kept: bool):
    stack = nn.Sequential(nn.Linear(6, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 3, 1), module, nn.Tanh())
    generator = from_sequential(seeded(stack))
    torch.testing.assert_close(generator.sample(spec()), stack(draw(spec(), 6)), rtol=0, atol=TOLERANCE)
    if kept:
        generator.files()
    else:
        with pytest.raises(FileError, match="no word for"):
            generator.files()


def test_the_latent_size_and_range_are_read_off_the_stack_unless_given():
    steps = [nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 1), nn.Sigmoid()]
    generator = from_sequential(nn.Sequential(*steps), distribution="uniform")
    assert (generator.latent_dim, generator.output_range) == (8, (0.0, 1.0))
    assert generator.latents(spec(50)).z.abs().max() <= 1
    assert from_sequential(nn.Sequential(*steps), latent_dim=8, output_range=(0, 255)).output_range == (
        0,
        255,
    )


@pytest.mark.parametrize(
    ("steps", "options", "message"),
    [
        ([], {}, "no linear layer or convolution"),
        ([nn.Linear(4, 4)], {}, r"draws \[4\]; expected pictures \[3, H, W\] or \[1, H, W\]"),
        ([nn.Linear(4, 8), nn.Unflatten(1, (2, 2, 2))], {}, r"draws \[2, 2, 2\]"),
        ([nn.Linear(4, 8), nn.Unflatten(1, (3, 2, 2))], {}, "step '1' .* fails on"),
        ([nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2))], {"latent_dim": 5}, r"step '0' \(Linear\) fails on \[5\]"),
        ([nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2))], {"output_range": (1, 1)}, "output_range"),
        ([nn.Linear(4, 12), nn.BatchNorm1d(12, track_running_stats=False)], {}, "depend on their batch"),
    ],
    ids=["empty", "a vector", "two channels", "misfit", "other latents", "no range", "batch statistics"],
)  # fmt: skip
def test_a_stack_that_draws_no_picture_is_refused(steps: list[nn.Module], options: Any, message: str):
    with pytest.raises(PalimpsestError, match=message) as problem:
        from_sequential(nn.Sequential(*steps), **options)
    assert "\n" not in str(problem.value)


def test_nan_in_a_stack_is_refused():
    stack = small_stack()
    with torch.no_grad():
        stack.get_parameter("plain.weight")[0, 0, 0, 0] = float("nan")
    with pytest.raises(FileError, match=r"1 of 810 numbers in 'plain.weight' are NaN"):
        from_sequential(stack)


def test_a_generator_without_layers_draws_but_offers_none():
    generator = from_sequential(nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2))))
    assert generator.sample(spec()).shape == (4, 3, 2, 2)
    with pytest.raises(LayerError, match="no convolution that can be rewritten"):
        _ = generator.default_layer


# Fingerprints


def test_a_fingerprint_tells_weights_statistics_and_architecture_apart():
    def altered(name: str) -> nn.Sequential:
        stack = small_stack()
        with torch.no_grad():
            stack.state_dict()[name].view(-1)[0] += 1e-3
        return stack

    def slope(value: float) -> nn.Sequential:
        stack = small_stack()
        stack.add_module("act2", nn.LeakyReLU(value))
        return stack

    variants = [
        altered(name) for name in ("start.bias", "plain.weight", "norm.running_mean", "norm.running_var")
    ]
    variants += [small_stack(1), slope(0.1)]
    prints = [from_sequential(stack).fingerprint for stack in [small_stack(), *variants]]
    prints.append(from_sequential(small_stack(), output_range=(0.0, 1.0)).fingerprint)
    prints.append(from_sequential(small_stack(), distribution="uniform").fingerprint)
    assert len(set(prints)) == len(prints)
    assert from_sequential(small_stack(), name="another name").fingerprint == prints[0]


def test_strides_beyond_what_a_file_can_say_are_in_the_fingerprint():
    def wide(stride: int) -> str:
        convolution = nn.Conv2d(3, 3, 66, stride=stride, padding=65)
        stack = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)), convolution)
        return from_sequential(seeded(stack)).fingerprint

    assert wide(1) != wide(2)


# Files


def test_files_open_again_as_the_same_generator(small: Generator, tmp_path: Path):
    for name, content in small.files().items():
        (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / "model.json", tmp_path / "model.safetensors"):
        again = open_generator(path)
        assert again.fingerprint == small.fingerprint
        assert torch.equal(again.sample(spec()), small.sample(spec()))
    assert small.files() == small.files()


@pytest.mark.parametrize("which", [name for name in stacks() if name not in ("activations",)])
def test_any_describable_stack_survives_its_files(which: str):
    generator = from_sequential(seeded(stacks()[which]()))
    again = open_source(changed(generator))
    assert again.fingerprint == generator.fingerprint
    assert torch.equal(again.sample(spec()), generator.sample(spec()))


def test_edited_weights_open_as_a_generator_of_their_own(small: Generator):
    view = small.with_rules(some_rule(small, UP))
    again = open_source(changed(view))
    assert torch.equal(again.weight(UP), view.weight(UP))
    assert torch.equal(again.sample(spec()), view.sample(spec()))
    assert again.fingerprint != small.fingerprint


def test_embedded_models_open_by_name_the_default_first():
    assert embedded_names()[0] == "anime64-dcgan"
    assert open_generator().fingerprint == open_generator("anime64-dcgan").fingerprint
    assert (
        open_generator(embedded_folder("face32-dcgan")).fingerprint
        == open_generator("face32-dcgan").fingerprint
    )


def step(name: str, /, **changes: Any) -> Callable[[dict[str, Any]], Any]:
    """Change the step called `name` in a description."""
    return lambda description: next(s for s in description["layers"] if s.get("name") == name).update(changes)


def op(index: int, **changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda description: description["layers"][index].update(changes)


def enlarged(description: dict[str, Any]) -> None:
    description["layers"][9:9] = 3 * [{"op": "upsample", "scale": 16}]


DESCRIPTIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another schema": (lambda d: d.update(schema="gen-layers/2"), "schema is 'gen-layers/2'"),
    "no name": (lambda d: d.pop("name"), "name"),
    "no steps": (lambda d: d.update(layers=[]), "layers"),
    "unknown field": (lambda d: d.update(licence="x"), "licence is 'x'; expected no field of that name"),
    "unknown op": (op(2, op="resnet"), "expected 'op' to be one of 'linear'"),
    "unknown activation": (op(2, fn="mish"), r"layers\.2\.act"),
    "a text for a number": (step("plain", kernel="3"), r"layers\.6\.conv2d\.kernel is '3'"),
    "a fraction": (step("plain", stride=1.5), r"layers\.6\.conv2d\.stride"),
    "stride 0": (step("plain", stride=0), "greater than or equal to 1"),
    "negative padding": (step("plain", padding=-1), "greater than or equal to 0"),
    "groups": (step("plain", groups=2), "expected no field of that name"),
    "another kernel": (step("plain", kernel=5), r"'plain\.weight' with taps \[3, 3\]; expected the kernel \[5, 5\]"),
    "output padding": (step("up", output_padding=2), "an output_padding below the stride or the dilation"),
    "a crop beyond the map": (step("up", crop=[0, 9, 0, 0]), "step 'up'"),
    "a name twice": (step("plain", name="up"), "a step called 'up'"),
    "a dotted name": (step("plain", name="main.0"), r"conv2d\.name is 'main\.0'"),
    "a name of torch's": (step("plain", name="forward"), "a step called 'forward'"),
    "latents of another size": (lambda d: d["latent"].update(dim=9), r"step 'start' \(Linear\) fails on \[9\]"),
    "absurd latents": (lambda d: d["latent"].update(dim=10**9), "latent.dim is 1000000000"),
    "absurd shape": (op(1, shape=[12, 10**12, 4]), r"layers\.1\.reshape\.shape"),
    "absurd maps": (enlarged, "numbers a picture after step"),
    "a black white": (lambda d: d.update(output_range=[0.5, 0.5]), r"output_range \[0\.5, 0\.5\]"),
    "steps left out": (lambda d: d["layers"].__delitem__(slice(9, None)), "4 of 14 tensors, as 'down.bias'"),
    "a convolution of vectors": (op(1, shape=[12, 16]), "step 'up'.*takes"),
}  # fmt: skip


@pytest.mark.parametrize("which", DESCRIPTIONS)
def test_a_description_that_is_wrong_is_refused_in_one_line(small: Generator, which: str):
    describe, message = DESCRIPTIONS[which]
    with pytest.raises(FileError, match=message) as problem:
        open_source(changed(small, describe))
    assert "\n" not in str(problem.value)
    assert len(str(problem.value)) < 500


def test_a_picture_with_nothing_left_of_it_is_refused():
    stack = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)), nn.ConvTranspose2d(3, 3, 1))
    with pytest.raises(FileError, match=r"draws \[3, 0, 2\]"):
        open_source(changed(from_sequential(stack), op(2, crop=[1, 1, 0, 0])))


def put(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.update({name: tensor})


TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "a missing weight": (lambda t: t.pop("plain.weight"), r"no tensor 'plain\.weight'"),
    "a missing statistic": (lambda t: t.pop("norm.running_var"), r"no tensor 'norm\.running_var'"),
    "half an affine": (lambda t: t.pop("norm.bias"), r"no tensor 'norm\.bias'"),
    "a step that was left out": (put("norm2.weight", torch.ones(3)), "1 of 15 tensors, as 'norm2.weight', used by no"),
    "a word too many": (put("plain.scale", torch.ones(3)), r"'plain\.scale', used by no step"),
    "a bias of one": (put("plain.bias", torch.ones(1)), r"a bias \[1\]"),
    "a flat weight": (put("plain.weight", torch.ones(9, 10)), r"'plain\.weight' with taps \[\]"),
    "too few channels": (put("plain.weight", torch.ones(9, 4, 3, 3)), "step 'plain'"),
    "a scalar statistic": (put("norm.running_mean", torch.tensor(1.0)), "batch_norm"),
    "short statistics": (lambda t: t.update({k: v[:5] for k, v in t.items() if "norm" in k}), "step 'norm'"),
    "a negative variance": (put("norm.running_var", -torch.ones(10)), "a negative variance"),
    "a cubic matrix": (put("start.weight", torch.ones(2, 2, 2)), r"step 'start' \(linear\)"),
    "NaN": (put("plain.bias", torch.full((9,), torch.nan)), r"9 of 9 numbers in 'plain\.bias' are NaN"),
    "infinity": (put("up.bias", torch.full((10,), torch.inf)), r"'up\.bias' are NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("which", TENSORS)
def test_weights_that_are_wrong_are_refused_in_one_line(small: Generator, which: str):
    store, message = TENSORS[which]
    with pytest.raises(FileError, match=message) as problem:
        open_source(changed(small, store=store))
    assert "\n" not in str(problem.value)


def test_a_counter_beside_a_batch_norm_is_no_tensor_too_many(small: Generator):
    again = open_source(changed(small, store=put("norm.num_batches_tracked", torch.tensor(7))))
    assert again.fingerprint == small.fingerprint


class Trap:
    """A pickle that leaves a mark where it is executed."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (self.mark.touch, ())


def test_a_pickle_under_the_name_of_safetensors_is_never_executed(small: Generator, tmp_path: Path):
    mark, trapped = tmp_path / "executed", pickle.dumps(Trap(tmp_path / "executed"))
    for weights in (trapped, zipped(trapped, tmp_path)):
        source = Source("upload", {**small.files(), "model.safetensors": weights})
        with pytest.raises(FileError, match="expected a safetensors file") as problem:
            open_source(source)
        assert "can run code" in str(problem.value)
    assert not mark.exists()
    pickle.loads(trapped)
    assert mark.exists()  # the trap works


def zipped(data: bytes, folder: Path) -> bytes:
    path = folder / "weights.pt"
    torch.save({"data": data}, path)
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(small: Generator, share: float):
    for name in ("model.safetensors", "model.json"):
        files = small.files()
        files[name] = files[name][: int(share * len(files[name]))]
        with pytest.raises(FileError, match=name):
            open_source(Source("upload", files))


def test_a_source_without_a_model_says_what_is_missing(small: Generator, tmp_path: Path):
    description = {"model.json": small.files()["model.json"]}
    with pytest.raises(FileError, match=r"expected model\.safetensors among the files"):
        open_source(Source("upload", description))
    with pytest.raises(FileError, match=r"expected model\.json with model\.safetensors"):
        open_generator(tmp_path)


@pytest.mark.parametrize("path", ["no/such/place", "x" * 5000, "a\0b", ""])
def test_a_path_with_nothing_there_names_the_embedded_models(path: str):
    with pytest.raises(FileError, match=r"anime64-dcgan|expected model\.json") as problem:
        open_generator(path)
    assert len(str(problem.value)) < 500


def test_a_latent_of_the_wrong_size_is_refused_when_the_stack_is_opened():
    stack = nn.Sequential(nn.ConvTranspose2d(64, 3, 4), nn.Tanh())
    with pytest.raises(FileError, match=r"fails on \[32, 1, 1\].*\[64, H, W\]"):
        from_sequential(stack, latent_dim=32)


def test_a_saved_copy_keeps_the_licence_and_the_source():
    files = open_generator("anime64-dcgan").files()
    card = json.loads(files["model.json"])
    assert card["weights_licence"].startswith("MIT")
    assert card["source"]["repository"]
