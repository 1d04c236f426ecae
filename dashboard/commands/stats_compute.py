"""`palimpsest stats compute`: statistics of a model's layers, by one process or by many that torchrun started.

Every process does the same, ``torchrun … -m dashboard.cli stats compute …``; process 0 reports for all. Before the
work they make sure that they belong together (`rewrite_core.statistics.distributed`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report, warn
from dashboard.commands.opening import opened
from dashboard.commands.table import table
from rewrite_core.errors import Cancelled, RequestError

if TYPE_CHECKING:
    from rewrite_core.generators import Generator, LatentSpec, Progress
    from rewrite_core.generators.latents import Scheme
    from rewrite_core.statistics import Statistic, Store
    from rewrite_core.statistics.distributed import Team
    from rewrite_core.statistics.sweep import Answers, Wanted

__all__ = ["compute", "in_words"]

ALL = "all"


@click.command(epilog=options.example("palimpsest stats compute anime64-dcgan --layer l05 --layer l08"))
@click.argument("model", required=False)
@click.option(
    "--layer", "layers", metavar="LAYER", multiple=True, help='Of which layer; may be repeated, or "all".'
)
@click.option(
    "--statistic",
    "kinds",
    metavar="KIND",
    multiple=True,
    default=["second_moment"],
    show_default=True,
    help='Which statistic; may be repeated, or "all".',
)
@options.seeds("0-999")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.devices
@options.as_json
@options.quiet
def compute(
    model: str | None,
    layers: Sequence[str],
    kinds: Sequence[str],
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compute statistics of a model's layers.

    Those that are stored are read, the others computed in one pass over the pictures and stored. Interrupted, the
    same command goes on from there. Under torchrun the processes share the work.
    """
    from rewrite_core.generators import LatentSpec
    from rewrite_core.statistics import default_store
    from rewrite_core.statistics.distributed import Team

    team = Team.here(device)
    generator = opened(model, device=team.devices[0])
    spec, store = LatentSpec(seeds, scheme, truncation, cutoff, label), default_store()
    wanted = _wanted(generator, layers, kinds)
    _meet(team, generator, spec, wanted, store)
    before = _stored(generator, spec, wanted, store)
    notes: list[str] = []
    started = time.perf_counter()
    found = _gathered(team, generator, spec, wanted, store, notes, quiet)
    seconds = time.perf_counter() - started
    if team.leads:
        answer = {
            "model": generator.name,
            "fingerprint": generator.fingerprint,
            "samples": len(spec),
            "processes": team.size,
            "device": str(generator.device),
            "seconds": seconds,
            "statistics": _answers(generator, spec, found, before),
            "log": notes,
        }
        report(answer, _text(answer), as_json)


def _wanted(generator: Generator, layers: Sequence[str], kinds: Sequence[str]) -> Wanted:
    """The empty statistics asked for, by layer.

    Raises:
        LayerError, RequestError: there is no such layer, or no such statistic.
    """
    offered = _offered()
    chosen = list(offered) if ALL in kinds else list(dict.fromkeys(kinds))
    for kind in chosen:
        if kind not in offered:
            raise RequestError(
                found=f"statistic '{kind}'",
                expected=f"one of {', '.join(offered)}, or {ALL}",
                remedy="Choose one of these.",
            )
    names = (
        list(generator.layers) if ALL in layers else list(dict.fromkeys(layers)) or [generator.default_layer]
    )
    return {generator.layer(name).name: [offered[kind] for kind in chosen] for name in names}


def _offered() -> dict[str, Statistic]:
    """The empty statistics that can be asked for with nothing but a layer, by kind."""
    from rewrite_core.statistics import STATISTICS, Needs

    found = {}
    for kind, make in STATISTICS.items():
        try:
            empty = make()
        except TypeError:  # it has no meaning without what it is to be given
            continue
        if empty.needs() == Needs() and not empty.few:
            found[kind] = empty
    return found


def _meet(team: Team, generator: Generator, spec: LatentSpec, wanted: Wanted, store: Store) -> None:
    """Check that the processes belong together; what all of them find wrong is said once."""
    from rewrite_core.statistics.distributed import TeamError

    try:
        team.meet(generator, spec, wanted, store)
    except TeamError:
        if team.leads:
            raise
        raise SystemExit(1) from None


def _stored(generator: Generator, spec: LatentSpec, wanted: Wanted, store: Store) -> set[str]:
    """The names of those that need not be computed, as far as headers tell."""
    from rewrite_core.statistics import key_of
    from rewrite_core.statistics.key import name_of

    keys = [key_of(generator, layer, spec, empty) for layer, some in wanted.items() for empty in some]
    return {name_of(key) for key in keys if store.has(key)}


def _gathered(
    team: Team,
    generator: Generator,
    spec: LatentSpec,
    wanted: Wanted,
    store: Store,
    notes: list[str],
    quiet: bool,
) -> Answers:
    """Read or compute them. After SIGTERM what is finished is kept, and the process ends as if killed by it."""
    from rewrite_core.statistics import gather

    with progress("Computing", quiet or not team.leads) as advance, _stoppable(advance) as step:
        try:
            return gather(
                generator, spec, wanted, store=store, progress=step, devices=team.devices, say=notes.append
            )
        except Cancelled:
            if team.leads:
                warn("stopped. What is finished is kept; the same command goes on from there.")
            raise SystemExit(128 + signal.SIGTERM) from None


@contextmanager
def _stoppable(advance: Progress | None) -> Iterator[Progress]:
    """`advance`, which after SIGTERM raises `Cancelled` at its next call."""
    stopped: list[int] = []

    def step(done: int, total: int) -> None:
        if stopped:
            raise Cancelled
        if advance:
            advance(done, total)

    before = signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    try:
        yield step
    finally:
        signal.signal(signal.SIGTERM, before)


# The answer


def _answers(
    generator: Generator, spec: LatentSpec, found: Answers, before: set[str]
) -> list[dict[str, Any]]:
    from rewrite_core.statistics import key_of
    from rewrite_core.statistics.key import name_of

    return [
        {
            "name": (name := name_of(key_of(generator, layer, spec, statistic))),
            "layer": layer,
            "statistic": statistic.kind,
            "stored": name in before,
            "summary": dict(statistic.summary()),
        }
        for layer, statistics in found.items()
        for statistic in statistics
    ]


def _text(answer: dict[str, Any]) -> str:
    rows = [
        [
            found["name"][:12],
            found["layer"],
            found["statistic"],
            "was stored" if found["stored"] else "computed",
            in_words(found["summary"]),
        ]
        for found in answer["statistics"]
    ]
    head = (
        f"{answer['model']}, {answer['samples']:,} samples, {answer['seconds']:.2f} s on {answer['device']}"
    )
    return "\n".join([head, *answer["log"], *table(rows)])


def in_words(summary: Mapping[str, Any]) -> str:
    """What a statistic says at a glance, in one line."""
    return ", ".join(f"{name} {_number(value)}" for name, value in summary.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
