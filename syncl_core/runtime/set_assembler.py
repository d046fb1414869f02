"""Six image streams -> frame sets.

The first image whose turn it is opens a set, at most one per `process_period`. It fixes the time of the anchor camera,
and with the phases (every camera's usual offset from the anchor) the expected stamp of every other camera. Each one
contributes the image nearest to its expected stamp, if that is within `max_spread`. The set closes when every camera is
settled: when no later image of it can be nearer. So the sets depend on the stamps alone, never on how the transport
interleaved the cameras: a node and an offline run see the same sets.

Two limits end the wait for a camera that stays silent: the clock (`timeout` after the image that opened the set) and
the stamps (another camera is `MAX_LAG_NS` ahead, which also bounds memory). What is there by then is used; an image of
another sweep is never put in its place. A set with fewer than `min_cameras` is a named non-result, and the next sweep
is tried. A phase that keeps a camera out of three sets in a row, although it fires close to the anchor, is forgotten: a
camera that was restarted may fire at another time. Payloads are opaque and never touched. Not thread-safe.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from syncl_core.config import SyncConfig
from syncl_core.runtime.camera_stream import CameraStream
from syncl_core.runtime.problems import MissedSet, ProblemLog

JUMP_NS = 200_000_000
"""A stamp further back than this means that time went back (a bag looped), not that two messages were swapped."""

MAX_LAG_NS = 3_000_000_000
"""A camera may lag this much (plus a process period) behind the newest stamp of all before a set goes without it."""

_MAX_MISSED = 64  # non-results that are kept for whoever asks

_MAX_MARGIN_NS = 500_000_000  # a set opens at most this much before the process period has passed


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledSet:
    """Images that belong together; `stamps_ns` and `payloads` follow the order of the cameras, None = missing."""

    anchor_ns: int  # stamp of the anchor image; where it is missing, its expected stamp
    stamps_ns: tuple[int | None, ...]
    payloads: tuple[object, ...]
    spread_ns: int  # newest minus oldest stamp
    closed_by: str  # "complete", "deadline" (clock), "lag" (stamps) or "end" (of the recording)


class SetAssembler:
    """`add` images of `cameras` as they arrive (in order per camera), `poll` for the sets that closed since."""

    def __init__(self, config: SyncConfig, cameras: Sequence[str], clock_ns: Callable[[], int]):
        self.cameras = tuple(cameras)
        self.problems = ProblemLog()
        self.missed: deque[MissedSet] = deque(maxlen=_MAX_MISSED)  # sets that were due; the owner takes them out
        self.jumped_from_ns = 0  # where time was before it last went back
        self.skipped = 0  # anchor images left out because the process period had not passed: not a problem
        self._period_ns = round(config.process_period * 1e9)
        self.set_limits(config)
        self._clock_ns = clock_ns
        self._anchor = config.anchor or self.cameras[0]
        self._clear()

    def set_limits(self, config: SyncConfig) -> None:
        """`min_cameras`, `max_spread` and `timeout` from now on. Nothing is forgotten."""
        self._min_cameras = config.min_cameras
        self._spread_ns = round(config.max_spread * 1e9)
        self._timeout_ns = round(config.timeout * 1e9)

    def _clear(self) -> None:
        self.missed.clear()
        self._streams = {camera: CameraStream() for camera in self.cameras}
        self._last_ns: int | None = None  # anchor time of the last set
        self._tried_ns: int | None = None  # the same, also of sets with too few cameras
        self._stale_ns = 0  # after a jump: cameras still beyond this stamp have not jumped yet ...
        self._unjumped: set[str] = set()  # ... namely these

    @property
    def phases_ns(self) -> dict[str, int]:
        """Usual offset of every camera from the anchor."""
        return {camera: stream.phase_ns for camera, stream in self._streams.items()}

    def add(self, camera: str, stamp_ns: int, payload: object) -> str:
        """Take one image. Returns "", why it was refused ("unknown_camera", "duplicate", "out_of_order", "stale"), or
        "time_jump" if it was taken and everything before it forgotten."""
        if camera not in self._streams:
            return self._note("unknown_camera", f"{camera}: not one of {', '.join(self.cameras)}")
        if camera in self._unjumped:
            if stamp_ns >= self._stale_ns:
                return self._note("stale", f"{camera}: image at {stamp_ns} ns is from before the time jump")
            self._unjumped.discard(camera)
        elif self._unjumped and stamp_ns >= self._stale_ns:
            self._unjumped = set()  # time has come so far again: cameras that stayed silent may return at any stamp
        newest_ns, reason = self._streams[camera].newest_ns, ""
        if newest_ns is not None and stamp_ns <= newest_ns:
            if newest_ns - stamp_ns <= JUMP_NS:
                reason = "out_of_order" if stamp_ns < newest_ns else "duplicate"
                return self._note(reason, f"{camera}: image at {stamp_ns} ns after one at {newest_ns} ns")
            reason = self._jump(camera, stamp_ns, newest_ns - stamp_ns)
        self._store(camera, stamp_ns, payload)
        return reason

    def poll(self) -> list[AssembledSet]:
        """Sets that closed since the last call, in order of time."""
        return self._close_all(end=False)

    def finish(self) -> list[AssembledSet]:
        """The rest, at the end of a recording: no more images will come."""
        return self._close_all(end=True)

    def next_deadline_ns(self) -> int | None:
        """Clock time at which `poll` could close a set although nothing arrives; None = nothing is waiting."""
        opening = self._opening()
        return opening and opening[1]

    def _note(self, reason: str, message: str) -> str:
        self.problems.add(reason, message)
        return reason

    def _jump(self, camera: str, stamp_ns: int, back_ns: int) -> str:
        self._clear()
        self.jumped_from_ns = stamp_ns + back_ns
        # The other cameras jump a little later: until then their images belong to the past that was just forgotten.
        self._stale_ns = stamp_ns + back_ns // 2
        self._unjumped = {other for other in self.cameras if other != camera}
        return self._note("time_jump", f"{camera}: time went back by {back_ns / 1e9:.3f} s to {stamp_ns} ns")

    def _store(self, camera: str, stamp_ns: int, payload: object) -> None:
        stream = self._streams[camera]
        image = stream.arrive(stamp_ns, payload, self._clock_ns())
        if self._tried_ns is not None:
            earliest_ns = self._tried_ns
            if self._last_ns is not None:
                earliest_ns = max(earliest_ns, self._last_ns + self._period_ns - self._margin_ns(self._period_ns))
            if stamp_ns < earliest_ns + stream.phase_ns - self._spread_ns:
                self.skipped += camera == self._anchor
                return
        stream.images.append(image)

    def _margin_ns(self, camera_period_ns: int) -> int:
        """Half a camera period early is on time: without that margin, jitter turns 0.500 s into 0.583 s."""
        return min(camera_period_ns // 2, self._period_ns // 2, _MAX_MARGIN_NS)

    def _due(self, anchor_ns: int, camera_period_ns: int) -> bool:
        if self._tried_ns is not None and anchor_ns <= self._tried_ns + camera_period_ns // 2:
            return False
        return self._last_ns is None or anchor_ns >= self._last_ns + self._period_ns - self._margin_ns(camera_period_ns)

    def _opening(self) -> tuple[int, int] | None:
        """Anchor time and clock deadline of the next set, as far as the images that are here tell."""
        openings = []
        for camera, stream in self._streams.items():
            for image in stream.images:
                anchor_ns = image.stamp_ns - stream.phase_ns
                if self._due(anchor_ns, image.period_ns or 0):
                    # A camera that was never in a set with the anchor says little about the anchor's time.
                    known = camera == self._anchor or stream.has_phase
                    openings.append((not known, anchor_ns, image.arrived_ns + self._timeout_ns))
                    break
        return min(openings)[1:] if openings else None

    def _close_all(self, end: bool) -> list[AssembledSet]:
        closed = []
        while (opening := self._opening()) is not None:
            anchor_ns, deadline_ns = opening
            choices = {c: s.nearest(anchor_ns + s.phase_ns, self._spread_ns) for c, s in self._streams.items()}
            closed_by = self._why_closed(anchor_ns, deadline_ns, choices, end)
            if not closed_by:
                break
            result = self._take(anchor_ns, choices, closed_by)
            if result is not None:
                closed.append(result)
        return closed

    def _why_closed(self, anchor_ns: int, deadline_ns: int, choices: dict, end: bool) -> str:
        if all(settled or self._streams[camera].silent for camera, (_, settled) in choices.items()):
            return "complete"
        if end:
            return "end"
        newest_ns = max(stream.newest_ns for stream in self._streams.values() if stream.newest_ns is not None)
        if newest_ns >= anchor_ns + self._period_ns + MAX_LAG_NS:
            return "lag"
        return "deadline" if self._clock_ns() >= deadline_ns else ""

    def _take(self, anchor_ns: int, choices: dict, closed_by: str) -> AssembledSet | None:
        chosen = {}
        for camera, (image, _) in choices.items():
            expected_ns = anchor_ns + self._streams[camera].phase_ns
            if image is None:
                self.problems.add("late", f"{camera}: no image for the set at {anchor_ns} ns")
                self._streams[camera].silent |= closed_by == "deadline"
            elif abs(image.stamp_ns - expected_ns) > self._spread_ns:
                self._note_spread(camera, image.stamp_ns - expected_ns)
            else:
                chosen[camera] = image
            dropped = self._streams[camera].drop_before(expected_ns - self._spread_ns)
            self.skipped += dropped if camera == self._anchor else 0
        taken = self._finish_set(anchor_ns, chosen, closed_by)
        self._judge_phases(anchor_ns, choices, chosen)
        return taken

    def _judge_phases(self, anchor_ns: int, choices: dict, chosen: dict) -> None:
        """A camera that fires close to the anchor, and still is not in one set with it, has a wrong phase."""
        anchor = choices[self._anchor][0]
        anchor_fits = anchor is None or self._anchor in chosen
        time_ns = anchor_ns if anchor is None else anchor.stamp_ns
        for camera, (image, _) in choices.items():
            if camera == self._anchor or image is None:
                continue
            fits = anchor_fits and camera in chosen
            if fits or abs(image.stamp_ns - time_ns) <= self._spread_ns:
                self._streams[camera].judge_phase(fits)

    def _finish_set(self, anchor_ns: int, chosen: dict, closed_by: str) -> AssembledSet | None:
        reference_ns = self._anchor_time_ns(anchor_ns, chosen)
        for camera, image in chosen.items():
            stream = self._streams[camera]
            stream.drop_before(image.stamp_ns + 1)  # an image is used once
            if camera != self._anchor:
                stream.learn_phase(image.stamp_ns - reference_ns, image.period_ns)
        self._tried_ns = max(anchor_ns, reference_ns)
        if len(chosen) < self._min_cameras:
            missing = ", ".join(camera for camera in self.cameras if camera not in chosen)
            message = f"set at {anchor_ns} ns: {len(chosen)} images; missing {missing}"
            self.problems.add("too_few_cameras", message)
            self.missed.append(MissedSet(t_ns=self._tried_ns, reason="too_few_cameras", message=message))
            return None
        self._last_ns = reference_ns
        images = [chosen.get(camera) for camera in self.cameras]
        stamps = [image.stamp_ns for image in chosen.values()]
        return AssembledSet(
            anchor_ns=reference_ns,
            stamps_ns=tuple(image and image.stamp_ns for image in images),
            payloads=tuple(image and image.payload for image in images),
            spread_ns=max(stamps) - min(stamps),
            closed_by=closed_by,
        )

    def _anchor_time_ns(self, opening_ns: int, chosen: dict) -> int:
        """The anchor's stamp. Without it, one camera speaks for it: the earliest of all would drag the phases along."""
        if self._anchor in chosen:
            return chosen[self._anchor].stamp_ns
        for camera, image in chosen.items():
            if self._streams[camera].has_phase:
                return image.stamp_ns - self._streams[camera].phase_ns
        return opening_ns

    def _note_spread(self, camera: str, distance_ns: int) -> None:
        distance = f"{distance_ns / 1e6:+.1f} ms from its expected time, {self._spread_ns / 1e6:.1f} are allowed"
        advice = f"(sync.max_spread); if its clock is off, add {-distance_ns / 1e9:.3f} s to its stamp_offset"
        self.problems.add("spread_exceeded", f"{camera}: its nearest image is {distance} {advice}")
