"""What the node publishes about tracks. Nothing is built for a topic that nobody listens to, except the tracks."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node

from syncl_core.config import SynclConfig
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.markers import MarkerBuilder
from syncl_core.io.topics import frame_of
from syncl_core.io.tracked_objects import FLOAT64, LABEL_INFO, TRACKED_OBJECTS, label_info, tracked_objects
from syncl_core.types import FrameSet, ObjectSet, RawImage
from syncl_core.view.camera_view import draw_camera
from syncl_ros import conversions
from syncl_ros.params import Live, NodeParams

DEBUG_WIDTH = 800  # pixels of debug images
STAGES = ("wait", "prepare", "step", "output", "publish", "total")
LATENCIES = ("pipeline_latency_ms", "cyclic_time_ms", *(f"processing_time/{stage}_ms" for stage in STAGES))


class Outputs:
    """The publishers. `publish` and what it calls run in the inference thread, or while that is held."""

    def __init__(self, node: Node, params: NodeParams):
        self._node = node
        self._fixed_frame = params.fixed_frame
        self._frame = params.output_frame or params.fixed_frame
        self._markers = MarkerBuilder()
        qos = conversions.reliable(conversions.DEEP if params.queue == "all" else 5)
        self._tracks = self._advertise(messages.DETECTIONS, "~/tracks", qos)
        self._detections = self._advertise(messages.DETECTIONS, "~/detections", qos)
        self._marker_arrays = self._advertise(messages.MARKERS, "~/markers", qos)
        self._label_info = self._advertise(LABEL_INFO, "~/label_info", conversions.latched())
        try:
            self._tracked_objects = self._advertise(TRACKED_OBJECTS, "~/tracked_objects", qos)
        except InputError:  # autoware_perception_msgs is optional
            self._tracked_objects = None
        latency_qos = conversions.reliable(10)
        self._latencies = {name: self._advertise(FLOAT64, f"~/debug/{name}", latency_qos) for name in LATENCIES}
        self._pictures: dict[str, object] = {}

    def _advertise(self, type_name: str, topic: str, qos):
        return self._node.create_publisher(conversions.message_class(type_name), topic, qos)

    def configure(self, config: SynclConfig) -> None:
        """Advertise what depends on the tracker."""
        for camera in config.rig.cameras:
            if camera not in self._pictures:
                topic = f"~/debug/image/{frame_of(camera)}"
                self._pictures[camera] = self._advertise(messages.IMAGE, topic, conversions.reliable(1))
        info = label_info(conversions.make, config.tracking_classes, config.track.output_threshold)
        self._label_info.publish(info)

    def publish(self, objects: ObjectSet, placed: ObjectSet, live: Live) -> ObjectSet:
        """Publish the objects of one moment; `placed` are the same in the output frame. Returns those that passed."""
        wanted = np.array([label in live.classes for label in objects.labels], dtype=bool)
        passed = wanted & (objects.scores >= _thresholds(objects, live))
        chosen, shown = objects.select(passed), placed.select(passed)
        self._tracks.publish(messages.detection3d_array(conversions.make, shown, self._frame))
        if self._tracked_objects and self._tracked_objects.get_subscription_count():
            self._tracked_objects.publish(tracked_objects(conversions.make, shown, self._frame))
        if self._marker_arrays.get_subscription_count():
            self._markers.options = live.markers
            self._marker_arrays.publish(self._markers.build(chosen, self._fixed_frame, conversions.make))
        return chosen

    def publish_detections(self, objects: ObjectSet) -> None:
        """All boxes of a processed set, below the thresholds too; they are not identities, so `id` is empty."""
        if self._detections.get_subscription_count():
            boxes = dataclasses.replace(objects, ids=("",) * len(objects))
            self._detections.publish(messages.detection3d_array(conversions.make, boxes, self._frame))

    def publish_pictures(self, frame_set: FrameSet, objects: ObjectSet) -> None:
        """Camera images with the projected boxes."""
        for view in frame_set.views:
            if view is None or not self._pictures[view.camera].get_subscription_count():
                continue
            try:
                pixels = draw_camera(view, objects, width=DEBUG_WIDTH)
            except InputError:
                continue  # an unusable image has its own report
            except Exception as error:  # a picture to look at must never stop the tracker
                self._node.get_logger().error(f"no debug image: {error!r}", throttle_duration_sec=10.0)
                continue
            height, width = pixels.shape[:2]
            image = RawImage(encoding="rgb8", data=pixels.tobytes(), width=width, height=height, step=3 * width)
            self._pictures[view.camera].publish(_raw_image(view.t_ns, view.frame_id or frame_of(view.camera), image))

    def publish_latencies(self, milliseconds: Mapping[str, float]) -> None:
        """`milliseconds` by name, of LATENCIES."""
        for name, value in milliseconds.items():
            if name in self._latencies:
                self._latencies[name].publish(conversions.make(FLOAT64, data=float(value)))

    def clear_markers(self, t_ns: int) -> None:
        """Forget what is displayed, and say so to the display."""
        self._markers.reset()
        if self._marker_arrays.get_subscription_count():
            nothing = _no_objects(t_ns)
            self._marker_arrays.publish(self._markers.build(nothing, self._fixed_frame, conversions.make))

    def forget_markers(self) -> None:
        """The next marker array begins with DELETEALL."""
        self._markers.reset()

    def wait_for_listeners(self, seconds: float) -> None:
        """Until the tracks have been delivered."""
        self._tracks.wait_for_all_acked(Duration(seconds=seconds))


def _thresholds(objects: ObjectSet, live: Live) -> np.ndarray:
    """[M] the score every object needs."""
    common, of_class = live.params.score_threshold, live.class_thresholds
    return np.array([max(common, of_class.get(label, 0.0)) for label in objects.labels], np.float64)


def _raw_image(t_ns: int, frame_id: str, image: RawImage):
    fields = {"width": image.width, "height": image.height, "step": image.step, "encoding": image.encoding}
    header = messages.header(conversions.make, t_ns, frame_id)
    return conversions.make(messages.IMAGE, header=header, data=bytes(image.data), **fields)


def _no_objects(t_ns: int) -> ObjectSet:
    empty = {name: np.zeros((0, width)) for name, width in (("centers", 3), ("sizes", 3), ("rotations", 4))}
    return ObjectSet(t_ns=t_ns, ids=(), labels=(), scores=np.zeros(0), velocities=np.zeros((0, 2)), **empty)
