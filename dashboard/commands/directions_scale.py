"""`palimpsest directions scale`: what a layer draws for a direction, seen by drawing more of it, less, or none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.directions_opening import described, given, statistics_of
from dashboard.commands.opening import under
from dashboard.commands.output import Output, make_folder, require_drawable, write_figure, write_table
from dashboard.commands.table import table
from dashboard.ranges import format_ranges

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor

    from dissect.figures import Width
    from dissect.scaled import ScaledPictures
    from rewrite_core import Rule
    from rewrite_core.directions import Direction
    from rewrite_core.generators import Generator
    from rewrite_core.generators.latents import Scheme
    from rewrite_core.pictures import Picture

__all__ = ["scale"]

ALPHAS = "-2,-1,0,1,2"
MOST = 16
"""Scales in one figure, at most."""
CHANNELS = 8
"""Output channels that are printed."""
ZERO = "published zero"


def _alphas(_context: click.Context, _option: click.Parameter, text: str) -> tuple[float, ...]:
    """``-2,-1,0,1,2``: each once."""
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.replace(";", ",").split(",")))
    except ValueError:
        found = ()
    if not 1 <= len(found) <= MOST or not all(map(math.isfinite, found)):
        raise click.BadParameter(f"numbers such as {ALPHAS}, at most {MOST}")
    return found


@click.command(
    epilog=options.example(
        "palimpsest directions scale eyes --alpha -1,0,2 --seeds 1000-1005 --out scaled.png",
        "palimpsest directions scale eyes --alpha 0 --save-rule no-eyes.safetensors",
    )
)
@click.argument("file", metavar="FILE|CONTEXT")
@options.model
@click.option(
    "--alpha",
    "alphas",
    metavar="NUMBERS",
    default=ALPHAS,
    show_default=True,
    callback=_alphas,
    help="By how much what it matches is scaled: 1 leaves it, 0 removes it.",
)
@click.option(
    "--zero", is_flag=True, help="Show the published way to remove a direction too, which leaves its pattern."
)
@options.seeds("0-7")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.rules
@options.place("--save-rule", "Rule file to write (.safetensors), of a single --alpha.")
@options.out(
    "--out", "Figure of the pictures and of where they change, or a folder with tables too.", folder=True
)
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
def scale(
    file: str,
    model: str | None,
    alphas: tuple[float, ...],
    zero: bool,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    rules: tuple[Path, ...],
    save_rule: Path | None,
    out: Output | None,
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Scale what a direction matches, and see what becomes of the pictures.

    The answer says how much pictures change where it matches and elsewhere, how much of its pattern is left, and to
    which output channels the layer writes for it.
    """
    from dissect.scaled import scaled
    from rewrite_core import Rule
    from rewrite_core.generators import LatentSpec
    from rewrite_core.rules.scaling import output_channels, written

    if save_rule is not None and len(alphas) > 1:
        raise click.UsageError("--save-rule keeps one rule: give one --alpha.")
    require_drawable(len(seeds) * (len(alphas) + zero + 1), "Name fewer pictures, or fewer scales.")
    loaded = [Rule.load(path) for path in rules]
    asked = given(file, model, force, quiet)
    generator, direction = under(asked.generator, loaded, force), asked.direction
    moment = statistics_of(generator, direction.layer, quiet).second_moment
    made = _rules(generator, direction, moment, alphas, zero)
    channels = output_channels(written(generator, direction, moment))
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    with progress("Drawing", quiet) as advance:
        pictures = scaled(generator, spec, direction.layer)
        after: dict[str, Picture] = {}
        for done, (alpha, rule) in enumerate(made.items()):
            after[alpha] = pictures.drawn(rule)
            if advance:
                advance(done + 1, len(made))
    effects = _effects(generator, direction, moment, made, pictures, after)
    files = []
    if save_rule is not None:
        next(iter(made.values())).save(save_rule)
        files.append(str(save_rule))
    if out is not None:
        files += _drawn(out, direction, pictures, after, effects, channels, width)
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "direction": described(direction),
        "seeds": format_ranges(seeds),
        "truncation": truncation,
        "cutoff": cutoff,
        "class": label,
        "scheme": scheme,
        "rules": [rule.name for rule in loaded],
        "effects": effects.to_dict("records"),
        "channels": channels.groupby("direction").head(CHANNELS).to_dict("records"),
        "files": files,
    }
    report(answer, _text(answer), as_json)


