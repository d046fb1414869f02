"""Failing cameras: black and masked as at inference, the same for the same clip, and nobody is taught the unseen."""

import dataclasses

import numpy as np
import pytest
import torch
from train_fixture import ToySource, toy_config

from syncl_core import geometry
from syncl_core.config import SynclConfig, check_config
from syncl_core.data.augment import Augmentation, augmented_frame, draw_augmentation
from syncl_core.data.camera_dropout import seen_by, shown_objects, without_cameras
from syncl_core.data.clips import ClipDataset
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.train_config import TrainConfig
from syncl_core.types import FrameSet, ObjectSet

SOURCE, CONFIG = ToySource(), toy_config()


def _slow_seen(objects: ObjectSet, frame, camera: int, row: int) -> bool:
    """Nine points of one box, one after the other, from the box's definition."""
    rotation = geometry.matrix_from_quaternion(objects.rotations[row])
    length, width, height = objects.sizes[row]
    signs = [(0, 0, 0)] + [(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    for a, b, c in signs:
        point = objects.centers[row] + rotation @ np.array([a * length / 2, b * width / 2, c * height / 2])
        local = np.linalg.inv(frame.global_from_model[0].numpy()) @ [*point, 1.0]
        x, y, depth, _ = frame.image_from_model[0, camera].numpy() @ local
        if depth > 0.1 and 0 <= x / depth < frame.images.shape[-1] and 0 <= y / depth < frame.images.shape[-2]:
            return True
    return False


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(scale=1.2, offset=0.7, flip=True)])
def test_who_sees_what_equals_point_by_point(augmentation):
    found = set()
    for index in range(4):
        objects = SOURCE.ground_truth("toy-0", index)
        frame = augmented_frame(SOURCE.frame_set("toy-0", index), CONFIG.image, augmentation)
        seen = seen_by(objects, frame)
        expected = [[_slow_seen(objects, frame, camera, row) for row in range(len(objects))] for camera in range(3)]
        np.testing.assert_array_equal(seen, expected)
        found |= set(seen.ravel().tolist())
        blind = dataclasses.replace(frame, camera_valid=torch.tensor([[True, False, True]]))
        assert not seen_by(objects, blind)[1].any()
    assert found == {False, True}
    assert seen_by(objects.select(np.zeros(len(objects), dtype=bool)), frame).shape == (3, 0)


def test_a_dropped_camera_is_a_missing_one():
    """The frame equals the one that a set without that image gives at inference."""
    frame_set = SOURCE.frame_set("toy-1", 1)
    missing: FrameSet = dataclasses.replace(frame_set, views=(frame_set.views[0], None, frame_set.views[2]))
    expected, dropped = make_frame(missing, CONFIG.image), without_cameras(make_frame(frame_set, CONFIG.image), (1,))
    for f in dataclasses.fields(expected):
        assert torch.equal(getattr(expected, f.name), getattr(dropped, f.name)), f.name


def test_how_many_fail_and_how_often():
    config = TrainConfig(camera_dropout=0.4, max_dropped_cameras=2)
    draws = [draw_augmentation(config, [7, i], 6).dropped for i in range(2000)]
    assert draws == [draw_augmentation(config, [7, i], 6).dropped for i in range(2000)]
    counts = np.bincount([len(d) for d in draws], minlength=3) / len(draws)
    np.testing.assert_allclose(counts, [0.6, 0.2, 0.2], atol=0.03)
    cameras = np.bincount(np.concatenate(draws).astype(int), minlength=6)
    np.testing.assert_allclose(cameras / cameras.sum(), np.full(6, 1 / 6), atol=0.03)
    assert all(len(set(d)) == len(d) for d in draws)
    most = TrainConfig(camera_dropout=1.0, max_dropped_cameras=9)
    assert max(len(draw_augmentation(most, [i], 3).dropped) for i in range(50)) == 2  # one always stays
    assert draw_augmentation(TrainConfig(camera_dropout=1.0, max_dropped_cameras=0), [0], 6).dropped == ()
    # Whether cameras fail changes nothing else that is drawn.
    plain, failing = (draw_augmentation(TrainConfig(flip=0.5, camera_dropout=p), [3], 6) for p in (0.0, 1.0))
    assert failing.dropped and dataclasses.replace(failing, dropped=()) == plain


def _objects(where: dict[str, tuple[float, float]], frame) -> ObjectSet:
    """Small boxes at model coordinates x, y, at the height of the cameras."""
    centers = np.array([(*xy, -0.3) for xy in where.values()]).reshape(-1, 3)
    count = len(where)
    return ObjectSet(
        **dict(t_ns=0, ids=tuple(where), labels=("car",) * count, scores=np.ones(count)),
        centers=geometry.transform_points(frame.global_from_model[0].numpy(), centers),
        sizes=np.full((count, 3), 0.2),
        rotations=geometry.quaternion_from_yaw(np.zeros(count)),
        velocities=np.zeros((count, 2)),
        num_points=np.ones(count, dtype=np.int64),
    )


def test_only_what_the_clip_has_shown_is_taught():
    """Camera A looks ahead, B to the left rear, C to the right rear; B fails."""
    frame = make_frame(SOURCE.frame_set("toy-0", 0), CONFIG.image)
    ahead, left, gap = (0.0, 12.0), (-10.0, -6.0), (-9.0, 5.5)
    seen = seen_by(_objects({"a": ahead, "l": left, "g": gap}, frame), frame)
    assert seen.tolist() == [[True, False, False], [False, True, False], [False, False, False]]
    clip = [
        {"stays": ahead, "goes": ahead, "hidden": left, "nowhere": gap},
        {"stays": ahead, "goes": left, "hidden": left, "nowhere": gap, "comes": left},
        {"goes": left, "hidden": left, "nowhere": left, "comes": ahead},
    ]
    taught = shown_objects([_objects(where, frame) for where in clip], [frame] * 3, (1,))
    assert [t.ids for t in taught] == [
        ("stays", "goes", "nowhere"),
        ("stays", "goes", "nowhere"),
        ("goes", "nowhere", "comes"),
    ]


def test_a_clip_with_failing_cameras():
    """Frames are masked alike, targets lose objects that only those cameras show; another clip, others fail."""
    config = toy_config(camera_dropout=1.0, max_dropped_cameras=2)
    plain, dropping = ClipDataset(SOURCE, toy_config()), ClipDataset(SOURCE, config)
    fewer, kept_all, gone = 0, 0, set()
    for number in range(16):
        before, after = plain[number], dropping[number]
        assert before.names == after.names
        valid = {tuple(frame.camera_valid[0].tolist()) for frame in after.frames}
        assert len(valid) == 1
        gone |= valid
        for frame, whole, taught, all_of_them in zip(
            after.frames, before.frames, after.targets, before.targets, strict=True
        ):
            there = frame.camera_valid[0]
            assert torch.equal(frame.images[:, there], whole.images[:, there]) and not frame.images[:, ~there].any()
            assert taught.valid.any()
            boxes = {tuple(box) for box in all_of_them.box[0].tolist()}
            assert {tuple(box) for box in taught.box[0].tolist()} <= boxes
            fewer += taught.valid.sum() < all_of_them.valid.sum()
            kept_all += taught.valid.sum() == all_of_them.valid.sum()
    assert fewer and kept_all and len(gone) > 3


@pytest.mark.parametrize(
    "values, says", [({"camera_dropout": 1.5}, "train.camera_dropout"), ({"max_dropped_cameras": -1}, "max_dropped")]
)
def test_impossible_values(values, says):
    with pytest.raises(InputError, match=says):
        check_config(SynclConfig(train=TrainConfig(**values)))
