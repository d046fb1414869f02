"""Six image streams -> frame sets.

The first image whose turn it is opens a set, at most one per `process_period`. It fixes the time of the anchor camera,
and with the phases (every camera's usual offset from the anchor) the expected stamp of every other camera. Each one
contributes the image nearest to its expected stamp, if that is within `max_spread`. The set closes when every camera is
settled: when no later image of it can be nearer. So as long as nothing is late and no clock wrong, the sets depend on
the stamps alone, not on how the transport interleaved the cameras: a node and an offline run see the same sets.

Two limits end the wait for a silent camera. On the clock: `timeout` after the first image of the set, or after the
second one if the first came long before all others; where that is alone at its time, not before two others have
stopped sending (`set_opening`). By stamps: two cameras are `MAX_LAG_NS` ahead of the set, or one has sent for so long
since it opened, which also bounds memory. What is there by then is used; an image of another sweep is never put in its
place. A set with fewer than `min_cameras` is a named non-result, and the next sweep is tried. A phase that keeps a
camera out of three sets in a row, although it fires close to the anchor, is forgotten: a camera that was restarted may
fire at another time. What time it is no single camera decides, as long as others send: one whose clock is wrong is left
out by name (`camera_clocks`). Payloads are opaque and never touched. Not thread-safe.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from syncl_core.config import SyncConfig
from syncl_core.runtime import camera_clocks
from syncl_core.runtime.camera_clocks import TimedPayload
from syncl_core.runtime.camera_stream import JUMP_NS, MAX_LAG_NS, CameraStream
from syncl_core.runtime.problems import MissedSet, ProblemLog
from syncl_core.runtime.set_opening import Opening, next_opening

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
        self.skipped = 0  # anchor images left out because the process period had not passed: not a problem
        self._period_ns = round(config.process_period * 1e9)
        self.set_limits(config)
        self._clock_ns = clock_ns
        self._setbacks = camera_clocks.Setbacks(self.cameras, self.problems)
        self._arrivals = 0  # images taken in
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

    @property
    def jumped_ns(self) -> tuple[int, int]:
        """Where time was before it last went back, and where it went."""
        return self._setbacks.jumped_ns

    @property
    def phases_ns(self) -> dict[str, int]:
        """Usual offset of every camera from the anchor."""
        return {camera: stream.phase_ns for camera, stream in self._streams.items()}

    def add(self, camera: str, stamp_ns: int, payload: object) -> str:
        """Take one image. Returns "", why it was refused ("unknown_camera", "duplicate", "out_of_order", "stale",
        "clock_back"), "held" if that is not known yet, or "time_jump" if time went back, this image is taken, and all
        from before is forgotten."""
        if camera not in self._streams:
            return self._note("unknown_camera", f"{camera}: not one of {', '.join(self.cameras)}")
        stream, image = self._streams[camera], TimedPayload(stamp_ns, payload, self._clock_ns())
        verdict = self._setbacks.judge(camera, image, self._streams)
        if verdict == "time_jump":
            self._clear()
            for held_camera, held in self._setbacks.take_held():
                self._store(held_camera, held)
        elif verdict == "clock_back":
            stream.clock_off = stream.silent = True
        elif verdict == "clock_right":
            verdict, self._streams[camera] = "", CameraStream()
            self._unfollow()
        elif not verdict and stream.newest_ns is not None and stamp_ns <= stream.newest_ns:
            verdict = "out_of_order" if stamp_ns < stream.newest_ns else "duplicate"
            self._note(verdict, f"{camera}: image at {stamp_ns} ns after one at {stream.newest_ns} ns")
        if verdict:
            return verdict
        self._store(camera, image)
        return ""

    def poll(self) -> list[AssembledSet]:
        """Sets that closed since the last call, in order of time."""
        return self._close_all(end=False)

    def finish(self) -> list[AssembledSet]:
        """The rest, at the end of a recording: no more images will come."""
        return self._close_all(end=True)

    def next_deadline_ns(self) -> int | None:
        """Clock time at which `poll` could close a set although nothing arrives; None = nothing is waiting."""
        opening = self._opening()
        return opening and opening.deadline_ns

    def _note(self, reason: str, message: str) -> str:
        self.problems.add(reason, message)
        return reason

    def _store(self, camera: str, taken: TimedPayload) -> None:
        stream, stamp_ns = self._streams[camera], taken.stamp_ns
        self._arrivals += 1
        image = stream.arrive(stamp_ns, taken.payload, taken.arrived_ns, self._arrivals)
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

    def _opening(self) -> Opening | None:
        return next_opening(self._streams, self._anchor, self._due, self._timeout_ns, self._spread_ns)

    def _close_all(self, end: bool) -> list[AssembledSet]:
        closed = []
        self._drop_ahead(end)
        while (opening := self._opening()) is not None:
            anchor_ns = opening.anchor_ns
            choices = {c: s.nearest(anchor_ns + s.phase_ns, self._spread_ns) for c, s in self._streams.items()}
            closed_by = self._why_closed(opening, choices, end)
            if not closed_by:
                break
            result = self._take(anchor_ns, choices, closed_by)
            if result is not None:
                closed.append(result)
        return closed

    def _drop_ahead(self, end: bool) -> None:
        """Leave out images of cameras whose clocks are ahead. They were given the time that others may be late."""
        now_ns = self._clock_ns()
        for camera, stream in self._streams.items():
            for image in tuple(stream.images):
                waited = now_ns >= image.arrived_ns + self._timeout_ns or (end and stream.clock_off)
                waited |= stream.newest_ns >= image.stamp_ns + self._period_ns + MAX_LAG_NS
                limits = self._spread_ns, self._timeout_ns
                if not waited or not camera_clocks.is_outvoted(self._streams, camera, image, *limits):
                    break
                stream.images.popleft()
                stream.clock_off = stream.silent = True
                self._note("clock_ahead", f"{camera}: {camera_clocks.how_far_ahead(self._streams, camera, image)}")
                self._unfollow()

    def _unfollow(self) -> None:
        """Sets of a camera that was alone for a while may have followed a wrong clock: nobody waits for that time."""
        if max(self._last_ns or 0, self._tried_ns or 0) > camera_clocks.reached_ns(self._streams) + JUMP_NS:
            self._last_ns = self._tried_ns = None

    def _why_closed(self, opening: Opening, choices: dict, end: bool) -> str:
        if all(settled or self._streams[camera].silent for camera, (_, settled) in choices.items()):
            return "complete"
        if end:
            return "end"
        lag_ns = self._period_ns + MAX_LAG_NS
        went_on_ns = max(stream.went_on_ns(opening.arrivals) for stream in self._streams.values())
        if went_on_ns >= lag_ns or camera_clocks.reached_ns(self._streams) >= opening.anchor_ns + lag_ns:
            return "lag"
        return "deadline" if self._clock_ns() >= opening.deadline_ns else ""

    def _take(self, anchor_ns: int, choices: dict, closed_by: str) -> AssembledSet | None:
        chosen, waited_ns = {}, self._timeout_ns if closed_by == "deadline" else None
        for camera, (image, settled) in choices.items():
            stream = self._streams[camera]
            expected_ns = anchor_ns + stream.phase_ns
            if image is not None and abs(image.stamp_ns - expected_ns) <= self._spread_ns:
                chosen[camera] = image
                stream.clock_off = False
            else:
                stream.silent |= image is None and waited_ns is not None
                if not stream.clock_off:  # else it is said already
                    reason, why = stream.why_missing(expected_ns, image, settled, waited_ns, self._spread_ns)
                    self._note(reason, f"{camera}: {why}")
            dropped = stream.drop_before(expected_ns - self._spread_ns)
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
        tried_ns = max(anchor_ns, reference_ns)
        enough = len(chosen) >= self._min_cameras
        if enough or camera_clocks.reached_ns(self._streams) >= tried_ns - self._spread_ns:
            self._tried_ns = tried_ns  # what one camera alone tried in vain says nothing to the others
        if not enough:
            missing = ", ".join(camera for camera in self.cameras if camera not in chosen)
            message = f"set at {anchor_ns} ns: {len(chosen)} images; missing {missing}"
            self.problems.add("too_few_cameras", message)
            self.missed.append(MissedSet(t_ns=tried_ns, reason="too_few_cameras", message=message))
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
