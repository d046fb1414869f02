"""Image encodings the core does not know (Bayer, YUV, 16 bits ...), through cv_bridge where that is installed."""

from sensor_msgs.msg import Image

from syncl_core.errors import InputError
from syncl_core.types import RawImage

BUILT_IN = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")


def needs_bridge(message) -> bool:
    """Whether a message is a raw image in an encoding that only cv_bridge can read."""
    return isinstance(message, Image) and message.encoding not in BUILT_IN


def bridged(message: Image) -> RawImage:
    """The image as "rgb8". Raises InputError where cv_bridge is missing or refuses it."""
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        raise InputError(
            f"image encoding {message.encoding!r} needs the ROS package cv_bridge, which is not installed; "
            f"built in are {', '.join(BUILT_IN)}"
        ) from None
    try:
        pixels = CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except CvBridgeError as error:
        raise InputError(f"image encoding {message.encoding!r}: {' '.join(str(error).split())}") from None
    height, width = pixels.shape[:2]
    return RawImage(encoding="rgb8", data=pixels.tobytes(), width=width, height=height, step=3 * width)
