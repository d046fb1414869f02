"""Laws of MUTR3D's step that need no reference: batches, cameras, chunks, faults, slots, devices, gradients."""

import dataclasses

import numpy as np
import pytest
import torch
from law_helpers import assert_equal, track
from tiny_mutr3d import tiny_mutr3d
from tiny_tracker import CAMERAS, drive, make_frame, stack

from syncl_core.bench.stopwatch import Stopwatch, timed_parts
from syncl_core.head_dump import HeadDump
from syncl_core.tensors import from_dict, to_dict

SEED = 0  # its tracks are born, hide, come back, die and fill all slots


def test_scenes_in_a_batch_do_not_see_each_other():
    """Three scenes, one with a missing camera, equal each alone."""
    tracker = tiny_mutr3d(SEED)
    scenes = [drive(5), drive(5, start=40), drive(5, start=80)]
    scenes[2] = [dataclasses.replace(f, camera_valid=torch.tensor([[True, False, True]])) for f in scenes[2]]
    state, outputs = track(
        tracker, [stack(frames) for frames in zip(*scenes, strict=True)], tracker.init_state(batch=3)
    )
    assert outputs[-1].valid.sum(dim=1).min() > 0
    for row, frames in enumerate(scenes):
        alone, alone_outputs = track(tracker, frames)
        assert_equal(state, alone, row, tolerance=1e-4)
        for ours, theirs in zip(outputs, alone_outputs, strict=True):
            assert_equal(ours, theirs, row, tolerance=1e-4)


def test_a_new_scene_joins_a_running_batch():
    tracker = tiny_mutr3d(SEED)
    state, _ = track(tracker, [stack([f, f]) for f in drive(3)], tracker.init_state(batch=2))
    empty = tracker.init_state()
    values = {
        f.name: torch.cat([getattr(state, f.name)[:1], getattr(empty, f.name)]) for f in dataclasses.fields(state)
    }
    later = drive(2, start=3)
    joined, _ = track(tracker, [stack([f, f]) for f in later], type(state)(**values))
    assert_equal(joined, track(tracker, later)[0], row=1, tolerance=1e-4)
    assert joined.age[0].max() > joined.age[1].max()


def test_chunked_is_whole_and_a_snapshot_is_the_state(tmp_path):
    tracker, frames = tiny_mutr3d(SEED), drive(8)
    whole, outputs = track(tracker, frames)
    state, _ = track(tracker, frames[:5])
    torch.save(to_dict(state), tmp_path / "state.pt")
    restored = from_dict(state, torch.load(tmp_path / "state.pt", weights_only=True))
    chunked, tail = track(tracker, frames[5:], restored)
    assert whole.memory_valid.any() and whole.misses.any()
    assert_equal(chunked, whole)
    for ours, theirs in zip(tail, outputs[5:], strict=True):
        assert_equal(ours, theirs)


def test_a_step_leaves_its_inputs_alone():
    tracker, frames = tiny_mutr3d(SEED), drive(3)
    state, _ = track(tracker, frames[:2])
    before = {name: value.clone() for name, value in to_dict(state).items()}
    first, _ = track(tracker, frames[2:], state)
    assert all(torch.equal(value, before[name]) for name, value in to_dict(state).items())
    assert_equal(track(tracker, frames[2:], state)[0], first)


@torch.no_grad()
def test_camera_order_does_not_matter_if_their_weights_move_along():
    tracker, frames, order = tiny_mutr3d(SEED), drive(4), [2, 0, 1]
    state, _ = track(tracker, frames)
    shuffled = [
        dataclasses.replace(f, images=f.images[:, order], image_from_model=f.image_from_model[:, order]) for f in frames
    ]
    unmoved, _ = track(tracker, shuffled)
    head = tracker.pts_bbox_head
    head.cam_embeds.copy_(head.cam_embeds[order])
    for layer in head.transformer["decoder"]["layers"]:
        for value in layer.attentions[1].attention_weights.parameters():
            value.copy_(value.unflatten(0, (len(CAMERAS), -1))[order].flatten(0, 1))
    permuted, _ = track(tracker, shuffled)
    assert permuted.next_id.item() > 0
    assert_equal(permuted, state, tolerance=1e-4)
    assert (unmoved.box - state.box).abs().max() > 1e-3  # otherwise the law would say nothing


def test_what_a_missing_camera_would_have_shown_does_not_matter():
    tracker, frame = tiny_mutr3d(SEED), make_frame(0)
    valid, outputs = torch.tensor([[True, False, True]]), []
    for fill, matrix in ((0, torch.eye(4)), (255, torch.full((4, 4), torch.nan)), (7, torch.zeros(4, 4))):
        images, matrices = frame.images.clone(), frame.image_from_model.clone()
        images[:, 1], matrices[:, 1] = fill, matrix.double()
        degraded = dataclasses.replace(frame, images=images, image_from_model=matrices, camera_valid=valid)
        outputs.append(track(tracker, [degraded])[0])
    for other in outputs[1:]:
        assert_equal(other, outputs[0], tolerance=1e-6)


