"""Work that takes longer than a click: what a job is, and threads that run jobs in the order they came.

The convention of all long work here: it calls `progress(done, total)` every so often, and that call raises
`Cancelled` once nobody wants the work any more.

A job belongs to its owners, those who asked for it. Whoever loses interest leaves, and the job is cancelled when the
last one does. It outlives the page it was started from, and is remembered for a while after its end.

    job = JobManager().submit("ann", "Drawing", lambda progress: generator.sample(spec, progress))
    job.wait()
    job.status, job.result, job.lines

Gradient mode and the like are settings of a thread: the work sets its own.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, Literal, TypeVar

import torch

from rewrite_core.errors import Cancelled, PalimpsestError, RequestError

__all__ = ["Job", "JobManager", "Line", "Progress", "Register", "Status"]

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (done, total); raises `Cancelled` to stop the work."""
Status = Literal["waiting", "running", "done", "failed", "cancelled"]

LINES = 100
"""Lines of its log that a job keeps."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """One line of a job's log, written at `time` (seconds since 1970)."""

    time: float
    text: str


@dataclass(eq=False)
class Job(Generic[T]):
    """One piece of work and how far it is.

    Attributes:
        owners: who asked for it, once for each time they did.
        done: of `total` steps; a job may have several stages, each counted from its own start.
        submitted: in seconds of `time.monotonic`, like `started` and `finished`.
        error: one line to show, where it failed; `problem` is what was raised.
        cancelling: it is to stop at its next report of progress.
    """

    label: str
    owners: tuple[str, ...]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: Status = "waiting"
    done: int = 0
    total: int = 0
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None
    result: T | None = field(default=None, repr=False)
    error: str = ""
    problem: Exception | None = None
    cancelling: bool = False
    _log: deque[Line] = field(default_factory=lambda: deque(maxlen=LINES), repr=False)
    _stage: tuple[float, int] = field(
        default=(0.0, 0), repr=False
    )  # when this stage first reported, and what
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _taken: set[str] = field(default_factory=set, repr=False)

    # How far.

    @property
    def ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self._ended.is_set()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return 0.0 if self.started is None else (self.finished or time.monotonic()) - self.started

    @property
    def share(self) -> float:
        """How much of it, or of its present stage, is done: 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def remaining(self) -> float | None:
        """An estimate of the seconds left, once there is something to go by: what was there at first costs nothing."""
        since, at_first = self._stage
        if self.ended or self.done <= at_first:
            return None
        return (time.monotonic() - since) / (self.done - at_first) * max(self.total - self.done, 0)

    @property
    def lines(self) -> tuple[Line, ...]:
        """The log, oldest line first."""
        with self._lock:
            return tuple(self._log)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; whether it has ended."""
        return self._ended.wait(timeout)

    def take(self, taker: str = "") -> bool:
        """True for a taker's first call after the end, who is then to take over the result; False ever after."""
        with self._lock:
            first = self.ended and taker not in self._taken
            if first:
                self._taken.add(taker)
        return first

    # Who wants it.

    def join(self, owner: str) -> bool:
        """Also for `owner`; False if it is too late for that."""
        with self._lock:
            if self.ended or self.cancelling:
                return False
            self.owners = (*self.owners, owner)
            return True

    def leave(self, owner: str, *, altogether: bool = False) -> None:
        """Once less for `owner`, or not at all; it is cancelled, and stays the last owner's, when nobody is left."""
        with self._lock:
            rest = list(self.owners)
            while owner in rest:
                rest.remove(owner)
                if not altogether:
                    break
            if rest:
                self.owners = tuple(rest)
            else:
                self._cancel()

    def cancel(self) -> None:
        """Ask it to stop, whoever owns it: at once while it waits, else at its next report of progress."""
        with self._lock:
            self._cancel()

    # For whoever runs it.

    def run(self, work: Callable[[Progress], T]) -> None:
        """Do the work in the calling thread, unless cancelled before, and record how it ended."""
        if not self.start():
            return
        try:
            self.finish(work(self.advance))
        except Cancelled:
            self.stop()
        except Exception as problem:
            self.fail(problem)

    def start(self) -> bool:
        """It runs now; False if it was cancelled while it waited."""
        with self._lock:
            if not self.ended:
                self.started, self.status = time.monotonic(), "running"
            return not self.ended

    def advance(self, done: int, total: int) -> None:
        """Report progress.

        Raises:
            Cancelled: nobody wants it any more.
        """
        if total != self.total or done < self.done or not self._stage[0]:
            self._stage = (time.monotonic(), done)
        self.done, self.total = done, total
        if self.cancelling:
            raise Cancelled

    def say(self, text: str) -> None:
        """Add a line to the log."""
        with self._lock:
            self._log.append(Line(time.time(), text))

    def finish(self, result: T) -> None:
        """It is done."""
        self.result = result
        self._end("done")

    def stop(self) -> None:
        """It has been cancelled."""
        self._end("cancelled")

    def fail(self, problem: Exception) -> None:
        """It ends in an error; one that no visitor can act on goes to the server's log."""
        self.problem, self.error = problem, str(problem)
        if not isinstance(problem, PalimpsestError):
            log.error("job %r failed", self.label, exc_info=problem)
            self.error = f"{self.label} stopped on {type(problem).__name__}; the server's log says where."
        self.say(self.error)
        self._end("failed")

    def _cancel(self) -> None:
        self.cancelling = True
        if self.status == "waiting":
            self._end("cancelled")

    def _end(self, status: Status) -> None:
        self.finished, self.status = time.monotonic(), status
        self._ended.set()


