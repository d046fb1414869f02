"""One camera as the node hears it: its topics, and what has come of it so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image

from syncl_core.errors import InputError
from syncl_core.io.topics import Topics, frame_of
from syncl_ros.params import CameraParams, NodeParams


@dataclass(slots=True)
class CameraInput:
    """What came from one camera so far, on the steady clock. Written by callbacks, read by diagnostics."""

    image_topic: str
    info_topic: str
    image_kind: type
    images: int = 0
    image_s: float | None = None  # when the latest image came
    calibrated: bool = False
    latched: bool = False  # its calibration is listened to as to a latched one, too
    refused_s: float | None = None  # when the latest unusable message came
    refused: str = ""  # and why
    refused_calibration: str = ""  # why the latest calibration cannot be used; it may have been published only once


def camera_inputs(
    cameras: Sequence[str], params: NodeParams, camera_params: Mapping[str, CameraParams]
) -> dict[str, CameraInput]:
    """`camera_input` of every camera. Raises InputError where two would share a topic."""
    inputs = {camera: camera_input(camera, params, camera_params) for camera in cameras}
    owners: dict[str, str] = {}
    for camera, planned in inputs.items():
        topics = {"image_topic": planned.image_topic}
        if params.calibration_source != "file":
            topics["camera_info_topic"] = planned.info_topic
        for name, topic in topics.items():
            if (other := owners.setdefault(topic, camera)) != camera:
                raise InputError(
                    f"parameter cameras.{frame_of(camera)}.{name}: {other} and {camera} would both be {topic}; "
                    "every camera needs its own"
                )
    return inputs


def camera_input(camera: str, params: NodeParams, camera_params: Mapping[str, CameraParams]) -> CameraInput:
    """Topics and message type of one camera, without anything received yet."""
    own = camera_params[camera]
    topics = Topics(image=own.image_topic or params.image_topic)
    topic = topics.image_of(camera)
    compressed = (own.image_transport or params.image_transport) == "compressed"
    if compressed and not topic.endswith("/compressed"):
        topic = topics.compressed_of(camera)
    info = Topics(camera_info=own.camera_info_topic or params.camera_info_topic).camera_info_of(camera)
    return CameraInput(image_topic=topic, info_topic=info, image_kind=CompressedImage if compressed else Image)
