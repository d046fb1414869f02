"""PETRv2 and PF-Track on it against the slow ones (slow_petrv2): modules, memory, all layers, whole sequences."""

import dataclasses

import pytest
import torch
from test_tracking_twin import _assert_same_track, _history
from tiny_petrv2 import moving_rig_drive, tiny_petrv2, twin, without_camera
from tiny_tracker import scene

from syncl_core.models.petrv2 import BoxBranch, FeatureGate
from syncl_core.tracking.build import build_tracker

WIDE = (-500.0, -500.0, -500.0, 500.0, 500.0, 500.0)


@pytest.fixture(scope="module")
def detector():
    """In a range so wide that no coordinate saturates: there the inverse sigmoid magnifies the last digit."""
    narrow = tiny_petrv2(2, framework="none")
    config = dataclasses.replace(narrow.config, model=dataclasses.replace(narrow.config.model, position_range=WIDE))
    tracker = build_tracker(config)
    tracker.load_state_dict(narrow.state_dict())
    return tracker


def _close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours.double(), theirs, atol=tolerance, rtol=tolerance)


@torch.inference_mode()
def test_gate_and_box_branch_equal_the_slow_ones(detector):
    slow, generator = twin(detector), torch.Generator().manual_seed(0)
    maps = torch.randn(5, 16, 2, 3, generator=generator)
    gate: FeatureGate = detector.pts_bbox_head.fpe
    factors = gate(maps)
    assert factors.min() < 0.3 and factors.max() > 0.7
    for n in range(5):
        for r in range(2):
            for c in range(3):
                _close(factors[n, :, r, c], slow.gate(maps[n, :, r, c].double()))
    features, slow.seconds = torch.randn(7, 16, generator=generator), 1.0
    for layer, branch in enumerate(detector.pts_bbox_head.reg_branches):
        assert isinstance(branch, BoxBranch)
        _close(branch(features), slow.raw_boxes(features.double(), layer))


@torch.inference_mode()
def test_memory_equals_the_slow_one(detector):
    """Turning car, cameras that moved, an uneven step, and in each frame another camera missing."""
    slow, past = twin(detector), None
    frames = moving_rig_drive(4)
    for i, missing in enumerate([(), (1,), (0, 2), (1,)]):
        frame = without_camera(frames[i], *missing)
        memory = detector.encode(frame, past)
        slow.carry_over(frame.global_from_model[0], int(frame.t_ns))
        tokens, positions = slow.memory(*scene(frame)[:3])
        valid = memory.valid[0]
        assert valid.sum() == len(tokens) and memory.tokens.shape[1] == 2 * 3 * 2 * 4
        _close(memory.tokens[0, valid], tokens)
        _close(memory.position[0, valid], positions, 2e-5)
        assert memory.seconds.item() == pytest.approx(slow.seconds, abs=1e-6)
        past = memory.kept
    assert slow.seconds != 0.5


@torch.inference_mode()
def test_every_layer_equals_the_slow_one_with_and_without_self_attention(detector):
    slow, state = twin(detector), detector.init_state()
    for i, frame in enumerate(moving_rig_drive(3)):
        frame = without_camera(frame, 2) if i == 1 else frame
        observation = detector.observe(state, frame, all_layers=True, parallel=True)
        state = detector.commit(observation, detector.judge(observation))
        slow.carry_over(frame.global_from_model[0], int(frame.t_ns))
        memory = slow.memory(*scene(frame)[:3])
        for head, parallel in ((observation.head, False), (observation.parallel, True)):
            for layer, (logits, codes) in enumerate(slow.layer_outputs(parallel, *memory)):
                _close(head.logits[layer, 0], logits, 2e-5)
                _close(head.box[layer, 0], codes, 5e-5)  # metres, up to 51
    first, last = observation.head.box[0, 0], observation.head.box[-1, 0]
    assert (first[:, 2:] - last[:, 2:]).abs().max() > 0.05  # heads of their own
    assert last[:, 8:].abs().mean() > 0.05  # velocities that show how they are divided


@pytest.mark.parametrize("ego_update", ["exact", "as_released"])
@torch.inference_mode()
def test_sequence_equals_the_slow_one(ego_update):
    """Births, coasting, comebacks, deaths and drops, with a moving rig and a camera that fails for two frames."""
    tracker = tiny_petrv2(31, born=0.2, ego_update=ego_update, max_age=4)
    slow, state = twin(tracker), tracker.init_state()
    events = {"births": 0, "deaths": 0, "coasting": 0, "comebacks": 0}
    ids_before, seen_before = set(), set()
    for i, frame in enumerate(moving_rig_drive(14)):
        frame = without_camera(frame, 1) if i in (5, 6) else frame
        expected = slow.step(*scene(frame))
        state, tracks = tracker.step(state, frame)
        alive, valid = state.track_id[0] >= 0, tracks.valid[0]
        ids, seen = set(state.track_id[0][alive].tolist()), set(tracks.track_id[0][valid].tolist())
        assert ids == {row["id"] for row in slow.tracks}
        assert seen == {row["id"] for row in expected}
        for name, count in _history(ids_before, ids, seen_before, seen).items():
            events[name] += count
        ids_before, seen_before = ids, seen
        for row in slow.tracks:
            _assert_same_track(state, row, compare_motion=ego_update == "as_released")
    assert (state.dropped.item(), state.next_id.item()) == (slow.dropped, slow.next_id)
    assert min(events.values()) >= 3, events  # otherwise this test has shown little
    assert slow.dropped > 0
