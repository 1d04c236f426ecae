"""Whether a generator was opened right: unusual weights are named, given pictures are recognised or told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dashboard.cli import main
from dashboard.verified import agreement_row, described_agreement, with_other_noise
from rewrite_core import LatentSpec, open_generator
from rewrite_core.errors import FileError, RequestError
from rewrite_core.generators import Generator, from_sequential, open_source
from rewrite_core.generators.agreement import agreement
from rewrite_core.generators.bulk import write_samples
from rewrite_core.generators.fidelity import facts, samples, weights
from rewrite_core.generators.reference import read_reference
from rewrite_core.pictures import to_uint8
from tests.generators import changed, seeded, small_generator, small_stack, spec
from tests.nvidia import random_stylegan2_ada
from tests.test_cli import answer, refused

REFERENCE = Path(__file__).parent / "reference"
STYLEGAN, PROGGAN = REFERENCE / "small_stylegan2.pt", REFERENCE / "small_proggan.pth"
SEEDS = (3, 1, 4)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator()


# Weights, samples, facts


def test_a_sound_generator_has_nothing_unusual(generator):
    for sound in (generator, open_generator(), open_generator("face32-dcgan"), open_generator(STYLEGAN)):
        assert weights(sound).findings == ()
        assert samples(sound).findings == ()


def test_tensors_are_counted(generator):
    found = weights(generator)
    tensors = [tensor for _, tensor in generator.tensors() if tensor.is_floating_point()]
    assert found.tensors == len(tensors)
    assert found.numbers == sum(tensor.numel() for tensor in tensors)
    assert found.bytes == 4 * found.numbers
    assert found.rms == pytest.approx(float(torch.cat([t.flatten() for t in tensors]).square().mean().sqrt()))


@pytest.mark.parametrize(
    ("name", "change", "where", "what"),
    [
        ("plain.bias", lambda x: x.zero_(), "plain.bias", "all zero"),
        ("norm.weight", lambda x: x.fill_(0.5), "norm.weight", "every number is 0.5"),
        ("plain.weight", lambda x: x[2:4].zero_(), "plain", "2 of 9 units have no weights but zeros"),
    ],
)
def test_an_unusual_tensor_is_named(generator, name, change, where, what):
    odd = open_source(changed(generator, store=lambda tensors: change(tensors[name])))
    assert (where, what) in [(finding.where, finding.what) for finding in weights(odd).findings]


def test_a_tensor_out_of_proportion_to_its_siblings_is_named():
    stylegan = open_generator(STYLEGAN)
    tensors = dict(stylegan.network.state_dict())
    tensors["convs.3.conv.weight"] = 100 * tensors["convs.3.conv.weight"]
    stylegan.network.load_state_dict(tensors, assign=True)
    (found,) = weights(stylegan).findings
    assert found.where == "convs.3.conv.weight"
    assert "times the size of its 7 siblings" in found.what


@pytest.mark.parametrize(("last", "what"), [(0.0, "blank"), (float("nan"), "NaN")])
def test_pictures_that_show_nothing_are_remarked_on(last, what):
    stack = small_stack()
    generator = from_sequential(stack, name="odd")
    generator.network.get_parameter("last.weight").data.mul_(last)
    generator.network.get_parameter("last.bias").data.mul_(last)
    (found,) = samples(generator).findings
    assert what in found.what


def test_pictures_that_do_not_depend_on_the_latents_are_remarked_on():
    stack = seeded(small_stack())
    with torch.no_grad():
        stack.get_parameter("start.weight").zero_()
    (found,) = samples(from_sequential(stack)).findings
    assert "all alike" in found.what


def test_truncation_and_noise_are_known():
    stylegan = open_generator(STYLEGAN)
    assert (facts(stylegan).truncation, facts(stylegan).noise) == ("", "stored")
    assert "normalises its latents" in facts(open_generator(PROGGAN)).truncation
    stylegan.network.register_buffer("latent_avg", None)
    assert "does not hold its average latent" in facts(stylegan).truncation


# Agreement


def saved(path: Path, generator: Generator, change=lambda pictures: pictures) -> Path:
    np.savez(path, pictures=change(generator.sample(LatentSpec(SEEDS))).numpy(), seeds=np.array(SEEDS))
    return path


def compared(generator: Generator, path: Path, **options):
    return agreement({"as opened": generator}, read_reference(path, **options))


@pytest.mark.parametrize(
    ("array", "batch", "truncation"),
    [("image_batch8", 8, 1.0), ("image_single", 1, 1.0), ("image_single_trunc05", 1, 0.5)],
)
def test_the_published_pictures_of_stylegan2_are_recognised_with_their_noise(array, batch, truncation):
    golden = read_reference(
        REFERENCE / "stylegan_forward.npz", array=array, like=LatentSpec((), truncation=truncation)
    )
    found = agreement(with_other_noise(open_generator(STYLEGAN)), golden, batch=batch)
    assert found.verdict == "same"
    assert found.how == "with the noise that the published code draws"
    assert found.psnr > 120


@pytest.mark.parametrize(
    ("array", "how"), [("image_batch8", ""), ("image_single", ", one picture at a time")]
)
def test_pictures_that_were_drawn_one_at_a_time_are_recognised_as_such(array, how):
    golden = read_reference(REFERENCE / "stylegan_forward.npz", array=array)
    found = agreement(with_other_noise(open_generator(STYLEGAN)), golden)
    assert found.verdict == "same"
    assert found.how == f"with the noise that the published code draws{how}"
    if how:
        batch = agreement(with_other_noise(open_generator(STYLEGAN)), golden, batch=8)
        assert batch.verdict == "different", "what is asked for is what is tried"
        assert f"same {found.how}: {len(golden.pictures)} pictures" in described_agreement(
            agreement_row(found, golden)
        )


def test_the_published_pictures_of_proggan_are_recognised():
    found = compared(open_generator(PROGGAN), REFERENCE / "proggan_forward.npz")
    assert (found.verdict, found.count) == ("same", 4)


def test_a_folder_of_samples_is_recognised_with_its_scheme_and_truncation(generator, tmp_path):
    made = LatentSpec(SEEDS, "rows", 0.7)
    write_samples(generator, made, tmp_path)
    reference = read_reference(tmp_path)
    assert (reference.spec.scheme, reference.spec.truncation) == ("rows", 0.7)
    found = compared(generator, tmp_path)
    assert (found.verdict, found.largest) == ("same", 0.0)


def test_bytes_are_compared_as_bytes(generator, tmp_path):
    pictures = generator.draw(spec(3))
    np.save(tmp_path / "pictures.npy", pictures)
    assert compared(generator, tmp_path / "pictures.npy").largest == 0
    np.save(tmp_path / "pictures.npy", np.where(pictures < 255, pictures + 1, 255).astype(np.uint8))
    found = compared(generator, tmp_path / "pictures.npy")
    assert found.verdict == "same to a byte"
    assert found.largest == pytest.approx(1 / 255, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x.flip(1), "blue, green, red"),
        (lambda x: x.flip(3), "mirrored"),
        (lambda x: x.flip(2), "upside down"),
        (lambda x: (x + 1) / 2, "from 0 to 1"),
        (lambda x: -x, "negatives"),
    ],
)
def test_the_usual_mistakes_are_named(generator, tmp_path, change, reason):
    found = compared(generator, saved(tmp_path / "a.npz", generator, change))
    assert found.verdict == "different"
    assert reason in found.reason


def test_where_and_how_much_pictures_differ_is_told(generator, tmp_path):
    def spoil(pictures: torch.Tensor) -> torch.Tensor:
        pictures[2, :, :4] += 0.5
        return pictures

    found = compared(generator, saved(tmp_path / "a.npz", generator, spoil))
    assert (found.verdict, found.worst, found.reason) == ("different", SEEDS[2], "")
    assert found.beyond == pytest.approx(4 / 16 / 3)


def test_channels_last_and_given_latents_are_understood(generator, tmp_path):
    z = np.random.RandomState(5).randn(4, 8)
    latents = generator.latents(spec(4))
    pictures = generator.pictures(replace(latents, z=torch.from_numpy(z).float()))
    np.savez(tmp_path / "a.npz", images=pictures.permute(0, 2, 3, 1).numpy(), z=z)
    assert compared(generator, tmp_path / "a.npz").verdict == "same"


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"z": np.zeros((2, 8))}, "no array of pictures"),
        ({"a": np.zeros((2, 3, 16, 16)), "b": np.ones((2, 3, 16, 16))}, "arrays a, b"),
        ({"a": np.zeros((2, 3, 16, 16)), "z": np.zeros((2, 5))}, "latents of 5 numbers"),
        ({"a": np.zeros((2, 3, 8, 8))}, r"pictures \[3, 8, 8\]"),
        ({"a": np.full((2, 3, 16, 16), np.nan)}, "NaN"),
        ({"a": np.zeros((2, 3, 16, 16)), "z": np.full((2, 8), np.nan)}, "'z': NaN"),
        ({"a": np.zeros((2, 3, 16, 16)), "z": np.float32(1)}, r"'z': float32 \[\]"),
        ({"a": np.zeros((2, 3, 16, 16)), "z": np.array(["x", "y"])}, "'z': <U1"),
        ({"a": np.zeros((2, 3, 16, 16)), "seeds": np.zeros((2, 2), int)}, r"'seeds' int64 \[2, 2\]"),
        ({"a": np.zeros((2, 3, 16, 16)), "seeds": np.array([0.5, 1])}, "'seeds' float64"),
        ({"a": np.zeros((2, 3, 16, 16)), "c": np.full((2, 3), 0.5)}, r"'c' \[2, 3\]"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused_in_one_line(generator, tmp_path, arrays, found):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FileError, match=found):
        compared(generator, tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x04N.", b"\x93NUMPY\x01\x00"])
def test_a_damaged_reference_is_refused_in_one_line(generator, tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FileError, match="damaged or foreign"):
        read_reference(tmp_path / "a.npz")


def test_objects_in_a_reference_are_never_opened(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=np.array([{}], dtype=object))
    with pytest.raises(FileError):
        read_reference(tmp_path / "a.npz")


def test_an_empty_or_mixed_folder_is_refused(generator, tmp_path):
    with pytest.raises(FileError, match="no file called"):
        read_reference(tmp_path)
    write_samples(generator, spec(2), tmp_path)
    (tmp_path / "seed0000000.png").write_bytes(b"\x89PNG")
    with pytest.raises(FileError, match="damaged picture"):
        read_reference(tmp_path)


# The command


def test_verify_tells_what_it_found(tmp_path):
    said = answer(
        "verify", STYLEGAN, "--against", REFERENCE / "stylegan_forward.npz", "--array", "image_batch8"
    )
    assert said["truncation"]
    assert said["noise"] == "stored"
    assert said["agreement"]["verdict"] == "same"
    assert said["memory"]["weights"] == said["weights"]["bytes"]
    text = CliRunner().invoke(main, ["verify", str(PROGGAN)]).stdout
    assert "truncation   refused: it normalises its latents" in text


def test_verify_ends_with_status_1_where_pictures_differ(generator, tmp_path):
    reference = saved(tmp_path / "a.npz", generator, lambda x: x.flip(3))
    for name, content in generator.files().items():
        (tmp_path / name).write_bytes(content)
    done = CliRunner().invoke(main, ["verify", str(tmp_path), "--against", str(reference), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["agreement"]["verdict"] == "different"
    assert "They would agree, but the given pictures are mirrored." in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_half_precision_is_for_a_gpu():
    assert "expected a GPU" in refused("verify", "--half", "--device", "cpu")


def test_half_precision_draws_nearly_the_same_and_leaves_the_rest_alone(generator):
    half = generator.in_half()
    full, rough = generator.sample(spec(8)), half.sample(spec(8))
    assert rough.dtype == torch.float32
    assert 0 < float((full - rough).abs().max()) < 0.02
    at, same = (it.keys(it.latents(spec(2)), "plain") for it in (generator, half))
    assert torch.equal(at.keys, same.keys)
    assert to_uint8(rough).shape == (8, 16, 16, 3)
    assert generator.precision == "float32"


def test_arrays_that_are_large_only_together_are_not_unpacked(tmp_path, monkeypatch):
    zeros = np.zeros((2, 3, 16, 16))
    np.savez_compressed(tmp_path / "a.npz", a=zeros, b=zeros, c=zeros, d=zeros)
    monkeypatch.setattr("rewrite_core.generators.reference.LARGEST_REFERENCE", 40_000)
    with pytest.raises(FileError, match="bytes once unpacked"):
        read_reference(tmp_path / "a.npz", array="a")


def test_classes_that_come_with_the_pictures_are_theirs(tmp_path):
    generator = random_stylegan2_ada(1, classes=3)
    labels = [2, 2, 0, 1]
    pictures = [
        generator.pictures(generator.latents(LatentSpec((i,), label=label))) for i, label in enumerate(labels)
    ]
    np.savez(tmp_path / "a.npz", a=torch.cat(pictures).numpy(), c=np.eye(3, dtype="f4")[labels])
    found = compared(generator, tmp_path / "a.npz")
    assert (found.verdict, found.count) == ("same", 4)
    with pytest.raises(FileError, match="of class 7"):
        read_reference(tmp_path / "a.npz", like=LatentSpec((), label=7))
    with pytest.raises(RequestError, match="class 2; expected no class"):
        compared(random_stylegan2_ada(1), tmp_path / "a.npz")


def test_how_to_draw_means_nothing_without_pictures_to_compare_with():
    done = CliRunner().invoke(main, ["verify", "--truncation", "0.5"])
    assert done.exit_code == 2
    assert "--against" in done.stderr
