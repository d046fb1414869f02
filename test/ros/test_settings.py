"""Vehicle files, calibration files, QoS in words, optional packages, and the documentation's tables."""

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
from processes import RosProcess, environment
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from syncl_core import images
from syncl_core.classes import CAMERAS
from syncl_core.config import SynclConfig
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.topics import frame_of
from syncl_core.types import LENS_COEFFICIENTS
from syncl_ros import approximate, conversions, encodings, reference
from syncl_ros.calibration import load_calibration
from syncl_ros.camera_input import camera_input
from syncl_ros.declare import Parameters
from syncl_ros.params import CameraParams, NodeParams
from syncl_ros.qos import mismatch, odometry_qos, why_no_pose, why_silent
from syncl_ros.vehicle import load_vehicle

ROOT = Path(__file__).resolve().parents[2]
ENTRY = {"width": 320, "height": 180, "intrinsics": [250, 251, 160, 90]}


def test_a_vehicle_is_one_file_with_nested_names(tmp_path):
    (tmp_path / "lenses.yaml").write_text("cameras: {}")
    path = tmp_path / "car.yaml"
    path.write_text(
        "image_topic: '/{camera}/raw'\ncalibration: {source: file, file: lenses.yaml}\n"
        "cameras: {cam_front: {frame_id: nose, stamp_offset: 0.02}}\nsync: {max_spread: 0.08}\nremaps: {/tf: /car/tf}\n"
    )
    vehicle = load_vehicle(path)
    assert vehicle.remaps == {"/tf": "/car/tf"}
    assert vehicle.parameters == {
        "image_topic": "/{camera}/raw",
        "calibration.source": "file",
        "calibration.file": str(tmp_path / "lenses.yaml"),  # beside the vehicle's file
        "cameras.cam_front.frame_id": "nose",
        "cameras.cam_front.stamp_offset": 0.02,
        "sync.max_spread": 0.08,
    }


def test_what_the_vehicle_file_says_counts_but_for_what_the_node_is_given(domain):
    name = "template"
    context = rclpy.Context()
    given = ["-p", f"vehicle:={name}", "-p", "sync.max_spread:=0.07"]
    rclpy.init(args=["--ros-args", *given], context=context, domain_id=domain)
    node = Node("tracker", context=context)
    parameters = Parameters(node)
    config, cameras = parameters.configure(SynclConfig())
    node.destroy_node()
    rclpy.shutdown(context=context)
    vehicle = load_vehicle(name).parameters
    for key in ("image_transport", "image_topic", "camera_info_topic", "fixed_frame", "base_frame", "odometry_topic"):
        assert getattr(parameters.node, key) == vehicle[key]
    assert vehicle["image_transport"] == "raw"
    assert cameras["CAM_FRONT"].image_topic == vehicle["cameras.cam_front.image_topic"]
    assert (config.sync.min_cameras, config.sync.max_spread) == (vehicle["sync.min_cameras"], 0.07)


def test_what_nobody_heeds_is_an_error(domain):
    argument = "qos_overrides./cam_front/image.subscription.reliability:=reliable"
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", argument], context=context, domain_id=domain)
    node = Node("tracker", context=context)
    with pytest.raises(InputError, match="parameter qos_overrides.*: unknown"):
        Parameters(node)
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    "name, refused",
    [
        ("diagnostics.perio", True),
        ("diagnostic_updater.period", False),
        ("robot_base_frame", False),
        ("base_frame_id", False),
        ("qos_overrides./clock.subscription.depth", False),
    ],
)
def test_what_is_another_packages_is_no_typing_mistake(domain, name, refused):
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", f"{name}:=1.0"], context=context, domain_id=domain)
    node = Node("tracker", context=context)
    with pytest.raises(InputError, match="did you mean diagnostics.period") if refused else nullcontext():
        Parameters(node)
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("argument", "ours"),
    [("-p wheel_radius:=0.39", False), ("-p vehicle_height:=2.1", False), ("-p sync.perod:=1.0", True)],
)
def test_parameters_for_all_nodes_are_no_typing_mistakes(domain, argument, ours):
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", *argument.split()], context=context, domain_id=domain)
    node = Node("tracker", context=context)
    if ours:
        with pytest.raises(InputError, match="parameter sync.perod: unknown"):
            Parameters(node)
    else:
        assert Parameters(node).node.autostart
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("done", [False, True])
def test_remaps_that_nobody_did_are_said(tmp_path, domain, done):
    """A process cannot remap itself; named in a parameter file, the vehicle does not reach the launch file."""
    (tmp_path / "car.yaml").write_text("remaps: {/tf: /car/tf}")
    given = [
        "0",
        "1",
        "--ros-args",
        "-p",
        f"vehicle:={tmp_path / 'car.yaml'}",
        *(["-r", "/tf:=/car/tf"] if done else []),
    ]
    with RosProcess(".slow_node", *given, env=environment(tmp_path, domain), folder=tmp_path) as tracker:
        tracker.wait_for_output("ready")
        tracker.interrupt()
        assert tracker.wait() == 0, tracker.output()
    assert ("the vehicle file remaps /tf to /car/tf, but this node has /tf" in tracker.output()) is not done


