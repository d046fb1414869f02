"""A long drive with faults: `python -m syncl_ros.soak --minutes 20 --seed 1`. Reports lost sets, memory, reused ids.

Six synthetic cameras run live; a seeded sequence of faults (silent, corrupt and late cameras, missing poses, wrong
calibrations, a clock that jumps back, resets, a node that gets no processor) comes over them, with quiet time between.
In quiet time every set must come out with all its cameras; memory must not grow; a session that has ended must never
come back. Exit code 1 if one of these fails.
"""

import argparse
import dataclasses
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
from rclpy.node import Node
from std_srvs.srv import Trigger

from syncl_core.classes import CAMERAS
from syncl_core.errors import InputError
from syncl_ros import process, resources
from syncl_ros.listener import Listener, log_folder, spinning, tracker_process, wait_until
from syncl_ros.soak_faults import RECOVERY_SECONDS, Faults, schedule
from syncl_ros.soak_ledger import Balance, Ledger
from syncl_ros.synthetic_rig import SyntheticRig, noise_jpeg, pinhole

PERIOD_SECONDS = 0.25
RATE_HZ = 12.0
DIAGNOSTICS_SECONDS = 0.5
MAX_GROWTH = 0.02  # of the resident memory, after the warm-up
WARM_UP = 1 / 3  # of the run, at most WARM_UP_SECONDS: every kind of fault allocates something when it first comes
WARM_UP_SECONDS = 180.0
MAX_LATE = 0.05  # of the sweeps in quiet time; with more of them too late, the machine was too busy to tell anything
SIZE = (320, 180)


@dataclasses.dataclass(slots=True)
class Tally:
    """What came out, heard in the listener's thread."""

    arrays: int = 0
    sessions: list[str] = dataclasses.field(default_factory=list)
    reused: int = 0  # sessions that came back after another one

    def hear(self, ids: tuple[str, ...]) -> None:
        self.arrays += 1
        for session in dict.fromkeys(identity.split("-")[0] for identity in ids):
            if not self.sessions or session != self.sessions[-1]:
                self.reused += session in self.sessions
                self.sessions.append(session)


@dataclasses.dataclass(slots=True)
class Course:
    """What was done and seen on the way."""

    faults: dict[str, int] = dataclasses.field(default_factory=dict)
    quiet: list[tuple[float, float]] = dataclasses.field(default_factory=list)  # (begin, end), steady
    masked: list[int] = dataclasses.field(default_factory=list)  # sets without a camera in each of them
    memory_mb: list[tuple[float, float]] = dataclasses.field(default_factory=list)  # (seconds of the run, MB)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The figures of a run."""

    seconds: float
    faults: dict[str, int]
    arrays: int
    sessions: int
    balance: Balance
    masked: int
    reused: int
    growth: float  # of the resident memory after the warm-up, as a share
    memory_mb: float
    dropped: int

    @property
    def told(self) -> bool:
        """Whether the machine played well enough to tell anything."""
        return self.balance.due > 0 and self.balance.late_sweeps <= MAX_LATE * self.balance.sweeps

    @property
    def passed(self) -> bool:
        return self.told and not (self.balance.lost or self.masked or self.reused) and self.growth <= MAX_GROWTH

    def report(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items())) or "none"
        balance = self.balance
        return "\n".join(
            [
                f"{self.seconds:.0f} s, faults: {faults}",
                f"{self.arrays} arrays in {self.sessions} sessions; {self.reused} sessions came back",
                f"quiet time: {balance.lost} of {balance.due} sets lost, {self.masked} without a camera; "
                f"in the whole run {self.dropped} dropped by a busy worker",
                f"not counted: {balance.late_sweeps} of {balance.sweeps} sweeps, sent too late by this machine "
                f"(allowed: {MAX_LATE:.0%})",
                f"memory: {self.memory_mb:.0f} MB, grown by {self.growth:+.2%} after the warm-up "
                f"(allowed: {MAX_GROWTH:.0%})",
                "passed" if self.passed else "FAILED",
            ]
        )


