"""Six cameras on a car that drives, live over DDS, with faults at a word: for tests, the soak run and measurements.

Images, calibrations, /tf and /tf_static are published by a thread at their own times, stamped with the ROS clock's wall
time. Faults are attributes; changing one takes effect with the next image.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile

from syncl_core import geometry
from syncl_core.classes import CAMERAS
from syncl_core.io import messages
from syncl_core.io.topics import Topics, frame_of
from syncl_core.runtime.mounts import HEADINGS_DEG
from syncl_core.types import CameraModel, RawImage
from syncl_ros import conversions

CAMERA_STEP_SECONDS = 0.007  # between two cameras of a sweep
POSE_SECONDS = 0.02
SPEED = 8.0  # m/s


class SyntheticRig:
    """Publishes until `stop`. All images are the same, which must be `model`'s size.

    A "jpeg" goes out as CompressedImage, pixels as Image. Before every image `on_sent(sweep, stamp in ns, due, now)` is
    called; times are steady seconds. `slowness`: so many seconds pass while stamps go on by one, as in a simulation.
    """

    def __init__(
        self,
        node: Node,
        image: RawImage,
        model: CameraModel,
        *,
        rate_hz: float = 12.0,
        cameras: Sequence[str] = CAMERAS,
        slowness: float = 1.0,
        on_sent: Callable[[int, int, float, float], None] | None = None,
    ):
        self.silent: set[str] = set()  # cameras that send nothing
        self.corrupt: set[str] = set()  # cameras whose images end in the middle
        self.late_s: dict[str, float] = {}  # cameras whose images arrive so much later
        self.stamp_error_s: dict[str, float] = {}  # cameras whose clock is off
        self.pose_silent = False  # no /tf
        self.info = dict.fromkeys(cameras, model)  # what the calibration topics say
        self.shift_s = 0.0  # added to every stamp: a clock that jumped
        self.sweeps = 0
        self.sent: dict[str, int] = dict.fromkeys(cameras, 0)
        self.sent_s: dict[int, float] = {}  # steady time at which the image with this stamp (ns) was given to DDS
        self._cameras = tuple(cameras)
        self._on_sent = on_sent
        self._slowness = slowness
        self._image = image
        self._half = dataclasses.replace(image, data=image.data[: len(image.data) // 2])
        self._compressed = image.encoding == "jpeg"
        self._period_s = 1.0 / rate_hz
        self._topics = Topics()
        self._node = node
        self._publishing = threading.Lock()  # a publisher must not end while it is at work
        self._advertise()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rig", daemon=True)

    def _advertise(self) -> None:
        self._images: dict[str, Publisher] = {}
        self._infos: dict[str, Publisher] = {}
        for camera in self._cameras:
            self.start_publishers(camera)
        topics = self._topics
        self._tf = self._publisher(messages.TF, topics.tf, conversions.reliable(100))
        self._static = self._publisher(messages.TF, topics.tf_static, conversions.latched())
        make = conversions.make
        mounts = [(frame_of(camera), base_from_cam(camera)) for camera in self._cameras]
        static = [messages.transform_stamped(make, 0, "base_link", child, pose) for child, pose in mounts]
        self._static.publish(messages.tf_message(make, static))

    def _publisher(self, type_name: str, topic: str, qos: QoSProfile) -> Publisher:
        return self._node.create_publisher(conversions.message_class(type_name), topic, qos)

    def start_publishers(self, camera: str) -> None:
        """Of one camera; it has some already unless they were ended."""
        qos, topics = conversions.sensor_data(5), self._topics
        kind = messages.COMPRESSED_IMAGE if self._compressed else messages.IMAGE
        topic = (topics.compressed_of if self._compressed else topics.image_of)(camera)
        images = self._publisher(kind, topic, qos)
        infos = self._publisher(messages.CAMERA_INFO, topics.camera_info_of(camera), qos)
        with self._publishing:
            self._images[camera], self._infos[camera] = images, infos

    def end_publishers(self, camera: str) -> None:
        """As if the process of that camera had ended. It must be silent."""
        with self._publishing:
            for publishers in (self._images, self._infos):
                self._node.destroy_publisher(publishers.pop(camera))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        """Poses and images in the order of their times."""
        begin_s = time.monotonic()
        wall_ns = time.time_ns()
        late: list[tuple[float, int, str, object, int]] = []  # when, sweep, camera, image, stamp
        poses = 0
        for self.sweeps in range(10**9):
            for number, camera in enumerate(self._cameras):
                due_s = self.sweeps * self._period_s + number * CAMERA_STEP_SECONDS
                while poses * POSE_SECONDS <= due_s + 2 * POSE_SECONDS:
                    if not self.pose_silent:
                        self._publish_pose(poses * POSE_SECONDS, wall_ns)
                    poses += 1
                due_at_s = begin_s + self._slowness * due_s
                if self._stopping.wait(max(0.0, due_at_s - time.monotonic())):
                    return
                if camera not in self.silent:
                    send_s = due_at_s + self.late_s.get(camera, 0.0)
                    late.append((send_s, self.sweeps, *self._photograph(camera, due_s, wall_ns)))
                now_s = time.monotonic()
                for entry in [entry for entry in late if entry[0] <= now_s]:
                    late.remove(entry)
                    self._send(*entry)

    def _stamp_ns(self, due_s: float, wall_ns: int) -> int:
        return wall_ns + round((due_s + self.shift_s) * 1e9)

    def _publish_pose(self, due_s: float, wall_ns: int) -> None:
        pose = geometry.transform((SPEED * due_s, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
        stamped = messages.transform_stamped(
            conversions.make, self._stamp_ns(due_s, wall_ns), "odom", "base_link", pose
        )
        self._tf.publish(messages.tf_message(conversions.make, [stamped]))

    def _photograph(self, camera: str, due_s: float, wall_ns: int) -> tuple[str, object, int]:
        t_ns = self._stamp_ns(due_s + self.stamp_error_s.get(camera, 0.0), wall_ns)
        image = self._half if camera in self.corrupt else self._image
        build = messages.compressed_image if self._compressed else messages.image
        return camera, build(conversions.make, t_ns, frame_of(camera), image), t_ns

    def _send(self, send_s: float, sweep: int, camera: str, message, t_ns: int) -> None:
        info = messages.camera_info(conversions.make, t_ns, frame_of(camera), self.info[camera])
        with self._publishing:
            if camera not in self._images:
                return
            if self._on_sent is not None:
                self._on_sent(sweep, t_ns, send_s, time.monotonic())
            self._infos[camera].publish(info)
            self._images[camera].publish(message)
        self.sent[camera] += 1
        self.sent_s[t_ns] = time.monotonic()
        while len(self.sent_s) > 4096:
            del self.sent_s[next(iter(self.sent_s))]


def base_from_cam(camera: str) -> np.ndarray:
    """Mount [4, 4] of a camera; one that nuScenes does not have looks forward."""
    heading = np.radians(HEADINGS_DEG.get(camera, 0.0))
    forward = geometry.transform((1.5, 0.0, 1.5), geometry.quaternion_from_yaw(heading))
    upright = np.eye(4)
    upright[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # camera axes right, down, forward
    return forward @ upright


def pinhole(width: int, height: int) -> CameraModel:
    """A camera of about 65 degrees."""
    focal = 0.78 * width
    intrinsics = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return CameraModel(width=width, height=height, intrinsics=intrinsics)


def noise_jpeg(width: int, height: int, seed: int = 0, quality: int = 80) -> RawImage:
    """Coarse random blocks with some grain, as a JPEG about as large as a photograph's."""
    import cv2

    data = cv2.imencode(".jpg", _noise(width, height, seed), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return RawImage(encoding="jpeg", data=data)


def noise_pixels(width: int, height: int, seed: int = 0) -> RawImage:
    """The same as pixels."""
    return RawImage(encoding="bgr8", data=_noise(width, height, seed).tobytes(), width=width, height=height)


def _noise(width: int, height: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), np.uint8)
    pixels = blocks.repeat(20, axis=0).repeat(20, axis=1)[:height, :width].astype(np.int16)
    grain = random.integers(-6, 7, (height, width, 1), np.int16)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)
