"""Bare state dicts of plain stacks: what their tensors tell, what they leave open, and the draft of a description."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rewrite_core.errors import FileError
from rewrite_core.generators import (
    LatentSpec,
    SequentialGenerator,
    draft_description,
    embedded_folder,
    exported,
    open_generator,
    open_source,
)
from rewrite_core.generators.latents import Distribution, draw
from rewrite_core.generators.source import Source
from tests.generators import seeded, some_rule
from tests.test_cli import answer

SHARED = Path(os.environ.get("PALIMPSEST_TEST_MODELS", "/nonexistent"))
SPEC = LatentSpec.of(range(3))


def trained(stack: nn.Sequential, dim: int, distribution: Distribution = "normal") -> nn.Sequential:
    """`stack` with random weights, whose batch norms have seen what latents make of it."""
    seeded(stack)
    norms = [module for module in stack.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    z = draw(LatentSpec.of(range(5000, 5512)), dim, distribution)
    first = next(module for module in stack.modules() if not isinstance(module, nn.Sequential))
    with torch.no_grad():
        stack.train()(z if isinstance(first, nn.Linear | nn.Unflatten) else z[:, :, None, None])
    return stack.eval()


def block(before: int, after: int, act: nn.Module, stride: int = 2, bias: bool = False) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(before, after, 4, stride, stride - 1, bias=bias)
    return [convolution, nn.BatchNorm2d(after), act]


def tutorial() -> nn.Sequential:
    """The DCGAN of PyTorch's tutorial, narrow: 12 latents, 32 pixels."""
    relu = nn.ReLU(True)
    steps = [*block(12, 32, relu, stride=1), *block(32, 24, relu), *block(24, 16, relu)]
    return nn.Sequential(*steps, nn.ConvTranspose2d(16, 3, 4, 2, 1, bias=False), nn.Tanh())


def linear_first() -> nn.Sequential:
    steps = [nn.Linear(10, 32 * 16), nn.Unflatten(1, (32, 4, 4)), nn.BatchNorm2d(32), nn.LeakyReLU(0.2)]
    tail = [nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*steps, *block(32, 16, nn.LeakyReLU(0.2), bias=True), *tail)


def vector_norm() -> nn.Sequential:
    start = [nn.Linear(10, 32 * 4), nn.BatchNorm1d(128), nn.ReLU(), nn.Unflatten(1, (32, 2, 2))]
    return nn.Sequential(*start, *block(32, 24, nn.ReLU()), nn.ConvTranspose2d(24, 3, 4, 2, 1), nn.Tanh())


def with_plain() -> nn.Sequential:
    """A plain convolution inside, and one that ends the stack, whose place shows that nothing enlarges before it."""
    plain = [nn.Conv2d(32, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.LeakyReLU(0.2)]
    steps = [*block(12, 32, nn.LeakyReLU(0.2), 1), *plain, *block(24, 16, nn.LeakyReLU(0.2))]
    return nn.Sequential(*steps, nn.Conv2d(16, 3, 3, 1, 1), nn.Tanh())


STACKS: dict[str, tuple[Callable[[], nn.Sequential], int, Distribution]] = {
    "the tutorial's": (tutorial, 12, "normal"),
    "uniform latents": (tutorial, 12, "uniform"),
    "linear first, grey": (linear_first, 10, "normal"),
    "norm of a vector": (vector_norm, 10, "normal"),
    "plain convolutions": (with_plain, 12, "normal"),
}


def written(stack: nn.Module, form: str, folder: Path, attribute: str = "main") -> Path:
    """The stack as people save it, within a module whose attribute it is."""
    state = {
        f"{attribute}.{name}" if attribute else name: value for name, value in stack.state_dict().items()
    }
    path = folder / f"mine{'.safetensors' if form == 'safetensors' else '.pth'}"
    match form:
        case "safetensors":
            save_file(state, path)
        case "DataParallel":
            torch.save({f"module.{name}": value for name, value in state.items()}, path)
        case "checkpoint":
            judge = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.Conv2d(8, 1, 4), nn.Sigmoid())
            torch.save({"netD": judge.state_dict(), "netG": state, "epoch": 3}, path)
        case _:
            torch.save(state, path)
    return path


