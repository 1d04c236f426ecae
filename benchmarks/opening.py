"""Opening a StyleGAN2-256 of 30 M random numbers: seconds, and the most memory above a bare import of torch.

Each file is opened in a process of its own. Memory is the process's greatest resident size (``VmHWM``, which Linux
counts anew for a program that is started) while it opens the file for the first time, less what it was after ``import
torch``, over the size of the file. Seconds are of the best of three openings after that one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.row import Row
from benchmarks.stylegan2 import random_stylegan2

__all__ = ["rows"]

SCRIPT = """
import json, re, sys, time
from pathlib import Path
import torch
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
bare = peak()
from rewrite_core import open_generator
open_generator(sys.argv[1])
grown, seconds = peak() - bare, []
for _ in range(3):
    start = time.perf_counter()
    open_generator(sys.argv[1])
    seconds.append(time.perf_counter() - start)
print(json.dumps([min(seconds), grown]))
"""


def rows() -> Iterable[Row]:
    """A row of seconds and one of memory for each kind of file."""
    with tempfile.TemporaryDirectory() as folder:
        for name, file in _files(Path(folder)):
            command = [sys.executable, "-c", SCRIPT, str(file)]
            seconds, grown = json.loads(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout
            )
            share = grown / file.stat().st_size
            yield Row(
                f"StyleGAN2-256, 30 M, {name}: open [s]", seconds, 3.0, 3.0 / seconds, "< 3 s", seconds < 3
            )
            yield Row(
                f"StyleGAN2-256, 30 M, {name}: memory ÷ file", share, 2.2, 2.2 / share, "< 2.2", share < 2.2
            )


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The rosinality checkpoint alone, the same with its training state, and our own export."""
    generator = random_stylegan2(256)
    state = dict(generator.network.state_dict())
    whole: dict[str, Any] = {"latent_avg": state.pop("latent_avg"), "g_ema": state}
    torch.save(whole, folder / "alone.pt")
    yield ".pt", folder / "alone.pt"
    moments = {index: {"exp_avg": tensor + 1} for index, tensor in enumerate(state.values())}
    training = {"g": _copied(state), "d": _copied(state), "g_optim": {"state": moments}}
    torch.save(whole | training, folder / "training.pt")
    yield "training .pt", folder / "training.pt"
    (folder / "model").mkdir()
    for name, content in generator.files().items():
        (folder / "model" / name).write_bytes(content)
    yield ".safetensors", folder / "model" / "model.safetensors"


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}
