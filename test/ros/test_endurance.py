"""Some seconds of soak; a node that gets no processor for a moment; the load measurement runs."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("rclpy")

import rclpy
from processes import ROOT, RosProcess, environment
from rclpy.node import Node

from syncl_core.classes import CAMERAS
from syncl_ros import bench_node, soak, soak_faults
from syncl_ros.environment import prepare_environment
from syncl_ros.listener import Listener, spinning, tracker_process, wait_until
from syncl_ros.soak_ledger import Ledger
from syncl_ros.synthetic_rig import SyntheticRig, noise_jpeg, pinhole

DOMAIN = 60 + os.getpid() % 40


@pytest.fixture
def ros(monkeypatch):
    """An initialised rclpy on a domain of its own."""
    prepare_environment()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    rclpy.init(domain_id=DOMAIN)
    yield
    rclpy.shutdown()


def test_faults_in_a_row_lose_nothing_and_repeat_no_session(ros, tmp_path):
    outcome = soak.run(20.0, 1, "", DOMAIN, tmp_path, threading.Event())
    said = outcome.report()
    if not outcome.told:
        pytest.skip(f"this machine is too busy to play six cameras in time: {said}")
    assert outcome.passed, said
    due = outcome.balance.due
    assert sum(outcome.faults.values()) >= 3 and due > 20 and outcome.arrays > due, said


GARBAGE = """
import gc
from syncl_ros.process import keep_what_is_here
model = [[number] for number in range(300_000)]
gc.collect()
keep_what_is_here()
before, held = gc.get_stats()[2]["collections"], []
for number in range(300_000):
    cycle = []
    cycle.append(cycle)
    held.append(cycle)
    if len(held) > 3000:  # old enough for only a full collection to find it
        held.clear()
print(gc.get_stats()[2]["collections"] - before)
"""


def test_garbage_of_an_active_node_does_not_pile_up():
    said = subprocess.run([sys.executable, "-c", GARBAGE], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(said.stdout) >= 2  # full collections; without the second count there is none


def test_faults_are_seeded_and_all_of_them_come():
    names = ["a", "b", "c", "d"]
    first, again, other = (list(soak_faults.schedule(seed, 300.0, names)) for seed in (1, 1, 2))
    assert first == again != other
    assert {name for _, name, _, _ in first} == set(names)
    for (begin_s, _, _, length_s), (next_s, *_) in zip(first, first[1:], strict=False):
        assert next_s >= begin_s + length_s + soak_faults.RECOVERY_SECONDS + soak_faults.QUIET_SECONDS - 1e-9
    assert first[-1][0] + first[-1][3] + soak_faults.RECOVERY_SECONDS < 300.0


def test_a_node_that_gets_no_processor_for_a_moment_loses_no_set(ros, tmp_path):
    """0.3 s are longer than sync.timeout and shorter than what the middleware's queues hold."""
    ledger, arrived = Ledger(len(CAMERAS), 3), []

    def hear(t_ns, _):
        ledger.heard(t_ns)
        arrived.append(t_ns)

    listener, publisher = Listener("stall_listener", hear), Node("stall_rig")
    rig = SyntheticRig(publisher, noise_jpeg(320, 180), pinhole(320, 180), on_sent=ledger.sent)
    given = {"sync.process_period": 0.25, "sync.min_cameras": 4, "diagnostics.period": 0.2}
    node, log = ("syncl_ros.bench_node", ["--role", "node"], given, DOMAIN), tmp_path / "tracker.log"
    with tracker_process(*node, log) as tracker, spinning(listener):
        wait_until(lambda: listener.ready, tracker, log, 60.0)
        rig.start()
        try:
            wait_until(lambda: len(arrived) > 3, tracker, log, 20.0)
            begin_s, degraded = time.monotonic(), listener.count("degraded_sets")
            for rest_s in (0.5, 0.61, 0.73, 0.57):  # at another moment of a sweep every time
                tracker.send_signal(signal.SIGSTOP)
                time.sleep(0.3)
                tracker.send_signal(signal.SIGCONT)
                time.sleep(rest_s)
            end_s = time.monotonic()
            time.sleep(0.5)
        finally:
            rig.stop()
            publisher.destroy_node()
        balance = ledger.balance([(begin_s, end_s)])
        if balance.late_sweeps:
            pytest.skip(f"this machine is too busy to play six cameras in time: {balance}")
        assert listener.count("degraded_sets") == degraded and listener.count("dropped_sets") == 0, listener.values
    assert balance.lost == 0 and balance.due >= 8, balance


@pytest.mark.parametrize("transport", ["compressed", "raw"])
def test_the_load_measurement_counts_sets_and_times(ros, tmp_path, transport):
    figures = bench_node.measure(2.0, 5.0, 320, 180, DOMAIN, tmp_path, transport)
    assert 5 <= figures["sets"] <= 12 and 0 < figures["cpu_percent"] < 150 and figures["memory_mb"] > 100
    complete, oldest = (figures[f"{name}.p50"] for name in ("processing_time/total_ms", "pipeline_latency_ms"))
    assert 0 < complete < oldest  # cameras of a sweep fire 35 ms apart
    assert "of a core" in bench_node.report(figures, 320, 180, 5.0)


def test_the_load_measurement_is_a_program(tmp_path):
    arguments = ("--seconds", 1, "--rate", 5, "--size", "320x180", "--domain", DOMAIN)
    with RosProcess("bench_node", *arguments, env=environment(tmp_path, DOMAIN), folder=tmp_path) as bench:
        assert bench.wait(90) == 0, bench.output()
    table = [line for line in bench.output().splitlines() if line.startswith("| ")]
    assert len(table) == 8 and "sets published of sweeps sent" in table[2], bench.output()