def _rules(
    generator: Generator, direction: Direction, moment: Tensor, alphas: Sequence[float], zero: bool
) -> dict[str, Rule]:
    """What each scale is called → its rule."""
    from rewrite_core.rules.scaling import published_zero_rule, scaling_rule

    made = {f"{alpha:g}": scaling_rule(generator, direction, moment, alpha) for alpha in alphas}
    return {**made, **({ZERO: published_zero_rule(generator, direction)} if zero else {})}


def _effects(
    generator: Generator,
    direction: Direction,
    moment: Tensor,
    made: Mapping[str, Rule],
    pictures: ScaledPictures,
    after: Mapping[str, Picture],
) -> pd.DataFrame:
    """A row for each scale: the change inside and outside of what the direction matches, and what is left of it."""
    import pandas as pd

    from dissect.scaled import changes
    from rewrite_core.rules.scaling import left_over

    rows = []
    weight = generator.pristine.weight(direction.layer)
    for alpha, rule in made.items():
        found = pictures.inside(direction.vectors[0], after[alpha])
        changed = changes(pictures.spec.seeds, pictures.before, after[alpha])
        rows.append(
            {
                "alpha": alpha,
                "change": float(changed["change"].mean()),
                "inside": found.inside,
                "outside": found.outside,
                "left_over": left_over(weight, rule, moment, direction),
            }
        )
    return pd.DataFrame(rows)


def _drawn(
    out: Output,
    direction: Direction,
    pictures: ScaledPictures,
    after: Mapping[str, Picture],
    effects: pd.DataFrame,
    channels: pd.DataFrame,
    width: Width,
) -> list[str]:
    """One figure, or a folder of figures and tables; the names of the files."""
    import pandas as pd

    from dissect.direction_plots import channels_figure
    from dissect.figures import save_figure
    from dissect.scaled import changes

    title = direction.name or direction.method
    figures = _figures(pictures, after, title, width)
    if out.figure:
        ending = out.path.suffix
        paths = [
            out.path,
            *(out.path.with_name(f"{out.path.stem}-{name}{ending}") for name in list(figures)[1:]),
        ]
        for path, figure in zip(paths, figures.values(), strict=True):
            save_figure(figure, path)
        return list(map(str, paths))
    folder, seeds = make_folder(out.path), pictures.spec.seeds
    each = [changes(seeds, pictures.before, drawn).assign(alpha=alpha) for alpha, drawn in after.items()]
    return [
        *(path for name, figure in figures.items() for path in write_figure(folder / name, figure)),
        *write_figure(folder / "channels", channels_figure(channels, title)),
        write_table(folder / "effects", effects),
        write_table(folder / "changes", pd.concat(each, ignore_index=True)),
        write_table(folder / "channels", channels),
    ]


def _figures(
    pictures: ScaledPictures, after: Mapping[str, Picture], title: str, width: Width
) -> dict[str, Figure]:
    """Name → figure: the scales, and the published zero if it was asked for."""
    from dissect.direction_figures import scaled_figure
    from dissect.figures import pair_figure
    from dissect.scaled import effect_map

    seeds, before = pictures.spec.seeds, pictures.before
    scales = {float(alpha): drawn for alpha, drawn in after.items() if alpha != ZERO}
    effects = {alpha: effect_map(before, drawn) for alpha, drawn in scales.items() if alpha != 1}
    shown = dict(sorted({**scales, 1.0: before}.items()))
    figures = {"scaled": scaled_figure(shown, seeds, effects, title, width=width)}
    if ZERO in after:
        name = f"{title}, {ZERO}"
        figures["published-zero"] = pair_figure(before, after[ZERO], seeds, name, width=width)
    return figures


def _text(answer: Mapping[str, Any]) -> str:
    direction = answer["direction"]
    head = f"{direction['name'] or direction['origin']}, {direction['layer']} of {answer['model']}"
    effects = [["alpha", "change", "where it matches", "elsewhere", "of the pattern left"]] + [
        [
            row["alpha"],
            f"{row['change']:.2%}",
            f"{row['inside']:.2%}",
            f"{row['outside']:.2%}",
            f"{row['left_over']:.0%}",
        ]
        for row in answer["effects"]
    ]
    channels = [["writes to channel", "share"]] + [
        [str(row["channel"]), f"{row['share']:.1%}"] for row in answer["channels"] if row["direction"] == 0
    ]
    files = [f"written to {', '.join(answer['files'])}"] if answer["files"] else []
    return "\n".join([head, *table(effects), "", *table(channels), *files])