def drawn(stack: nn.Sequential, generator: SequentialGenerator) -> Tensor:
    """What the stack itself draws of the generator's latents."""
    z = generator.latents(SPEC).z
    first = next(module for module in stack.modules() if not isinstance(module, nn.Sequential))
    with torch.no_grad():
        pictures: Tensor = stack(z if isinstance(first, nn.Linear) else z[:, :, None, None])
    return pictures.expand(-1, 3, -1, -1)


@pytest.mark.parametrize("form", ["state dict", "safetensors", "DataParallel", "checkpoint"])
def test_a_stack_opens_from_every_file_that_people_have_and_goes_back_there(tmp_path: Path, form: str):
    stack = trained(tutorial(), 12)
    path = written(stack, form, tmp_path)
    generator = open_generator(path)
    assert isinstance(generator, SequentialGenerator)
    torch.testing.assert_close(generator.sample(SPEC), drawn(stack, generator), rtol=0, atol=1e-5)
    assert "by convention: ReLU before the last convolution, tanh after it" in generator.assumed.replace(
        "By", "by"
    )
    assert answer("verify", path)["assumed"] == generator.assumed
    back = generator.own_layout()
    prefix = {"DataParallel": "module.", "checkpoint": "netG."}.get(form, "")
    before = {f"{prefix}main.{name}": tensor for name, tensor in stack.state_dict().items()}
    assert set(back) == set(before)
    assert all(
        torch.equal(back[name], before[name]) and back[name].dtype == before[name].dtype for name in before
    )
    view = generator.with_rules(some_rule(generator, list(generator.layers)[1]))
    again = open_source(Source("again", exported(view, "own", {})))
    assert torch.equal(again.sample(SPEC), view.sample(SPEC))


@pytest.mark.parametrize("which", STACKS)
@pytest.mark.parametrize("attribute", ["main", "", "net.layers"])
def test_activations_and_latents_are_told_by_the_batch_norms(tmp_path: Path, which: str, attribute: str):
    build, dim, distribution = STACKS[which]
    stack = trained(build(), dim, distribution)
    generator = open_generator(written(stack, "safetensors", tmp_path, attribute))
    assert isinstance(generator, SequentialGenerator)
    assert (generator.distribution, generator.latent_dim) == (distribution, dim)
    torch.testing.assert_close(generator.sample(SPEC), drawn(stack, generator), rtol=0, atol=1e-5)
    assert f"{distribution} latents" in generator.assumed


def test_names_without_an_order_are_put_into_one(tmp_path: Path):
    stack = trained(linear_first(), 10)
    names = {"0": "fc", "2": "bn0", "4": "c1", "5": "bn1", "7": "c2"}
    state = {}
    for name, tensor in stack.state_dict().items():
        step, _, kind = name.partition(".")
        state[f"{names[step]}.{kind}"] = tensor
    save_file(state, tmp_path / "mine.safetensors")
    generator = open_generator(tmp_path / "mine.safetensors")
    assert isinstance(generator, SequentialGenerator)
    torch.testing.assert_close(generator.sample(SPEC), drawn(stack, generator), rtol=0, atol=1e-5)


# What is left open


def keras_order() -> nn.Sequential:
    first, second = nn.ConvTranspose2d(12, 32, 4), nn.ConvTranspose2d(32, 24, 4, 2, 1)
    steps = [first, nn.ReLU(), nn.BatchNorm2d(32), second, nn.ReLU(), nn.BatchNorm2d(24)]
    return nn.Sequential(*steps, nn.ConvTranspose2d(24, 3, 4, 2, 1), nn.Sigmoid())


def enlarged() -> nn.Sequential:
    steps = [*block(12, 32, nn.ReLU(), 1), *block(32, 24, nn.ReLU()), nn.Upsample(scale_factor=2)]
    return nn.Sequential(*steps, nn.Conv2d(24, 3, 3, 1, 1), nn.Tanh())


