"""Statistics for many visitors at once: from disk when they are there, else computed in the background, once.

    service = Service(default_store())
    answer = service.ask(generator, spec, {"l08": [SecondMoment()]}, visitor="ann")   # the answers, or a job
    moment = service.fetch(generator, "l08", spec, SecondMoment(), visitor="ann")     # the same, waiting for it

* Each device has one line of requests and one thread that works on it.
* Visitors take turns: however many requests one has waiting, the others' next ones come in between.
* Identical requests share one job. It goes on until the last visitor who wants it has left.
* Requests that wait for the same samples are joined into one pass; one that arrives while a pass runs joins the next.
  Each keeps its own answers, and one that is withdrawn leaves the pass. If a pass fails, its requests are tried one by
  one, so that nobody suffers from what another asked for.

Whatever was finished of a job that was cancelled or killed is on disk (`rewrite_core.statistics.gather`): asking again
goes on from there. No lock is held while anything is read or computed.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from rewrite_core.errors import Cancelled
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.jobs import Job, Progress, Register
from rewrite_core.statistics.gather import gather
from rewrite_core.statistics.key import key_of, name_of, samples_of
from rewrite_core.statistics.statistic import Statistic
from rewrite_core.statistics.store import Store
from rewrite_core.statistics.sweep import Answers, Wanted

__all__ = ["Service"]

S = TypeVar("S", bound=Statistic)

LOOK = 0.1
"""Seconds between two looks of a waiting thread at the job it waits for."""


class Service:
    """The one place of a process where statistics are asked for; shared by threads."""

    def __init__(
        self, store: Store, *, unfinished: int = 8, kept: int = 64, kept_seconds: float = 1800
    ) -> None:
        """`unfinished` is how many jobs a visitor may have under way, `kept` how many ended ones are remembered."""
        self.store = store
        self._register = Register(unfinished=unfinished, kept=kept, kept_seconds=kept_seconds)
        self._lines: dict[str, _Line] = {}
        self._changed = threading.Condition()

    def ask(
        self, generator: Generator, spec: LatentSpec, wanted: Wanted, *, visitor: str, label: str = ""
    ) -> Answers | Job[Answers]:
        """The statistics `wanted` of each layer if all of them are stored, else the job that brings them.

        Every owner of a shared job sees the label that the first one gave it.

        Raises:
            RequestError: if they are not stored and the visitor has too many jobs under way.
        """
        request = _Request.of(generator, spec, wanted, Job(label or _described(spec, wanted), (visitor,)))
        answers = request.stored(self.store)
        return self._job(request, visitor) if answers is None else answers

    def fetch(
        self,
        generator: Generator,
        layer: str,
        spec: LatentSpec,
        empty: S,
        *,
        visitor: str,
        progress: Progress | None = None,
    ) -> S:
        """The one statistic `empty` of `layer`, waited for in the calling thread.

        Raises:
            RequestError: if it is not stored and the visitor has too many jobs under way.
            PalimpsestError: what the job failed with.
            Cancelled: from `progress`, or because the visitor left the job elsewhere.
        """
        answer = self.ask(generator, spec, {layer: [empty]}, visitor=visitor)
        answers = _awaited(answer, visitor, progress) if isinstance(answer, Job) else answer
        (found,) = answers[layer]
        assert isinstance(found, type(empty))
        return found

    def jobs(self) -> list[Job[Answers]]:
        """Everybody's jobs, newest first; those that ended are remembered for a while, without their answers."""
        return self._register.all()

    # Asking.

    def _job(self, request: _Request, visitor: str) -> Job[Answers]:
        """The job of an identical request that is under way, or else this one's own."""
        with self._changed:
            line = self._line(request.device)
            for job in line.same(request):
                if visitor not in job.owners:
                    self._register.admit(visitor)
                if job.join(visitor):
                    line.expect(visitor)
                    return job
            self._register.add(request.job)
            line.add(request, visitor)
            self._changed.notify_all()
        return request.job

    def _line(self, device: str) -> _Line:
        """The line of `device`, with a thread that works on it: a daemon, which keeps no stopped server alive."""
        if device not in self._lines:
            self._lines[device] = line = _Line()
            name = f"palimpsest-statistics-{device}"
            threading.Thread(target=self._serve, args=(line,), name=name, daemon=True).start()
        return self._lines[device]

    # Answering.

    def _serve(self, line: _Line) -> None:
        while True:
            with self._changed:
                while not (requests := line.take()):
                    self._changed.wait()
            self._answer([request for request in requests if request.job.start()])
            del requests  # an idle thread holds no generator

    def _answer(self, requests: list[_Request]) -> None:
        """Answer requests for the same samples in one pass; who withdraws leaves it, and the others go on."""
        while requests := self._still_wanted(requests):
            try:
                found = self._pass(requests)
            except Cancelled:
                continue
            except Exception as problem:
                if len(requests) > 1:
                    self._answer_alone(requests)
                else:
                    requests[0].job.fail(problem)
                    self._ended(requests[0].job)
                return
            for request in requests:
                request.job.finish(request.answers(found))
                self._ended(request.job)
            return

    def _answer_alone(self, requests: list[_Request]) -> None:
        """What one of them asks for stopped the pass: the others are not to suffer from it."""
        for request in requests:
            request.job.say("the pass failed: each of its requests is tried alone")
        for request in requests:
            self._answer([request])

    def _pass(self, requests: list[_Request]) -> Mapping[str, Statistic]:
        """The statistics that any of `requests` wants, by name."""
        wanted: dict[str, dict[str, Statistic]] = {}
        for request in requests:
            for layer, names in request.names:
                wanted.setdefault(layer, {}).update(zip(names, request.wanted[layer], strict=True))

        def progress(done: int, total: int) -> None:
            for request in requests:
                request.job.advance(done, total)

        def say(text: str) -> None:
            for request in requests:
                request.job.say(text)

        if len(requests) > 1:
            say(f"{len(requests)} requests in one pass")
        found = gather(
            requests[0].generator,
            requests[0].spec,
            {layer: list(empty.values()) for layer, empty in wanted.items()},
            store=self.store,
            progress=progress,
            say=say,
        )
        return {
            name: statistic
            for layer, empty in wanted.items()
            for name, statistic in zip(empty, found[layer], strict=True)
        }

    def _still_wanted(self, requests: list[_Request]) -> list[_Request]:
        for request in requests:
            if request.job.cancelling:
                request.job.say("cancelled; what was finished is kept")
                request.job.stop()
                self._ended(request.job)
        return [request for request in requests if not request.job.ended]

    def _ended(self, job: Job[Answers]) -> None:
        """Remember that it ended, and how, but not what it brought: that is on disk, and whoever asked has the job."""
        remembered = copy.copy(job)
        remembered.result = remembered.problem = None
        self._register.replace(remembered)


