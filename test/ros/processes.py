"""Real processes on a DDS domain of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from syncl_ros.children import end
from syncl_ros.environment import ros_environment

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path, domain: int) -> dict[str, str]:
    # A sourced ROS 2 is found through PYTHONPATH: what stands there already stays.
    places = [str(ROOT), str(ROOT / "test" / "ros"), os.environ.get("PYTHONPATH", "")]
    extra = {
        "ROS_LOG_DIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
    }
    return {**ros_environment(domain_id=domain), **extra}


class RosProcess:
    """`python -m syncl_ros.<module> <arguments>`, ended by SIGINT at the end of the block, killed if need be.

    A `module` of this folder has a dot in front: ".slow_node".
    """

    def __init__(self, module: str, *arguments: object, env: dict[str, str], folder: Path):
        self.log = folder / f"{module.lstrip('.')}.log"
        name = module[1:] if module.startswith(".") else f"syncl_ros.{module}"
        command = [sys.executable, "-m", name, *map(str, arguments)]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def __enter__(self) -> "RosProcess":
        return self

    def __exit__(self, *_) -> None:
        end(self.process, signal.SIGINT, grace_s=10.0)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Exit code; fails with the process's output if it does not end."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.log.stem} still runs after {timeout_s} s:\n{self.output()}") from None

    def wait_for_output(self, text: str, timeout_s: float = 60.0, count: int = 1) -> None:
        give_up = time.monotonic() + timeout_s
        while self.output().count(text) < count:
            assert self.process.poll() is None and time.monotonic() < give_up, f"no {text!r} in:\n{self.output()}"
            time.sleep(0.05)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def output(self) -> str:
        return self.log.read_text()
