"""Sensor data in, complete FrameSets out: the one door to the tracker, for the ROS node and for offline tracking.

`add_*` only store; an image's stamp gets its camera's offset (`rig.stamp_offsets`) here, once and for all. `poll` joins
the images of a closed set with calibration and poses: every camera gets the vehicle pose at its own stamp, through the
fixed frame. A set whose poses are not there yet waits, up to `ego_wait_s` on the clock and `MAX_LAG_NS` of later sets;
then it goes on without the cameras that still lack something, or is rejected by name. Locked inside: `add_*` and `poll`
may run in different threads.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from syncl_core.config import SyncConfig, SynclConfig
from syncl_core.errors import InputError
from syncl_core.runtime import calibrations
from syncl_core.runtime.looping_tree import LoopingTree
from syncl_core.runtime.mounts import configured_model_frame, placed_model_frame
from syncl_core.runtime.problems import MissedSet, Problem, ProblemLog
from syncl_core.runtime.set_assembler import MAX_LAG_NS, AssembledSet, SetAssembler
from syncl_core.runtime.transform_tree import TransformLookupError
from syncl_core.types import CameraModel, CameraView, FrameSet, RawImage


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    images: AssembledSet  # payloads are (frame_id, RawImage)
    deadline_ns: int


class _NotKnown(Exception):
    """A view cannot be built (yet): reason, message, and whether waiting could help."""

    def __init__(self, reason: str, message: str, may_come: bool = True):
        super().__init__(message)
        self.reason = reason
        self.may_come = may_come


class Intake:
    """Collects sensor data until it is a FrameSet. Stamps are measurement times; `clock_ns` decides about waiting only.

    Unusable input is counted by reason (`problems`). With `strict`, as for a recording, a wrong camera name,
    calibration or transform raises InputError instead. `time_jumps` counts how often time went back: whoever keeps
    memory over time must forget it then. `model_frame` names the vehicle's frame that stands where the network's does;
    "" = the network's name in lower case, if there is one.
    """

    def __init__(
        self,
        config: SynclConfig,
        clock_ns: Callable[[], int],
        fixed_frame: str = "odom",
        base_frame: str = "base_link",
        *,
        output_frame: str = "",
        model_frame: str = "",
        ego_wait_s: float = 0.2,
        strict: bool = False,
    ):
        self.time_jumps = 0
        self._config = config
        offsets_s = config.rig.stamp_offsets or (0.0,) * len(config.rig.cameras)
        self._offsets_ns = {c: round(s * 1e9) for c, s in zip(config.rig.cameras, offsets_s, strict=True)}
        self._clock_ns = clock_ns
        self._fixed_frame = fixed_frame
        self._base_frame = base_frame
        self._output_frame = output_frame or fixed_frame  # sets wait for its transform, too
        self._model_frame = model_frame
        self._ego_wait_ns = round(ego_wait_s * 1e9)
        self._strict = strict
        self._lock = threading.Lock()
        self._assembler = SetAssembler(config.sync, config.rig.cameras, clock_ns)
        self._tree = LoopingTree()
        self._models: dict[str, CameraModel] = {}
        self._camera_frames: dict[str, str] = {}
        self._waiting: deque[_Waiting] = deque()
        self._problems = ProblemLog()
        self._missed: deque[MissedSet] = deque(maxlen=self._assembler.missed.maxlen)

    def set_limits(self, sync: SyncConfig) -> None:
        """Use `min_cameras`, `max_spread` and `timeout` from now on. Nothing is forgotten."""
        with self._lock:
            self._config = replace(self._config, sync=sync)
            self._assembler.set_limits(sync)

    def remember_transforms(self, seconds: float) -> None:
        """For how long transforms are kept: longer where they may be read far ahead of the images."""
        with self._lock:
            self._tree.remember(seconds)

    def output_from_fixed(self, t_ns: int, max_extrapolation_s: float = 0.0) -> np.ndarray:
        """Transform [4, 4] into the output frame. Raises TransformLookupError."""
        with self._lock:
            return self._tree.lookup(self._output_frame, self._fixed_frame, t_ns, max_extrapolation_s)

    def vehicle_path(self) -> dict[str, bool] | None:
        """The frames that carry the vehicle in the fixed frame, and whether they move; None = not connected."""
        with self._lock:
            return self._tree.between(self._fixed_frame, self._base_frame)

    def carries(self, frames: Collection[str]) -> bool:
        """Whether the vehicle or a camera hangs on one of these frames; others may move as they like."""
        with self._lock:
            ends = (self._base_frame, *self._camera_frames.values())
            return any(not self._on_path(end).isdisjoint(frames) for end in ends)

    def _on_path(self, end: str) -> set[str]:
        return set(self._tree.between(self._fixed_frame, end) or ())

    def add_image(self, camera: str, t_ns: int, frame_id: str, image: RawImage) -> None:
        """`camera` is a name of the rig; `frame_id` its frame in the transform tree ("" = the name in lower case)."""
        t_ns += self._offsets_ns.get(camera, 0)
        frame_id = frame_id or camera.lower()
        with self._lock:
            self._camera_frames[camera] = frame_id
            outcome = self._assembler.add(camera, t_ns, (frame_id, image))
            if outcome == "time_jump":
                self.time_jumps += 1
                self._waiting.clear()
                self._missed.clear()
                self._tree.images_jumped(*self._assembler.jumped_ns)
            elif outcome == "unknown_camera" and self._strict:
                raise InputError(f"{camera}: not a camera of the rig: {', '.join(self._config.rig.cameras)}")
            elif not outcome:
                self._tree.images_at(t_ns)

    def add_camera_model(self, camera: str, model: CameraModel) -> None:
        """Calibration of one camera; the latest one counts."""
        with self._lock:
            if problem := calibrations.unusable(model):
                self._reject("bad_camera_model", f"{camera}: unusable calibration: {problem}")
                return
            known = self._models.get(camera)
            if known is not None and (change := calibrations.difference(known, model)):
                self._problems.add("camera_model_changed", f"{camera}: its calibration changed: {change}")
            self._models[camera] = model

    def add_transform(
        self, parent: str, child: str, t_ns: int, parent_from_child: np.ndarray, static: bool = False
    ) -> None:
        """One transform [4, 4] of the tree, from /tf or /tf_static."""
        with self._lock:
            newest_ns, followed = self._tree.newest_ns(child), "" if static else self._tree.follow(child, t_ns)
            if followed == "jump":
                self._problems.add("transform_time_jump", f"{parent} -> {child}: from {newest_ns} back to {t_ns} ns")
            elif followed == "stale":
                self._problems.add("stale_transform", f"{parent} -> {child}: {t_ns} ns is from before the time jump")
                return
            if (known := self._tree.parent(child)) not in (None, parent):
                self._problems.add("parent_changed", f"{child} hung on {known}, now on {parent}: two publishers?")
            try:
                self._tree.insert(parent, child, t_ns, parent_from_child, static)
            except ValueError as error:
                self._reject("bad_transform", f"transform at {t_ns} ns: {error}")

    def add_odometry(self, t_ns: int, fixed_from_base: np.ndarray) -> None:
        """One vehicle pose [4, 4]."""
        self.add_transform(self._fixed_frame, self._base_frame, t_ns, fixed_from_base)

    def poll(self) -> list[FrameSet]:
        """Sets that became complete since the last call, in order of time."""
        with self._lock:
            return self._settle(self._assembler.poll(), end=False)

    def finish(self) -> list[FrameSet]:
        """The rest, at the end of a recording: nothing more will come."""
        with self._lock:
            return self._settle(self._assembler.finish(), end=True)

    def take_missed(self) -> list[MissedSet]:
        """Sets that were due and became nothing since the last call, in order of time (the latest 64 of each kind)."""
        with self._lock:
            missed = sorted([*self._assembler.missed, *self._missed], key=lambda one: one.t_ns)
            self._assembler.missed.clear()
            self._missed.clear()
            return missed

    def next_deadline_ns(self) -> int | None:
        """Clock time at which `poll` could return a set although nothing arrives; None = nothing is waiting."""
        with self._lock:
            deadlines = [self._assembler.next_deadline_ns(), *(waiting.deadline_ns for waiting in self._waiting)]
            return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def problems(self) -> dict[str, Problem]:
        """Why input did not become a set: by reason, how often and what was said last."""
        with self._lock:
            return self._assembler.problems.snapshot() | self._problems.snapshot()

    def _reject(self, reason: str, message: str) -> None:
        if self._strict:
            raise InputError(message)
        self._problems.add(reason, message)

    def _settle(self, closed: list[AssembledSet], end: bool) -> list[FrameSet]:
        now_ns = self._clock_ns()
        self._waiting.extend(_Waiting(images=images, deadline_ns=now_ns + self._ego_wait_ns) for images in closed)
        ready = []
        while self._waiting:
            span_ns = self._waiting[-1].images.anchor_ns - self._waiting[0].images.anchor_ns
            overdue = end or now_ns >= self._waiting[0].deadline_ns or span_ns > MAX_LAG_NS
            views, gaps = self._views(self._waiting[0].images, overdue)
            if not overdue and any(gap.may_come for gap in gaps):
                break
            anchor_ns = self._waiting.popleft().images.anchor_ns
            frame_set = self._frame_set(anchor_ns, views, gaps)
            if frame_set is not None:
                ready.append(frame_set)
        return ready

    def _views(self, images: AssembledSet, overdue: bool) -> tuple[list[CameraView | None], list[_NotKnown]]:
        views, gaps = [], []
        for camera, t_ns, payload in zip(self._config.rig.cameras, images.stamps_ns, images.payloads, strict=True):
            try:
                views.append(None if t_ns is None else self._view(camera, t_ns, *payload, overdue))
            except _NotKnown as gap:
                views.append(None)
                gaps.append(gap)
        newest_ns = max(t_ns for t_ns in images.stamps_ns if t_ns is not None)
        if not overdue and not self._tree.knows(self._output_frame, self._fixed_frame, newest_ns):
            gaps.append(_NotKnown("missing_transform", f"no transform to {self._output_frame}"))
        return views, gaps

    def _view(self, camera: str, t_ns: int, frame_id: str, image: RawImage, overdue: bool) -> CameraView:
        model = self._models.get(camera)
        if model is None:
            raise _NotKnown("missing_camera_model", f"{camera}: no calibration (camera_info) received")
        # Extrapolating earlier than necessary would make the result depend on when the pose arrived.
        limit_s = self._config.sync.max_extrapolation if overdue else 0.0
        try:
            base_from_cam = self._tree.lookup(self._base_frame, frame_id, t_ns, limit_s)
            global_from_base = self._tree.lookup(self._fixed_frame, self._base_frame, t_ns, limit_s)
        except TransformLookupError as error:
            raise _NotKnown("missing_transform", f"{camera}: {error}", error.may_come) from None
        return CameraView(
            camera=camera,
            t_ns=t_ns,
            image=image,
            model=model,
            base_from_cam=base_from_cam,
            global_from_base=global_from_base,
            frame_id=frame_id,
        )

    def _frame_set(self, anchor_ns: int, views: list[CameraView | None], gaps: list[_NotKnown]) -> FrameSet | None:
        for gap in gaps:
            self._problems.add(gap.reason, str(gap))
        present = [view for view in views if view is not None]
        if len(present) < self._config.sync.min_cameras:
            message = f"set rejected, {len(gaps)} of its cameras cannot be used: {gaps[0]}"
            self._problems.add("incomplete_set", message)
            self._missed.append(MissedSet(t_ns=anchor_ns, reason="incomplete_set", message=message))
            return None
        newest = max(present, key=lambda view: view.t_ns)
        return FrameSet(
            t_ns=newest.t_ns,
            global_from_base=newest.global_from_base,
            base_from_model=self._base_from_model(newest.t_ns),
            views=tuple(views),
        )

    def _base_from_model(self, t_ns: int) -> np.ndarray:
        """Transform [4, 4] of the model frame: the vehicle's own, if it points where the network's does."""
        configured = configured_model_frame(self._config.rig)
        frame = self._model_frame or self._config.rig.model_frame.lower()
        try:
            found = self._tree.lookup(self._base_frame, frame, t_ns)
            placed, problem = placed_model_frame(frame, found, configured, chosen=bool(self._model_frame))
        except TransformLookupError as error:
            placed, problem = configured, f"model_frame: {error}" if self._model_frame else ""
        if problem and not self._problems.count("model_frame"):
            self._problems.add("model_frame", problem)
        return placed
