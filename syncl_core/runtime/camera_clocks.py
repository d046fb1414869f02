"""A camera whose clock is wrong is outvoted by the others: what a stamp means depends on who sends what after it.

Ahead: only this camera has reached the time of its image, and more cameras go on sending without reaching it, by more
than they may be slower. Back: its stamps went back. If most cameras follow, or the others fall silent, time itself did,
as in a recording that loops; if one of them goes on beyond its own old stamps, this camera's clock did. Everything is
told by stamps and by the order of arrival; only how slow a camera is, the clock tells.
"""

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from syncl_core.runtime.camera_stream import JUMP_NS, MAX_LAG_NS, CameraStream, StampedImage
from syncl_core.runtime.problems import ProblemLog

_WITNESSES = 3  # images of another camera beyond its old stamps: it has not followed
_IN_LINE_NS = 500_000_000  # a clock that went back is right again when it is at most this far behind the others


class TimedPayload(NamedTuple):
    """An image before it is known whether it counts."""

    stamp_ns: int
    payload: object
    arrived_ns: int  # on the clock


def peers(streams: Mapping[str, CameraStream], camera: str) -> list[CameraStream]:
    """The other cameras that have sent something and whose clocks are trusted."""
    return [s for c, s in streams.items() if c != camera and s.newest_ns is not None and not s.clock_off]


def reached_ns(streams: Mapping[str, CameraStream]) -> int:
    """How far time has come by more than one camera: the second-newest stamp; of a single one, its newest."""
    stamps = [s.newest_ns for s in streams.values() if s.newest_ns is not None]
    trusted = [s.newest_ns for s in streams.values() if s.newest_ns is not None and not s.clock_off]
    return sorted(trusted or stamps)[-2:][0]


def reached(streams: Mapping[str, CameraStream], camera: str, anchor_ns: int) -> bool:
    """Whether another camera, too, has come to a time of the anchor camera."""
    return any(s.newest_ns - s.phase_ns >= anchor_ns for s in peers(streams, camera))


def is_outvoted(
    streams: Mapping[str, CameraStream], camera: str, image: StampedImage, max_spread_ns: int, timeout_ns: int
) -> bool:
    """Whether more cameras have sent since `image` without reaching its time than have reached it, and at least two.

    One that is behind by less than `timeout_ns` does not count: it sends more rarely, and is slower.
    """
    time_ns = image.stamp_ns - streams[camera].phase_ns - max_spread_ns
    others = peers(streams, camera)
    there = sum(s.newest_ns - s.phase_ns >= time_ns for s in others)
    behind = sum(
        s.newest_ns - s.phase_ns < time_ns and s.arrivals > image.arrivals and ahead_ns(image, s) > timeout_ns
        for s in others
    )
    return behind > 1 + there


def ahead_ns(image: StampedImage, other: CameraStream) -> int:
    """Of the other camera's newest image, less the time between their arrivals. Without a clock that is nothing."""
    return image.stamp_ns - other.newest_ns - image.arrived_ns + other.arrived_ns


def how_far_ahead(streams: Mapping[str, CameraStream], camera: str, image: StampedImage) -> str:
    """In words, and what to do."""
    usual_ns = statistics.median_low(ahead_ns(image, other) for other in peers(streams, camera))
    advice = "its clock is ahead (the doctor measures it), or all others come late (sync.timeout)"
    return f"{usual_ns * 1e-9:.2f} s ahead of the other cameras: {advice}"


@dataclass(slots=True, kw_only=True)
class _Setback:
    """One camera whose stamps went back."""

    old_ns: int  # its newest stamp before
    held: deque[TimedPayload] = field(default_factory=deque)  # since then, of the last `MAX_LAG_NS`
    first_ns: int | None = None  # its first stamp since ...
    new_ns: int | None = None  # ... its newest, ...
    quiet_ns: int | None = None  # ... and its newest when another camera sent last
    sent: dict[str, int] = field(default_factory=dict)  # images of the others beyond their old stamps since
    refused: bool = False  # its clock alone went back

    def add(self, image: TimedPayload) -> None:
        stamp_ns = image.stamp_ns
        if self.new_ns is None or stamp_ns < self.new_ns - JUMP_NS:  # the first, or once more back
            self.held.clear()
            self.first_ns = self.new_ns = self.quiet_ns = stamp_ns
        elif stamp_ns <= self.new_ns:
            return
        while self.held and self.new_ns - self.held[0].stamp_ns > MAX_LAG_NS:
            self.held.popleft()
        self.new_ns = stamp_ns
        self.held.append(image)

    def bear_witness(self, camera: str) -> bool:
        """Another camera went on. True: that settles that this one's clock alone went back."""
        self.quiet_ns = self.new_ns
        self.sent[camera] = self.sent.get(camera, 0) + 1
        settled = self.sent[camera] == _WITNESSES and not self.refused
        self.refused |= settled
        return settled


