"""The one thread that infers: takes frame sets from the executor's thread, in order."""

import threading
from collections import deque
from collections.abc import Callable

from syncl_core.types import FrameSet


class Worker:
    """Calls `process` on submitted frame sets, one at a time, in a thread of its own.

    With `keep_all` nothing is lost (replay); without it a newer set replaces those still waiting (live) and `dropped`
    counts them. An exception in `process` ends the thread and is kept in `error`: the owner decides what it means.
    """

    def __init__(self, process: Callable[[FrameSet], None], *, keep_all: bool):
        self.dropped = 0
        self.error: Exception | None = None
        self._process = process
        self._keep_all = keep_all
        self._sets: deque[FrameSet] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    @property
    def waiting(self) -> int:
        """Sets submitted and not yet begun."""
        return len(self._sets)

    def start(self) -> None:
        self._thread.start()

    def submit(self, frame_set: FrameSet) -> None:
        with self._condition:
            if not self._keep_all:
                self.dropped += len(self._sets)
                self._sets.clear()
            self._sets.append(frame_set)
            self._condition.notify()

    def call_when_idle(self, call: Callable[[], None]) -> None:
        """Run `call` in the worker's thread once no set is waiting."""
        with self._condition:
            self._calls.append(call)
            self._condition.notify()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish the set at hand, forget the waiting ones."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while task := self._next_task():
                task()
        except Exception as error:
            self.error = error

    def _next_task(self) -> Callable[[], None] | None:
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._sets or self._calls)
            if self._stopping:
                return None
            if self._sets:
                frame_set = self._sets.popleft()
                return lambda: self._process(frame_set)
            return self._calls.popleft()
