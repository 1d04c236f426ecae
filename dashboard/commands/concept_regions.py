"""Contexts and protected regions by name on the command line: ``--context-concept eyes --protect-concept hair``.

    @concept_options
    def edit(…, regions: ConceptRegions, …):
        request = regions.added(request, generator, quiet)

What a concept finds is added to what the edit has painted, as regions like any others, and is saved with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress

if TYPE_CHECKING:
    from rewrite_core.generators import Generator
    from rewrite_core.rules.request import EditRequest

__all__ = ["ConceptRegions", "concept_options"]


@dataclass(frozen=True)
class ConceptRegions:
    """What is asked for by name.

    Attributes:
        context: concepts that the context is to cover.
        protect: concepts that must not change.
        concepts: the source that knows them, as `dissect.concepts.catalogue` opens it.
        pictures: how many pictures of each, at most.
    """

    context: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()
    concepts: str = "embedded"
    pictures: int = 16

    def added(self, request: EditRequest, generator: Generator, quiet: bool = False) -> EditRequest:
        """`request` with the regions found in the pictures of `generator`, numbered as the request numbers them.

        Raises:
            PalimpsestError: the source cannot be had, has no such concept, or no picture shows it.
        """
        from dissect.concept_context import SEARCHED, concept_regions
        from dissect.concepts.catalogue import open_concepts

        if not (self.context or self.protect):
            return request
        source = open_concepts(self.concepts, generator)
        spec = request.latents.spec(range(SEARCHED))
        found = {"key": request.key, "protect": request.protect}
        for part, concepts in (("key", self.context), ("protect", self.protect)):
            for concept in concepts:
                with progress(f"Looking for {concept}", quiet) as advance:
                    regions = concept_regions(
                        generator, source, concept, spec, count=self.pictures, progress=advance
                    )
                found[part] = (*found[part], *regions)
        return request.model_copy(update=found)


def concept_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name concepts, which the command gets as one `ConceptRegions`, ``regions``."""

    @wraps(command)
    def gathered(
        *args: Any,
        context_concept: tuple[str, ...],
        protect_concept: tuple[str, ...],
        concepts: str,
        concept_pictures: int,
        **others: Any,
    ) -> Any:
        regions = ConceptRegions(context_concept, protect_concept, concepts, concept_pictures)
        return command(*args, regions=regions, **others)

    decorated: Callable[..., Any] = gathered
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


_OPTIONS = (
    click.option(
        "--context-concept",
        metavar="NAME",
        multiple=True,
        help="Add to the context where this concept of --concepts is; may be repeated.",
    ),
    click.option(
        "--protect-concept",
        metavar="NAME",
        multiple=True,
        help="Protect where this concept is; may be repeated.",
    ),
    options.concepts(
        "Where they are told from: colours, faces, embedded, a file or folder, segmenter:FOLDER.",
        default="embedded",
    ),
    click.option(
        "--concept-pictures",
        type=click.IntRange(1, 256),
        default=16,
        show_default=True,
        help="Pictures of each concept: the first that show it.",
    ),
)
