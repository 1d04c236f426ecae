"""`palimpsest ablate`: what units of a layer cause, in pictures and in numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.intervening import load_region, open_judge, rank, values_of
from dashboard.commands.opening import opened, under
from dashboard.commands.output import make_folder, require_drawable, write_figure, write_table
from dashboard.commands.table import table
from dashboard.ranges import format_ranges, parse_ranges

if TYPE_CHECKING:
    import pandas as pd

    from dissect.effects import Effects
    from dissect.figures import Width
    from dissect.interventions import Intervention
    from dissect.ranking import Ranking
    from rewrite_core.generators import Generator, LatentSpec
    from rewrite_core.generators.latents import Scheme

__all__ = ["ablate"]

UNITS, SAMPLES = 65_536, 100_000
"""Named in one command, at most."""
CANDIDATES, COUNT = 16, 4


@click.command(
    epilog=options.example(
        "palimpsest ablate anime64-dcgan --layer l08 --units 3,17 --samples 1000-1049 --out ablated/",
        "palimpsest ablate --rank hair --candidates 6 --count 2 --samples 1000-1049 --out ranked/",
    )
)
@click.argument("model", required=False)
@click.option("--layer", metavar="LAYER", help="Of which layer.  [default: the model's default]")
@click.option("--units", metavar="RANGES", help='Units by number, such as "3, 17, 40-43".')
@click.option(
    "--insert",
    metavar="VALUE",
    help="Force them to a value, not to 0: a number, quantile (0.995 of each), or a concept (the mean where it is).",
)
@click.option(
    "--strength", type=float, default=1.0, show_default=True, help="How far they are forced, 0 to 1."
)
@click.option(
    "--region",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="PNG of the picture's size, white where to intervene.  [default: everywhere]",
)
@options.concepts("What the effects are on.  [default: those distilled for the model, else colours]")
@click.option(
    "--rank",
    "ranked",
    metavar="CONCEPT",
    help="Choose the units that most of a concept hangs on when each is ablated whole, everywhere.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1),
    help=f"Of --rank: how many units are tried, unless --units names them.  [default: {CANDIDATES}]",
)
@click.option(
    "--count", type=click.IntRange(1), help=f"Of --rank: how many units are chosen.  [default: {COUNT}]"
)
@options.seeds("0-15")
@click.option(
    "--samples",
    metavar="RANGES",
    default="1000-1199",
    show_default=True,
    callback=lambda _context, _option, text: parse_ranges(text, SAMPLES),
    help="Pictures over which effects are measured.",
)
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.rules
@options.place("--out", "Folder for pictures and tables.", folder=True, required=True)
@options.width
@options.device
@options.as_json
@options.quiet
def ablate(
    model: str | None,
    layer: str | None,
    units: str | None,
    insert: str | None,
    strength: float,
    region: Path | None,
    concepts: str | None,
    ranked: str | None,
    candidates: int | None,
    count: int | None,
    seeds: tuple[int, ...],
    samples: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    rules: tuple[Path, ...],
    out: Path,
    width: Width,
    as_json: bool,
    quiet: bool,
) -> None:
    """Force units of a layer to 0, or to a value, and see what becomes of the pictures.

    MODEL is the name of an embedded one or the path of a file or folder. The folder gets pictures before and after, and
    the effect on the share of each concept, with a 95 % interval.
    """
    from dissect import interventions
    from dissect.effects import causal_effects
    from dissect.units import halves
    from rewrite_core import Rule
    from rewrite_core.files import write_bytes
    from rewrite_core.generators import LatentSpec
    from rewrite_core.rules.rule import versions

    _require_consistent(units, ranked, candidates, count)
    require_drawable(len(seeds))
    loaded = [Rule.load(path) for path in rules]
    generator = under(opened(model, loaded[0].provenance.model if loaded else ""), loaded)
    layer = generator.layer(layer or generator.default_layer).name
    numbers = parse_ranges(units, UNITS, "unit") if units else ()
    where: dict[str, Any] = {"strength": strength, "region": load_region(region)}
    interventions.check(generator, [interventions.ablate(layer, numbers or [0], **where)])
    source = open_judge(concepts, generator)
    shown, measured = (LatentSpec(some, scheme, truncation, cutoff, label) for some in (seeds, samples))
    ranking = None
    if ranked:
        tried, chosen = candidates or CANDIDATES, count or COUNT
        ranking = rank(generator, layer, measured, source, ranked, numbers, tried, chosen, quiet)
        numbers, measured = ranking.units, halves(measured)[1]  # the others chose
    sets = {"ablated": [interventions.ablate(layer, numbers, **where)]}
    if insert:
        values = values_of(insert, generator, layer, numbers, measured, source, quiet)
        sets = {"inserted": [interventions.insert(layer, numbers, values, **where)], **sets}
    with progress("Measuring", quiet) as advance:
        effects = _table(causal_effects(generator, measured, source, sets, advance))
    (one,) = next(iter(sets.values()))
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "layer": layer,
        "units": numbers,
        "values": one.values,
        "strength": strength,
        "region": None if region is None else str(region),
        "seeds": format_ranges(seeds),
        "samples": format_ranges(measured.seeds),
        "truncation": truncation,
        "cutoff": cutoff,
        "class": label,
        "scheme": scheme,
        "rules": [rule.name for rule in loaded],
        "concepts": source.title,
        "effects": effects.to_dict("records"),
        "ranking": None if ranking is None else _ranking(ranking),
        "made_with": versions(),
    }
    files = _written(generator, shown, one, effects, ranking, make_folder(out), width, quiet)
    write_bytes(out / "ablate.json", json.dumps(answer, indent=1, ensure_ascii=False).encode())
    answer["files"] = [*files, str(out / "ablate.json")]
    report(answer, _text(generator, one, measured, source.title, effects, ranking, out), as_json)


def _require_consistent(
    units: str | None, ranked: str | None, candidates: int | None, count: int | None
) -> None:
    """Refuse options that contradict each other."""
    if not units and not ranked:
        raise click.UsageError("Nothing to ablate: give --units, or a concept to --rank them for.")
    if (candidates or count) and not ranked:
        raise click.UsageError("--candidates and --count are of --rank.")
    if candidates and units:
        raise click.UsageError("--units and --candidates each say which units are tried: give one.")


def _table(effects: Effects) -> pd.DataFrame:
    """A row for each set and concept; where units were inserted, also of inserting against ablating."""
    import pandas as pd

    tables: list[pd.DataFrame] = [effects.table()]
    if "inserted" in effects.sets:
        tables.append(effects.average_causal_effect("inserted", "ablated"))
    return pd.concat(tables, ignore_index=True)


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return {
        "concept": ranking.concept,
        "candidates": list(map(int, ranking.single.sets)),
        "curve": ranking.table().to_dict("records"),
    }


def _written(
    generator: Generator,
    spec: LatentSpec,
    one: Intervention,
    effects: pd.DataFrame,
    ranking: Ranking | None,
    out: Path,
    width: Width,
    quiet: bool,
) -> list[str]:
    """Write figures and tables into the folder, and name them."""
    from dissect.effect_plots import curve_figure
    from dissect.figures import pair_figure
    from dissect.interventions import sample
    from rewrite_core.pictures import to_uint8

    with progress("Drawing before", quiet) as advance:
        before = generator.draw(spec, advance)
    with progress("Drawing after", quiet) as advance:
        after = to_uint8(sample(generator, spec, [one], advance))
    pairs = pair_figure(before, after, spec.seeds, str(one), width=width)
    files = [*write_figure(out / "pairs", pairs), write_table(out / "effects", effects)]
    if ranking is not None:
        files += write_figure(out / "ranking", curve_figure(ranking, width=width))
        files.append(write_table(out / "ranking", ranking.table()))
    return files


def _text(
    generator: Generator,
    one: Intervention,
    measured: LatentSpec,
    title: str,
    effects: pd.DataFrame,
    ranking: Ranking | None,
    out: Path,
) -> str:
    """The answer for a reader: the curve of the ranking, and the effects, the largest first."""
    lines = [f"{generator.name}, {one}: {len(measured):,} samples, concepts: {title}"]
    if ranking is not None:
        lines += ["", f"units by how much of '{ranking.concept}' hangs on them:"]
        lines += _aligned(ranking.table(), ("units", "added"))
    for name, rows in effects.groupby("set", sort=False):
        rows = rows.sort_values("effect", key=abs, ascending=False, kind="stable")
        lines += ["", f"{name}:", *_aligned(rows, ("concept",))]
    return "\n".join([*lines, "", f"pictures and tables in {out}"])


def _aligned(rows: pd.DataFrame, names: tuple[str, ...]) -> list[str]:
    """Rows of a table of effects, called by the columns `names`; shares in per cent."""
    header = [*names, "before", "after", "effect", "95 % interval"]
    cells = [
        [
            *(str(row[name]) for name in names),
            f"{row['before']:.1%}",
            f"{row['after']:.1%}",
            f"{row['effect']:+.2%}",
            f"{row['low']:+.2%} to {row['high']:+.2%}",
        ]
        for row in rows.to_dict("records")
    ]
    return table([header, *cells])
