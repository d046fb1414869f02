"""Laws of the nuScenes reader: nothing is lost, invented or moved between the tables and the values handed out."""

from itertools import pairwise

import numpy as np
import pytest
from nuscenes_fixture import (
    CAMERA_DELAY_US,
    INTRINSICS,
    OBJECTS,
    SCENES,
    START_US,
    VERSION,
    base_from_sensor,
    edit_table,
    global_from_base,
    object_center,
    real_root,
    write_tiny_nuscenes,
)

from syncl_core import geometry, images
from syncl_core.classes import CAMERAS, TRACKING_CLASSES
from syncl_core.errors import InputError

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
from syncl_core.data.nuscenes import NuScenesScenes  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return NuScenesScenes(write_tiny_nuscenes(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def root(tmp_path):
    """A tiny root of one's own, to break."""
    return write_tiny_nuscenes(tmp_path / "tiny")


def key_frame_us(scene_index: int, sample_index: int) -> int:
    return START_US + 10_000_000 * scene_index + 500_000 * sample_index


@pytest.mark.parametrize(
    ("table", "field", "value"),
    [
        ("scene", "name", None),
        ("scene", "name", "../elsewhere"),
        ("sample", "timestamp", "today"),
        ("sample", "scene_token", None),
        ("sample_data", "timestamp", -5),
        ("sample_data", "timestamp", 10**30),
        ("sample_data", "filename", None),
        ("sample_data", "width", "wide"),
        ("calibrated_sensor", "camera_intrinsic", "bad"),
        ("sample_annotation", "size", [1.0]),
        ("sample_annotation", "num_lidar_pts", None),
    ],
)
def test_a_record_that_cannot_be_used_is_named(tmp_path, table, field, value):
    root = write_tiny_nuscenes(tmp_path)
    edit_table(root, table, lambda records: records[-1].update({field: value}))
    with pytest.raises(InputError, match=f"{table}.json: record .*'{field}' is"):
        NuScenesScenes(root)
    edit_table(root, table, lambda records: records[-1].pop(field))
    with pytest.raises(InputError, match=f"{table}.json: record .*'{field}' is missing"):
        NuScenesScenes(root)


def test_a_broken_chain_of_annotations_is_named(tmp_path):
    root = write_tiny_nuscenes(tmp_path)
    edit_table(root, "sample_annotation", lambda records: [record.update(prev="nowhere") for record in records])
    data = NuScenesScenes(root)
    with pytest.raises(InputError, match="sample_annotation .* 'nowhere'"):
        data.ground_truth(data.samples(data.scene_names[0])[0].token)


def test_scenes_splits_and_samples(tiny):
    assert tiny.version == VERSION
    assert tiny.scene_names == SCENES
    assert tiny.split("tiny_val") == (SCENES[1],)
    for index, scene in enumerate(SCENES):
        samples = tiny.samples(scene)
        assert [s.t_ns for s in samples] == [1000 * key_frame_us(index, i) for i in range(4)]
        assert {tiny.scene_of(s.token) for s in samples} == {scene}


def test_frame_set_keeps_bytes_stamps_and_each_cameras_own_pose(tiny):
    t_us = key_frame_us(1, 2)
    frame_set = tiny.frame_set(tiny.samples(SCENES[1])[2].token)
    assert frame_set.t_ns == 1000 * t_us
    np.testing.assert_allclose(frame_set.global_from_base, global_from_base(t_us), atol=1e-9)
    np.testing.assert_allclose(frame_set.base_from_model, base_from_sensor("LIDAR_TOP"), atol=1e-9)
    assert tuple(view.camera for view in frame_set.views) == CAMERAS
    for view in frame_set.views:
        camera_us = t_us + CAMERA_DELAY_US[view.camera]
        path = tiny.root / f"samples/{view.camera}/{SCENES[1]}__{view.camera}__{camera_us}.jpg"
        assert view.t_ns == 1000 * camera_us
        assert view.image.data == path.read_bytes()
        assert images.decode(view.image).shape == (view.model.height, view.model.width, 3)
        np.testing.assert_array_equal(view.model.intrinsics, INTRINSICS)
        np.testing.assert_allclose(view.global_from_base, global_from_base(camera_us), atol=1e-9)
        np.testing.assert_allclose(view.base_from_cam, base_from_sensor(view.camera), atol=1e-9)


def test_camera_order_is_the_callers(tiny):
    cameras = CAMERAS[::-1][:4]
    frame_set = tiny.frame_set(tiny.samples(SCENES[0])[0].token, cameras)
    assert tuple(view.camera for view in frame_set.views) == cameras


@pytest.mark.parametrize("sweeps", [False, True])
def test_camera_views_are_all_images_in_time_order(tiny, sweeps):
    views = list(tiny.camera_views(SCENES[0], sweeps=sweeps))
    stamps = [view.t_ns for view in views]
    assert stamps == sorted(stamps)
    folders = ("samples", "sweeps") if sweeps else ("samples",)
    on_disk = [path for folder in folders for path in (tiny.root / folder).rglob(f"{SCENES[0]}*.jpg")]
    assert sorted(view.image.data for view in views) == sorted(path.read_bytes() for path in on_disk)
    for view in views:
        np.testing.assert_allclose(view.global_from_base, global_from_base(view.t_ns // 1000), atol=1e-9)


def test_camera_views_read_no_image_early(root):
    views = NuScenesScenes(root).camera_views(SCENES[0])
    first = next(views)
    for path in root.rglob("*.jpg"):
        path.unlink()
    assert first.image.data
    with pytest.raises(InputError, match=r"\.jpg: no such image"):
        next(views)


def test_ego_poses_are_every_stamp_once_in_order(tiny):
    poses = tiny.ego_poses(SCENES[1])
    stamps = [t_ns for t_ns, _ in poses]
    assert all(a < b for a, b in pairwise(stamps))
    table = {r["timestamp"] * 1000 for r in tiny._nusc.sample_data if r["token"].startswith(SCENES[1])}
    assert set(stamps) == table
    for t_ns, pose in poses:
        np.testing.assert_allclose(pose, global_from_base(t_ns // 1000), atol=1e-9)


def test_calibration_by_channel(tiny):
    transforms = tiny.static_transforms(SCENES[0])
    assert set(transforms) == {*CAMERAS, "LIDAR_TOP"}
    for channel, transform in transforms.items():
        np.testing.assert_allclose(transform, base_from_sensor(channel), atol=1e-9)
    assert set(tiny.camera_models(SCENES[0])) == set(CAMERAS)


def test_ground_truth_boxes(tiny):
    objects = tiny.ground_truth(tiny.samples(SCENES[1])[1].token)
    names = [object_id.removeprefix(f"{SCENES[1]}-") for object_id in objects.ids]
    assert sorted(names) == sorted(set(OBJECTS) - {"dog"})  # animals are in no detection class
    for row, name in enumerate(names):
        _, _, velocity, (width, length, height), points = OBJECTS[name]
        np.testing.assert_allclose(objects.centers[row], object_center(name, key_frame_us(1, 1)))
        np.testing.assert_allclose(objects.sizes[row], [length, width, height])
        np.testing.assert_allclose(objects.velocities[row], velocity, atol=1e-6)
        assert objects.num_points[row] == points
    np.testing.assert_allclose(objects.rotations, [geometry.quaternion_from_yaw(0.3)] * len(objects))
    assert objects.labels[names.index("walker")] == "pedestrian"
    tracked = tiny.ground_truth(tiny.samples(SCENES[1])[1].token, TRACKING_CLASSES)
    assert set(objects.ids) - set(tracked.ids) == {f"{SCENES[1]}-barrier"}


def test_ground_truth_of_an_empty_key_frame(tiny):
    objects = tiny.ground_truth(tiny.samples(SCENES[0])[0].token, classes=("bus",))
    assert len(objects) == 0
    assert objects.centers.shape == objects.sizes.shape == (0, 3)
    assert objects.rotations.shape == (0, 4)
    assert objects.velocities.shape == (0, 2)


def test_missing_image_is_named_or_a_gap(root):
    token = f"{SCENES[0]}-sample-0"
    lost = min((root / "samples/CAM_BACK").glob(f"{SCENES[0]}*.jpg"))
    lost.unlink()
    data = NuScenesScenes(root)
    with pytest.raises(InputError, match=lost.name):
        data.frame_set(token)
    assert data.cameras_on_disk(token) == tuple(camera for camera in CAMERAS if camera != "CAM_BACK")
    views = data.frame_set(token, allow_missing=True).views
    assert [view is None for view in views] == [camera == "CAM_BACK" for camera in CAMERAS]
    assert len(list(data.camera_views(SCENES[0], sweeps=False, allow_missing=True))) == 4 * 6 - 1


def test_missing_row_is_named_or_a_gap(root):
    def drop_back_camera(records):
        records[:] = [record for record in records if "CAM_BACK-" not in record["token"]]

    edit_table(root, "sample_data", drop_back_camera)
    data = NuScenesScenes(root)
    token = data.samples(SCENES[0])[0].token
    with pytest.raises(InputError, match=f"{token} has no CAM_BACK key frame"):
        data.frame_set(token)
    assert data.frame_set(token, allow_missing=True).views[CAMERAS.index("CAM_BACK")] is None


@pytest.mark.parametrize("table", ["ego_pose", "calibrated_sensor", "sample_annotation"])
@pytest.mark.parametrize("field", [{"translation": [float("nan"), 0, 0]}, {"rotation": [0, 0, 0, 0]}])
def test_impossible_poses_name_scene_and_token(root, table, field):
    edit_table(root, table, lambda records: [record.update(field) for record in records])
    data = NuScenesScenes(root)
    token = data.samples(SCENES[0])[0].token
    with pytest.raises(InputError, match=f"{SCENES[0]}: {table} .*not a") as caught:
        data.ground_truth(token) if table == "sample_annotation" else data.frame_set(token)
    assert "\n" not in str(caught.value)


NO_FOCUS = {"camera_intrinsic": [[0.0, 0.0, 32.0], [0.0, 40.0, 20.0], [0.0, 0.0, 1.0]]}


@pytest.mark.parametrize("field", [{"camera_intrinsic": []}, {"camera_intrinsic": [[float("nan")] * 3] * 3}, NO_FOCUS])
def test_unusable_intrinsics_name_the_camera(root, field):
    edit_table(root, "calibrated_sensor", lambda records: records[0].update(field))
    data = NuScenesScenes(root)
    with pytest.raises(InputError, match=f"{SCENES[0]}: {CAMERAS[0]} has no usable camera model"):
        data.camera_models(SCENES[0])


def test_unusable_roots_are_explained(root, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        NuScenesScenes(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a nuScenes root"):
        NuScenesScenes(root / "maps")
    with pytest.raises(InputError, match=f"no version 'v2'; versions here: {VERSION}"):
        NuScenesScenes(root, "v2")
    (root / VERSION / "sensor.json").write_text("[{")
    with pytest.raises(InputError, match=r"sensor\.json: not valid JSON"):
        NuScenesScenes(root)
    (root / VERSION / "sensor.json").write_text("[]")
    with pytest.raises(InputError, match="nuscenes-devkit cannot load it: KeyError"):
        NuScenesScenes(root)
    (root / VERSION / "sensor.json").unlink()
    with pytest.raises(InputError, match=r"lacks sensor\.json"):
        NuScenesScenes(root)
    (root / "v2").mkdir()
    (root / "v2" / "sample_data.json").write_text("[]")
    with pytest.raises(InputError, match="several versions"):
        NuScenesScenes(root)


def test_unknown_names_are_explained(tiny):
    with pytest.raises(InputError, match=f"no scene 'x' .*{SCENES[0]}"):
        tiny.samples("x")
    with pytest.raises(InputError, match="no sample 'x'"):
        tiny.frame_set("x")
    with pytest.raises(InputError, match="split 'x' is unknown; splits with scenes here: tiny_val"):
        tiny.split("x")
    with pytest.raises(InputError, match="split 'val' has no scene here"):
        tiny.split("val")


def devkit_box_pixels(nusc, sample_data_token: str) -> dict[str, np.ndarray]:
    """Corner pixels [8, 2] of every box in front of a camera, as nuscenes-devkit draws them."""
    from nuscenes.utils.geometry_utils import view_points

    _, boxes, intrinsics = nusc.get_sample_data(sample_data_token)
    pixels = {}
    for box in boxes:
        instance = nusc.get("sample_annotation", box.token)["instance_token"]
        pixels[instance] = view_points(box.corners(), intrinsics, normalize=True)[:2].T
    return pixels


def test_boxes_land_where_the_devkit_draws_them_in_real_images():
    data = NuScenesScenes(real_root("nuscenes_two_frames"))
    drawn = 0
    for sample in data.samples("scene-0103"):
        objects = data.ground_truth(sample.token)
        corners = geometry.box_corners(objects.centers, objects.sizes, objects.rotations)
        for view in data.frame_set(sample.token).views:
            cam_from_global = geometry.inverse(view.global_from_base @ view.base_from_cam)
            reference = devkit_box_pixels(data._nusc, data._sample(sample.token)["data"][view.camera])
            pixels, _ = geometry.project(view.model.intrinsics, cam_from_global, corners)
            for instance, ours in zip(objects.ids, pixels, strict=True):
                if instance in reference:
                    # The devkit numbers corners differently: compare them as sorted sets.
                    theirs = reference[instance]
                    np.testing.assert_allclose(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)], atol=1e-4)
                    drawn += 1
    assert drawn > 40


def test_real_scenes_with_few_images():
    data = NuScenesScenes(real_root("nuscenes_mini_val"))
    assert data.split("mini_val") == ("scene-0103", "scene-0916")
    assert [len(data.samples(scene)) for scene in data.scene_names] == [40, 41]
    views = list(data.camera_views("scene-0103", allow_missing=True))
    assert len(views) == 12
    assert all(images.decode(view.image).shape == (900, 1600, 3) for view in views)
    assert [len(data.cameras_on_disk(sample.token)) for sample in data.samples("scene-0103")] == [6, 6] + 38 * [0]
    annotated = [data.ground_truth(s.token) for scene in data.scene_names for s in data.samples(scene)]
    assert sum(map(len, annotated)) <= 4514
    assert len(data.ego_poses("scene-0103")) == 7 * 40
