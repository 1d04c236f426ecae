"""`palimpsest concepts`: where the labels come from that give units their meaning; listed, looked at, learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.concepts_distil import distil
from dashboard.commands.concepts_learn import eval_, train
from dashboard.commands.console import progress, report
from dashboard.commands.opening import opened
from dashboard.commands.output import make_folder, require_drawable, write_figure, write_table
from dashboard.commands.table import table

if TYPE_CHECKING:
    import pandas as pd

    from dissect.concepts.overlay import Agreement
    from dissect.figures import Width
    from rewrite_core.generators.latents import Scheme

__all__ = ["concepts"]


@click.group(epilog=options.example("palimpsest concepts list"))
def concepts() -> None:
    """Look at concepts: where they come from, what they say, how well they were learned."""


concepts.add_command(train)
concepts.add_command(eval_)
concepts.add_command(distil)


@concepts.command("list", epilog=options.example("palimpsest concepts list anime64-dcgan --json"))
@click.argument("model", required=False)
@options.as_json
def list_(model: str | None, as_json: bool) -> None:
    """List the concepts that can be chosen as they are for a model, and what else --concepts takes."""
    from dissect.concepts.catalogue import KINDS, known

    generator = opened(model)
    offers = [
        {"concepts": text, "title": title, "help": help_, "why_not": why_not}
        for text, title, help_, why_not in known(generator)
    ]
    kinds = [{"concepts": kind.form, "help": kind.help, "why_not": kind.why_not} for kind in KINDS]
    answer = {"model": generator.name, "known": offers, "kinds": kinds}
    lines = [
        f"for {generator.name}:",
        *table([[offer["concepts"], offer["title"], offer["why_not"]] for offer in offers]),
        "",
        "--concepts takes:",
        *table([[kind["concepts"], kind["help"]] for kind in kinds]),
    ]
    report(answer, "\n".join(lines), as_json)


@concepts.command(
    epilog=options.example("palimpsest concepts show anime64-dcgan --concepts colours --out seen/")
)
@click.argument("model", required=False)
@options.concepts("What to show.", required=True)
@click.option("--against", metavar="CONCEPTS", help="Others, to say how far the two agree.")
@options.seeds("0-15")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.place("--out", "Folder for the overlays and tables.", folder=True, required=True)
@options.width
@options.device
@options.as_json
@options.quiet
def show(
    model: str | None,
    concepts: str,
    against: str | None,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    out: Path,
    width: Width,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw pictures with their labels, and say how much of them each concept covers.

    Whether concepts are right is for you to see: look before you trust a number that they lead to.
    """
    from dissect.concepts.catalogue import open_concepts
    from dissect.concepts.overlay import agreement, labelled, shares
    from dissect.concepts.overlay_figure import overlay_figure
    from rewrite_core.generators import LatentSpec

    require_drawable(len(seeds))
    generator = opened(model)
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    texts = {"overlay": concepts} | ({"against": against} if against else {})
    sources = {name: open_concepts(text, generator) for name, text in texts.items()}
    found = {}
    for name, source in sources.items():
        with progress(f"Labelling: {source.title}", quiet) as advance:
            found[name] = labelled(generator, spec, source, advance)
    one, covered = found["overlay"], shares(found["overlay"])
    agreed = agreement(one, found["against"]) if against else None
    make_folder(out)
    files = []
    for name, seen in found.items():
        files += write_figure(out / name, overlay_figure(seen, width=width))
    files.append(write_table(out / "shares", covered))
    if agreed is not None:
        files.append(write_table(out / "agreement", agreed.table))
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "seeds": seeds,
        "concepts": one.title,
        "shares": covered.to_dict("records"),
        "against": found["against"].title if against else None,
        "agreement": None if agreed is None else agreed.table.to_dict("records"),
        "accuracy": None if agreed is None else agreed.accuracy,
        "files": files,
    }
    lines = [f"{one.title} on {len(seeds):,} pictures of {generator.name}", *_aligned(covered)]
    if agreed is not None:
        lines += ["", *_agreeing(answer["against"], agreed)]
    report(answer, "\n".join([*lines, "", f"pictures and tables in {out}"]), as_json)


def _agreeing(title: Any, agreed: Agreement) -> list[str]:
    whole = "" if agreed.accuracy is None else f": the same concept in {agreed.accuracy:.1%} of the pixels"
    return [f"against {title}{whole}", *_aligned(agreed.table)]


def _aligned(found: pd.DataFrame) -> list[str]:
    """A table whose first column is names and whose others are shares."""
    rows = [[name, *(f"{share:.1%}" for share in shares)] for name, *shares in found.itertuples(index=False)]
    return table([list(found.columns), *rows])
