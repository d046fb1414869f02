"""A driver that publishes its calibration once, latched: over DDS, whoever was there first."""

import time

import pytest

pytest.importorskip("rclpy")

import rclpy
import small_drive
from hand_fed import TOPICS
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage

from syncl_core.config import RigConfig, SynclConfig
from syncl_core.io import messages
from syncl_core.runtime.intake import Intake
from syncl_ros import conversions
from syncl_ros.conversions import make
from syncl_ros.params import CameraParams, NodeParams
from syncl_ros.sources import Sources

CAMERA = "CAM_FRONT"
CONFIG = SynclConfig(rig=RigConfig(cameras=(CAMERA,)))


class Driver:
    """Its node, which says its calibration at once and never again."""

    def __init__(self, context):
        self.node = Node("driver", context=context)
        self.images = self.node.create_publisher(CompressedImage, TOPICS.compressed_of(CAMERA), 5)
        infos = self.node.create_publisher(CameraInfo, TOPICS.camera_info_of(CAMERA), conversions.latched())
        infos.publish(messages.camera_info(make, 0, "cam_front", small_drive.MODEL))

    def publish(self, number: int) -> None:
        image = messages.compressed_image(make, number * 10**8, "cam_front", small_drive.jpeg(1))
        self.images.publish(image)


@pytest.mark.parametrize("driver_first", [True, False])
@pytest.mark.parametrize("queue", ["newest", "all"])
def test_a_calibration_that_was_published_once_is_heard(driver_first, queue, domain):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    tracker = Node("tracker", context=context)
    driver = Driver(context) if driver_first else None
    time.sleep(0.5 * driver_first)  # they find each other
    params, own = NodeParams(queue=queue), {CAMERA: CameraParams()}
    sources = Sources(tracker, params, CONFIG, own, Intake(CONFIG, lambda: 0), lambda: None)
    sources.subscribe()
    driver = driver or Driver(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(tracker)
    give_up, number = time.monotonic() + 10, 0
    while not sources.cameras[CAMERA].calibrated and time.monotonic() < give_up:
        driver.publish(number := number + 1)
        executor.spin_once(timeout_sec=0.02)
    assert sources.cameras[CAMERA].calibrated and not sources.problems.snapshot()
    sources.close()
    executor.shutdown()
    for node in (tracker, driver.node):
        node.destroy_node()
    rclpy.shutdown(context=context)
