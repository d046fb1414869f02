"""Waiting time, without the time in which nobody was there to take what had come.

A process that the machine stops for a moment finds its messages waiting when it goes on. On a steady clock every
deadline would have passed before the first of them is read, and a set would be closed without images that are there.
"""

import time
from collections.abc import Callable


class AttendedClock:
    """Nanoseconds. It must be asked often; between two times it is asked, at most `longest_ns` pass.

    It never goes back, even where `clock_ns` does: that of a simulation may begin anew.
    """

    def __init__(self, longest_ns: int, clock_ns: Callable[[], int] = time.monotonic_ns):
        self._longest_ns = longest_ns
        self._clock_ns = clock_ns
        self._asked_ns = self._now_ns = clock_ns()

    def __call__(self) -> int:
        asked_ns = self._clock_ns()
        self._now_ns += max(0, min(asked_ns - self._asked_ns, self._longest_ns))
        self._asked_ns = asked_ns
        return self._now_ns
