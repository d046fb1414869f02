"""Launch files cannot run here (launch is not a wheel), so their names are checked against what they refer to."""

import ast
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
        if name.endswith((".yaml", ".rviz", ".xml")):
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
    assert node_arguments <= set(params.known_names())
    assert keys(replay, "PASSED_ON") <= node_arguments | keys(tracker, "OTHER_ARGUMENTS")


@pytest.mark.parametrize("name", ["tracker.yaml", "replay.yaml"])
def test_parameter_files_hold_known_parameters_only(name):
    pytest.importorskip("rclpy")
    from syncl_ros import params

    values = yaml.safe_load((ROOT / "config" / name).read_text())["/**"]["ros__parameters"]
    assert set(values) <= {*params.known_names(), "use_sim_time"}
    if name == "tracker.yaml":  # it documents the defaults
        import dataclasses

        defaults = {params.ros_name(f): f.default for f in dataclasses.fields(params.NodeParams)}
        assert values == {name: defaults[name] for name in values}


def test_rviz_shows_what_is_published():
    from syncl_core.classes import CAMERAS
    from syncl_core.io.topics import Topics

    manager = yaml.safe_load((ROOT / "config" / "tracks.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in manager["Displays"] if "Topic" in display}
    assert manager["Global Options"]["Fixed Frame"] == "odom"
    assert topics == {
        "/tracker/markers",
        Topics().ground_truth_markers,
        *(Topics().compressed_of(camera) for camera in CAMERAS),
    }
