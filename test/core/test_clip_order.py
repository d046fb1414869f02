"""Sources that can save work: the same clips, in an order that keeps a scene's clips together, for less."""

import numpy as np
import pytest
import torch
from torch.utils import _pytree
from train_fixture import toy_config

from syncl_core.config import SynclConfig, with_values
from syncl_core.data.clips import ClipDataset, epoch_order
from syncl_core.world import generate, sense
from syncl_core.world.source import WorldSource

CAMERAS = SynclConfig().rig.cameras[:2]
KEY_FRAMES, SCENES, TOGETHER = 4, 5, 2


class Plain:
    """A source with nothing but what every source has."""

    def __init__(self, source):
        self._source, self.scene_names = source, source.scene_names
        self.num_key_frames, self.frame_set, self.ground_truth = (
            *(source.num_key_frames, source.frame_set),
            source.ground_truth,
        )


def _source() -> WorldSource:
    return WorldSource(
        **dict(cameras=CAMERAS, image_width=64, num_key_frames=KEY_FRAMES, num_scenes=SCENES, kept_scenes=TOGETHER)
    )


def _config(**train) -> SynclConfig:
    return with_values(toy_config(**train), {"rig": {"cameras": list(CAMERAS)}, "sync": {"min_cameras": 2}})


@pytest.mark.parametrize("together, ends", [(0, [3, 7, 9]), (2, [3, 7, 9, 14, 15]), (3, [4, 8]), (1, [2, 5, 6])])
def test_every_clip_once_and_few_scenes_at_a_time(together, ends):
    starts = [0, *ends[:-1]]
    scene_of = np.repeat(np.arange(len(ends)), np.diff([0, *ends]))
    orders = [epoch_order(np.random.default_rng(seed), np.array(ends), together) for seed in range(40)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(ends[-1]))
        opened, place = [], 0
        while together and place < len(order):
            group = list(dict.fromkeys(scene_of[order[place:]].tolist()))[:together]
            size = sum(ends[s] - starts[s] for s in group)
            members = set(scene_of[order[place : place + size]].tolist())
            assert len(members) == min(together, len(ends) - len(opened)) and not members & set(opened)
            opened, place = opened + sorted(members), place + size
    assert len({tuple(order) for order in orders}) > 30 or together == 1
    assert len({tuple(order) for order in orders}) > 5
    repeated = epoch_order(np.random.default_rng(0), np.array(ends), together)
    np.testing.assert_array_equal(orders[0], repeated)
    if not together:  # as it always was
        np.testing.assert_array_equal(repeated, np.random.default_rng(0).permutation(ends[-1]))


def test_a_scene_is_made_once_per_epoch_and_rays_are_cast_for_the_clip_only(monkeypatch):
    made, cast = [], []
    make_scene, lidar_points = generate.make_scene, sense.lidar_points
    monkeypatch.setattr(generate, "make_scene", lambda seed: made.append(seed) or make_scene(seed))
    monkeypatch.setattr(sense, "lidar_points", lambda *a: cast.append(1) or lidar_points(*a))
    dataset = ClipDataset(_source(), _config(clip_length=2))
    names, seen = [], set()
    for number in range(len(dataset)):
        before = len(cast)
        names.append(dataset[number].names[0])
        scene, rows = names[-1].split(" key frames ")
        first, last = map(int, rows.split(" to "))
        new = {(scene, row) for row in range(first, last + 1)} - seen
        assert len(cast) - before == len(new)  # and none for what only says where objects go next
        seen |= new
    assert len(set(names)) == SCENES * KEY_FRAMES and len(made) == SCENES == len(set(made))


def test_saving_work_changes_no_clip():
    source, config = _source(), _config(clip_length=3, resize=(0.9, 1.1), camera_dropout=0.5)
    saving, plain = ClipDataset(source, config), ClipDataset(Plain(source), config)
    motion = 0
    for index in (0, 2, 3, 9):
        ours, theirs = (dataset._clip(index, index) for dataset in (saving, plain))
        pairs = zip(*(_pytree.tree_leaves((c.frames, c.targets)) for c in (ours, theirs)), strict=True)
        assert ours.names == theirs.names and all(torch.equal(a, b) for a, b in pairs)
        motion += int(ours.targets[0].motion_valid.sum())
    assert motion > 0


def test_future_objects_are_the_truth_without_points():
    source = _source()
    for index in range(KEY_FRAMES):
        truth, light = (f(source.scene_names[0], index) for f in (source.ground_truth, source.future_objects))
        assert light.num_points is None and truth.num_points.sum() > 0
        assert (light.ids, light.labels, light.t_ns) == (truth.ids, truth.labels, truth.t_ns)
        for name in ("centers", "sizes", "rotations", "velocities"):
            np.testing.assert_array_equal(getattr(light, name), getattr(truth, name))
