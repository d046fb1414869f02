"""Detectors decide on the rows they observe, like trackers do, and can be told whose rows they are."""

import dataclasses

import pytest
import torch
from tiny_petrv2 import tiny_petrv2
from tiny_stream import stream_drive, tiny_stream
from tiny_tracker import drive, shake, tiny_config

from syncl_core.tracking.base import assigned
from syncl_core.tracking.build import build_tracker


def _petr():
    config = tiny_config(slots=20)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, framework="none"))
    return shake(build_tracker(config), 0)


DETECTORS = {
    "petr": (_petr, drive),
    "petrv2": (lambda: tiny_petrv2(4, framework="none"), drive),
    "stream_petr": (lambda: tiny_stream("none", 5), stream_drive),
}


@pytest.mark.parametrize("kind", DETECTORS)
@torch.inference_mode()
def test_rows_of_a_decision_are_those_observed_and_may_be_assigned(kind):
    make, frames = DETECTORS[kind]
    detector, (first, second) = make(), frames(2)
    seen = detector.observe(detector.init_state(), first)
    judged = detector.judge(seen)
    assert judged.keep.shape == judged.seen.shape == judged.misses.shape == seen.track_id.shape == seen.valid.shape
    identity = torch.full_like(seen.track_id, -1)
    identity[0, [1, 4, 6]] = torch.tensor([7, 3, 5])
    state = detector.commit(seen, assigned(identity))
    slots = getattr(state, "slots", state)
    rows = torch.nonzero(slots.track_id[0] >= 0).flatten()
    assert slots.track_id[0, rows].tolist() == [7, 3, 5]
    assert torch.equal(slots.box[0, rows], seen.head.box[-1, 0, [1, 4, 6]])
    told, by_score = detector.observe(state, second), detector.observe(detector.commit(seen, judged), second)
    assert (told.track_id == -1).all()
    assert torch.equal(told.head.logits, by_score.head.logits)  # no box knows an earlier one
    again = detector.commit(told, detector.judge(told))
    assert (getattr(again, "slots", again).track_id >= 0).any() == bool(detector.judge(told).keep.any())
