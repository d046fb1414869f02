"""Every kind of sensor message, straight into the callbacks: what goes into the Intake, and what is refused by name."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import small_drive
from hand_fed import T_NS, TOPICS, Rig
from rclpy.qos import QoSPolicyKind

from syncl_core import geometry, images
from syncl_core.classes import CAMERAS
from syncl_core.io import messages
from syncl_core.io.topics import frame_of
from syncl_ros import conversions
from syncl_ros.conversions import make
from syncl_ros.params import CameraParams


def raw_message(t_ns: int, camera: str, pixels: np.ndarray, padding: int = 0, frame_id: str | None = None):
    """A bgr8 image whose rows end with `padding` bytes that mean nothing."""
    rows = pixels[..., ::-1].reshape(len(pixels), -1)
    data = np.concatenate([rows, np.full((len(rows), padding), 7, np.uint8)], axis=1)
    size = {"width": pixels.shape[1], "height": pixels.shape[0], "step": data.shape[1]}
    header = messages.header(make, t_ns, frame_of(camera) if frame_id is None else frame_id)
    return make(messages.IMAGE, header=header, encoding="bgr8", data=data.tobytes(), **size)


@pytest.mark.parametrize(("ego_source", "padding"), [("tf", 0), ("odometry", 5)])
def test_raw_images_and_poses_become_a_frame_set(ego_source, padding):
    rig = Rig(image_transport="raw", ego_source=ego_source)
    rig.hear_mounts()
    for t_ns in (small_drive.START_NS, T_NS, T_NS + 60_000_000):
        pose = small_drive.global_from_base(t_ns)
        if ego_source == "tf":
            rig.hear_pose(t_ns, pose)
        else:
            rig.hear(TOPICS.odometry, messages.odometry(make, t_ns, "odom", "base_link", pose))
    pictures = [small_drive.picture(i) for i in range(6)]
    for camera, pixels in zip(CAMERAS, pictures, strict=True):
        rig.hear(TOPICS.image_of(camera), raw_message(T_NS, camera, pixels, padding))
    (frame_set,) = rig.intake.finish()
    assert rig.received == 1 + 6 + 3 + 6
    for i, view in enumerate(frame_set.views):
        np.testing.assert_array_equal(images.decode(view.image), pictures[i])
        np.testing.assert_allclose(view.base_from_cam, small_drive.base_from_cam(i), atol=1e-12)
        np.testing.assert_allclose(view.global_from_base, small_drive.global_from_base(T_NS), atol=1e-12)
        np.testing.assert_array_equal(view.model.intrinsics, small_drive.MODEL.intrinsics)
    assert not rig.sources.problems.snapshot()
    assert all(seen.images == 1 and seen.calibrated for seen in rig.sources.cameras.values())
    assert rig.sources.pose_s is not None


def test_unusable_messages_are_counted_by_topic_and_say_why():
    rig = Rig()
    rig.hear_mounts()
    broken = messages.transform_stamped(make, T_NS, "odom", "base_link", np.eye(4))
    broken.transform.translation.x = float("nan")
    rig.hear(TOPICS.tf, messages.tf_message(make, [broken]))
    uncalibrated = make(messages.CAMERA_INFO, header=messages.header(make, T_NS, "cam_back"), width=320, height=180)
    rig.hear(TOPICS.camera_info_of("CAM_BACK"), uncalibrated)
    problems = rig.sources.problems.snapshot()
    assert problems.keys() == {"/tf", "/cam_back/camera_info"}
    assert "odom -> base_link" in problems["/tf"].message
    assert "not calibrated" in problems["/cam_back/camera_info"].message


def calibration_file(tmp_path):
    """Of all cameras, with their mounts."""
    lines = ["cameras:"]
    for i, camera in enumerate(CAMERAS):
        quaternion = geometry.quaternion_from_matrix(small_drive.base_from_cam(i)[:3, :3]).tolist()
        lines.append(f"  {frame_of(camera)}:")
        lines.append("    {width: 320, height: 180, intrinsics: [250, 250, 160, 90], base_from_camera:")
        lines.append(f"      {{translation: {small_drive.base_from_cam(i)[:3, 3].tolist()}, rotation: {quaternion}}}}}")
    path = tmp_path / "cameras.yaml"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("frame_id", [None, "/driver_optical", ""])
def test_a_calibration_file_stands_in_for_camera_info_and_mounts(tmp_path, frame_id):
    """Whatever frame the drivers name, and whatever /tf says of that or of the mount's own."""
    own, path = {"CAM_BACK": CameraParams(frame_id="tail")}, calibration_file(tmp_path)
    rig = Rig(cameras=own, calibration_source="file", calibration_file=path, image_transport="raw")
    others = [
        messages.transform_stamped(make, 0, "base_link", child, np.eye(4))
        for child in ("driver_optical", "cam_front", "tail")
    ]
    rig.hear(TOPICS.tf_static, messages.tf_message(make, others))
    assert not [topic for topic in rig.listener.callbacks if topic.endswith("camera_info")]
    for t_ns in (small_drive.START_NS, T_NS, T_NS + 60_000_000):
        rig.hear_pose(t_ns, small_drive.global_from_base(t_ns))
    for i, camera in enumerate(CAMERAS):
        rig.hear(TOPICS.image_of(camera), raw_message(T_NS, camera, small_drive.picture(i), frame_id=frame_id))
    (frame_set,) = rig.intake.finish()
    assert not rig.intake.problems()
    assert frame_set.views[CAMERAS.index("CAM_BACK")].frame_id == "tail"
    for i, view in enumerate(frame_set.views):
        np.testing.assert_allclose(view.base_from_cam, small_drive.base_from_cam(i), atol=1e-12)
        np.testing.assert_array_equal(view.model.intrinsics, small_drive.MODEL.intrinsics)


