"""What runs while the node is active: topics -> Intake -> frame sets -> inference thread.

Two threads: the executor's stores messages and hands complete sets over, the worker's infers and publishes.
"""

import time
from collections.abc import Callable, Mapping

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Bool

from syncl_core.config import SyncConfig
from syncl_core.runtime.attended_clock import AttendedClock
from syncl_core.runtime.intake import Intake
from syncl_core.runtime.placement import placed
from syncl_core.runtime.problems import Problem
from syncl_core.types import ObjectSet
from syncl_ros import conversions, health
from syncl_ros.diagnostics import Rates
from syncl_ros.engine import Engine, Job
from syncl_ros.health import Status
from syncl_ros.params import CameraParams, Live, LiveParams, NodeParams
from syncl_ros.qos import explain_missing_pose
from syncl_ros.sources import Sources
from syncl_ros.worker import Worker

POLL_SECONDS = 0.02  # how late a deadline may be noticed
LONGEST_STEP_NS = 40_000_000  # of the clock of deadlines: after a longer absence, what came meanwhile is taken first
SHORTEST_COAST_SECONDS = 0.1  # between two predictions
BETWEEN = 0.9  # of the time between two sets may be filled with predictions
QUIET_POLLS = 15  # in a row without a message: a finished player has nothing on the way any more


def sensors_clock(node: Node) -> Callable[[], int]:
    """Nanoseconds that pass as they do for the sensors: steady ones, or with `use_sim_time` those of the simulation."""
    clock = node.get_clock()
    return (lambda: clock.now().nanoseconds) if node.get_parameter("use_sim_time").value else time.monotonic_ns


