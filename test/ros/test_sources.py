"""Every kind of sensor message, straight into the callbacks: what goes into the Intake, and what is refused by name."""

import threading
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import small_drive
from rclpy.qos import QoSPolicyKind
from test_settings import stand_in

from syncl_core import geometry, images
from syncl_core.classes import CAMERAS
from syncl_core.config import SynclConfig
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.topics import Topics, frame_of
from syncl_core.runtime.intake import Intake
from syncl_ros.conversions import make
from syncl_ros.params import CameraParams, NodeParams
from syncl_ros.sources import Sources

T_NS = small_drive.START_NS + 40_000_000
TOPICS = Topics()


class Queue:
    """A subscription with the messages that wait in it."""

    def __init__(self, kind):
        self.msg_type, self.raw, self.handle = kind, False, self
        self.messages = deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def take_message(self, kind, raw):
        return (self.messages.popleft(), None) if self.messages else None


class Listener:
    """Stands for the node: keeps the callbacks by topic."""

    def __init__(self):
        self.callbacks = {}
        self.events = {}
        self.queues = {}
        self.said = []

    def create_subscription(self, kind, topic, callback, qos, event_callbacks):
        self.callbacks[topic] = callback
        self.events[topic] = event_callbacks
        self.queues[topic] = Queue(kind)
        return self.queues[topic]

    def get_logger(self):
        return self

    def warning(self, text, throttle_duration_sec):
        self.said.append(text)

    error = warning


class Rig:
    """A node's input side, to be fed by hand."""

    def __init__(self, config=None, cameras=None, **params):
        config = config or SynclConfig()
        self.listener = Listener()
        self.intake = Intake(config, lambda: 0)
        self.received = 0
        own = {camera: (cameras or {}).get(camera, CameraParams()) for camera in CAMERAS}
        self.sources = Sources(self.listener, NodeParams(**params), config, own, self.intake, self.count)
        self.sources.subscribe()

    def count(self):
        self.received += 1

    def hear(self, topic, message):
        self.listener.callbacks[topic](message)

    def hear_mounts(self):
        mounts = [(frame_of(camera), small_drive.base_from_cam(i)) for i, camera in enumerate(CAMERAS)]
        static = [messages.transform_stamped(make, 0, "base_link", child, pose) for child, pose in mounts]
        self.hear(TOPICS.tf_static, messages.tf_message(make, static))
        for camera in CAMERAS:
            info = messages.camera_info(make, T_NS, frame_of(camera), small_drive.MODEL)
            self.hear(TOPICS.camera_info_of(camera), info)

    def hear_pose(self, t_ns, pose):
        stamped = messages.transform_stamped(make, t_ns, "odom", "base_link", pose)
        self.hear(TOPICS.tf, messages.tf_message(make, [stamped]))


def raw_message(t_ns: int, camera: str, pixels: np.ndarray, padding: int = 0):
    """A bgr8 image whose rows end with `padding` bytes that mean nothing."""
    rows = pixels[..., ::-1].reshape(len(pixels), -1)
    data = np.concatenate([rows, np.full((len(rows), padding), 7, np.uint8)], axis=1)
    size = {"width": pixels.shape[1], "height": pixels.shape[0], "step": data.shape[1]}
    header = messages.header(make, t_ns, frame_of(camera))
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


def test_a_calibration_file_stands_in_for_camera_info_and_mounts(tmp_path):
    lines = ["cameras:"]
    for i, camera in enumerate(CAMERAS):
        quaternion = geometry.quaternion_from_matrix(small_drive.base_from_cam(i)[:3, :3]).tolist()
        lines.append(f"  {frame_of(camera)}:")
        lines.append("    {width: 320, height: 180, intrinsics: [250, 250, 160, 90], base_from_camera:")
        lines.append(f"      {{translation: {small_drive.base_from_cam(i)[:3, 3].tolist()}, rotation: {quaternion}}}}}")
    path = tmp_path / "cameras.yaml"
    path.write_text("\n".join(lines))
    own = {"CAM_BACK": CameraParams(frame_id="tail")}
    rig = Rig(cameras=own, calibration_source="file", calibration_file=str(path), image_transport="raw")
    assert not [topic for topic in rig.listener.callbacks if topic.endswith("camera_info")]
    for t_ns in (small_drive.START_NS, T_NS, T_NS + 60_000_000):
        rig.hear_pose(t_ns, small_drive.global_from_base(t_ns))
    for i, camera in enumerate(CAMERAS):
        rig.hear(TOPICS.image_of(camera), raw_message(T_NS, camera, small_drive.picture(i)))
    (frame_set,) = rig.intake.finish()
    for i, view in enumerate(frame_set.views):
        np.testing.assert_allclose(view.base_from_cam, small_drive.base_from_cam(i), atol=1e-12)
        np.testing.assert_array_equal(view.model.intrinsics, small_drive.MODEL.intrinsics)


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


def test_an_image_of_message_filters_that_is_unusable_is_its_own_cameras(monkeypatch):
    """And whatever goes wrong with it happens outside of the package's lock."""
    locks = []

    class SimpleFilter:
        def __init__(self):
            self.calls = []

        def registerCallback(self, call, *args):  # noqa: N802 (the package's name)
            self.calls.append((call, args))

        def signalMessage(self, *message):  # noqa: N802
            for call, args in self.calls:
                call(*message, *args)

    class ApproximateTimeSynchronizer(SimpleFilter):
        def __init__(self, filters, queue_size, slop):
            super().__init__()
            self.latest, self.count, self.lock = {}, len(filters), threading.Lock()
            locks.append(self.lock)
            for number, source in enumerate(filters):
                source.registerCallback(self.add, number)

        def add(self, message, number):
            assert self.lock.acquire(blocking=False), "locked for ever"
            self.latest[number] = message
            if len(self.latest) == self.count:
                self.signalMessage(*(self.latest.pop(i) for i in range(self.count)))
            self.lock.release()

    members = {"SimpleFilter": SimpleFilter, "ApproximateTimeSynchronizer": ApproximateTimeSynchronizer}
    stand_in(monkeypatch, "message_filters", **members)
    rig = Rig(sync_policy="approximate_time")

    def hear(camera, t_ns, form="jpeg"):
        stamped = messages.header(make, t_ns, frame_of(camera))
        rig.hear(TOPICS.compressed_of(camera), make(messages.COMPRESSED_IMAGE, header=stamped, format=form, data=b"x"))

    for n in range(2):
        for camera in CAMERAS:
            hear(camera, T_NS + n * 500_000_000, "webp" if camera == "CAM_FRONT" and n == 0 else "jpeg")
    refused = [camera for camera, seen in rig.sources.cameras.items() if seen.refused]
    assert refused == ["CAM_FRONT"] and not any(lock.locked() for lock in locks)
    assert len(rig.intake._assembler._streams["CAM_FRONT"].images) == 1  # the second one came through
    hear("CAM_BACK", T_NS - 10**9)  # time went back: nothing of before may stay in its queues
    assert len(locks) == 2
