"""What a soak run owes: every sweep that was sent whole and in time, outside of all faults, and what came of it."""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

LATE_SECONDS = 0.1
"""An image given to DDS later than this after its time is a fault of the machine that plays, not of the node."""


@dataclass(slots=True)
class Sweep:
    """One image of every camera."""

    newest_ns: int = 0  # stamp: that of a set with all of them
    images: int = 0
    begun_s: float = math.inf  # steady time of the first image
    ended_s: float = 0.0  # of the last one
    late_s: float = 0.0  # longest delay of an image
    processed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Sets in quiet times."""

    due: int
    lost: int
    late_sweeps: int  # that were sent too late, and count for nothing
    sweeps: int


class Ledger:
    """`sent` by the rig's thread before it sends, `heard` by the listener's; `balance` at the end.

    A set is processed if tracks with the stamp of its newest image came: predictions have other stamps, and so have
    sets without their newest image.
    """

    def __init__(self, cameras: int, sweeps_per_set: int):
        self._cameras, self._per_set = cameras, sweeps_per_set
        self._sweeps: list[Sweep] = []
        self._number_of: dict[int, int] = {}  # by newest stamp; the latest sweep, as time may jump back
        self._lock = threading.Lock()

    def sent(self, number: int, t_ns: int, due_s: float, now_s: float) -> None:
        """An image of sweep `number` with a stamp, which should go out at `due_s` and does at `now_s` (steady)."""
        with self._lock:
            while len(self._sweeps) <= number:
                self._sweeps.append(Sweep())
            sweep = self._sweeps[number]
            sweep.images += 1
            sweep.newest_ns = max(sweep.newest_ns, t_ns)
            sweep.begun_s, sweep.ended_s = min(sweep.begun_s, now_s), max(sweep.ended_s, now_s)
            sweep.late_s = max(sweep.late_s, now_s - due_s)
            if sweep.images == self._cameras:
                self._number_of[sweep.newest_ns] = number

    def heard(self, t_ns: int) -> None:
        """Tracks with this stamp came."""
        with self._lock:
            if (number := self._number_of.get(t_ns)) is not None:
                self._sweeps[number].processed = True

    def balance(self, quiet: list[tuple[float, float]]) -> Balance:
        """Over quiet times (begin, end), steady. Any sweep of a run may be the first one to become a set, but then
        every `sweeps_per_set`-th must: one that comes later is as good as lost."""
        due = lost = late = total = 0
        with self._lock:
            for begin_s, end_s in quiet:
                inside = [i for i, s in enumerate(self._sweeps) if s.begun_s >= begin_s and s.ended_s <= end_s]
                whole = [i for i in inside if self._sweeps[i].images == self._cameras]
                fine = [i for i in whole if self._sweeps[i].late_s <= LATE_SECONDS]
                total, late = total + len(whole), late + len(whole) - len(fine)
                for first, last in _runs(fine):
                    done = [i for i in range(first, last + 1) if self._sweeps[i].processed]
                    missed = self._missed(first, last, done)
                    due, lost = due + len(done) + missed, lost + missed
        return Balance(due=due, lost=lost, late_sweeps=late, sweeps=total)

    def _missed(self, first: int, last: int, done: list[int]) -> int:
        if not done:
            return (last - first + 1) // self._per_set
        steps = [after - before for before, after in zip(done, done[1:], strict=False)]
        between = sum(math.ceil(step / self._per_set) - 1 for step in steps)
        return (done[0] - first) // self._per_set + between + (last - done[-1]) // self._per_set


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of every run of consecutive numbers."""
    begin = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield numbers[begin], numbers[i - 1]
            begin = i
