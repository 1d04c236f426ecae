"""Searching 10,000 pictures of the embedded default at its default layer: off an index, against drawing them again.

An index is made in a cache folder of its own by one process, and read by another. A search names the best 24 pictures,
exactly, and the level that outlines; its time is without loading torch and the generator.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping

from benchmarks.row import Row

__all__ = ["rows"]

PICTURES = 10_000

START = f"""
import json, time
import torch
from rewrite_core.directions.index import key_index, moment_of
from rewrite_core.directions.matches import matches, nearest, search
from rewrite_core.generators import LatentSpec, open_generator
from rewrite_core.statistics import default_store
generator = open_generator()
layer, spec, store = generator.default_layer, LatentSpec.of(range({PICTURES})), default_store()
with torch.no_grad():
    key = generator.keys(generator.latents(LatentSpec((7,))), layer).keys[0, :, 6, 5].double()
query = torch.linalg.solve(moment_of(generator, layer, store=store).matrix, key)

def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

def searched():
    found = search(generator, layer, query, spec, store=store)
    return found.top(24), found.outline
"""

MADE = """
made = seconds(lambda: key_index(generator, layer, spec, store=store))
drawn = seconds(lambda: matches(generator, layer, query, spec))
size = sum(entry.bytes for entry in store.entries() if entry.key["statistic"] == "compact_keys")
print(json.dumps({"made": made, "drawn": drawn, "bytes": size}))
"""

READ = """
fresh = seconds(searched)
again = min(seconds(searched) for _ in range(3))
alike = min(seconds(lambda: nearest(generator, layer, 7, (6, 5), spec, store=store).top(24)) for _ in range(3))
exact = matches(generator, layer, query, spec)
found = search(generator, layer, query, spec, store=store)
rms = float(exact.heat.square().mean().sqrt())
off = float((found.heat - exact.heat).square().mean().sqrt())
print(json.dumps({"fresh": fresh, "again": again, "alike": alike, "same": found.top(24) == exact.top(24),
                  "off": off / rms, "stated": found.error / rms}))
"""


def rows() -> Iterable[Row]:
    """Making the index, reading it in a fresh process and again, and how well it is read."""
    with tempfile.TemporaryDirectory() as folder:
        made, read = _run(MADE, folder), _run(READ, folder)
    drawn, name = made["drawn"], f"anime64, {PICTURES:,} pictures"
    yield Row(f"{name}, index made [s], against drawing", made["made"], drawn, made["made"] / drawn, "", True)
    yield Row(
        f"{name}, index on disk [MB]", size := made["bytes"] / 1e6, 1074, 1074 / size, "< 1,074", size < 1074
    )
    for what, key in (("searched, fresh process", "fresh"), ("searched again", "again"), ("alike", "alike")):
        ours = read[key]
        yield Row(f"{name}, {what} [s], against drawing", ours, drawn, drawn / ours, "< 1 s", ours < 1)
    off, stated = read["off"], read["stated"]
    yield Row(
        f"{name}, RMS error of heat, against what is stated",
        off,
        stated,
        off / stated,
        "≤ 1.1 ×, best 24 the same",
        off <= 1.1 * stated and bool(read["same"]),
    )


def _run(work: str, folder: str) -> Mapping[str, float]:
    environment = {**os.environ, "PALIMPSEST_CACHE": folder, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    done = subprocess.run(
        [sys.executable, "-c", START + work], capture_output=True, text=True, check=True, env=environment
    )
    found: Mapping[str, float] = json.loads(done.stdout)
    return found
