"""Laws of the endless data set: what it states is what the writer writes, and what the camera models say is seen."""

import pickle

import numpy as np
import pytest
import torch
from world_helpers import actor_poses

from syncl_core import frames, geometry
from syncl_core.classes import TRACKING_CLASSES
from syncl_core.config import ImageConfig
from syncl_core.errors import InputError
from syncl_core.images import decode
from syncl_core.world import generate, photo, render, rig, sense, splits, writer
from syncl_core.world.scene import boxes_at, city_from_base
from syncl_core.world.source import WorldSource
from syncl_core.world.truth import ANNOTATION_RANGE, truth_of

SCENE, WIDTH, KEY_FRAMES = "world-val-01", 160, 4


@pytest.fixture(scope="module")
def source():
    return WorldSource("val", image_width=WIDTH, num_key_frames=KEY_FRAMES)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    from syncl_core.data.nuscenes import NuScenesScenes

    config = writer.WorldConfig(
        split="val", scenes=2, seconds=KEY_FRAMES / 2, image_width=WIDTH, sweeps=False, workers=1
    )
    return NuScenesScenes(writer.write_world(tmp_path_factory.mktemp("source") / "data", config))


def test_truth_is_what_the_writer_writes(source, tables):
    for index, sample in enumerate(tables.samples(SCENE)):
        mine, written = source.ground_truth(SCENE, index), tables.ground_truth(sample.token, TRACKING_CLASSES)
        assert len(mine) > 15 and mine.t_ns == written.t_ns == sample.t_ns
        assert (mine.ids, mine.labels) == (written.ids, written.labels)
        for name in ("scores", "centers", "sizes", "rotations", "num_points"):
            np.testing.assert_allclose(getattr(mine, name), getattr(written, name), atol=1e-6, err_msg=name)
        # Stamps of 1.6e9 seconds as float64 leave an error of 1e-6 in a difference of places over time.
        np.testing.assert_allclose(mine.velocities, written.velocities, atol=2e-5)


def test_frame_sets_are_what_the_writer_writes(source, tables):
    for index, sample in enumerate(tables.samples(SCENE)):
        mine, written = source.frame_set(SCENE, index), tables.frame_set(sample.token)
        assert mine.t_ns == written.t_ns
        np.testing.assert_allclose(mine.global_from_base, written.global_from_base, atol=1e-6)
        np.testing.assert_allclose(mine.base_from_model, written.base_from_model, atol=1e-6)
        for a, b in zip(mine.views, written.views, strict=True):
            assert (a.camera, a.t_ns) == (b.camera, b.t_ns) and a.t_ns < mine.t_ns
            np.testing.assert_allclose(a.global_from_base, b.global_from_base, atol=1e-6)
            np.testing.assert_allclose(a.base_from_cam, b.base_from_cam, atol=1e-6)
            np.testing.assert_allclose(a.model.intrinsics, b.model.intrinsics, atol=1e-9)
            difference = decode(a.image).astype(float) - decode(b.image)
            assert np.abs(difference).mean() < 6 and abs(difference.mean()) < 1  # JPEG at 4:2:0 blurs noise


def test_cropped_images_are_the_bottom_rows(source):
    """Same pixels but for the noise, and a camera model that says where they are."""
    low = WorldSource("val", image_width=WIDTH, image_height=48, num_key_frames=KEY_FRAMES)
    config = ImageConfig(width=WIDTH, height=48)
    full, cropped = (frames.make_frame(of.frame_set(SCENE, 1), config) for of in (source, low))
    torch.testing.assert_close(full.image_from_model, cropped.image_from_model)
    difference = full.images.float() - cropped.images.float()
    assert difference.abs().mean() < 6 and abs(difference.mean().item()) < 0.2
    assert low.frame_set(SCENE, 1).views[0].model.height == 48


