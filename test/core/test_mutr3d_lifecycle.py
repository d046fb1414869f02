"""MUTR3D's life cycle, slots and motion alone: against loops, at the thresholds, and far from the global origin."""

import dataclasses
import math

import pytest
import torch
from slow_mutr3d import SlowMUTR3D
from tiny_mutr3d import mutr3d_config, tiny_mutr3d
from tiny_tracker import drive, make_frame, pose

from syncl_core.config import TrackConfig
from syncl_core.models.box_code import encode_boxes
from syncl_core.tracking.mutr3d import lifecycle, motion
from syncl_core.tracking.mutr3d.state import init_state, propagate
from syncl_core.tracking.slots import best_rows, give_identities

CONFIG = TrackConfig(score_threshold=0.4, filter_threshold=0.35, max_age=5)


def _judge_slowly(identity: int, misses: int, score: float, label: int, new: bool, classes: int):
    """(kept, misses) of one row."""
    if identity < 0:
        return new and score >= 0.4 and label < classes, 0
    if score >= 0.4:
        misses = 0
    elif score < 0.35:
        misses += 1
    alive = not (score < 0.35 and misses >= 5)
    return alive and (label < classes or score < 0.35), misses


@pytest.mark.parametrize("seed", range(4))
def test_judgement_equals_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = (3, 50)
    track_id = torch.randint(-1, 2, rows, generator=generator)
    misses = torch.randint(0, 5, rows, generator=generator) * (track_id >= 0)
    score = torch.tensor([0.0, 0.2, 0.35, 0.37, 0.4, 0.9])[torch.randint(0, 6, rows, generator=generator)]
    label = torch.randint(0, 10, rows, generator=generator)
    new = (track_id < 0) & (torch.rand(rows, generator=generator) < 0.7)
    decision = lifecycle.judge(
        track_id, misses, score, label, torch.zeros(*rows, 10), new, CONFIG, num_tracking_classes=7
    )
    for b in range(3):
        for m in range(50):
            row = (track_id[b, m].item(), misses[b, m].item(), round(score[b, m].item(), 6), label[b, m].item())
            kept, missed = _judge_slowly(*row, new[b, m].item(), 7)
            assert (decision.keep[b, m].item(), decision.misses[b, m].item()) == (kept, missed), row
    assert torch.equal(decision.seen, (track_id >= 0) | new)
    assert decision.identity is None


def _life(scores: list[float]) -> list[tuple[bool, int]]:
    """What a row with these scores, frame by frame, becomes: (kept, misses)."""
    identity, misses, result = torch.tensor([[-1]]), torch.tensor([[0]]), []
    for i, score in enumerate(scores):
        new, label = torch.tensor([[i == 0]]), torch.tensor([[0]])
        row = (identity, misses, torch.tensor([[score]]), label, torch.zeros(1, 1, 10), new)
        decision = lifecycle.judge(*row, CONFIG, 7)
        identity, misses = torch.where(decision.keep, 3, -1), decision.misses
        result.append((decision.keep.item(), misses.item()))
    return result


