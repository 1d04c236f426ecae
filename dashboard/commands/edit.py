"""`palimpsest edit`: from a request to a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.concept_regions import ConceptRegions, concept_options
from dashboard.commands.console import progress, report, warn
from dashboard.commands.directions_opening import load_direction
from dashboard.commands.edit_printing import draw_animation, draw_figure, film_path
from dashboard.commands.edit_workspace import replayed, told, workspace_at, write_rules
from dashboard.commands.opening import under
from dashboard.commands.output import Output, draw
from dashboard.commands.requests import SETTINGS, generator_for, load_edit, pixels, setting_options

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core import Edit, EditRequest, Generator, LatentSpec, Rule

__all__ = ["edit"]

FILMED = 8
"""Pictures of an animation."""


@click.command(
    epilog=options.example("palimpsest edit blue-eyes --rule blue-eyes.safetensors --pairs pairs.png")
)
@click.argument("edit", metavar="EDIT")
@options.model
@setting_options(*SETTINGS)
@click.option(
    "--direction",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Directions that take the context's place: the rule acts where they match.",
)
@click.option(
    "--colour", metavar="#RRGGBB", help="Paste this colour, at a layer that draws the picture itself."
)
@click.option(
    "--patch",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Paste the pixels of this PNG, at such a layer.",
)
@click.option("--name", default="", help="What to call the rule.  [default: as the file]")
@options.place("--rule", "Rule file to write (.safetensors).")
@options.place("--published", "The edit, in the published interface's format (.json).")
@options.out("--pairs", "Figure of pictures before and after, or a folder of them.", folder=True)
@options.out("--figure", "What was painted, over pictures before and after; its caption beside it as .txt.")
@click.option(
    "--animation",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=lambda _context, _option, path: film_path(path),
    help="The first 8 pictures while the strength grows from 0 to 1: .gif, or .mp4 through ffmpeg.",
)
@options.seeds("1000-1015")
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
@concept_options
def edit(
    edit: str,
    model: str | None,
    direction: Path | None,
    colour: str | None,
    patch: Path | None,
    regions: ConceptRegions,
    name: str,
    rule: Path | None,
    published: Path | None,
    pairs: Output | None,
    figure: Output | None,
    animation: Path | None,
    seeds: tuple[int, ...],
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Solve an edit for its rule.

    EDIT is a file saved by the app or by the published interface, or the name of an example. Its settings hold unless
    an option gives another. With --direction, only an erasure needs a context. --published warns of what that format
    cannot say.

    A file that holds everything (.palimpsest.json) is made again: its rules are solved anew and compared with those in
    it; --rule numbers them where there are several.
    """
    workspace = workspace_at(edit)
    if workspace is not None:
        own = {name: value for name, value in settings.items() if value is not None}
        by_name = regions.context or regions.protect
        if own or direction or colour or patch or by_name or name or published or force:
            raise click.UsageError(f"{Path(edit).name} is made again as it is: it takes no setting.")
        again = replayed(workspace, model, quiet)
        files = write_rules(again.rules, rule) if rule else []
        drawn = _Drawn(pairs, figure, animation, width, quiet)
        spec = workspace.draft.latents.spec(seeds)
        files += drawn.write(again.generator, again.rules, spec, lambda: again.request)
        report(
            {"model": again.generator.name, "rules": again.summary(), "files": files},
            told(again, files),
            as_json,
        )
        return
    request = load_edit(edit, settings)
    if direction:
        request = request.model_copy(update={"given": load_direction(direction)})
    if colour or patch:
        request = request.model_copy(update={"object": pixels(colour, patch)})
    generator, request = generator_for(request, model, force)
    request = regions.added(request, generator, quiet)
    solved = _solved(generator, request, name or Path(edit).stem, quiet)
    written = []
    if rule:
        solved.rule.save(rule)
        written.append(str(rule))
    if published:
        written.append(_publish(request, published))
    drawn = _Drawn(pairs, figure, animation, width, quiet)
    written += drawn.write(generator, [solved.rule], request.latents.spec(seeds), lambda: request)
    answer = {**_summary(solved), "rule": str(rule) if rule else None, "files": written}
    report(answer, _text(answer, pairs), as_json)


@dataclass(frozen=True)
class _Drawn:
    """What is to be drawn."""

    pairs: Output | None
    figure: Output | None
    animation: Path | None
    width: Width
    quiet: bool

    def write(
        self,
        generator: Generator,
        rules: Sequence[Rule],
        spec: LatentSpec,
        request: Callable[[], EditRequest],
    ) -> list[str]:
        """Draw all of it under `rules`, and name the files; `request` gives what was painted."""
        written = []
        if self.pairs:
            strips = {"before": generator, "after": under(generator, rules)}
            written += draw(self.pairs, strips, spec, self.width, self.quiet)
        if self.figure:
            written += draw_figure(self.figure, generator, request(), rules, spec, self.width, self.quiet)
        if self.animation:
            first = replace(spec, seeds=spec.seeds[:FILMED])
            written.append(draw_animation(self.animation, generator, rules, first, self.quiet))
        return written


def _publish(request: EditRequest, path: Path) -> str:
    """Write the edit in the published format, and warn of what is lost by that."""
    from rewrite_core.files import write_bytes

    file = request.to_published()
    if file.warning:
        warn(file.warning)
    write_bytes(path, file.to_json().encode())
    return str(path)


def _solved(generator: Generator, request: EditRequest, name: str, quiet: bool) -> Edit:
    from rewrite_core import layer_statistics, rewrite
    from rewrite_core.rules.rewrite import completed

    layer = str(completed(request, generator).layer)
    with progress("Gathering statistics", quiet) as advance:
        statistics = layer_statistics(generator, layer, progress=advance)
    with progress("Solving", quiet) as advance:
        return rewrite(generator, request, statistics=statistics, name=name, progress=advance)


def _summary(edit: Edit) -> dict[str, Any]:
    rule = edit.rule
    return {
        "name": rule.name,
        "model": rule.provenance.model,
        "fingerprint": rule.provenance.fingerprint,
        "layer": rule.layer,
        "rank": rule.rank,
        **edit.solved.summary(),
    }


def _text(answer: Mapping[str, Any], pairs: Output | None) -> str:
    return "\n".join(
        [
            f"{answer['name']}: layer {answer['layer']} of {answer['model']}, rank {answer['rank']}",
            f"  loss {answer['loss']:.3g} (was {answer['loss_before']:.3g}), change elsewhere "
            f"{answer['elsewhere']:.1%}, {answer['iterations']} iterations in {answer['seconds']:.2f} s",
            f"  rule in {answer['rule']}" if answer["rule"] else "  not saved: --rule FILE keeps the rule",
            *([f"  pairs in {pairs.path}"] if pairs else []),
        ]
    )
