"""The one thread that infers: takes jobs from the executor's thread, in order, and never holds too much of them."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

MAX_WAITING = 256  # jobs: a replay that runs away from the network is held up here instead of filling the memory
MAX_BYTES = 512 * 2**20  # of their images, likewise; a larger set gets in alone
CROWDED = 1 / 8  # of these limits: more, and a replay should wait; a player that does is never held up
STOP_SECONDS = 5.0  # for the job at hand when the node ends: less than `ros2 launch` waits until it kills


class Job(Protocol):
    """What waits here."""

    @property
    def nbytes(self) -> int: ...


class _Waiting(NamedTuple):
    job: Job
    is_set: bool  # False = offered


class Worker:
    """Calls `process` on submitted jobs, one at a time, in a thread of its own.

    With `keep_all` nothing is lost (replay): `submit` waits while too many are waiting, or too heavy ones. Without it a
    newer job replaces those still waiting (live) and `dropped` counts them. A job that was submitted to an idle thread
    counts as begun: how soon the thread wakes up must not decide what is lost. An exception in `process` ends the
    thread and is kept in `error`: the owner decides what it means.
    """

    def __init__(self, process: Callable[[Job], None], *, keep_all: bool):
        self.dropped = 0  # sets; predictions do not count
        self.held_up = 0  # submissions that had to wait
        self.error: Exception | None = None
        self._process = process
        self._keep_all = keep_all
        self._jobs: deque[_Waiting] = deque()
        self._begun: Job | None = None  # the one that an idle thread was given and has not taken up yet
        self._working = False
        self._since_s: float | None = None  # steady time at which the job at hand began
        self._bytes = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    @property
    def waiting(self) -> int:
        """Jobs submitted and not yet begun."""
        return len(self._jobs)

    @property
    def busy(self) -> bool:
        """Whether a job is being processed."""
        return self._working

    @property
    def busy_s(self) -> float:
        """Seconds that the job at hand has taken so far; 0 without one."""
        since_s = self._since_s  # read once: the thread sets it
        return 0.0 if since_s is None else time.monotonic() - since_s

    @property
    def crowded(self) -> bool:
        """Whether so much waits that whoever delivers should pause."""
        return len(self._jobs) > CROWDED * MAX_WAITING or self._bytes > CROWDED * MAX_BYTES

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._condition:
            if self._keep_all:
                self.held_up += not self._has_room(job)
                self._condition.wait_for(lambda: self._has_room(job) or self._stopping or self.error)
            else:
                self._make_way()
            if not self._working and not self._jobs:
                self._begun = job
            self._append(job, is_set=True)

    def offer(self, job: Job) -> None:
        """Take a job that is worth less than any other: only if none is waiting."""
        with self._condition:
            if not self._jobs:
                self._append(job, is_set=False)

    def call_when_idle(self, call: Callable[[], None]) -> None:
        """Run `call` in the worker's thread once no job is waiting."""
        with self._condition:
            self._calls.append(call)
            self._condition.notify_all()

    def stop(self) -> None:
        """Finish the job at hand, forget the waiting ones. One that does not end in time is left to itself."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _has_room(self, job: Job) -> bool:
        return not self._jobs or (len(self._jobs) < MAX_WAITING and self._bytes + job.nbytes <= MAX_BYTES)

    def _make_way(self) -> None:
        """Drop what waits, but for the job that was as good as begun."""
        kept = deque(waiting for waiting in self._jobs if waiting.job is self._begun)
        self.dropped += sum(waiting.is_set for waiting in self._jobs) - len(kept)
        self._jobs, self._bytes = kept, sum(waiting.job.nbytes for waiting in kept)

    def _append(self, job: Job, is_set: bool) -> None:
        self._jobs.append(_Waiting(job, is_set))
        self._bytes += job.nbytes
        self._condition.notify_all()

    def _run(self) -> None:
        try:
            while task := self._next_task():
                task()
        except Exception as error:
            self.error, self._since_s = error, None
            with self._condition:
                self._condition.notify_all()

    def _next_task(self) -> Callable[[], None] | None:
        with self._condition:
            self._working, self._since_s = False, None
            self._condition.wait_for(lambda: self._stopping or self._jobs or self._calls)
            if self._stopping:
                return None
            self._working = True
            if self._jobs:
                job = self._jobs.popleft().job
                self._begun, self._since_s = None, time.monotonic()
                self._bytes -= job.nbytes
                self._condition.notify_all()
                return lambda: self._process(job)
            return self._calls.popleft()
