"""Frame sets on their way from the thread that collects to the thread that infers: bounded, whatever happens.

Live, only the newest set counts: a new one replaces those that wait. In a replay every set counts: then `put` waits
until there is room, which holds up whoever delivers, and that is the only honest way to be both complete and bounded.
"""

import threading
from collections import deque

from syncl_core.types import FrameSet

MAX_BYTES = 512 * 2**20


class SetQueue:
    """For any number of threads. `dropped` counts sets that were replaced, `held_up` the calls of `put` that waited."""

    def __init__(self, keep_all: bool, max_bytes: int = MAX_BYTES, max_sets: int = 256):
        self.dropped = 0
        self.held_up = 0
        self._keep_all = keep_all
        self._max_bytes = max_bytes
        self._max_sets = max_sets if keep_all else 1
        self._sets: deque[FrameSet] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._sets)

    def put(self, frame_set: FrameSet) -> bool:
        """Add one set, in order of time. False if the queue was closed, before or while this waited."""
        with self._changed:
            if not self._keep_all:
                self.dropped += len(self._sets)
                self._sets.clear()
                self._bytes = 0
            elif not self._has_room(frame_set):
                self.held_up += 1
                self._changed.wait_for(lambda: self._closed or self._has_room(frame_set))
            if self._closed:
                return False
            self._sets.append(frame_set)
            self._bytes += image_bytes(frame_set)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> FrameSet | None:
        """The oldest set, as soon as there is one; None after the time-out, or when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._sets, timeout_s)
            if self._closed or not self._sets:
                return None
            frame_set = self._sets.popleft()
            self._bytes -= image_bytes(frame_set)
            self._changed.notify_all()
            return frame_set

    def close(self) -> None:
        """Forget what waits and let every waiting thread go."""
        with self._changed:
            self._closed = True
            self._sets.clear()
            self._bytes = 0
            self._changed.notify_all()

    def _has_room(self, frame_set: FrameSet) -> bool:
        """A set larger than the limit gets in alone: it must be possible to process it."""
        fits = self._bytes + image_bytes(frame_set) <= self._max_bytes
        return not self._sets or (len(self._sets) < self._max_sets and fits)


def image_bytes(frame_set: FrameSet) -> int:
    """What the images of a set weigh as they came off the wire."""
    return sum(memoryview(view.image.data).nbytes for view in frame_set.views if view is not None)
