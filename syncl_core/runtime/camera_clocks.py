"""A camera whose clock is wrong is outvoted by the others: what a stamp means depends on who sends what after it.

Ahead: only this camera has reached the time of its image, and more cameras go on sending without reaching it. Back: its
stamps went back. If the other cameras follow, time itself did, as in a recording that loops; if one of them goes on
beyond its own old stamps, this camera's clock did. Everything is told by stamps and by the order of arrival.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from syncl_core.runtime.camera_stream import JUMP_NS, MAX_LAG_NS, CameraStream, StampedImage
from syncl_core.runtime.problems import ProblemLog

_WITNESSES = 3  # images of another camera beyond its old stamps: it has not followed
_IN_LINE_NS = 500_000_000  # a clock that went back is right again when it is at most this far behind the others


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


def is_outvoted(streams: Mapping[str, CameraStream], camera: str, image: StampedImage, max_spread_ns: int) -> bool:
    """Whether more cameras have sent since `image` without reaching its time than have reached it, and at least two."""
    time_ns = image.stamp_ns - streams[camera].phase_ns - max_spread_ns
    others = peers(streams, camera)
    there = sum(s.newest_ns - s.phase_ns >= time_ns for s in others)
    behind = sum(s.newest_ns - s.phase_ns < time_ns and s.arrivals > image.arrivals for s in others)
    return behind > 1 + there


def how_far_ahead(streams: Mapping[str, CameraStream], camera: str, image: StampedImage) -> str:
    """In words, and what to do. Stamps are compared with those of the others' newest images, less the time between."""
    others = peers(streams, camera)
    ahead_ns = statistics.median_low(image.stamp_ns - s.newest_ns - image.arrived_ns + s.arrived_ns for s in others)
    advice = "its clock is ahead (the doctor measures it), or all others come late (sync.timeout)"
    return f"{ahead_ns * 1e-9:.2f} s ahead of the other cameras: {advice}"


@dataclass(slots=True, kw_only=True)
class _Setback:
    """One camera whose stamps went back."""

    old_ns: int  # its newest stamp before
    held: list[tuple[int, object]] = field(default_factory=list)  # (stamp, payload) since
    first_ns: int | None = None  # its first stamp since ...
    new_ns: int | None = None  # ... and its newest
    sent: dict[str, int] = field(default_factory=dict)  # images of the others beyond their old stamps since
    refused: bool = False  # its clock alone went back

    def add(self, stamp_ns: int, payload: object) -> None:
        if self.new_ns is None or stamp_ns < self.new_ns - JUMP_NS:  # the first, or once more back
            self.held.clear()
            self.first_ns = self.new_ns = stamp_ns
        elif stamp_ns <= self.new_ns:
            return
        self.new_ns = stamp_ns
        if not self.refused:
            self.held.append((stamp_ns, payload))


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
        self._held: list[tuple[str, int, object]] = []
        self._unjumped: dict[str, int | None] = {}  # cameras that have not jumped yet: their first stamp since

    def judge(self, camera: str, stamp_ns: int, payload: object, streams: Mapping[str, CameraStream]) -> str:
        """What an image means: "" = take it; "held", "clock_back" (refused) or "stale" = do not; "clock_right" = take
        it, and forget its camera's earlier ones; "time_jump" = begin anew with what `take_held` returns."""
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
        setback.add(stamp_ns, payload)
        if self._is_jump(camera, setback, streams):
            return self._jump(camera, setback)
        return self._blame(camera, setback) if setback.refused else "held"

    def take_held(self) -> list[tuple[str, int, object]]:
        """(camera, stamp, payload) of the images that came after time went back, in order of time per camera."""
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
            setback.sent[camera] = setback.sent.get(camera, 0) + 1
            if setback.sent[camera] == _WITNESSES and not setback.refused:
                setback.refused = True
                setback.held.clear()
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
        group = self._group(setback)
        witnesses = next(iter(group.values())).sent.items()
        against = sum(n >= _WITNESSES for c, n in witnesses if c not in self._setbacks)
        if len(group) > 1:
            return len(group) > against
        # Nobody else sends: the others are given the time of two images.
        periods_ns = [s.period_ns or MAX_LAG_NS for c, s in streams.items() if c != camera and s.newest_ns is not None]
        patience_ns = min(2 * max(periods_ns, default=0), MAX_LAG_NS)
        return not setback.sent and setback.new_ns - setback.first_ns >= patience_ns

    def _jump(self, camera: str, setback: _Setback) -> str:
        group = self._group(setback)
        old_ns, new_ns = max(s.old_ns for s in group.values()), min(s.first_ns for s in group.values())
        self.jumped_ns = old_ns, new_ns
        self._held = [(c, *image) for c, s in group.items() for image in s.held]
        # The other cameras jump a little later: until then their images belong to the past.
        self._unjumped = {c: None for c in self._cameras if c not in group}
        self._setbacks.clear()
        return self._note("time_jump", f"{camera}: time went back by {(old_ns - new_ns) / 1e9:.3f} s to {new_ns} ns")