def run(seconds: float, seed: int, config: str, domain: int, folder: Path, stop: threading.Event) -> Outcome:
    """One soak run. Needs an initialised rclpy on the same DDS domain."""
    tally, ledger = Tally(), Ledger(len(CAMERAS), round(PERIOD_SECONDS * RATE_HZ))

    def hear(t_ns: int, ids: tuple[str, ...]) -> None:
        ledger.heard(t_ns)
        tally.hear(ids)

    listener, publisher = Listener("soak_listener", hear), Node("soak_rig")
    rig = SyntheticRig(publisher, noise_jpeg(*SIZE), pinhole(*SIZE), rate_hz=RATE_HZ, on_sent=ledger.sent)
    given = {
        "sync.process_period": PERIOD_SECONDS,
        "sync.min_cameras": 4,
        "diagnostics.period": DIAGNOSTICS_SECONDS,
    }
    module = ("syncl_ros.node", []) if config else ("syncl_ros.bench_node", ["--role", "node"])
    log = folder / "tracker.log"
    parameters = {**given, "config": config} if config else given
    reset = listener.create_client(Trigger, "/tracker/reset")
    with tracker_process(*module, parameters, domain, log) as tracker, spinning(listener):
        wait_until(lambda: listener.ready, tracker, log, 120.0, stop)
        rig.start()
        try:
            wait_until(lambda: tally.arrays, tracker, log, 20.0, stop)
            faults = Faults(rig, lambda: reset.call_async(Trigger.Request()), tracker.pid)
            course = _drive(seconds, seed, faults, tracker, listener, stop)
            time.sleep(PERIOD_SECONDS)  # what was sent last comes out
        finally:
            rig.stop()
            publisher.destroy_node()
        if tracker.poll() is not None and not stop.is_set():  # Ctrl-C reaches it, too
            raise InputError(f"the tracker ended by itself, see {log}")
        return Outcome(
            seconds=seconds,
            faults=course.faults,
            arrays=tally.arrays,
            sessions=len(tally.sessions),
            balance=ledger.balance(course.quiet),
            masked=masked(course, ledger),
            reused=tally.reused,
            growth=growth(course.memory_mb, seconds),
            memory_mb=course.memory_mb[-1][1],
            dropped=listener.count("dropped_sets"),
        )


def _drive(
    seconds: float, seed: int, faults: Faults, tracker: subprocess.Popen, listener: Listener, stop: threading.Event
) -> Course:
    """Faults in their turn, with quiet time between."""
    begin_s, course = time.monotonic(), Course()

    def quiet(begin: float, end: float) -> bool:
        """Wait for the end of a quiet time. False = there is nothing to go on for."""
        # What diagnostics say is up to a period old.
        stop.wait(max(0.0, begin + 1.2 * DIAGNOSTICS_SECONDS - time.monotonic()))
        degraded = listener.count("degraded_sets")
        if stop.wait(max(0.0, end - time.monotonic())) or tracker.poll() is not None:
            return False
        course.masked.append(listener.count("degraded_sets") - degraded)
        course.quiet.append((begin, time.monotonic()))
        course.memory_mb.append((time.monotonic() - begin_s, resources.memory_mb(tracker.pid)))
        return True

    quiet_from_s = begin_s + RECOVERY_SECONDS
    for fault_s, name, camera, length_s in schedule(seed, seconds, list(faults.by_name)):
        if not quiet(quiet_from_s, begin_s + fault_s):
            break
        end = faults.by_name[name](camera)
        course.faults[name] = course.faults.get(name, 0) + 1
        stop.wait(length_s)
        end()
        quiet_from_s = time.monotonic() + RECOVERY_SECONDS
    else:
        quiet(quiet_from_s, begin_s + seconds)
    course.memory_mb = course.memory_mb or [(0.0, 0.0)]
    return course


def masked(course: Course, ledger: Ledger) -> int:
    """Sets of quiet time without a camera; where this machine sent a sweep too late, the node had to do without."""
    windows = zip(course.quiet, course.masked, strict=True)
    return sum(count for window, count in windows if not ledger.balance([window]).late_sweeps)


def growth(memory_mb: list[tuple[float, float]], seconds: float) -> float:
    """By what share the memory has grown since the warm-up: medians of the first and the last samples after it."""
    warm_s = min(WARM_UP * seconds, WARM_UP_SECONDS)
    warm = [mb for at_s, mb in memory_mb if at_s >= warm_s] or [memory_mb[-1][1]]
    count = max(1, min(5, len(warm) // 4))
    first, last = np.median(warm[:count]), np.median(warm[-count:])
    return float(last / first - 1.0) if first else 0.0


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
