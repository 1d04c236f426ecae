"""Dissecting the embedded default: all layers, 1,000 samples, its painted concepts, report included.

Each time is of one run of a process of its own, on all cores, with a cache folder of its own: empty for the first, and
left by the first for the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.row import Row

__all__ = ["rows"]

TABLES = """
import json, time
import pandas
from dissect.concepts.catalogue import open_concepts
from dissect.units import dissect
from rewrite_core.generators import LatentSpec, open_generator
start = time.perf_counter()
generator = open_generator()
found = dissect(generator, LatentSpec.of(range(1000)), list(generator.layers), open_concepts("embedded", generator))
found.units(), found.summary(), found.concepts(), found.detectors()
seconds = time.perf_counter() - start
start = time.perf_counter()
generator.sample(LatentSpec.of(range(1000)))
print(json.dumps([seconds, time.perf_counter() - start]))
"""


def rows() -> Iterable[Row]:
    """The report from an empty cache, the report from a warm one, and the tables alone."""
    with tempfile.TemporaryDirectory() as folder:
        for name, goal in (("an empty", 120.0), ("a warm", 0.0)):
            seconds = _report(Path(folder), name)
            aim = f"< {goal:g} s" if goal else ""
            yield Row(
                f"anime64, all layers dissected from {name} cache, report written [s]",
                seconds,
                goal,
                goal / seconds,
                aim,
                not goal or seconds < goal,
            )
        tables, drawing = json.loads(_run([sys.executable, "-c", TABLES], Path(folder)))
        yield Row("anime64, the tables from a warm cache [s]", tables, 2.0, 2.0 / tables, "< 2 s", tables < 2)
        yield Row("anime64, 1,000 samples drawn [s], for scale", drawing, drawing, 1.0, "", holds=True)


def _report(folder: Path, name: str) -> float:
    start = time.perf_counter()
    out = folder / name.replace(" ", "-")
    _run([sys.executable, "-m", "dashboard.cli", "dissect", "anime64-dcgan", "--out", str(out)], folder)
    return time.perf_counter() - start


def _run(command: list[str], folder: Path) -> str:
    environment = {
        **os.environ,
        "PALIMPSEST_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    }
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
