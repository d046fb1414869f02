"""Sensor topics -> Intake. Callbacks only store: nothing is decoded, looked up or inferred here."""

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_policy_name_from_kind
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from syncl_core.config import SynclConfig
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.topics import frame_of
from syncl_core.runtime.intake import Intake
from syncl_core.runtime.problems import ProblemLog
from syncl_ros import conversions, encodings
from syncl_ros.approximate import ApproximateSets
from syncl_ros.calibration import load_calibration
from syncl_ros.camera_input import CameraInput, camera_inputs
from syncl_ros.params import CameraParams, NodeParams
from syncl_ros.qos import explain_silence, image_qos, is_latched, odometry_qos, transform_qos

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

REPLAY_SECONDS = 1000.0  # for which a replay keeps transforms: one that was held up reads them far ahead of the images
ASK_EVERY = 10  # images of a camera without a calibration: about once a second it is looked whether that is latched


@dataclass(slots=True)
class Sources:
    """The subscriptions. A message that cannot be used is counted in `problems` under its topic, and dropped.

    `received()` is called after every message, but in a replay not after transforms that have no part in it. `close`
    ends the subscriptions; a new Sources starts again.
    """

    node: Node
    params: NodeParams
    config: SynclConfig
    camera_params: Mapping[str, CameraParams]
    intake: Intake
    received: Callable[[], None]
    problems: ProblemLog = field(default_factory=ProblemLog)
    cameras: dict[str, CameraInput] = field(default_factory=dict)
    pose_s: float | None = None  # steady time of the latest vehicle pose
    _subscriptions: list = field(default_factory=list)
    _mounts: dict[str, str] = field(default_factory=dict)  # frames of the cameras that the calibration file mounts
    _approximate: ApproximateSets | None = None

    def subscribe(self) -> None:
        """Raises InputError for unusable topics, a bad calibration file, or a missing package."""
        params = self.params
        if params.sync_policy == "approximate_time":
            slop_s = self.config.sync.max_spread
            self._approximate = ApproximateSets(self.config.rig.cameras, slop_s, self._forward)
        if params.queue == "all":
            self.intake.remember_transforms(REPLAY_SECONDS)
        if params.calibration_source == "file":
            self._add_calibration()
        self.cameras.update(camera_inputs(self.config.rig.cameras, params, self.camera_params))
        for camera in self.cameras:
            self._subscribe_camera(camera)
        self._listen(TFMessage, "/tf", transform_qos(params), self._store_transforms, "/tf", False, drain=True)
        self._listen(TFMessage, "/tf_static", conversions.latched(100), self._store_transforms, "/tf_static", True)
        if params.ego_source == "odometry":
            self._listen(Odometry, params.odometry_topic, odometry_qos(params), self._store_odometry, drain=True)

    def close(self) -> None:
        for subscription in self._subscriptions:
            self.node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def why_silent(self, camera: str) -> str:
        """Why a camera's images, or its calibration, do not come, and which parameter to change. Asks the ROS graph."""
        seen = self.cameras[camera]
        kind, topic, name = seen.image_kind, seen.image_topic, "image_topic"
        if seen.image_s is not None and not seen.calibrated:
            kind, topic, name = CameraInfo, seen.info_topic, "camera_info_topic"
        return explain_silence(self.node, self.params, camera, kind, topic, name)

    def _subscribe_camera(self, camera: str) -> None:
        seen = self.cameras[camera]
        seen.calibrated = self.params.calibration_source == "file"
        qos = image_qos(self.params)
        self._listen(seen.image_kind, seen.image_topic, qos, self._store_image, camera)
        if not seen.calibrated:
            self._listen(CameraInfo, seen.info_topic, qos, self._store_camera_model, camera)

    def _listen(self, kind: type, topic: str, qos: QoSProfile, store: Callable, *args, drain: bool = False) -> None:
        """`drain`: take all that waits at once. The executor takes one message of every topic per round; poses come
        more often than there are rounds on a busy machine, and would be further and further behind the images."""

        def callback(message) -> None:
            take(message)
            if drain:
                for other in conversions.waiting(subscription):
                    take(other)

        def take(message) -> None:
            counts = True
            with self._refusing(topic):
                counts = store(message, *args) is not False
            if counts:
                self.received()

        def incompatible(event) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            said = f"a publisher with an incompatible QoS ({policy}) is ignored; see camera_status or ego_motion"
            self._note(topic, said)

        events = SubscriptionEventCallbacks(incompatible_qos=incompatible)
        subscription = self.node.create_subscription(kind, topic, callback, qos, event_callbacks=events)
        self._subscriptions.append(subscription)

    @contextlib.contextmanager
    def _refusing(self, topic: str) -> Iterator[None]:
        """What somebody publishes may be unusable in a way nobody thought of: that must not end the node either."""
        try:
            yield
        except Exception as error:
            reason = str(error)
            if not isinstance(error, InputError):
                reason = f"{type(error).__name__}: {error}"
                self.node.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
            self._note(topic, reason)
            self._mark_refused(topic, reason)

    def _note(self, topic: str, reason: str) -> None:
        self.problems.add(topic, reason)
        self.node.get_logger().warning(f"{topic}: {reason}", throttle_duration_sec=5.0)

    def _mark_refused(self, topic: str, reason: str) -> None:
        for seen in self.cameras.values():
            if topic in (seen.image_topic, seen.info_topic):
                seen.refused, seen.refused_s = reason, time.monotonic()
            if topic == seen.info_topic:
                seen.refused_calibration = reason

    def _store_image(self, message: Image | CompressedImage, camera: str) -> None:
        seen = self.cameras[camera]
        seen.images, seen.image_s = seen.images + 1, time.monotonic()
        if not seen.calibrated and not seen.latched and seen.images % ASK_EVERY == 1:
            self._listen_to_latched(camera)
        if self._approximate:
            self._approximate.add(camera, message)
        else:
            self._add_image(camera, message)

    def _listen_to_latched(self, camera: str) -> None:
        """A calibration that was published once, before the node was there or was found, comes to a latched listener
        alone. Asked for late, when publishers are known, and beside the other subscription, so that no other is lost.
        """
        seen = self.cameras[camera]
        seen.latched = is_latched(self.node, seen.info_topic)
        if seen.latched:
            self._listen(CameraInfo, seen.info_topic, conversions.latched(), self._store_camera_model, camera)

    def _forward(self, camera: str, message: Image | CompressedImage) -> None:
        """One image of a set of message_filters; what is wrong with it is this camera's, not the last one's."""
        with self._refusing(self.cameras[camera].image_topic):
            self._add_image(camera, message)

    def _add_image(self, camera: str, message: Image | CompressedImage) -> None:
        bridge = encodings.needs_bridge(message)
        image = encodings.bridged(message) if bridge else messages.raw_image_from(message)
        own, mounted = self.camera_params[camera], camera in self._mounts
        frame_id = image_frame(camera, own, message.header.frame_id, mounted)
        self.intake.add_image(camera, messages.stamp_ns(message), frame_id, image)

    def _store_camera_model(self, message: CameraInfo, camera: str) -> None:
        topic = self.node.resolve_topic_name(self.cameras[camera].image_topic)  # as remapped
        rectified = messages.images_rectified(self.config.rig.rectify, topic)
        self.intake.add_camera_model(camera, messages.camera_model_from(message, rectified))
        seen = self.cameras[camera]
        seen.calibrated, seen.refused_calibration = True, ""

    def _store_transforms(self, message: TFMessage, topic: str, static: bool) -> bool:
        """Whether they matter: somebody else's may go on when a recording is over."""
        base = self.params.base_frame if self.params.ego_source == "odometry" else None
        transforms = messages.transforms_from(message, lambda error: self._note(topic, str(error)))
        for parent, child, t_ns, parent_from_child in transforms:
            if child == base or child in self._mounts.values():
                continue  # one source of each: two would disagree
            self.intake.add_transform(parent, child, t_ns, parent_from_child, static)
            if not static and child in (self.intake.vehicle_path() or ()):
                self.pose_s = time.monotonic()
        return static or self.params.queue != "all" or self.intake.carries({child for _, child, _, _ in transforms})

    def _store_odometry(self, message: Odometry) -> None:
        check_odometry(message, self.params)
        self.intake.add_odometry(messages.stamp_ns(message), messages.pose_from(message))
        self.pose_s = time.monotonic()

    def _add_calibration(self) -> None:
        calibration = load_calibration(self.params.calibration_file, self.config.rig.cameras)
        for camera, (model, base_from_cam) in calibration.items():
            self.intake.add_camera_model(camera, model)
            if base_from_cam is not None:
                frame = self._mounts[camera] = image_frame(camera, self.camera_params[camera], "", mounted=True)
                self.intake.add_transform(self.params.base_frame, frame, 0, base_from_cam, static=True)


def image_frame(camera: str, own: CameraParams, header_frame_id: str, mounted: bool) -> str:
    """The frame of a camera's images: its parameter's, else that of the mount in the calibration file (`mounted`), else
    what the header says."""
    return (own.frame_id or ("" if mounted else header_frame_id)).lstrip("/") or frame_of(camera)


def check_odometry(message: Odometry, params: NodeParams) -> None:
    """Raises InputError if it tells of other frames than the fixed one and the vehicle's; it may leave them open."""
    said, wanted = messages.odometry_frames(message), (params.fixed_frame, params.base_frame)
    if any(frame not in ("", expected) for frame, expected in zip(said, wanted, strict=True)):
        raise InputError(
            f"tells of {said[0]} -> {said[1]}, expected {wanted[0]} -> {wanted[1]}: set fixed_frame and base_frame, "
            "or ego_motion.source: tf"
        )
