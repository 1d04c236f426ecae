"""Gathering statistics from a page: what can be asked for, asking, and the line that spreads it over processes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from dashboard.session import Session, service
from rewrite_core.errors import RequestError
from rewrite_core.generators import LatentSpec
from rewrite_core.jobs import Job
from rewrite_core.statistics import STATISTICS, Statistic, key_of

__all__ = ["command", "gather", "offered"]


def offered() -> Mapping[str, Statistic]:
    """Statistics that need nothing but the layer, by name, as they are asked for with default parameters."""
    found = {}
    for name, statistic in STATISTICS.items():
        try:
            empty = statistic()
        except TypeError:  # a parameter without a default
            continue
        if not (empty.few or empty.needs().labeller or empty.needs().beside):
            found[name] = empty
    return found


def gather(visitor: Session, layers: Sequence[str], statistics: Sequence[str], samples: int) -> bool:
    """Ask for these statistics of the open generator as it was loaded; whether that takes a job.

    What is stored is not read for it; one that is damaged is found out when it is.

    Raises:
        RequestError: if nothing is chosen, or the visitor has too many jobs under way.
    """
    if not (layers and statistics):
        raise RequestError(
            found="no layer or no statistic", expected="at least one of each", remedy="Choose some."
        )
    known = offered()
    wanted = {layer: [known[name] for name in statistics] for layer in layers}
    generator, spec, store = visitor.generator.pristine, LatentSpec.of(range(samples)), service().store
    keys = (key_of(generator, layer, spec, empty) for layer, some in wanted.items() for empty in some)
    if all(map(store.has, keys)):
        return False
    return isinstance(service().ask(generator, spec, wanted, visitor=visitor.visitor), Job)


def command(
    visitor: Session, layers: Sequence[str], statistics: Sequence[str], samples: int, processes: int = 2
) -> str:
    """The line that gathers the same in several processes, on one machine or several with one cache folder."""
    chosen = ["all"] if list(layers) == list(visitor.generator.layers) else layers or [visitor.layer]
    parts = [
        f"torchrun --nproc-per-node {processes} -m dashboard.cli stats compute",
        shlex.quote(visitor.embedded_name or visitor.origin or "MODEL"),
        *(f"--layer {shlex.quote(layer)}" for layer in chosen),
        *(f"--statistic {name}" for name in statistics or ["second_moment"]),
        f"--seeds 0-{samples - 1}",
    ]
    return " ".join(parts)
