"""Scenes as bags: what comes out is what the tables hold, byte for byte, stamp for stamp."""

from pathlib import Path

import numpy as np
import pytest
from nuscenes_fixture import CAMERA_DELAY_US, SAMPLES_PER_SCENE, SCENES, edit_table, real_root, write_tiny_nuscenes

from syncl_core.classes import CAMERAS
from syncl_core.data.nuscenes import NuScenesScenes
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.bag_types import bag_types
from syncl_core.io.bag_writer import BagWriter
from syncl_core.io.scene_to_bag import write_scene_bag
from syncl_core.io.sensor_events import sensor_events
from syncl_core.io.topics import Topics
from syncl_core.types import CameraModel, RawImage

MAKE = bag_types().make
TOPICS = Topics()
SWEEPS = 2  # between two key frames of the tiny scenes


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_tiny_nuscenes(tmp_path_factory.mktemp("nuscenes"), SWEEPS)


@pytest.fixture(scope="module")
def data(root) -> NuScenesScenes:
    return NuScenesScenes(root)


@pytest.fixture(scope="module")
def bag(data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "scene"
    write_scene_bag(data, SCENES[0], path)
    return path


class Recorder:
    """An intake that writes down what it is given."""

    def __init__(self):
        self.images: dict[tuple[str, int], RawImage] = {}
        self.models: dict[str, CameraModel] = {}
        self.static: dict[tuple[str, str], np.ndarray] = {}
        self.moving: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        self.odometry: dict[int, np.ndarray] = {}

    def add_image(self, camera, t_ns, frame_id, image):
        assert frame_id == camera.lower()
        assert t_ns in self.moving["odom", "base_link"], "the pose must be there before the image that needs it"
        assert camera in self.models
        self.images[camera, t_ns] = image

    def add_camera_model(self, camera, model):
        self.models[camera] = model

    def add_transform(self, parent, child, t_ns, parent_from_child, static):
        if static:
            self.static[parent, child] = parent_from_child
        else:
            self.moving.setdefault((parent, child), {})[t_ns] = parent_from_child

    def add_odometry(self, t_ns, fixed_from_base):
        self.odometry[t_ns] = fixed_from_base


def record(path: Path, **options) -> Recorder:
    recorder, clock = Recorder(), 0
    with BagReader(path) as reader:
        for t_ns, deliver in sensor_events(reader, CAMERAS, **options):
            assert t_ns >= clock
            clock = t_ns
            deliver(recorder)
    return recorder


def check_scene(data: NuScenesScenes, scene: str, bag: Path, sweeps: bool = True) -> None:
    """What comes out of the bag is what the scene holds: every byte, stamp, pose and calibration."""
    recorder = record(bag)
    views = list(data.camera_views(scene, CAMERAS, sweeps, allow_missing=True))
    assert len(views) == len(recorder.images)
    models, mounts = data.camera_models(scene), data.static_transforms(scene)
    for view in views:
        image = recorder.images[view.camera, view.t_ns]
        assert image.encoding == "jpeg" and bytes(image.data) == bytes(view.image.data)
        np.testing.assert_allclose(recorder.moving["odom", "base_link"][view.t_ns], view.global_from_base, atol=1e-10)
    for camera in CAMERAS:
        np.testing.assert_array_equal(recorder.models[camera].intrinsics, models[camera].intrinsics)
        assert recorder.models[camera].width == models[camera].width
    for channel, base_from_sensor in mounts.items():
        np.testing.assert_allclose(recorder.static["base_link", channel.lower()], base_from_sensor, atol=1e-12)
    assert set(recorder.moving) == {("map", "odom"), ("odom", "base_link")}
    assert all((pose == np.eye(4)).all() for pose in recorder.moving["map", "odom"].values())


@pytest.mark.parametrize("sweeps", [True, False])
def test_scene_survives_the_bag(data, tmp_path, sweeps):
    result = write_scene_bag(data, SCENES[1], tmp_path / "bag", sweeps=sweeps)
    frames = (SAMPLES_PER_SCENE - 1) * (SWEEPS + 1 if sweeps else 1) + 1
    assert (result.images, result.samples, result.missing_samples) == (6 * frames, SAMPLES_PER_SCENE, 0)
    check_scene(data, SCENES[1], tmp_path / "bag", sweeps)


def test_log_times_are_the_stamps_and_static_transforms_come_first(data, bag):
    with BagReader(bag) as reader:
        stamps = [(topic, message, t_ns) for topic, message, t_ns in reader.decoded() if hasattr(message, "header")]
        assert next(reader.messages())[0] == TOPICS.tf_static
        assert reader.counts[TOPICS.tf_static] == 1
    assert all(messages.stamp_ns(message) == t_ns for _, message, t_ns in stamps)


def test_ground_truth_and_samples_survive_the_bag(data, bag):
    with BagReader(bag) as reader:
        found = reader.object_sets(TOPICS.ground_truth)
        samples = [messages.sample_record_from(message) for _, message, _ in reader.decoded([TOPICS.sample])]
        arrays = [message.markers for _, message, _ in reader.decoded([TOPICS.ground_truth_markers])]
    assert samples == [(SCENES[0], token, t_ns) for token, t_ns in data.samples(SCENES[0])]
    for (token, t_ns), objects, markers in zip(data.samples(SCENES[0]), found, arrays, strict=True):
        truth = data.ground_truth(token)
        assert (objects.t_ns, objects.ids, objects.labels) == (t_ns, truth.ids, truth.labels)
        for name in ("scores", "centers", "sizes", "rotations"):
            np.testing.assert_array_equal(getattr(objects, name), getattr(truth, name))
        assert sum(marker.ns == "boxes" for marker in markers) == len(truth) > 0


def test_scene_with_part_of_its_images_gives_a_bag_of_that_part(tmp_path):
    root = write_tiny_nuscenes(tmp_path / "nuscenes", 0)
    for path in root.glob(f"samples/*/{SCENES[0]}__*"):
        t_us = int(path.stem.split("__")[2])
        if t_us - CAMERA_DELAY_US[path.parent.name] >= 1_500_000_001_000_000:  # key frames 2 and 3
            path.unlink()
    data = NuScenesScenes(root)
    result = write_scene_bag(data, SCENES[0], tmp_path / "bag")
    assert (result.images, result.samples, result.missing_samples) == (12, 2, 2)
    check_scene(data, SCENES[0], tmp_path / "bag")
    with BagReader(tmp_path / "bag") as reader:
        assert [o.t_ns for o in reader.object_sets(TOPICS.ground_truth)] == [
            s.t_ns for s in data.samples(SCENES[0])[:2]
        ]
        assert max(t_ns for *_, t_ns, _ in reader.messages()) < data.samples(SCENES[0])[3].t_ns
    for path in root.glob("samples/CAM_*/*"):
        path.unlink()
    with pytest.raises(InputError, match=f"{SCENES[0]}: none of its 4 key frames"):
        write_scene_bag(data, SCENES[0], tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "nuscenes"]


def test_real_key_frames_survive_the_bag(tmp_path):
    data = NuScenesScenes(real_root("nuscenes_two_frames"))
    [scene] = data.scene_names
    result = write_scene_bag(data, scene, tmp_path / "bag")
    assert (result.images, result.samples, result.missing_samples) == (12, 2, 0)
    check_scene(data, scene, tmp_path / "bag")


# --- sensor events ---


def rewrite(bag: Path, path: Path, change) -> Path:
    """A copy of `bag` with `change(topic, message) -> (topic, message) or None` applied."""
    with BagReader(bag) as reader, BagWriter(path) as writer:
        for topic, message, t_ns in reader.decoded():
            if (changed := change(topic, message)) is not None:
                writer.write(*changed, t_ns)
    return path


def test_other_topic_names_and_raw_images(bag, tmp_path):
    pixels = np.arange(64 * 36 * 3, dtype=np.uint8)

    def change(topic, message):
        topic = "/sensors" + topic
        if topic.endswith("/compressed"):
            raw = {"encoding": "rgb8", "width": 64, "height": 36, "step": 192, "data": pixels}
            topic, message = topic[: -len("/compressed")], MAKE(messages.IMAGE, header=message.header, **raw)
        return topic, message

    rewrite(bag, tmp_path / "other", change)
    names = Topics(
        image="/sensors/{camera}/image",
        camera_info="/sensors/{camera}/camera_info",
        tf="/sensors/tf",
        tf_static="/sensors/tf_static",
        odometry="/sensors/odom",
    )
    recorder, original = record(tmp_path / "other", topics=names), record(bag)
    assert recorder.images.keys() == original.images.keys()
    assert {(i.encoding, i.width, i.height, i.step, bytes(i.data)) for i in recorder.images.values()} == {
        ("rgb8", 64, 36, 192, pixels.tobytes())
    }


def test_odometry_is_heard_only_where_tf_is_silent(bag, tmp_path):
    recorder, original = Recorder(), record(bag)
    assert not original.odometry, "two sources of poses would disagree between their stamps"
    with BagReader(rewrite(bag, tmp_path / "odometry", without(TOPICS.tf))) as reader:
        for _, deliver in sensor_events(reader, CAMERAS):
            if "_image" not in deliver.__qualname__:  # the Recorder wants the pose of /tf before any image
                deliver(recorder)
    assert not recorder.moving
    poses = original.moving["odom", "base_link"]
    assert recorder.odometry.keys() == poses.keys()
    for t_ns, pose in poses.items():
        np.testing.assert_allclose(recorder.odometry[t_ns], pose, atol=1e-10)


def without(*topics: str):
    return lambda topic, message: None if topic in topics else (topic, message)


def with_nan_pose(topic, message):
    if topic == TOPICS.tf:
        return None  # so that odometry counts
    if topic == TOPICS.odometry:
        message.pose.pose.position = messages.vector3(MAKE, (np.nan, 0, 0), "Point")
    return topic, message


def as_text(*topics: str):
    return lambda topic, message: (topic, MAKE(messages.STRING) if topic in topics else message)


BACK = TOPICS.compressed_of("CAM_BACK")


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (without(BACK), f"no images of CAM_BACK ({BACK}"),
        (without("/cam_back/camera_info"), "no topic /cam_back/camera_info"),
        (without("/tf", "/odom"), "neither /tf nor /odom"),
        (without("/tf", "/tf_static"), "neither /tf nor /tf_static"),
        (as_text(BACK), f"{BACK} holds std_msgs/msg/String"),
        (as_text("/tf"), "/tf holds std_msgs/msg/String"),
        (with_nan_pose, "/odom at 1"),
    ],
)
def test_bags_that_cannot_be_tracked_name_the_topic(bag, tmp_path, change, culprit):
    path = rewrite(bag, tmp_path / "changed", change)
    with pytest.raises(InputError) as caught:
        record(path)
    assert culprit in str(caught.value) and str(path) in str(caught.value)