def test_a_folder_is_no_vehicle(tmp_path, monkeypatch):
    """Where the data set lies beside, under the name of a shipped vehicle."""
    (tmp_path / "nuscenes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_vehicle("nuscenes").path == ROOT / "config/vehicles/nuscenes.yaml"


@pytest.mark.parametrize("name", ["nuscenes", "template"])
def test_shipped_vehicles_are_found_by_name(name):
    assert load_vehicle(name).parameters["fixed_frame"] == "odom"


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("- list", "expected keys and values"),
        ("a: [", "not valid YAML"),
        ("cameras: {}\ncameras: {cam_front: {frame_id: nose}}", "cameras stands there twice"),
        ("remaps: [/tf]", "remaps: expected a mapping"),
        ("sync: {max_sprad: 1}", "sync.max_sprad: no such parameter; did you mean sync.max_spread?"),
        ("vehicle: other", "vehicle: no such parameter"),
    ],
)
def test_a_bad_vehicle_is_one_line(text, culprit, tmp_path):
    path = tmp_path / "car.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=culprit.replace("?", r"\?")) as error:
        load_vehicle(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def calibration_file(folder: Path, **changes) -> Path:
    entries = {frame_of(camera): dict(ENTRY) for camera in CAMERAS}
    entries["cam_back"] |= {
        "distortion": {"model": "equidistant", "coefficients": [0.1, 0.02, 0.003, 0.0004]},
        "base_from_camera": {"translation": [-1, 0.5, 1.5], "rotation": [0.5, -0.5, -0.5, 0.5]},
    }
    entries["cam_front"] |= changes
    path = folder / "cameras.yaml"
    path.write_text(yaml.safe_dump({"cameras": entries}))
    return path


def test_calibrations_from_a_file(tmp_path):
    found = load_calibration(calibration_file(tmp_path), CAMERAS)
    model, mount = found["CAM_FRONT"]
    np.testing.assert_array_equal(model.intrinsics, [[250, 0, 160], [0, 251, 90], [0, 0, 1]])
    assert (model.width, model.height, model.lens, mount) == (320, 180, None, None)
    model, mount = found["CAM_BACK"]
    np.testing.assert_array_equal(model.lens.coefficients, [0.1, 0.02, 0.003, 0.0004])
    # The camera looks backwards: its z axis is -x of the vehicle, its x axis +y, its y axis -z.
    np.testing.assert_allclose(mount, [[0, 0, -1, -1], [1, 0, 0, 0.5], [0, -1, 0, 1.5], [0, 0, 0, 1]], atol=1e-12)


@pytest.mark.parametrize("name, bent", [("equidistant", True), ("plumb_bob", False)])
def test_an_ideal_fisheye_is_no_pinhole(name, bent, tmp_path):
    distortion = {"model": name, "coefficients": [0] * LENS_COEFFICIENTS[name]}
    model, _ = load_calibration(calibration_file(tmp_path, distortion=distortion), CAMERAS)["CAM_FRONT"]
    assert (model.lens is not None) is bent


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"width": 0}, "cam_front.width: expected a number of pixels, got 0"),
        ({"intrinsics": [1, 2, 3]}, "cam_front.intrinsics: expected 4 numbers"),
        ({"intrinsics": [0, 2, 3, 4]}, "cam_front.intrinsics: focal lengths"),
        ({"distortion": {"model": "fisheye"}}, "cam_front.distortion.model: expected one of plumb_bob"),
        ({"distortion": {"model": "plumb_bob", "coefficients": [1]}}, "coefficients: expected 5 numbers"),
        ({"base_from_camera": {"translation": [0, 0, 0], "rotation": [0, 0, 0, 0]}}, "base_from_camera.rotation"),
        ({"colour": "red"}, "cam_front.colour: unknown key"),
    ],
)
def test_a_bad_calibration_names_file_camera_and_key(changes, culprit, tmp_path):
    path = calibration_file(tmp_path, **changes)
    with pytest.raises(InputError, match=culprit) as error:
        load_calibration(path, CAMERAS)
    assert str(error.value).startswith(f"{path}: cameras.cam_front")


