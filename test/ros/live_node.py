"""The tracker node as a process, six synthetic live cameras, and somebody who watches what comes out."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import rclpy
import small_drive
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from processes import RosProcess, environment
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Bool, Float64
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from syncl_core.io import messages
from syncl_core.types import ObjectSet
from syncl_ros import conversions
from syncl_ros.environment import ros_environment
from syncl_ros.synthetic_rig import SyntheticRig

PERIOD_SECONDS = 0.25
DOMAIN = 140 + os.getpid() % 40


def _request(name: str) -> ChangeState.Request:
    return ChangeState.Request(transition=Transition(id=getattr(Transition, f"TRANSITION_{name.upper()}")))


class Watcher(Node):
    """Keeps what the tracker publishes. All of it runs in one background thread."""

    def __init__(self, context):
        super().__init__("watcher", context=context)
        self.tracks: list[ObjectSet] = []
        self.markers: list[MarkerArray] = []
        self.statuses: dict[str, object] = {}
        self.latencies: dict[str, list[float]] = {}
        self.ready: bool | None = None
        self.further: list = []
        deep = conversions.reliable(100)
        self.create_subscription(
            Detection3DArray, "/tracker/tracks", lambda m: self.tracks.append(messages.object_set_from(m)), deep
        )
        self.create_subscription(MarkerArray, "/tracker/markers", self.markers.append, deep)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 10)
        self.create_subscription(Bool, "/tracker/ready", self._ready, conversions.latched())
        for name in ("pipeline_latency_ms", "processing_time/total_ms"):
            values = self.latencies[name] = []
            self.create_subscription(Float64, f"/tracker/debug/{name}", lambda m, v=values: v.append(m.data), deep)

    def _diagnose(self, array: DiagnosticArray) -> None:
        self.statuses = {status.name.split(": ")[1]: status for status in array.status}

    def _ready(self, message: Bool) -> None:
        self.ready = message.data

    def listen(self, type_name: str, topic: str, latched: bool = False) -> list:
        """Messages of a further topic of the tracker, from now on."""
        kept: list = []
        qos = conversions.latched() if latched else conversions.sensor_data(10)
        subscription = self.create_subscription(conversions.message_class(type_name), topic, kept.append, qos)
        self.further.append(subscription)
        return kept

    def stop_listening(self) -> None:
        """End what `listen` began."""
        while self.further:
            self.destroy_subscription(self.further.pop())

    def values(self, status: str) -> dict[str, str]:
        """Key and value of one diagnostic status; empty before the first."""
        found = self.statuses.get(status)
        return {pair.key: pair.value for pair in found.values} if found else {}

    def call(self, kind: type, name: str, request):
        """The response of a service of the tracker."""
        client = self.create_client(kind, f"/tracker/{name}")
        assert client.wait_for_service(20), f"no service {name}"
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        assert done.wait(30), f"{name} did not answer"
        self.destroy_client(client)
        return future.result()

    def reset(self) -> str:
        response = self.call(Trigger, "reset", Trigger.Request())
        assert response.success
        return response.message

    def set_enabled(self, value: bool) -> None:
        assert self.call(SetBool, "set_enabled", SetBool.Request(data=value)).success

    def transition(self, name: str) -> bool:
        return self.call(ChangeState, "change_state", _request(name)).success

    def begin_transition(self, name: str) -> None:
        """Ask for a transition and wait for no answer."""
        client = self.create_client(ChangeState, "/tracker/change_state")
        assert client.wait_for_service(20)
        client.call_async(_request(name))

    def state(self) -> str:
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def set_parameter(self, name: str, value) -> tuple[bool, str]:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call(SetParameters, "set_parameters", request).results[0]
        return result.successful, result.reason

    def wait(self, what: Callable[[], object], timeout_s: float = 15.0):
        """Until `what()` is true; its value."""
        give_up = time.monotonic() + timeout_s
        while not (value := what()):
            assert time.monotonic() < give_up, f"not within {timeout_s} s; diagnostics:\n{self.report()}"
            time.sleep(0.02)
        return value

    def wait_for_tracks(self, count: int = 2) -> list[ObjectSet]:
        """The next `count` messages."""
        known = len(self.tracks)
        self.wait(lambda: len(self.tracks) >= known + count)
        return self.tracks[known : known + count]

    def report(self) -> str:
        return "\n".join(f"{s.name} {s.level} {s.message}" for s in self.statuses.values())


@contextlib.contextmanager
def watching(domain: int) -> Iterator[Watcher]:
    """A Watcher on a DDS domain, spinning."""
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "AMENT_PREFIX_PATH"):
        os.environ.setdefault(name, ros_environment().get(name, ""))
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = Watcher(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        thread.join()
        executor.shutdown()  # it holds on to the node's parts between two spins
        node.destroy_node()
        rclpy.shutdown(context=context)


def node_process(folder: Path, domain: int, **parameters) -> RosProcess:
    """The tracker with a small network and a short period, on live data."""
    config = folder / "tracker.yaml"
    network = small_drive.CONFIG.replace("slots: 16", "slots: 16, score_threshold: 0.2, record_threshold: 0.2")
    config.write_text(
        network + f"sync: {{process_period: {PERIOD_SECONDS}, min_cameras: 4, coast_max: 1.5, reset_gap: 20.0}}\n"
    )
    given = {"config": config, "diagnostics.period": 0.1, "diagnostics.max_image_age_ms": 500.0, **parameters}
    arguments = [text for name, value in given.items() for text in ("-p", f"{name}:={value}")]
    return RosProcess("node", "--ros-args", *arguments, env=environment(folder, domain), folder=folder)


def make_rig(node: Node) -> SyntheticRig:
    return SyntheticRig(node, small_drive.jpeg(5), small_drive.MODEL)


def sessions(object_sets) -> list[str]:
    """Sessions in the order of their appearance."""
    return list(dict.fromkeys(identity.split("-")[0] for objects in object_sets for identity in objects.ids))


def healthy(watcher: Watcher) -> bool:
    return bool(watcher.statuses) and watcher.statuses["camera_status"].message == "ok"
