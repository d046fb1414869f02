"""Rows that find the same object: which of them live, against loops, for each tracker; off by default."""

import math

import pytest
import torch
from tiny_mutr3d import tiny_mutr3d
from tiny_stream import stream_drive, tiny_stream
from tiny_tracker import drive, tiny_tracker
from train_fixture import ToySource, toy_config

from syncl_core.config import TrackConfig, with_values
from syncl_core.data.clips import ClipDataset
from syncl_core.errors import InputError
from syncl_core.losses.criterion import Criterion
from syncl_core.models.box_code import code_center, code_log_size
from syncl_core.models.duplicates import duplicates, reach
from syncl_core.tracking.base import Decision, assigned
from syncl_core.tracking.build import build_tracker
from syncl_core.tracking.duplicates import without_duplicates
from syncl_core.training import clip_model

TRACKERS = {
    "pf_track": (lambda **track: tiny_tracker(3, born=0.6, slots=20, **track), drive),
    "mutr3d": (lambda **track: tiny_mutr3d(3, born=0.6, slots=20, **track), drive),
    "stream_petr": (lambda **track: tiny_stream("mutr3d", 5, born=0.6, slots=20, **track), stream_drive),
}


def _slowly(place, reach, priority, counts) -> list[bool]:
    """One scene, row by row."""
    result = []
    for m in range(len(place)):
        beaten = False
        for k in range(len(place)):
            first = priority[k] > priority[m] or (priority[k] == priority[m] and k < m)
            away = math.hypot(*(place[k] - place[m]).tolist())
            beaten |= first and bool(counts[k]) and away < min(reach[k], reach[m]).item()
        result.append(beaten)
    return result


@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_near_rows_is_none(seed):
    """Random rows with equal priorities, rows in one place, rows that do not count, and one that is NaN."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(2, 40, 2, generator=generator, dtype=torch.float64) * 12
    place[:, 5], place[:, 7, 0] = place[:, 6], math.nan
    sizes = torch.rand(2, 40, generator=generator, dtype=torch.float64) * 2
    priority = torch.randint(0, 6, (2, 40), generator=generator).double()
    counts = torch.rand(2, 40, generator=generator) < 0.8
    for who in (counts, None):
        ours = duplicates(place, sizes, priority, who)
        everyone = torch.ones_like(counts)
        for b in range(2):
            assert ours[b].tolist() == _slowly(place[b], sizes[b], priority[b], (everyone if who is None else who)[b])
        assert ours.any() and not ours.all()
    assert not duplicates(place, sizes, priority)[:, 7].any()


def test_a_reach_is_half_a_box_and_more():
    code = torch.zeros(1, 1, 10)
    code[..., 2:4] = torch.tensor([2.0, 4.5]).log()  # 9 square metres of ground
    assert reach(code, 0.5).item() == pytest.approx(2.0)


def test_sure_tracks_come_first_weak_ones_do_not():
    """One place: a new row with 0.9; in the first scene beside a sure track, in the second beside a weak one."""
    keep = torch.ones(2, 2, dtype=torch.bool)
    decision = Decision(keep=keep, seen=keep, misses=torch.zeros(2, 2, dtype=torch.int64))
    score, sure = torch.tensor([[0.9, 0.5], [0.9, 0.2]]), torch.tensor([[False, True], [False, False]])
    ours = without_duplicates(decision, torch.zeros(2, 2, 10), score, sure, 0.5)
    assert ours.keep.tolist() == [[False, True], [True, False]]
    assert without_duplicates(decision, torch.zeros(2, 2, 10), score, sure, 0.0) is decision


@pytest.mark.parametrize("kind", TRACKERS)
@torch.inference_mode()
def test_a_tracker_keeps_one_row_for_a_place(kind):
    """Against the tracker without the option, frame by frame from the same state; older tracks take part."""
    make, frames = TRACKERS[kind]
    plain, tracker = make(), make(duplicate_distance=12.0)
    assert plain.config.track.duplicate_distance == 0
    state, gone, old = tracker.init_state(), 0, 0
    for frame in frames(5):
        observation = tracker.observe(state, frame)
        free, ours = plain.judge(observation), tracker.judge(observation)
        box, priority = _what_counts(tracker, observation, free.seen)
        size = code_log_size(box)[..., :2].mean(dim=-1).exp() / 2 + 12.0
        again = _slowly(code_center(box)[0, :, :2], size[0], priority[0], free.keep[0])
        assert ours.keep[0].tolist() == [k and not d for k, d in zip(free.keep[0].tolist(), again, strict=True)]
        gone += int((free.keep & ~ours.keep).sum())
        old += int((ours.keep & (observation.track_id >= 0)).sum())
        state = tracker.commit(observation, ours)
    assert gone >= 5 and old >= 5, (gone, old)


def _what_counts(tracker, observation, seen) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and priorities of the rows. What PF-Track has not seen coasts in its old box, without a score."""
    alive = observation.track_id >= 0
    if observation.refined is None:
        score = observation.head.logits[-1].sigmoid().amax(dim=-1)
        return observation.head.box[-1], score + (alive & (score >= tracker.config.track.filter_threshold))
    box, score = observation.refined.box, observation.refined.logits.sigmoid().amax(dim=-1)
    before = torch.cat(
        [torch.zeros_like(box[:, : box.shape[1] - observation.state.box.shape[1]]), observation.state.box], 1
    )
    return torch.where(seen[..., None], box, before), score * seen + (alive & seen)


def test_wrong_tracks_of_training_are_none_that_would_end_as_duplicates(monkeypatch):
    """Fewer rows are offered as false tracks than without the option; rows with an object stay among them."""
    offered = []

    def spy(identity, score, valid, drop, false):
        offered.append((identity, valid))
        return assigned(identity)

    monkeypatch.setattr(clip_model, "disturbed", spy)
    for distance in (0.0, 10.0):
        config = with_values(toy_config(clip_length=2), {"track": {"duplicate_distance": distance}})
        clip = ClipDataset(ToySource(), config, augment=False)[1]
        model = clip_model.ClipModel(build_tracker(config), Criterion(config))
        model(clip.frames, clip.targets)
    (owner, everyone), (same, few) = offered[0], offered[2]
    assert torch.equal(owner, same) and (few & (owner >= 0)).any()
    assert not (few & ~everyone).any() and few.sum() < everyone.sum()


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_distance_is_checked(value):
    with pytest.raises(InputError, match="^track.duplicate_distance: must be zero or more metres"):
        with_values(toy_config(), {"track": {"duplicate_distance": value}})
    assert TrackConfig().duplicate_distance == 0