def two_after_the_last_norm() -> nn.Sequential:
    steps = [
        *block(12, 32, nn.ReLU(), 1),
        *block(32, 24, nn.ReLU()),
        nn.ConvTranspose2d(24, 16, 4, 2, 1),
        nn.ReLU(),
    ]
    return nn.Sequential(*steps, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh())


def strided_by_three() -> nn.Sequential:
    steps = [*block(12, 32, nn.ReLU(), 1), nn.ConvTranspose2d(32, 24, 5, 3, 1), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*steps, nn.ConvTranspose2d(24, 3, 4, 2, 1), nn.Tanh())


def without_norms() -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(12, 32, 4), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh()
    )


OPEN: dict[str, tuple[Callable[[], nn.Sequential], str]] = {
    "activated before the norms": (keras_order, "a stack that activates before its batch norms"),
    "enlarged at the end": (enlarged, "whether the map is enlarged before"),
    "two layers after the last norm": (
        two_after_the_last_norm,
        "what lies between the 2 layers after the last",
    ),
    "another stride": (strided_by_three, "stride and padding of main.3, a transposed convolution 5×5"),
    "no norms": (without_norms, "its activations, since it has fewer than two batch norms"),
}


@pytest.mark.parametrize("which", OPEN)
def test_what_tensors_leave_open_is_refused_with_a_draft_that_says_so(tmp_path: Path, which: str):
    build, problem = OPEN[which]
    path = written(trained(build(), 12), "state dict", tmp_path)
    with pytest.raises(FileError, match=problem) as refusal:
        open_generator(path)
    assert "\n" not in str(refusal.value)
    assert "Write a draft" in str(refusal.value)
    draft = json.loads(draft_description(path))
    assert problem in draft["note"]
    assert draft["note"].startswith("Draft, to be checked.")
    described = tmp_path / "described"
    described.mkdir()
    (described / "model.json").write_text(json.dumps(draft))
    (described / path.name).write_bytes(path.read_bytes())
    assert open_generator(described).latent_dim == 12


def test_norms_that_never_saw_the_stack_confirm_nothing(tmp_path: Path):
    path = written(seeded(tutorial()), "state dict", tmp_path)
    with pytest.raises(FileError, match="no reading fits what its batch norms remember"):
        open_generator(path)


def test_a_draft_that_was_checked_opens_beside_the_file_as_it_is(tmp_path: Path):
    stack = trained(enlarged(), 12)
    path = written(stack, "state dict", tmp_path)
    draft = json.loads(draft_description(path))
    draft["layers"].insert(-2, {"op": "upsample", "scale": 2})
    (tmp_path / "model.json").write_text(json.dumps(draft))
    generator = open_generator(tmp_path)
    assert isinstance(generator, SequentialGenerator)
    torch.testing.assert_close(generator.sample(SPEC), drawn(stack, generator), rtol=0, atol=1e-5)
    assert set(exported(generator, "own", {})) == {"model.json", "model.pth", "palimpsest.json"}


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 8, 4, 2, 1), nn.Conv2d(8, 1, 4)],
        [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(9), nn.Conv2d(8, 3, 3)],
        [nn.ConvTranspose2d(4, 8, 4), nn.ConvTranspose2d(8, 5, 4)],
        [nn.Linear(4, 100), nn.ConvTranspose2d(7, 8, 4), nn.ConvTranspose2d(8, 3, 4)],
    ],
    ids=["a discriminator", "another norm", "five channels", "no square"],
)
def test_layers_that_are_no_generator_are_refused_and_have_no_draft(tmp_path: Path, layers: list[nn.Module]):
    path = written(nn.Sequential(*layers), "state dict", tmp_path)
    for attempt in (open_generator, draft_description):
        with pytest.raises(FileError, match="do not follow each other from latents to a picture") as refusal:
            attempt(path)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"main.1.bias": None},
        {"main.1.running_var": torch.ones(3)},
        {"main.1.running_var": -torch.ones(32)},
        {"main.1.running_mean": torch.tensor(0.0)},
        {"main.0.bias": torch.zeros(7)},
        {"main.0.bias": torch.zeros(())},
        {"main.0.weight": torch.zeros(12, 32, 4, 0)},
        {"main.0.weight": torch.zeros(0, 32, 4, 4)},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_tensors_that_no_step_has_are_refused(tmp_path: Path, changes: dict[str, Tensor | None]):
    state = {f"main.{name}": tensor for name, tensor in trained(tutorial(), 12).state_dict().items()}
    torch.save(
        {name: tensor for name, tensor in (state | changes).items() if tensor is not None}, tmp_path / "a.pt"
    )
    for attempt in (open_generator, draft_description):
        with pytest.raises(FileError) as refusal:
            attempt(tmp_path / "a.pt")
        assert "\n" not in str(refusal.value)


