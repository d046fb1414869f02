"""Launch files without launch (it is no wheel): names are checked, and the files run on stand-ins that record calls."""

import ast
import importlib.util
import sys
import types
from collections import namedtuple
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))


def strings(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def keys(tree: ast.AST, name: str) -> set[str]:
    """Keys of the dictionary assigned to `name` at the top of a file."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return {key.value for key in node.value.keys}
    raise AssertionError(f"{name} is not assigned")


@pytest.fixture(params=LAUNCH_FILES, ids=lambda path: path.name)
def tree(request) -> ast.AST:
    return ast.parse(request.param.read_text(), str(request.param))


def test_there_is_a_launch_description(tree):
    assert any(isinstance(node, ast.FunctionDef) and node.name == "generate_launch_description" for node in tree.body)


def test_every_file_named_is_shipped(tree):
    for name in strings(tree):
        if name.endswith((".yaml", ".rviz", ".xml")) and name not in {".yaml", "metadata.yaml", "qos.yaml"}:
            assert (ROOT / "config" / name).is_file(), name
        elif name.endswith(".launch.py") and " " not in name:
            assert (ROOT / "launch" / name).is_file(), name


def test_every_executable_is_an_entry_point(tree):
    scripts = (ROOT / "setup.py").read_text().replace(" ", "")
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        options = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
        if options.get("package") == "syncl_ros":
            assert (
                f"{options['executable']} = syncl_ros." in scripts or f"{options['executable']}=syncl_ros." in scripts
            )


def test_arguments_for_the_node_are_its_parameters():
    pytest.importorskip("rclpy")
    from syncl_ros import params

    tracker = ast.parse((ROOT / "launch" / "tracker.launch.py").read_text())
    replay = ast.parse((ROOT / "launch" / "replay.launch.py").read_text())
    node_arguments = keys(tracker, "NODE_ARGUMENTS")
    assert node_arguments <= {spec.name for spec in params.all_specs()}
    assert keys(replay, "PASSED_ON") <= node_arguments | keys(tracker, "OTHER_ARGUMENTS")


@pytest.mark.parametrize("name", ["tracker.yaml", "replay.yaml"])
def test_parameter_files_hold_known_parameters_only(name):
    pytest.importorskip("rclpy")
    from syncl_ros import params

    values = yaml.safe_load((ROOT / "config" / name).read_text())["/**"]["ros__parameters"]
    assert set(values) <= {*(spec.name for spec in params.all_specs()), "use_sim_time"}
    if name == "tracker.yaml":  # it documents the defaults; of sync.* most are the network's
        defaults = {spec.name: spec.default for spec in params.fixed_specs()}
        assert values == {name: defaults[name] for name in values}
        assert set(values) >= {name for name in defaults if not name.startswith(("sync.", "markers."))}


def test_rviz_shows_what_is_published():
    from syncl_core.classes import CAMERAS
    from syncl_core.io.topics import Topics, frame_of

    manager = yaml.safe_load((ROOT / "config" / "tracks.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in manager["Displays"] if "Topic" in display}
    assert manager["Global Options"]["Fixed Frame"] == "odom"
    assert topics == {
        "/tracker/markers",
        Topics().ground_truth_markers,
        *(f"/tracker/debug/image/{frame_of(camera)}" for camera in CAMERAS),  # raw: no transport plugin is needed
    }


class Recorded:
    """An action, substitution or event handler: remembers what it was made with."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


class Configuration(Recorded):
    def perform(self, context) -> str:
        (name,) = self.args
        return context[name] if name in context or "default" not in self.kwargs else self.kwargs["default"]


Exit = namedtuple("Exit", "returncode process_name")
Context = namedtuple("Context", "is_shutdown")


@pytest.fixture
def launch_file(monkeypatch, tmp_path):
    """A function that imports a launch file on stand-ins with the public names of launch and launch_ros."""
    names = {
        "launch": "Action LaunchContext LaunchDescription",
        "launch.actions": "DeclareLaunchArgument ExecuteProcess IncludeLaunchDescription LogInfo OpaqueFunction "
        "RegisterEventHandler Shutdown",
        "launch.event_handlers": "OnProcessExit",
        "launch.events": "",
        "launch.events.process": "ProcessExited",
        "launch.launch_description_sources": "PythonLaunchDescriptionSource",
        "launch.logging": "",
        "launch_ros": "",
        "launch_ros.actions": "LifecycleNode Node",
        "launch_ros.parameter_descriptions": "ParameterValue",
        "launch.substitutions": "",
    }
    kinds = {}
    for module, members in names.items():
        made = {member: kinds.setdefault(member, type(member, (Recorded,), {})) for member in members.split()}
        stand_in = types.ModuleType(module)
        stand_in.__dict__.update(made)
        stand_in.__path__ = []
        monkeypatch.setitem(sys.modules, module, stand_in)
    sys.modules["launch.substitutions"].LaunchConfiguration = Configuration
    log_files = types.SimpleNamespace(get_log_file_path=lambda name: str(tmp_path / name))
    sys.modules["launch.logging"].launch_config = log_files
    packages = pytest.importorskip("ament_index_python.packages")
    monkeypatch.setattr(packages, "get_package_share_directory", lambda name: f"/share/{name}")

    def load(name: str):
        spec = importlib.util.spec_from_file_location(name, ROOT / "launch" / f"{name}.launch.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def arguments_of(module, **given) -> dict[str, str]:
    """What `ros2 launch` would know: the defaults and what was given."""
    entities = module.generate_launch_description().args[0]
    declared = [e for e in entities if type(e).__name__ == "DeclareLaunchArgument"]
    return {**{e.args[0]: e.kwargs.get("default_value", "") for e in declared}, **given}


def test_the_tracker_gets_what_was_given_and_the_vehicles_remaps(launch_file, tmp_path):
    pytest.importorskip("rclpy")
    car = tmp_path / "car.yaml"
    car.write_text("remaps: {/tf: /car/tf}")
    module = launch_file("tracker")
    (node,) = module.nodes(arguments_of(module, vehicle=str(car), autostart="false", device="cuda:0"))
    assert type(node).__name__ == "LifecycleNode" and node.kwargs["namespace"] == ""
    (parameters,) = node.kwargs["parameters"]
    assert parameters.pop("autostart") is False
    assert all(value.kwargs == {"value_type": str} for value in parameters.values())  # device:=0 is no number
    assert {name: value.args for name, value in parameters.items()} == {"vehicle": (str(car),), "device": ("cuda:0",)}
    assert node.kwargs["respawn"] is False
    assert module.nodes(arguments_of(module, respawn="true"))[0].kwargs["respawn"] is True
    assert node.kwargs["remappings"] == [("/tf", "/car/tf")]
    first, mine = str(ROOT / "config" / "replay.yaml"), str(ROOT / "config" / "tracker.yaml")
    (node,) = module.nodes(arguments_of(module, params_file=mine))
    assert node.kwargs["parameters"] == [mine] and node.kwargs["remappings"] == []  # it may set use_sim_time
    (node,) = module.nodes(arguments_of(module, params_file=f"{first},{mine}", use_sim_time="true"))
    assert node.kwargs["parameters"] == [first, mine, {"use_sim_time": True}]
    (node,) = module.nodes(arguments_of(module, params_file=f"{first},"))
    assert node.kwargs["parameters"] == [first]
    assert node.kwargs["ros_arguments"] == ["--log-level", "tracker:=info"]
    for namespace in ("/left/rig", "left/rig/"):
        (node,) = module.nodes(arguments_of(module, namespace=namespace, log_level="debug"))
        assert node.kwargs["ros_arguments"] == ["--log-level", "left.rig.tracker:=debug"]


@pytest.mark.parametrize(
    ("pushed", "given", "node"),
    [
        ("/robot", "", "/robot/tracker"),
        ("/robot", "left/rig", "/robot/left/rig/tracker"),
        ("/robot", "/left", "/left/tracker"),
        ("/", "left", "/left/tracker"),
    ],
)
def test_a_group_may_push_a_namespace(launch_file, pushed, given, node):
    """launch_ros keeps it as the launch configuration ros_namespace, and moves nodes, not absolute names."""
    pytest.importorskip("rclpy")
    module, replay = launch_file("tracker"), launch_file("replay")
    where = {"ros_namespace": pushed, "namespace": given}
    tracker, rviz = module.nodes(arguments_of(module, rviz="true", **where))
    assert tracker.kwargs["namespace"] == given  # launch_ros adds the other
    assert tracker.kwargs["ros_arguments"] == ["--log-level", f"{node[1:].replace('/', '.')}:=info"]
    assert dict(rviz.kwargs["remappings"])["/tracker/markers"] == f"{node}/markers"
    assert rviz.kwargs["namespace"] == given  # a remap to a relative name leads both to the same topic
    (player,) = replay._player(arguments_of(replay, bag="/bags/a", **where))
    assert f"--wait-for {node}/ready --hold {node}/hold" in " ".join(player.kwargs["arguments"])
    assert player.kwargs["namespace"] == "/"


def test_rviz_follows_the_vehicle_and_the_namespace(launch_file, tmp_path):
    pytest.importorskip("rclpy")
    car = tmp_path / "car.yaml"
    car.write_text("fixed_frame: world\nremaps: {/tf: /car/tf}")
    module = launch_file("tracker")
    _, rviz = module.nodes(arguments_of(module, rviz="true"))
    assert rviz.kwargs["arguments"][2:] == ["-f", "odom"] and rviz.kwargs["remappings"] == []
    assert rviz.kwargs["parameters"] == []  # a parent launch may set use_sim_time
    _, rviz = module.nodes(arguments_of(module, rviz="true", vehicle=str(car), namespace="/left", use_sim_time="True"))
    assert rviz.kwargs["arguments"] == ["-d", "/share/syncl_ros/config/tracks.rviz", "-f", "world"]
    assert rviz.kwargs["parameters"] == [{"use_sim_time": True}]
    remaps = dict(rviz.kwargs["remappings"])
    assert remaps["/tf"] == "/car/tf" and remaps["/tracker/markers"] == "/left/tracker/markers"
    shown = yaml.safe_load((ROOT / "config" / "tracks.rviz").read_text())["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"] for display in shown if "Topic" in display}
    assert {topic for topic in topics if topic.startswith("/tracker/")} == remaps.keys() - {"/tf"}


def test_tracking_goes_on_where_rviz_is_not_installed(launch_file, monkeypatch):
    module = launch_file("tracker")

    def absent(name: str) -> str:
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "get_package_share_directory", absent)
    node, note = module.nodes(arguments_of(module, rviz="true"))
    assert node.kwargs["executable"] == "tracker" and "rviz2 is not installed" in note.kwargs["msg"]


