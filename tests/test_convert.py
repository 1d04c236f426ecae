"""`palimpsest convert`: what is written opens again as the same generator; nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rewrite_core import open_generator
from rewrite_core.errors import FileError
from rewrite_core.files import read_safetensors, to_safetensors_bytes
from rewrite_core.generators import SeededNoise, StyleGAN2Generator
from rewrite_core.generators.conversion import converted, require_same, write_model
from tests.generators import changed, small_generator, spec
from tests.test_cli import answer, refused

REFERENCE = Path(__file__).parent / "reference"
MODELS: list[str | Path] = [
    "anime64-dcgan",
    REFERENCE / "small_stylegan2.pt",
    REFERENCE / "small_proggan.pth",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command runs in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("place", ["out.safetensors", "folder"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: Path(model).stem)
def test_any_family_becomes_a_file_or_a_folder_that_opens_as_the_same_generator(model, place):
    said = answer("convert", model, place)
    before, after = open_generator(model), open_generator(place)
    assert before.fingerprint == after.fingerprint == said["fingerprint"]
    assert (before.name, before.family) == (after.name, after.family)
    assert torch.equal(before.sample(spec()), after.sample(spec()))
    for name, tensor in before.tensors():
        assert torch.equal(dict(after.tensors())[name], tensor)


def test_there_and_back_gives_the_same_files():
    answer("convert", "anime64-dcgan", "a")
    answer("convert", "a", "b.safetensors")
    answer("convert", "b.safetensors", "c")
    for name in ("model.json", "model.safetensors"):
        assert Path("a", name).read_bytes() == Path("c", name).read_bytes()


def test_a_single_file_keeps_where_noise_comes_from():
    stylegan = open_generator(MODELS[1])
    assert isinstance(stylegan, StyleGAN2Generator)
    seeded = stylegan.with_noise(SeededNoise())
    files = converted(seeded, {}, single=True)
    write_model({Path("a.safetensors"): files["model.safetensors"]})
    assert open_generator("a.safetensors").fingerprint == seeded.fingerprint != stylegan.fingerprint


def test_what_is_there_is_replaced_only_by_force():
    answer("convert", "face32-dcgan", "a")
    assert "replace it with --force" in refused("convert", "anime64-dcgan", "a")
    answer("convert", "anime64-dcgan", "a", "--force")
    assert open_generator("a").name == "anime64-dcgan"


def test_the_model_itself_and_what_ships_are_never_written_over():
    answer("convert", "anime64-dcgan", "a")
    answer("convert", "a", "a.safetensors")
    assert "holds the model itself" in refused("convert", "a", "a", "--force")
    assert "holds the model itself" in refused("convert", "a.safetensors", "a.safetensors", "--force")
    Path("link.safetensors").symlink_to("a.safetensors")
    assert "holds the model itself" in refused("convert", "a.safetensors", "link.safetensors", "--force")
    from rewrite_core.generators import embedded_folder

    place = embedded_folder("anime64-dcgan") / "x.safetensors"
    assert "belongs to Palimpsest" in refused("convert", "a", place)


def test_another_generator_is_not_taken_for_the_same(tmp_path):
    write_model({Path("a", name): content for name, content in small_generator(1).files().items()})
    with pytest.raises(FileError, match="opens as another generator"):
        require_same(small_generator(0), Path("a"))


def test_a_model_as_one_file_carries_its_record():
    said = answer("convert", "face32-dcgan", "a.safetensors")
    _, metadata = read_safetensors(Path("a.safetensors"), what="a")
    record = json.loads(metadata["palimpsest"])
    assert (record["fingerprint"], record["rules"]) == (said["fingerprint"], [])


def test_a_bare_stack_that_is_refused_opens_beside_its_draft():
    main = nn.Sequential(nn.ConvTranspose2d(8, 4, 4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh())
    Path("model").mkdir()
    torch.save({f"main.{name}": tensor for name, tensor in main.state_dict().items()}, "model/mine.pth")
    assert "convert IN OUT --draft" in refused("verify", "model/mine.pth")
    said = answer("convert", "model/mine.pth", "model/model.json", "--draft")
    assert said["files"] == ["model/model.json"]
    assert Path("model/model.json").read_text() == said["draft"]
    assert "Left open" in json.loads(said["draft"])["note"]
    assert open_generator("model").resolution == 8
    assert "there already" in refused("convert", "model/mine.pth", "model/model.json", "--draft")


def test_a_damaged_description_in_a_file_is_refused_in_one_line():
    source = changed(small_generator())
    tensors, _ = read_safetensors(source.read("model.safetensors"), what="a")
    Path("a.safetensors").write_bytes(to_safetensors_bytes(tensors, {"model.json": "{"}))
    assert "a.safetensors: model.json in its metadata cannot be read as JSON" in refused(
        "verify", "a.safetensors"
    )
