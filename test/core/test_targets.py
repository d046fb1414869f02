"""Targets against their definition, computed slowly in float64 and plain loops."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from train_fixture import OBJECTS, SIZES, ToySource, toy_config

from syncl_core import geometry
from syncl_core.data.targets import clip_targets, trainable
from syncl_core.models.box_code import code_yaw
from syncl_core.tensors import pad_targets

SOURCE, CONFIG = ToySource(key_frames=5), toy_config()


def _pose(scene: str, index: int) -> np.ndarray:
    frame_set = SOURCE.frame_set(scene, index)
    return frame_set.global_from_base @ frame_set.base_from_model


def _clip(rows, end: int = 5):
    present = [SOURCE.ground_truth("toy-0", row) for row in rows]
    following = [[SOURCE.ground_truth("toy-0", ahead) for ahead in range(row + 1, end)] for row in rows]
    return clip_targets(present, following, np.stack([_pose("toy-0", row) for row in rows]), CONFIG)


def _slow_box(name: str, index: int) -> list[float]:
    label, _, velocity, _, _ = OBJECTS[name]
    truth = SOURCE.ground_truth("toy-0", index)
    center = truth.centers[truth.ids.index(name)]
    model_from_global = np.linalg.inv(_pose("toy-0", index))
    x, y, z = [sum(model_from_global[i][j] * (*center, 1.0)[j] for j in range(4)) for i in range(3)]
    heading = math.atan2(velocity[1], velocity[0])
    ahead = [sum(model_from_global[i][j] * (math.cos(heading), math.sin(heading))[j] for j in range(2)) for i in (0, 1)]
    angle = -math.atan2(ahead[1], ahead[0]) - math.pi / 2
    speed = [sum(model_from_global[i][j] * velocity[j] for j in range(2)) for i in (0, 1)]
    length, width, height = SIZES[label]
    sizes = [math.log(width), math.log(length)], math.log(height)
    return [x, y, *sizes[0], z, sizes[1], math.sin(angle), math.cos(angle), *speed]


def test_boxes_equal_the_slow_ones_and_identities_stay():
    frames = _clip([0, 1, 2])
    names = ["car", "walker", "leaves", "late"]  # in order of appearance; `hidden` has no points, `far` is out of range
    expected = [["car", "walker", "leaves"], ["car", "walker", "leaves", "late"], ["car", "walker", "late"]]
    for index, (targets, present) in enumerate(zip(frames, expected, strict=True)):
        assert targets.valid.all()
        assert targets.identity[0].tolist() == [names.index(name) for name in present]
        assert targets.label[0].tolist() == [CONFIG.classes.index(OBJECTS[name][0]) for name in present]
        slow = torch.tensor([_slow_box(name, index) for name in present], dtype=torch.float64)
        torch.testing.assert_close(targets.box[0].double(), slow, atol=2e-5, rtol=1e-6)


def test_motion_equals_the_slow_one_and_ends_with_the_annotation():
    targets = _clip([1], end=4)[0]  # key frames 2 and 3 follow
    rotation = np.linalg.inv(_pose("toy-0", 1))[:2, :2]
    for row, name in enumerate(["car", "walker", "leaves", "late"]):
        step = rotation @ (0.5 * np.array(OBJECTS[name][2]))
        known = 0 if name == "leaves" else 2  # it is not annotated after key frame 1
        assert targets.motion_valid[0, row].tolist() == [step < known for step in range(4)]
        for step_index in range(4):
            expected = step if step_index < known else np.zeros(2)
            np.testing.assert_allclose(targets.motion[0, row, step_index], expected, atol=1e-6)


def test_motion_is_unknown_over_a_gap_in_time():
    present = SOURCE.ground_truth("toy-0", 0)
    times = {1: 1_000_000_000, 2: 2_000_000_000}
    ahead = [dataclasses.replace(SOURCE.ground_truth("toy-0", i), t_ns=t_ns) for i, t_ns in times.items()]
    targets = clip_targets([present], [ahead], _pose("toy-0", 0)[None], CONFIG)[0]
    car = targets.motion_valid[0, 0]
    assert car.tolist() == [True, False, False, False]  # 0.5 s, then a second


def test_an_unknown_velocity_is_zero_and_everything_else_stays():
    truth = SOURCE.ground_truth("toy-0", 0)
    unknown = dataclasses.replace(truth, velocities=np.full_like(truth.velocities, np.nan))
    known, blind = (clip_targets([t], [[]], _pose("toy-0", 0)[None], CONFIG)[0] for t in (truth, unknown))
    assert (known.box[0, 0, 8:] != 0).all() and (blind.box[0, :, 8:] == 0).all()
    torch.testing.assert_close(known.box[..., :8], blind.box[..., :8])


def test_heading_is_the_model_frames():
    """A box that looks along the model frame's y axis, which is the vehicle's forward, has yaw 90 degrees."""
    truth, pose = SOURCE.ground_truth("toy-0", 0), _pose("toy-0", 0)
    quarter = geometry.matrix_from_quaternion([0.5**0.5, 0, 0, 0.5**0.5])
    forward = geometry.quaternion_from_matrix(pose[:3, :3] @ quarter)
    turned = dataclasses.replace(truth, rotations=np.tile(forward, (len(truth), 1)))
    box = clip_targets([turned], [[]], pose[None], CONFIG)[0].box
    torch.testing.assert_close(code_yaw(box), torch.full_like(box[..., 0], math.pi / 2), atol=1e-6, rtol=0)


def test_who_is_taught():
    truth, pose = SOURCE.ground_truth("toy-0", 1), _pose("toy-0", 1)
    assert trainable(truth, pose, CONFIG).ids == ("car", "walker", "leaves", "late")
    few = dataclasses.replace(CONFIG, classes=("bus", "car"), num_tracking_classes=2)
    assert trainable(truth, pose, few).ids == ("car", "late")
    uncounted = dataclasses.replace(truth, num_points=None)
    assert trainable(uncounted, pose, CONFIG).ids == ("car", "walker", "leaves", "late", "hidden")
    # The range is judged from above: a box on a bridge is taught, one 52 m to the side is not.
    high = dataclasses.replace(truth, centers=truth.centers + [0, 0, 9.0])
    assert len(trainable(high, pose, CONFIG)) == 4
    aside = dataclasses.replace(truth, centers=geometry.transform_points(pose, np.tile([51.3, 0, 0], (len(truth), 1))))
    assert len(trainable(aside, pose, CONFIG)) == 0


def test_padding_adds_rows_that_are_nobody():
    short, long = _clip([0])[0], _clip([1])[0]
    both = pad_targets([short, long])
    assert both.valid.tolist() == [[True] * 3 + [False], [True] * 4]
    assert both.identity[0, 3] == -1
    for name in ("label", "box", "motion", "motion_valid"):
        value = getattr(both, name)
        assert torch.equal(value[0, :3], getattr(short, name)[0]) and torch.equal(value[1], getattr(long, name)[0])
        assert not value[0, 3].any()


@pytest.mark.parametrize("batch", [1, 2])
def test_nobody_at_all_is_one_empty_row(batch):
    nobody = clip_targets([SOURCE.ground_truth("toy-0", 0).select(np.zeros(5, bool))], [[]], np.eye(4)[None], CONFIG)[0]
    padded = pad_targets([nobody] * batch)
    assert padded.box.shape == (batch, 1, 10) and padded.motion.shape == (batch, 1, 4, 2)
    assert not padded.valid.any() and (padded.identity == -1).all()
