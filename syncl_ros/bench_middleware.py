"""Do six camera streams survive DDS? `python -m syncl_ros.bench_middleware` measures it with and without the profile.

One process publishes six streams of 1600x900 images at 12 Hz, the cameras 8 ms apart; another receives them with one
single-threaded rclpy executor, as the tracker does. Latency is from the stamp, taken just before `publish`, to the
callback. CPU is the share of one core that each process used while the streams ran. Needs ROS 2 Jazzy or newer.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Empty

from syncl_core.classes import CAMERAS
from syncl_ros.children import end
from syncl_ros.environment import PROFILE, ros_environment

WIDTH, HEIGHT = 1600, 900
JPEG_BYTES = 150_000  # a typical nuScenes image
RATE_HZ = 12.0
CAMERA_OFFSET = 0.008  # seconds between two cameras of a sweep
SILENCE = 2.0  # seconds after which a stream has ended
READY = "/bench/ready"
QOS = {
    "best effort": QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
    "reliable": QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE),
}
CASES = [  # (Fast DDS configuration, kind of image, reliability)
    ("default", "raw", "best effort"),
    ("default", "raw", "reliable"),
    ("default", "jpeg", "best effort"),
    ("profile", "raw", "best effort"),
    ("profile", "raw", "reliable"),
    ("profile", "jpeg", "best effort"),
    ("profile", "jpeg", "reliable"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one pair of processes does."""

    kind: str  # "raw" or "jpeg"
    reliability: str  # key of QOS
    sweeps: int  # images per camera


def make_image(kind: str) -> Image | CompressedImage:
    """A message of full size; its pixels do not matter to the transport."""
    if kind == "jpeg":
        return CompressedImage(format="jpeg", data=bytes(JPEG_BYTES))
    return Image(width=WIDTH, height=HEIGHT, step=WIDTH * 3, encoding="rgb8", data=bytes(WIDTH * HEIGHT * 3))


def publish(case: Case) -> dict:
    """Send every image at its time. Returns how many were sent and the share of a core it took."""
    node = Node("bench_publisher")
    message = make_image(case.kind)
    publishers = [node.create_publisher(type(message), topic(camera), QOS[case.reliability]) for camera in CAMERAS]
    while not node.count_publishers(READY) or any(not p.get_subscription_count() for p in publishers):
        time.sleep(0.01)
    start, cpu = time.monotonic(), time.process_time()
    for sweep in range(case.sweeps):
        for camera, publisher in enumerate(publishers):
            time.sleep(max(0.0, start + sweep / RATE_HZ + camera * CAMERA_OFFSET - time.monotonic()))
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
            publisher.publish(message)
    used = (time.process_time() - cpu) / (time.monotonic() - start)
    time.sleep(SILENCE)  # a reliable writer may still have to repeat something
    node.destroy_node()
    return {"sent": case.sweeps * len(publishers), "publisher_cpu": used}


def receive(case: Case) -> dict:
    """Receive until the streams are complete or silent. Returns the count, latencies (ms) and the share of a core."""
    node = Node("bench_subscriber")
    latencies: list[float] = []

    def arrived(message: Image | CompressedImage) -> None:
        stamp = message.header.stamp
        latencies.append((time.time_ns() - stamp.sec * 10**9 - stamp.nanosec) / 1e6)

    kind = type(make_image(case.kind))
    streams = [node.create_subscription(kind, topic(camera), arrived, QOS[case.reliability]) for camera in CAMERAS]
    while any(not stream.get_publisher_count() for stream in streams):
        time.sleep(0.01)
    node.create_publisher(Empty, READY, 1)  # that it exists is the message: best-effort images before it would be lost
    start = time.monotonic()
    cpu, end = time.process_time(), start + case.sweeps / RATE_HZ + 2 * SILENCE
    while len(latencies) < case.sweeps * len(CAMERAS) and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.2)
    used = (time.process_time() - cpu) / (case.sweeps / RATE_HZ)
    node.destroy_node()
    p50, p95, worst = np.percentile(latencies, [50, 95, 100]) if latencies else [np.nan] * 3
    return {"arrived": len(latencies), "p50_ms": p50, "p95_ms": p95, "max_ms": worst, "subscriber_cpu": used}


def topic(camera: str) -> str:
    return f"/bench/{camera.lower()}/image"


def measure(configuration: str, case: Case, domain_id: int) -> dict:
    """Run one pair of processes. Raises RuntimeError with their output if one of them fails."""
    environment = ros_environment(domain_id=domain_id, large_images=configuration == "profile")
    arguments = ["--kind", case.kind, "--reliability", case.reliability, "--sweeps", str(case.sweeps)]
    command = [sys.executable, "-m", "syncl_ros.bench_middleware", *arguments, "--role"]
    roles = [subprocess.Popen([*command, r], env=environment, stdout=subprocess.PIPE) for r in ("receive", "publish")]
    try:
        outputs = [role.communicate(timeout=case.sweeps / RATE_HZ + 60)[0] for role in roles]
    finally:
        for role in roles:
            end(role)
    if any(role.returncode for role in roles):
        raise RuntimeError(f"{configuration} {case}: a process failed, see above")
    return {key: value for output in outputs for key, value in json.loads(output).items()}


def print_table(seconds: float, domain_id: int) -> bool:
    """Measure every case. Returns whether the profile lost nothing."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = cpus[0].split(": ")[1] if cpus else platform.machine()
    print(f"{os.cpu_count()} x {model}, {platform.platform()}, load {os.getloadavg()[0]:.1f}; profile: {PROFILE}")
    print("| Fast DDS | image | QoS | arrived | latency p50 / p95 / max ms | CPU pub / sub % |")
    print("|---|---|---|---|---|---|", flush=True)
    lossless = True
    for configuration, kind, reliability in CASES:
        case = Case(kind=kind, reliability=reliability, sweeps=round(seconds * RATE_HZ))
        r = measure(configuration, case, domain_id)
        latency = f"{r['p50_ms']:.1f} / {r['p95_ms']:.1f} / {r['max_ms']:.0f}" if r["arrived"] else "-"
        cpu = f"{100 * r['publisher_cpu']:.0f} / {100 * r['subscriber_cpu']:.0f}"
        arrived = f"{r['arrived']} of {r['sent']}"
        print(f"| {configuration} | {kind} | {reliability} | {arrived} | {latency} | {cpu} |", flush=True)
        lossless &= configuration == "default" or r["arrived"] == r["sent"]
    return lossless


def main() -> int:
    """Returns 0 if the profile lost nothing, 1 if it did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of every stream (default: 8 = 576 images)")
    parser.add_argument("--domain", type=int, default=87, help="ROS_DOMAIN_ID of the processes (default: 87)")
    parser.add_argument("--role", choices=("publish", "receive"), help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--reliability", help=argparse.SUPPRESS)
    parser.add_argument("--sweeps", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.role:
        return 0 if print_table(args.seconds, args.domain) else 1
    rclpy.init()
    try:
        case = Case(kind=args.kind, reliability=args.reliability, sweeps=args.sweeps)
        print(json.dumps((publish if args.role == "publish" else receive)(case)))
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
