"""One camera's images while they wait for a set, and what was learned about its rhythm."""

import math
import statistics
from collections import deque
from dataclasses import dataclass

JUMP_NS = 200_000_000
"""A stamp further back than this means that time or a clock went back, not that two messages were swapped."""

MAX_LAG_NS = 3_000_000_000
"""A camera may lag this much (plus a process period) behind the others before a set goes without it."""

_MISFITS = 3  # sets in a row that a learned phase does not fit before it is forgotten
_SLOW_NS = 1_000_000_000  # a camera that is further behind than this is silent rather than slow
_MEMORY = 9  # stamp differences and offsets the running medians look back on


@dataclass(frozen=True, slots=True, kw_only=True)
class StampedImage:
    """An image that waits. The payload is opaque."""

    stamp_ns: int
    payload: object
    arrived_ns: int  # on the clock
    arrivals: int  # images of all cameras up to this one
    period_ns: int | None  # of its stream up to this image, so that it does not depend on what arrived later


class CameraStream:
    """A short queue of images in order of their stamps, with running medians of period and phase."""

    def __init__(self):
        self.images: deque[StampedImage] = deque()
        self.newest_ns: int | None = None
        self.arrived_ns = self.arrivals = 0  # of the newest one, as in StampedImage
        self.phase_ns = 0  # usual offset from the anchor camera; 0 until learned
        self.silent = False  # the clock ran out waiting for it; not waited for until its next image
        self.clock_off = False  # the other cameras say so: it has no say in what time it is
        self._steps_ns: deque[int] = deque(maxlen=_MEMORY)
        self._offsets_ns: deque[int] = deque(maxlen=_MEMORY)
        self._misfits = 0

    @property
    def period_ns(self) -> int | None:
        """Usual step between two stamps; None = not known yet."""
        return statistics.median_low(self._steps_ns) if self._steps_ns else None

    def arrive(self, stamp_ns: int, payload: object, arrived_ns: int, arrivals: int) -> StampedImage:
        """The image with what the stream knows at its stamp. It is not queued yet."""
        if self.newest_ns is not None:
            self._steps_ns.append(stamp_ns - self.newest_ns)
        self.newest_ns, self.arrived_ns, self.arrivals, self.silent = stamp_ns, arrived_ns, arrivals, False
        return StampedImage(
            stamp_ns=stamp_ns, payload=payload, arrived_ns=arrived_ns, arrivals=arrivals, period_ns=self.period_ns
        )

    def went_on_ns(self, arrivals: int) -> int:
        """For how long this camera has gone on since so many images had arrived, by those that wait.

        Whole periods, not stamps: a clock that is set ahead is no time that passes.
        """
        return sum(image.arrivals > arrivals for image in self.images) * (self.period_ns or 0)

    def nearest(self, target_ns: int, max_spread_ns: int) -> tuple[StampedImage | None, bool]:
        """The image nearest to the target, and whether that is settled: no later image can be nearer.

        An image less than half a period before the target settles it at once, without waiting for its successor.
        """
        before = None
        for image in self.images:
            reach_ns = min(image.period_ns // 2, max_spread_ns) if image.period_ns else 0
            if image.stamp_ns >= target_ns - reach_ns:
                nearer = before is None or abs(image.stamp_ns - target_ns) <= target_ns - before.stamp_ns
                return image if nearer else before, True
            before = image
        return before, False

    def first_from(self, stamp_ns: int) -> StampedImage | None:
        """The first queued image not older than the stamp."""
        return next((image for image in self.images if image.stamp_ns >= stamp_ns), None)

    @property
    def has_phase(self) -> bool:
        return bool(self._offsets_ns)

    def learn_phase(self, offset_ns: int, period_ns: int | None) -> None:
        """Running median of the offset from the anchor, less whole periods.

        So a set that began with an image of the wrong sweep does not make that a habit.
        """
        self._offsets_ns.append(offset_ns)
        whole = period_ns or math.inf
        self.phase_ns = statistics.median_low(o - round(o / whole) * (period_ns or 0) for o in self._offsets_ns)

    def judge_phase(self, fits: bool) -> None:
        """Forget a phase that did not fit several times in a row: a camera that was restarted may have another one."""
        self._misfits = 0 if fits else self._misfits + 1
        if self._misfits == _MISFITS:
            self._misfits, self.phase_ns = 0, 0
            self._offsets_ns.clear()

    def why_missing(
        self, expected_ns: int, image: StampedImage | None, settled: bool, waited_ns: int | None, max_spread_ns: int
    ) -> tuple[str, str]:
        """Reason and words, for a set that goes without this camera: "late", or "spread_exceeded" by its nearest image.

        `image`, `settled`: as `nearest` told. `waited_ns`: the clock ran out after so long; None = it did not.
        """
        if image is not None and (settled or self._is_of_that_sweep(image, expected_ns)):
            distance_ns = image.stamp_ns - expected_ns
            distance = f"{distance_ns / 1e6:+.1f} ms from its expected time, {max_spread_ns / 1e6:.1f} are allowed"
            advice = f"(sync.max_spread); if its clock is off, add {-distance_ns / 1e9:.3f} s to its stamp_offset"
            return "spread_exceeded", f"its nearest image is {distance} {advice}"
        if self.newest_ns is None or self.newest_ns >= expected_ns:
            return "late", f"no image at {expected_ns} ns"
        behind_ns = expected_ns - self.newest_ns
        slow = waited_ns is not None and behind_ns <= _SLOW_NS
        advice = f": raise sync.timeout ({waited_ns / 1e9:g} s), unless its clock is behind" if slow else ""
        return "late", f"no image at {expected_ns} ns, its newest is {behind_ns / 1e6:.0f} ms older{advice}"

    @staticmethod
    def _is_of_that_sweep(image: StampedImage, expected_ns: int) -> bool:
        return image.stamp_ns >= expected_ns - (image.period_ns or 0) // 2

    def drop_before(self, stamp_ns: int) -> int:
        """Forget queued images older than the stamp; returns how many."""
        before = len(self.images)
        while self.images and self.images[0].stamp_ns < stamp_ns:
            self.images.popleft()
        return before - len(self.images)
