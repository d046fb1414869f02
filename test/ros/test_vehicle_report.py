"""What the doctor says, from made-up observations."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy")

from syncl_core.config import SynclConfig
from syncl_core.types import CameraModel
from syncl_core.world.rig import base_from_cam, base_from_lidar
from syncl_ros.vehicle_report import CameraHeard, Finding, Heard, examine

CONFIG = SynclConfig()
CAMERAS = CONFIG.rig.cameras
START_NS = 10**18
PERIOD_NS = 83_000_000
MODEL = CameraModel(width=320, height=180, intrinsics=np.diag([250.0, 250.0, 1.0]))


def healthy() -> Heard:
    """Five seconds of a car in which nothing is wrong."""
    cameras = {}
    for i, camera in enumerate(CAMERAS):
        stamps = [START_NS + k * PERIOD_NS + i * 7_000_000 for k in range(60)]
        heard = CameraHeard(stamps_ns=stamps, age_s=[0.05] * 60, frame_id=camera.lower(), model=MODEL)
        cameras[camera] = dataclasses.replace(heard, model_problem="")
    heard = Heard(cameras=cameras, moving_ns={"base_link": [START_NS - 10**8 + k * 20_000_000 for k in range(260)]})
    for t_ns in heard.moving_ns["base_link"]:
        heard.tree.insert("odom", "base_link", t_ns, np.eye(4), False)
    for camera in CAMERAS:
        heard.tree.insert("base_link", camera.lower(), 0, base_from_cam(camera), True)
    return heard


def findings(heard: Heard, **offsets_s: float) -> list[Finding]:
    offsets = {camera: offsets_s.get(camera, 0.0) for camera in CAMERAS}
    return examine(heard, CONFIG, offsets, "odom", "base_link")


def complaints(heard: Heard, **offsets_s: float) -> list[str]:
    return [finding.text for finding in findings(heard, **offsets_s) if finding.bad]


def test_a_healthy_vehicle_needs_no_change():
    assert complaints(healthy()) == []
    said = [f.text for f in examine(healthy(), CONFIG, dict.fromkeys(CAMERAS, 0.0), "odom", "base_link")]
    assert "CAM_FRONT: 12.0 Hz, jitter 0.0 ms" in said and "vehicle pose: 50 Hz" in said
    assert "cameras fire within 35 ms" in said


def test_a_clock_that_is_off_gets_an_offset_on_top_of_the_one_in_use():
    heard = healthy()
    heard.cameras["CAM_BACK"].stamps_ns = [t - 90_000_000 + 83_000_000 * 2 for t in heard.cameras["CAM_BACK"].stamps_ns]
    assert (
        complaints(heard) == []
    )  # 90 ms early is 21 - 90 + 83 = 14 ms after the front camera: a whole period is unseen
    config_spread_s = CONFIG.sync.max_spread
    heard.cameras["CAM_BACK"].stamps_ns = [START_NS + k * 250_000_000 + 100_000_000 for k in range(20)]
    heard.cameras["CAM_BACK"].age_s = [0.05 - 0.1] * 20
    heard.cameras["CAM_FRONT"].stamps_ns = [START_NS + k * 250_000_000 for k in range(20)]
    assert config_spread_s == 0.06
    (text,) = [text for text in complaints(heard) if text.startswith("CAM_BACK:")]
    assert "cameras.cam_back.stamp_offset: -0.100" in text
    (text,) = [text for text in complaints(heard, CAM_BACK=-0.02) if text.startswith("CAM_BACK:")]
    assert "+80 ms" in text and "cameras.cam_back.stamp_offset: -0.100" in text
    assert not [text for text in complaints(heard, CAM_BACK=-0.1) if text.startswith("CAM_BACK:")]


def test_lost_images_old_stamps_and_two_publishers_are_named():
    heard = healthy()
    del heard.cameras["CAM_FRONT"].stamps_ns[20:24]
    heard.cameras["CAM_BACK"].age_s = [4.0] * 60
    heard.cameras["CAM_BACK_LEFT"].stamps_ns += heard.cameras["CAM_BACK_LEFT"].stamps_ns[-3:]
    heard.cameras["CAM_BACK_RIGHT"] = CameraHeard(silence="nobody publishes it")
    heard.cameras["CAM_FRONT_LEFT"].model_problem = "camera is not calibrated"
    said = complaints(heard)
    assert len(said) == 5
    assert "1 gaps, the longest 0.42 s" in said[0] and "two publishers" in said[2]
    assert said[1] == "CAM_FRONT_LEFT: calibration: camera is not calibrated"
    assert said[3] == "CAM_BACK_RIGHT: nobody publishes it"
    assert said[4].startswith("CAM_BACK: images are 4.0 s old when they come")


def test_the_seam_of_a_recording_in_a_loop_is_no_fault():
    heard = healthy()
    for camera in heard.cameras.values():
        camera.stamps_ns = [*camera.stamps_ns[40:], *camera.stamps_ns[:25]]
    poses = heard.moving_ns["base_link"]
    heard.moving_ns["base_link"] = [*poses[200:], *poses[:150]]
    assert complaints(heard) == []
    said = [finding.text for finding in findings(heard)]
    assert "CAM_FRONT: 12.0 Hz, jitter 0.0 ms" in said and any("jumped back" in text for text in said)


def test_a_replay_without_its_clock_is_named_once():
    heard = healthy()
    heard.unused_clock = True
    assert complaints(heard) == []  # a clock that tells the same time
    for camera in heard.cameras.values():
        camera.age_s = [2e8] * 60
    (said,) = complaints(heard)
    assert said.startswith("/clock is published") and "use_sim_time:=true" in said


def test_calibrations_that_no_image_fits_are_named():
    heard = healthy()
    cameras = heard.cameras
    for seen in cameras.values():
        seen.size_px = (320, 180)
    assert complaints(heard) == []
    cameras["CAM_FRONT"].size_px = (1280, 720)
    cameras["CAM_BACK"].model = CameraModel(width=320, height=180, intrinsics=np.zeros((3, 3)))
    said = complaints(heard)
    assert len(said) == 2
    assert said[0].startswith("CAM_FRONT: images are 1280x720, its calibration is for 320x180")
    assert said[1].startswith("CAM_BACK: calibration: CameraModel(")


def clocks(heard: Heard, **offsets_s: float) -> list[Finding]:
    return [finding for finding in findings(heard, **offsets_s) if "than those of" in finding.text]


@pytest.mark.parametrize(("sign", "word", "slow"), [(1, "older", "it is"), (-1, "newer", "the other cameras are")])
def test_a_clock_that_is_off_by_a_whole_period_shows_in_the_age_of_images(sign, word, slow):
    """The phases of a camera at 12 Hz are the same again after 83 ms. Below sync.timeout its images are used."""
    heard = healthy()
    for off_ms, bad in ((180, True), (120, False)):
        heard.cameras["CAM_BACK"].age_s = [0.05 + sign * off_ms / 1000] * 60
        (found,) = clocks(heard)
        said = f"CAM_BACK: when they come its images are {off_ms} ms {word} than those of the other cameras: "
        assert found.text.startswith(said) and found.bad == bad
        assert f"cameras.cam_back.stamp_offset: {sign * off_ms / 1000:.3f} if its clock is off" in found.text
        assert found.text.endswith(f"if {slow} only slow, keep sync.timeout above that (0.15 s)")
    heard.cameras["CAM_BACK"].age_s = [0.05 + sign * 0.06] * 60
    assert clocks(heard) == []
    (found,) = clocks(heard, CAM_BACK=-sign * 0.12)
    assert f"180 ms {word}" in found.text and f"stamp_offset: {sign * 0.06:.3f} " in found.text


@pytest.mark.parametrize("late", ["CAM_FRONT", "CAM_BACK"])
def test_two_cameras_that_disagree_get_one_line(late):
    heard = healthy()
    heard.cameras = {camera: heard.cameras[camera] for camera in ("CAM_FRONT", "CAM_BACK")}
    heard.cameras[late].age_s = [0.25] * 60
    (found,) = clocks(heard)
    (other,) = heard.cameras.keys() - {late}
    assert found.bad and found.text.startswith(
        f"{late}: when they come its images are 200 ms older than those of {other}"
    )
    assert "stamp_offset: 0.200 if their clocks differ; if it is only slow, keep sync.timeout above that" in found.text
    heard.cameras[late].age_s = [4.0] * 60  # another line says so
    assert clocks(heard) == []


def test_poses_that_are_missing_rare_or_not_connected_are_named():
    heard = healthy()
    heard.cameras["CAM_BACK"].frame_id = "elsewhere"
    (text,) = complaints(heard)
    assert "no transform odom -> elsewhere" in text and "cameras.cam_back.frame_id" in text
    heard = healthy()
    heard.moving_ns["base_link"] = heard.moving_ns["base_link"][::25]
    assert ["2 Hz with gaps of 0.50 s" in text for text in complaints(heard)] == [True]
    heard.tree.forget("base_link")
    heard.no_pose = "nobody publishes /tf"
    assert ["no pose odom -> base_link: nobody publishes /tf" in text for text in complaints(heard)] == [True]
    heard.tree.insert("odom", "base_link", 0, np.eye(4), True)
    assert ["right on a test bench alone" in text for text in complaints(heard)] == [True]


def test_a_vehicle_frame_on_a_footprint_moves_as_that_does():
    heard = healthy()
    heard.tree.forget("base_link")
    heard.moving_ns = {"base_footprint": heard.moving_ns["base_link"], "wheel": [1, 2, 3]}
    for t_ns in heard.moving_ns["base_footprint"]:
        heard.tree.insert("odom", "base_footprint", t_ns, np.eye(4), False)
    heard.tree.insert("base_footprint", "base_link", 0, np.eye(4), True)
    assert complaints(heard) == []


def test_cameras_that_cannot_look_as_their_transforms_say_are_named():
    heard = healthy()
    heard.tree.insert("base_link", "cam_front", 0, np.eye(4), True)  # the body's frame, x forward
    for camera, other in (("CAM_BACK_LEFT", "cam_back_right"), ("CAM_BACK_RIGHT", "cam_back_left")):
        heard.cameras[camera].frame_id = other
    said = complaints(heard)
    assert len(said) == 3
    assert said[0].startswith("CAM_FRONT: by base_link -> cam_front its frame has z up")
    assert said[0].endswith("(cameras.cam_front.frame_id, or the transform)")
    assert said[1].startswith("CAM_BACK_LEFT: by base_link -> cam_back_right it looks 110 degrees to the right")
    assert said[2].startswith("CAM_BACK_RIGHT: by base_link -> cam_back_left it looks 108 degrees to the left")


def test_where_the_network_thinks_it_is():
    def said(model_frame: str = "") -> Finding:
        offsets = dict.fromkeys(CAMERAS, 0.0)
        return examine(heard, CONFIG, offsets, "odom", "base_link", model_frame)[-1]

    heard = healthy()
    assert not said().bad and "1.84 m above base_link, which must be on the road" in said().text
    assert said("network").bad and "unknown frame 'network'" in said("network").text
    heard.tree.insert("base_link", "lidar_top", 0, base_from_lidar(), True)
    assert said() == Finding(False, "lidar_top in /tf is where the network's frame is")
    high = base_from_lidar()
    high[2, 3] = 3.0
    heard.tree.insert("base_link", "lidar_top", 0, high, True)
    assert said().bad and "Is the road 1.16 m above the vehicle's frame? Then set model_frame: lidar_top" in said().text
    assert not said("lidar_top").bad
    heard.tree.insert("base_link", "network", 0, base_from_lidar(), True)
    assert not said("network").bad
