"""Some seconds of soak, and what it counts; the load measurement runs."""

import os
import threading

import pytest

pytest.importorskip("rclpy")

import rclpy

from syncl_ros import bench_node, soak, soak_faults
from syncl_ros.environment import prepare_environment

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
    assert outcome.passed, said
    assert sum(outcome.faults.values()) >= 3 and outcome.due > 20 and outcome.arrays > outcome.due, said


def test_faults_are_seeded_and_all_of_them_come():
    names = ["a", "b", "c", "d"]
    first, again, other = (list(soak_faults.schedule(seed, 300.0, names)) for seed in (1, 1, 2))
    assert first == again != other
    assert {name for _, name, _, _ in first} == set(names)
    for (begin_s, _, _, length_s), (next_s, *_) in zip(first, first[1:], strict=False):
        assert next_s >= begin_s + length_s + soak_faults.RECOVERY_SECONDS + soak_faults.QUIET_SECONDS - 1e-9
    assert first[-1][0] + first[-1][3] + soak_faults.RECOVERY_SECONDS < 300.0


def test_holes_in_quiet_time_are_lost_sets():
    period = soak.PERIOD_SECONDS
    regular = [i * period for i in range(1, 41)]
    assert soak._losses(regular, [(0.0, 10.1)]) == (40, 0)
    assert soak._losses([t for t in regular if t not in (2.5, 2.75)], [(0.0, 10.1)]) == (40, 2)
    half = [t for t in regular if t < 5.0]
    assert soak._losses(half, [(0.0, 4.9), (9.0, 10.0)]) == (23, 3)  # nothing at all in the second
    assert soak._losses([t + 0.1 * (i % 2) for i, t in enumerate(regular)], [(0.0, 10.1)]) == (40, 0)  # jitter


def test_a_session_that_comes_back_is_counted():
    tally = soak.Tally()
    for ids in (("a-1", "a-2"), (), ("b-1",), ("b-2",), ("a-3",)):
        tally.hear(0, ids)
    assert (tally.arrays, tally.sessions, tally.reused) == (5, ["a", "b", "a"], 1)


@pytest.mark.parametrize("transport", ["compressed", "raw"])
def test_the_load_measurement_counts_sets_and_times(ros, tmp_path, transport):
    figures = bench_node.measure(2.0, 5.0, 320, 180, DOMAIN, tmp_path, transport)
    assert 5 <= figures["sets"] <= 12 and 0 < figures["cpu_percent"] < 150 and figures["memory_mb"] > 100
    complete, oldest = (figures[f"{name}.p50"] for name in ("processing_time/total_ms", "pipeline_latency_ms"))
    assert 0 < complete < oldest  # cameras of a sweep fire 35 ms apart
    assert "of a core" in bench_node.report(figures, 320, 180, 5.0)
