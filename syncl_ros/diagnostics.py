"""/diagnostics: asks for the statuses once a period and publishes them, on a steady clock.

Timers on ROS time stop while a bag is paused, and that is when somebody looks.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from syncl_core.runtime.problems import Problem
from syncl_ros.health import Status

LEVELS = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR)


class Diagnostics:
    """Publishes `collect(fresh)` every `period_s`; `fresh` are the problems that were counted since the last time."""

    def __init__(
        self,
        node: Node,
        period_s: float,
        problems: Callable[[], Mapping[str, Problem]],
        collect: Callable[[Mapping[str, Problem], frozenset[str]], list[Status]],
    ):
        self._node = node
        self._problems = problems
        self._collect = collect
        self._counted: dict[str, int] = {}
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        node.create_timer(period_s, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self) -> None:
        problems = self._problems()
        fresh = frozenset(r for r, problem in problems.items() if problem.count != self._counted.get(r, 0))
        self._counted = {reason: problem.count for reason, problem in problems.items()}
        array = DiagnosticArray(status=[self._message(status) for status in self._collect(problems, fresh)])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _message(self, status: Status) -> DiagnosticStatus:
        pairs = [KeyValue(key=key, value=str(value)) for key, value in status.values.items()]
        name = f"{self._node.get_fully_qualified_name().lstrip('/')}: {status.name}"  # two trackers are told apart
        return DiagnosticStatus(level=LEVELS[status.level], name=name, message=status.message, values=pairs)


class Rates:
    """Images per second and camera, over at least WINDOW_SECONDS."""

    WINDOW_SECONDS = 1.0

    def __init__(self):
        self._counts: dict[str, int] = {}
        self._since_s = 0.0
        self._rates: dict[str, float] = {}

    def measure(self, counts: Mapping[str, int], now_s: float) -> dict[str, float]:
        """Rates of the last whole window; `counts` of messages so far."""
        elapsed_s = now_s - self._since_s
        if not self._counts or elapsed_s >= self.WINDOW_SECONDS:
            new = {camera: max(0, count - self._counts.get(camera, count)) for camera, count in counts.items()}
            self._rates = {camera: number / elapsed_s for camera, number in new.items()}
            self._counts, self._since_s = dict(counts), now_s
        return self._rates


def file_name_and_hash(path: Path | None) -> str:
    """ "name (sha256 prefix)" of a checkpoint; "" for none."""
    if path is None:
        return ""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{path.name} ({digest.hexdigest()[:12]})"
