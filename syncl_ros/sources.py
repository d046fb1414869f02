"""Sensor topics -> Intake. Callbacks only store: nothing is decoded, looked up or inferred here."""

import time
from collections.abc import Callable

from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.topics import Topics
from syncl_core.runtime.intake import Intake
from syncl_core.runtime.problems import ProblemLog
from syncl_ros import conversions
from syncl_ros.params import NodeParams


class Sources:
    """The subscriptions. A message that cannot be used is counted in `problems` under its topic, and dropped.

    `received()` is called after every message. `image_times_s` holds the steady time of each camera's latest image.
    """

    def __init__(self, node: Node, params: NodeParams, intake: Intake, received: Callable[[], None]):
        self.problems = ProblemLog()
        self.image_times_s: dict[str, float | None] = {}
        self._node = node
        self._params = params
        self._intake = intake
        self._received = received

    def subscribe(self, cameras: tuple[str, ...]) -> None:
        params = self._params
        topics = Topics(image=params.image_topic, camera_info=params.camera_info_topic, odometry=params.odometry_topic)
        image_qos = _image_qos(params)
        for camera in cameras:
            self.image_times_s[camera] = None
            if params.image_transport == "compressed":
                self._listen(CompressedImage, topics.compressed_of(camera), image_qos, self._store_image, camera)
            else:
                self._listen(Image, topics.image_of(camera), image_qos, self._store_image, camera)
            self._listen(CameraInfo, topics.camera_info_of(camera), image_qos, self._store_camera_model, camera)
        deep = conversions.reliable(conversions.DEEP)
        self._listen(TFMessage, topics.tf, deep, self._store_transforms, False)
        self._listen(TFMessage, topics.tf_static, conversions.latched(100), self._store_transforms, True)
        if params.ego_source == "odometry":
            self._listen(Odometry, topics.odometry, deep, self._store_odometry)

    def _listen(self, kind: type, topic: str, qos: QoSProfile, store: Callable, *args) -> None:
        def callback(message) -> None:
            try:
                store(message, *args)
            except InputError as error:
                self.problems.add(topic, str(error))
                self._node.get_logger().warning(f"{topic}: {error}", throttle_duration_sec=5.0)
            self._received()

        self._node.create_subscription(kind, topic, callback, qos)

    def _store_image(self, message: Image | CompressedImage, camera: str) -> None:
        image = messages.raw_image_from(message)
        self.image_times_s[camera] = time.monotonic()
        self._intake.add_image(camera, messages.stamp_ns(message), message.header.frame_id, image)

    def _store_camera_model(self, message: CameraInfo, camera: str) -> None:
        self._intake.add_camera_model(camera, messages.camera_model_from(message))

    def _store_transforms(self, message: TFMessage, static: bool) -> None:
        for parent, child, t_ns, parent_from_child in messages.transforms_from(message):
            self._intake.add_transform(parent, child, t_ns, parent_from_child, static)

    def _store_odometry(self, message: Odometry) -> None:
        self._intake.add_odometry(messages.stamp_ns(message), messages.pose_from(message))


def _image_qos(params: NodeParams) -> QoSProfile:
    if params.image_qos == "reliable":
        return conversions.reliable(conversions.DEEP if params.queue == "all" else 5)
    return conversions.sensor_data(5)