@pytest.mark.parametrize(
    "latched", ["- durability: transient_local\n  depth: 1\n", "- durability: 1\n", [{"durability": "transient_local"}]]
)
def test_a_bag_is_offered_reliably_however_it_was_recorded(launch_file, tmp_path, latched):
    """The file that `ros2 bag play` reads: what the node hears, in the words that rosbag2 knows.

    A calibration stays latched, images would fill the memory; nor are too many of them read ahead.
    """
    from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

    kinds = {"/cam/image": "sensor_msgs/msg/Image", "/cam/camera_info": "sensor_msgs/msg/CameraInfo"}
    kinds |= {
        "/tf": "tf2_msgs/msg/TFMessage",
        "/car/tf_static": "tf2_msgs/msg/TFMessage",
        "/rosout": "rcl_interfaces/msg/Log",
    }
    topics = [{"topic_metadata": {"name": name, "type": kind}} for name, kind in kinds.items()]
    topics[0]["topic_metadata"]["offered_qos_profiles"] = latched
    topics[1]["topic_metadata"]["offered_qos_profiles"] = latched
    information = {"rosbag2_bagfile_information": {"topics_with_message_count": topics, "message_count": 10}}
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(information))
    module = launch_file("replay")
    option, path = module._lossless(str(tmp_path))
    assert option == "--qos-profile-overrides-path"
    overrides = yaml.safe_load(Path(path).read_text())
    assert overrides.keys() == {"/cam/image", "/cam/camera_info", "/tf"}
    policies = {"history": QoSHistoryPolicy, "reliability": QoSReliabilityPolicy, "durability": QoSDurabilityPolicy}
    for words in overrides.values():
        profile = QoSProfile(**{name: policies[name].get_from_short_key(word) for name, word in words.items()})
        assert profile.reliability == QoSReliabilityPolicy.RELIABLE and profile.history == QoSHistoryPolicy.KEEP_ALL
        assert profile.durability == QoSDurabilityPolicy.VOLATILE or words is overrides["/cam/camera_info"]
    assert overrides["/cam/camera_info"]["durability"] == "transient_local"
    assert module._read_ahead(str(tmp_path)) == "2000"  # small messages
    with (tmp_path / "bag.mcap").open("wb") as bag:
        bag.truncate(20_000_000)
    assert 200 < int(module._read_ahead(str(tmp_path))) < 251
    (tmp_path / "metadata.yaml").write_text("nothing")
    assert module._read_ahead(str(tmp_path)) == "2000"
    assert module._lossless(str(tmp_path)) == module._lossless(str(tmp_path / "bag.mcap")) == []


