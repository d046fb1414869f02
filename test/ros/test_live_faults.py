"""Everything that goes wrong on a vehicle: a real node, live cameras over DDS, and one fault after the other.

One node lives through all of them; each test leaves it healthy.
"""

import dataclasses
import time

import pytest

pytest.importorskip("rclpy")

import numpy as np
from live_node import DOMAIN, healthy, sessions
from processes import RosProcess, environment

from syncl_core.classes import CAMERAS
from syncl_core.io import messages
from syncl_core.types import CameraModel
from syncl_ros import conversions

ERROR, WARN = b"\x02", b"\x01"


def state_of(watcher, camera: str) -> str:
    return watcher.values("camera_status")[f"{camera}.state"]


def test_the_doctor_finds_what_is_wrong_with_a_vehicle(watcher, rig, tmp_path):
    rig.silent.add("CAM_BACK")
    rig.stamp_error_s["CAM_FRONT_LEFT"] = -0.030
    rig.info["CAM_FRONT"] = CameraModel(width=320, height=180, intrinsics=np.zeros((3, 3)))
    given = ("-p", "sync.max_spread:=0.015", "-p", "cameras.cam_front_right.image_topic:=/nobody")
    arguments = ("--ros-args", *given, "-p", "cameras.cam_back_right.frame_id:=nowhere")
    try:
        with RosProcess("doctor", *arguments, env=environment(tmp_path, DOMAIN), folder=tmp_path) as doctor:
            assert doctor.wait(60) == 1, doctor.output()
    finally:
        rig.stamp_error_s.clear()
    said = {line.split(":")[0].split()[1]: [] for line in doctor.output().splitlines() if ":" in line}
    for line in doctor.output().splitlines():
        if ":" in line:
            said[line.split(":")[0].split()[1]].append(line)
    wrong = {camera: " ".join(line for line in lines if line.startswith("CHANGE")) for camera, lines in said.items()}
    assert "nobody publishes /nobody/compressed" in wrong["CAM_FRONT_RIGHT"]
    assert "nothing arrives" in wrong["CAM_BACK"]
    assert "calibration: camera is not calibrated" in wrong["CAM_FRONT"]
    assert "nowhere" in wrong["CAM_BACK_RIGHT"] and "frame_id" in wrong["CAM_BACK_RIGHT"]
    # It fires 14 ms after the front camera and its clock is 30 ms late.
    assert "cameras.cam_front_left.stamp_offset: 0.016" in wrong["CAM_FRONT_LEFT"]
    assert any(line.startswith("ok") and "12." in line for line in said["CAM_BACK_LEFT"]), doctor.output()


def test_the_doctor_hears_what_a_vehicle_remaps(watcher, rig, tmp_path):
    """As the tracker does under the launch file."""
    car = tmp_path / "car.yaml"
    car.write_text("remaps: {/tf: /nobody_tf, /cam_back/image/compressed: /nobody_back}")
    arguments = ("--seconds", "2", "--ros-args", "-p", f"vehicle:={car}")
    with RosProcess("doctor", *arguments, env=environment(tmp_path, DOMAIN), folder=tmp_path) as doctor:
        assert doctor.wait(60) == 1, doctor.output()
    wrong = [line for line in doctor.output().splitlines() if line.startswith("CHANGE")]
    assert any("nobody publishes /nobody_tf" in line for line in wrong), doctor.output()
    assert any(line.startswith("CHANGE  CAM_BACK: ") and "/nobody_back" in line for line in wrong), doctor.output()


@pytest.mark.parametrize(
    ("vehicle", "culprit"),
    [("5", "parameter vehicle: expected str, got 5"), ("{car}", "ROS arguments: ")],
)
def test_the_doctor_refuses_in_one_line(vehicle, culprit, tmp_path, domain):
    car = tmp_path / "car.yaml"
    car.write_text('remaps: {"/a b": /c}')
    arguments = ("--ros-args", "-p", f"vehicle:={vehicle.format(car=car)}")
    with RosProcess("doctor", *arguments, env=environment(tmp_path, domain), folder=tmp_path) as doctor:
        assert doctor.wait(60) == 2, doctor.output()
    assert doctor.output().startswith(f"doctor: error: {culprit}") and doctor.output().count("\n") == 1