@pytest.mark.parametrize("remapped, bent", [("/front/image_rect_color", False), ("/front/image_raw", True)])
def test_whether_images_are_rectified_goes_by_their_topic_as_remapped(remapped, bent):
    rig = Rig(image_transport="raw", remaps={TOPICS.image_of("CAM_FRONT"): remapped})
    info = messages.camera_info(make, T_NS, "cam_front", small_drive.MODEL)
    info.d[0] = -0.3
    rig.hear(TOPICS.camera_info_of("CAM_FRONT"), info)
    assert (rig.intake._models["CAM_FRONT"].lens is not None) is bent


@pytest.mark.parametrize(("queue", "kept"), [("newest", False), ("all", True)])
def test_a_replay_that_was_held_up_may_read_poses_minutes_ahead(queue, kept):
    rig = Rig(queue=queue, image_transport="raw")
    rig.hear_mounts()
    for t_ns in range(small_drive.START_NS, T_NS + 300 * 10**9, 500_000_000):
        rig.hear_pose(t_ns, small_drive.global_from_base(t_ns))
    for i, camera in enumerate(CAMERAS):
        rig.hear(TOPICS.image_of(camera), raw_message(T_NS, camera, small_drive.picture(i)))
    assert len(rig.intake.finish()) == kept


@pytest.mark.parametrize("queue", ["all", "newest"])
def test_transforms_of_others_do_not_keep_a_replay_from_its_end(queue):
    rig = Rig(queue=queue, image_transport="raw")
    rig.hear_mounts()
    rig.hear_pose(T_NS, small_drive.global_from_base(T_NS))
    rig.hear(TOPICS.image_of("CAM_FRONT"), raw_message(T_NS, "CAM_FRONT", small_drive.picture(0)))
    heard = rig.received
    for parent, child in (("base_link", "wheel"), ("odom", "other_car")):
        stamped = messages.transform_stamped(make, T_NS, parent, child, np.eye(4))
        rig.hear(TOPICS.tf, messages.tf_message(make, [stamped]))
    assert rig.received == heard + (0 if queue == "all" else 2)
    rig.hear_pose(T_NS + 1, small_drive.global_from_base(T_NS))
    assert rig.received > heard


@pytest.mark.parametrize(
    ("durabilities", "latched"),
    [("LL", True), ("LV", False), ("V", False), ("", False)],
    ids=str,
)
def test_a_calibration_is_asked_for_as_a_latched_one_where_it_is_published_so(durabilities, latched):
    rig = Rig()
    kinds = {"L": conversions.latched(), "V": conversions.reliable(1)}
    info, publishers = TOPICS.camera_info_of("CAM_FRONT"), rig.listener.publishers
    plain = rig.listener.callbacks.pop(info)
    image = messages.compressed_image(make, T_NS, "cam_front", small_drive.jpeg(3))
    rig.hear(TOPICS.compressed_of("CAM_FRONT"), image)
    publishers[info] = [SimpleNamespace(qos_profile=kinds[kind]) for kind in durabilities]
    for _ in range(25):
        rig.hear(TOPICS.compressed_of("CAM_FRONT"), image)
    assert (info in rig.listener.callbacks) is latched
    callback = rig.listener.callbacks.get(info, plain)
    callback(messages.camera_info(make, T_NS, "cam_front", small_drive.MODEL))
    assert rig.sources.cameras["CAM_FRONT"].calibrated and len(rig.intake._models) == 1


def test_a_bad_image_marks_its_camera_only_and_an_incompatible_publisher_is_a_problem():
    rig = Rig()
    message = make(messages.COMPRESSED_IMAGE, header=messages.header(make, T_NS, "cam_front"), format="webp", data=b"x")
    rig.hear(TOPICS.compressed_of("CAM_FRONT"), message)
    refused = {camera: seen.refused for camera, seen in rig.sources.cameras.items() if seen.refused}
    assert list(refused) == ["CAM_FRONT"] and "webp" in refused["CAM_FRONT"]
    topic = TOPICS.compressed_of("CAM_BACK")
    rig.listener.events[topic].incompatible_qos(SimpleNamespace(last_policy_kind=QoSPolicyKind.RELIABILITY))
    assert "incompatible QoS (RELIABILITY)" in rig.sources.problems.snapshot()[topic].message
    assert not rig.sources.cameras["CAM_BACK"].refused
