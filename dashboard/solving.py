"""Trying an edit and searching its context, as jobs of one visitor."""

from __future__ import annotations

from contextlib import suppress

from dashboard.progress import jobs
from dashboard.session import Session, service, statistics_of
from rewrite_core.directions import matches
from rewrite_core.directions.matches import Matches
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.jobs import Progress
from rewrite_core.rules.examples import example_edits
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import Edit, completed, direction_of, rewrite

__all__ = ["SEARCHED", "ready", "resolve", "search", "try_edit", "warm_up"]

SEARCHED = 1000
"""Pictures that a search looks through."""


def warm_up(generator: Generator) -> None:
    """Solve an example once, so that no visitor's first Try pays for loading code and statistics."""
    for path in list(example_edits(generator.name).values())[:1]:
        with suppress(PalimpsestError):  # the visitor's first Try says so
            request = EditRequest.load(path)
            rewrite(generator, request, statistics=statistics_of(generator, str(request.layer)))


def ready(session: Session) -> str:
    """Why the draft cannot be tried yet, or nothing."""
    try:
        completed(session.request(), session.generator)
    except RequestError as problem:
        return problem.remedy
    return ""


def try_edit(session: Session) -> None:
    """Hand the draft to the solver, in place of an older one that is still running.

    Raises:
        RequestError: if it is incomplete, or the visitor has too many jobs under way.
    """
    if session.solving:
        session.solving.cancel()
    request = completed(session.request(), session.generator)
    generator, visitor = session.generator, session.visitor
    title, beneath = session.title, session.stack.active
    session.tried = request

    def work(progress: Progress) -> Edit:
        statistics = statistics_of(generator, str(request.layer), progress, visitor=visitor)
        return rewrite(
            generator, request, statistics=statistics, name=title, beneath=beneath, progress=progress
        )

    session.solving = jobs().submit(visitor, "Solving", work)


def resolve(session: Session) -> None:
    """Solve again if the draft has changed since it was tried."""
    if session.tried is not None and session.tried != session.request() and not ready(session):
        try_edit(session)


def search(session: Session) -> None:
    """Look for the draft's context in many pictures.

    Raises:
        RequestError: if there is no context, and no direction in its place.
    """
    request, visitor = session.request(), session.visitor
    generator, layer = session.generator, session.layer
    if not request.given:
        request.painted("key")
    spec = request.latents.spec(range(SEARCHED))

    def work(progress: Progress) -> Matches:
        statistics = statistics_of(generator, layer, progress, visitor=visitor)
        direction = direction_of(generator, request, statistics)
        query, store = direction.vectors[0], service().store
        return matches.search(generator, layer, query, spec, store=store, progress=progress)

    if session.searching:
        session.searching.cancel()
    session.searching = jobs().submit(visitor, "Searching", work)
