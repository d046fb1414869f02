"""A recording through the tracker: `ros2 launch syncl_ros replay.launch.py bag:=out/scene rviz:=true`.

The project's own player is used, not `ros2 bag play`: it begins when the tracker has loaded its network, so that no
frame is lost, and says when the recording is over. Nothing is dropped: the tracks equal those of `syncl track`.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = get_package_share_directory("syncl_ros")
TRACKER = os.path.join(SHARE, "launch", "tracker.launch.py")
CLOCK_HZ = "100"

PASSED_ON = {
    "config": ("", "YAML file that defines the tracker"),
    "checkpoint": ("", "weights (.safetensors)"),
    "device": ("", "torch device, such as cpu or cuda:0"),
    "image_transport": ("", "compressed or raw, as recorded"),
    "rviz": ("true", "open RViz as well"),
}


def generate_launch_description() -> LaunchDescription:
    tracker_arguments = {name: LaunchConfiguration(name) for name in PASSED_ON}
    tracker_arguments |= {"params_file": os.path.join(SHARE, "config", "replay.yaml"), "use_sim_time": "true"}
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="rosbag2 folder or .mcap file"),
            DeclareLaunchArgument("rate", default_value="1.0", description="speed of the replay"),
            DeclareLaunchArgument("loop", default_value="false", description="start again at the end"),
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in PASSED_ON.items()
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(TRACKER), launch_arguments=tracker_arguments.items()
            ),
            OpaqueFunction(function=_player),
        ]
    )


def _player(context: LaunchContext) -> list[Node]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    arguments = [value("bag"), "--rate", value("rate"), "--clock", CLOCK_HZ, "--wait-for", "/tracker/ready"]
    if value("loop").lower() == "true":
        arguments.append("--loop")
    return [Node(package="syncl_ros", executable="player", name="player", arguments=arguments, output="screen")]