class Pipeline:
    """Raises InputError where the topics cannot be subscribed to. `enabled` False = sets are ignored.

    `on_error(error)` is called in the executor's thread when inference has failed: nothing is processed any more.
    `on_played(over)` is called when a player says whether a recording is over: with True in the inference thread, after
    its last set. `on_crowded(crowded)` is called in the executor's thread when a replay should wait, and when not.
    """

    def __init__(
        self,
        node: Node,
        params: NodeParams,
        camera_params: Mapping[str, CameraParams],
        engine: Engine,
        live: Callable[[], Live],
        live_sync: Callable[[], SyncConfig],
        on_error: Callable[[Exception], None],
        on_played: Callable[[bool], None],
        on_crowded: Callable[[bool], None],
    ):
        self.enabled = True
        self._node, self._params, self._engine = node, params, engine
        self._on_error, self._on_played, self._on_crowded = on_error, on_played, on_crowded
        self._replay = params.queue == "all"
        self._quiet_polls = 0
        self._player_done = False
        self._over = False  # the recording has been processed to its end
        self._crowded = False
        self._held_up = 0
        self._rates = Rates()
        self._attentive_since_s = time.monotonic()
        # A replay must not depend on how fast it is fed, so its clock stands: stamps alone close sets.
        self._sensors_ns = sensors_clock(node)
        self._clock_ns = (lambda: 0) if self._replay else AttendedClock(LONGEST_STEP_NS, sensors_ns=self._sensors_ns)
        self._published_s, self._published_ns = None, 0  # last message, and when it was noticed on that clock
        names = ("fixed_frame", "base_frame", "output_frame", "model_frame")
        frames = {name: getattr(params, name) for name in names}
        self._intake = Intake(engine.config, self._clock_ns, **frames, ego_wait_s=params.ego_wait)
        self._live, self._live_sync, self._sync = live, live_sync, engine.config.sync
        self._worker = Worker(lambda job: engine.process(job, live, self._place), keep_all=self._replay)
        self._sources = Sources(node, params, engine.config, camera_params, self._intake, self._received)
        try:
            self._sources.subscribe()
        except Exception:
            self._sources.close()
            raise
        self._end = node.create_subscription(Bool, params.end_topic, self._player_finished, conversions.latched())
        self._timer = node.create_timer(POLL_SECONDS, self._poll, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._worker.start()

    def close(self) -> None:
        """Unsubscribe and end the inference thread, which finishes the set at hand."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._end)
        self._sources.close()
        self._worker.stop()

    def problems(self) -> dict[str, Problem]:
        return {**self._sources.problems.snapshot(), **self._intake.problems()}

    def statuses(self, problems: Mapping[str, Problem], fresh: frozenset[str], limits: LiveParams) -> list[Status]:
        """Cameras, processing and ego motion."""
        cameras, record = self._sources.cameras, self._engine.record
        if self._over:  # nothing is expected to come
            return health.at_rest(record)
        rates_hz = self._rates.measure({c: seen.images for c, seen in cameras.items()}, time.monotonic())
        worker = self._worker
        processing = health.processing_status(
            record, worker.waiting, worker.dropped, self._idle_s(), worker.busy_s, limits
        )
        if self._crowded:  # the player was asked to wait
            return [*health.inputs_at_rest(record, "the replay waits for the network"), processing]
        return [
            health.camera_status(cameras, record, rates_hz, limits, self._sources.why_silent),
            processing,
            health.ego_motion_status(
                self._params.ego_source,
                self._intake.vehicle_path(),
                self._sources.pose_s,
                problems,
                fresh,
                limits,
                lambda came: explain_missing_pose(self._node, self._params, came),
            ),
        ]

    def _idle_s(self) -> float:
        """Seconds without a processed set; 0 while sets are ignored, and while the network is at one."""
        if not self.enabled or self._worker.busy:
            self._attentive_since_s = time.monotonic()
        return time.monotonic() - max(self._attentive_since_s, self._engine.record.processed_s)

    def _place(self, objects: ObjectSet) -> ObjectSet:
        """Into the output frame. What is predicted ahead of all poses takes a predicted pose, too."""
        if not self._params.output_frame:
            return objects
        ahead_s = self._sync.coast_max if "coasting" in objects.states else self._sync.max_extrapolation
        return placed(objects, self._intake.output_from_fixed(objects.t_ns, ahead_s))

    def _received(self) -> None:
        self._quiet_polls = 0
        self._over = False
        self._submit_closed_sets()

    def _submit_closed_sets(self) -> None:
        for frame_set in self._intake.poll():
            if self.enabled:
                self._worker.submit(self._job(frame_set.t_ns, frame_set=frame_set))
        for missed in self._intake.take_missed():
            if self.enabled:
                self._worker.offer(self._job(missed.t_ns))
        self._tell_crowded()

    def _tell_crowded(self) -> None:
        if self._replay and self._worker.crowded != self._crowded:
            self._crowded = not self._crowded
            self._on_crowded(self._crowded)

    def _poll(self) -> None:
        """Close sets on time."""
        self._quiet_polls += 1
        if (sync := self._live_sync()) != self._sync:
            self._sync = sync
            self._intake.set_limits(sync)
        self._submit_closed_sets()
        if self._worker.error is not None:
            self._on_error(self._worker.error)
            return
        if self._worker.held_up > self._held_up:
            self._held_up = self._worker.held_up
            text = "the replay runs ahead of the network and is held up: play it slower, or with this project's player"
            self._node.get_logger().warning(text, throttle_duration_sec=5.0)
        self._coast_while_silent()
        self._predict_between()
        if self._player_done and self._quiet_polls >= QUIET_POLLS:
            self._player_done = False
            for frame_set in self._intake.finish():
                self._worker.submit(self._job(frame_set.t_ns, frame_set=frame_set))
            self._worker.call_when_idle(self._announce_end)

    def _announce_end(self) -> None:
        self._on_played(True)
        self._over = True

    def _coast_while_silent(self) -> None:
        """Without any image no set becomes due, so the clock asks for predictions."""
        record, sync = self._engine.record, self._sync
        if self._replay or not self.enabled or not self._params.coasting or record.last_t_ns is None:
            return
        if record.published_s != self._published_s:
            self._published_s, self._published_ns = record.published_s, self._clock_ns()
        usual_s = min(record.period_s or 0.0, sync.coast_max)  # cameras may be slower than process_period
        period_s = max(sync.process_period, usual_s, SHORTEST_COAST_SECONDS)
        silent_s = (self._clock_ns() - self._published_ns) * 1e-9
        if silent_s > period_s + (0.0 if record.coasting else sync.timeout + SHORTEST_COAST_SECONDS):
            self._worker.offer(self._job(record.last_t_ns + self._sensors_ns() - record.closed_ns))

    def _predict_between(self) -> None:
        """Between two sets the objects move on, as often as publish_rate asks; while the network computes, none do.

        Not beyond the time of the next set: stamps on a topic should not go back.
        """
        record, rate_hz = self._engine.record, self._live().params.publish_rate
        if not rate_hz or self._replay or not self.enabled or record.period_s is None or record.coasting:
            return
        ahead_ns = self._sensors_ns() - record.closed_ns
        since_s = time.monotonic() - max(record.published_s, record.predicted_s)
        if since_s >= 1.0 / rate_hz - POLL_SECONDS / 2 and ahead_ns < 1e9 * BETWEEN * record.period_s:
            self._worker.offer(self._job(record.last_t_ns + ahead_ns, between=True))

    def _job(self, t_ns: int, **more) -> Job:
        return Job(t_ns=t_ns, closed_s=time.monotonic(), closed_ns=self._sensors_ns(), **more)

    def _player_finished(self, message: Bool) -> None:
        self._player_done = message.data
        if not message.data:
            self._on_played(False)
