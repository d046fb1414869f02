"""`ros2 run syncl_ros tracker`: six cameras in, tracks out. Topics meet the core here; nothing is computed here.

Two threads: the executor's stores messages in the Intake and hands complete sets over, the worker's infers and
publishes. Silence on ~/tracks means that nothing was processed; an empty array, that nothing is tracked.
"""

import argparse
import dataclasses
import gc
import threading
import time

import numpy as np
import torch
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Bool
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from syncl_core.checkpoint import load_tracker
from syncl_core.config import SynclConfig, check_config
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.markers import MarkerBuilder
from syncl_core.runtime.intake import Intake
from syncl_core.runtime.problems import Problem, ProblemLog
from syncl_core.runtime.session import TrackerSession
from syncl_core.tracking.base import Tracker
from syncl_core.types import FrameSet, StepReport
from syncl_ros import conversions, params, process
from syncl_ros.diagnostics import Diagnostics
from syncl_ros.sources import Sources
from syncl_ros.worker import Worker

POLL_SECONDS = 0.02  # how late a deadline may be noticed
QUIET_POLLS = 15  # in a row without a message: a finished player has nothing on the way any more


class TrackerNode(Node):
    """Raises InputError for anything unusable at start-up; afterwards bad input is rejected, counted and named."""

    def __init__(self):
        super().__init__("tracker")
        self._params = params.declare(self)
        output_qos = conversions.reliable(conversions.DEEP if self._params.queue == "all" else 5)
        self._tracks_publisher = self.create_publisher(Detection3DArray, "~/tracks", output_qos)
        self._markers_publisher = self.create_publisher(MarkerArray, "~/markers", output_qos)
        self._ready = self.create_publisher(Bool, "~/ready", conversions.latched())
        self._finished = self.create_publisher(Bool, "~/finished", conversions.latched())
        self._session = self._make_session()
        self._markers = MarkerBuilder()
        self._problems = ProblemLog()
        self._processed = 0
        self._last_seconds: dict[str, float] = {}
        self._player_done = False
        self._quiet_polls = 0
        self.worker = Worker(self._process, keep_all=self._params.queue == "all")
        self._start_listening()
        self._diagnostics = Diagnostics(self, lambda: self._sources.image_times_s, self._all_problems, self._figures)
        self.worker.start()
        gc.freeze()  # the model's objects live as long as the process: no collection need walk them
        self._ready.publish(Bool(data=True))
        self.get_logger().info("ready")

    def close(self) -> None:
        self.worker.stop()
        self._session.close()
        self.destroy_node()

    def _start_listening(self) -> None:
        replay = self._params.queue == "all"
        # A replay must not depend on how fast it is fed, so its clock stands: stamps alone close sets.
        clock_ns = (lambda: 0) if replay else time.monotonic_ns
        self._intake = Intake(
            self._config, clock_ns, fixed_frame=self._params.fixed_frame, base_frame=self._params.base_frame
        )
        self._sources = Sources(self, self._params, self._intake, self._received)
        self._sources.subscribe(self._config.rig.cameras)
        self.create_subscription(Bool, self._params.end_topic, self._player_finished, conversions.latched())
        self.create_timer(POLL_SECONDS, self._poll, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _submit_closed_sets(self) -> None:
        for frame_set in self._intake.poll():
            self.worker.submit(frame_set)

    def _received(self) -> None:
        self._quiet_polls = 0
        self._submit_closed_sets()

    def _poll(self) -> None:
        """Close sets on time. The executor runs every waiting message between two polls, however slow it is."""
        self._quiet_polls += 1
        self._submit_closed_sets()
        if self._player_done and self._quiet_polls >= QUIET_POLLS:
            self._player_done = False
            for frame_set in self._intake.finish():
                self.worker.submit(frame_set)
            self.worker.call_when_idle(self._announce_finished)

    def _player_finished(self, message: Bool) -> None:
        self._player_done = message.data
        if not message.data:
            self._finished.publish(Bool(data=False))

    def _announce_finished(self) -> None:
        """In the worker's thread, after the last set: the final figures first."""
        self._diagnostics.publish()
        self._tracks_publisher.wait_for_all_acked(Duration(seconds=5.0))
        self._finished.publish(Bool(data=True))

    def _process(self, frame_set: FrameSet) -> None:
        """In the worker's thread."""
        try:
            report = self._session.process(frame_set)
        except InputError as error:
            self._problems.add("rejected_set", str(error))
            self.get_logger().warning(f"set rejected: {error}", throttle_duration_sec=5.0)
            return
        if report.reset_reason:
            self._markers.reset()
            self.get_logger().info(f"session {report.session} begins ({report.reset_reason})")
        self._publish(report)
        self._processed += 1
        latency_s = (self.get_clock().now().nanoseconds - report.objects.t_ns) * 1e-9  # since the newest image
        self._last_seconds = {**report.seconds, "output_latency": latency_s}

    def _publish(self, report: StepReport) -> None:
        objects = report.objects.select(report.objects.scores >= self.get_parameter("score_threshold").value)
        frame = self._params.fixed_frame
        self._tracks_publisher.publish(messages.detection3d_array(conversions.make, objects, frame))
        if self._markers_publisher.get_subscription_count():
            self._markers_publisher.publish(self._markers.build(objects, frame, conversions.make))

    def _make_session(self) -> TrackerSession:
        given = self._params
        if given.threads:
            torch.set_num_threads(given.threads)
        tracker = load_tracker(given.config, given.checkpoint, given.seed, given.device)
        self._config = dataclasses.replace(tracker.config, sync=params.declare_sync(self, tracker.config.sync))
        check_config(self._config)
        if not given.checkpoint:
            self.get_logger().warning("no checkpoint: the weights are untrained, the boxes mean nothing")
        _warm_up(tracker, self._config, given.device)
        return TrackerSession(tracker.step, tracker.init_state, self._config, given.device)

    def _all_problems(self) -> dict[str, Problem]:
        return {**self._sources.problems.snapshot(), **self._intake.problems(), **self._problems.snapshot()}

    def _figures(self) -> dict[str, object]:
        figures = {
            "processed_sets": self._processed,
            "dropped_sets": self.worker.dropped,
            "waiting_sets": self.worker.waiting,
        }
        return figures | {f"{stage}_ms": round(1e3 * seconds, 2) for stage, seconds in self._last_seconds.items()}


def _warm_up(tracker: Tracker, config: SynclConfig, device: str) -> None:
    """One step on nothing: the first call of every kernel is slow, and a live set must not wait for it."""
    views = (None,) * len(config.rig.cameras)
    session = TrackerSession(tracker.step, tracker.init_state, config, device)
    nothing = FrameSet(t_ns=0, global_from_base=np.eye(4), base_from_model=np.eye(4), views=views)
    session.process(nothing)
    session.close()


def _parameter_help() -> str:
    lines = ["parameters (--ros-args -p name:=value, or --params-file):"]
    for field in dataclasses.fields(params.NodeParams):
        choices = f" [{' | '.join(field.metadata['choices'])}]" if field.metadata["choices"] else ""
        lines.append(f"  {params.ros_name(field)} ({field.default!r}){choices}: {field.metadata['description']}")
    return "\n".join([*lines, "  sync.<field>: overrides that field of the configuration"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tracker",
        description=__doc__,
        epilog=_parameter_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return process.run(parser, lambda _, stop: _spin(stop), argv)


def _spin(stop: threading.Event) -> None:
    node = TrackerNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set() and node.worker.error is None:
            executor.spin_once(timeout_sec=0.1)
    finally:
        node.close()
    if node.worker.error is not None:
        raise node.worker.error


if __name__ == "__main__":
    raise SystemExit(main())