def test_a_silent_camera_is_named_and_tracking_goes_on_without_it(watcher, rig):
    rig.silent.add("CAM_BACK")
    watcher.wait(lambda: state_of(watcher, "CAM_BACK") == "stale")
    said = watcher.statuses["camera_status"]
    assert said.level == ERROR and "CAM_BACK stale: /cam_back/image/compressed" in said.message
    degraded = int(watcher.values("camera_status")["degraded_sets"])
    before = sessions(watcher.tracks[-2:])
    object_sets = watcher.wait_for_tracks(3)
    assert sessions(object_sets) == before  # the memory is kept
    watcher.wait(lambda: int(watcher.values("camera_status")["degraded_sets"]) >= degraded + 2)
    rig.silent.clear()
    watcher.wait(lambda: healthy(watcher))


def test_a_camera_that_is_late_is_masked_and_named_and_its_old_images_are_never_used(watcher, rig):
    before = sessions(watcher.tracks[-2:])
    rig.late_s["CAM_BACK"] = 0.3  # longer than sync.timeout
    said = watcher.wait(lambda: s if "late" in (s := watcher.statuses["camera_status"]).message else None)
    assert said.level == WARN and "CAM_BACK late" in said.message and state_of(watcher, "CAM_BACK") == "active"
    assert sessions(watcher.wait_for_tracks(3)) == before
    assert float(watcher.values("camera_status")["max_inter_camera_time_diff_ms"]) <= 35.1  # of one sweep
    rig.late_s.clear()
    watcher.wait(lambda: healthy(watcher))


def test_a_camera_whose_publisher_ends_is_told_from_a_silent_one_and_comes_back_as_another(watcher, rig):
    before = sessions(watcher.tracks[-2:])
    rig.silent.add("CAM_FRONT_LEFT")
    rig.end_publishers("CAM_FRONT_LEFT")
    topic = "/cam_front_left/image/compressed"
    watcher.wait(lambda: f"nobody publishes {topic}" in watcher.statuses["camera_status"].message)
    assert watcher.statuses["camera_status"].level == ERROR
    assert sessions(watcher.wait_for_tracks(3)) == before
    rig.start_publishers("CAM_FRONT_LEFT")
    rig.silent.clear()
    watcher.wait(lambda: healthy(watcher))
    assert sessions(watcher.wait_for_tracks(1)) == before


def test_bytes_that_are_no_message_at_all_end_nothing(stage, watcher):
    noise = np.random.default_rng(3)
    kinds = {
        "/cam_front/image/compressed": (messages.COMPRESSED_IMAGE, conversions.sensor_data(5)),
        "/cam_front/camera_info": (messages.CAMERA_INFO, conversions.sensor_data(5)),
        "/tf": (messages.TF, conversions.reliable(10)),
    }
    publishers = [
        watcher.create_publisher(conversions.message_class(kind), topic, qos) for topic, (kind, qos) in kinds.items()
    ]
    for _ in range(20):
        for publisher in publishers:
            publisher.publish(b"\x00\x01\x00\x00" + noise.bytes(int(noise.integers(0, 60))))
        time.sleep(0.02)
    for publisher in publishers:
        watcher.destroy_publisher(publisher)
    watcher.wait_for_tracks(2)
    watcher.wait(lambda: healthy(watcher))
    assert stage[0].process.poll() is None and "Traceback" not in stage[0].output()


