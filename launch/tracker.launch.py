"""The tracker node: `ros2 launch syncl_ros tracker.launch.py vehicle:=my_car.yaml checkpoint:=weights.safetensors`.

One vehicle file says where its cameras, frames and times are (config/vehicles/template.yaml), remappings included.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from syncl_ros.vehicle import load_vehicle

CONFIG = os.path.join(get_package_share_directory("syncl_ros"), "config")

# Given arguments win over the parameter file; empty ones leave it alone. The names are those of the node's parameters.
NODE_ARGUMENTS = {
    "vehicle": "YAML file of the vehicle, or the name of one in config/vehicles",
    "config": "YAML file that defines the tracker",
    "checkpoint": "weights (.safetensors)",
    "device": "torch device, such as cpu or cuda:0",
    "image_transport": "compressed or raw",
    "autostart": "false: wait for lifecycle transitions",
}
OTHER_ARGUMENTS = {
    "params_file": (os.path.join(CONFIG, "tracker.yaml"), "parameters of the node"),
    "namespace": ("", "namespace of the node"),
    "use_sim_time": ("false", "take the time from /clock"),
    "log_level": ("info", "debug, info, warn or error"),
    "rviz": ("false", "open RViz as well"),
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*arguments(), *middleware_environment(), OpaqueFunction(function=tracker), rviz()])


def arguments() -> list[DeclareLaunchArgument]:
    """What `ros2 launch ... --show-args` lists."""
    return [
        *(DeclareLaunchArgument(name, default_value="", description=text) for name, text in NODE_ARGUMENTS.items()),
        *(
            DeclareLaunchArgument(name, default_value=default, description=text)
            for name, (default, text) in OTHER_ARGUMENTS.items()
        ),
    ]


def middleware_environment() -> list[SetEnvironmentVariable]:
    """Whole images in shared memory (Fast DDS 2 and 3 read different names); sleeping instead of spinning threads.

    What the user has set stays, and a profile under one of the names is not replaced through the other.
    """
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    given = any(name in os.environ for name in names)
    values = {} if given else dict.fromkeys(names, os.path.join(CONFIG, "fastdds_large_images.xml"))
    if "OMP_WAIT_POLICY" not in os.environ:
        values["OMP_WAIT_POLICY"] = "PASSIVE"
    return [SetEnvironmentVariable(name, value) for name, value in values.items()]


def rviz() -> Node:
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", os.path.join(CONFIG, "tracks.rviz")],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )


def tracker(context: LaunchContext) -> list[LifecycleNode]:
    """The node, with the arguments that were given. An empty one says nothing, as parameters have defaults."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    given = {name: value(name) for name in NODE_ARGUMENTS if value(name)}
    if "autostart" in given:
        given["autostart"] = given["autostart"].lower() == "true"
    return [
        LifecycleNode(
            package="syncl_ros",
            executable="tracker",
            name="tracker",
            namespace=value("namespace"),
            parameters=[value("params_file"), {**given, "use_sim_time": value("use_sim_time").lower() == "true"}],
            remappings=sorted(load_vehicle(given["vehicle"]).remaps.items()) if "vehicle" in given else [],
            ros_arguments=["--log-level", value("log_level")],
            output="screen",
        )
    ]
