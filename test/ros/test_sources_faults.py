"""Poses in every way a vehicle tells them, and messages that nobody should send: what the callbacks make of them."""

import pytest

pytest.importorskip("rclpy")

import numpy as np
import small_drive
from hand_fed import T_NS, TOPICS, MessageFilters, Rig

from syncl_core import geometry
from syncl_core.classes import CAMERAS
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.topics import frame_of
from syncl_ros import approximate
from syncl_ros.conversions import make
from syncl_ros.params import CameraParams


def odometry(t_ns=T_NS, parent="odom", child="base_link"):
    return messages.odometry(make, t_ns, parent, child, small_drive.global_from_base(t_ns))


def test_poses_that_wait_are_taken_at_once():
    """The executor takes one message of a topic per round: poses would be further and further behind the images."""
    rig = Rig()
    rig.hear_mounts()
    times = range(T_NS, T_NS + 100 * 20_000_000, 20_000_000)
    for t_ns in times[1:]:
        pose = messages.transform_stamped(make, t_ns, "odom", "base_link", small_drive.global_from_base(t_ns))
        rig.listener.queues["/tf"].messages.append(messages.tf_message(make, [pose]))
    rig.hear_pose(times[0], small_drive.global_from_base(times[0]))
    assert not rig.listener.queues["/tf"].messages
    np.testing.assert_allclose(rig.intake.output_from_fixed(times[-1]), np.eye(4))
    rig.intake._tree.lookup("odom", "base_link", times[-1])


def test_one_bad_transform_does_not_take_the_others_along():
    rig = Rig()
    bad = messages.transform_stamped(make, T_NS, "base_link", "wheel", np.eye(4))
    bad.transform.rotation.w = 0.0
    good = messages.transform_stamped(make, T_NS, "odom", "base_link", small_drive.global_from_base(T_NS))
    rig.hear("/tf", messages.tf_message(make, [bad, good]))
    assert "base_link -> wheel" in rig.sources.problems.snapshot()["/tf"].message
    assert rig.sources.pose_s is not None and rig.intake.vehicle_path() == {"base_link": True}


def test_what_nobody_thought_of_is_named_and_does_not_end_the_node(monkeypatch):
    rig = Rig()
    topic = TOPICS.compressed_of("CAM_FRONT")

    def surprise(message):
        raise OverflowError("a number like no other")

    monkeypatch.setattr(messages, "raw_image_from", surprise)
    rig.hear(topic, make(messages.COMPRESSED_IMAGE, header=messages.header(make, T_NS, "cam_front"), format="jpeg"))
    assert rig.sources.problems.snapshot()[topic].message == "OverflowError: a number like no other"
    assert "OverflowError" in rig.sources.cameras["CAM_FRONT"].refused
    assert any("Traceback" in text for text in rig.listener.said)


def test_a_vehicle_frame_that_hangs_on_a_footprint_has_a_pose():
    """odom -> base_footprint moves, base_footprint -> base_link does not: usual on robots."""
    rig = Rig()
    level = messages.transform_stamped(make, 0, "base_footprint", "base_link", np.eye(4))
    rig.hear("/tf_static", messages.tf_message(make, [level]))
    assert rig.sources.pose_s is None and rig.intake.vehicle_path() is None
    moving = messages.transform_stamped(make, T_NS, "odom", "base_footprint", small_drive.global_from_base(T_NS))
    rig.hear("/tf", messages.tf_message(make, [moving]))
    assert rig.sources.pose_s is not None
    assert rig.intake.vehicle_path() == {"base_link": False, "base_footprint": True}


def test_with_odometry_the_vehicle_has_no_second_pose_from_tf():
    rig = Rig(ego_source="odometry")
    rig.hear(TOPICS.odometry, odometry())
    rig.hear_pose(T_NS, geometry.transform((99.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)))
    level = messages.transform_stamped(make, T_NS, "base_footprint", "base_link", np.eye(4))
    rig.hear("/tf", messages.tf_message(make, [level]))
    np.testing.assert_allclose(
        rig.intake._tree.lookup("odom", "base_link", T_NS), small_drive.global_from_base(T_NS), atol=1e-12
    )
    assert "parent_changed" not in rig.intake.problems()


@pytest.mark.parametrize(
    ("parent", "child", "taken"),
    [("odom", "base_link", True), ("/odom", "", True), ("map", "base_link", False), ("odom", "base_footprint", False)],
)
def test_odometry_of_other_frames_is_refused_by_name(parent, child, taken):
    rig = Rig(ego_source="odometry")
    rig.hear(TOPICS.odometry, odometry(parent=parent, child=child))
    assert (rig.sources.pose_s is not None) is taken
    if not taken:
        said = rig.sources.problems.snapshot()[TOPICS.odometry].message
        assert f"{parent} -> {child}, expected odom -> base_link: set fixed_frame and base_frame" in said


def test_two_cameras_on_one_topic_are_an_error():
    own = {camera: CameraParams(image_topic="/front/image") for camera in ("CAM_FRONT", "CAM_BACK")}
    with pytest.raises(InputError, match="cam_back.image_topic: CAM_FRONT and CAM_BACK would both be /front/image"):
        Rig(cameras=own)
    own = {camera: CameraParams(camera_info_topic="/front/info") for camera in ("CAM_FRONT", "CAM_BACK")}
    with pytest.raises(InputError, match="cam_back.camera_info_topic: .* and CAM_BACK would both be /front/info"):
        Rig(cameras=own)


def test_an_unusable_calibration_is_the_reason_until_a_usable_one_comes():
    rig, topic = Rig(), TOPICS.camera_info_of("CAM_FRONT")
    rig.hear(topic, make("sensor_msgs/msg/CameraInfo"))
    seen = rig.sources.cameras["CAM_FRONT"]
    assert not seen.calibrated and "K = " in seen.refused_calibration
    rig.hear_mounts()
    assert seen.calibrated and not seen.refused_calibration


def test_an_image_of_message_filters_that_is_unusable_is_its_own_cameras(monkeypatch):
    """And whatever goes wrong with it happens outside of the package's lock."""
    package = MessageFilters()
    monkeypatch.setattr(approximate, "_message_filters", lambda: package)
    rig = Rig(sync_policy="approximate_time")

    def hear(camera, t_ns, form="jpeg"):
        stamped = messages.header(make, t_ns, frame_of(camera))
        rig.hear(TOPICS.compressed_of(camera), make(messages.COMPRESSED_IMAGE, header=stamped, format=form, data=b"x"))

    for n in range(2):
        for camera in CAMERAS:
            hear(camera, T_NS + n * 500_000_000, "webp" if camera == "CAM_FRONT" and n == 0 else "jpeg")
    refused = [camera for camera, seen in rig.sources.cameras.items() if seen.refused]
    assert refused == ["CAM_FRONT"] and not package.synchronizers[0].lock.locked()
    assert len(rig.intake._assembler._streams["CAM_FRONT"].images) == 1  # the second one came through
    hear("CAM_BACK", T_NS - 10**9)  # time went back: nothing of before may stay in its queues
    assert len(package.synchronizers) == 2