def test_actors_are_seen_where_the_projection_puts_them():
    """Where the network's projection puts the middle of an unhidden actor, the renderer has drawn that actor."""
    source = WorldSource("val", image_width=352, image_height=128, num_key_frames=2)
    frame = frames.make_frame(source.frame_set(SCENE, 1), ImageConfig(width=352, height=128))
    world, t = generate.make_scene(splits.seed_of(SCENE)), rig.camera_times_us([500_000])[0] / 1e6
    boxes, views = boxes_at(world, t), photo.camera_views(world, t, 352, 128)
    owner = render.render(boxes, world.light, views).owner
    visible = sense.visible_share(boxes, views, render.render(boxes, world.light, views), len(world.actors))
    model_from_global = np.linalg.inv(frame.global_from_model[0].numpy())
    checked = 0
    for i in np.flatnonzero(visible > 0.97):
        for camera in range(6):
            x, y, z, yaw = actor_poses(world.actors[i], t[camera : camera + 1])[0]
            center = world.global_from_city @ (x, y, z, 1.0)
            u, v, depth, _ = frame.image_from_model[0, camera].numpy() @ model_from_global @ center
            if 1 < depth < 25 and 0 < u / depth < 352 and 0 < v / depth < 128:
                vehicle = "pedestrian" not in world.actors[i].category and "cycle" not in world.actors[i].category
                checked += vehicle
                assert not vehicle or owner[camera, int(v / depth), int(u / depth)] == i, world.actors[i].name
    assert checked >= 3


def test_key_frames_drawn_together_are_those_drawn_alone(source):
    together = source.frame_sets(SCENE, (0, 3))
    for index, frame_set in zip((0, 3), together, strict=True):
        alone = source.frame_set(SCENE, index)
        for a, b in zip(frame_set.views, alone.views, strict=True):
            assert a.t_ns == b.t_ns
            assert a.image.data == b.image.data


def test_what_nobody_looks_at_is_not_drawn(source, monkeypatch):
    seen = source.frame_set(SCENE, 1)
    monkeypatch.setattr(photo, "take", lambda *_: pytest.fail("a picture was drawn"))
    unseen = source.unseen_frame_set(SCENE, 1)
    image = ImageConfig(width=WIDTH, height=64)
    for ours, theirs in zip(unseen.views, seen.views, strict=True):
        assert (ours.camera, ours.t_ns) == (theirs.camera, theirs.t_ns)
        assert not any(ours.image.data) and len(ours.image.data) == len(theirs.image.data)
    ours, theirs = frames.make_frame(unseen, image), frames.make_frame(seen, image)
    assert torch.equal(ours.image_from_model, theirs.image_from_model)
    assert torch.equal(ours.global_from_model, theirs.global_from_model) and torch.equal(ours.t_ns, theirs.t_ns)


def test_rays_are_cast_at_a_key_frame_once(source, monkeypatch):
    first = source.ground_truth(SCENE, 1)
    monkeypatch.setattr(sense, "lidar_points", lambda *_: pytest.fail("rays were cast"))
    assert source.ground_truth(SCENE, 1) is first


def test_source_survives_pickling_and_forgets_what_can_be_made_again(source):
    source.frame_set(SCENE, 0)
    data = pickle.dumps(source)
    copy = pickle.loads(data)
    assert len(data) < 2000 and copy.scene_names == source.scene_names == splits.scene_names("val")
    a, b = source.frame_set(SCENE, 2), copy.frame_set(SCENE, 2)
    assert all(x.image.data == y.image.data for x, y in zip(a.views, b.views, strict=True))


def test_few_scenes_are_kept():
    source = WorldSource("train", image_width=32, num_key_frames=1, num_scenes=4, kept_scenes=2)
    for name in source.scene_names:
        source.ground_truth(name, 0)
    assert tuple(source._stages) == source.scene_names[2:]
    assert len(WorldSource("train").scene_names) == 10_000
    assert WorldSource("train", num_scenes=4, first_scene=2).scene_names[:2] == source.scene_names[2:]


