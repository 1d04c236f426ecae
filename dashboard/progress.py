"""Work that takes longer than a click: jobs in threads, and the bar that follows one.

`jobs()` is the one `JobManager` of the process, shared by all visitors; a job belongs to an `owner` (a visitor) and
is shown to no other. Its work runs in a thread, must not call `st.*`, and gets a callback `progress(done, total)`
that raises `Cancelled` once the job is cancelled: the convention of all long work here.

`follow` shows a job where the visitor is. It first waits a moment, so that quick work never flashes a bar; then a
fragment alone runs again every 0.4 s, and the page once, when the job ends. A job outlives the page it was started
from. Gradient mode and the like are settings of a thread: the work sets its own.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, Literal, TypeVar

import streamlit as st

from dashboard.text import plain
from rewrite_core.errors import Cancelled, PalimpsestError, RequestError

__all__ = ["Job", "JobManager", "Progress", "Status", "follow", "jobs"]

T = TypeVar("T")
Progress = Callable[[int, int], None]
Status = Literal["waiting", "running", "done", "failed", "cancelled"]

_INLINE = 0.8  # seconds a page waits for a new job before it shows a bar
_EVERY = 0.4  # seconds between two looks at a running job
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job(Generic[T]):
    """One piece of work and how far it is; times are of `time.monotonic`, `error` is one line to show."""

    owner: str
    label: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: Status = "waiting"
    done: int = 0
    total: int = 0
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None
    result: T | None = field(default=None, repr=False)
    error: str = ""
    cancelling: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _taken: bool = field(default=False, repr=False)

    @property
    def ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self._ended.is_set()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return 0.0 if self.started is None else (self.finished or time.monotonic()) - self.started

    @property
    def remaining(self) -> float | None:
        """An estimate of the seconds left, once there is something to go by."""
        if self.ended or not self.done or not self.total:
            return None
        return self.seconds / self.done * max(self.total - self.done, 0)

    def cancel(self) -> None:
        """Ask it to stop: at once while it waits for a thread, else at its next report of progress."""
        with self._lock:
            self.cancelling = True
            if self.status == "waiting":
                self._end("cancelled")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; whether it has ended."""
        return self._ended.wait(timeout)

    def take(self) -> bool:
        """True for the first caller after the end, who is to hand over the result; False ever after."""
        with self._lock:
            first = self.ended and not self._taken
            self._taken = self._taken or first
        return first

    def run(self, work: Callable[[Progress], T]) -> None:
        """Do the work in the calling thread, unless cancelled before, and record how it ended."""
        with self._lock:
            if self.ended:
                return
            self.started, self.status = time.monotonic(), "running"
        status: Status = "failed"
        try:
            self.result = work(self._progress)
            status = "done"
        except Cancelled:
            status = "cancelled"
        except PalimpsestError as problem:
            self.error = str(problem)
        except Exception as problem:
            _log.exception("job %r failed", self.label)
            self.error = f"{self.label} stopped on {type(problem).__name__}; the server's log says where."
        self._end(status)

    def _progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self.cancelling:
            raise Cancelled

    def _end(self, status: Status) -> None:
        self.finished, self.status = time.monotonic(), status
        self._ended.set()


class JobManager:
    """Runs jobs in a few threads, in the order they came, and remembers those that ended for a while."""

    def __init__(
        self, *, threads: int = 4, unfinished: int = 8, kept: int = 64, kept_seconds: float = 1800
    ) -> None:
        """`unfinished` is how many jobs an owner may have under way, `kept` how many ended ones are held."""
        self._limit, self._unfinished = threads, unfinished
        self._kept, self._kept_seconds = kept, kept_seconds
        self._jobs: dict[str, Job[Any]] = {}
        self._queue: SimpleQueue[tuple[Job[Any], Callable[[Progress], Any]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, owner: str, label: str, work: Callable[[Progress], T]) -> Job[T]:
        """Start `work(progress)` as soon as a thread is free.

        Raises:
            RequestError: if the owner has too many jobs under way.
        """
        job: Job[T] = Job(owner, label)
        with self._lock:
            self._forget()
            self._refuse_crowds(owner)
            self._jobs[job.id] = job
            self._queue.put((job, work))
            self._hire()
        return job

    def of(self, owner: str) -> list[Job[Any]]:
        """The owner's jobs, newest first."""
        with self._lock:
            self._forget()
            return [job for job in reversed(self._jobs.values()) if job.owner == owner]

    def get(self, job_id: str, owner: str) -> Job[Any] | None:
        """A job by its id, if it is the owner's."""
        return next((job for job in self.of(owner) if job.id == job_id), None)

    def _refuse_crowds(self, owner: str) -> None:
        under_way = sum(job.owner == owner and not job.ended for job in self._jobs.values())
        if under_way >= self._unfinished:
            found, most = f"{under_way} jobs under way", f"at most {self._unfinished}"
            raise RequestError(found=found, expected=most, remedy="Wait for one to end, or cancel it.")

    def _forget(self) -> None:
        """Drop ended jobs, with their results, that are old or too many."""
        ended = [job for job in self._jobs.values() if job.ended]
        oldest = time.monotonic() - self._kept_seconds
        for place, job in enumerate(reversed(ended)):
            if place >= self._kept or (job.finished or 0) < oldest:
                del self._jobs[job.id]

    def _hire(self) -> None:
        # Daemons, because a long job must not keep a stopped server alive.
        if len(self._threads) < self._limit:
            name = f"palimpsest-job-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
            self._threads[-1].start()

    def _serve(self) -> None:
        while True:
            job, work = self._queue.get()
            job.run(work)
            del job, work  # an idle thread holds no result


@st.cache_resource(show_spinner=False)
def jobs() -> JobManager:
    """The job manager of this process."""
    return JobManager()


def follow(job: Job[T], on_done: Callable[[T], None]) -> None:
    """Show how far `job` is, with Cancel; when it ends, give `on_done` its result and run the page once more.

    Call it in every run for as long as the page cares about the job: why it failed stays in sight.
    """
    job.wait(max(job.submitted + _INLINE - time.monotonic(), 0))
    if not job.ended:
        _watch(job, on_done)
        return
    _hand_over(job, on_done)
    if job.status == "failed":
        st.error(plain(job.error))
    elif job.status == "cancelled":
        st.caption(f"{job.label}: cancelled.")


@st.fragment(run_every=_EVERY)
def _watch(job: Job[T], on_done: Callable[[T], None]) -> None:
    _hand_over(job, on_done)
    with st.container(horizontal=True, vertical_alignment="center", key=f"job-{job.id}"):
        st.progress(min(job.done / job.total, 1.0) if job.total else 0.0, text=_text(job))
        st.button("Cancel", key=f"cancel-{job.id}", on_click=job.cancel, disabled=job.cancelling)


def _hand_over(job: Job[T], on_done: Callable[[T], None]) -> None:
    if job.take():
        if job.status == "done":
            on_done(job.result)  # type: ignore[arg-type]  # a job that is done has its result
            job.result = None  # whoever asked has it now
        st.rerun()


def _text(job: Job[Any]) -> str:
    if job.cancelling:
        return f"{job.label} · stopping…"
    if job.status == "waiting":
        return f"{job.label} · waiting for a free thread"
    share = f" · {job.done / job.total:.0%}".replace("%", " %") if job.total else f" · {job.seconds:.0f} s"
    return f"{job.label}{share}{_left(job.remaining)}"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 100:
        return f" · about {max(round(seconds), 1)} s left"
    return f" · about {round(seconds / 60)} min left"
