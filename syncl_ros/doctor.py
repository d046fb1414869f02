"""`ros2 run syncl_ros doctor`: listens to a vehicle for a few seconds and says what to change for the tracker.

It takes the tracker's own parameters: `--ros-args -p vehicle:=my_car.yaml`. Cameras, rates, how far apart they fire,
suggested time offsets, calibrations, transforms, QoS. Exit code 1 if something must be changed.
"""

import argparse
import threading
import time
from collections.abc import Mapping
from functools import partial

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from syncl_core.checkpoint import tracker_config
from syncl_core.errors import InputError
from syncl_core.image_header import compressed_size
from syncl_core.io import messages
from syncl_core.types import RawImage
from syncl_ros import conversions, encodings, process
from syncl_ros.calibration import load_calibration
from syncl_ros.camera_input import camera_inputs
from syncl_ros.declare import Parameters
from syncl_ros.qos import explain_missing_pose, explain_silence, image_qos, is_latched, odometry_qos, transform_qos
from syncl_ros.sources import ASK_EVERY, check_odometry, image_frame
from syncl_ros.vehicle import load_vehicle
from syncl_ros.vehicle_report import NOTHING_CAME, CameraHeard, Finding, Heard, examine


class Ears(Node):
    """Subscribes as the tracker would, with the vehicle's `remaps`, which the launch file gives to that."""

    def __init__(self, remaps: Mapping[str, str]):
        rules = [text for name, other in remaps.items() for text in ("-r", f"{name}:={other}")]
        super().__init__("doctor", cli_args=["--ros-args", *rules] if rules else None)
        parameters = Parameters(self)
        self.params = parameters.node
        given = self.params
        # The node's own: a checkpoint brings its cameras and times along.
        config = tracker_config(given.config, given.checkpoint)
        self.config, self.camera_params = parameters.configure(config)
        self.heard = Heard({camera: CameraHeard() for camera in self.config.rig.cameras})
        self._plans = camera_inputs(self.config.rig.cameras, self.params, self.camera_params)
        self._mounts: dict[str, str] = {}  # frames of the cameras that the calibration file mounts
        if self.params.calibration_source == "file":
            self._read_calibration()
        for camera in self.heard.cameras:
            self._listen_to(camera)
        self.create_subscription(TFMessage, "/tf", lambda m: self._transforms(m, False), transform_qos(given))
        self.create_subscription(TFMessage, "/tf_static", lambda m: self._transforms(m, True), conversions.latched(100))
        if given.ego_source == "odometry":
            self.create_subscription(Odometry, given.odometry_topic, self._odometry, odometry_qos(given))

    def _listen_to(self, camera: str) -> None:
        plan, qos = self._plans[camera], image_qos(self.params)
        self.create_subscription(plan.image_kind, plan.image_topic, lambda m: self._image(camera, m), qos)
        if self.params.calibration_source == "camera_info":
            self.create_subscription(CameraInfo, plan.info_topic, lambda m: self._info(camera, m), qos)

    def ask_the_graph(self) -> None:
        """Why silent cameras are silent, where the vehicle's pose may be, whether there is a clock nobody asked for."""
        for camera, heard in self.heard.cameras.items():
            plan, ask = self._plans[camera], partial(explain_silence, self, self.params, camera)
            if not heard.stamps_ns:
                heard.silence = ask(plan.image_kind, plan.image_topic, "image_topic")
            if heard.model_problem == NOTHING_CAME:
                heard.model_problem = ask(CameraInfo, plan.info_topic, "camera_info_topic")
        self.heard.no_pose = explain_missing_pose(self, self.params)
        sim_time = self.get_parameter("use_sim_time").value
        self.heard.unused_clock = not sim_time and self.count_publishers("/clock") > 0

    def _image(self, camera: str, message) -> None:
        heard, t_ns = self.heard.cameras[camera], messages.stamp_ns(message)
        heard.stamps_ns.append(t_ns)
        heard.age_s.append((self.get_clock().now().nanoseconds - t_ns) * 1e-9)
        own, mounted = self.camera_params[camera], camera in self._mounts
        heard.frame_id = image_frame(camera, own, message.header.frame_id, mounted)
        if heard.model is None and len(heard.stamps_ns) % ASK_EVERY == 1:
            self._listen_to_latched(camera)
        try:
            bridge = encodings.needs_bridge(message)
            image = encodings.bridged(message) if bridge else messages.raw_image_from(message)
            heard.size_px, heard.problem = _size_px(image), ""
        except InputError as error:
            heard.problem = str(error)

    def _listen_to_latched(self, camera: str) -> None:
        """As the tracker does: a calibration that was published once comes to such a listener alone."""
        plan = self._plans[camera]
        if not plan.latched and is_latched(self, plan.info_topic):
            plan.latched = True
            self.create_subscription(
                CameraInfo, plan.info_topic, lambda m: self._info(camera, m), conversions.latched()
            )

    def _info(self, camera: str, message: CameraInfo) -> None:
        heard, topic = self.heard.cameras[camera], self._plans[camera].image_topic
        try:
            rectified = messages.images_rectified(self.config.rig.rectify, self.resolve_topic_name(topic))
            heard.model, heard.model_problem = messages.camera_model_from(message, rectified), ""
        except InputError as error:
            heard.model, heard.model_problem = None, str(error)

    def _transforms(self, message: TFMessage, static: bool) -> None:
        base = self.params.base_frame if self.params.ego_source == "odometry" else None
        for parent, child, t_ns, matrix in messages.transforms_from(message, lambda e: self._complain(str(e))):
            if child != base and child not in self._mounts.values():
                self._insert(parent, child, t_ns, matrix, static)

    def _odometry(self, message: Odometry) -> None:
        try:
            check_odometry(message, self.params)
            pose = messages.pose_from(message)
        except InputError as error:
            self._complain(f"{self.params.odometry_topic}: {error}")
            return
        self._insert(self.params.fixed_frame, self.params.base_frame, messages.stamp_ns(message), pose, False)

    def _insert(self, parent: str, child: str, t_ns: int, matrix: np.ndarray, static: bool) -> None:
        try:
            self.heard.tree.insert(parent, child, t_ns, matrix, static)
        except ValueError as error:
            self._complain(str(error))
            return
        if not static:
            self.heard.moving_ns.setdefault(child, []).append(t_ns)

    def _complain(self, problem: str) -> None:
        self.heard.problems.add(problem)

    def _read_calibration(self) -> None:
        calibration = load_calibration(self.params.calibration_file, self.config.rig.cameras)
        for camera, (model, base_from_cam) in calibration.items():
            self.heard.cameras[camera].model, self.heard.cameras[camera].model_problem = model, ""
            if base_from_cam is not None:
                frame = self._mounts[camera] = image_frame(camera, self.camera_params[camera], "", mounted=True)
                self.heard.tree.insert(self.params.base_frame, frame, 0, base_from_cam, True)


