"""Compute the second moments that ship with the embedded generators, so that the first edit does not wait for them.

    python tools/embed_statistics.py

Writes ``data/models/<name>/statistics/``; run it again whenever `SecondMoment.version` is raised.
"""

from __future__ import annotations

import shutil

from rewrite_core.generators import LatentSpec, embedded_folder, embedded_names, open_generator
from rewrite_core.statistics import SecondMoment, Store, key_of, sweep
from rewrite_core.statistics.layer import SAMPLES


def main() -> None:
    """Every layer of every embedded generator, in one sweep each."""
    for name in embedded_names():
        generator, folder = open_generator(name), embedded_folder(name) / "statistics"
        shutil.rmtree(folder, ignore_errors=True)
        spec = LatentSpec.of(range(SAMPLES))
        seen = sweep(generator, spec, {layer: [SecondMoment()] for layer in generator.layers})
        for layer, (moment,) in seen.items():
            path = Store(folder).put(key_of(generator, layer, spec, moment), moment)
            print(f"{name} {layer}: {path.name}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
