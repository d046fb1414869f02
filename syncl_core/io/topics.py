"""Topic and frame names: what `syncl bag` writes and what bags are read by unless told otherwise."""

from dataclasses import dataclass

from syncl_core.errors import InputError

MAP_FRAME = "map"
FIXED_FRAME = "odom"
BASE_FRAME = "base_link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Names of a bag's topics; `{camera}` stands for a camera's name in lower case."""

    image: str = "/{camera}/image"  # raw images; compressed ones have "/compressed" after it
    camera_info: str = "/{camera}/camera_info"
    tf: str = "/tf"
    tf_static: str = "/tf_static"
    odometry: str = "/odom"
    ground_truth: str = "/ground_truth/objects"
    ground_truth_markers: str = "/ground_truth/markers"
    sample: str = "/nuscenes/sample"

    def image_of(self, camera: str) -> str:
        return _fill(self.image, camera)

    def compressed_of(self, camera: str) -> str:
        return self.image_of(camera) + "/compressed"

    def camera_info_of(self, camera: str) -> str:
        return _fill(self.camera_info, camera)


def _fill(template: str, camera: str) -> str:
    try:
        return template.format(camera=frame_of(camera))
    except (KeyError, IndexError, ValueError):
        raise InputError(f"topic {template!r}: only {{camera}} can stand in braces") from None


def is_static_transforms(topic: str) -> bool:
    """Whether it is /tf_static, remapped or not, which is always latched (tf2)."""
    return topic.endswith("/tf_static")


def frame_of(channel: str) -> str:
    """The TF frame of a sensor: "CAM_FRONT" is `cam_front`."""
    return channel.lower()