def test_five_weak_frames_kill_and_the_thresholds_belong_to_the_living():
    assert _life([0.39]) == [(False, 0)] and _life([0.4]) == [(True, 0)]
    weak = [0.5, 0.3, 0.3, 0.3, 0.3]
    assert _life([*weak, 0.3])[-2:] == [(True, 4), (False, 5)]
    assert _life([*weak, 0.35, 0.3])[-2:] == [(True, 4), (False, 5)]  # in between, nothing is counted or forgiven
    assert _life([*weak, 0.4, 0.3])[-2:] == [(True, 0), (True, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_slots_take_the_best_in_order_and_identities_stay_dense(seed):
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(2, 20, generator=generator) < 0.7
    score = torch.rand(2, 20, generator=generator)
    index = best_rows(keep, score, 6)
    track_id = torch.where(torch.arange(20) >= 12, torch.arange(20) + 100, -1).expand(2, -1)
    ids, next_id = give_identities(track_id.gather(1, index), keep.gather(1, index), torch.tensor([5, 9]))
    for b, first in enumerate((5, 9)):
        rows = sorted(range(20), key=lambda m: -score[b, m].item() if keep[b, m] else 1.0)[:6]
        expected, count = [], first
        for m in sorted(rows):
            expected.append(count if m < 12 else 100 + m)
            count += m < 12
        assert ids[b].tolist() == expected and next_id[b] == count


def test_too_few_rows_leave_slots_free():
    keep = torch.tensor([[False, True, False, False]])
    index = best_rows(keep, torch.tensor([[0.9, 0.1, 0.8, 0.7]]), 3)
    ids, next_id = give_identities(torch.full((1, 3), -1), keep.gather(1, index), torch.tensor([0]))
    assert sorted(ids[0].tolist()) == [-1, -1, 0] and next_id.tolist() == [1]
    assert ids[0, index[0].tolist().index(1)] == 0


def _state_of(center, yaw: float, velocity, t_ns: int, global_from_model):
    state = init_state(mutr3d_config(slots=2))
    box = encode_boxes(torch.tensor(center), torch.tensor([4.0, 2.0, 1.5]), torch.tensor(yaw), torch.tensor(velocity))
    return dataclasses.replace(
        state,
        reference=torch.tensor(center).expand(1, 2, 3),
        box=box.expand(1, 2, 10),
        track_id=torch.tensor([[0, 1]]),
        t_ns=torch.tensor([t_ns]),
        global_from_model=global_from_model[None],
    )


def test_a_track_keeps_its_course_in_the_world():
    """5 m/s along its heading, 0.7 s, while the vehicle drives on and turns."""
    before, after = pose(3.0, -2.0, 0.4), pose(9.0, 1.0, 1.5)
    state = _state_of((10.0, 4.0, -1.0), 0.3, (5 * math.cos(0.3), 5 * math.sin(0.3)), 1_000_000_000, before)
    frame = make_frame(0, 1_700_000_000, after)
    moved = propagate(state, frame)
    ahead = torch.tensor([10 + 3.5 * math.cos(0.3), 4 + 3.5 * math.sin(0.3), -1.0, 1.0], dtype=torch.float64)
    expected = torch.linalg.inv(after) @ before @ ahead
    torch.testing.assert_close(moved.reference[0, 1].double(), expected[:3], atol=1e-5, rtol=0)
    assert (moved.t_ns.item(), torch.equal(moved.global_from_model[0], after)) == (1_700_000_000, True)


def test_nothing_moves_before_the_first_frame_or_back_in_time():
    state = _state_of((10.0, 4.0, -1.0), 0.0, (5.0, 0.0), -1, pose())
    first = propagate(state, make_frame(0, 10**9, pose(50.0, 0.0, 1.0)))
    torch.testing.assert_close(first.reference, state.reference)
    late = dataclasses.replace(state, t_ns=torch.tensor([2 * 10**9]))
    torch.testing.assert_close(propagate(late, make_frame(0, 10**9)).reference, state.reference)


def test_scenes_of_a_batch_move_by_their_own_clock():
    old, new = torch.tensor([-1, 0, 10**18]), torch.tensor([5 * 10**8, 5 * 10**8, 10**18 + 123_456_789])
    torch.testing.assert_close(motion.elapsed_seconds(old, new), torch.tensor([0.0, 0.5, 0.123456789]))
    poses = torch.stack([pose(yaw=0.3), pose(yaw=0.3), pose(5.0, yaw=-0.2)])
    transform = motion.new_from_old(poses, poses.roll(1, dims=0), old)
    assert torch.equal(transform[0], torch.eye(4, dtype=torch.float64))
    for b in (1, 2):
        expected = torch.linalg.inv(poses.roll(1, dims=0)[b]) @ poses[b]
        torch.testing.assert_close(transform[b], expected, atol=1e-9, rtol=0)


@torch.inference_mode()
def test_a_centre_at_the_range_s_border_is_remembered_just_inside():
    """A centre is kept as a logit, which cannot name the last 1e-5 of the range; the box may lie on the border."""
    tracker = tiny_mutr3d(0)
    tracker.pts_bbox_head.reg_branches[-1][-1].bias[0] += 30.0
    tracker.pts_bbox_head.reg_branches[-1][-1].bias[1] -= 30.0
    twin, state = SlowMUTR3D(tracker.config, tracker.state_dict(), tracker.img_backbone), tracker.init_state()
    followed = 0
    for frame in drive(4, start=1):
        scene = (frame.images[0], frame.image_from_model[0], frame.camera_valid[0], frame.global_from_model[0])
        twin.step(*scene, int(frame.t_ns))
        state, _ = tracker.step(state, frame)
        for row in twin.tracks:
            slot = state.track_id[0].tolist().index(row["id"])
            inside = torch.tensor([51.2 - 102.4e-5, -51.2 + 102.4e-5])
            torch.testing.assert_close(state.reference[0, slot, :2], inside, atol=2e-5, rtol=0)
            torch.testing.assert_close(state.box[0, slot, :2], torch.tensor([51.2, -51.2]), atol=2e-5, rtol=0)
            torch.testing.assert_close(state.reference[0, slot].double(), row["reference"], atol=5e-5, rtol=0)
            followed += row["age"] > 0
    assert followed >= 3
