"""Laws of trackers that see two frames: batches, cameras, chunks, faults, time, gradients, no look at the host."""

import dataclasses

import pytest
import torch
from law_helpers import assert_equal, track
from tiny_petrv2 import moving_rig_drive, petrv2_config, tiny_petrv2, without_camera
from tiny_tracker import CAMERAS, make_frame, stack
from torch.utils import _pytree

from syncl_core.models import position
from syncl_core.models.box_code import encode_boxes
from syncl_core.tensors import TwoFrameState, from_dict, to_dict
from syncl_core.tracking.build import build_tracker


@pytest.fixture(scope="module")
def tracker():
    return tiny_petrv2(31, born=0.2)


def _moved(frame, **changes):
    return dataclasses.replace(frame, **changes)


def test_the_state_holds_the_frame(tracker):
    state, _ = track(tracker, [without_camera(moving_rig_drive(1)[0], 1)])
    assert isinstance(state, TwoFrameState) and state.past.tokens.shape == (1, 3 * 2 * 4, 16)
    assert state.past.camera_valid.tolist() == [[True, False, True]]
    assert torch.equal(state.past.image_from_model[0, 1], torch.eye(4).double())  # no NaN is remembered
    assert all(value.isfinite().all() for value in to_dict(state).values())


def test_scenes_in_a_batch_do_not_see_each_other(tracker):
    """Three scenes, one with a camera less, one whose first frame is the others' third."""
    scenes = [moving_rig_drive(5), moving_rig_drive(5, start=40), moving_rig_drive(5, start=80)]
    scenes[1] = [without_camera(frame, 1) for frame in scenes[1]]
    frames = [stack(row) for row in zip(*scenes, strict=True)]
    state, _ = track(tracker, frames[:2], tracker.init_state(3))
    fresh = _pytree.tree_map(lambda value, empty: torch.cat([value[:2], empty]), state, tracker.init_state())
    state, outputs = track(tracker, frames[2:], fresh)
    assert outputs[-1].valid.sum(dim=1).min() > 0
    for row, alone in enumerate((scenes[0], scenes[1], scenes[2][2:])):
        expected, expected_outputs = track(tracker, alone)
        assert_equal(state, expected, row, tolerance=1e-4)
        for ours, theirs in zip(outputs, expected_outputs[-3:], strict=True):
            assert_equal(ours, theirs, row, tolerance=1e-4)


@torch.inference_mode()
def test_every_scene_of_a_batch_has_its_own_earlier_frame(tracker):
    """Steps of 0.4 and 1.1 s and a first frame, side by side: the head says what it says of each alone."""
    now = moving_rig_drive(1, start=10)[0]
    earlier = [_moved(make_frame(i), t_ns=now.t_ns - ago) for i, ago in enumerate((400_000_000, 1_100_000_000))]
    pasts = [*(tracker.encode(frame).kept for frame in earlier), tracker.init_state().past]
    queries = tracker.object_queries(1)
    alone = [tracker.decode(tracker.encode(now, past), queries).box for past in pasts]
    together = _pytree.tree_map(lambda *values: torch.cat(values), *pasts)
    boxes = tracker.decode(tracker.encode(stack([now] * 3), together), tracker.object_queries(3)).box
    torch.testing.assert_close(boxes, torch.cat(alone, dim=1), atol=1e-4, rtol=1e-4)
    speeds = boxes[0, :, :, 8:].norm(dim=-1).mean(dim=1)
    assert speeds.diff().abs().min() > 1e-2


