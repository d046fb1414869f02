"""The tracker on slots against PF-Track on lists (slow_pftrack): whole sequences, and parts of the network."""

import pytest
import torch
from slow_pftrack import SlowPFTrack
from tiny_tracker import drive, make_frame, pose, scene, tiny_tracker, uneven

from syncl_core.models import position
from syncl_core.tracking.state import init_state


def _twin(tracker) -> SlowPFTrack:
    return SlowPFTrack(tracker.config, tracker.state_dict(), tracker.img_backbone)


@torch.inference_mode()
def test_memory_equals_the_slow_one():
    tracker, frame = tiny_tracker(1), make_frame(1)
    memory = tracker.encode(frame)
    tokens, positions = _twin(tracker).memory(*scene(frame)[:3])
    torch.testing.assert_close(memory.tokens[0].double(), tokens, atol=1e-4, rtol=1e-4)
    # At the saturated ends of the inverse sigmoid one rounding of a metre is visible.
    torch.testing.assert_close(memory.position[0].double(), positions, atol=2e-4, rtol=1e-4)
    assert memory.valid.all()


@torch.inference_mode()
def test_query_positions_equal_the_slow_ones_also_outside_the_range():
    tracker = tiny_tracker(2)
    points = torch.rand(1, 9, 3, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
    expected = _twin(tracker).embed(points[0].double())
    torch.testing.assert_close(tracker.embed_reference(points)[0].double(), expected, atol=1e-5, rtol=1e-5)
    assert position.point_sine(points, 8).shape == (1, 9, 24)


def _history(ids_before: set, ids: set, seen_before: set, seen: set) -> dict[str, int]:
    return {
        "births": len(ids - ids_before),
        "deaths": len(ids_before - ids),
        "coasting": len(ids - seen),
        "comebacks": len((ids_before - seen_before) & seen),
    }


@pytest.mark.parametrize("ego_update", ["exact", "as_released"])
@torch.inference_mode()
def test_sequence_equals_the_slow_one(ego_update):
    """Same identities, boxes, features and predictions over births, coasting, comebacks, deaths, drops, ego turns."""
    tracker = tiny_tracker(34, born=0.1, ego_update=ego_update, max_age=4)
    twin, state = _twin(tracker), init_state(tracker.config)
    events = {"births": 0, "deaths": 0, "coasting": 0, "comebacks": 0}
    ids_before, seen_before = set(), set()
    for frame in uneven(drive(14, start=1)):
        expected = twin.step(*scene(frame))
        state, tracks = tracker.step(state, frame)
        alive, valid = state.track_id[0] >= 0, tracks.valid[0]
        ids, seen = set(state.track_id[0][alive].tolist()), set(tracks.track_id[0][valid].tolist())
        assert ids == {row["id"] for row in twin.tracks}
        assert seen == {row["id"] for row in expected}
        for name, count in _history(ids_before, ids, seen_before, seen).items():
            events[name] += count
        ids_before, seen_before = ids, seen
        for row in twin.tracks:
            _assert_same_track(state, row, compare_motion=ego_update == "as_released")
    assert (state.dropped.item(), state.next_id.item()) == (twin.dropped, twin.next_id)
    assert min(events.values()) >= 3, events  # otherwise this test has shown little
    assert twin.dropped > 0


def _assert_same_track(state, row: dict, compare_motion: bool) -> None:
    slot = state.track_id[0].tolist().index(row["id"])
    pairs = [
        (state.box[0, slot], row["box"]),
        (state.reference[0, slot], row["reference"]),
        (state.query[0, slot], row["query"]),
        (state.history[0, slot][-len(row["past"]) :], torch.stack(row["past"])),
        (state.future[0, slot][: len(row["future"])], torch.stack(row["future"])),
    ]
    if compare_motion:
        pairs.append((state.motion[0, slot][: len(row["motion"])], torch.stack(row["motion"])))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-5)
    assert state.history_valid[0, slot].sum() == len(row["past"])
    assert (state.label[0, slot].item(), state.misses[0, slot].item()) == (row["label"], row["misses"])
    assert (state.age[0, slot].item(), state.score[0, slot].item()) == pytest.approx(
        (row["age"], row["score"]), abs=1e-5
    )


@torch.inference_mode()
def test_missing_camera_equals_the_slow_one_that_never_had_it():
    tracker, frame = tiny_tracker(3), make_frame(5, global_from_model=pose())
    frame.camera_valid[0, 1] = False
    frame.image_from_model[0, 1] = float("nan")
    twin = _twin(tracker)
    twin.step(*scene(frame))
    state, _ = tracker.step(init_state(tracker.config), frame)
    assert len(twin.tracks) >= 2
    assert sorted(state.track_id[0][state.track_id[0] >= 0].tolist()) == [row["id"] for row in twin.tracks]
    for row in twin.tracks:
        _assert_same_track(state, row, compare_motion=True)


@torch.inference_mode()
def test_a_track_missed_six_frames_equals_the_slow_one_until_it_dies():
    """The published max_age of 7, while the ego turns: six misses are survived, with the seventh the track is gone."""
    tracker = tiny_tracker(34, born=0.05)
    twin, state, longest, deaths = _twin(tracker), tracker.init_state(), 0, 0
    for frame in uneven(drive(18, start=1)):
        before = {row["id"]: row["misses"] for row in twin.tracks}
        twin.step(*scene(frame))
        state, _ = tracker.step(state, frame)
        alive = {row["id"] for row in twin.tracks}
        assert set(state.track_id[0][state.track_id[0] >= 0].tolist()) == alive
        for row in twin.tracks:
            _assert_same_track(state, row, compare_motion=False)
        longest = max([longest, *(row["misses"] for row in twin.tracks)])
        deaths += sum(misses == 6 and identity not in alive for identity, misses in before.items())
    assert (tracker.config.track.max_age, longest) == (7, 6) and deaths > 0
