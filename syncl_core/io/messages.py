"""The one definition of every ROS message this project writes or reads, for bags and for the live node alike.

Builders take `make(type_name, **fields) -> message`: `BagTypes.make` for bags, the node's own for rclpy classes. They
hand it plain Python only (float, int, str, bytes, lists, other messages), so both kinds hold equal values.
Parsers read attributes common to both kinds. Quaternions are (w, x, y, z) here and (x, y, z, w) in messages.
"""

import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from syncl_core import geometry
from syncl_core.errors import InputError
from syncl_core.io.camera_info import camera_model_from, images_rectified  # noqa: F401  parsers like those below
from syncl_core.types import CameraModel, ObjectSet, RawImage

Make = Callable[..., object]

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"
ODOMETRY = "nav_msgs/msg/Odometry"
DETECTIONS = "vision_msgs/msg/Detection3DArray"
MARKERS = "visualization_msgs/msg/MarkerArray"
STRING = "std_msgs/msg/String"

_COMPRESSIONS = {"jpeg": "jpeg", "jpg": "jpeg", "png": "png"}


def time_from_ns(make: Make, t_ns: int):
    """builtin_interfaces/Time of int64 nanoseconds."""
    return make("builtin_interfaces/msg/Time", sec=int(t_ns // 10**9), nanosec=int(t_ns % 10**9))


def header(make: Make, t_ns: int, frame_id: str):
    """std_msgs/Header."""
    return make("std_msgs/msg/Header", stamp=time_from_ns(make, t_ns), frame_id=frame_id)


def vector3(make: Make, xyz: Sequence[float], kind: str = "Vector3"):
    """geometry_msgs/Vector3 (or another `kind` with x, y and z, such as Point) of numbers [3]."""
    x, y, z = (float(value) for value in xyz)
    return make(f"geometry_msgs/msg/{kind}", x=x, y=y, z=z)


def quaternion(make: Make, wxyz: Sequence[float]):
    """geometry_msgs/Quaternion of numbers [4] (w, x, y, z)."""
    w, x, y, z = (float(value) for value in wxyz)
    return make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def pose(make: Make, position: Sequence[float], wxyz: Sequence[float] = (1.0, 0.0, 0.0, 0.0)):
    """geometry_msgs/Pose of a position [3] in metres and a quaternion [4]."""
    return make("geometry_msgs/msg/Pose", position=vector3(make, position, "Point"), orientation=quaternion(make, wxyz))


def compressed_image(make: Make, t_ns: int, frame_id: str, image: RawImage):
    """sensor_msgs/CompressedImage holding the bytes of a "jpeg" or "png" RawImage unchanged."""
    stamped = header(make, t_ns, frame_id)
    return make(COMPRESSED_IMAGE, header=stamped, format=image.encoding, data=bytes(image.data))


def image(make: Make, t_ns: int, frame_id: str, image: RawImage):
    """sensor_msgs/Image holding the pixels of a raw RawImage of known size, without padding, unchanged."""
    return make(
        IMAGE,
        header=header(make, t_ns, frame_id),
        height=image.height,
        width=image.width,
        encoding=image.encoding,
        is_bigendian=0,
        step=len(image.data) // image.height,
        data=bytes(image.data),
    )


def camera_info(make: Make, t_ns: int, frame_id: str, model: CameraModel):
    """sensor_msgs/CameraInfo of an undistorted camera: P = [K | 0], R = identity, D = five zeros (plumb_bob)."""
    intrinsics = np.asarray(model.intrinsics, np.float64)
    return make(
        CAMERA_INFO,
        header=header(make, t_ns, frame_id),
        width=int(model.width),
        height=int(model.height),
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=intrinsics.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=np.hstack([intrinsics, np.zeros((3, 1))]).ravel().tolist(),
    )


def transform_stamped(make: Make, t_ns: int, parent: str, child: str, parent_from_child: np.ndarray):
    """geometry_msgs/TransformStamped of a rigid transform [4, 4]."""
    rotation = quaternion(make, geometry.quaternion_from_matrix(parent_from_child[:3, :3]))
    translation = vector3(make, parent_from_child[:3, 3])
    return make(
        "geometry_msgs/msg/TransformStamped",
        header=header(make, t_ns, parent),
        child_frame_id=child,
        transform=make("geometry_msgs/msg/Transform", translation=translation, rotation=rotation),
    )


def tf_message(make: Make, transforms: Iterable):
    """tf2_msgs/TFMessage of TransformStamped messages."""
    return make(TF, transforms=list(transforms))


def odometry(make: Make, t_ns: int, parent: str, child: str, parent_from_child: np.ndarray):
    """nav_msgs/Odometry of a vehicle pose [4, 4]. The twist and both covariances are left zero: nuScenes has none."""
    orientation = geometry.quaternion_from_matrix(parent_from_child[:3, :3])
    stamped_pose = pose(make, parent_from_child[:3, 3], orientation)
    return make(
        ODOMETRY,
        header=header(make, t_ns, parent),
        child_frame_id=child,
        pose=make("geometry_msgs/msg/PoseWithCovariance", pose=stamped_pose),
    )


def detection3d_array(make: Make, objects: ObjectSet, frame_id: str):
    """vision_msgs/Detection3DArray: geometric centres, sizes (length, width, height), the identity as string `id`.

    The array and each detection carry the same header; `results[0]` is the class. Velocities have no field.
    """
    stamped = header(make, objects.t_ns, frame_id)
    detections = [_detection3d(make, objects, i, stamped) for i in range(len(objects))]
    return make(DETECTIONS, header=stamped, detections=detections)


def _detection3d(make: Make, objects: ObjectSet, i: int, stamped):
    center = pose(make, objects.centers[i], objects.rotations[i])
    score = float(objects.scores[i])
    hypothesis = make("vision_msgs/msg/ObjectHypothesis", class_id=objects.labels[i], score=score)
    result_pose = make("geometry_msgs/msg/PoseWithCovariance", pose=center)
    return make(
        "vision_msgs/msg/Detection3D",
        header=stamped,
        results=[make("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis, pose=result_pose)],
        bbox=make("vision_msgs/msg/BoundingBox3D", center=center, size=vector3(make, objects.sizes[i])),
        id=objects.ids[i],
    )


def sample_record(make: Make, scene: str, sample_token: str, t_ns: int):
    """std_msgs/String with JSON that ties a time stamp to a nuScenes key frame."""
    return make(STRING, data=json.dumps({"scene": scene, "sample_token": sample_token, "t_ns": int(t_ns)}))


def stamp_ns(message) -> int:
    """Time stamp of any message with a header, int64 nanoseconds."""
    stamp = message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec


def raw_image_from(message) -> RawImage:
    """RawImage of a CompressedImage or Image; pixels are neither copied nor decoded.

    A compressed format reads "jpeg", "png" or, from image_transport, "rgb8; jpeg compressed bgr8". Raises InputError
    for any other compression. Raw encodings are checked when decoding.
    """
    if hasattr(message, "encoding"):
        return RawImage(
            encoding=message.encoding,
            data=memoryview(message.data),
            width=message.width,
            height=message.height,
            step=message.step,
        )
    words = message.format.lower().replace(";", " ").split()
    encoding = next((_COMPRESSIONS[word] for word in words if word in _COMPRESSIONS), None)
    if encoding is None or "compresseddepth" in words:
        raise InputError(f"unknown compressed image format {message.format!r}; known: jpeg, png")
    # image_transport names what it has turned an image into after this word, and leaves mosaics as they are.
    if words[0].startswith("bayer_") and words[-1] == "compressed":
        raise InputError(f"compressed image format {message.format!r}: a colour mosaic; decode it, or send it raw")
    return RawImage(encoding=encoding, data=memoryview(message.data))


def transforms_from(
    message, on_unusable: Callable[[InputError], None] | None = None
) -> list[tuple[str, str, int, np.ndarray]]:
    """(parent, child, t_ns, parent_from_child [4, 4]) of each transform of a TFMessage.

    One that is not finite or not a rotation is told to `on_unusable` and left out; without that, InputError is raised.
    """
    result = []
    for stamped in message.transforms:
        parent, child = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
        try:
            matrix = _matrix(
                stamped.transform.translation, stamped.transform.rotation, f"transform {parent} -> {child}"
            )
        except InputError as error:
            if on_unusable is None:
                raise
            on_unusable(error)
            continue
        result.append((parent, child, stamp_ns(stamped), matrix))
    return result


def odometry_frames(message) -> tuple[str, str]:
    """(parent, child) frames of an Odometry; "" where it does not say."""
    return message.header.frame_id.lstrip("/"), message.child_frame_id.lstrip("/")


def pose_from(message) -> np.ndarray:
    """Vehicle pose [4, 4] of an Odometry. Raises InputError for a pose that is not finite or not a rotation."""
    center = message.pose.pose
    return _matrix(center.position, center.orientation, f"pose of {message.child_frame_id}")


def _matrix(translation, rotation, what: str) -> np.ndarray:
    try:
        return geometry.transform(
            (translation.x, translation.y, translation.z), (rotation.w, rotation.x, rotation.y, rotation.z)
        )
    except ValueError as error:
        raise InputError(f"{what}: {error}") from None


def object_set_from(message) -> ObjectSet:
    """ObjectSet of a Detection3DArray, exact to the last bit. Velocities are NaN: the message has no field for them."""
    detections = message.detections
    best = [detection.results[0].hypothesis if detection.results else None for detection in detections]
    boxes = [detection.bbox for detection in detections]
    return ObjectSet(
        t_ns=stamp_ns(message),
        ids=tuple(detection.id for detection in detections),
        labels=tuple(result.class_id if result else "" for result in best),
        scores=np.array([result.score if result else 0.0 for result in best], np.float64),
        centers=_rows([(p.x, p.y, p.z) for p in (box.center.position for box in boxes)], 3),
        sizes=_rows([(box.size.x, box.size.y, box.size.z) for box in boxes], 3),
        rotations=_rows([(q.w, q.x, q.y, q.z) for q in (box.center.orientation for box in boxes)], 4),
        velocities=np.full((len(boxes), 2), np.nan),
    )


def _rows(values: list[tuple], width: int) -> np.ndarray:
    return np.array(values, np.float64).reshape(-1, width)


def sample_record_from(message) -> tuple[str, str, int]:
    """(scene, sample_token, t_ns) of a `sample_record`. Raises InputError for any other text."""
    try:
        record = json.loads(message.data)
        return str(record["scene"]), str(record["sample_token"]), int(record["t_ns"])
    except (ValueError, TypeError, KeyError):
        raise InputError(f"not a sample record: {message.data[:80]!r}") from None
