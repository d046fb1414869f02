"""The tracker node with a network that takes its time: `python -m slow_node SECONDS MAX_WAITING --ros-args ...`."""

import argparse
import sys
import time

from syncl_ros import process, worker
from syncl_ros.node import TrackerNode, spin
from syncl_ros.still_tracker import StillTracker, load_still_tracker


def main() -> int:
    parser = argparse.ArgumentParser(prog="slow_node")
    parser.add_argument("seconds", type=float)
    parser.add_argument("max_waiting", type=int)
    parser.add_argument("--loads", type=float, default=0.0, help="seconds")
    return process.run(parser, run, None)


def run(args: argparse.Namespace, stop) -> None:
    worker.MAX_WAITING = args.max_waiting

    def load(*given) -> StillTracker:
        print("loading", flush=True)
        time.sleep(args.loads)
        tracker = load_still_tracker(*given)
        step = tracker.step

        def slow(state, frame):
            time.sleep(args.seconds)
            return step(state, frame)

        tracker.step = slow
        return tracker

    spin(stop, lambda: TrackerNode(load=load))


if __name__ == "__main__":
    sys.exit(main())