@dataclass(frozen=True, eq=False)
class _Request:
    """Statistics of some samples, and the job that brings them.

    Attributes:
        samples: the name of what one pass draws.
        names: layer → the names of its statistics; they say all that the answers depend on.
    """

    generator: Generator
    spec: LatentSpec
    wanted: Wanted
    job: Job[Answers]
    samples: str
    names: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, generator: Generator, spec: LatentSpec, wanted: Wanted, job: Job[Answers]) -> _Request:
        """Name everything it depends on."""
        names = tuple(
            (layer, tuple(name_of(key_of(generator, layer, spec, empty)) for empty in statistics))
            for layer, statistics in wanted.items()
        )
        return cls(generator, spec, wanted, job, name_of(samples_of(generator, spec)), names)

    @property
    def device(self) -> str:
        """Where it is computed."""
        return str(self.generator.device)

    def stored(self, store: Store) -> Answers | None:
        """The answers, if all of them are on disk."""
        answers: Answers = {}
        for layer, statistics in self.wanted.items():
            answers[layer] = []
            for empty in statistics:
                found = store.get(key_of(self.generator, layer, self.spec, empty), empty)
                if found is None:
                    return None
                answers[layer].append(found)
        return answers

    def answers(self, found: Mapping[str, Statistic]) -> Answers:
        """Its own part of what a pass found."""
        return {layer: [found[name] for name in names] for layer, names in self.names}


@dataclass(eq=False)
class _Line:
    """The requests of one device, and whose turn it is."""

    waiting: list[_Request] = field(default_factory=list)
    running: list[_Request] = field(default_factory=list)
    turns: deque[str] = field(default_factory=deque)

    def same(self, request: _Request) -> list[Job[Answers]]:
        """Jobs of requests that want the very same."""
        return [other.job for other in (*self.waiting, *self.running) if other.names == request.names]

    def add(self, request: _Request, visitor: str) -> None:
        """Let it wait."""
        self.waiting.append(request)
        self.expect(visitor)

    def expect(self, visitor: str) -> None:
        """The visitor waits for something, and gets a turn after everybody who is waiting already."""
        if visitor not in self.turns:
            self.turns.append(visitor)

    def take(self) -> list[_Request]:
        """The next visitor's oldest request, and all others that wait for the same samples; empty if none waits."""
        self.running = []
        self.waiting = [request for request in self.waiting if not request.job.ended]
        while self.turns:
            visitor = self.turns.popleft()
            theirs = [request for request in self.waiting if visitor in request.job.owners]
            if not theirs:
                continue
            if len(theirs) > 1:
                self.turns.append(visitor)
            self.running = [request for request in self.waiting if request.samples == theirs[0].samples]
            self.waiting = [request for request in self.waiting if request.samples != theirs[0].samples]
            break
        return self.running


def _awaited(job: Job[Answers], visitor: str, progress: Progress | None) -> Answers:
    """The result of a job that `visitor` owns; one claim to it is given up if `progress` raises."""
    try:
        while not job.wait(LOOK):
            if job.cancelling or visitor not in job.owners:
                raise Cancelled
            if progress:
                progress(job.done, job.total)
    except BaseException:
        job.leave(visitor)
        raise
    if job.problem:
        raise job.problem
    if job.result is None:
        raise Cancelled
    return job.result


def _described(spec: LatentSpec, wanted: Wanted) -> str:
    """What a request asks for, in a few words: ``Second moment of l08 · 1,000 samples``."""
    kinds = dict.fromkeys(empty.kind.replace("_", " ") for empties in wanted.values() for empty in empties)
    layers = ", ".join(wanted) if len(wanted) <= 3 else f"{len(wanted)} layers"
    return f"{', '.join(kinds).capitalize()} of {layers} · {len(spec):,} samples"
