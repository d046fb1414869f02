"""A tracker over time: frame sets in, objects in the fixed frame out, identities that never repeat.

Memory is dropped only for a reason that makes it wrong: time went back, or the gap is too long. A set that cannot be
used (a corrupt image, a NaN pose) raises InputError and leaves the memory as it was.
"""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree

from syncl_core import geometry
from syncl_core.config import SynclConfig
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.tensors import Frame, Tracks, from_dict, to_dict
from syncl_core.types import FrameSet, ObjectSet, StepReport

State = Any  # a device value that only the tracker understands
Step = Callable[[State, Frame], tuple[State, Tracks]]
InitState = Callable[[int, torch.device], State]  # (batch size, device)

_DECODE_THREADS = 2


class TrackerSession:
    """Feeds a `step` and keeps its state. Not thread-safe: one worker owns it."""

    def __init__(self, step: Step, init_state: InitState, config: SynclConfig, device: str | torch.device = "cpu"):
        self.session = ""  # 8 hex digits; "" before the first frame set
        self._step = step
        self._init_state = init_state
        self._config = config
        self._device = torch.device(device)
        self._pool = ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="decode")
        self._sessions = 0  # begun so far
        self._last_ns: int | None = None  # time of the last frame set
        self._state: State | None = None  # None before the first frame set
        self._reset_reason = ""  # why the state is empty; "" = it is not

    def process(self, frame_set: FrameSet) -> StepReport:
        """One step. Raises InputError, naming the camera, if the set cannot be used; memory is kept then."""
        started = time.perf_counter()
        _check_finite(frame_set)
        frame = make_frame(frame_set, self._config.image, self._pool)
        frame = _pytree.tree_map(lambda tensor: tensor.to(self._device, non_blocking=True), frame)
        prepared = time.perf_counter()
        reason = self._begin_if_needed(frame_set.t_ns)
        with torch.inference_mode():
            state, tracks = self._step(self._state, frame)
            stepped = time.perf_counter()
            rows = _to_host(tracks)
        objects = self._objects(rows, frame_set)
        self._state, self._last_ns, self._reset_reason = state, frame_set.t_ns, ""
        return StepReport(
            objects=objects,
            session=self.session,
            cameras_used=tuple(view.camera for view in frame_set.views if view is not None),
            reset_reason=reason,
            # On a GPU `step` only queues the work; `output` waits for it.
            seconds={
                "prepare": prepared - started,
                "step": stepped - prepared,
                "output": time.perf_counter() - stepped,
                "total": time.perf_counter() - started,
            },
        )

    def reset(self, reason: str) -> str:
        """Forget all tracks; the next frame set begins a new session. Returns its id ("" before the first set)."""
        if self._state is not None:
            self._begin(reason, self._last_ns)
        return self.session

    def snapshot(self) -> dict:
        """All memory as plain values and tensors: `torch.save` it, `torch.load(weights_only=True)` reads it back."""
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
        self._state = state

    def close(self) -> None:
        """Stop the decoding threads."""
        self._pool.shutdown()

    def _begin_if_needed(self, t_ns: int) -> str:
        """Why this frame set meets an empty memory; "" = it does not."""
        if self._state is None:
            self._begin("start", t_ns)
        elif self._reset_reason:
            pass  # empty already: reset by hand, or the first step of the session failed
        elif t_ns <= self._last_ns:
            self._begin("time_jump", t_ns)
        elif t_ns - self._last_ns > self._config.sync.reset_gap * 1e9:
            self._begin("gap", t_ns)
        return self._reset_reason

    def _begin(self, reason: str, t_ns: int) -> None:
        # Time makes ids differ between runs on a vehicle, the counter between sessions of a run; a replay repeats both.
        self.session = hashlib.blake2b(f"{t_ns}:{self._sessions}".encode(), digest_size=4).hexdigest()
        self._sessions += 1
        self._state = self._init_state(1, self._device)
        self._last_ns, self._reset_reason = t_ns, reason

    def _objects(self, rows: np.ndarray, frame_set: FrameSet) -> ObjectSet:
        """Valid rows of `_to_host`, turned from the model frame to the fixed frame."""
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
        )


def _to_host(tracks: Tracks) -> np.ndarray:
    """All tracks of a batch of one as rows [K, 13], in one copy: valid, id, label, score, yaw, center, size, velocity.

    float64 holds every float32 and every identity below 2^53 exactly.
    """
    columns = [
        *(getattr(tracks, name)[0, :, None] for name in ("valid", "track_id", "label", "score", "yaw")),
        *(getattr(tracks, name)[0] for name in ("center", "size", "velocity")),
    ]
    return torch.cat([column.double() for column in columns], dim=1).cpu().numpy()


def _check_finite(frame_set: FrameSet) -> None:
    for view in frame_set.views:
        if view is None:
            continue
        for name in ("global_from_base", "base_from_cam"):
            if not np.isfinite(getattr(view, name)).all():
                raise InputError(f"{view.camera} at {view.t_ns} ns: its pose {name} is not finite")
        if not np.isfinite(view.model.intrinsics).all():
            raise InputError(f"{view.camera} at {view.t_ns} ns: its intrinsics are not finite")
    for name in ("global_from_base", "base_from_model"):
        if not np.isfinite(getattr(frame_set, name)).all():
            raise InputError(f"frame set at {frame_set.t_ns} ns: its pose {name} is not finite")