def test_only_our_processes_get_the_middleware_profile(launch_file, monkeypatch):
    """What is launched after them keeps its own environment."""
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "OMP_WAIT_POLICY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    module = launch_file("tracker")
    entities = module.generate_launch_description().args[0]
    assert {type(entity).__name__ for entity in entities} == {"DeclareLaunchArgument", "OpaqueFunction"}
    profile = str(ROOT / "config" / "fastdds_large_images.xml")
    given = dict(zip(names, (profile, profile, "PASSIVE"), strict=True))
    assert [node.kwargs["additional_env"] for node in module.nodes(arguments_of(module, rviz="true"))] == [given, given]
    replay = launch_file("replay")
    (player,) = replay._player(arguments_of(replay, bag="/bags/a"))
    after_ready, after_play, ready = replay._player(arguments_of(replay, bag="/bags/a", player="rosbag2"))
    (play,) = after_ready.args[0].kwargs["on_exit"](Exit(0, "ros2-1"), None)
    (finished,) = after_play.args[0].kwargs["on_exit"](Exit(0, "ros2-2"), None)
    assert all(action.kwargs["additional_env"] == given for action in (player, ready, play, finished))


def test_a_misspelt_argument_starts_nothing(launch_file):
    """launch_ros would leave out a parameter file that is not there, and go on with the defaults."""
    module = launch_file("tracker")
    with pytest.raises(RuntimeError, match="params_file: /mine.yaml: no such file"):
        module.nodes(arguments_of(module, params_file="/mine.yaml"))
    with pytest.raises(RuntimeError, match="autostart: expected true or false, got '1'"):
        module.nodes(arguments_of(module, autostart="1"))


