"""Every solver and key method on the eight requests of ``benchmarks/requests``: the tables of docs/rewriting.md.

    python -m benchmarks.requests                          # print them
    python -m benchmarks.requests --out docs/rewriting.md  # and put them, and the contact sheet, in their places there

Some minutes on two cores; it is not among the suites of `make bench`. Each table of that page stands between two
comments that name it; what the text says of the numbers is for whoever runs this to check. The requests were painted,
and looked at, before any of them was solved (``tools/paint_requests.py``): they stay as they are.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from benchmarks.trials import (
    IDEAS,
    KEYS,
    OTHERS,
    OURS,
    PUBLISHED,
    RANKS,
    SOLVERS,
    WHOLE,
    Result,
    Shown,
    Tried,
    tried,
)
from dissect.paper import page, put, save_figure, write
from rewrite_core.files import write_bytes
from rewrite_core.pictures import Picture, enlarge

__all__ = ["TABLES", "failure", "main", "sheet"]

REQUESTS = sorted((Path(__file__).parent / "requests").glob("*.json"))
SHEET = "eight-requests.png"
SHORT, TWICE = 2 / 3, 2.0
"""A request fails where more of the loss than this is left, or the change inside is less than twice that outside."""
COLOURS = 256

Rows = Iterable[Sequence[str]]


# Tables


def of_ways(results: Sequence[Result], kind: str, ways: Iterable[str], title: str) -> Rows:
    """Medians over the requests, by way and rank: loss left, change outside against the reference (wins), seconds."""
    yield (
        title,
        *(f"loss left, rank {rank}" for rank in RANKS),
        *(f"outside ÷ published, rank {rank}" for rank in RANKS),
        "worst, rank 1",
        "inside, rank 1",
        "seconds",
    )
    for way in ways:
        at = {
            rank: [one for one in results if (one.kind, one.way, one.rank) == (kind, way, rank)]
            for rank in RANKS
        }
        yield (
            way,
            *(_cell(at[rank], lambda some: f"{median(one.loss for one in some):.3f}") for rank in RANKS),
            *(_cell(at[rank], _outside) for rank in RANKS),
            _cell(at[1], lambda some: f"{max(one.against for one in some):.2f}"),
            _cell(at[1], lambda some: f"{median(one.inside for one in some):.3f}"),
            _cell(at[1], lambda some: f"{median(one.seconds for one in some):.2f}"),
        )


def _cell(results: Sequence[Result], say: Callable[[Sequence[Result]], str]) -> str:
    return say(results) if results else "–"


def _outside(results: Sequence[Result]) -> str:
    """The median, and in how many requests it is below 1."""
    return f"{median(one.against for one in results):.2f} ({sum(one.against < 0.9995 for one in results)})"


def of_requests(results: Sequence[Result], rank: int) -> Rows:
    """Every request at one rank, with what of it fails."""
    yield (
        "request", "loss left: ours", "projected gradient", "published, whole", "full rank", "inside", "outside",
        "inside ÷ outside", "published", "others", "outside ÷ published", "others", "fails",
    )  # fmt: skip
    for path in REQUESTS:
        here = {(one.kind, one.way): one for one in results if (one.request, one.rank) == (path.stem, rank)}
        ours, reference, apart = here["solver", OURS], here["keys", PUBLISHED], here["idea", OTHERS]
        losses = (here["solver", name] for name in ("projected gradient", WHOLE, "full rank"))
        yield (
            path.stem.replace("-dcgan-", " "),
            f"{ours.loss:.3f}",
            *(f"{other.loss:.3f}" for other in losses),
            f"{ours.inside:.3f}",
            f"{ours.outside:.3f}",
            f"{ours.inside / ours.outside:.1f}",
            f"{reference.inside / reference.outside:.1f}",
            f"{apart.inside / apart.outside:.1f}",
            f"{ours.against:.2f}",
            f"{apart.against:.2f}",
            failure(ours) or "no",
        )


def failure(result: Result) -> str:
    """Why an edit fails; empty where it does not."""
    reasons = {
        "does not reach the goal": result.loss > SHORT,
        "changes the rest too": result.inside < TWICE * result.outside,
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


TABLES: Mapping[str, Callable[[Sequence[Result]], Rows]] = {
    "solvers": lambda results: of_ways(results, "solver", SOLVERS, "solver"),
    "key methods": lambda results: of_ways(results, "keys", KEYS, "key method"),
    "ideas": lambda results: of_ways(results, "idea", IDEAS, "changed"),
    "requests, rank 1": lambda results: of_requests(results, 1),
    "requests, rank 3": lambda results: of_requests(results, 3),
}


def lines(rows: Rows) -> list[str]:
    """A table in Markdown."""
    head, *body = rows
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *body)]


def put_table(text: str, name: str, table: Sequence[str]) -> str:
    """The page with a table in its place."""
    mark, end = f"<!-- table: {name} -->", "<!-- end of table -->"
    place = re.compile(re.escape(mark) + ".*?" + re.escape(end), re.DOTALL)
    assert place.search(text), f"the page has no table '{name}'"
    return place.sub(lambda _: "\n".join([mark, "", *table, "", end]), text, count=1)


# Contact sheet

CELL, GAP, NAME, HEAD = 64, 2, 290, 40


def sheet(found: Sequence[Tried]) -> bytes:
    """All requests, those that fail too, as a PNG: the copy, then each picture before, by ours, as published."""
    across = 1 + 3 * len(found[0].shown.before)
    width, height = NAME + across * (CELL + GAP), HEAD + len(found) * (CELL + GAP)
    figure, axes = page(width, height)
    for column in range(across):
        title = "copy" if not column else ("before", "ours", "publ.")[(column - 1) % 3]
        write(axes, title, NAME + column * (CELL + GAP), HEAD - 10, 4.5)
    for row, one in enumerate(found):
        top = HEAD + row * (CELL + GAP)
        ours = next(r for r in one.results if (r.kind, r.way, r.rank) == ("solver", OURS, 1))
        name = one.request.replace("-dcgan-", " ")
        write(axes, name, 4, top + 26)
        write(axes, "fails" if failure(ours) else "", 4, top + 54)
        for column, picture in enumerate(_row(one.shown)):
            put(axes, picture, (NAME + column * (CELL + GAP), top))
    content = BytesIO()
    image = Image.open(BytesIO(save_figure(figure, "png"))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(content, format="PNG", optimize=True)
    return content.getvalue()


def _row(shown: Shown) -> list[Picture]:
    """The pictures of one request from left to right, as large as a cell."""
    trios = zip(shown.before, shown.ours, shown.published, strict=True)
    pictures = [shown.copied, *(picture for trio in trios for picture in trio)]
    return [enlarge(picture, max(1, CELL // picture.shape[0])) for picture in pictures]


# All of it


def everything(workers: int) -> list[Tried]:
    """Every request, as many at a time as there are `workers`, each with one thread."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, fresh, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(tried, REQUESTS))


def main() -> None:
    """Print the tables; with ``--out`` put them on that page, and the contact sheet beside it."""
    parser = argparse.ArgumentParser(description="Every solver and key method on the eight requests.")
    parser.add_argument("--out", type=Path, help="the page that has the tables: docs/rewriting.md")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    found = everything(given.workers)
    results = [result for one in found for result in one.results]
    tables = {name: lines(rows(results)) for name, rows in TABLES.items()}
    for name, table in tables.items():
        print(f"\n{name}\n", *table, sep="\n")
    if given.out:
        text = given.out.read_text(encoding="utf-8")
        for name, table in tables.items():
            text = put_table(text, name, table)
        write_bytes(given.out, text.encode())
        write_bytes(given.out.parent / "pictures" / SHEET, sheet(found))


if __name__ == "__main__":
    main()
