"""A recording through the tracker: `ros2 launch syncl_ros replay.launch.py bag:=out/scene rviz:=true`.

The bag starts when the node is active: loading the network takes seconds, in which frames would be lost.
`player:=rosbag2` is `ros2 bag play`; `player:=project` is this project's own player, which needs no rosbag2 and waits
for everybody; `auto` takes rosbag2 where it is installed. Every set is processed, however long it takes: rosbag2 is
told to wait for the node, and to offer reliably what that listens to, whatever was offered when it was recorded.
"""

import os
import tempfile
from pathlib import Path

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.event_handlers import OnStateTransition

SHARE = get_package_share_directory("syncl_ros")
TRACKER = os.path.join(SHARE, "launch", "tracker.launch.py")
CLOCK_HZ = "100"
START_DELAY = "1.0"  # seconds until rosbag2's publishers have found the node
LOSSLESS = {"history": "keep_all", "reliability": "reliable", "durability": "volatile"}
HEARD = (  # types of what the node listens to; of transforms those that move
    *("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"),
    *("nav_msgs/msg/Odometry", "tf2_msgs/msg/TFMessage"),
)
READ_AHEAD = "2000"  # messages: the disk must never hold up the clock
SAY_FINISHED = [
    *("ros2", "topic", "pub", "--once", "--qos-durability", "transient_local", "--qos-reliability", "reliable"),
    *("/player/finished", "std_msgs/msg/Bool", "{data: true}"),
]

PASSED_ON = {
    "vehicle": ("nuscenes", "YAML file of the vehicle, or the name of one in config/vehicles"),
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
            DeclareLaunchArgument("start_offset", default_value="0.0", description="seconds to skip (rosbag2 only)"),
            DeclareLaunchArgument(
                "player", default_value="auto", choices=["auto", "rosbag2", "project"], description="who plays the bag"
            ),
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in PASSED_ON.items()
            ),
            # The handler first: nothing may happen before somebody listens.
            OpaqueFunction(function=_player),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(TRACKER), launch_arguments=tracker_arguments.items()
            ),
        ]
    )


def _player(context: LaunchContext) -> list:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    loop = ["--loop"] if value("loop").lower() == "true" else []
    if value("player") == "project" or (value("player") == "auto" and not _has_rosbag2()):
        # It waits for ~/ready by itself.
        arguments = [value("bag"), "--rate", value("rate"), "--clock", CLOCK_HZ, "--wait-for", "/tracker/ready", *loop]
        play = Node(package="syncl_ros", executable="player", name="player", arguments=arguments, output="screen")
        return [play, _at_the_end_of(play)]
    play = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", value("bag"), "--rate", value("rate"), "--clock", CLOCK_HZ),
            *("--read-ahead-queue-size", READ_AHEAD, "--start-offset", value("start_offset"), "--delay", START_DELAY),
            *("--disable-keyboard-controls", *_lossless(value("bag")), *loop),
        ],
        output="screen",
    )
    finished = ExecuteProcess(cmd=SAY_FINISHED, output="log")
    return [
        # The only lifecycle node here is the tracker.
        RegisterEventHandler(OnStateTransition(goal_state="active", handle_once=True, entities=[play])),
        _at_the_end_of(play, finished),
    ]


def _at_the_end_of(play: Action, *actions: Action) -> RegisterEventHandler:
    """What follows a bag that was played; where it could not be, nothing is left to wait for."""

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if event.returncode == 0:
            return list(actions)
        return [] if context.is_shutdown else [Shutdown(reason="the bag was not played to its end")]

    return RegisterEventHandler(OnProcessExit(target_action=play, on_exit=on_exit))


def _lossless(bag: str) -> list[str]:
    """Options for `ros2 bag play`; none for a file without the metadata that tells its topics."""
    try:
        metadata = yaml.safe_load((Path(bag) / "metadata.yaml").read_text(encoding="utf-8"))
        topics = [t["topic_metadata"] for t in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]]
        heard = [t["name"] for t in topics if t["type"] in HEARD and not t["name"].endswith("/tf_static")]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return []
    with tempfile.NamedTemporaryFile("w", prefix="syncl_qos_", suffix=".yaml", delete=False) as file:
        yaml.safe_dump({name: LOSSLESS for name in heard}, file)
    return ["--qos-profile-overrides-path", file.name]


def _has_rosbag2() -> bool:
    try:
        get_package_share_directory("ros2bag")
    except PackageNotFoundError:
        return False
    return True
