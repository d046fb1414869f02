"""The tracker node: `ros2 launch syncl_ros tracker.launch.py vehicle:=my_car.yaml checkpoint:=weights.safetensors`.

One vehicle file says where its cameras, frames and times are (config/vehicles/template.yaml), remappings included.
"""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from syncl_core.classes import CAMERAS
from syncl_core.io.topics import frame_of
from syncl_ros.environment import missing_environment
from syncl_ros.namespaces import full_namespace
from syncl_ros.vehicle import load_vehicle

CONFIG = os.path.join(get_package_share_directory("syncl_ros"), "config")
RESPAWN_SECONDS = 2.0
RVIZ_TOPICS = ("markers", *(f"debug/image/{frame_of(camera)}" for camera in CAMERAS))  # of the tracker

# Given arguments win over the parameter file, and both over the vehicle file; empty ones say nothing. These names are
# those of the node's parameters.
NODE_ARGUMENTS = {
    "vehicle": "YAML file of the vehicle, or the name of one in config/vehicles",
    "config": "YAML file or name of the tracker",
    "checkpoint": "weights (.safetensors)",
    "device": "torch device, such as cpu or cuda:0; default: a GPU if there is one",
    "image_transport": "compressed or raw",
    "autostart": "false: wait for lifecycle transitions",
}
OTHER_ARGUMENTS = {
    "params_file": ("", "parameters of the node (config/tracker.yaml lists all): what you change; one,two files"),
    "namespace": ("", "namespace of the node"),
    "use_sim_time": ("", "true: take the time from /clock"),
    "log_level": ("info", "of the node: debug, info, warn or error"),
    "respawn": ("false", "true: start the node again two seconds after it ended, as on a vehicle"),
    "rviz": ("false", "open RViz as well"),
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*arguments(), OpaqueFunction(function=nodes)])


def arguments() -> list[DeclareLaunchArgument]:
    """What `ros2 launch ... --show-args` lists."""
    return [
        *(DeclareLaunchArgument(name, default_value="", description=text) for name, text in NODE_ARGUMENTS.items()),
        *(
            DeclareLaunchArgument(name, default_value=default, description=text)
            for name, (default, text) in OTHER_ARGUMENTS.items()
        ),
    ]


def nodes(context: LaunchContext) -> list[Action]:
    """The tracker, and RViz if it is wanted."""
    values = {name: LaunchConfiguration(name).perform(context) for name in (*NODE_ARGUMENTS, *OTHER_ARGUMENTS)}
    vehicle = load_vehicle(values["vehicle"]) if values["vehicle"] else None
    remaps = sorted(vehicle.remaps.items()) if vehicle else []
    fixed_frame = vehicle.parameters.get("fixed_frame", "odom") if vehicle else "odom"
    pushed = LaunchConfiguration("ros_namespace", default="").perform(context)  # by a group around this file
    path = (*full_namespace(pushed, values["namespace"]), "tracker")
    shown = [rviz(values, remaps, path, fixed_frame)] if _true("rviz", values["rviz"]) else []
    return [tracker(values, remaps, path), *shown]


def tracker(values: dict[str, str], remaps: list[tuple[str, str]], path: tuple[str, ...]) -> LifecycleNode:
    """The node `path`, with the arguments that were given."""
    logger = ".".join(path)  # without it: the middleware's, too
    # As text: launch_ros would read "0" as a number, and a path as YAML.
    given = {name: ParameterValue(values[name], value_type=str) for name in NODE_ARGUMENTS if values[name]}
    given |= {name: _true(name, values[name]) for name in ("autostart", "use_sim_time") if values[name]}
    files = list(filter(None, values["params_file"].split(",")))  # what a later one names counts
    for file in files:
        if not os.path.isfile(file):
            raise RuntimeError(f"params_file: {file}: no such file")  # launch_ros would go on without it
    return LifecycleNode(
        package="syncl_ros",
        executable="tracker",
        name="tracker",
        namespace=values["namespace"],
        parameters=[*files, *([given] if given else [])],
        remappings=remaps,
        ros_arguments=["--log-level", f"{logger}:={values['log_level']}"],
        additional_env=missing_environment(),  # of this process alone, not of what is launched after it
        respawn=_true("respawn", values["respawn"]),
        respawn_delay=RESPAWN_SECONDS,
        output="screen",
    )


def rviz(values: dict[str, str], remaps: list[tuple[str, str]], path: tuple[str, ...], fixed_frame: str) -> Action:
    """It shows /tracker/...: where the tracker has a namespace, what it publishes there. Not needed for tracking."""
    try:
        get_package_share_directory("rviz2")
    except PackageNotFoundError:
        return LogInfo(msg="rviz2 is not installed, so nothing is shown: apt install ros-$ROS_DISTRO-rviz2")
    if (node := "/".join(("", *path))) != "/tracker":
        remaps = [*remaps, *((f"/tracker/{topic}", f"{node}/{topic}") for topic in RVIZ_TOPICS)]
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=values["namespace"],  # where a relative name of the vehicle's remaps leads
        arguments=["-d", os.path.join(CONFIG, "tracks.rviz"), "-f", fixed_frame],
        parameters=[{"use_sim_time": _true("use_sim_time", values["use_sim_time"])}] if values["use_sim_time"] else [],
        remappings=remaps,
        additional_env=missing_environment(),
    )


def _true(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise RuntimeError(f"{name}: expected true or false, got {text!r}")
    return text.lower() == "true"
