"""Where a generator computes: ``cpu``, ``cuda:0`` and so on, ``mps``, or ``auto`` for the fastest there is."""

from __future__ import annotations

import os
import re

import torch

from rewrite_core.errors import RequestError

__all__ = ["DEVICE", "devices", "find_device"]

DEVICE = "PALIMPSEST_DEVICE"
"""The environment variable that stands for a device not named otherwise."""


def devices() -> list[str]:
    """What this machine has, the fastest first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def find_device(name: str | None = None) -> torch.device:
    """The device called `name`; without one, what ``PALIMPSEST_DEVICE`` says, else the CPU.

    ``auto`` is the fastest there is; of several GPUs each process of torchrun gets its own. ``cuda`` is the first.

    Raises:
        RequestError: if the machine has no such device.
    """
    name = (name or os.environ.get(DEVICE) or "cpu").strip().lower()
    there = devices()
    if name in ("auto", "cuda") and there[0].startswith("cuda"):
        count = sum(device.startswith("cuda") for device in there)
        return torch.device(there[int(os.environ.get("LOCAL_RANK", "0")) % count])
    wanted = there[0] if name == "auto" else name
    if wanted not in there:
        known = re.fullmatch(r"cpu|mps|cuda(:\d+)?", name)
        raise RequestError(
            found=f"device '{name}'" + ("" if known else ", which is no device's name"),
            expected=f"auto or one that this machine has: {', '.join(there)}",
            remedy="Choose another --device.",
        )
    return torch.device(wanted)