def test_chunked_is_whole_and_a_snapshot_is_the_state(tracker, tmp_path):
    frames = moving_rig_drive(8)
    whole, outputs = track(tracker, frames)
    state, _ = track(tracker, frames[:5])
    torch.save(to_dict(state), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert {"past.tokens", "past.image_from_model", "past.t_ns"} <= saved.keys()
    chunked, tail = track(tracker, frames[5:], from_dict(tracker.init_state(), saved))
    assert_equal(chunked, whole)
    for ours, theirs in zip(tail, outputs[5:], strict=True):
        assert_equal(ours, theirs)


def test_a_step_leaves_its_inputs_alone(tracker):
    frames = moving_rig_drive(3)
    state, _ = track(tracker, frames[:2])
    before = {name: value.clone() for name, value in to_dict(state).items()}
    first, _ = track(tracker, frames[2:], state)
    assert all(torch.equal(value, before[name]) for name, value in to_dict(state).items())
    assert_equal(track(tracker, frames[2:], state)[0], first)


def test_camera_order_does_not_matter_if_their_embeddings_move_along(tracker, monkeypatch):
    order, missing = [2, 0, 1], ((), (1,), (), (0,))
    frames = [without_camera(f, *names) for f, names in zip(moving_rig_drive(4), missing, strict=True)]
    state, outputs = track(tracker, frames)
    shuffled = [
        _moved(
            f,
            images=f.images[:, order],
            image_from_model=f.image_from_model[:, order],
            camera_valid=f.camera_valid[:, order],
        )
        for f in frames
    ]
    _, unpermuted = track(tracker, shuffled[:1])
    assert (unpermuted[0].center - outputs[0].center).abs().max() > 1e-3  # otherwise this law would say nothing
    original, views = position.token_sine, order + [n + len(order) for n in order]
    monkeypatch.setattr(position, "token_sine", lambda *args: original(*args)[views])
    _, permuted = track(tracker, shuffled)
    for ours, theirs in zip(permuted, outputs, strict=True):
        assert_equal(ours, theirs, tolerance=1e-4)


def test_what_a_missing_camera_would_have_shown_does_not_matter_now_or_later(tracker):
    states = []
    for fill, matrix in ((0, torch.eye(4)), (255, torch.full((4, 4), torch.nan)), (7, torch.zeros(4, 4))):
        frames = [without_camera(f, *missing) for f, missing in zip(moving_rig_drive(3), ((), (1,), ()), strict=True)]
        frames[1].images[:, 1], frames[1].image_from_model[:, 1] = fill, matrix.double()
        states.append(track(tracker, frames)[0])
    for other in states[1:]:
        assert_equal(other, states[0], tolerance=1e-6)


def test_a_camera_missing_in_the_past_takes_its_tokens_away(tracker):
    whole = moving_rig_drive(2)
    degraded = [without_camera(whole[0], 1), whole[1]]
    memories = []
    with torch.inference_mode():
        for first, second in (whole, degraded):
            memories.append(tracker.encode(second, tracker.encode(first).kept))
    full, less = memories
    cameras = less.valid.view(2, len(CAMERAS), -1)
    assert full.valid.all() and cameras.all(dim=2).tolist() == [[True] * 3, [True, False, True]]
    torch.testing.assert_close(full.position[less.valid], less.position[less.valid], atol=1e-6, rtol=0)


@pytest.mark.parametrize("alive", [0, 1, 2])
def test_degraded_sets_stay_finite(tracker, alive):
    frames = [without_camera(f, *range(alive, len(CAMERAS))) for f in moving_rig_drive(3)]
    state, outputs = track(tracker, frames)
    for value in (state, *outputs):
        assert all(tensor.isfinite().all() for tensor in to_dict(value).values())


@torch.inference_mode()
def test_a_first_frame_stands_in_for_the_one_before(tracker):
    """As if the same frame had been there 1.245 s ago; so does a frame that is not later than the last one."""
    frame = moving_rig_drive(1, start=5)[0]
    first = tracker.encode(frame, tracker.init_state().past)
    _assert_memories_equal(first, tracker.encode(frame))
    earlier = tracker.encode(_moved(frame, t_ns=frame.t_ns - 1_245_000_000)).kept
    _assert_memories_equal(first, tracker.encode(frame, earlier))
    assert first.seconds.item() == pytest.approx(1.245)
    half = first.tokens.shape[1] // 2
    assert torch.equal(first.tokens[:, :half], first.tokens[:, half:])
    assert (first.position[:, :half] - first.position[:, half:]).abs().max() > 1e-3  # its cameras are numbered on
    other = tracker.encode(_moved(make_frame(3), t_ns=frame.t_ns)).kept
    _assert_memories_equal(first, tracker.encode(frame, other))


def _assert_memories_equal(ours, theirs):
    for name in ("tokens", "position", "valid", "seconds"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-5, rtol=0)


def test_where_the_world_begins_does_not_matter(tracker):
    """Frames are aligned by what the car did between them, not by where it is."""
    turn = torch.tensor([[0, -1, 0, 4000], [1, 0, 0, -900], [0, 0, 1, 5], [0, 0, 0, 1]], dtype=torch.float64)
    frames = moving_rig_drive(4)
    elsewhere = [_moved(f, global_from_model=turn @ f.global_from_model) for f in frames]
    _, outputs = track(tracker, frames)
    for ours, theirs in zip(track(tracker, elsewhere)[1], outputs, strict=True):
        assert_equal(ours, theirs, tolerance=1e-4)
    still = [_moved(f, global_from_model=frames[0].global_from_model) for f in frames]
    assert (track(tracker, still)[1][1].center - outputs[1].center).abs().max() > 1e-3  # what it did counts


@torch.inference_mode()
def test_a_detector_sees_the_frame_before_but_keeps_no_tracks():
    detector = tiny_petrv2(
        *(8, 0.2, "none"), slots=12, score_threshold=0.0, record_threshold=0.0, output_threshold=0.0, max_age=1
    )
    detector.config = dataclasses.replace(detector.config, num_tracking_classes=10)
    frames = moving_rig_drive(3)
    state, outputs = track(detector, frames)
    assert outputs[2].valid.sum() > 2
    assert not set(outputs[2].track_id.flatten().tolist()) & set(outputs[1].track_id.flatten().tolist()) - {-1}
    two, _ = detector.step(track(detector, frames[1:2])[0], frames[2])
    alone, _ = detector.step(detector.init_state(), frames[2])
    assert torch.equal(two.box, state.box)  # the frame before that is forgotten
    assert (alone.box - state.box).abs().max() > 1e-3


def test_gradients_reach_all_parameters_and_the_frame_before(tracker):
    """As training does: all layers, with the queries a second time; the graph goes on into the frame before."""
    frames = moving_rig_drive(2)
    tracker.zero_grad()
    state, _ = tracker.step(tracker.init_state(), frames[0])
    state.past.tokens.retain_grad()
    observation = tracker.observe(state, frames[1], all_layers=True, parallel=True)
    rows = observation.valid.shape[1]
    assert observation.parallel.box.shape == observation.head.box.shape == (2, 1, rows, 10)
    heads = (observation.head, observation.parallel, observation.refined)
    sum(head.logits.square().sum() + head.box.square().sum() for head in heads).backward()
    assert state.past.tokens.grad.abs().sum() > 0 and state.past.tokens.grad.isfinite().all()
    for name, value in tracker.named_parameters():
        if not name.startswith(("STReasoner.fut", "STReasoner.ts_query_embed")):  # the forecast has a loss of its own
            assert value.grad is not None and value.grad.isfinite().all(), name
            assert value.grad.abs().sum() > 0 or ".attentions.0." in name, name
    tracker.zero_grad()


def test_an_untrained_tracker_can_start_neutral():
    config = petrv2_config()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, neutral_start=True))
    tracker = build_tracker(config)
    with torch.inference_mode():
        box = tracker.observe(tracker.init_state(), make_frame(0), all_layers=True).head.box
    car = encode_boxes(torch.zeros(3), torch.tensor([4.6, 1.9, 1.7]), torch.tensor(torch.pi / 2), torch.zeros(2))
    for i in (2, 3, 5, 6, 7, 8, 9):
        torch.testing.assert_close(box[..., i], car[i].expand(box.shape[:-1]))
