"""What /diagnostics says, from made-up observations on a clock that stands."""

import pytest

pytest.importorskip("rclpy")

from syncl_core.runtime.problems import Problem
from syncl_ros import health
from syncl_ros.camera_input import CameraInput
from syncl_ros.diagnostics import Rates, file_name_and_hash
from syncl_ros.engine import Record
from syncl_ros.params import LiveParams

NOW_S = 1000.0
LIMITS = LiveParams(max_image_age_ms=500.0, max_processing_ms=200.0, max_delay_ms=1000.0)


@pytest.fixture(autouse=True)
def still_clock(monkeypatch):
    monkeypatch.setattr(health.time, "monotonic", lambda: NOW_S)


def camera(**fields) -> CameraInput:
    return CameraInput(image_topic="/a", info_topic="/a_info", image_kind=object, **fields)


@pytest.mark.parametrize(
    ("seen", "rejected", "state"),
    [
        ({}, {}, "waiting_image"),
        ({"image_s": NOW_S - 0.1}, {}, "waiting_camera_info"),
        ({"image_s": NOW_S - 0.1, "calibrated": True}, {}, "active"),
        ({"image_s": NOW_S - 0.6, "calibrated": True}, {}, "stale"),
        ({"image_s": NOW_S - 0.1, "calibrated": True, "refused_s": NOW_S - 0.2, "refused": "bad"}, {}, "rejected"),
        ({"image_s": NOW_S - 0.1, "calibrated": True, "refused_s": NOW_S - 0.7, "refused": "bad"}, {}, "active"),
        ({"image_s": NOW_S - 0.1, "calibrated": True}, {"A": "corrupt"}, "rejected"),
        ({"image_s": NOW_S + 9.0, "calibrated": True}, {}, "active"),  # ages never get negative
        # Published once, and unusable: that is the reason as long as no other one comes.
        (
            {"image_s": NOW_S - 0.1, "refused_calibration": "bad", "refused_s": NOW_S - 90, "refused": "x"},
            {},
            "rejected",
        ),
    ],
)
def test_the_state_of_a_camera(seen, rejected, state):
    record = Record(rejected=rejected)
    status = health.camera_status({"A": camera(**seen)}, record, {"A": 12.34}, LIMITS, lambda name: f"{name} is why")
    assert status.values["A.state"] == state and status.values["A.rate_hz"] == 12.3
    assert (status.level, status.message == "ok") == ((health.OK, True) if state == "active" else (health.ERROR, False))
    if state not in ("active", "rejected"):
        assert status.message == f"A {state}: A is why"
    if state == "rejected":
        assert ("corrupt" if rejected else "bad") in status.message
    assert status.values.get("A.image_age_ms", 0) >= 0


@pytest.mark.parametrize(
    ("delayed_since_s", "coasting", "level", "said"),
    [
        (None, False, health.OK, "ok"),
        (NOW_S - 0.5, False, health.WARN, "a set took 250 ms, allowed are 200"),
        (NOW_S - 3.0, False, health.ERROR, "for 2.9 s"),
        (None, True, health.WARN, "coasting"),
    ],
)
def test_sets_that_take_too_long(delayed_since_s, coasting, level, said):
    stages = {"processing_time/total_ms": 250.0, "pipeline_latency_ms": 300.0}
    record = Record(
        delayed_since_s=delayed_since_s,
        coasting=coasting,
        published_s=NOW_S - 0.1,
        milliseconds=stages,
        latency_ms=12.0,
    )
    status = health.processing_status(record, waiting=1, dropped=2, idle_s=0.9, busy_s=0.9, limits=LIMITS)
    assert status.level == level and said in status.message
    values = status.values
    assert (values["waiting_sets"], values["dropped_sets"], values["total_ms"]) == (1, 2, 250.0)
    assert (values["time_since_last_publish_ms"], values["output_latency_ms"]) == (100, 12.0)
    assert values["is_processing_time_ms_in_expected_range"] is (delayed_since_s is None)
    assert values["processing_time_ms"] == 250.0
    silent = health.processing_status(record, waiting=0, dropped=0, idle_s=1.1, busy_s=0.0, limits=LIMITS)
    assert (silent.level, "no set was processed for 1.1 s" in silent.message) == (health.ERROR, True)
    hangs = health.processing_status(record, waiting=1, dropped=9, idle_s=0.0, busy_s=30.0, limits=LIMITS)
    assert (hangs.level, "at one set for 30.0 s" in hangs.message) == (health.ERROR, True)


