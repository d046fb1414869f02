"""The node's parameters: every name, default, limit and description, in dataclasses.

`syncl_ros.declare` makes ROS parameters of them, `syncl_ros.reference` the table of the documentation. A parameter that
is `live` may be changed while the node runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from syncl_core.config import SyncConfig
from syncl_core.io.markers import MarkerOptions
from syncl_ros.core_params import marker_specs, sync_specs
from syncl_ros.spec import Spec, parameter, specs_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParams:
    """What is fixed while the node runs."""

    vehicle: str = parameter(
        "", "YAML file of the vehicle, or the name of one in config/vehicles: values for the parameters below"
    )
    config: str = parameter("", "YAML file or name of the tracker; empty = that of the checkpoint")
    checkpoint: str = parameter(
        "",
        "weights (.safetensors); empty = untrained weights, whose boxes mean nothing; where config is empty, too: the "
        "project's own, trained on the synthetic world alone",
    )
    seed: int = parameter(0, "seed of untrained weights", limits=(0, 2**31 - 1))
    device: str = parameter("", "torch device, such as cpu or cuda:0; empty = a GPU if there is one")
    threads: int = parameter(0, "CPU threads of the network; 0 = torch's choice", limits=(0, 256))
    autostart: bool = parameter(True, "configure and activate at start; false = wait for lifecycle transitions")
    image_transport: str = parameter("compressed", "kind of image messages", choices=("compressed", "raw"))
    image_topic: str = parameter("/{camera}/image", "raw image topic; compressed images lie at <it>/compressed")
    camera_info_topic: str = parameter("/{camera}/camera_info", "calibration topic of a camera")
    image_qos: str = parameter(
        "sensor_data", "QoS of image subscriptions", name="qos.images", choices=("sensor_data", "reliable")
    )
    calibration_source: str = parameter(
        "camera_info",
        "where calibrations come from: camera_info topics, or calibration.file",
        name="calibration.source",
        choices=("camera_info", "file"),
    )
    calibration_file: str = parameter(
        "", "YAML with the cameras' calibrations (docs/ros.md tells the format)", name="calibration.file"
    )
    rectify: str = parameter(
        "",
        "undistort images: always, never, or auto: unless their topic is called image_rect...; empty = as configured",
        choices=("", "auto", "always", "never"),
    )
    ego_source: str = parameter(
        "tf", "where the vehicle's pose comes from", name="ego_motion.source", choices=("tf", "odometry")
    )
    ego_wait: float = parameter(
        0.2, "seconds that a set waits for its poses", name="ego_motion.wait", limits=(0.0, 10.0)
    )
    odometry_topic: str = parameter("/odom", "nav_msgs/Odometry, for ego_motion.source odometry")
    fixed_frame: str = parameter("odom", "frame in which tracks are published")
    output_frame: str = parameter(
        "", "frame of ~/tracks, ~/tracked_objects and ~/detections, if another one; markers stay in fixed_frame"
    )
    base_frame: str = parameter("base_link", "frame of the vehicle, on the road below the rear axle")
    model_frame: str = parameter(
        "",
        "frame of the vehicle that is where the network's LIDAR_TOP is: x right, y forward, 1.84 m above the road; "
        "empty = lidar_top, or where there is none, 0.94 m before and 1.84 m above base_frame",
    )
    sync_policy: str = parameter(
        "deadline",
        "how images become sets: deadline goes on without a silent camera; approximate_time puts the package "
        "message_filters in front, which needs every camera",
        name="sync.policy",
        choices=("deadline", "approximate_time"),
    )
    queue: str = parameter(
        "newest",
        "newest: live, a newer set replaces a waiting one; all: for recordings alone, every set is processed, however "
        "late, and what waits grows with a network that is too slow",
        name="sync.queue",
        choices=("newest", "all"),
    )
    coasting: bool = parameter(
        True, "while sets are unusable, publish predicted tracks for up to sync.coast_max seconds", name="sync.coasting"
    )
    end_topic: str = parameter("/player/finished", "std_msgs/Bool: true = the recording is over (sync.queue all)")
    diagnostics_period: float = parameter(
        1.0, "seconds between two /diagnostics messages", name="diagnostics.period", limits=(0.05, 60.0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveParams:
    """What may be changed while the node runs."""

    score_threshold: float = parameter(
        0.0, "tracks with a lower score are not published; 0 = the configuration decides", limits=(0.0, 1.0), live=True
    )
    classes: str = parameter(
        "", "tracks of these classes alone are published: names with commas between; empty = all", live=True
    )
    publish_rate: float = parameter(
        0.0,
        "messages per second on ~/tracks, with predictions between processed sets; 0 = without; not in a replay",
        limits=(0.0, 50.0),
        live=True,
    )
    max_image_age_ms: float = parameter(
        1000.0,
        "a camera without an image for so long is stale",
        name="diagnostics.max_image_age_ms",
        limits=(1.0, 1e6),
        live=True,
    )
    max_processing_ms: float = parameter(
        500.0,
        "a set that takes longer counts as delayed",
        name="diagnostics.max_allowed_processing_time_ms",
        limits=(1.0, 1e6),
        live=True,
    )
    max_delay_ms: float = parameter(
        2000.0,
        "sets delayed for longer than this, one after the other, are an error",
        name="diagnostics.max_acceptable_consecutive_delay_ms",
        limits=(1.0, 1e6),
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraParams:
    """What differs for one camera: `cameras.<camera>.<field>`."""

    image_topic: str = parameter("", "this camera's image topic; empty = image_topic")
    camera_info_topic: str = parameter("", "this camera's calibration topic; empty = camera_info_topic")
    image_transport: str = parameter(
        "", "compressed or raw; empty = image_transport", choices=("", "compressed", "raw")
    )
    frame_id: str = parameter(
        "", "its frame in /tf; empty = of a mount in calibration.file, else that of the images' headers"
    )
    stamp_offset: float = parameter(0.0, "seconds added to its stamps", limits=(-10.0, 10.0))


def camera_specs(camera: str) -> tuple[Spec, ...]:
    """`cameras.<camera>.<field>`; `camera` is its name in lower case."""
    return specs_of(CameraParams, f"cameras.{camera}.")


def class_spec(label: str) -> Spec:
    """`score_thresholds.<class>`."""
    return Spec(
        name=f"score_thresholds.{label}",
        default=0.0,
        description="the same for one class; the higher of the two counts",
        limits=(0.0, 1.0),
        live=True,
    )


def fixed_specs() -> tuple[Spec, ...]:
    """The parameters that exist whatever the tracker is, in declaration order."""
    return (*specs_of(NodeParams), *specs_of(LiveParams), *marker_specs(), *sync_specs())


def all_specs() -> tuple[Spec, ...]:
    """Every parameter, `<camera>` and `<class>` standing for their names."""
    return (*fixed_specs(), *camera_specs("<camera>"), class_spec("<class>"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The values of the live parameters at one moment."""

    params: LiveParams
    markers: MarkerOptions
    sync: SyncConfig
    classes: frozenset[str]  # that are published
    class_thresholds: Mapping[str, float]
