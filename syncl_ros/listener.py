"""A node process under observation: its tracks, diagnostics and latencies, received in the calling process."""

import contextlib
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Bool, Float64
from vision_msgs.msg import Detection3DArray

from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_ros import conversions
from syncl_ros.children import child_process
from syncl_ros.environment import ros_environment
from syncl_ros.outputs import LATENCIES


class Listener(Node):
    """Counts what the tracker publishes; `on_tracks(t_ns, ids)` hears every array."""

    def __init__(self, name: str, on_tracks: Callable[[int, tuple[str, ...]], None]):
        super().__init__(name)
        self.ready = False
        self.values: dict[str, str] = {}  # of all diagnostics, by key
        self.latencies: dict[str, list[float]] = {latency: [] for latency in LATENCIES}
        deep = conversions.reliable(conversions.DEEP)
        self.create_subscription(Bool, "/tracker/ready", self._heard_ready, conversions.latched())
        self.create_subscription(DiagnosticArray, "/diagnostics", self._heard_diagnostics, 10)
        for latency, values in self.latencies.items():
            topic = f"/tracker/debug/{latency}"
            self.create_subscription(Float64, topic, lambda m, v=values: v.append(m.data), deep)

        def heard(message: Detection3DArray) -> None:
            on_tracks(messages.stamp_ns(message), tuple(detection.id for detection in message.detections))

        self.create_subscription(Detection3DArray, "/tracker/tracks", heard, deep)

    def _heard_ready(self, message: Bool) -> None:
        self.ready = message.data

    def _heard_diagnostics(self, array: DiagnosticArray) -> None:
        self.values = {pair.key: pair.value for status in array.status for pair in status.values}

    def count(self, key: str) -> int:
        """A number of the diagnostics; 0 = not said yet."""
        return int(float(self.values.get(key, 0)))


@contextlib.contextmanager
def log_folder(name: str) -> Iterator[Path]:
    """A temporary folder, which stays after an error: the message points to what lies there."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}_"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def spinning(node: Node) -> Iterator[None]:
    """The node's callbacks run in a background thread."""
    executor, stop = SingleThreadedExecutor(), threading.Event()
    executor.add_node(node)

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, name="listener", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()


def tracker_process(
    module: str, arguments: Sequence[str], parameters: dict[str, object], domain: int, log: Path
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    """`python -m <module> <arguments> --ros-args -p ...` with its output in `log`; ended with SIGTERM."""
    given = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
    return child_process(module, [*arguments, "--ros-args", *given], ros_environment(domain_id=domain), log)


def wait_until(
    what: Callable[[], object],
    process: subprocess.Popen,
    log: Path,
    timeout_s: float,
    stop: threading.Event | None = None,
) -> None:
    """Raises InputError with the process's last words if it ends, or if `what()` stays false; KeyboardInterrupt if
    `stop` is set before."""
    give_up = time.monotonic() + timeout_s
    while not what():
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        if process.poll() is not None or time.monotonic() > give_up:
            lines = log.read_text(errors="replace").splitlines() or ["it said nothing"]
            raise InputError(f"the tracker did not get there: {lines[-1]} (see {log})")
        time.sleep(0.02)