class Setbacks:
    """Cameras whose stamps went back by more than `JUMP_NS`, until it is known whether time itself did.

    Their images are held until then. After a jump of time, those that the other cameras still send from before it are
    stale. `judge` comes before a stream takes an image in.
    """

    def __init__(self, cameras: tuple[str, ...], problems: ProblemLog):
        self.jumped_ns = (0, 0)  # where time was before it last went back, and where it went
        self._cameras = cameras
        self._problems = problems
        self._setbacks: dict[str, _Setback] = {}  # in the order in which they went back
        self._held: list[tuple[str, TimedPayload]] = []
        self._unjumped: dict[str, int | None] = {}  # cameras that have not jumped yet: their first stamp since

    def judge(self, camera: str, image: TimedPayload, streams: Mapping[str, CameraStream]) -> str:
        """What an image means: "" = take it; "held", "clock_back" (refused) or "stale" = do not; "clock_right" = take
        it, and forget its camera's earlier ones; "time_jump" = begin anew with what `take_held` returns."""
        stamp_ns = image.stamp_ns
        if self._is_stale(camera, stamp_ns):
            return self._note("stale", f"{camera}: image at {stamp_ns} ns is from before the time jump")
        newest_ns, setback = streams[camera].newest_ns, self._setbacks.get(camera)
        if setback is None:
            if newest_ns is None or stamp_ns >= newest_ns - JUMP_NS:
                self._goes_on(camera, newest_ns is None or stamp_ns > newest_ns)
                return ""
            setback = self._setbacks[camera] = _Setback(old_ns=newest_ns)
        elif self._is_right_again(setback, camera, stamp_ns, streams):
            del self._setbacks[camera]
            self._goes_on(camera, newer=True)
            if setback.refused:
                return "clock_right"
            self._blame(camera, setback)
            return ""
        setback.add(image)
        if self._is_jump(camera, setback, streams):
            return self._jump(camera, setback)
        return self._blame(camera, setback) if setback.refused else "held"

    def take_held(self) -> list[tuple[str, TimedPayload]]:
        """Cameras and the images that came after time went back, in order of time per camera."""
        held, self._held = self._held, []
        return held

    def _note(self, reason: str, message: str) -> str:
        self._problems.add(reason, message)
        return reason

    def _blame(self, camera: str, setback: _Setback) -> str:
        seconds = (setback.old_ns - setback.first_ns) * 1e-9
        told = f"its clock went back by {seconds:.3f} s, those of the other cameras did not"
        return self._note("clock_back", f"{camera}: {told}; its images are refused until it is right again")

    def _is_stale(self, camera: str, stamp_ns: int) -> bool:
        middle_ns = sum(self.jumped_ns) // 2
        if camera not in self._unjumped:
            if stamp_ns >= middle_ns:
                self._unjumped.clear()  # time has come so far again: cameras that stayed silent may return at any stamp
            return False
        first_ns = self._unjumped[camera]
        if stamp_ns >= middle_ns and (first_ns is None or stamp_ns < first_ns + MAX_LAG_NS):
            self._unjumped[camera] = first_ns or stamp_ns
            return True
        del self._unjumped[camera]  # it has followed, or it goes on and never will
        return False

    def _goes_on(self, camera: str, newer: bool) -> None:
        """A camera that has not gone back sent an image: it bears witness against those that have."""
        for other, setback in self._setbacks.items() if newer else ():
            if setback.bear_witness(camera):
                self._blame(other, setback)

    def _is_right_again(
        self, setback: _Setback, camera: str, stamp_ns: int, streams: Mapping[str, CameraStream]
    ) -> bool:
        others = {c: s for c, s in streams.items() if c not in self._setbacks and s.newest_ns is not None}
        if setback.refused and others:
            return stamp_ns >= reached_ns(others) - _IN_LINE_NS
        return stamp_ns > setback.old_ns

    def _group(self, setback: _Setback) -> dict[str, _Setback]:
        """The cameras that went back to about the same time."""
        return {c: s for c, s in self._setbacks.items() if abs(s.new_ns - setback.new_ns) <= MAX_LAG_NS}

    def _is_jump(self, camera: str, setback: _Setback, streams: Mapping[str, CameraStream]) -> bool:
        """Most cameras went back, or those that did not have fallen silent: they are given the time of two images."""
        sending = {c: s for c, s in streams.items() if s.newest_ns is not None}
        if 2 * len(self._group(setback)) > len(sending):
            return True
        periods_ns = [s.period_ns or MAX_LAG_NS for c, s in sending.items() if c != camera]
        patience_ns = MAX_LAG_NS if setback.refused else min(2 * max(periods_ns), MAX_LAG_NS)
        return setback.new_ns - setback.quiet_ns >= patience_ns

    def _jump(self, camera: str, setback: _Setback) -> str:
        group = self._group(setback)
        old_ns, new_ns = max(s.old_ns for s in group.values()), min(s.first_ns for s in group.values())
        self.jumped_ns = old_ns, new_ns
        self._held = [(c, image) for c, s in group.items() for image in s.held]
        # The other cameras jump a little later: until then their images belong to the past.
        self._unjumped = {c: None for c in self._cameras if c not in group}
        self._setbacks.clear()
        return self._note("time_jump", f"{camera}: time went back by {(old_ns - new_ns) / 1e9:.3f} s to {new_ns} ns")