def test_fewer_cameras_are_enough_if_asked_for(bag, tmp_path):
    path = rewrite(bag, tmp_path / "five", without(BACK))
    recorder = record(path, min_cameras=5)
    assert {camera for camera, _ in recorder.images} == set(CAMERAS) - {"CAM_BACK"}


# --- command line ---


def main(arguments: list[str]) -> int:
    from syncl_core import cli

    return cli.main(arguments)


def test_command_writes_a_bag_and_reports_it(root, tmp_path, capsys):
    arguments = ["bag", str(root), "--scene", SCENES[0], "--no-sweeps", "-o", str(tmp_path / "bag")]
    assert main(arguments) == 0
    assert "24 images, 4 key frames" in capsys.readouterr().out
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["nowhere"], "nowhere"),
        (["{root}"], "choose a scene with --scene: tiny-0001, tiny-0002"),
        (["{root}", "--scene", "scene-9999"], "scene-9999"),
    ],
)
def test_command_refuses_in_one_line(root, tmp_path, capsys, arguments, culprit):
    output = tmp_path / "bag"
    assert main(["bag", *(a.format(root=root) for a in arguments), "-o", str(output)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert culprit in error and error.startswith("syncl: error: ")
    assert list(tmp_path.iterdir()) == []


def test_nan_pose_in_the_tables_leaves_no_bag(tmp_path):
    root = write_tiny_nuscenes(tmp_path / "nuscenes", 0)
    edit_table(root, "ego_pose", lambda records: records[5].update(translation=[0.0, float("nan"), 0.0]))
    with pytest.raises(InputError, match="ego_pose"):
        write_scene_bag(NuScenesScenes(root), SCENES[0], tmp_path / "bag")
    assert not (tmp_path / "bag").exists()
