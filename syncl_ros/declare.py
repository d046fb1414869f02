"""`syncl_ros.params` as ROS parameters: declared with descriptions and limits, read, checked when they change.

A parameter nobody knows is an error where it looks like one of ours: a typing mistake cannot be ignored. Others, which
a parent launch may give to every node, are named in the log. A vehicle file gives values in place of the defaults;
what the user sets for the node wins over it.
"""

import dataclasses
import difflib
import re

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
)
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_topic_name import validate_topic_name

from syncl_core.config import SyncConfig, SynclConfig, check_config
from syncl_core.errors import InputError, did_you_mean
from syncl_core.io.markers import MarkerOptions
from syncl_core.io.topics import frame_of
from syncl_ros import params
from syncl_ros.core_params import LIVE_SYNC, marker_specs, sync_specs
from syncl_ros.params import CameraParams, Live, LiveParams, NodeParams
from syncl_ros.spec import Spec, ros_name, specs_of
from syncl_ros.vehicle import load_vehicle

_DECLARED_BY_RCLPY = ("use_sim_time", "start_type_description_service")
# A launch file may give these to all of its nodes.
_OF_OTHERS = ("diagnostic_updater.", "robot_base_frame", "base_frame_id")
_QOS_OF_OTHERS = tuple(f"qos_overrides./{topic}." for topic in ("clock", "parameter_events", "rosout"))
_LIKE = 0.75  # of a name: so much like one of ours must be a typing mistake


