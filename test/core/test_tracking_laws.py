"""Laws of the step that need no reference: batches, cameras, chunks, faults, and no look at values on the host."""

import dataclasses

import pytest
import torch
from law_helpers import assert_equal, track
from tiny_tracker import CAMERAS, drive, make_frame, stack, tiny_tracker

from syncl_core.models import position
from syncl_core.tensors import TrackState, from_dict, to_dict
from syncl_core.tracking.state import init_state


def test_scenes_in_a_batch_do_not_see_each_other():
    """Three scenes, one of them a frame behind because it began later, equal each alone."""
    tracker = tiny_tracker(34)
    scenes = [drive(5), drive(5, start=40), drive(5, start=80)]
    late = [dataclasses.replace(f, camera_valid=torch.tensor([[True, False, True]])) for f in scenes[2]]
    scenes[2] = late
    state, outputs = track(
        tracker, [stack(frames) for frames in zip(*scenes, strict=True)], init_state(tracker.config, 3)
    )
    assert outputs[-1].valid.sum(dim=1).min() > 0
    for row, frames in enumerate(scenes):
        alone, alone_outputs = track(tracker, frames)
        assert_equal(state, alone, row, tolerance=1e-4)
        for ours, theirs in zip(outputs, alone_outputs, strict=True):
            assert_equal(ours, theirs, row, tolerance=1e-4)


def test_a_new_scene_joins_a_running_batch():
    """A scene whose state was replaced by the empty one starts again, whatever the other does."""
    tracker = tiny_tracker(34)
    state, _ = track(tracker, [stack([f, f]) for f in drive(3)], init_state(tracker.config, 2))
    empty = init_state(tracker.config)
    values = {
        f.name: torch.cat([getattr(state, f.name)[:1], getattr(empty, f.name)]) for f in dataclasses.fields(state)
    }
    later = drive(2, start=3)
    joined, _ = track(tracker, [stack([f, f]) for f in later], TrackState(**values))
    assert_equal(joined, track(tracker, later)[0], row=1, tolerance=1e-4)
    assert joined.age[0].max() > joined.age[1].max()


def test_chunked_is_whole_and_a_snapshot_is_the_state(tmp_path):
    tracker, frames = tiny_tracker(34), drive(8)
    whole, outputs = track(tracker, frames)
    state, _ = track(tracker, frames[:5])
    torch.save(to_dict(state), tmp_path / "state.pt")
    restored = from_dict(state, torch.load(tmp_path / "state.pt", weights_only=True))
    chunked, tail = track(tracker, frames[5:], restored)
    assert_equal(chunked, whole)
    for ours, theirs in zip(tail, outputs[5:], strict=True):
        assert_equal(ours, theirs)


def test_a_step_leaves_its_inputs_alone():
    tracker, frames = tiny_tracker(34), drive(3)
    state, _ = track(tracker, frames[:2])
    before = {name: value.clone() for name, value in to_dict(state).items()}
    images = frames[2].images.clone()
    first, _ = track(tracker, frames[2:], state)
    assert all(torch.equal(value, before[name]) for name, value in to_dict(state).items())
    assert torch.equal(frames[2].images, images)
    assert_equal(track(tracker, frames[2:], state)[0], first)


def test_camera_order_does_not_matter_if_their_embeddings_move_along(monkeypatch):
    tracker, frames = tiny_tracker(34), drive(4)
    state, _ = track(tracker, frames)
    order = [2, 0, 1]
    original = position.token_sine
    monkeypatch.setattr(position, "token_sine", lambda *args: original(*args)[order])
    shuffled = [
        dataclasses.replace(f, images=f.images[:, order], image_from_model=f.image_from_model[:, order]) for f in frames
    ]
    permuted, _ = track(tracker, shuffled)
    assert permuted.next_id.item() > 0
    assert_equal(permuted, state, tolerance=1e-4)


def test_camera_order_matters_to_an_unpermuted_embedding():
    """Otherwise the law above would say nothing."""
    tracker, frame = tiny_tracker(34), make_frame(0)
    order = [2, 0, 1]
    other = dataclasses.replace(frame, images=frame.images[:, order], image_from_model=frame.image_from_model[:, order])
    with torch.inference_mode():
        a, b = (tracker.observe(init_state(tracker.config), f).refined.box for f in (frame, other))
    assert (a - b).abs().max() > 1e-3


def test_what_a_missing_camera_would_have_shown_does_not_matter():
    tracker, frame = tiny_tracker(34), make_frame(0)
    valid = torch.tensor([[True, False, True]])
    outputs = []
    for fill, matrix in (
        (0, torch.eye(4).double()),
        (255, torch.full((4, 4), torch.nan).double()),
        (7, torch.zeros(4, 4)),
    ):
        images, matrices = frame.images.clone(), frame.image_from_model.clone()
        images[:, 1], matrices[:, 1] = fill, matrix
        degraded = dataclasses.replace(frame, images=images, image_from_model=matrices, camera_valid=valid)
        outputs.append(track(tracker, [degraded])[0])
    for other in outputs[1:]:
        assert_equal(other, outputs[0], tolerance=1e-6)


@pytest.mark.parametrize("alive", [0, 1, 2])
def test_degraded_sets_stay_finite(alive):
    tracker = tiny_tracker(34)
    valid = torch.arange(len(CAMERAS))[None] < alive
    frames = [dataclasses.replace(f, camera_valid=valid) for f in drive(3)]
    state, outputs = track(tracker, frames)
    for value in (state, *outputs):
        for f in dataclasses.fields(value):
            assert getattr(value, f.name).isfinite().all(), f.name


def test_free_slots_change_nothing():
    """More free slots than needed: the same tracks."""
    few, many = tiny_tracker(34, born=0.1, slots=8), tiny_tracker(34, born=0.1, slots=20)
    (_, ours), (_, theirs) = (track(tracker, drive(4)) for tracker in (few, many))
    for a, b in zip(ours, theirs, strict=True):
        assert a.valid.sum() > 0
        for name in ("track_id", "center", "size", "yaw", "velocity", "score"):
            left, right = (getattr(t, name)[t.valid] for t in (a, b))
            torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_gradients_reach_earlier_frames_but_not_through_history():
    """Training unrolls the same step: queries carry gradients from frame to frame."""
    tracker = tiny_tracker(34)
    state, _ = tracker.step(init_state(tracker.config), drive(1)[0])
    state.query.retain_grad()
    later, _ = tracker.step(state, drive(2)[1])
    later.box[later.track_id >= 0].sum().backward()
    assert state.query.grad.abs().sum() > 0
    assert not later.history.requires_grad
