"""Frame sets -> tracks -> topics, in the inference thread: the model, its memory, and what became of every set."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from rclpy.node import Node
from torch.utils import _pytree

from syncl_core.config import SynclConfig
from syncl_core.errors import DeviceError, InputError
from syncl_core.frames import make_frame
from syncl_core.runtime.problems import Problem, ProblemLog
from syncl_core.runtime.session import TrackerSession
from syncl_core.runtime.transform_tree import TransformLookupError
from syncl_core.tensors import Frame
from syncl_core.tracking.base import Tracker
from syncl_core.types import FrameSet, ObjectSet, StepReport
from syncl_ros.outputs import Outputs
from syncl_ros.params import Live, NodeParams

LONGEST_WAIT_SECONDS = 10.0  # for the step at hand; a device that takes longer hangs

Place = Callable[[ObjectSet], ObjectSet]  # into the output frame; raises TransformLookupError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One task of the inference thread."""

    t_ns: int
    closed_s: float  # steady time at which the set was complete
    closed_ns: int  # the same on the sensors' clock
    frame_set: FrameSet | None = None  # None = predict the objects to t_ns
    between: bool = False  # a prediction between two sets, as publish_rate asks for; else there is no usable set

    @property
    def nbytes(self) -> int:
        """What the images of the set weigh as they came off the wire."""
        views = self.frame_set.views if self.frame_set else ()
        return sum(memoryview(view.image.data).nbytes for view in views if view is not None)


@dataclass(slots=True)
class Record:
    """What became of the sets so far. Written by the inference thread, read by diagnostics."""

    processed: int = 0
    degraded: int = 0  # processed without every camera
    coasted: int = 0  # predicted, not processed
    tracks: int = 0  # published last
    coasting: bool = False  # the last message was a prediction
    spread_ms: float = 0.0  # newest minus oldest image of the last set
    period_s: float | None = None  # between the last two sets, by their stamps
    latency_ms: float | None = None  # from the newest image to the message
    published_s: float | None = None  # steady time of the last message, those between two sets left out
    predicted_s: float = 0.0  # steady time of the last message between two sets
    processed_s: float = 0.0  # steady time at which the last processed set was published
    closed_ns: int = 0  # on the sensors' clock, when the last processed set was complete
    delayed_since_s: float | None = None  # steady time of the first of the sets that are late in a row
    last_t_ns: int | None = None  # of the last processed set
    told_ns: int | None = None  # stamp of the last message, predictions included
    resets: dict[str, int] = field(default_factory=dict)  # by reason
    milliseconds: dict[str, float] = field(default_factory=dict)  # of the last set, by stage
    rejected: dict[str, str] = field(default_factory=dict)  # cameras whose image was unusable in the last set
    absent: tuple[str, ...] = ()  # cameras without an image in the last set


