"""Trying an edit and searching its context, as jobs of one visitor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from dashboard.progress import jobs
from dashboard.session import Session, service, statistics_of
from rewrite_core.directions import matches
from rewrite_core.directions.matches import Matches
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator
from rewrite_core.jobs import Job, Progress
from rewrite_core.rules.examples import example_edits
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import Edit, completed, direction_of, rewrite
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.stack import Entry, RuleStack

__all__ = [
    "SEARCHED",
    "keep_rules",
    "previewed",
    "ready",
    "resolve",
    "search",
    "show_edit",
    "solved",
    "try_edit",
    "warm_up",
]

SEARCHED = 1000
"""Pictures that a search looks through."""
MOMENT = 0.8
"""Seconds that a Try waits for what it can show at once."""
AT_ONCE, PREVIEW = 3, 2
"""Up to this rank a solve takes no longer than a preview of it; the iterations of a preview."""
WITHOUT_RULES, PAIRS = ("Paint", "Matches"), "Before | after"
"""Views of the page that show nothing of a trial, and the one that is shown instead."""


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
    except PalimpsestError as problem:
        return problem.remedy
    return ""


def try_edit(session: Session) -> None:
    """Hand the draft to the solver, in place of an older one that is still running.

    It waits a moment: what is solved by then is the trial before the page is drawn. Where a solve takes longer, a
    preview of few iterations is, until the page has followed `session.solving` to its end.

    Raises:
        RequestError: if it is incomplete, or the visitor has too many jobs under way.
    """
    if session.solving:
        session.solving.cancel()
    request = completed(session.request(), session.generator)
    generator, visitor = session.generator, session.visitor
    title, beneath = session.title, session.stack.active
    session.tried = request
    previews: SimpleQueue[Edit | None] = SimpleQueue()

    def made(asked: EditRequest, progress: Progress) -> Edit:
        statistics = statistics_of(generator, str(request.layer), progress, visitor=visitor)
        return rewrite(
            generator, asked, statistics=statistics, name=title, beneath=beneath, progress=progress
        )

    def work(progress: Progress) -> Edit:
        try:
            if request.rank > AT_ONCE and request.solver.iterations > PREVIEW:
                previews.put(made(_briefly(request), progress))
            return made(request, progress)
        finally:
            previews.put(None)  # there is nothing more to wait for

    session.solving = jobs().submit(visitor, "Solving", work)
    _wait(session, session.solving, previews)


def _briefly(request: EditRequest) -> EditRequest:
    """The same, by few iterations."""
    return request.model_copy(update={"solver": request.solver.model_copy(update={"iterations": PREVIEW})})


def _wait(session: Session, job: Job[Edit], previews: SimpleQueue[Edit | None]) -> None:
    """Show what there is within a moment: the solution, else a preview of it."""
    with suppress(Empty):
        preview = previews.get(timeout=MOMENT)
        if preview is not None:
            solved(session, preview)
            return
        job.wait(MOMENT)
        if job.status == "done" and job.result is not None:
            job.take(session.visitor)
            solved(session, job.result)
            session.solving = job.result = None


def solved(session: Session, edit: Edit) -> None:
    """Take over a solution, and show it: pairs before and after come in place of a view without rules."""
    session.trial, session.dropped = edit, None
    if session.view in WITHOUT_RULES:
        session.view = PAIRS


def previewed(session: Session) -> bool:
    """Whether the trial is a preview of what is being solved."""
    if not (session.solving and session.trial):
        return False
    asked = session.trial.rule.provenance.request or {}
    return bool(asked.get("palimpsest") != (session.tried or session.request()).to_dict()["palimpsest"])


def resolve(session: Session) -> None:
    """Solve again if the draft has changed since it was tried."""
    if session.tried is not None and session.tried != session.request() and not ready(session):
        try_edit(session)


def show_edit(session: Session, edit: Edit, layer: str, rank: int) -> None:
    """Take over an edit that was solved elsewhere, as the trial: the draft's at this layer and rank."""
    session.layer = layer
    session.change(rank=rank)
    _settle(session, edit)
    session.tried = session.request()


def keep_rules(session: Session, rules: Sequence[Rule]) -> None:
    """Put rules that were made elsewhere on the stack, in one step, in place of the trial, which Redo brings back."""
    for rule in rules:
        rule.check(session.generator)
    stack, trial = session.stack, session.trial
    session.stack = RuleStack((*stack.entries, *map(Entry, rules)), (*stack.past, stack.entries))
    _settle(session, None)
    session.tried, session.dropped = None, trial


def _settle(session: Session, trial: Edit | None) -> None:
    """Show this trial and no other: whatever is still being solved would overrule the visitor."""
    if session.solving:
        session.solving.cancel()
    session.trial, session.dropped, session.solving = trial, None, None


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
