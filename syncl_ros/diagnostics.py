"""/diagnostics: which camera is missing, what was rejected and why, how fast sets are processed."""

import time
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from syncl_core.runtime.problems import Problem

PERIOD_SECONDS = 1.0
STALE_SECONDS = 1.0  # a camera without an image for so long is reported


class Diagnostics:
    """Publishes three statuses once a second: cameras, input (named problems) and processing (figures).

    The arguments are asked at every publication: steady time of each camera's latest image (None = there was none),
    problems by reason, figures by name. Runs on a steady clock, as timers on ROS time stop while a bag is paused.
    """

    def __init__(
        self,
        node: Node,
        image_times: Callable[[], dict[str, float | None]],
        problems: Callable[[], dict[str, Problem]],
        figures: Callable[[], dict[str, object]],
    ):
        self._node = node
        self._image_times = image_times
        self._problems = problems
        self._figures = figures
        self._counted: dict[str, int] = {}
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        node.create_timer(PERIOD_SECONDS, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self) -> None:
        processing = self._status("processing", DiagnosticStatus.OK, "ok", self._figures())
        array = DiagnosticArray(status=[self._cameras(), self._input(), processing])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _cameras(self) -> DiagnosticStatus:
        """ERROR, with their names, while cameras are silent."""
        values, silent = {}, []
        for camera, last_s in self._image_times().items():
            age_s = None if last_s is None else time.monotonic() - last_s
            state = "waiting_image" if age_s is None else "stale" if age_s > STALE_SECONDS else "active"
            values[f"{camera}.state"] = state
            if age_s is not None:
                values[f"{camera}.image_age_ms"] = round(1e3 * age_s)
            if state != "active":
                silent.append(f"{camera} {state}")
        level = DiagnosticStatus.ERROR if silent else DiagnosticStatus.OK
        return self._status("cameras", level, ", ".join(silent) or "ok", values)

    def _input(self) -> DiagnosticStatus:
        """WARN while problems come, OK when there were none since the last report."""
        problems = self._problems()
        fresh = [
            problem.message for reason, problem in problems.items() if problem.count > self._counted.get(reason, 0)
        ]
        self._counted = {reason: problem.count for reason, problem in problems.items()}
        values: dict[str, object] = {f"{reason}.count": problem.count for reason, problem in problems.items()}
        values |= {f"{reason}.last": problem.message for reason, problem in problems.items()}
        return self._status(
            "input", DiagnosticStatus.WARN if fresh else DiagnosticStatus.OK, "; ".join(fresh) or "ok", values
        )

    def _status(self, part: str, level: bytes, message: str, values: dict[str, object]) -> DiagnosticStatus:
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return DiagnosticStatus(level=level, name=f"{self._node.get_name()}: {part}", message=message, values=pairs)
