"""A recording through the tracker: `ros2 launch syncl_ros replay.launch.py bag:=out/scene rviz:=true`.

The bag starts when the node is active: loading the network takes seconds, in which frames would be lost. Every set is
processed, however long it takes. By default this project's own player plays: it begins when every listener is
connected, and keeps /tf_static where it starts in the middle. `player:=rosbag2` is `ros2 bag play`, told to wait for
the node and to offer reliably what that listens to, whatever was offered when it was recorded.
"""

import os
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
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
from launch.logging import launch_config
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from syncl_core.io.topics import is_static_transforms
from syncl_ros.environment import missing_environment
from syncl_ros.namespaces import full_namespace

SHARE = get_package_share_directory("syncl_ros")
TRACKER = os.path.join(SHARE, "launch", "tracker.launch.py")
BOOLEANS = ["true", "false", "True", "False"]
CLOCK_HZ = "100"
START_DELAY = "3.0"  # seconds for rosbag2's publishers to find the node; on a busy machine 1 was too short
LOSSLESS = {"history": "keep_all", "reliability": "reliable"}
HEARD = (  # types of what the node listens to; of transforms those that move
    *("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"),
    *("nav_msgs/msg/Odometry", "tf2_msgs/msg/TFMessage"),
)
READ_AHEAD = 2000  # messages: the disk must never hold up the clock
READ_AHEAD_BYTES = 500e6  # nor may raw images fill the memory
UNREADABLE = (OSError, ValueError, yaml.YAMLError, KeyError, TypeError)  # metadata of a bag, in whatever way
ONCE_LATCHED = ("--once", "--qos-durability", "transient_local", "--qos-reliability", "reliable")
# `pub` waits for one listener, which may be another one than the node: the message stays for it.
TELL_FINISHED = ["ros2", "topic", "pub", *ONCE_LATCHED, "--keep-alive", "3", "/player/finished", "std_msgs/msg/Bool"]

PASSED_ON = {
    "vehicle": ("nuscenes", "YAML file of the vehicle, or the name of one in config/vehicles"),
    "config": ("", "YAML file or name of the tracker"),
    "checkpoint": ("", "weights (.safetensors)"),
    "device": ("", "torch device, such as cpu or cuda:0; default: a GPU if there is one"),
    "image_transport": ("", "compressed or raw, as recorded"),
    "rviz": ("true", "open RViz as well"),
    "namespace": ("", "namespace of the node"),
}


def generate_launch_description() -> LaunchDescription:
    tracker_arguments = {name: LaunchConfiguration(name) for name in PASSED_ON}
    files = [os.path.join(SHARE, "config", "replay.yaml"), ",", LaunchConfiguration("params_file")]
    tracker_arguments |= {"params_file": files, "use_sim_time": "true"}
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="rosbag2 folder or .mcap file"),
            DeclareLaunchArgument("rate", default_value="1.0", description="speed of the replay"),
            DeclareLaunchArgument(
                "loop", default_value="false", choices=BOOLEANS, description="start again at the end"
            ),
            DeclareLaunchArgument("start_offset", default_value="0.0", description="seconds to skip (player:=project)"),
            DeclareLaunchArgument(
                "player", default_value="project", choices=["project", "rosbag2"], description="who plays the bag"
            ),
            DeclareLaunchArgument("params_file", default_value="", description="more parameters of the node"),
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in PASSED_ON.items()
            ),
            # The handlers first: nothing may happen before somebody listens.
            RegisterEventHandler(OnProcessExit(on_exit=_end)),
            OpaqueFunction(function=_player),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(TRACKER), launch_arguments=tracker_arguments.items()
            ),
        ]
    )