class Register:
    """The jobs there are, newest first, and for a while those that ended; shared by threads."""

    def __init__(self, *, unfinished: int = 8, kept: int = 64, kept_seconds: float = 1800) -> None:
        """`unfinished` is how many jobs an owner may have under way, `kept` how many ended ones are held."""
        self._unfinished, self._kept, self._kept_seconds = unfinished, kept, kept_seconds
        self._jobs: dict[str, Job[Any]] = {}
        self._lock = threading.RLock()

    def add(self, job: Job[Any]) -> None:
        """Remember `job`.

        Raises:
            RequestError: if its owner has too many jobs under way.
        """
        with self._lock:
            self._forget()
            for owner in job.owners:
                self.admit(owner)
            self._jobs[job.id] = job

    def admit(self, owner: str) -> None:
        """Let `owner` have one job more.

        Raises:
            RequestError: if there are too many under way already.
        """
        with self._lock:
            under_way = sum(owner in job.owners and not job.ended for job in self._jobs.values())
        if under_way >= self._unfinished:
            found, most = f"{under_way} jobs under way", f"at most {self._unfinished}"
            raise RequestError(found=found, expected=most, remedy="Wait for one to end, or cancel it.")

    def replace(self, job: Job[Any]) -> None:
        """Remember `job` in place of the one with the same id, if that is not forgotten yet."""
        with self._lock:
            if job.id in self._jobs:
                self._jobs[job.id] = job

    def all(self) -> list[Job[Any]]:
        """Everybody's jobs, newest first."""
        with self._lock:
            self._forget()
            return list(reversed(self._jobs.values()))

    def of(self, owner: str) -> list[Job[Any]]:
        """The owner's jobs, newest first."""
        return [job for job in self.all() if owner in job.owners]

    def get(self, job_id: str, owner: str) -> Job[Any] | None:
        """A job by its id, if it is the owner's."""
        return next((job for job in self.of(owner) if job.id == job_id), None)

    def _forget(self) -> None:
        """Drop ended jobs, with their results, that are old or too many."""
        ended = [job for job in self._jobs.values() if job.ended]
        oldest = time.monotonic() - self._kept_seconds
        for place, job in enumerate(reversed(ended)):
            if place >= self._kept or (job.finished or 0) < oldest:
                del self._jobs[job.id]


class JobManager(Register):
    """Runs jobs in a few threads, in the order they came."""

    def __init__(
        self, *, threads: int = 4, unfinished: int = 8, kept: int = 64, kept_seconds: float = 1800
    ) -> None:
        super().__init__(unfinished=unfinished, kept=kept, kept_seconds=kept_seconds)
        self._limit = threads
        self._queue: SimpleQueue[tuple[Job[Any], Callable[[Progress], Any]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._hiring = threading.Lock()

    def submit(self, owner: str, label: str, work: Callable[[Progress], T]) -> Job[T]:
        """Start `work(progress)` as soon as a thread is free.

        Raises:
            RequestError: if the owner has too many jobs under way.
        """
        job: Job[T] = Job(label, (owner,))
        self.add(job)
        self._queue.put((job, work))
        self._hire()
        return job

    def _hire(self) -> None:
        # Daemons, because a long job must not keep a stopped server alive.
        with self._hiring:
            if len(self._threads) < self._limit:
                name = f"palimpsest-job-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
                self._threads[-1].start()

    def _serve(self) -> None:
        torch.get_num_threads()  # a thread takes over torch's number of threads when it first asks for it
        while True:
            job, work = self._queue.get()
            job.run(work)
            del job, work  # an idle thread holds no result
