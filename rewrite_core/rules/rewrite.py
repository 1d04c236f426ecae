"""From a request to a rule: context → directions, copies and pastes → goals, both → Λ.

generator = open_generator("anime64-dcgan")
request = EditRequest.load("edit.json")
edit = rewrite(generator, request)
edited = generator.with_rules(edit.rule)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rewrite_core.directions import Direction, context_direction
from rewrite_core.errors import ModelMismatch, RequestError
from rewrite_core.generators import Generator, Progress
from rewrite_core.generators.own import key_of
from rewrite_core.memory import observe, outside, second_moment_of
from rewrite_core.rules.goal import Goal, copy_paste, erase
from rewrite_core.rules.painted import painted_keys, protected_moment
from rewrite_core.rules.patch import Patch
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rule import Provenance, Rule, versions
from rewrite_core.rules.scaling import removed
from rewrite_core.rules.settings import ModelRef
from rewrite_core.rules.solve import Solved, solve
from rewrite_core.statistics import LayerStatistics, Store, layer_statistics

__all__ = ["Edit", "check_model", "completed", "direction_of", "goals_of", "rewrite"]


@dataclass(frozen=True, eq=False)
class Edit:
    """A rule, and what is true of it."""

    rule: Rule
    direction: Direction
    solved: Solved


def rewrite(
    generator: Generator,
    request: EditRequest,
    *,
    statistics: LayerStatistics | None = None,
    store: Store | None = None,
    name: str = "",
    beneath: Sequence[Rule] = (),
    progress: Progress | None = None,
) -> Edit:
    """Solve `request` on `generator`, on its pristine network whatever rules it is viewed through.

    Args:
        generator: what to rewrite.
        request: the painted regions and settings; a missing layer is the generator's default one.
        store: where statistics are kept, if not in the default store.
        statistics: of the request's layer, if at hand; gathered through `store` otherwise.
        name: what to call the rule.
        beneath: the rules that are on while this one is made, for its provenance.
        progress: called while statistics are gathered and while the solver runs; `Cancelled` from it ends the
            former, while the latter returns its best Λ so far.

    Raises:
        RequestError: if the request is incomplete, or its masks cover nothing at this layer.
        LayerError: if the generator has no such layer.
    """
    request = completed(request, generator)
    generator = generator.pristine
    layer = str(request.layer)
    if statistics is None:
        statistics = layer_statistics(generator, layer, store=store, progress=progress)
    elif (statistics.layer, statistics.fingerprint) != (layer, generator.fingerprint):
        raise RequestError(
            found=f"statistics of {statistics.layer} in the generator {statistics.fingerprint[:12]}",
            expected=f"those of {layer} in {generator.name} ({generator.fingerprint[:12]})",
            remedy="Gather them with layer_statistics, or leave them out.",
        )
    direction = direction_of(generator, request, statistics)
    vectors = direction.vectors.to(generator.device, torch.float32)
    if request.operation == "remove":
        solved = removed(generator, direction, statistics, request.alpha)
    else:
        goals = goals_of(generator, request, statistics)
        solved = solve(generator, goals, vectors, statistics, request.solver, progress)
    provenance = Provenance(
        model=generator.name,
        fingerprint=generator.fingerprint,
        layer=layer,
        beneath=tuple(rule.digest for rule in beneath),
        name=name or f"{request.operation} at {layer}",
        request=request.to_dict(),
        result=solved.summary(),
        made_with=versions(),
    )
    return Edit(Rule(vectors, solved.delta, provenance), direction, solved)


def check_model(request: EditRequest, generator: Generator) -> None:
    """Check that `request` was made for `generator`, if it says for which, and what it brings along can be used on it.

    Raises:
        ModelMismatch: the edit, or its given directions, are for another one; with both fingerprints.
        RequestError: if a picture's latents are not such as the generator takes.
        LayerError: if the given directions are of a layer that it has not, or has in another width.
    """
    made_for, have = request.model, generator.pristine
    if made_for and made_for.fingerprint != have.fingerprint:
        raise ModelMismatch(
            found=f"an edit made for {made_for.name} ({made_for.fingerprint[:12]})",
            expected=f"one for {have.name} ({have.fingerprint[:12]})",
            remedy="Open the generator it was made for, then the edit again.",
        )
    for picture in request.own:
        picture.latents(have)
    if request.given:
        request.given.check(have)


def completed(request: EditRequest, generator: Generator) -> EditRequest:
    """`request` with the generator's name, and a layer if it has none, once it is known to be complete.

    The layer is that of the given directions; without any, the generator's default one.

    Raises:
        RequestError, LayerError, ModelMismatch: as `EditRequest.check` and `check_model`; or pixels are to be pasted at
            a layer that does not draw the picture itself.
    """
    model = ModelRef(name=generator.pristine.name, fingerprint=generator.pristine.fingerprint)
    layer = request.layer or (request.given.layer if request.given else generator.default_layer)
    filled = request.model_copy(update={"layer": layer, "model": model})
    check_model(request, generator)
    filled.check(generator.layers)
    if filled.operation == "paste" and any(isinstance(pair.object, Patch) for pair in filled.pairs):
        generator.require_paints(layer)
    return filled


def direction_of(generator: Generator, request: EditRequest, statistics: LayerStatistics) -> Direction:
    """The directions given to the request; else those of its context, steered by contrast and protected regions.

    Raises:
        ModelMismatch, LayerError: those given are for another generator or layer.
        RequestError: those given, or those of the context, are fewer than the rank; or there is no context.
    """
    layer = statistics.layer
    given = request.given_at(layer)
    if given is not None:
        given.check(generator)
        return given
    request.painted("key")
    keys, areas = painted_keys(generator, layer, request, request.key)
    units = None
    if request.direction.method == "gandissect":
        units = statistics.sample.keys.movedim(1, -1).flatten(0, 2)  # [M·h·w, C]
    return context_direction(
        observe(keys, areas),
        statistics.second_moment,
        request.rank,
        request.direction,
        layer=layer,
        rest=second_moment_of(observe(keys, outside(areas))) if request.direction.contrast else None,
        protected=protected_moment(generator, layer, request),
        unit_sample=units,
        provenance=_context(request, layer),
        model=generator.pristine.name,
        fingerprint=generator.pristine.fingerprint,
    )


def _context(request: EditRequest, layer: str) -> dict[str, Any]:
    """What a direction of the request's context is computed from: the request without what is copied and pasted."""
    pasted = {"object": None, "paste": None, "examples": (), "scale": 1.0, "flip": "none"}
    alone = request.model_copy(update={**pasted, "query": None, "layer": layer})
    return {
        "context": [key_of(painted.image) for painted in request.key],
        "request": alone.to_dict(),
        "made_with": versions(),
    }


def goals_of(generator: Generator, request: EditRequest, statistics: LayerStatistics) -> tuple[Goal, ...]:
    """The goals of the request's operation: one for each copy–paste pair, one for an erasure; none to remove.

    Raises:
        RequestError, LayerError: as `copy_paste` and `erase`.
    """
    layer = statistics.layer
    if request.operation == "remove":
        return ()
    if request.operation == "erase":
        return (erase(generator, layer, request, statistics.second_moment),)
    return tuple(copy_paste(generator, layer, request, example) for example in request.pairs)
