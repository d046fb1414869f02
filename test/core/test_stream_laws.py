"""Laws of the StreamPETR trackers that need no reference: batches, cameras, chunks, faults, gradients, lives."""

import dataclasses

import numpy as np
import pytest
import torch
from law_helpers import assert_equal, track
from tiny_stream import stream_drive, stream_frame, tiny_stream
from tiny_tracker import CAMERAS, drive, make_frame, stack
from torch.utils._pytree import tree_map

from syncl_core.head_dump import HeadDump
from syncl_core.models.heads import Queries
from syncl_core.tensors import from_dict, to_dict
from syncl_core.tracking.base import assigned

FRAMEWORKS = ("none", "mutr3d")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_scenes_in_a_batch_do_not_see_each_other(framework):
    """Three scenes, one of them began later, one has a dead camera: each equals itself alone."""
    tracker = tiny_stream(framework, 5)
    scenes = [stream_drive(4), stream_drive(4, start=41), stream_drive(4, start=81)]
    valid = torch.tensor([[True, False, True]])
    scenes[2] = [dataclasses.replace(frame, camera_valid=valid) for frame in scenes[2]]
    batches = [stack(list(frames)) for frames in zip(*scenes, strict=True)]
    state, _ = track(tracker, batches[:2], tracker.init_state(3))
    state = tree_map(lambda old, new: torch.cat([old[:1], new, old[2:]]), state, tracker.init_state())
    state, outputs = track(tracker, batches[2:], state)
    assert sum(int(tracks.valid.sum()) for tracks in outputs) > 0
    for row, frames in enumerate(scenes):
        alone, _ = track(tracker, frames[2:] if row == 1 else frames)
        assert_equal(state, alone, row, tolerance=2e-4)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_chunked_is_whole_and_a_snapshot_is_the_state(tmp_path, framework):
    tracker, frames = tiny_stream(framework, 5), stream_drive(6)
    whole, outputs = track(tracker, frames)
    state, _ = track(tracker, frames[:3])
    torch.save(to_dict(state), tmp_path / "state.pt")
    restored = from_dict(tracker.init_state(), torch.load(tmp_path / "state.pt", weights_only=True))
    chunked, tail = track(tracker, frames[3:], restored)
    assert_equal(chunked, whole)
    for ours, theirs in zip(tail, outputs[3:], strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_step_leaves_its_inputs_alone(framework):
    tracker, frames = tiny_stream(framework, 5), stream_drive(3)
    state, _ = track(tracker, frames[:2])
    before = {name: value.clone() for name, value in to_dict(state).items()}
    first, _ = track(tracker, frames[2:], state)
    assert all(torch.equal(value, before[name]) for name, value in to_dict(state).items())
    assert_equal(track(tracker, frames[2:], state)[0], first)


@pytest.mark.parametrize("different", [False, True])
def test_camera_order_matters_only_if_focal_lengths_differ(different):
    """As released, focal lengths are dealt out to the tokens in turn, whichever camera a token is from."""
    tracker, order = tiny_stream("mutr3d", 5, score_threshold=0.02, filter_threshold=0.01), [2, 0, 1]
    frames = stream_drive(3) if different else drive(3, start=1)
    shuffled = [
        dataclasses.replace(f, images=f.images[:, order], image_from_model=f.image_from_model[:, order]) for f in frames
    ]
    (state, _), (permuted, _) = track(tracker, frames), track(tracker, shuffled)
    if different:
        assert (state.queue.feature - permuted.queue.feature).abs().max() > 1e-3
    else:
        assert state.next_id.item() > 0
        assert_equal(permuted, state, tolerance=2e-4)


def test_what_a_missing_camera_would_have_shown_does_not_matter():
    tracker, frame = tiny_stream("mutr3d", 5), stream_frame(make_frame(0))
    valid, outputs = torch.tensor([[True, False, True]]), []
    for fill, matrix in ((0, torch.eye(4)), (255, torch.full((4, 4), torch.nan)), (7, torch.zeros(4, 4))):
        images, matrices = frame.images.clone(), frame.image_from_model.clone()
        images[:, 1], matrices[:, 1] = fill, matrix.double()
        degraded = dataclasses.replace(frame, images=images, image_from_model=matrices, camera_valid=valid)
        outputs.append(track(tracker, [degraded])[0])
    for other in outputs[1:]:
        assert_equal(other, outputs[0], tolerance=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("alive", [0, 1])
def test_degraded_sets_stay_finite(framework, alive):
    tracker = tiny_stream(framework, 5)
    valid = torch.arange(len(CAMERAS))[None] < alive
    state, outputs = track(tracker, [dataclasses.replace(f, camera_valid=valid) for f in stream_drive(3)])
    for value in (state, *outputs):
        assert all(tensor.isfinite().all() for tensor in to_dict(value).values())


def test_free_slots_change_nothing():
    few, many = (tiny_stream("mutr3d", 10, slots=slots, score_threshold=0.38) for slots in (20, 40))
    (state, ours), (_, theirs) = (track(tracker, stream_drive(4)) for tracker in (few, many))
    assert state.dropped.item() == 0
    for a, b in zip(ours, theirs, strict=True):
        for name in ("track_id", "center", "size", "yaw", "velocity", "score"):
            left, right = (getattr(t, name)[t.valid] for t in (a, b))
            torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    assert sum(int(t.valid.sum()) for t in ours) > 3


def test_the_detector_remembers_but_names_nobody_twice():
    tracker = tiny_stream("none", 2, slots=16, score_threshold=0.0, output_threshold=0.0)
    frames = stream_drive(3)
    _, outputs = track(tracker, frames)
    seen: set[int] = set()
    for tracks in outputs:
        ids = set(tracks.track_id[tracks.valid].tolist())
        assert ids and not ids & seen
        seen |= ids
    _, (alone,) = track(tracker, frames[-1:])
    assert not torch.equal(alone.center, outputs[-1].center)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parallel_rows_see_only_the_images(framework):
    """SynCL's C rows: same queries, no self-attention; S rows do not change; no other row matters, nor the queue."""
    tracker = tiny_stream(framework, 5)
    *frames, last = stream_drive(3)
    state, _ = track(tracker, frames)
    with torch.inference_mode():
        plain = tracker.observe(state, last, all_layers=True)
        both = tracker.observe(state, last, all_layers=True, parallel=True)
        queries, _, _ = tracker.queries(both.state)
        one = Queries(**{f.name: getattr(queries, f.name)[:, 3:4] for f in dataclasses.fields(Queries)})
        alone = tracker.decode(tracker.encode(last), one, None, all_layers=True, parallel=True).rows(1, 2)
    assert plain.parallel is None
    torch.testing.assert_close(both.head.box, plain.head.box, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.parallel.rows(3, 4).features, alone.features, atol=1e-5, rtol=1e-5)
    assert (both.parallel.features - both.head.features)[:, :, both.valid[0]].abs().amax(dim=(0, 1, 3)).min() > 1e-3
    assert both.parallel.logits.shape == both.head.logits.shape


def test_gradients_pass_through_tracks_but_not_through_the_queue():
    """Training's decision: rows that own an object live on, with their identity; both branches reach them."""
    tracker, frames = tiny_stream("mutr3d", 5), stream_drive(2)
    first = tracker.observe(tracker.init_state(), frames[0], all_layers=True, parallel=True)
    identity = torch.full_like(first.track_id, -1)
    identity[0, [1, 4, 7]] = torch.tensor([70, 40, 10])
    state = tracker.commit(first, assigned(identity))
    assert sorted(state.slots.track_id[0].tolist()) == [-1, -1, -1, 10, 40, 70]
    assert state.next_id.item() == 0 and not state.queue.feature.requires_grad and not state.queue.center.requires_grad
    entry = state.slots.entry
    for value in (entry.feature, entry.center, entry.velocity):
        value.retain_grad()
    second = tracker.observe(state, frames[1], all_layers=True, parallel=True)
    assert second.track_id[0, -6:].tolist() == state.slots.track_id[0].tolist()
    for output in (second.head, second.parallel):
        grads = torch.autograd.grad(
            output.box[..., -6:, :].square().sum(), (entry.feature, entry.center, entry.velocity), retain_graph=True
        )
        alive = state.slots.track_id >= 0
        for grad in grads:
            assert (grad[alive].abs().sum(dim=-1) > 0).all() and not grad[~alive].any()


def test_heads_are_dumped_layer_by_layer(tmp_path):
    tracker = tiny_stream("mutr3d", 5)
    dump, state = HeadDump(tracker), tracker.init_state()
    with torch.inference_mode():
        for frame in stream_drive(3):
            state, _ = dump.step("scene", state, frame)
    dump.save(tmp_path / "heads.npz")
    with np.load(tmp_path / "heads.npz") as file:
        assert file["logits"].shape == (3, 2, 18, 10) and file["boxes"].shape == (3, 2, 18, 10)
        assert file["query_valid"][0].sum() == 12 and file["tracks.track_id"].shape == (3, 6)
