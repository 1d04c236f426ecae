"""What the machine is and how much of it is in use."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch

from dashboard.words import counted, size
from rewrite_core.generators import Generator
from rewrite_core.generators.lanes import Lanes
from rewrite_core.statistics.sweep import MICRO_BATCHES

__all__ = ["Gauge", "gauges"]


@dataclass(frozen=True)
class Gauge:
    """One thing about the machine; `share` in use, where there is a limit."""

    name: str
    text: str
    share: float | None = None
    help: str = ""


def gauges(generator: Generator) -> list[Gauge]:
    """Device, memory, and how `generator` is swept here."""
    return [_device(generator), *_memory(), *_gpu_memory(generator.device), _batches(generator)]


def _device(generator: Generator) -> Gauge:
    device = generator.device
    if device.type == "cuda":
        return Gauge("Device", f"{torch.cuda.get_device_name(device)} ({device})")
    threads = counted(torch.get_num_threads(), "thread")
    return Gauge(
        "Device",
        f"CPU, {threads} of {counted(os.cpu_count() or 1, 'core')}",
        help="PALIMPSEST_THREADS sets how many threads compute. The last bits of a result depend on it.",
    )


def _memory() -> list[Gauge]:
    memory = psutil.virtual_memory()
    own = psutil.Process().memory_info().rss
    return [
        Gauge(
            "Memory",
            f"{size(memory.available)} free of {size(memory.total)}",
            memory.percent / 100,
            help=f"The app itself uses {size(own)}.",
        )
    ]


def _gpu_memory(device: torch.device) -> list[Gauge]:
    if device.type != "cuda":
        return []
    free, most = torch.cuda.mem_get_info(device)
    return [Gauge("GPU memory", f"{size(free)} free of {size(most)}", 1 - free / most)]


def _batches(generator: Generator) -> Gauge:
    batch, lanes = generator.micro_batch, Lanes(generator).count
    return Gauge(
        "Batches",
        f"{counted(batch, 'picture')} each, {lanes} at once",
        help="Pictures drawn at a time: the batch is fixed for a generator. "
        f"A block is {MICRO_BATCHES} batches: what a stopped job loses at most, and what processes share out among "
        "themselves. How many blocks are computed at once adapts to memory.",
    )
