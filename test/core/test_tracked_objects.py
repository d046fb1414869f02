"""Autoware's TrackedObjects and LabelInfo against their definitions, built without ROS."""

import math
import uuid
from pathlib import Path

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

import syncl_core
from syncl_core.io.bag_types import bag_types
from syncl_core.io.tracked_objects import label_info, object_uuid, tracked_objects
from syncl_core.types import ObjectSet

INTERFACES = Path(syncl_core.__file__).parent / "io" / "interfaces" / "autoware_perception_msgs" / "msg"


@pytest.fixture(scope="module")
def make():
    """A `make` over plain Python values that checks every field against the definitions."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for file in INTERFACES.glob("*.msg"):
        types |= get_types_from_msg(file.read_text(), f"autoware_perception_msgs/msg/{file.stem}")
    store.register(types)

    def make(type_name, **fields):
        known = [name for name, _ in store.fielddefs[type_name][1]]
        assert set(fields) <= set(known), (type_name, fields)
        return fields

    return make


def objects(yaw: float, velocity: tuple[float, float], label: str = "car") -> ObjectSet:
    return ObjectSet(
        t_ns=1_500_000_000_250_000_000,
        ids=("00ab34cd-7",),
        labels=(label,),
        scores=np.array([0.75]),
        centers=np.array([[10.0, -4.0, 1.0]]),
        sizes=np.array([[4.5, 1.9, 1.6]]),
        rotations=np.array([[math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]]),
        velocities=np.array([velocity]),
    )


@pytest.mark.parametrize("yaw", [0.0, 0.7, math.pi / 2, -2.9])
def test_the_twist_is_in_the_objects_own_frame(make, yaw):
    (entry,) = tracked_objects(make, objects(yaw, (3.0, 1.0)), "odom")["objects"]
    linear = entry["kinematics"]["twist_with_covariance"]["twist"]["linear"]
    # Component along the heading, and along the left of it.
    assert linear["x"] == pytest.approx(3.0 * math.cos(yaw) + 1.0 * math.sin(yaw))
    assert linear["y"] == pytest.approx(-3.0 * math.sin(yaw) + 1.0 * math.cos(yaw))
    assert linear["z"] == pytest.approx(0.0) and entry["kinematics"]["is_stationary"] is False


def test_every_field_says_what_the_track_is(make):
    message = tracked_objects(make, objects(0.3, (0.05, 0.0)), "odom")
    assert message["header"] == {"stamp": {"sec": 1_500_000_000, "nanosec": 250_000_000}, "frame_id": "odom"}
    (entry,) = message["objects"]
    assert entry["existence_probability"] == 0.75
    assert entry["classification"] == [{"label": 1, "probability": 0.75}]
    assert entry["shape"] == {"type": 0, "dimensions": {"x": 4.5, "y": 1.9, "z": 1.6}}
    pose = entry["kinematics"]["pose_with_covariance"]["pose"]
    assert pose["position"] == {"x": 10.0, "y": -4.0, "z": 1.0}
    assert pose["orientation"]["z"] == pytest.approx(math.sin(0.15))
    assert entry["kinematics"]["orientation_availability"] == 2 and entry["kinematics"]["is_stationary"] is True
    number = uuid.UUID(bytes=bytes(entry["object_id"]["uuid"]))
    assert number == object_uuid("00ab34cd-7") != object_uuid("00ab34cd-8") and number.version == 5


def test_an_unknown_velocity_is_zero_and_not_called_stationary(make):
    (entry,) = tracked_objects(make, objects(0.3, (math.nan, math.nan)), "odom")["objects"]
    assert entry["kinematics"]["twist_with_covariance"]["twist"]["linear"] == {"x": 0.0, "y": 0.0, "z": 0.0}
    assert entry["kinematics"]["is_stationary"] is False


def test_classes_are_autowares():
    constants = dict(
        line.removeprefix("uint8 ").split("=")
        for line in (INTERFACES / "ObjectClassification.msg").read_text().splitlines()
        if "=" in line
    )
    for label in ("car", "truck", "bus", "trailer", "motorcycle", "bicycle", "pedestrian", "barrier"):
        (entry,) = tracked_objects(lambda _, **fields: fields, objects(0.0, (0.0, 0.0), label), "odom")["objects"]
        assert entry["classification"][0]["label"] == int(constants.get(label.upper(), constants["UNKNOWN"]))


def test_label_info_numbers_the_classes():
    message = label_info(bag_types().make, ("car", "bus"), 0.25)
    assert [(entry.class_id, entry.class_name) for entry in message.class_map] == [(0, "car"), (1, "bus")]
    assert message.threshold == 0.25
    assert (
        bag_types().deserialize(bag_types().serialize(message), "vision_msgs/msg/LabelInfo").class_map[1].class_id == 1
    )
