"""On an accelerator: the same answers as on the CPU, to tolerance, and nothing that waits for the device needlessly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rewrite_core.generators import Generator, LatentSpec, open_generator
from rewrite_core.statistics import (
    Batch,
    Histogram,
    Maxima,
    Reservoir,
    SecondMoment,
    Statistic,
    Store,
    gather,
    sweep,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SPEC = LatentSpec.of(range(200))
LAYER = "l08"


@pytest.fixture(scope="module")
def cpu() -> Generator:
    return open_generator("anime64-dcgan")


@pytest.fixture(scope="module")
def cuda(cpu: Generator) -> Iterator[Generator]:
    """With full float32 products: TF32 agrees to three digits only."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield cpu.on(torch.device("cuda:0"))
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def wanted() -> list[Statistic]:
    return [SecondMoment(), Histogram(), Maxima(), Reservoir(size=500)]


def test_pictures_agree(cpu: Generator, cuda: Generator):
    spec = LatentSpec.of(range(32))
    torch.testing.assert_close(cuda.sample(spec), cpu.sample(spec), rtol=0, atol=2e-5)


def test_statistics_agree(cpu: Generator, cuda: Generator):
    here, there = (sweep(generator, SPEC, {LAYER: wanted()})[LAYER] for generator in (cpu, cuda))
    for ours, theirs in zip(here, there, strict=True):
        assert all(tensor.device.type == "cpu" for tensor in theirs.state().values())
        assert type(ours) is type(theirs)
    moment, other = here[0], there[0]
    assert isinstance(moment, SecondMoment)
    assert isinstance(other, SecondMoment)
    torch.testing.assert_close(other.matrix, moment.matrix, rtol=1e-4, atol=1e-5)
    histogram, counted = here[1], there[1]
    assert isinstance(histogram, Histogram)
    assert isinstance(counted, Histogram)
    torch.testing.assert_close(
        counted.quantile([0.5, 0.99]), histogram.quantile([0.5, 0.99]), rtol=1e-3, atol=1e-4
    )


def test_several_lanes_give_the_bits_of_one(cuda: Generator, tmp_path: Path):
    found = gather(cuda, SPEC, {LAYER: wanted()}, store=Store(tmp_path))[LAYER]
    alone = sweep(cuda, SPEC, {LAYER: wanted()})[LAYER]
    for ours, theirs in zip(found, alone, strict=True):
        for name, tensor in ours.state().items():
            assert torch.equal(tensor, theirs.state()[name]), name


def test_half_precision_maps_are_accumulated_in_full(cuda: Generator):
    keys = torch.randn(25, 32, 16, 16, device="cuda").half()
    exact = keys.double().transpose(0, 1).flatten(1)  # [C, n]
    seen = SecondMoment().update(Batch.of(keys))
    torch.testing.assert_close(seen.matrix, exact @ exact.T / exact.shape[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("empty", wanted(), ids=lambda statistic: statistic.kind)
def test_an_update_does_not_wait_for_the_device(empty: Statistic):
    batch = Batch.of(torch.randn(25, 32, 16, 16, device="cuda"))
    seen = empty.update(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        seen.update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
