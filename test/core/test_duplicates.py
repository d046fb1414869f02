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
from syncl_core.models.duplicates import duplicates
from syncl_core.tracking.base import assigned
from syncl_core.tracking.build import build_tracker
from syncl_core.tracking.duplicates import without_duplicates
from syncl_core.tracking.pf_track import PFTrack
from syncl_core.training import clip_model

TRACKERS = {
    "pf_track": (lambda **track: tiny_tracker(3, born=0.6, slots=20, **track), drive),
    "mutr3d": (lambda **track: tiny_mutr3d(3, born=0.6, slots=20, **track), drive),
    "stream_petr": (lambda **track: tiny_stream("mutr3d", 5, born=0.6, slots=20, **track), stream_drive),
    "stream_petr detector": (lambda **track: tiny_stream("none", 5, born=0.6, slots=20, **track), stream_drive),
}


def _slowly(code, priority, distance, counts) -> list[bool]:
    """One scene, row by row: codes [M, 10], of which this reads centre, width and length."""
    reach = [math.sqrt(math.exp(row[2] + row[3])) / 2 + distance for row in code.tolist()]
    result = []
    for m in range(len(code)):
        beaten = False
        for k in range(len(code)):
            first = priority[k] > priority[m] or (priority[k] == priority[m] and k < m)
            away = math.hypot(*(code[k, :2] - code[m, :2]).tolist())
            beaten |= bool(first) and bool(counts[k]) and away < min(reach[k], reach[m])
        result.append(beaten)
    return result


@pytest.mark.parametrize("seed", range(4))
def test_a_box_beside_a_better_one_is_a_duplicate(seed):
    """Random boxes with equal priorities, boxes in one place, boxes that do not count, and one that is NaN."""
    generator = torch.Generator().manual_seed(seed)
    code = torch.rand(2, 40, 10, generator=generator, dtype=torch.float64)
    code[..., :2] *= 12
    code[:, 5], code[:, 7, 0] = code[:, 6], math.nan
    priority = torch.randint(0, 6, (2, 40), generator=generator).double()
    counts = torch.rand(2, 40, generator=generator) < 0.8
    for who in (counts, None):
        ours = duplicates(code, priority, 0.5, who)
        for b in range(2):
            assert ours[b].tolist() == _slowly(code[b], priority[b], 0.5, [True] * 40 if who is None else who[b])
        assert ours.any() and not ours.all() and not ours[:, 7].any()


def test_a_reach_is_half_a_box_and_the_distance():
    """9 square metres of ground: two metres with half a metre beyond; the smaller of two boxes decides."""
    code = torch.zeros(1, 3, 10)
    code[..., 2:4] = torch.tensor([[2.0, 4.5], [2.0, 4.5], [4.0, 9.0]]).log()
    for away, expected in ((1.99, True), (2.01, False)):
        code[0, 1:, 0] = torch.tensor([away, -away])
        assert duplicates(code, torch.tensor([[3.0, 2.0, 1.0]]), 0.5)[0].tolist() == [False, expected, expected]


def test_sure_tracks_come_first_weak_ones_do_not():
    """One place: a new row with 0.9; in the first scene beside a sure track, in the second beside a weak one."""
    keep, box = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, 10)
    score, sure = torch.tensor([[0.9, 0.5], [0.9, 0.2]]), torch.tensor([[False, True], [False, False]])
    assert without_duplicates(keep, box, score, sure, 0.5).tolist() == [[False, True], [True, False]]
    assert without_duplicates(keep, box, score, sure, 0.0).all()


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
        again = _slowly(box[0], priority[0], 12.0, free.keep[0])
        assert ours.keep[0].tolist() == [k and not d for k, d in zip(free.keep[0].tolist(), again, strict=True)]
        gone += int((free.keep & ~ours.keep).sum())
        old += int((ours.keep & (observation.track_id >= 0)).sum())
        state = tracker.commit(observation, ours)
    assert gone >= 5 and (old >= 5 or kind.endswith("detector")), (gone, old)


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
    """Row by row, of one frame: what lies beside an owner or a better row is not offered as a false track."""
    offered, seen = [], []
    observe = PFTrack.observe

    def spy(identity, score, valid, drop, false):
        offered.append((identity, score.detach(), valid))
        return assigned(identity)

    def watched(*arguments, **options):
        seen.append(observe(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(clip_model, "disturbed", spy)
    monkeypatch.setattr(PFTrack, "observe", watched)
    for distance in (0.0, 10.0):
        config = with_values(toy_config(clip_length=1), {"track": {"duplicate_distance": distance}})
        clip = ClipDataset(ToySource(), config, augment=False)[0]
        clip_model.ClipModel(build_tracker(config), Criterion(config))(clip.frames, clip.targets)
    (owner, score, everyone), (same, _, possible) = offered
    assert torch.equal(owner, same) and (owner >= 0).any() and torch.equal(everyone, seen[0].valid)
    priority = score.float() + (owner >= 0)
    again = _slowly(seen[0].refined.box[0].detach(), priority[0], 10.0, everyone[0])
    assert possible[0].tolist() == [e and not a for e, a in zip(everyone[0].tolist(), again, strict=True)]
    assert not torch.equal(possible, everyone)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_distance_is_checked(value):
    with pytest.raises(InputError, match="^track.duplicate_distance: must be zero or more metres"):
        with_values(toy_config(), {"track": {"duplicate_distance": value}})
    assert TrackConfig().duplicate_distance == 0