def _player(context: LaunchContext) -> list:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    pushed = LaunchConfiguration("ros_namespace", default="").perform(context)  # by a group around this file
    tracker = "/".join(("", *full_namespace(pushed, value("namespace")), "tracker"))
    loop = ["--loop"] if value("loop").lower() == "true" else []
    pace = ["--rate", value("rate"), "--clock", CLOCK_HZ]
    if value("player") == "project":  # it waits for ~/ready by itself
        begin = ["--start-offset", value("start_offset"), "--wait-for", f"{tracker}/ready", "--hold", f"{tracker}/hold"]
        arguments = [value("bag"), *pace, *begin, *loop]
        environment = missing_environment()
        # A namespace would move /player/finished, for which the tracker listens wherever it is itself.
        player = {"package": "syncl_ros", "executable": "player", "name": "player", "namespace": "/"}
        return [Node(**player, arguments=arguments, additional_env=environment, output="screen")]
    if float(value("start_offset")):
        raise RuntimeError("start_offset: rosbag2 would leave out /tf_static, which lies at the start; player:=project")
    # Latched: it is heard whenever it was said. Lifecycle events are not; they may come before anybody can hear them.
    hear = ["ros2", "topic", "echo", *ONCE_LATCHED, f"{tracker}/ready", "std_msgs/msg/Bool"]
    environment = missing_environment()
    ready = ExecuteProcess(cmd=hear, additional_env=environment, output="log")
    play = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", value("bag"), *pace, *loop, "--read-ahead-queue-size", _read_ahead(value("bag"))),
            *("--delay", START_DELAY, "--disable-keyboard-controls"),
            *(*_without_what_is_made_anew(value("bag"), tracker), *_lossless(value("bag"))),
        ],
        additional_env=environment,
        output="screen",
    )
    finished = ExecuteProcess(cmd=[*TELL_FINISHED, "{data: true}"], additional_env=environment, output="log")
    return [_after(ready, play), _after(play, finished), ready]


def _after(process: Action, then: Action) -> RegisterEventHandler:
    """Start the one when the other has done its work."""

    def on_exit(event: ProcessExited, _: LaunchContext) -> list[Action]:
        return [then] if event.returncode == 0 else []

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=on_exit))


def _end(event: ProcessExited, context: LaunchContext) -> list[Action]:
    """Without the tracker or the bag there is nothing to wait for; without RViz there is."""
    if event.returncode == 0 or context.is_shutdown or event.process_name.startswith("rviz2"):
        return []
    return [Shutdown(reason=f"{event.process_name} failed")]


def _without_what_is_made_anew(bag: str, tracker: str) -> list[str]:
    """Options for `ros2 bag play`: of a bag from the road, not what this tracker publishes, nor the road's clock."""
    try:
        names = [one["topic_metadata"]["name"] for one in _metadata(bag)["topics_with_message_count"]]
    except UNREADABLE:
        return []
    kept = [name for name in names if not name.startswith((f"{tracker}/", "/player/")) and name != "/clock"]
    return ["--topics", *kept] if 0 < len(kept) < len(names) else []


def _lossless(bag: str) -> list[str]:
    """Options for `ros2 bag play`; none for a file without the metadata that tells its topics."""
    try:
        topics = [one["topic_metadata"] for one in _metadata(bag)["topics_with_message_count"]]
        heard = [topic for topic in topics if topic["type"] in HEARD and not is_static_transforms(topic["name"])]
        offers = {topic["name"]: LOSSLESS | {"durability": _durability(topic)} for topic in heard}
    except UNREADABLE:
        return []
    path = launch_config.get_log_file_path("qos.yaml")
    Path(path).write_text(yaml.safe_dump(offers), encoding="utf-8")
    return ["--qos-profile-overrides-path", path]


def _durability(topic: dict) -> str:
    """A calibration that was published once is still there for who hears of it late; images would fill the memory."""
    offered = topic.get("offered_qos_profiles") or ()  # text up to version 8 of the metadata
    profiles = yaml.safe_load(offered) if isinstance(offered, str) else offered
    kept = [str(profile["durability"]) in ("1", "transient_local") for profile in profiles or ()]
    latched = topic["type"] == "sensor_msgs/msg/CameraInfo" and kept and all(kept)
    return "transient_local" if latched else "volatile"


def _read_ahead(bag: str) -> str:
    """Messages that `ros2 bag play` reads ahead."""
    try:
        count = _metadata(bag)["message_count"]
        size = sum(file.stat().st_size for file in Path(bag).iterdir())
        return str(min(READ_AHEAD, max(100, int(READ_AHEAD_BYTES * count / size))))
    except (*UNREADABLE, ZeroDivisionError):
        return str(READ_AHEAD)


def _metadata(bag: str) -> dict:
    return yaml.safe_load((Path(bag) / "metadata.yaml").read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