class Parameters:
    """The parameters of one node. `configure` declares what depends on the tracker, once its cameras are known."""

    def __init__(self, node: Node):
        self._node = node
        self._specs: dict[str, Spec] = {}
        self._vehicle: dict[str, object] = {}
        self.remaps: dict[str, str] = {}  # that the vehicle file asks for
        self._config: SynclConfig | None = None  # of the tracker, once it is known
        self._reject_unknown_names()
        node.add_on_set_parameters_callback(self._check_change)
        vehicle, *others = specs_of(NodeParams)
        if path := self._declare(vehicle):
            given = load_vehicle(path)
            self._vehicle, self.remaps = given.parameters, given.remaps
        self.node = _filled(NodeParams, {"vehicle": path, **{spec.name: self._declare(spec) for spec in others}})
        for spec in (*specs_of(LiveParams), *marker_specs()):
            self._declare(spec)
        _check_node(self.node)

    def configure(self, config: SynclConfig) -> tuple[SynclConfig, dict[str, CameraParams]]:
        """Declare what depends on the tracker. Returns its configuration with `sync.*` replaced, and each camera's own.

        Raises InputError naming the parameter.
        """
        self._reject_unknown_members(config)
        values = {spec.name: self._declare(spec) for spec in sync_specs(config.sync)}
        sync = dataclasses.replace(config.sync, **{name.removeprefix("sync."): v for name, v in values.items()})
        offsets = config.rig.stamp_offsets or (0.0,) * len(config.rig.cameras)
        cameras = {c: self._declare_camera(c, offset) for c, offset in zip(config.rig.cameras, offsets, strict=True)}
        for label in config.tracking_classes:
            self._declare(params.class_spec(label))
        offsets = tuple(cameras[camera].stamp_offset for camera in config.rig.cameras)
        rig = dataclasses.replace(config.rig, stamp_offsets=offsets, rectify=self.node.rectify or config.rig.rectify)
        config = dataclasses.replace(config, sync=sync, rig=rig)
        check_config(config)
        chosen_classes(self._value("classes"), config.tracking_classes)
        self._config = config
        return config, cameras

    def _declare_camera(self, camera: str, stamp_offset: float) -> CameraParams:
        prefix = f"cameras.{frame_of(camera)}."
        specs = {spec.name.removeprefix(prefix): spec for spec in params.camera_specs(frame_of(camera))}
        specs["stamp_offset"] = dataclasses.replace(specs["stamp_offset"], default=stamp_offset)
        return CameraParams(**{name: self._declare(spec) for name, spec in specs.items()})

    def live(self) -> Live:
        """The live parameters as they are now. Any thread may ask."""
        markers = {s.name.removeprefix("markers."): self._value(s.name) for s in marker_specs()}
        values = _filled(LiveParams, {s.name: self._value(s.name) for s in specs_of(LiveParams)})
        tracked = self._config.tracking_classes
        return Live(
            params=values,
            markers=MarkerOptions(**{**markers, "color": tuple(markers["color"])}),
            sync=self.live_sync(),
            classes=chosen_classes(values.classes, tracked),
            class_thresholds={c: self._value(params.class_spec(c).name) for c in tracked},
        )

    def live_sync(self) -> SyncConfig:
        """How images become sets, with the live parameters as they are now. Not before `configure`."""
        now = {name: self._value(f"sync.{name}") for name in LIVE_SYNC}
        return dataclasses.replace(self._config.sync, **now)

    def _value(self, name: str):
        return self._node.get_parameter(name).value

    def _given(self) -> dict:
        # rclpy offers no public way to see overrides before they are declared.
        return {**self._vehicle, **{name: value.value for name, value in self._node._parameter_overrides.items()}}

    def _reject_unknown_names(self) -> None:
        known = [spec.name for spec in params.all_specs()]
        groups = {name.split(".")[0] for name in known if "." in name} | {"qos_overrides"}
        patterns = [re.compile(re.sub("<[a-z]+>", "[^.]+", re.escape(name))) for name in known]
        foreign = []
        for name in self._node._parameter_overrides:
            if name in _DECLARED_BY_RCLPY or any(pattern.fullmatch(name) for pattern in patterns):
                continue
            typo = name.split(".")[0] in groups or difflib.get_close_matches(name, known, n=1, cutoff=_LIKE)
            if typo and not name.startswith((*_OF_OTHERS, *_QOS_OF_OTHERS)):
                raise InputError(f"parameter {name}: unknown; {_hint(name, known)}")
            foreign.append(name)
        if foreign:
            self._node.get_logger().warning(f"not parameters of this node: {', '.join(sorted(foreign))}")

    def _reject_unknown_members(self, config: SynclConfig) -> None:
        """Camera and class names inside parameter names."""
        members = {
            "cameras": [frame_of(camera) for camera in config.rig.cameras],
            "score_thresholds": list(config.tracking_classes),
        }
        for name in self._given():
            group, *rest = name.split(".")
            if group in members and rest and rest[0] not in members[group]:
                raise InputError(f"parameter {name}: no {rest[0]} here; {_hint(rest[0], members[group])}")

    def _declare(self, spec: Spec):
        """The value of a parameter, declared unless it is already."""
        node, name = self._node, spec.name
        self._specs[name] = spec
        if node.has_parameter(name):
            return node.get_parameter(name).value
        default = _from_file(spec, self._vehicle[name]) if name in self._vehicle else spec.default
        default = list(default) if isinstance(default, tuple) else default
        try:
            value = node.declare_parameter(name, default, _descriptor(spec)).value
        except InvalidParameterTypeException:
            raise InputError(
                f"parameter {name}: expected {_kind(spec).__name__}, got {self._given()[name]!r}"
            ) from None
        except InvalidParameterValueException:
            raise InputError(f"parameter {name}: {_refusal(spec, self._given()[name])}") from None
        return value

    def _check_change(self, changes: list[Parameter]) -> SetParametersResult:
        """What descriptors cannot say: choices, and limits of list elements."""
        for change in changes:
            spec = self._specs.get(change.name)
            if spec and (reason := _refusal(spec, change.value)):
                return SetParametersResult(successful=False, reason=f"parameter {change.name}: {reason}")
        try:
            self._check_together({change.name: change.value for change in changes})
        except InputError as error:
            return SetParametersResult(successful=False, reason=f"parameter {error}")
        return SetParametersResult(successful=True)

    def _check_together(self, changes: dict[str, object]) -> None:
        """What only the tracker's configuration can tell. Raises InputError naming the parameter."""
        if self._config is None:
            return
        sync = {name: changes[f"sync.{name}"] for name in LIVE_SYNC if f"sync.{name}" in changes}
        if sync:
            check_config(dataclasses.replace(self._config, sync=dataclasses.replace(self._config.sync, **sync)))
        if "classes" in changes:
            chosen_classes(changes["classes"], self._config.tracking_classes)