def test_every_camera_may_have_its_own_topics():
    common = NodeParams(image_topic="/{camera}/raw", image_transport="raw")
    own = {
        "A": CameraParams(),
        "B": CameraParams(image_topic="/nose", image_transport="compressed", camera_info_topic="/nose_info"),
        "C": CameraParams(image_topic="/tail/compressed", image_transport="compressed"),
    }
    plans = {camera: camera_input(camera, common, own) for camera in own}
    assert [(p.image_topic, p.info_topic, p.image_kind.__name__) for p in plans.values()] == [
        ("/a/raw", "/a/camera_info", "Image"),
        ("/nose/compressed", "/nose_info", "CompressedImage"),
        ("/tail/compressed", "/c/camera_info", "CompressedImage"),
    ]


def test_qos_that_does_not_fit_is_said_with_both_policies():
    reliable, best_effort, latched = conversions.reliable(1), conversions.sensor_data(1), conversions.latched()
    assert mismatch(reliable, best_effort) == "reliability: asked for reliable, offered is best effort"
    assert mismatch(latched, reliable) == "durability: asked for transient local, offered is volatile"
    assert mismatch(best_effort, reliable) == mismatch(best_effort, latched) == mismatch(reliable, latched) == ""


def publisher(kind: str, qos):
    return SimpleNamespace(topic_type=kind, qos_profile=qos)


def test_silence_is_explained():
    asked = conversions.reliable(1)
    image = messages.COMPRESSED_IMAGE
    ask = ("/a", image, asked)
    assert why_silent(*ask, [], "image_topic").startswith("nobody publishes /a")
    raw = why_silent(*ask, [], "image_topic", elsewhere="/b")
    assert raw == "nobody publishes /a, but /b is published: change image_transport or image_topic"
    assert "published as sensor_msgs/msg/Image" in why_silent(*ask, [publisher(messages.IMAGE, asked)], "image_topic")
    assert "change qos.images" in why_silent(*ask, [publisher(image, conversions.sensor_data(1))], "image_topic")
    mixed = [publisher(image, conversions.sensor_data(1)), publisher(image, asked)]
    assert "nothing arrives" in why_silent(*ask, mixed, "image_topic")
    assert ReliabilityPolicy.RELIABLE == asked.reliability and DurabilityPolicy.VOLATILE == asked.durability