def test_a_stack_that_would_double_without_end_is_refused_before_it_does(tmp_path: Path):
    state = {"0.weight": torch.zeros(2, 4, 4, 4), "61.weight": torch.zeros(4, 3, 4, 4)}
    for place in range(1, 61, 2):
        state |= {f"{place}.running_mean": torch.zeros(4), f"{place}.running_var": torch.ones(4)}
        state[f"{place + 1}.weight"] = torch.zeros(4, 4, 4, 4)
    torch.save(
        {name: state[name] for name in sorted(state, key=lambda name: int(name.split(".")[0]))},
        tmp_path / "a.pt",
    )
    with pytest.raises(FileError, match="do not follow each other"):
        open_generator(tmp_path / "a.pt")


def test_two_tensors_of_one_name_without_dots_are_refused(tmp_path: Path):
    described = {
        "schema": "gen-layers/1", "name": "x", "latent": {"dim": 2},
        "layers": [{"op": "conv_transpose2d", "name": "a_0", "kernel": 4}],
    }  # fmt: skip
    weight = torch.zeros(2, 3, 4, 4)
    save_file({"a.0.weight": weight, "a_0.weight": weight.clone()}, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(described))
    with pytest.raises(FileError, match="and another one of that name with"):
        open_generator(tmp_path)


# Real stacks


def stripped(folder: Path, target: Path) -> Path:
    """The tensors of a model folder without their description."""
    path = target / "bare.safetensors"
    save_file(load_file(folder / "model.safetensors"), path)
    return path


def same_pictures(folder: Path, tmp_path: Path) -> None:
    described, bare = open_generator(folder), open_generator(stripped(folder, tmp_path))
    assert bare.distribution == described.distribution
    torch.testing.assert_close(bare.sample(SPEC), described.sample(SPEC), rtol=0, atol=1e-5)


def test_an_embedded_stack_of_the_recipe_opens_without_its_description_and_draws_the_same(tmp_path: Path):
    same_pictures(embedded_folder("face32-dcgan"), tmp_path)


def test_an_embedded_stack_from_keras_is_refused_and_drafted_almost_as_it_is(tmp_path: Path):
    path = stripped(embedded_folder("anime64-dcgan"), tmp_path)
    with pytest.raises(FileError, match="a stack without a description, whose tensors leave open"):
        open_generator(path)
    draft: Any = json.loads(draft_description(path))
    true = json.loads((embedded_folder("anime64-dcgan") / "model.json").read_text())
    ops = [(step["op"], step.get("fn")) for step in true["layers"]][:-1]
    assert [(step["op"], step.get("fn")) for step in draft["layers"]][:-1] == ops
    assert draft["latent"] == true["latent"]


def test_a_real_stack_of_the_recipe_opens_without_its_description(tmp_path: Path):
    folder = SHARED / "cifar32-dcgan"
    if not folder.is_dir():
        pytest.skip("cifar32-dcgan is not on this machine: it is no part of Palimpsest")
    same_pictures(folder, tmp_path)