def _size_px(image: RawImage) -> tuple[int, int]:
    """Width and height of an image. Raises InputError if it does not say."""
    if image.encoding not in ("jpeg", "png"):
        return image.width, image.height
    return compressed_size(image.encoding, bytes(image.data))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to listen (default: 5)")
    findings: list[Finding] = []
    code = process.run(parser, lambda args, stop: findings.extend(_listen(args.seconds, stop)), argv)
    return code or int(any(finding.bad for finding in findings))


def _listen(seconds: float, stop: threading.Event) -> list[Finding]:
    if not 0.1 <= seconds <= 3600:
        raise InputError(f"--seconds {seconds:g}: expected 0.1 to 3600")
    with process.ros_arguments_checked():
        ears = Ears(_remaps())
    executor = SingleThreadedExecutor()
    executor.add_node(ears)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop.is_set():
        executor.spin_once(timeout_sec=0.1)
    ears.ask_the_graph()
    offsets_s = {c: own.stamp_offset for c, own in ears.camera_params.items()}
    frames = (ears.params.fixed_frame, ears.params.base_frame, ears.params.model_frame)
    findings = examine(ears.heard, ears.config, offsets_s, *frames)
    for finding in findings:
        print(f"{'CHANGE' if finding.bad else 'ok    '}  {finding.text}")
    bad = sum(finding.bad for finding in findings)
    print(f"{bad} to change" if bad else "all is well")
    ears.destroy_node()
    return findings


def _remaps() -> dict[str, str]:
    """Of the vehicle. They belong to a node's birth, and only a node knows its parameters: another one asks first."""
    node = Node("doctor")
    try:
        vehicle = node.declare_parameter("vehicle", "").value
    except InvalidParameterTypeException:
        return {}  # who reads all parameters says so
    finally:
        node.destroy_node()
    return load_vehicle(vehicle).remaps if vehicle else {}


if __name__ == "__main__":
    raise SystemExit(main())