def test_rosbag2_starts_when_the_node_is_ready_and_its_end_is_said(launch_file):
    """Ready is latched: a lifecycle event would be lost on who is not connected yet."""
    module = launch_file("replay")
    after_ready, after_play, ready = module._player(
        arguments_of(module, bag="/bags/a", player="rosbag2", rate="0.5", loop="true")
    )
    assert "/tracker/ready" in ready.kwargs["cmd"] and "transient_local" in ready.kwargs["cmd"]
    handler = after_ready.args[0].kwargs
    assert handler["target_action"] is ready and handler["on_exit"](Exit(1, "ros2-1"), None) == []
    (play,) = handler["on_exit"](Exit(0, "ros2-1"), None)
    command = " ".join(play.kwargs["cmd"])
    assert command.startswith("ros2 bag play /bags/a --rate 0.5 --clock 100") and " --loop " in command
    handler = after_play.args[0].kwargs
    assert handler["target_action"] is play
    (finished,) = handler["on_exit"](Exit(0, "ros2-2"), None)
    assert "/player/finished" in finished.kwargs["cmd"] and "transient_local" in finished.kwargs["cmd"]


def test_rosbag2_does_not_play_what_is_made_anew(launch_file, tmp_path):
    """Two publishers of ~/tracks, and a clock that jumps between two times, are nothing to look at."""
    module = launch_file("replay")

    def played(*names: str) -> str:
        topics = [{"topic_metadata": {"name": name, "type": "std_msgs/msg/Bool"}} for name in names]
        information = {"rosbag2_bagfile_information": {"topics_with_message_count": topics, "message_count": 10}}
        (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(information))
        given = arguments_of(module, bag=str(tmp_path), player="rosbag2", namespace="left")
        after_ready = module._player(given)[0]
        (play,) = after_ready.args[0].kwargs["on_exit"](Exit(0, "ros2-1"), None)
        return " ".join(play.kwargs["cmd"])

    own = ("/clock", "/left/tracker/tracks", "/player/finished")
    assert "--topics /tf /tracker/tracks --qos" in played("/tf", *own, "/tracker/tracks")
    assert "--topics" not in played("/tf", "/image") and "--topics" not in played(*own)


