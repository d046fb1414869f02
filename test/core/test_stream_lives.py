"""Births, misses and deaths of StreamPETR's tracks, and what enters the queue: scores by script, the rest is real."""

import dataclasses

import pytest
import torch
from tiny_stream import stream_drive, tiny_stream


def _scripted(tracker, state, frame, scores: dict[int, tuple[float, int]]):
    """A step in which row i gets the score and label scores[i], every other row a low score."""
    observation = tracker.observe(state, frame)
    logits = torch.full_like(observation.head.logits, -6.0)
    for row, (score, label) in scores.items():
        logits[-1, 0, row, label] = torch.tensor(score).logit()
    observation = dataclasses.replace(observation, head=dataclasses.replace(observation.head, logits=logits))
    return observation, tracker.commit(observation, tracker.judge(observation))


@torch.inference_mode()
def test_tracks_are_born_keep_their_identity_and_die():
    """Thresholds 0.4 and 0.35, three misses in a row; rows 0 to 11 are object queries, 12 to 17 slots."""
    tracker = tiny_stream("mutr3d", 5, max_age=3)
    state = tracker.init_state()
    script = [
        ({2: (0.5, 0), 5: (0.6, 3), 8: (0.39, 0), 9: (0.9, 8)}, {0: 0, 1: 0}),  # 8 is unsure, 9 is no tracked class
        ({0: (0.7, 1), "0": (0.38, 0), "1": (0.1, 3)}, {0: 0, 1: 1, 2: 0}),  # between the thresholds nothing changes
        ({"0": (0.2, 0), "1": (0.1, 3), "2": (0.5, 1)}, {0: 1, 1: 2, 2: 0}),
        ({"0": (0.9, 2), "1": (0.2, 3), "2": (0.9, 9)}, {0: 0}),  # forgiven; the third miss; another class
        ({4: (0.5, 3), "0": (0.6, 2)}, {0: 0, 3: 0}),  # a new identity, never an old one
    ]
    for frame, (scores, expected) in zip(stream_drive(5), script, strict=True):
        slots = state.slots.track_id[0].tolist()
        rows = {12 + slots.index(int(row)) if isinstance(row, str) else row: value for row, value in scores.items()}
        observation, state = _scripted(tracker, state, frame, rows)
        ids, misses = state.slots.track_id[0].tolist(), state.slots.misses[0].tolist()
        assert {i: m for i, m in zip(ids, misses, strict=True) if i >= 0} == expected
        shown = tracker.read(state)
        for row, (score, _) in rows.items():
            identity = observation.track_id[0, row].item()
            if identity in expected:  # a living track took what its own row said
                slot = ids.index(identity)
                assert torch.equal(state.slots.box[0, slot], observation.head.box[-1, 0, row])
                assert torch.equal(state.slots.entry.feature[0, slot], observation.head.features[-1, 0, row])
                assert shown.valid[0, slot].item() == (score > 0.35) and shown.score[0, slot].item() == pytest.approx(
                    score
                )
        assert (shown.track_id[shown.valid] >= 0).all()
    assert state.next_id.item() == 4


@torch.inference_mode()
def test_more_births_than_slots_keep_the_best():
    tracker = tiny_stream("mutr3d", 5, slots=3)
    rows = {row: (0.5 + 0.03 * row, 0) for row in range(8)}
    _, state = _scripted(tracker, tracker.init_state(), stream_drive(1)[0], rows)
    assert state.dropped.item() == 5 and state.slots.track_id[0].tolist() == [0, 1, 2]
    assert state.slots.score[0].tolist() == pytest.approx([0.65, 0.68, 0.71])


@torch.inference_mode()
def test_the_queue_takes_the_best_rows_and_forgets_the_oldest():
    """Five enter, whether they are tracks or not, none from free slots; 14 are kept."""
    tracker = tiny_stream("mutr3d", 5)
    state, newest = tracker.init_state(), []
    for i, frame in enumerate(stream_drive(5)):
        rows = {1: (0.3, 0), 3: (0.9, 9), 6: (0.8, 0), 7: (0.2, 1), 10: (0.7, 2)}
        observation, state = _scripted(tracker, state, frame, rows)
        expected = observation.head.features[-1, 0, [3, 6, 10, 1, 7]]
        newest = [expected, *newest][:3]
        pushed = torch.cat(newest)[:14]
        assert torch.equal(state.queue.feature[0, : len(pushed)], pushed)
        if i == 0:
            assert not state.queue.feature[0, 5:].any()
            assert torch.equal(state.queue.center[0, 5:9], tracker.pts_bbox_head.pseudo_centers())
