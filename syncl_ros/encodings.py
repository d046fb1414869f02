"""Image encodings the core does not know (Bayer, YUV, 16 bits ...), through cv_bridge where that is installed."""

import dataclasses
from functools import partial
from types import ModuleType

import numpy as np
from sensor_msgs.msg import Image

from syncl_core.errors import InputError, one_line
from syncl_core.io import messages
from syncl_core.types import RawImage

BUILT_IN = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")


def needs_bridge(message) -> bool:
    """Whether a message is a raw image in an encoding that only cv_bridge can read."""
    return isinstance(message, Image) and message.encoding not in BUILT_IN


def bridged(message: Image) -> RawImage:
    """The image, to be converted by cv_bridge when a set needs it. Raises InputError where cv_bridge is missing."""
    bridge = _cv_bridge(message.encoding).CvBridge()
    return dataclasses.replace(messages.raw_image_from(message), decode=partial(_rgb_pixels, bridge, message))


def _cv_bridge(encoding: str) -> ModuleType:
    try:
        import cv_bridge
    except ImportError:
        raise InputError(
            f"image encoding {encoding!r} needs the ROS package cv_bridge, which is not installed; "
            f"built in are {', '.join(BUILT_IN)}"
        ) from None
    return cv_bridge


def _rgb_pixels(bridge, message: Image) -> np.ndarray:
    """RGB [H, W, 3] uint8. Raises InputError if cv_bridge refuses."""
    try:
        return np.asarray(bridge.imgmsg_to_cv2(message, desired_encoding="rgb8"))
    except Exception as error:  # CvBridgeError, and whatever numpy and OpenCV say about wrong sizes
        raise InputError(f"image encoding {message.encoding!r}: {one_line(error)}") from None