def test_approximate_time_forwards_whole_sets_only(monkeypatch):
    class SimpleFilter:
        def __init__(self):
            self.calls = []

        def registerCallback(self, call):  # noqa: N802 (the package's name)
            self.calls.append(call)

        def signalMessage(self, message):  # noqa: N802
            for call in self.calls:
                call(message)

    class ApproximateTimeSynchronizer(SimpleFilter):
        def __init__(self, filters, queue_size, slop):
            super().__init__()
            assert (queue_size, slop) == (10, 0.06)
            self.waiting = [[] for _ in filters]
            for i, source in enumerate(filters):
                source.registerCallback(lambda message, i=i: self.add(i, message))

        def add(self, i, message):
            self.waiting[i].append(message)
            if all(self.waiting):
                chosen = [queue.pop(0) for queue in self.waiting]
                for call in self.calls:
                    call(*chosen)

    package = SimpleNamespace(SimpleFilter=SimpleFilter, ApproximateTimeSynchronizer=ApproximateTimeSynchronizer)
    monkeypatch.setattr(approximate, "_message_filters", lambda: package)
    forwarded = []
    sets = approximate.ApproximateSets(("A", "B"), 0.06, lambda camera, message: forwarded.append((camera, message)))
    one, two = (conversions.make(messages.IMAGE) for _ in range(2))
    sets.add("B", one)
    assert forwarded == []
    sets.add("A", two)
    assert [camera for camera, _ in forwarded] == ["A", "B"]
    assert forwarded[0][1] is two and forwarded[1][1] is one


def test_other_encodings_go_through_cv_bridge_where_it_is(monkeypatch):
    message = conversions.make(messages.IMAGE, encoding="bayer_rggb8", width=4, height=2, step=4, data=bytes(8))
    assert encodings.needs_bridge(message)
    assert not encodings.needs_bridge(conversions.make(messages.IMAGE, encoding="bgr8"))
    assert not encodings.needs_bridge(conversions.make(messages.COMPRESSED_IMAGE, format="jpeg"))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "cv_bridge", None)
        with pytest.raises(InputError, match="bayer_rggb8.*needs the ROS package cv_bridge"):
            encodings.bridged(message)

    class CvBridgeError(TypeError):
        pass

    asked, failing = [], []

    class CvBridge:
        def imgmsg_to_cv2(self, given, desired_encoding):
            asked.append(desired_encoding)
            if failing:
                raise failing.pop()
            return np.arange(24, dtype=np.uint8).reshape(2, 4, 3)

    monkeypatch.setattr(encodings, "_cv_bridge", lambda encoding: SimpleNamespace(CvBridge=CvBridge))
    image = encodings.bridged(message)
    assert (image.width, image.height, image.step) == (4, 2, 4) and asked == []  # not before a set needs it
    assert images.decode(image).tobytes() == bytes(range(24)) and asked == ["rgb8"]
    for error in (CvBridgeError("no such\nimage"), TypeError("buffer is too small for no such image")):
        failing.append(error)
        with pytest.raises(InputError, match="'bayer_rggb8': .*no such image"):
            images.decode(image)
    monkeypatch.setattr(CvBridge, "imgmsg_to_cv2", lambda *_, **__: np.zeros((2, 4), np.uint16))
    with pytest.raises(InputError, match="expected RGB pixels of 8 bits, got uint16"):
        images.decode(image)


def test_a_missing_pose_is_explained():
    asked, wanted = conversions.reliable(10), "odom -> base_link"
    assert "nobody publishes /tf" in why_no_pose("/tf", asked, [], wanted)
    said = why_no_pose("/tf", asked, [publisher(messages.TF, conversions.sensor_data())], wanted)
    assert "reliability: asked for reliable, offered is best effort" in said
    said = why_no_pose("/tf", asked, [publisher(messages.TF, conversions.reliable(1))], wanted)
    assert "does not tell odom -> base_link" in said and "fixed_frame" in said
    live = odometry_qos(NodeParams())
    said = why_no_pose("/tf", asked, [publisher(messages.TF, conversions.reliable(1))], wanted, came=True)
    assert "any more: does the localisation still run" in said and "check" not in said
    assert "does not tell" in why_no_pose("/odom", live, [publisher(messages.TF, conversions.sensor_data())], wanted)


def test_the_tables_of_the_documentation_are_current():
    text = (ROOT / "docs" / "ros.md").read_text(encoding="utf-8")
    assert set(reference.tables()) == {line.split()[2] for line in text.splitlines() if line.startswith("<!-- table:")}
    assert reference.updated(text) == text, "python -m syncl_ros.reference --update docs/ros.md"
