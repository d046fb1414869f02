"""The tracker node: `ros2 launch syncl_ros tracker.launch.py checkpoint:=weights.safetensors rviz:=true`."""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CONFIG = os.path.join(get_package_share_directory("syncl_ros"), "config")

# Given arguments win over the parameter file; empty ones leave it alone. The names are those of the node's parameters.
NODE_ARGUMENTS = {
    "config": "YAML file that defines the tracker",
    "checkpoint": "weights (.safetensors)",
    "device": "torch device, such as cpu or cuda:0",
    "image_transport": "compressed or raw",
}
OTHER_ARGUMENTS = {
    "params_file": (os.path.join(CONFIG, "tracker.yaml"), "parameters of the node"),
    "namespace": ("", "namespace of the node"),
    "use_sim_time": ("false", "take the time from /clock"),
    "log_level": ("info", "debug, info, warn or error"),
    "rviz": ("false", "open RViz as well"),
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value="", description=text) for name, text in NODE_ARGUMENTS.items()),
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in OTHER_ARGUMENTS.items()
            ),
            *middleware_environment(),
            OpaqueFunction(function=_tracker),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", os.path.join(CONFIG, "tracks.rviz")],
                parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )


def middleware_environment() -> list[SetEnvironmentVariable]:
    """Whole images in shared memory (Fast DDS 2 and 3 read different names); sleeping instead of spinning threads."""
    profiles = os.path.join(CONFIG, "fastdds_large_images.xml")
    defaults = {
        "FASTRTPS_DEFAULT_PROFILES_FILE": profiles,
        "FASTDDS_DEFAULT_PROFILES_FILE": profiles,
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return [SetEnvironmentVariable(name, os.environ.get(name, value)) for name, value in defaults.items()]


def _tracker(context: LaunchContext) -> list[Node]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    given = {name: value(name) for name in NODE_ARGUMENTS if value(name)}
    return [
        Node(
            package="syncl_ros",
            executable="tracker",
            name="tracker",
            namespace=value("namespace"),
            parameters=[value("params_file"), {**given, "use_sim_time": value("use_sim_time").lower() == "true"}],
            ros_arguments=["--log-level", value("log_level")],
            output="screen",
        )
    ]
