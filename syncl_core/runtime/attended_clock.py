"""Waiting time, without the time in which nobody was there to take what had come.

A process that the machine stops for a moment finds its messages waiting when it goes on. On a steady clock every
deadline would have passed before the first of them is read, and a set would be closed without images that are there.
"""

import time
from collections.abc import Callable


class AttendedClock:
    """Nanoseconds. It must be asked often: of a longer absence than `longest_ns`, by `steady_ns`, only so much counts.

    What passes is the time of `sensors_ns`, the steady one unless given: a simulation's may be slower, faster, or go in
    jumps. This clock never goes back, even where that begins anew.
    """

    def __init__(
        self,
        longest_ns: int,
        steady_ns: Callable[[], int] = time.monotonic_ns,
        sensors_ns: Callable[[], int] | None = None,
    ):
        self._longest_ns = longest_ns
        self._clocks = steady_ns, sensors_ns or steady_ns
        self._asked_ns = tuple(clock() for clock in self._clocks)
        self._now_ns = self._asked_ns[0]

    def __call__(self) -> int:
        asked_ns = tuple(clock() for clock in self._clocks)
        steady, passed = (now - before for now, before in zip(asked_ns, self._asked_ns, strict=True))
        if steady > self._longest_ns:
            passed = passed * self._longest_ns // steady
        self._now_ns += max(0, passed)
        self._asked_ns = asked_ns
        return self._now_ns