def test_a_camera_that_the_last_set_went_without_is_named():
    seen = camera(image_s=NOW_S - 0.1, calibrated=True)
    status = health.camera_status({"A": seen, "B": seen}, Record(absent=("B",)), {}, LIMITS, str)
    assert status.level == health.WARN and "B late" in status.message and "A" not in status.message
    gone = camera(image_s=NOW_S - 9.0, calibrated=True)
    assert health.camera_status({"B": gone}, Record(absent=("B",)), {}, LIMITS, str).level == health.ERROR
    rejected = health.camera_status({"B": seen}, Record(rejected={"B": "corrupt"}), {}, LIMITS, str)
    assert rejected.values["B.rejected"] == "corrupt"


def ego(pose_s, problems=None, fresh=frozenset(), path=None):
    path = {"base_link": True} if path is None else path
    return health.ego_motion_status("tf", path, pose_s, problems or {}, fresh, LIMITS, lambda came: f"why, {came}")


def test_the_vehicles_motion():
    problems = {
        "missing_transform": Problem(count=3, message="CAM: unknown frame 'x'"),
        "ego_jump": Problem(count=2, message="the vehicle jumped 9 m"),
    }
    none = frozenset()
    assert ego(None).level == health.ERROR and "why, False" in ego(None).message
    assert "for 2.0 s" in ego(NOW_S - 2.0).message and "why, True" in ego(NOW_S - 2.0).message
    fine = ego(NOW_S - 0.02, problems)
    assert (fine.level, fine.values["jumps"], fine.values["last_error"]) == (health.OK, 2, "CAM: unknown frame 'x'")
    for reason in problems:
        fresh = ego(NOW_S - 0.02, problems, frozenset([reason]))
        assert (fresh.level, fresh.message) == (health.WARN, problems[reason].message)
    for path in ({}, {"base_link": False}):  # a test bench
        status = ego(None, path=path)
        assert status.level == health.WARN and "never changes" in status.message
    said = health.input_status(problems, frozenset(["ego_jump"]))
    assert (said.level, said.message, said.values["missing_transform.count"]) == (1, "the vehicle jumped 9 m", 3)
    assert health.input_status(problems, none).level == health.OK


def test_another_rhythm_than_trained_is_a_warning():
    for period_s, level in (
        (None, health.OK),
        (0.5, health.OK),
        (0.38, health.OK),
        (0.25, health.WARN),
        (0.7, health.WARN),
    ):
        status = health.model_status("tiny", "a", "cpu", 0.1, 0.5, Record(period_s=period_s))
        assert status.level == level, period_s
    assert "untrained" in health.model_status("tiny", "", "cpu", 0.1, 0.5, Record()).message
    tracker = health.tracker_status("ab", Record(tracks=4, resets={"gap": 2}))
    assert (tracker.values["session"], tracker.values["tracks"], tracker.values["resets.gap"]) == ("ab", 4, 2)


def test_the_memory_of_a_gpu_is_told(monkeypatch):
    monkeypatch.setattr(health.torch.cuda, "memory_allocated", lambda device: {"cuda:0": 123_400_000}[device])
    assert health.model_status("tiny", "a", "cuda:0", 0.1, 0.5, Record()).values["gpu_memory_mb"] == 123
    assert "gpu_memory_mb" not in health.model_status("tiny", "a", "cpu", 0.1, 0.5, Record()).values


def test_rates_need_a_whole_window():
    rates = Rates()
    rates.measure({"A": 100}, 10.0)
    assert rates.measure({"A": 103}, 10.5) == {"A": 0.0}  # not yet
    assert rates.measure({"A": 124}, 12.0) == {"A": 12.0}
    assert rates.measure({"A": 999}, 12.9) == {"A": 12.0}
    assert rates.measure({"A": 5}, 14.0) == {"A": 0.0}  # counted anew after a restart


def test_a_checkpoint_is_named_with_its_hash(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"abc")
    assert file_name_and_hash(path) == "weights.safetensors (ba7816bf8f01)"  # SHA-256 of "abc"
    assert file_name_and_hash(None) == ""
