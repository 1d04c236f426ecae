"""Kill processes at random moments of a pass, many times, and see what that costs and that it changes nothing.

    python -m benchmarks.kills --times 100

Each round is one pass that one to three processes work on. Some are killed (``kill -9``) at moments drawn from a seeded
generator, others end undisturbed, and at the end one more process asks. Every answer that any of them gives must be,
to the bit, that of a pass in memory. It runs from a source checkout, since the processes are those of the tests.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.killed import Worker, drawn_in, expected

__all__ = ["Round", "campaign"]

SAMPLES = 1000
SECONDS = 0.5
"""Kills fall in the first so many seconds; a pass takes about that long."""
SAVE_EVERY = 0.05


@dataclass(frozen=True)
class Round:
    """What one pass went through.

    Attributes:
        kills: processes that were killed while they worked.
        answers: answers given, by those that were not.
        identical: whether all of these were right to the bit.
        redone: samples drawn more than once, by all processes together.
        left: files that the pass left in the folder beside its results.
    """

    kills: int
    answers: int
    identical: bool
    redone: int
    left: int


def campaign(times: int, seed: int = 0, samples: int = SAMPLES) -> Iterator[Round]:
    """Rounds until at least `times` processes were killed while they worked."""
    chance, right, kills = random.Random(seed), expected(samples), 0
    while kills < times:
        with TemporaryDirectory() as folder:
            found = _round(Path(folder), chance, right, samples)
        kills += found.kills
        yield found


def _round(folder: Path, chance: random.Random, right: dict[str, str], samples: int) -> Round:
    kills, digests = 0, []
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(folder, samples, save=SAVE_EVERY)) for _ in range(chance.randint(1, 3))
        ]
        moments = sorted(
            (chance.uniform(0, SECONDS), worker) for worker in range(chance.randint(1, len(workers)))
        )
        for worker in workers:
            worker.ready()
        started = time.monotonic()
        for worker in workers:
            worker.go()
        for moment, victim in moments:
            time.sleep(max(0.0, started + moment - time.monotonic()))
            kills += workers[victim].kill()
        spared = set(range(len(workers))) - {victim for _, victim in moments}
        digests = [workers[survivor].answer()["digest"] for survivor in sorted(spared)]
        last = stack.enter_context(Worker(folder, samples, save=SAVE_EVERY)).ready().go()
        digests.append(last.answer()["digest"])
    identical = all(found == right for found in digests)
    store = folder / "statistics"
    files = sum(path.is_file() for path in store.rglob("*"))
    left = files - len(list(store.glob("*.safetensors")))
    return Round(kills, len(digests), identical, drawn_in(folder) - samples, left)


def main(arguments: list[str]) -> int:
    """Print each round and the sum; the exit status is 1 if any answer differed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=100, help="kills to reach (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rounds: list[Round] = []
    for found in campaign(given.times, given.seed):
        rounds.append(found)
        same = "identical" if found.identical else "DIFFERENT"
        print(
            f"{sum(one.kills for one in rounds):4} kills: {found.answers} answers {same}, "
            f"{found.redone} samples redone, {found.left} files left",
            flush=True,
        )
    kills, answers = sum(one.kills for one in rounds), sum(one.answers for one in rounds)
    wrong, redone = sum(not one.identical for one in rounds), sum(one.redone for one in rounds)
    print(
        f"{len(rounds)} passes of {SAMPLES} samples, {kills} processes killed while working, {answers} answers, "
        f"{redone} samples redone ({redone / max(kills, 1):.0f} a kill), {wrong} passes with a different answer"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
