"""What the doctor makes of messages: as the tracker would."""

import contextlib
import time

import pytest

pytest.importorskip("rclpy")

import numpy as np
import rclpy
import small_drive
from hand_fed import T_NS, TOPICS
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from test_settings import calibration_file
from test_sources import raw_message

from syncl_core.io import messages
from syncl_ros import conversions
from syncl_ros.conversions import make
from syncl_ros.doctor import Ears

CAMERA = "CAM_FRONT"


@contextlib.contextmanager
def ears(domain: int, *parameters: str, remaps=()):
    """The doctor's node with these parameters ("name:=value")."""
    given = [text for parameter in parameters for text in ("-p", parameter)]
    rclpy.init(args=["--ros-args", *given] if given else None, domain_id=domain)
    node = Ears(dict(remaps))
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()


def test_frames_are_looked_up_without_their_slash(domain):
    with ears(domain) as doctor:
        doctor._image(CAMERA, messages.compressed_image(make, T_NS, "/nose", small_drive.jpeg(1)))
        assert doctor.heard.cameras[CAMERA].frame_id == "nose"


def test_mounts_of_a_calibration_file_count_whatever_the_drivers_say(domain, tmp_path):
    mount = {"translation": [1, 2, 3], "rotation": [0.5, -0.5, 0.5, -0.5]}
    path = calibration_file(tmp_path, base_from_camera=mount)
    with ears(domain, "calibration.source:=file", f"calibration.file:={path}") as doctor:
        heard = doctor.heard
        other = messages.transform_stamped(make, 0, "base_link", "cam_front", np.eye(4))
        doctor._transforms(messages.tf_message(make, [other]), True)
        for camera in (CAMERA, "CAM_FRONT_LEFT"):
            doctor._image(camera, messages.compressed_image(make, T_NS, "driver_optical", small_drive.jpeg(1)))
        assert heard.tree.lookup("base_link", heard.cameras[CAMERA].frame_id, 0)[:3, 3].tolist() == [1, 2, 3]
        assert heard.cameras["CAM_FRONT_LEFT"].frame_id == "driver_optical"  # its mount is in /tf


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_size_of_images_is_read(domain, transport):
    with ears(domain, f"image_transport:={transport}") as doctor:
        raw = raw_message(T_NS, CAMERA, small_drive.picture(1))
        jpeg = messages.compressed_image(make, T_NS, "cam_front", small_drive.jpeg(1))
        heard = doctor.heard.cameras[CAMERA]
        doctor._image(CAMERA, raw if transport == "raw" else jpeg)
        assert heard.size_px == (320, 180) and not heard.problem
        if transport == "compressed":
            jpeg.data = jpeg.data[:50]
            doctor._image(CAMERA, jpeg)
            assert heard.problem.startswith("corrupt JPEG")


@pytest.mark.parametrize("remapped, bent", [("/front/image_rect/compressed", False), ("/front/compressed", True)])
def test_remapped_images_are_rectified_as_the_tracker_would(domain, remapped, bent):
    with ears(domain, remaps={TOPICS.compressed_of(CAMERA): remapped}) as doctor:
        info = messages.camera_info(make, T_NS, "cam_front", small_drive.MODEL)
        info.d[0] = -0.3
        doctor._info(CAMERA, info)
        assert (doctor.heard.cameras[CAMERA].model.lens is not None) is bent


def test_a_calibration_that_was_published_once_is_heard(domain):
    with ears(domain) as doctor:
        driver, executor = Node("driver"), SingleThreadedExecutor()
        infos = driver.create_publisher(CameraInfo, TOPICS.camera_info_of(CAMERA), conversions.latched())
        infos.publish(messages.camera_info(make, 0, "cam_front", small_drive.MODEL))
        executor.add_node(doctor)
        give_up = time.monotonic() + 10
        while doctor.heard.cameras[CAMERA].model is None and time.monotonic() < give_up:
            doctor._image(CAMERA, messages.compressed_image(make, T_NS, "cam_front", small_drive.jpeg(1)))
            executor.spin_once(timeout_sec=0.02)
        assert doctor.heard.cameras[CAMERA].model is not None
        executor.shutdown()
        driver.destroy_node()


def test_images_in_the_other_transport_are_found(domain):
    with ears(domain) as doctor:
        publisher = doctor.create_publisher(Image, "/cam_front/image", 1)
        give_up = time.monotonic() + 10
        while not doctor.count_publishers("/cam_front/image") and time.monotonic() < give_up:
            time.sleep(0.01)
        doctor.ask_the_graph()
        silence = doctor.heard.cameras[CAMERA].silence
        assert "nobody publishes /cam_front/camera_info" in doctor.heard.cameras[CAMERA].model_problem
        assert publisher and "/cam_front/image is published: change image_transport" in silence
        assert "start the publisher" in doctor.heard.cameras["CAM_BACK"].silence


@pytest.mark.parametrize("told", [False, True])
def test_a_clock_that_nobody_asked_for_is_noticed(domain, told):
    with ears(domain, f"use_sim_time:={str(told).lower()}") as doctor:
        publisher = doctor.create_publisher(Clock, "/clock", 1)
        give_up = time.monotonic() + 10
        while not doctor.count_publishers("/clock") and time.monotonic() < give_up:
            time.sleep(0.01)
        doctor.ask_the_graph()
        assert publisher and doctor.heard.unused_clock is not told
