"""A recorded drive as the calls a live node would make: what lets offline tracking use the node's own intake."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.topics import Topics
from syncl_core.types import CameraModel, RawImage


class SensorIntake(Protocol):
    """Where sensor data goes; `runtime.intake.Intake` is one."""

    def add_image(self, camera: str, t_ns: int, frame_id: str, image: RawImage) -> None: ...

    def add_camera_model(self, camera: str, model: CameraModel) -> None: ...

    def add_transform(
        self, parent: str, child: str, t_ns: int, parent_from_child: np.ndarray, static: bool = False
    ) -> None: ...

    def add_odometry(self, t_ns: int, fixed_from_base: np.ndarray) -> None: ...


Deliver = Callable[[SensorIntake], None]
Handler = Callable[[object], Deliver]


def sensor_events(
    reader: BagReader,
    cameras: Sequence[str],
    topics: Topics | None = None,
    *,
    min_cameras: int | None = None,
    rectify: str = "auto",
    on_unusable: Callable[[str, str], None] | None = None,
) -> Iterator[tuple[int, Deliver]]:
    """(log time in ns, deliver) for every sensor message, in log order; `deliver(intake)` hands its content over.

    The log time is what the clock showed; stamps inside the messages say when something was measured. Compressed images
    are preferred where a camera has both. Raises InputError if fewer than `min_cameras` (default: all) of `cameras`
    have images, if calibration or poses are missing, and for any unusable message. `rectify` is `rig.rectify`.

    An unusable transform, which may be of any part of the vehicle, is left out, as in the node: `on_unusable(topic,
    why)` hears of it.
    """
    topics = topics or Topics()
    handlers = _camera_handlers(reader, cameras, topics, rectify, min_cameras)
    handlers |= _pose_handlers(reader, topics, on_unusable or (lambda topic, why: None))
    for topic, message, t_ns in reader.decoded(handlers):
        try:
            deliver = handlers[topic](message)
        except InputError as error:
            raise InputError(f"{reader.path}: {topic} at {t_ns} ns: {error}") from None
        yield t_ns, deliver


def _camera_handlers(
    reader: BagReader, cameras: Sequence[str], topics: Topics, rectify: str, min_cameras: int | None
) -> dict[str, Handler]:
    handlers: dict[str, Handler] = {}
    absent = []
    for camera in cameras:
        compressed, raw = topics.compressed_of(camera), topics.image_of(camera)
        if compressed not in reader.topics and raw not in reader.topics:
            absent.append(f"{camera} ({compressed} or {raw})")
            continue
        image = compressed if compressed in reader.topics else raw
        reader.require(image, messages.COMPRESSED_IMAGE, messages.IMAGE)
        reader.require(topics.camera_info_of(camera), messages.CAMERA_INFO)
        handlers[image] = partial(_image, camera)
        rectified = messages.images_rectified(rectify, image)
        handlers[topics.camera_info_of(camera)] = partial(_camera_info, camera, rectified)
    required = len(cameras) if min_cameras is None else min_cameras
    if len(cameras) - len(absent) < required:
        raise InputError(f"{reader.path}: no images of {', '.join(absent)}; {required} cameras are required")
    return handlers


def _pose_handlers(reader: BagReader, topics: Topics, on_unusable: Callable[[str, str], None]) -> dict[str, Handler]:
    if topics.tf not in reader.topics and topics.tf_static not in reader.topics:
        raise InputError(f"{reader.path}: neither {topics.tf} nor {topics.tf_static}: where the cameras sit is unknown")
    if topics.tf not in reader.topics and topics.odometry not in reader.topics:
        raise InputError(f"{reader.path}: neither {topics.tf} nor {topics.odometry}: where the vehicle is is unknown")
    known = {
        topics.tf: (messages.TF, partial(_transforms, False, partial(on_unusable, topics.tf))),
        topics.tf_static: (messages.TF, partial(_transforms, True, partial(on_unusable, topics.tf_static))),
        topics.odometry: (messages.ODOMETRY, _odometry),
    }
    if topics.tf in reader.topics:
        del known[topics.odometry]  # one source of poses, as in the node: two would disagree between their stamps
    present = {topic: known[topic] for topic in known if topic in reader.topics}
    for topic, (type_name, _) in present.items():
        reader.require(topic, type_name)
    return {topic: handler for topic, (_, handler) in present.items()}


def _image(camera: str, message) -> Deliver:
    t_ns, frame_id = messages.stamp_ns(message), message.header.frame_id.lstrip("/")
    image = messages.raw_image_from(message)
    return lambda intake: intake.add_image(camera, t_ns, frame_id, image)


def _camera_info(camera: str, rectified: bool, message) -> Deliver:
    model = messages.camera_model_from(message, rectified)
    return lambda intake: intake.add_camera_model(camera, model)


def _transforms(static: bool, on_unusable: Callable[[str], None], message) -> Deliver:
    transforms = messages.transforms_from(message, lambda error: on_unusable(str(error)))

    def deliver(intake: SensorIntake) -> None:
        for parent, child, t_ns, parent_from_child in transforms:
            intake.add_transform(parent, child, t_ns, parent_from_child, static)

    return deliver


def _odometry(message) -> Deliver:
    t_ns, pose = messages.stamp_ns(message), messages.pose_from(message)
    return lambda intake: intake.add_odometry(t_ns, pose)