@pytest.mark.parametrize("alive", [0, 1, 2])
def test_degraded_sets_stay_finite(alive):
    tracker = tiny_mutr3d(SEED)
    valid = torch.arange(len(CAMERAS))[None] < alive
    state, outputs = track(tracker, [dataclasses.replace(f, camera_valid=valid) for f in drive(3)])
    for value in (state, *outputs):
        for f in dataclasses.fields(value):
            assert getattr(value, f.name).isfinite().all(), f.name


def test_an_empty_scene_stays_empty_and_finite():
    tracker = tiny_mutr3d(SEED, score_threshold=1.0, filter_threshold=1.0)
    state, outputs = track(tracker, drive(3))
    assert_equal(dataclasses.replace(tracker.init_state(), **_scene_fields(state)), state)
    assert not outputs[-1].valid.any() and state.next_id.item() == 0


def _scene_fields(state) -> dict:
    return {name: getattr(state, name) for name in ("global_from_model", "t_ns")}


def test_free_slots_change_nothing():
    """More free slots than needed: the same tracks."""
    few, many = tiny_mutr3d(8, slots=8), tiny_mutr3d(8, slots=20)
    (last, ours), (_, theirs) = (track(tracker, drive(8, start=1)) for tracker in (few, many))
    assert last.dropped.item() == 0 and last.age.max() >= 3
    for a, b in zip(ours, theirs, strict=True):
        assert a.valid.sum() > 0
        for name in ("track_id", "center", "size", "yaw", "velocity", "score"):
            left, right = (getattr(t, name)[t.valid] for t in (a, b))
            torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_more_births_than_slots_keep_the_best_and_count_the_rest():
    tracker = tiny_mutr3d(2, born=0.6, slots=3)
    with torch.inference_mode():
        observation = tracker.observe(tracker.init_state(), make_frame(1))
        decision = tracker.judge(observation)
        state = tracker.commit(observation, decision)
    score = observation.head.logits[-1, 0].sigmoid().amax(dim=1)
    born = score[decision.keep[0]]
    assert len(born) > 3 and state.dropped.item() == len(born) - 3
    assert state.track_id.tolist() == [[0, 1, 2]] and state.next_id.item() == 3
    assert sorted(state.score[0].tolist()) == sorted(born.tolist())[-3:]


def test_output_is_confident_inside_and_limited():
    tracker = tiny_mutr3d(SEED, max_output=2)
    state, outputs = track(tracker, drive(3))
    visible = (state.track_id >= 0) & (state.score >= 0.35)
    assert visible.sum() > 2 and outputs[-1].valid.sum() <= 2
    assert (state.score[outputs[-1].valid].min() >= state.score[visible & ~outputs[-1].valid].max()).item()
    config = dataclasses.replace(tracker.config, track=dataclasses.replace(tracker.config.track, filter_threshold=0.99))
    tracker.config = config
    assert not tracker.read(state).valid.any()


@torch.inference_mode()
def test_half_precision_keeps_places_and_the_state_exact():
    tracker, frame, embedded = tiny_mutr3d(SEED), make_frame(0), []
    for name, module in tracker.named_modules():
        if name.endswith(".position_encoder"):
            module.register_forward_hook(lambda module, places, where: embedded.append(where.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries = tracker.object_queries(tracker.encode(frame))
        state, tracks = tracker.step(tracker.init_state(), frame)
    assert embedded and set(embedded) == {torch.float32}
    exact = tracker.object_queries(tracker.encode(frame))
    torch.testing.assert_close(queries.reference, exact.reference, atol=1e-6, rtol=0)
    for f in dataclasses.fields(state):
        assert getattr(state, f.name).dtype == getattr(tracker.init_state(), f.name).dtype, f.name
    whole, _ = tracker.step(tracker.init_state(), frame)
    assert tracks.valid.any() and torch.equal(whole.track_id, state.track_id)
    torch.testing.assert_close(state.box, whole.box, atol=0.3, rtol=0.05)


def test_a_head_dump_is_the_trackers_own(tmp_path):
    tracker, frames = tiny_mutr3d(SEED), drive(3)
    dump, state = HeadDump(tracker), tracker.init_state()
    with torch.inference_mode():
        for frame in frames:
            state, tracks = dump.step("scene", state, frame)
    dump.save(tmp_path / "heads.npz")
    assert_equal(state, track(tracker, frames)[0])
    rows = tracker.config.model.num_queries + tracker.config.track.slots
    with np.load(tmp_path / "heads.npz") as heads:
        assert heads["logits"].shape == (3, 3, rows, 7) and heads["boxes"].shape == (3, 3, rows, 10)
        assert np.array_equal(heads["tracks.center"][2], tracks.center[0].numpy())


@torch.no_grad()
def test_timing_changes_no_result():
    tracker, watch = tiny_mutr3d(SEED), Stopwatch(torch.device("cpu"))
    frames = drive(2)
    with timed_parts(tracker, watch):
        watch.switch("life cycle")
        state = tracker.init_state()
        for frame in frames:
            state, _ = tracker.step(state, frame)
    seconds = watch.stop()
    for stage in ("backbone", "neck", "position", "decoder", "reasoning", "life cycle", "other"):
        assert seconds[stage] > 0, stage
    assert_equal(state, track(tracker, frames)[0])
