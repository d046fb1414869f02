"""How much the node itself costs: `syncl bench node`, six 1600x900 cameras at 12 Hz.

The tracker process runs a network that costs nothing (`still_tracker`), so what is measured is receiving, joining,
decoding, scaling and publishing. Set-complete-to-published and oldest-stamp-to-published are the node's own figures
(~/debug); CPU is the share of one core that the process used meanwhile.
"""

import argparse
import os
import re
import threading
import time
from pathlib import Path

import numpy as np
from rclpy.node import Node

from syncl_core.errors import InputError
from syncl_ros import process, resources
from syncl_ros.listener import Listener, log_folder, spinning, tracker_process, wait_until
from syncl_ros.node import TrackerNode, spin
from syncl_ros.still_tracker import load_still_tracker
from syncl_ros.synthetic_rig import SyntheticRig, noise_jpeg, noise_pixels, pinhole

SETTLE_SECONDS = 1.5  # before measuring
_PROCESSED = "processing_time/total_ms"  # told once for every processed set


def measure(
    seconds: float,
    rate_hz: float,
    width: int,
    height: int,
    domain: int,
    folder: Path,
    transport: str = "compressed",
    stop: threading.Event | None = None,
) -> dict[str, float]:
    """Figures of one run. Needs an initialised rclpy on the same DDS domain. Setting `stop` ends it with
    KeyboardInterrupt: a part of it tells nothing."""
    stop = stop or threading.Event()
    arrived: list[int] = []
    listener = Listener("bench_listener", lambda t_ns, _: arrived.append(t_ns))
    publisher = Node("bench_rig")
    image = (noise_pixels if transport == "raw" else noise_jpeg)(width, height)
    rig = SyntheticRig(publisher, image, pinhole(width, height), rate_hz=rate_hz)
    log = folder / "tracker.log"
    with (
        tracker_process(
            "syncl_ros.bench_node", ["--role", "node"], {"image_transport": transport}, domain, log
        ) as tracker,
        spinning(listener),
    ):
        wait_until(lambda: listener.ready, tracker, log, 60.0, stop)
        rig.start()
        try:
            wait_until(lambda: arrived, tracker, log, 20.0, stop)
            stop.wait(SETTLE_SECONDS)
            begin = (time.monotonic(), resources.cpu_seconds(tracker.pid), rig.sweeps)
            marks = {name: len(values) for name, values in listener.latencies.items()}
            if stop.wait(seconds):
                raise KeyboardInterrupt
            end = (time.monotonic(), resources.cpu_seconds(tracker.pid), rig.sweeps)
            memory_mb = resources.memory_mb(tracker.pid)
        finally:
            rig.stop()
            publisher.destroy_node()
    elapsed_s, cpu_s, sweeps = (after - before for before, after in zip(begin, end, strict=True))
    # Not the messages on ~/tracks, of which some may be predictions.
    sets = len(listener.latencies[_PROCESSED]) - marks[_PROCESSED]
    figures = {"sets": sets, "sweeps": sweeps, "cpu_percent": 100 * cpu_s / elapsed_s, "memory_mb": memory_mb}
    for name, values in listener.latencies.items():
        if measured := values[marks[name] :]:
            figures[f"{name}.p50"], figures[f"{name}.p99"] = np.percentile(measured, [50, 99])
    return figures | {"image_kb": len(image.data) / 1e3}


def report(figures: dict[str, float], width: int, height: int, rate_hz: float, transport: str = "compressed") -> str:
    """The figures as a Markdown table."""
    kind = "raw images" if transport == "raw" else "JPEGs"
    rows = [
        (f"input: six {width}x{height} {kind} of {figures['image_kb']:.0f} kB at {rate_hz:g} Hz", ""),
        ("sets published of sweeps sent", f"{figures['sets']:.0f} of {figures['sweeps']:.0f}"),
        ("set complete to published, p50 / p99 ms", _pair(figures, _PROCESSED)),
        ("oldest stamp to published, p50 / p99 ms", _pair(figures, "pipeline_latency_ms")),
        ("of which decoding and scaling, p50 / p99 ms", _pair(figures, "processing_time/prepare_ms")),
        ("CPU, % of a core", f"{figures['cpu_percent']:.0f}"),
        ("resident memory, MB", f"{figures['memory_mb']:.0f}"),
    ]
    machine = f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    return "\n".join(["| " + machine + " | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)])


def _pair(figures: dict[str, float], name: str) -> str:
    return f"{figures[f'{name}.p50']:.1f} / {figures[f'{name}.p99']:.1f}" if f"{name}.p50" in figures else "-"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench_node", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure (default: 20)")
    parser.add_argument("--rate", type=float, default=12.0, help="images per second and camera (default: 12)")
    parser.add_argument("--size", default="1600x900", help="of the images (default: 1600x900)")
    parser.add_argument("--transport", choices=("compressed", "raw"), default="compressed", help="of the images")
    parser.add_argument("--domain", type=int, default=97, help="ROS_DOMAIN_ID of the processes (default: 97)")
    parser.add_argument("--role", choices=("node",), help=argparse.SUPPRESS)
    known, _ = parser.parse_known_args(argv)
    if not known.role:
        os.environ["ROS_DOMAIN_ID"] = str(known.domain)
    return process.run(parser, _run, argv)


def _run(args: argparse.Namespace, stop: threading.Event) -> None:
    if args.role == "node":
        spin(stop, lambda: TrackerNode(load=load_still_tracker))
        return
    size = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", args.size)
    if not size or not 0.1 <= args.rate <= 100 or not 0.5 <= args.seconds <= 3600:
        raise InputError(
            f"--size {args.size}, --rate {args.rate:g}, --seconds {args.seconds:g}: expected a size such as 1600x900, "
            "a rate within 0.1 and 100, seconds within 0.5 and 3600"
        )
    width, height = map(int, size.groups())
    with log_folder("bench_node") as folder:
        figures = measure(args.seconds, args.rate, width, height, args.domain, folder, args.transport, stop)
    print(report(figures, width, height, args.rate, args.transport))


if __name__ == "__main__":
    raise SystemExit(main())