def test_corrupt_images_mask_their_camera_only(watcher, rig):
    before = sessions(watcher.tracks[-2:])
    rig.corrupt.add("CAM_FRONT")
    watcher.wait(lambda: state_of(watcher, "CAM_FRONT") == "rejected")
    assert "CAM_FRONT" in watcher.statuses["camera_status"].message
    assert "corrupt JPEG" in watcher.statuses["camera_status"].message
    assert sessions(watcher.wait_for_tracks(2)) == before
    rig.corrupt.clear()
    watcher.wait(lambda: healthy(watcher))


def test_a_calibration_for_other_images_is_named(watcher, rig):
    good = rig.info["CAM_BACK_LEFT"]
    rig.info["CAM_BACK_LEFT"] = dataclasses.replace(good, width=good.width + 2)
    watcher.wait(lambda: state_of(watcher, "CAM_BACK_LEFT") == "rejected")
    assert "calibration is for 322x180" in watcher.statuses["camera_status"].message
    rig.info["CAM_BACK_LEFT"] = CameraModel(width=320, height=180, intrinsics=np.zeros((3, 3)))
    watcher.wait(lambda: "not calibrated" in watcher.statuses["camera_status"].message)
    rig.info["CAM_BACK_LEFT"] = good
    watcher.wait(lambda: healthy(watcher))


def test_without_any_image_tracks_coast_then_the_node_is_silent_and_comes_back(watcher, rig):
    known = len(watcher.tracks)
    rig.silent.update(CAMERAS)
    watcher.wait(lambda: watcher.values("tracker").get("state") == "coasting")
    watcher.wait(lambda: all(f"{camera} stale" in watcher.statuses["camera_status"].message for camera in CAMERAS))
    assert watcher.statuses["camera_status"].level == ERROR
    watcher.wait(lambda: int(watcher.values("camera_status")["coasted_sets"]) >= 2)
    time.sleep(1.8)  # longer than sync.coast_max after the last set
    count = len(watcher.tracks)
    time.sleep(0.4)
    assert len(watcher.tracks) == count  # silence: nothing was processed
    last = watcher.tracks[-2:]
    assert (
        min(np.diff([objects.t_ns for objects in watcher.tracks[known:]])) > 0
    )  # no prediction is older than the last
    assert np.diff([objects.t_ns for objects in last])[0] > 0 and last[0].ids == last[1].ids
    rig.silent.clear()
    watcher.wait(lambda: healthy(watcher))
    watcher.wait(lambda: watcher.values("tracker")["state"] == "confirmed")


def test_a_missing_pose_is_named_and_the_memory_is_kept(watcher, rig):
    rig.pose_silent = True
    watcher.wait(lambda: watcher.statuses["ego_motion"].level == ERROR)
    assert "no pose from tf" in watcher.statuses["ego_motion"].message
    rig.pose_silent = False
    watcher.wait(lambda: watcher.statuses["ego_motion"].message == "ok")
    watcher.wait_for_tracks(1)


def test_time_that_jumps_back_resets_once_and_never_repeats_an_id(watcher, rig):
    earlier = {identity for objects in watcher.tracks for identity in objects.ids}
    jumps = int(watcher.values("tracker").get("resets.time_jump", 0))
    rig.shift_s -= 30.0
    watcher.wait(lambda: int(watcher.values("tracker").get("resets.time_jump", 0)) == jumps + 1)
    object_sets = watcher.wait_for_tracks(3)
    assert not earlier & {identity for objects in object_sets for identity in objects.ids}
    assert int(watcher.values("tracker")["resets.time_jump"]) == jumps + 1
    watcher.wait(lambda: healthy(watcher))
    earlier |= {identity for objects in watcher.tracks for identity in objects.ids}
    gaps = int(watcher.values("tracker").get("resets.gap", 0))
    rig.shift_s += 60.0  # forward, by more than sync.reset_gap
    watcher.wait(lambda: int(watcher.values("tracker").get("resets.gap", 0)) == gaps + 1)
    assert not earlier & {identity for objects in watcher.wait_for_tracks(3) for identity in objects.ids}
    assert int(watcher.values("tracker")["resets.time_jump"]) == jumps + 1
    watcher.wait(lambda: healthy(watcher))