def test_rosbag2_does_not_start_in_the_middle(launch_file):
    module = launch_file("replay")
    with pytest.raises(RuntimeError, match="/tf_static"):
        module._player(arguments_of(module, bag="/bags/a", player="rosbag2", start_offset="3"))


def test_the_projects_player_plays(launch_file):
    module = launch_file("replay")
    (player,) = module._player(arguments_of(module, bag="/bags/a"))
    assert player.kwargs["executable"] == "player"
    command = "/bags/a --rate 1.0 --clock 100 --start-offset 0.0 --wait-for /tracker/ready --hold /tracker/hold"
    assert player.kwargs["arguments"] == command.split()
    (player,) = module._player(arguments_of(module, bag="/bags/a", start_offset="3", loop="true"))
    assert player.kwargs["arguments"] == [*command.replace("0.0", "3").split(), "--loop"]
    (player,) = module._player(arguments_of(module, bag="/bags/a", namespace="/left/rig/"))
    assert player.kwargs["arguments"] == command.replace("/tracker", "/left/rig/tracker").split()


@pytest.mark.parametrize(("name", "over"), [("player-1", True), ("tracker-2", True), ("rviz2-3", False)])
def test_nothing_waits_for_what_cannot_come(launch_file, name, over):
    module = launch_file("replay")
    first = module.generate_launch_description().args[0][-3]
    assert type(first).__name__ == "RegisterEventHandler"  # before anything starts
    on_exit = first.args[0].kwargs["on_exit"]
    assert [type(action).__name__ for action in on_exit(Exit(2, name), Context(False))] == ["Shutdown"] * over
    assert on_exit(Exit(0, name), Context(False)) == []
    assert on_exit(Exit(2, name), Context(True)) == []  # stopped by the user, as everything is


def test_foxglove_shows_what_is_published():
    import json

    from syncl_core.classes import CAMERAS
    from syncl_core.io.topics import Topics

    layout = json.loads((ROOT / "config" / "tracks_foxglove.json").read_text())
    panels = layout["configById"]
    images = {p["imageMode"]["imageTopic"] for name, p in panels.items() if name.startswith("Image!")}
    assert images == {Topics().compressed_of(camera) for camera in CAMERAS}
    assert panels["3D!tracks"]["topics"]["/tracker/markers"]["visible"]

    def leaves(node) -> set[str]:
        return {node} if isinstance(node, str) else leaves(node["first"]) | leaves(node["second"])

    assert leaves(layout["layout"]) == set(panels)
