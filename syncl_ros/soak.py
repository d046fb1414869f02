"""A long drive with faults: `python -m syncl_ros.soak --minutes 20 --seed 1`. Reports lost sets, memory, reused ids.

Six synthetic cameras run live; a seeded sequence of faults (silent, corrupt and late cameras, missing poses, wrong
calibrations, a clock that jumps back, resets) comes over them, with quiet time between. In quiet time every set must
come out; memory must not grow; a session that has ended must never come back. Exit code 1 if one of these fails.
"""

import argparse
import dataclasses
import os
import threading
import time
from pathlib import Path

import numpy as np
from rclpy.node import Node
from std_srvs.srv import Trigger

from syncl_core.errors import InputError
from syncl_ros import process, resources
from syncl_ros.listener import Listener, log_folder, spinning, tracker_process, wait_until
from syncl_ros.soak_faults import RECOVERY_SECONDS, Faults, schedule
from syncl_ros.synthetic_rig import SyntheticRig, noise_jpeg, pinhole

PERIOD_SECONDS = 0.25
MAX_GROWTH_MB = 30.0
SIZE = (320, 180)


@dataclasses.dataclass(slots=True)
class Tally:
    """What came out, heard in the listener's thread."""

    arrays: int = 0
    sessions: list[str] = dataclasses.field(default_factory=list)
    reused: int = 0  # sessions that came back after another one
    arrivals_s: list[float] = dataclasses.field(default_factory=list)  # steady times

    def hear(self, t_ns: int, ids: tuple[str, ...]) -> None:
        self.arrays += 1
        self.arrivals_s.append(time.monotonic())
        for session in dict.fromkeys(identity.split("-")[0] for identity in ids):
            if not self.sessions or session != self.sessions[-1]:
                self.reused += session in self.sessions
                self.sessions.append(session)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a run."""

    seconds: float
    faults: dict[str, int]
    arrays: int
    sessions: int
    lost: int  # sets that did not come in quiet time
    due: int  # sets due in quiet time
    reused: int
    growth_mb: float  # of the resident memory, from the end of the first quiet time to the end
    memory_mb: float
    dropped: int

    @property
    def passed(self) -> bool:
        return not self.reused and self.growth_mb <= MAX_GROWTH_MB and self.lost <= max(1, 0.01 * self.due)

    def report(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items())) or "none"
        return "\n".join(
            [
                f"{self.seconds:.0f} s, faults: {faults}",
                f"{self.arrays} arrays in {self.sessions} sessions; {self.reused} sessions came back",
                f"quiet time: {self.lost} of {self.due} sets lost; {self.dropped} dropped by a busy worker",
                f"memory: {self.memory_mb:.0f} MB, grown by {self.growth_mb:+.1f} MB (allowed: {MAX_GROWTH_MB:g})",
                "passed" if self.passed else "FAILED",
            ]
        )


def run(seconds: float, seed: int, config: str, domain: int, folder: Path, stop: threading.Event) -> Outcome:
    """One soak run. Needs an initialised rclpy on the same DDS domain."""
    tally = Tally()
    listener, publisher = Listener("soak_listener", tally.hear), Node("soak_rig")
    rig = SyntheticRig(publisher, noise_jpeg(*SIZE), pinhole(*SIZE))
    given = {"sync.process_period": PERIOD_SECONDS, "sync.min_cameras": 4, "diagnostics.period": 0.5}
    module = ("syncl_ros.node", []) if config else ("syncl_ros.bench_node", ["--role", "node"])
    log = folder / "tracker.log"
    parameters = {**given, "config": config} if config else given
    reset = listener.create_client(Trigger, "/tracker/reset")
    with tracker_process(*module, parameters, domain, log) as tracker, spinning(listener):
        wait_until(lambda: listener.ready, tracker, log, 120.0)
        rig.start()
        try:
            wait_until(lambda: tally.arrays, tracker, log, 20.0)
            faults = Faults(rig, lambda: reset.call_async(Trigger.Request()))
            count, quiet, memory_mb = _drive(seconds, seed, faults, tracker, stop)
            due, lost = _losses(tally.arrivals_s, quiet)
        finally:
            rig.stop()
            publisher.destroy_node()
        if tracker.poll() is not None:
            raise InputError(f"the tracker ended by itself, see {log}")
        return Outcome(
            seconds=seconds,
            faults=count,
            arrays=tally.arrays,
            sessions=len(tally.sessions),
            lost=lost,
            due=due,
            reused=tally.reused,
            growth_mb=memory_mb[-1] - memory_mb[0],
            memory_mb=memory_mb[-1],
            dropped=listener.count("dropped_sets"),
        )


def _drive(
    seconds: float, seed: int, faults: Faults, tracker, stop: threading.Event
) -> tuple[dict[str, int], list[tuple[float, float]], list[float]]:
    """Faults in their turn. Returns how many of each, the quiet times (steady), and memory (MB) after each of them."""
    begin_s = time.monotonic()
    count: dict[str, int] = {}
    quiet, memory_mb = [], []
    quiet_from_s = begin_s + RECOVERY_SECONDS
    for fault_s, name, camera, length_s in schedule(seed, seconds, list(faults.by_name)):
        if stop.wait(max(0.0, begin_s + fault_s - time.monotonic())) or tracker.poll() is not None:
            return count, quiet, memory_mb or [0.0]
        quiet.append((quiet_from_s, time.monotonic()))
        memory_mb.append(resources.memory_mb(tracker.pid))
        end = faults.by_name[name](camera)
        count[name] = count.get(name, 0) + 1
        stop.wait(length_s)
        end()
        quiet_from_s = time.monotonic() + RECOVERY_SECONDS
    stop.wait(max(0.0, begin_s + seconds - time.monotonic()))
    quiet.append((quiet_from_s, time.monotonic()))
    memory_mb.append(resources.memory_mb(tracker.pid))
    return count, quiet, memory_mb


def _losses(arrivals_s: list[float], quiet: list[tuple[float, float]]) -> tuple[int, int]:
    """(due, lost): sets due in the quiet times, and how many of them left a hole of whole periods."""
    due = lost = 0
    for begin_s, end_s in quiet:
        inside = [begin_s, *(t for t in arrivals_s if begin_s < t < end_s), end_s]
        due += int((end_s - begin_s) / PERIOD_SECONDS)
        # 12 Hz cameras make periods of 0.25 s; half a period of delay is no hole.
        lost += sum(max(0, round(step / PERIOD_SECONDS - 0.49) - 1) for step in np.diff(inside))
    return due, lost


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="length of the run (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: 1)")
    parser.add_argument("--config", default="", help="YAML of a tracker (default: a network that costs nothing)")
    parser.add_argument("--domain", type=int, default=96, help="ROS_DOMAIN_ID of the processes (default: 96)")
    known, _ = parser.parse_known_args(argv)
    os.environ["ROS_DOMAIN_ID"] = str(known.domain)
    outcomes: list[Outcome] = []
    code = process.run(parser, lambda args, stop: outcomes.append(_soak(args, stop)), argv)
    return code or (0 if outcomes[0].passed else 1)


def _soak(args: argparse.Namespace, stop: threading.Event) -> Outcome:
    if not 0.1 <= args.minutes <= 10_000:
        raise InputError(f"--minutes {args.minutes:g}: expected 0.1 to 10000")
    with log_folder("soak") as folder:
        outcome = run(60 * args.minutes, args.seed, args.config, args.domain, folder, stop)
    print(outcome.report())
    return outcome


if __name__ == "__main__":
    raise SystemExit(main())