def chosen_classes(text: str, known: tuple[str, ...]) -> frozenset[str]:
    """The classes that the parameter names, all if it names none. Raises InputError for one that is not tracked."""
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    for name in sorted(names):
        if name not in known:
            raise InputError(f"classes: no class {name!r} is tracked; {_hint(name, list(known))}")
    return names or frozenset(known)


def _descriptor(spec: Spec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.description, read_only=not spec.live)
    if spec.choices:
        descriptor.additional_constraints = f"one of: {', '.join(c or 'empty' for c in spec.choices)}"
    elif spec.limits and isinstance(spec.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=spec.limits[0], to_value=spec.limits[1])]
    elif spec.limits and isinstance(spec.default, int):
        descriptor.integer_range = [IntegerRange(from_value=spec.limits[0], to_value=spec.limits[1], step=1)]
    return descriptor


def _refusal(spec: Spec, value) -> str:
    """Why a parameter cannot have a value; "" = it can."""
    if spec.choices and value not in spec.choices:
        return f"{value!r} is not one of {', '.join(c or 'empty' for c in spec.choices)}"
    if isinstance(spec.default, tuple) and (not hasattr(value, "__len__") or len(value) != len(spec.default)):
        return f"expected {len(spec.default)} numbers, got {value!r}"
    values = value if isinstance(spec.default, tuple) else (value,)
    if spec.limits and not all(spec.limits[0] <= v <= spec.limits[1] for v in values):
        return f"{value!r} is not within {spec.limits[0]} to {spec.limits[1]}"
    return _topic_problem(value) if spec.name.endswith("_topic") and isinstance(value, str) and value else ""


def _topic_problem(topic: str) -> str:
    """Why ROS would not have a topic of this name; "" = it would."""
    topic = topic.replace("{camera}", "camera")
    try:
        validate_topic_name(topic)
        validate_full_topic_name(expand_topic_name(topic, "tracker", "/"))
    except InvalidTopicNameException as error:
        return f"{topic!r}: {str(error).splitlines()[0].removeprefix('Invalid topic name: ').rstrip(':')}"
    return ""


def _from_file(spec: Spec, value):
    """A vehicle file's value in the parameter's type. Raises InputError naming it."""
    if isinstance(spec.default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not _kind(spec):
        raise InputError(f"parameter {spec.name}: the vehicle file says {value!r}, expected {_kind(spec).__name__}")
    return value


def _kind(spec: Spec) -> type:
    """ROS has lists where a dataclass has tuples."""
    return list if isinstance(spec.default, tuple) else type(spec.default)


def _filled(kind: type, values: dict[str, object]):
    return kind(**{f.name: values[ros_name(f)] for f in dataclasses.fields(kind)})


def _hint(name: str, known: list[str]) -> str:
    return did_you_mean(name, known) or f"known: {', '.join(known)}"


def _check_node(given: NodeParams) -> None:
    for name in ("image_topic", "camera_info_topic"):
        topic = getattr(given, name)
        if "{camera}" not in topic:
            raise InputError(
                f"parameter {name}: {topic!r} is one topic for all cameras; put {{camera}} where the camera's name "
                f"stands, or set cameras.<camera>.{name}"
            )
    if (given.calibration_source == "file") != bool(given.calibration_file):
        raise InputError(
            f"parameter calibration.source: {given.calibration_source!r} does not go with "
            f"calibration.file {given.calibration_file!r}; set both or neither"
        )
