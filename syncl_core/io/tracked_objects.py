"""What else is said about tracks: Autoware's TrackedObjects, and what the class numbers mean."""

import uuid
from collections.abc import Sequence

import numpy as np

from syncl_core import geometry
from syncl_core.io import messages
from syncl_core.io.messages import Make
from syncl_core.types import ObjectSet

TRACKED_OBJECTS = "autoware_perception_msgs/msg/TrackedObjects"
LABEL_INFO = "vision_msgs/msg/LabelInfo"
FLOAT64 = "std_msgs/msg/Float64"

# Constants of autoware_perception_msgs: ObjectClassification (0 = UNKNOWN), TrackedObjectKinematics and Shape.
_LABELS = {"car": 1, "truck": 2, "bus": 3, "trailer": 4, "motorcycle": 5, "bicycle": 6, "pedestrian": 7}
_ORIENTATION_AVAILABLE = 2
_BOUNDING_BOX = 0
_STATIONARY_SPEED = 0.1  # m/s


def object_uuid(identity: str) -> uuid.UUID:
    """The same UUID (version 5) for the same "<session>-<n>", wherever and whenever it is asked for."""
    return uuid.uuid5(uuid.NAMESPACE_OID, identity)


def tracked_objects(make: Make, objects: ObjectSet, frame_id: str):
    """autoware_perception_msgs/TrackedObjects. Twists are in the object's own frame, as Autoware has them.

    An unknown (NaN) velocity is a zero twist; covariances are left zero: the network states none.
    """
    stamped = messages.header(make, objects.t_ns, frame_id)
    return make(
        TRACKED_OBJECTS, header=stamped, objects=[_tracked_object(make, objects, i) for i in range(len(objects))]
    )


def _tracked_object(make: Make, objects: ObjectSet, i: int):
    package = "autoware_perception_msgs/msg/"
    score = float(objects.scores[i])
    label = _LABELS.get(objects.labels[i], 0)
    return make(
        package + "TrackedObject",
        object_id=make("unique_identifier_msgs/msg/UUID", uuid=list(object_uuid(objects.ids[i]).bytes)),
        existence_probability=score,
        classification=[make(package + "ObjectClassification", label=label, probability=score)],
        kinematics=_kinematics(make, objects, i),
        shape=make(package + "Shape", type=_BOUNDING_BOX, dimensions=messages.vector3(make, objects.sizes[i])),
    )


def _kinematics(make: Make, objects: ObjectSet, i: int):
    velocity = np.nan_to_num(np.append(objects.velocities[i], 0.0))
    in_object = geometry.matrix_from_quaternion(objects.rotations[i]).T @ velocity
    twist = make("geometry_msgs/msg/Twist", linear=messages.vector3(make, in_object))
    center = messages.pose(make, objects.centers[i], objects.rotations[i])
    known = bool(np.isfinite(objects.velocities[i]).all())
    return make(
        "autoware_perception_msgs/msg/TrackedObjectKinematics",
        pose_with_covariance=make("geometry_msgs/msg/PoseWithCovariance", pose=center),
        twist_with_covariance=make("geometry_msgs/msg/TwistWithCovariance", twist=twist),
        orientation_availability=_ORIENTATION_AVAILABLE,
        is_stationary=known and bool(np.linalg.norm(velocity) < _STATIONARY_SPEED),
    )


def label_info(make: Make, classes: Sequence[str], threshold: float):
    """vision_msgs/LabelInfo: the network's class numbers and their names, which are the `class_id` of detections."""
    entries = [make("vision_msgs/msg/VisionClass", class_id=i, class_name=name) for i, name in enumerate(classes)]
    return make(LABEL_INFO, header=messages.header(make, 0, ""), class_map=entries, threshold=float(threshold))