class Engine:
    """One loaded tracker. `process` belongs to the inference thread; `reset` may be called from another."""

    def __init__(self, node: Node, tracker: Tracker, config: SynclConfig, params: NodeParams, outputs: Outputs):
        self.config = config
        self.record = Record()
        self.tracker = tracker
        self._node = node
        self._outputs = outputs
        self._coasting, self._device = params.coasting, params.device
        self._scores = np.zeros(0)  # of the last set's objects
        self._session = TrackerSession(tracker.step, tracker.init_state, config, params.device)
        self._problems = ProblemLog()
        self._lock = threading.Lock()
        self.warm_up_s = _warm_up(tracker, config, params.device)

    @property
    def session(self) -> str:
        return self._session.session

    def process(self, job: Job, live: Callable[[], Live], place: Place) -> None:
        """One set, or one prediction. An unusable set is a counted problem; DeviceError comes through."""
        with self._lock:
            started_s, values = time.monotonic(), live()
            self._session.min_cameras = values.sync.min_cameras
            if job.frame_set is None:
                self._predict(job, values, place)
                return
            try:
                report = self._session.process(job.frame_set)
            except DeviceError:
                raise
            except InputError as error:
                self._problems.add("rejected_set", str(error))
                self._node.get_logger().warning(f"set rejected: {error}", throttle_duration_sec=5.0)
                self._predict(job, values, place)
                return
            self._announce(report)
            self._scores = report.objects.scores
            stepped_s = time.monotonic()
            placed = self._placed(report.objects, place)
            objects = self._outputs.publish(report.objects, placed, values) if placed is not None else report.objects
            self._note(job, report, started_s, stepped_s, values)
            self.record.tracks = len(objects)
            self._outputs.publish_latencies(self.record.milliseconds)
            if placed is not None:
                self._outputs.publish_detections(placed)
            self._outputs.publish_pictures(job.frame_set, objects)

    def reset(self, reason: str) -> str:
        """Forget all tracks. Returns the new session ("" = there was nothing to forget).

        Raises DeviceError if the network does not return.
        """
        with self._between_steps(LONGEST_WAIT_SECONDS):
            session = self._session.reset(reason)
            if session:
                self._outputs.clear_markers(self.record.last_t_ns or 0)
            return session

    def problems(self) -> dict[str, Problem]:
        return {**self._session.problems(), **self._problems.snapshot()}

    def memory_of_sessions(self) -> dict:
        """What the next Engine of this process needs so that it repeats no session."""
        return self._session.snapshot() | {"state": None, "last_ns": None, "reset_reason": "", "session": ""}

    def continue_sessions(self, memory: dict) -> None:
        self._session.restore(memory)

    def close(self) -> None:
        """Raises DeviceError if the network does not return, which then keeps its memory."""
        with self._between_steps(1.0):  # the thread that steps has been waited for before
            self._session.close()

    @contextlib.contextmanager
    def _between_steps(self, patience_s: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=patience_s):
            raise DeviceError(f"device {self._device} hangs: the network does not return")
        try:
            yield
        finally:
            self._lock.release()

    def _announce(self, report: StepReport) -> None:
        for message in report.rejected.values():
            self._node.get_logger().warning(f"camera masked: {message}", throttle_duration_sec=5.0)
        if report.reset_reason:
            self._outputs.forget_markers()
            resets = self.record.resets
            self.record.resets = {**resets, report.reset_reason: resets.get(report.reset_reason, 0) + 1}
            self._node.get_logger().info(f"session {report.session} begins ({report.reset_reason})")

    def _placed(self, objects: ObjectSet, place: Place) -> ObjectSet | None:
        """The objects in the output frame; None, and a problem with a name, if that is not known."""
        try:
            return place(objects)
        except TransformLookupError as error:
            self._problems.add("missing_output_transform", f"output_frame: {error}")
            return None

    def _predict(self, job: Job, live: Live, place: Place) -> None:
        if self.record.told_ns is not None and job.t_ns <= self.record.told_ns:
            return  # a later moment has been told already
        objects = self._session.coast(job.t_ns) if self._coasting or job.between else None
        placed = None if objects is None else self._placed(objects, place)
        if placed is None:
            return
        self.record.told_ns = job.t_ns
        if job.between:  # with the scores of the set: nothing was missed, and no track may flicker at a threshold
            objects, placed = (dataclasses.replace(one, scores=self._scores) for one in (objects, placed))
            self._outputs.publish(objects, placed, live)
            self.record.predicted_s = time.monotonic()
            return
        self.record.tracks = len(self._outputs.publish(objects, placed, live))
        self.record.coasted += 1
        self.record.coasting, self.record.published_s = True, time.monotonic()

    def _note(self, job: Job, report: StepReport, started_s: float, stepped_s: float, live: Live) -> None:
        record, now_s = self.record, time.monotonic()
        stamps = [view.t_ns for view in job.frame_set.views if view is not None]
        now_ns = self._node.get_clock().now().nanoseconds
        seconds = {**report.seconds, "wait": started_s - job.closed_s, "publish": now_s - stepped_s}
        seconds["total"] = now_s - job.closed_s
        milliseconds = {f"processing_time/{stage}_ms": 1e3 * s for stage, s in seconds.items()}
        milliseconds["pipeline_latency_ms"] = max(0.0, (now_ns - min(stamps)) * 1e-6)
        if record.published_s is not None:
            milliseconds["cyclic_time_ms"] = 1e3 * (now_s - max(record.published_s, record.predicted_s))
        record.milliseconds = milliseconds  # whole: diagnostics walks over it in another thread
        record.latency_ms = max(0.0, (now_ns - max(stamps)) * 1e-6)  # a bag that starts again is not from the future
        record.spread_ms = (max(stamps) - min(stamps)) * 1e-6
        late = 1e3 * seconds["total"] > live.params.max_processing_ms
        if record.last_t_ns is not None and not report.reset_reason:
            record.period_s = (job.t_ns - record.last_t_ns) * 1e-9
        record.processed += 1
        record.degraded += len(report.cameras_used) < len(job.frame_set.views)
        record.rejected = report.rejected
        cameras = zip(self.config.rig.cameras, job.frame_set.views, strict=True)
        record.absent = tuple(camera for camera, view in cameras if view is None)
        record.coasting, record.published_s, record.processed_s = False, now_s, now_s
        # After published_s: whoever sees that a set was late looks at how long ago that was said.
        record.delayed_since_s = (record.delayed_since_s or job.closed_s) if late else None
        record.last_t_ns, record.told_ns, record.closed_ns = job.t_ns, job.t_ns, job.closed_ns


def _warm_up(tracker: Tracker, config: SynclConfig, device: str) -> float:
    """One step on nothing: the first call of every kernel is slow, and a live set must not wait for it. Seconds."""
    started_s = time.monotonic()
    views = (None,) * len(config.rig.cameras)
    nothing = FrameSet(t_ns=0, global_from_base=np.eye(4), base_from_model=np.eye(4), views=views)
    frame: Frame = _pytree.tree_map(lambda tensor: tensor.to(device), make_frame(nothing, config.image))
    with torch.inference_mode():
        tracker.step(tracker.init_state(1, torch.device(device)), frame)
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - started_s
