"""W space: given latents, style mixing, and projection of one's own picture; the gradient reaches the latents."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dashboard.cli import main
from rewrite_core import LatentSpec, open_generator
from rewrite_core.errors import Cancelled, FileError, ModelMismatch, RequestError
from rewrite_core.files import write_safetensors
from rewrite_core.generators import Generator, Latents
from rewrite_core.generators.projection import fitted, project, read_picture
from rewrite_core.generators.wspace import given, mixed, read_latents, write_latents
from tests.generators import small_generator, spec
from tests.nvidia import random_stylegan2_ada, random_stylegan3
from tests.test_cli import answer, refused

REFERENCE = Path(__file__).parent / "reference"
STYLEGAN = REFERENCE / "small_stylegan2.pt"


@pytest.fixture(scope="module")
def stylegan() -> Generator:
    return open_generator(STYLEGAN)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def w_of(generator: Generator, *seeds: int, truncation: float = 1.0) -> torch.Tensor:
    return generator.mapped(generator.latents(LatentSpec(seeds, truncation=truncation)))


# Given latents


def test_a_given_w_draws_what_its_z_does(stylegan):
    expected = stylegan.sample(spec(5))
    w = w_of(stylegan, *range(5))
    assert torch.equal(stylegan.sample(given(stylegan, w)), expected)
    repeated = w[:, None].expand(-1, stylegan.styles, -1)
    assert torch.equal(stylegan.sample(given(stylegan, repeated)), expected)


@pytest.mark.parametrize("layer", ["layer2", "layer5", "layer10"])
def test_a_layer_stopped_at_with_given_styles_draws_the_same_picture(stylegan, layer):
    latents = mixed(stylegan, 3, 7, [4])
    at = stylegan.keys(latents, layer)
    torch.testing.assert_close(stylegan.render(at, stylegan.values(at)), stylegan.pictures(latents))


def test_a_given_w_is_truncated_like_any_other(stylegan):
    expected = stylegan.sample(LatentSpec((4, 9), truncation=0.6))
    w = w_of(stylegan, 4, 9)
    found = stylegan.sample(given(stylegan, w, like=LatentSpec((), truncation=0.6)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_z_may_be_given_to_any_family():
    generator = small_generator()
    z = generator.latents(spec(3)).z
    assert torch.equal(generator.sample(given(generator, z, "z")), generator.sample(spec(3)))


@pytest.mark.parametrize(
    ("shape", "kind"), [((3, 31), "w"), ((2, 9, 32), "w"), ((0, 32), "w"), ((2, 10, 32), "z"), ((), "w")]
)
def test_latents_that_do_not_fit_are_refused(stylegan, shape, kind):
    with pytest.raises(RequestError, match=r"\[N, 32\]"):
        given(stylegan, torch.zeros(shape), kind)


def test_a_family_without_a_mapping_network_takes_no_w():
    generator = small_generator()
    with pytest.raises(RequestError, match="expected latents z"):
        given(generator, torch.zeros(1, 8))
    with pytest.raises(RequestError, match="no styles to mix"):
        mixed(generator, 1, 2, [1])
    with pytest.raises(RequestError, match="no mapping network"):
        generator.mapped(generator.latents(spec(1)))


def test_more_latents_than_a_micro_batch_are_drawn(stylegan):
    w = w_of(stylegan, *range(60))
    torch.testing.assert_close(
        stylegan.sample(given(stylegan, w)), stylegan.sample(spec(60)), rtol=0, atol=1e-5
    )


# Mixing


def test_mixing_goes_from_one_picture_to_the_other_place_by_place(stylegan):
    styles = stylegan.styles
    latents = mixed(stylegan, 3, 7, range(styles + 1))
    pictures = stylegan.sample(latents)
    torch.testing.assert_close(pictures[-1], stylegan.sample(LatentSpec((3,)))[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(pictures[0], stylegan.sample(LatentSpec((7,)))[0], rtol=0, atol=1e-5)
    coarse, fine = w_of(stylegan, 3, 7)
    for k, w in enumerate(latents.w if latents.w is not None else []):
        assert torch.equal(w[:k], coarse.expand(k, -1))
        assert torch.equal(w[k:], fine.expand(styles - k, -1))
    assert all(not torch.equal(a, b) for a, b in pairwise(pictures))


def test_a_crossover_beyond_the_styles_is_refused(stylegan):
    with pytest.raises(RequestError, match="crossover 11; expected 0 to 10"):
        mixed(stylegan, 3, 7, [11])


# Files


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_latents_are_read_from_any_kind_of_file(stylegan, tmp_path, kind):
    w, path = w_of(stylegan, 1, 2), tmp_path / f"w.{kind}"
    match kind:
        case "npz":
            np.savez(path, w=w.numpy(), other=np.zeros(3))
        case "npy":
            np.save(path, w.numpy().astype(np.float64))
        case "safetensors":
            write_safetensors(path, {"w": w}, {})
    latents = read_latents(path, stylegan)
    assert latents.w is not None
    assert torch.equal(latents.w, w)


def test_latents_of_another_generator_are_refused(stylegan, tmp_path):
    other = small_generator()
    write_latents(tmp_path / "z.safetensors", torch.zeros(1, 32), "z", other)
    with pytest.raises(ModelMismatch, match=r"made for small .*expected latents for small_stylegan2"):
        read_latents(tmp_path / "z.safetensors", stylegan)
    assert read_latents(tmp_path / "z.safetensors", stylegan, force=True).z.shape == (1, 32)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"other": np.zeros(3)}, "expected one called w or z"),
        ({"w": np.full((1, 32), np.inf)}, "NaN or infinite"),
        ({"w": np.full((1, 32), 1e300)}, "NaN or infinite"),
        ({"w": np.array(["a"])}, "<U1"),
        ({"w": np.ones((1, 32), complex)}, "complex128"),
    ],
)
def test_a_file_without_usable_latents_is_refused(stylegan, tmp_path, arrays, found):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(FileError, match=found):
        read_latents(tmp_path / "w.npz", stylegan)


def test_a_class_named_for_a_w_is_refused(tmp_path):
    generator = random_stylegan2_ada(1, classes=3)
    np.save(tmp_path / "w.npy", np.zeros((1, generator.style_dim), "f4"))
    with pytest.raises(RequestError, match="class 2 for latents w"):
        read_latents(tmp_path / "w.npy", generator, like=LatentSpec((), label=2))


# Projection


@pytest.mark.parametrize("space", ["w", "w+", "z"])
def test_the_gradient_reaches_the_latents(stylegan, space):
    z = torch.randn(1, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(space == "z")
    shape = (1, stylegan.styles, 32) if space == "w+" else (1, 32)
    w = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    latents = Latents(z, LatentSpec((0,)), None if space == "z" else w)
    stylegan.pictures(latents).square().sum().backward()
    gradient = (z if space == "z" else w).grad
    assert gradient is not None
    assert float(gradient.abs().min()) > 0


def test_no_graph_is_kept_where_nobody_wants_a_gradient(stylegan):
    assert not stylegan.pictures(stylegan.latents(spec(1))).requires_grad
    at = stylegan.keys(stylegan.latents(spec(1)), "layer5")
    assert not stylegan.values(at).requires_grad


@pytest.mark.parametrize(
    ("model", "space"),
    [(STYLEGAN, "w"), (STYLEGAN, "w+"), (REFERENCE / "small_proggan.pth", "z"), ("face32-dcgan", None)],
)
def test_a_picture_is_found_again(model, space):
    generator = open_generator(model)
    wanted = generator.draw(LatentSpec((777,)))[0]
    found = project(generator, wanted, space=space, steps=60)
    assert found.loss == min(found.losses) < 0.5 * found.losses[0]
    assert found.space == (space or "z")
    np.testing.assert_array_equal(generator.draw(found.latents(generator))[0], found.picture)
    np.testing.assert_array_equal(found.wanted, wanted)


def test_uniform_latents_stay_where_they_are_drawn(monkeypatch):
    generator = small_generator()
    generator.distribution = "uniform"
    found = project(generator, np.zeros((16, 16, 3), np.uint8), steps=20)
    assert float(found.tensor.abs().max()) <= 1


def test_a_perceptual_loss_of_the_callers_is_added():
    generator = small_generator()
    seen = []

    def perceptual(drawn: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        seen.append(drawn.shape)
        return 100 * (drawn.mean() - wanted.mean()).square()

    picture = np.full((16, 16, 3), 200, np.uint8)
    found = project(generator, picture, steps=5, perceptual=perceptual)
    assert seen == [(1, 3, 16, 16)] * 5
    assert found.losses != project(generator, picture, steps=5).losses


def test_a_projection_is_saved_and_drawn_again(stylegan, tmp_path):
    found = project(stylegan, stylegan.draw(spec(1))[0], space="w+", steps=3)
    found.save(tmp_path / "w.safetensors", stylegan)
    latents = read_latents(tmp_path / "w.safetensors", stylegan)
    np.testing.assert_array_equal(stylegan.draw(latents)[0], found.picture)


def test_a_search_can_be_cancelled(stylegan):
    def stop(done: int, total: int) -> None:
        assert total == 50
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        project(stylegan, np.zeros((64, 64, 3), np.uint8), steps=50, progress=stop)


@pytest.mark.parametrize(("model", "space"), [("face32-dcgan", "w"), ("face32-dcgan", "w+")])
def test_a_space_that_there_is_not_is_refused(model, space):
    with pytest.raises(RequestError, match=r"expected one of z for face32-dcgan"):
        project(open_generator(model), np.zeros((32, 32, 3), np.uint8), space=space)


def test_the_middle_of_a_picture_is_brought_to_size():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert fitted(wide, (5, 5)).min() > 230
    assert fitted(wide, (20, 60)).shape == (20, 60, 3)


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path):
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (20, 10, 3)
    (tmp_path / "b.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(FileError, match="no picture or a damaged one"):
        read_picture(tmp_path / "b.png")


# The commands


def test_project_writes_latents_that_sample_draws(folder, stylegan):
    Image.fromarray(stylegan.draw(spec(1))[0]).save("mine.png")
    said = answer("project", STYLEGAN, "mine.png", "--steps", 5, "--space", "w+", "--out", "w.safetensors",
                  "--figure", "pair.png")  # fmt: skip
    assert said["files"] == ["w.safetensors", "pair.png"]
    assert said["loss"] <= said["loss_before"]
    said = answer("sample", STYLEGAN, "--latents", "w.safetensors", "--out", "again/")
    assert said["files"] == ["again/latent00000.png"]
    expected = stylegan.draw(read_latents(Path("w.safetensors"), stylegan))[0]
    np.testing.assert_array_equal(np.asarray(Image.open("again/latent00000.png")), expected)
    assert "made for small_stylegan2" in refused("sample", "--latents", "w.safetensors", "--out", "a.png")


def test_mix_draws_one_crossover_or_all(folder):
    assert answer("sample", STYLEGAN, "--mix", "3,7", "--crossover", 4, "--out", "a.png")["pictures"] == [4]
    said = answer("sample", STYLEGAN, "--mix", "3,7", "--out", "all/")
    assert said["pictures"] == list(range(11))
    assert len(said["files"]) == 11
    assert "two seeds such as 3,7" in refused("sample", STYLEGAN, "--mix", "3", "--out", "a.png")


@pytest.mark.parametrize(
    "options",
    [
        ["--mix", "3,7", "--seeds", "1"],
        ["--mix", "3,7", "--format", "tar", "--out", "a/"],
        ["--crossover", "2"],
    ],
)
def test_options_that_contradict_each_other_are_mistakes(folder, options):
    words = ["sample", str(STYLEGAN), *options, *([] if "--out" in options else ["--out", "a.png"])]
    assert CliRunner().invoke(main, words).exit_code == 2


# NVIDIA's families, whose places may take a w each


NVIDIA = [random_stylegan2_ada, random_stylegan3]


@pytest.mark.parametrize("make", NVIDIA)
def test_a_given_w_of_a_network_pickle_draws_what_its_z_and_class_do(make):
    generator = make(classes=3)
    asked = LatentSpec((4, 9), truncation=0.6, cutoff=2, label=1)
    plain = generator.mapped(generator.latents(LatentSpec((4, 9), label=1)))  # [2, D]
    repeated = plain[:, None].expand(-1, generator.styles, -1)
    for w in (plain, repeated):
        torch.testing.assert_close(generator.sample(given(generator, w, like=asked)), generator.sample(asked))
    placed = generator.mapped(generator.latents(asked))
    assert placed.shape == (2, generator.styles, generator.style_dim)
    torch.testing.assert_close(placed[:, 2:], repeated[:, 2:])
    assert torch.equal(generator.sample(given(generator, placed)), generator.sample(asked))


@pytest.mark.parametrize("make", NVIDIA)
def test_the_styles_of_a_network_pickle_mix(make):
    generator = make(classes=3)
    coarse, fine = (generator.mapped(generator.latents(LatentSpec((seed,), label=2))) for seed in (3, 7))
    mix = mixed(generator, 3, 7, [0, 2, generator.styles], like=LatentSpec((), label=2))
    assert mix.w is not None
    torch.testing.assert_close(mix.w[1, :2], coarse.expand(2, -1))
    torch.testing.assert_close(mix.w[1, 2:], fine.expand(generator.styles - 2, -1))
    torch.testing.assert_close(generator.sample(mix)[2:], generator.sample(LatentSpec((3,), label=2)))


@pytest.mark.parametrize("space", ["w", "w+", "z"])
@pytest.mark.parametrize("make", NVIDIA)
def test_a_search_of_a_network_pickle_comes_nearer(make, space):
    generator = make()
    wanted = generator.draw(LatentSpec((777,)))[0]
    found = project(generator, wanted, space=space, steps=60)
    assert found.loss < 0.95 * found.losses[0]
    np.testing.assert_array_equal(generator.draw(found.latents(generator))[0], found.picture)


@pytest.mark.parametrize("space", ["w", "w+"])
@pytest.mark.parametrize("make", NVIDIA)
def test_a_search_for_a_class_starts_from_one_of_its_samples(make, space):
    generator = make(classes=3)
    picture = generator.draw(LatentSpec((777,), label=0))[0]
    found = project(generator, picture, space=space, steps=1, label=2)
    for label in range(3):
        samples = generator.mapped(generator.latents(LatentSpec.of(range(100), label=label)))  # [S, D]
        if space == "w+":
            samples = samples[:, None].expand(-1, generator.styles, -1)
        nearest = (samples - found.tensor).abs().flatten(1).amax(1).min()
        assert (nearest < 1e-4) == (label == 2)
    np.testing.assert_array_equal(generator.draw(found.latents(generator))[0], found.picture)
    named = generator.draw(found.named("mine").latents(generator))[0]
    np.testing.assert_array_equal(named, found.picture)


def test_a_class_is_refused_where_there_is_none_or_where_it_would_be_lost():
    picture = np.zeros((16, 16, 3), np.uint8)
    conditional = random_stylegan2_ada(classes=3)
    with pytest.raises(RequestError, match="class 1 in space 'z'; expected space w or w"):
        project(conditional, picture, space="z", steps=1, label=1)
    with pytest.raises(RequestError, match="expected a class from 0 to 2"):
        project(conditional, picture, steps=1, label=3)
    for generator in (random_stylegan2_ada(), small_generator()):
        with pytest.raises(RequestError, match="class 1; expected no class"):
            project(generator, picture, steps=1, label=1)


@pytest.mark.parametrize("make", NVIDIA)
def test_no_graph_of_a_network_pickle_is_kept_where_nobody_wants_a_gradient(make):
    generator = make()
    latents = generator.latents(spec(1))
    assert not generator.pictures(latents).requires_grad
    for at in generator.inputs(latents, list(generator.layers)).values():
        assert not generator.values(at).requires_grad
