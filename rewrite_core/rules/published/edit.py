"""A whole edit as the published code makes it, from a request to a weight."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rewrite_core.generators import Generator
from rewrite_core.rules.goal import Goal
from rewrite_core.rules.published.context import (
    published_directions,
    published_second_moment,
    published_units,
)
from rewrite_core.rules.published.goal import published_erase, published_paste
from rewrite_core.rules.published.layer import as_published
from rewrite_core.rules.published.settings import PublishedSettings
from rewrite_core.rules.published.solve import PublishedSolution, Watch, published_solve
from rewrite_core.rules.request import EditRequest

__all__ = ["PublishedEdit", "only_context", "published_edit"]


@dataclass(frozen=True, eq=False)
class PublishedEdit:
    """The directions [R, C] and the goal of an edit, what the loop made of them, and the generator with it."""

    directions: Tensor
    goal: Goal
    solution: PublishedSolution
    generator: Generator


def published_edit(
    generator: Generator,
    request: EditRequest,
    settings: PublishedSettings | None = None,
    *,
    second_moment: Tensor | None = None,
    directions: Tensor | None = None,
    watch: Watch | None = None,
) -> PublishedEdit:
    """Make `request` on the pristine `generator`, with the published noise.

    Args:
        generator: what to rewrite; the layer is the request's, or the generator's default.
        request: regions, layer, rank, method, operation and erased units; its other settings are not looked at.
        settings: the loop and the variants.
        second_moment: C [C, C], if at hand; over the first 1,000 pictures otherwise.
        directions: D [R, C], if at hand; those of the context otherwise.
        watch: see `published_solve`.
    """
    settings, generator = settings or PublishedSettings(), as_published(generator)
    layer, split = request.layer or generator.default_layer, settings.split
    if second_moment is None:
        second_moment = published_second_moment(generator, layer, split=split)
    if directions is None:
        ranked = request.direction.method == "gandissect"
        units = published_units(generator, layer, split=split) if ranked else None
        directions = published_directions(generator, layer, request, second_moment, units=units, split=split)
    if request.operation == "erase":
        goal = published_erase(generator, layer, request, second_moment, split)
    else:
        goal = published_paste(generator, layer, request, settings)
    solution = published_solve(generator, goal, directions, settings, watch)
    return PublishedEdit(directions, goal, solution, generator.with_weights({layer: solution.weight}))


def only_context(request: EditRequest, index: int) -> EditRequest:
    """The request with one of its contexts: what the published ``single_key`` chooses."""
    return request.model_copy(update={"key": (request.key[index],)})
