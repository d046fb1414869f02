"""Accidents of tracks in training: how many, which rows, and what the losses make of them."""

import math

import numpy as np
import pytest
import torch
from train_fixture import ToySource, toy_config

from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.errors import InputError
from syncl_core.losses.criterion import Criterion
from syncl_core.models.box_code import code_center
from syncl_core.tensors import Targets
from syncl_core.tracking.base import assigned
from syncl_core.tracking.build import build_tracker
from syncl_core.training.clip_model import ClipModel, total_loss
from syncl_core.training.track_noise import NOBODY, disturbed, within_reach


def _rows(scenes: int = 2, rows: int = 400, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    identity = torch.randint(-1, 200, (scenes, rows), generator=generator)
    identity[torch.rand(scenes, rows, generator=generator) < 0.7] = -1
    return identity, torch.rand(scenes, rows, generator=generator), torch.rand(scenes, rows, generator=generator) < 0.9


def test_without_accidents_the_ground_truth_decides():
    identity, score, valid = _rows()
    ours, plain = disturbed(identity, score, valid, 0.0, 0.0), assigned(identity)
    assert torch.equal(ours.keep, plain.keep) and torch.equal(ours.identity, plain.identity)


def test_accidents_row_by_row():
    """Kept rows keep their identity; false ones are the best of those without an object; all draws are replayed."""
    identity, score, valid = _rows()
    torch.manual_seed(3)
    decision = disturbed(identity, score, valid, 0.3, 0.5)
    torch.manual_seed(3)
    lost, joined = torch.rand(identity.shape) < 0.3, torch.rand(identity.shape) < 0.5
    for b in range(len(identity)):
        stays = [m for m in range(identity.shape[1]) if identity[b, m] >= 0 and not lost[b, m]]
        false = sum(bool(joined[b, m]) for m in stays)
        free = [m for m in range(identity.shape[1]) if identity[b, m] < 0 and valid[b, m]]
        wrong = sorted(free, key=lambda m: -score[b, m])[:false]
        assert stays and wrong and any(lost[b])
        expected = {m: int(identity[b, m]) for m in stays} | {m: NOBODY + m for m in wrong}
        assert {m: int(decision.identity[b, m]) for m in torch.nonzero(decision.keep[b])[:, 0].tolist()} == expected
    assert torch.equal(decision.keep, decision.identity >= 0) and torch.equal(decision.seen, decision.keep)


@pytest.mark.parametrize("model", [{}, {"framework": "mutr3d", "detector": "detr3d"}])
def test_lost_objects_are_new_again_and_false_tracks_are_background(model):
    """All tracks lost: the second frame has no persistent object. Only false ones besides: more tracks than objects."""
    stats = {}
    for name, accidents in {
        "none": {},
        "lost": {"dropped_tracks": 1.0},
        "false": {"false_tracks": 1.0},
    }.items():
        config = with_values(toy_config(clip_length=2), {"model": model, "train": accidents})
        dataset = ClipDataset(ToySource(), config, augment=False)
        clip = collate([dataset[0], dataset[1]])
        torch.manual_seed(0)
        loss = total_loss(ClipModel(build_tracker(config), Criterion(config))(clip.frames, clip.targets))
        assert torch.isfinite(loss.total)
        stats[name] = loss.stats
    assert stats["lost"]["tracks"] == 0 and stats["lost"]["persistent"] == 0
    assert stats["false"]["persistent"] == stats["none"]["persistent"] > 0
    assert stats["false"]["tracks"] > stats["none"]["tracks"]


def test_rows_far_from_their_object_have_lost_it():
    """Row by row, on the ground; who owns nothing still does, and padding holds anything."""
    generator = torch.Generator().manual_seed(1)
    identity, box = torch.randint(-1, 6, (2, 30), generator=generator), torch.rand(2, 30, 10, generator=generator) * 6
    valid = torch.tensor([[True] * 6 + [False] * 2] * 2)
    targets = Targets(
        valid=valid,
        identity=torch.tensor([[0, 1, 2, 3, 4, 5, 5, 0], [5, 4, 3, 2, 1, 0, 7, 7]]),
        label=torch.zeros(2, 8, dtype=torch.int64),
        box=torch.where(valid[..., None], torch.rand(2, 8, 10, generator=generator) * 6, torch.nan),
        motion=torch.zeros(2, 8, 1, 2),
        motion_valid=torch.zeros(2, 8, 1, dtype=torch.bool),
    )
    assert torch.equal(within_reach(identity, box, targets, 0.0), identity)
    expected = identity.clone()
    for b, m in np.ndindex(2, 30):
        if identity[b, m] >= 0:
            (g,) = [g for g in range(6) if targets.identity[b, g] == identity[b, m]]
            dx, dy = (code_center(box[b, m]) - code_center(targets.box[b, g]))[:2].tolist()
            if math.hypot(dx, dy) > 2.5:
                expected[b, m] = -1
    ours = within_reach(identity, box, targets, 2.5)
    assert torch.equal(ours, expected)
    assert (ours != identity).any() and (ours >= 0).any()


def test_tracks_that_are_off_are_lost_in_training():
    """With a reach of a centimetre nothing is followed into the second frame."""
    stats = {}
    for distance in (0.0, 0.01, 1e6):
        config = with_values(toy_config(clip_length=2), {"train": {"lost_distance": distance}})
        clip = ClipDataset(ToySource(), config, augment=False)[1]
        torch.manual_seed(0)
        stats[distance] = total_loss(
            ClipModel(build_tracker(config), Criterion(config))(clip.frames, clip.targets)
        ).stats
    assert stats[0.01]["tracks"] == 0 < stats[0.0]["tracks"] == stats[1e6]["tracks"]


@pytest.mark.parametrize("key", ["dropped_tracks", "false_tracks"])
def test_shares_are_checked(key):
    with pytest.raises(InputError, match=rf"^train.{key}: must be within 0 and 1"):
        with_values(toy_config(), {"train": {key: 1.5}})


@pytest.mark.parametrize("accident", [{"lost_distance": 4.0}, {"false_tracks": 0.4}])
def test_a_detector_alone_takes_accidents_too(accident):
    """It has rows for queries alone, no track slots."""
    changed = {"model": {"framework": "none"}, "track": {"duplicate_distance": 0.5}, "train": accident}
    config = with_values(toy_config(), changed)
    model = ClipModel(build_tracker(config), Criterion(config))
    batch = collate([ClipDataset(ToySource(), config)[3]])
    assert len(batch.frames) > 1
    assert torch.isfinite(total_loss(model(batch.frames, batch.targets)).total)