def test_identities_hold_over_a_scene_and_velocities_are_true():
    source = WorldSource("test", image_width=32, num_key_frames=8)
    name = source.scene_names[4]
    world, sets = generate.make_scene(splits.seed_of(name)), [source.ground_truth(name, i) for i in range(8)]
    truth = truth_of(world, 8)
    labels, moving = {}, 0
    for index, objects in enumerate(sets):
        for i, label in zip(objects.ids, objects.labels, strict=True):
            assert labels.setdefault(i, label) == label
        speeds = truth.speeds[index, truth.annotated[index]]
        known = ~np.isnan(objects.velocities[:, 0])
        np.testing.assert_allclose(np.linalg.norm(objects.velocities, axis=1)[known], speeds[known], atol=1.6)
        moving += (speeds > 2).sum()
    assert moving > 10 and len(set(sets[0].ids) & set(sets[-1].ids)) > 5


def test_velocities_equal_the_slow_twin():
    """Places at the annotations before and after, through all gaps in the range; loops and single numbers."""
    world = generate.make_scene(3)
    truth, gaps = truth_of(world, 40), 0
    for a in range(len(world.actors)):
        frames_of = [k for k in range(40) if truth.annotated[k, a]]
        for n, k in enumerate(frames_of):
            before = frames_of[n - 1] if n > 0 else None
            after = frames_of[n + 1] if n + 1 < len(frames_of) else None
            first, last = k if before is None else before, k if after is None else after
            gaps += last - first not in (1, 2)
            limit = 1.5 if before is None or after is None else 3.0
            seconds = (last - first) * 0.5
            for axis in range(2):
                at = [truth.global_from_box[i, a, axis, 3] for i in (first, last)]
                if seconds == 0 or seconds > limit:
                    assert np.isnan(truth.velocities[k, a, axis])
                else:
                    assert truth.velocities[k, a, axis] == pytest.approx((at[1] - at[0]) / seconds, abs=1e-9)
    assert np.isfinite(truth.velocities).sum() > 1000


def test_truth_is_limited_to_the_range_of_the_ego():
    world = generate.make_scene(5)
    truth = truth_of(world, 6)
    for k in range(6):
        ego = world.global_from_city @ city_from_base(world, np.array([k / 2]))[0]
        for i, actor in enumerate(world.actors):
            x, y, z, yaw = actor_poses(actor, np.array([k / 2]))[0]
            box = world.global_from_city @ geometry.transform((x, y, z), geometry.quaternion_from_yaw(yaw))
            np.testing.assert_allclose(truth.global_from_box[k, i], box, atol=1e-9)
            assert truth.annotated[k, i] == (np.linalg.norm(box[:2, 3] - ego[:2, 3]) < ANNOTATION_RANGE)
    assert not truth.annotated.all() and truth.annotated.any()


@pytest.mark.parametrize(
    "change, culprit",
    [
        ({"split": "mini"}, "mini"),
        ({"cameras": ("CAM_TOP",)}, "CAM_TOP"),
        ({"image_width": 8}, "image_width"),
        ({"image_height": 500}, "image_height"),
        ({"num_key_frames": 41}, "num_key_frames"),
        ({"num_scenes": 0}, "scenes"),
        ({"first_scene": 20}, "first scene"),
        ({"kept_scenes": 0}, "kept_scenes"),
    ],
)
def test_impossible_sources_name_the_culprit(change, culprit):
    with pytest.raises(InputError, match=culprit):
        WorldSource(**{"split": "val", **change})


def test_wrong_requests_are_refused(source):
    with pytest.raises(InputError, match="key frame 4"):
        source.frame_set(SCENE, 4)
    with pytest.raises(InputError, match="scene-0001"):
        source.frame_set("scene-0001", 0)


def test_rig_order_may_be_chosen():
    pair = ("CAM_BACK", "CAM_FRONT_LEFT")
    views = WorldSource("val", cameras=pair, image_width=64, num_key_frames=1).frame_set(SCENE, 0).views
    assert tuple(view.camera for view in views) == pair
    np.testing.assert_allclose(views[0].model.intrinsics, rig.camera_model("CAM_BACK", 64).intrinsics)
