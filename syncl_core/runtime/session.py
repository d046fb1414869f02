"""A tracker over time: frame sets in, objects in the fixed frame out, identities that never repeat.

Memory is dropped only for a reason that makes it wrong: time went back, the gap is too long, the cameras were changed.
A camera with a corrupt image or a NaN pose is masked; a set that keeps too few cameras, or has no pose itself, raises
RejectedSetError and leaves the memory as it was.
"""

import hashlib
import time
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree

from syncl_core import geometry
from syncl_core.config import SynclConfig
from syncl_core.errors import InputError, RejectedSetError
from syncl_core.frames import prepare_frame
from syncl_core.rectify import Rectifier
from syncl_core.runtime import device_errors
from syncl_core.runtime.coasting import coasted
from syncl_core.runtime.on_host import all_finite, dropped_tracks, track_rows
from syncl_core.runtime.problems import Problem, ProblemLog
from syncl_core.runtime.surroundings import Surroundings, network_intrinsics
from syncl_core.tensors import Frame, Tracks, from_dict, to_dict
from syncl_core.types import FrameSet, ObjectSet, StepReport

State = Any  # a device value that only the tracker understands
Step = Callable[[State, Frame], tuple[State, Tracks]]
InitState = Callable[[int, torch.device], State]  # (batch size, device)

DECODE_THREADS = 2


