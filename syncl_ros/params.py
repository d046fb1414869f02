"""The node's parameters: every name, default, limit and description, declared once.

`NodeParams` are read by the node only; `sync.<field>` override the fields of the core's SyncConfig. A parameter nobody
knows is an error, so that a typing mistake cannot be silently ignored.
"""

import dataclasses
import difflib
from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from syncl_core.config import SyncConfig
from syncl_core.errors import InputError

_DECLARED_BY_RCLPY = ("use_sim_time", "start_type_description_service")


def _parameter(default, description: str, *, name: str = "", choices=(), limits=None, live: bool = False):
    metadata = {"name": name, "description": description, "choices": choices, "limits": limits, "live": live}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParams:
    """What the node itself needs to know. `name` in the metadata is the ROS name where it has dots."""

    config: str = _parameter("", "YAML file of the tracker; empty = that of the checkpoint, or the defaults")
    checkpoint: str = _parameter("", "weights (.safetensors); empty = untrained weights, whose boxes mean nothing")
    seed: int = _parameter(0, "seed of untrained weights", limits=(0, 2**31 - 1))
    device: str = _parameter("cpu", "torch device, such as cpu or cuda:0")
    threads: int = _parameter(0, "CPU threads of the network; 0 = torch's choice", limits=(0, 256))
    image_transport: str = _parameter("compressed", "kind of image messages", choices=("compressed", "raw"))
    image_topic: str = _parameter("/{camera}/image", "raw image topic; compressed images lie at <it>/compressed")
    camera_info_topic: str = _parameter("/{camera}/camera_info", "calibration topic of a camera")
    image_qos: str = _parameter(
        "sensor_data", "QoS of image subscriptions", name="qos.images", choices=("sensor_data", "reliable")
    )
    ego_source: str = _parameter(
        "tf", "where the vehicle's pose comes from", name="ego_motion.source", choices=("tf", "odometry")
    )
    odometry_topic: str = _parameter("/odom", "nav_msgs/Odometry, for ego_motion.source odometry")
    fixed_frame: str = _parameter("odom", "frame in which tracks are published")
    base_frame: str = _parameter("base_link", "frame of the vehicle")
    queue: str = _parameter(
        "newest",
        "newest: live, a newer set replaces a waiting one; all: replay, every set is processed, however late",
        name="sync.queue",
        choices=("newest", "all"),
    )
    end_topic: str = _parameter("/player/finished", "std_msgs/Bool: true = the recording is over (sync.queue all)")
    score_threshold: float = _parameter(
        0.0, "tracks with a lower score are not published; 0 = the configuration decides", limits=(0.0, 1.0), live=True
    )


def declare(node: Node) -> NodeParams:
    """Declare and read all but the `sync` parameters. Raises InputError naming the parameter."""
    _reject_unknown(node)
    fields = dataclasses.fields(NodeParams)
    return NodeParams(**{f.name: _declare(node, ros_name(f), f.default, f.metadata) for f in fields})


def declare_sync(node: Node, defaults: SyncConfig) -> SyncConfig:
    """Declare `sync.<field>` for every field of SyncConfig, and return `defaults` with what the user gave."""
    values = {}
    for f in dataclasses.fields(SyncConfig):
        metadata = {"description": f"overrides sync.{f.name} of the configuration"}
        values[f.name] = _declare(node, f"sync.{f.name}", getattr(defaults, f.name), metadata)
    return SyncConfig(**values)


def ros_name(field: dataclasses.Field) -> str:
    return field.metadata["name"] or field.name


def known_names() -> tuple[str, ...]:
    """Every parameter the node takes, in declaration order."""
    sync = (f"sync.{f.name}" for f in dataclasses.fields(SyncConfig))
    return (*(ros_name(f) for f in dataclasses.fields(NodeParams)), *sync)


def _reject_unknown(node: Node) -> None:
    known = (*known_names(), *_DECLARED_BY_RCLPY)
    # rclpy offers no public way to see overrides before they are declared.
    for name in node._parameter_overrides:
        if name not in known and not name.startswith("qos_overrides."):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise InputError(f"parameter {name}: unknown; {hint}")


def _declare(node: Node, name: str, default, metadata):
    descriptor = ParameterDescriptor(description=metadata["description"], read_only=not metadata.get("live"))
    choices, limits = metadata.get("choices"), metadata.get("limits")
    if choices:
        descriptor.additional_constraints = f"one of: {', '.join(choices)}"
    if limits and isinstance(default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=limits[0], to_value=limits[1])]
    elif limits:
        descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1], step=1)]
    try:
        value = node.declare_parameter(name, default, descriptor).value
    except InvalidParameterTypeException:
        given = node._parameter_overrides[name].value
        raise InputError(f"parameter {name}: expected {type(default).__name__}, got {given!r}") from None
    except InvalidParameterValueException:
        given = node._parameter_overrides[name].value
        raise InputError(f"parameter {name}: {given!r} is not within {limits[0]} to {limits[1]}") from None
    if choices and value not in choices:
        raise InputError(f"parameter {name}: {value!r} is not one of {', '.join(choices)}")
    return value
