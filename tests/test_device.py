"""Devices and memory: found or refused in one line; drawing goes on in parts where memory is short."""

from __future__ import annotations

import logging

import pytest
import torch

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, devices, find_device
from rewrite_core.generators import footprint as memory
from rewrite_core.generators.footprint import footprint
from tests.generators import small_generator, spec
from tests.test_cli import answer, refused


@pytest.fixture
def generator() -> Generator:
    return small_generator()


def test_every_device_of_the_machine_is_found():
    assert [str(find_device(name)) for name in devices()] == devices()
    assert str(find_device("auto")) == devices()[0]


def test_the_cpu_is_taken_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("PALIMPSEST_DEVICE", raising=False)
    assert find_device().type == "cpu"
    monkeypatch.setenv("PALIMPSEST_DEVICE", "cuda:99")
    with pytest.raises(RequestError, match="device 'cuda:99'; expected auto or one that this machine has: "):
        find_device()


@pytest.mark.parametrize("command", ["sample", "verify", "run"])
def test_a_device_that_is_not_there_is_refused_in_one_line(command, tmp_path):
    options = ["--out", tmp_path / "a.png"] if command == "sample" else []
    assert "device 'cuda:99'; expected" in refused(command, "--device", "cuda:99", *options)
    assert "which is no device's name" in refused(command, "--device", "gpu", *options)


def test_the_estimate_is_told_by_models(generator):
    (said,) = answer("models", "anime64-dcgan")
    assert said["memory"]["weights"] == 512_451 * 4
    assert said["memory"]["drawing"] > 25 * 64 * 64 * 3 * 4


def test_a_micro_batch_is_drawn_in_parts_where_little_memory_is_free(generator, monkeypatch, caplog):
    whole = generator.sample(spec(30))
    monkeypatch.setattr(memory, "free_memory", lambda device: footprint(generator).drawing // 5)
    with caplog.at_level(logging.WARNING):
        parts = generator.sample(spec(30))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
    assert "memory for 5 of 25 pictures at a time; they agree to 3e-6 only" in caplog.text


class Small(torch.nn.Module):
    """Has memory for so many pictures, and no more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x


def test_a_device_that_runs_out_of_memory_is_given_less_at_a_time(generator):
    whole = generator.sample(spec(25))
    generator.network.append(Small(4))
    torch.testing.assert_close(generator.sample(spec(25)), whole, rtol=0, atol=1e-5)


def test_no_memory_for_a_single_picture_is_an_error_of_one_line(generator):
    generator.network.append(Small(0))
    with pytest.raises(RequestError, match="no memory for one picture of small"):
        generator.sample(spec(3))


def test_other_errors_are_not_taken_for_a_lack_of_memory(generator):
    generator.network.append(torch.nn.Linear(5, 5))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        generator.sample(spec(3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_a_gpu_agrees_to_a_few_bytes():
    generator = small_generator().on(find_device("cuda"))
    full, half = generator.sample(spec(25)), generator.in_half().sample(spec(25))
    assert 0 < float((full - half).abs().max()) < 0.05
    assert str(generator.device) == "cuda:0"