class TrackerSession:
    """Feeds a `step` and keeps its state. One worker owns it; only `coast` and `problems` are for all threads."""

    def __init__(self, step: Step, init_state: InitState, config: SynclConfig, device: str | torch.device = "cpu"):
        self.min_cameras = config.sync.min_cameras  # its owner may change it between two sets
        self.session = ""  # 8 hex digits; "" before the first frame set
        self._step = step
        self._init_state = init_state
        self._config = config
        self._device = torch.device(device)
        self._pool = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
        self._rectifier = Rectifier(config.image)
        self._problems = ProblemLog()
        self._sessions = 0  # begun so far
        self._last_ns: int | None = None  # time of the last frame set
        self._state: State | None = None  # None before the first frame set
        self._dropped = 0  # tracks that found no slot in this session; on the host, so that anybody may ask
        self._reset_reason = ""  # why the state is empty; "" = it is not
        self._forget_surroundings()

    def process(self, frame_set: FrameSet) -> StepReport:
        """One step. Memory is kept if it fails.

        Raises RejectedSetError, naming the camera, if the set cannot be used, InputError if the tracker made numbers
        that are not finite of it, and DeviceError if the device failed twice.
        """
        started = time.perf_counter()
        frame, rejected = self._retried(lambda: self._prepare(frame_set))
        frame_set = _without(frame_set, rejected)
        reason = self._retried(lambda: self._begin_if_needed(frame_set))
        prepared = time.perf_counter()
        state, rows, dropped, finite, stepped = self._retried(lambda: self._infer(frame))
        if not finite:
            raise InputError(f"the tracker's memory at {frame_set.t_ns} ns is not finite: is the checkpoint broken?")
        objects = self._objects(rows, frame_set)
        self._state, self._dropped, self._last_ns, self._reset_reason = state, dropped, frame_set.t_ns, ""
        self._watch(frame_set)
        self._last_objects = objects
        return StepReport(
            objects=objects,
            session=self.session,
            cameras_used=tuple(view.camera for view in frame_set.views if view is not None),
            reset_reason=reason,
            rejected=rejected,
            # On a GPU `step` only queues the work; `output` waits for it.
            seconds={
                "prepare": prepared - started,
                "step": stepped - prepared,
                "output": time.perf_counter() - stepped,
                "total": time.perf_counter() - started,
            },
        )

    def coast(self, t_ns: int) -> ObjectSet | None:
        """The last objects, moved by their velocities to a time whose set could not be processed. Changes nothing.

        None if there is no later time to predict for: nothing was processed since the last reset, or `t_ns` is more
        than `sync.coast_max` after it.
        """
        objects = self._last_objects
        return None if objects is None else coasted(objects, t_ns, self._config.sync.coast_max)

    def problems(self) -> dict[str, Problem]:
        """What went wrong since the session was made: by reason, how often and what was said last."""
        problems = self._problems.snapshot()
        if self._dropped:
            message = "more objects than the tracker has room for: those with the lowest scores ended; see track.slots"
            problems["dropped_tracks"] = Problem(count=self._dropped, message=message)
        return problems

    def reset(self, reason: str) -> str:
        """Forget all tracks; the next frame set begins a new session. Returns its id ("" before the first set)."""
        if self._state is not None:
            self._retried(lambda: self._begin(reason, self._last_ns))
        return self.session

    def snapshot(self) -> dict:
        """All memory as plain values and tensors: `torch.save` it, `torch.load(weights_only=True)` reads it back.

        What only coasting and the watch over poses and calibrations look back on is left out.
        """
        return {
            "session": self.session,
            "sessions": self._sessions,
            "last_ns": self._last_ns,
            "reset_reason": self._reset_reason,
            "state": None if self._state is None else to_dict(self._state),
        }

    def restore(self, snapshot: dict) -> None:
        """Go on where `snapshot` was taken, with the same identities."""
        state = snapshot["state"]
        if state is not None:
            tensors = {name: tensor.to(self._device) for name, tensor in state.items()}
            state = from_dict(self._init_state(1, self._device), tensors)
        self.session, self._sessions = snapshot["session"], snapshot["sessions"]
        self._last_ns, self._reset_reason = snapshot["last_ns"], snapshot["reset_reason"]
        self._state, self._dropped = state, dropped_tracks(state)
        self._forget_surroundings()

    def close(self) -> None:
        """Stop the decoding threads."""
        self._pool.shutdown()

    def _forget_surroundings(self) -> None:
        self._last_objects: ObjectSet | None = None
        self._surroundings = Surroundings()

    def _prepare(self, frame_set: FrameSet) -> tuple[Frame, dict[str, str]]:
        """The frame and the cameras that had to be masked. Raises RejectedSetError if too few are left."""
        for name in ("global_from_base", "base_from_model"):
            if not np.isfinite(getattr(frame_set, name)).all():
                self._reject(f"frame set at {frame_set.t_ns} ns: its pose {name} is not finite")
        on_gpu = self._device.type == "cuda"
        frame, rejected = prepare_frame(frame_set, self._config.image, self._pool, self._rectifier, pin_memory=on_gpu)
        for message in rejected.values():
            self._problems.add("rejected_image", message)
        left = sum(view is not None for view in frame_set.views) - len(rejected)
        if left < (self.min_cameras if rejected else 1):  # how many views there are is for who made the set
            why = "; ".join(rejected.values()) or "it has no view"
            self._reject(
                f"frame set at {frame_set.t_ns} ns: {left} usable images, sync.min_cameras asks for "
                f"{self.min_cameras}: {why}"
            )
        return frame, rejected

    def _reject(self, message: str) -> None:
        self._problems.add("rejected_set", message)
        raise RejectedSetError(message)

    def _infer(self, frame: Frame) -> tuple[State, np.ndarray, int, bool, float]:
        """The state after the frame, the rows of its tracks, how many found no slot, whether all of it is finite, and
        when the step was through."""
        # From pinned memory the images are copied while the host goes on.
        frame = _pytree.tree_map(lambda tensor: tensor.to(self._device, non_blocking=True), frame)
        with torch.inference_mode():
            state, tracks = self._step(self._state, frame)
            stepped = time.perf_counter()
            return state, track_rows(tracks), dropped_tracks(state), all_finite(state), stepped

    def _retried(self, work):
        return device_errors.twice(work, self._device, lambda message: self._problems.add("device_retry", message))

    def _begin_if_needed(self, frame_set: FrameSet) -> str:
        """Why this frame set meets an empty memory; "" = it does not."""
        t_ns = frame_set.t_ns
        if self._state is None:
            self._begin("start", t_ns)
        elif self._reset_reason:
            pass  # empty already: reset by hand, or the first step of the session failed
        elif t_ns <= self._last_ns:
            self._begin("time_jump", t_ns)
        elif t_ns - self._last_ns > self._config.sync.reset_gap * 1e9:
            self._begin("gap", t_ns)
        elif change := self._surroundings.calibration_change(
            network_intrinsics(frame_set, self._config.image), self._config.rig.max_calibration_change
        ):
            self._problems.add("calibration_changed", change)
            self._begin("calibration", t_ns)
        elif self._config.sync.reset_on_ego_jump and self._jump(frame_set):
            self._problems.add("ego_jump", self._jump(frame_set))
            self._begin("ego_jump", t_ns)
        return self._reset_reason

    def _begin(self, reason: str, t_ns: int) -> None:
        self._state, self._dropped = self._init_state(1, self._device), 0  # first: it may fail
        # Time makes ids differ between runs on a vehicle, the counter between sessions of a run; a replay repeats both.
        self.session = hashlib.blake2b(f"{t_ns}:{self._sessions}".encode(), digest_size=4).hexdigest()
        self._sessions += 1
        self._last_ns, self._reset_reason = t_ns, reason
        self._forget_surroundings()

    def _jump(self, frame_set: FrameSet) -> str:
        return self._surroundings.ego_jump(frame_set, self._config.sync.max_ego_jump)

    def _watch(self, frame_set: FrameSet) -> None:
        """Remember the set. In the fixed frame a jump moves no track, so that it is only reported."""
        if jump := self._jump(frame_set):
            self._problems.add("ego_jump", jump)
        intrinsics = network_intrinsics(frame_set, self._config.image)
        self._surroundings = self._surroundings.after(frame_set, intrinsics, jumped=bool(jump))

    def _objects(self, rows: np.ndarray, frame_set: FrameSet) -> ObjectSet:
        """Valid rows of `track_rows`, turned from the model frame to the fixed frame."""
        rows = rows[rows[:, 0] > 0]
        if not np.isfinite(rows).all():
            raise InputError(f"the tracker's boxes at {frame_set.t_ns} ns are not finite: is the checkpoint broken?")
        _, track_id, label, score, yaw = rows[:, :5].T
        global_from_model = frame_set.global_from_base @ frame_set.base_from_model
        rotation = global_from_model[:3, :3]
        model_from_box = geometry.matrix_from_quaternion(geometry.quaternion_from_yaw(yaw))
        velocity = np.concatenate([rows[:, 11:13], np.zeros((len(rows), 1))], axis=1)
        return ObjectSet(
            t_ns=frame_set.t_ns,
            ids=tuple(f"{self.session}-{int(n)}" for n in track_id),
            labels=tuple(self._config.tracking_classes[int(n)] for n in label),
            scores=score.copy(),
            centers=geometry.transform_points(global_from_model, rows[:, 5:8]),
            sizes=rows[:, 8:11].copy(),
            rotations=geometry.quaternion_from_matrix(rotation @ model_from_box),
            velocities=(velocity @ rotation.T)[:, :2],
            states=("confirmed",) * len(rows),
        )


def _without(frame_set: FrameSet, cameras: Container[str]) -> FrameSet:
    views = tuple(None if view is None or view.camera in cameras else view for view in frame_set.views)
    return replace(frame_set, views=views)
