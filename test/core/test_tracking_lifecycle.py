"""Birth, coasting and death, told with hand-made scores instead of a network; and where tracks go between frames."""

import dataclasses
import math

import pytest
import torch
from tiny_tracker import make_frame, pose, tiny_config

from syncl_core.models.box_code import code_yaw, encode_boxes
from syncl_core.models.reasoning import Refined
from syncl_core.tracking.lifecycle import COAST_SCORE, commit, commit_forecast, judge
from syncl_core.tracking.postprocess import read_tracks
from syncl_core.tracking.slots import clear_free_rows
from syncl_core.tracking.state import ROW_FIELDS, init_state, propagate

CONFIG = tiny_config()
QUERIES, DIM, CLASSES = CONFIG.model.num_queries, CONFIG.model.embed_dim, len(CONFIG.classes)


def _see(state, births=(), tracks=None, config=CONFIG, label=0, t=None):
    """One life-cycle step: `births` are scores of the first object queries, `tracks` scores by identity."""
    slots = state.track_id.shape[1]
    score = torch.full((1, QUERIES + slots), 1e-3)
    score[0, : len(births)] = torch.tensor(births)
    for slot, identity in enumerate(state.track_id[0].tolist()):
        score[0, QUERIES + slot] = (tracks or {}).get(identity, 1e-3)
    logits = torch.full((1, QUERIES + slots, CLASSES), -12.0)
    logits[..., label] = torch.logit(score)
    refined = Refined(
        logits=logits,
        box=torch.rand(1, QUERIES + slots, 10),
        features=torch.rand(1, QUERIES + slots, DIM),
        history=torch.rand(1, QUERIES + slots, CONFIG.model.history_length, DIM),
        history_valid=torch.ones(1, QUERIES + slots, CONFIG.model.history_length, dtype=torch.bool),
    )
    decision = judge(state, refined, config.track, config.num_tracking_classes)
    state, seen = commit(state, refined, decision, config)
    motion = torch.rand(1, slots, CONFIG.model.future_steps, 2)
    state = clear_free_rows(commit_forecast(state, motion, seen), ROW_FIELDS)
    return state, read_tracks(state, config)


def _ids(state) -> list[int]:
    return sorted(state.track_id[0][state.track_id[0] >= 0].tolist())


def _shown(tracks) -> list[int]:
    return sorted(tracks.track_id[0][tracks.valid[0]].tolist())


def test_birth_above_the_threshold_only():
    state, tracks = _see(init_state(CONFIG), births=(0.41, 0.39, 0.9))
    assert _ids(state) == [0, 1] and _shown(tracks) == [0, 1]
    assert sorted(tracks.score[0][tracks.valid[0]].tolist()) == pytest.approx([0.41, 0.9])


def test_six_misses_survive_and_the_seventh_kills():
    state, _ = _see(init_state(CONFIG), births=(0.41,))
    for miss in range(1, 7):
        state, tracks = _see(state)
        assert _ids(state) == [0] and _shown(tracks) == []
        assert state.misses[state.track_id >= 0].item() == miss
        assert state.score[state.track_id >= 0].item() == pytest.approx(COAST_SCORE)
    state, _ = _see(state)
    assert _ids(state) == []


def test_being_seen_again_forgives_all_misses():
    state, _ = _see(init_state(CONFIG), births=(0.8,))
    for score in (0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1):
        state, tracks = _see(state, tracks={0: score})
        assert _shown(tracks) == ([0] if score > 0.4 else [])
    assert _ids(state) == [0] and state.age[state.track_id >= 0].item() == 10


def test_identities_are_never_used_twice():
    state, given = init_state(CONFIG), []
    for frame in range(30):
        state, _ = _see(state, births=(0.5, 0.6) if frame % 2 else ())
        given += [i for i in _ids(state) if i not in given]
    assert given == list(range(30)) and state.next_id.item() == 30
    assert len(_ids(state)) < 30  # some have died


def test_more_births_than_slots_drop_the_lowest_and_count_them():
    slots = CONFIG.track.slots
    scores = [0.5 + 0.01 * i for i in range(slots + 3)]
    state, tracks = _see(init_state(CONFIG), births=scores)
    assert sorted(tracks.score[0].tolist()) == pytest.approx(scores[3:])
    assert state.dropped.item() == 3 and state.next_id.item() == slots
    # Full of coasting tracks: a new object is worth more than one not seen.
    state, tracks = _see(state, births=(0.45,), tracks={i: 0.9 for i in range(1, slots)})
    assert _ids(state) == list(range(1, slots + 1)) and state.dropped.item() == 4


def test_free_slots_give_birth_to_nothing():
    """What the network says about an empty slot is noise, however confident."""
    state = init_state(CONFIG)
    state, tracks = _see(state, tracks={-1: 0.99})
    assert _ids(state) == [] and not tracks.valid.any() and state.next_id.item() == 0


def test_untracked_classes_are_neither_born_nor_kept():
    state, _ = _see(init_state(CONFIG), births=(0.9,), label=CONFIG.num_tracking_classes)
    assert _ids(state) == []
    state, _ = _see(init_state(CONFIG), births=(0.9,), label=CONFIG.num_tracking_classes - 1)
    assert _ids(state) == [0]
    state, _ = _see(state, tracks={0: 0.2}, label=CONFIG.num_tracking_classes)
    assert _ids(state) == [0]  # too unsure to say so
    state, _ = _see(state, tracks={0: 0.8}, label=CONFIG.num_tracking_classes)
    assert _ids(state) == []


def test_record_threshold_below_the_birth_threshold_updates_but_does_not_forgive():
    config = dataclasses.replace(CONFIG, track=dataclasses.replace(CONFIG.track, record_threshold=0.25))
    state, _ = _see(init_state(config), births=(0.9,), config=config)
    state, tracks = _see(state, tracks={0: 0.3}, config=config)
    assert _shown(tracks) == [0] and state.misses[state.track_id >= 0].item() == 1


def test_free_slots_are_zero_and_coasting_keeps_what_was_known():
    state, _ = _see(init_state(CONFIG), births=(0.9, 0.8))
    kept = {name: getattr(state, name)[state.track_id == 0] for name in ("query", "motion", "future", "label", "box")}
    state, _ = _see(state, tracks={1: 0.9})
    for name, value in kept.items():
        assert torch.equal(getattr(state, name)[state.track_id == 0], value), name
    state, _ = _see(state)
    for _ in range(6):
        state, _ = _see(state, tracks={1: 0.9})
    empty = init_state(CONFIG)
    free = state.track_id < 0
    assert free.sum() == CONFIG.track.slots - 1
    for name in ("query", "box", "motion", "future", "history", "history_valid", "score", "misses", "age", "reference"):
        assert torch.equal(getattr(state, name)[free], getattr(empty, name)[free]), name


def test_outside_the_range_is_not_output():
    state, tracks = _see(init_state(CONFIG), births=(0.9,))
    far = state.box.clone()
    far[state.track_id == 0, 0] = 61.3
    assert _shown(tracks) == [0] and _shown(read_tracks(dataclasses.replace(state, box=far), CONFIG)) == []


# --- between frames ---


def _placed_state(box_yaw=0.3, at=(10.0, 4.0, -1.0), velocity=(3.0, 1.0), motion=(1.5, 0.5)):
    """A state with one track that is predicted to go on by `motion` every step."""
    state = init_state(CONFIG)
    center = torch.tensor(at)
    steps = torch.arange(1, CONFIG.model.future_steps + 1)[:, None] * torch.tensor([*motion, 0.0])
    state.track_id[0, 0] = 0
    state.reference[0, 0] = center
    state.box[0, 0] = encode_boxes(center, torch.tensor([4.0, 2.0, 1.5]), torch.tensor(box_yaw), torch.tensor(velocity))
    state.motion[0, 0] = torch.tensor(motion)
    state.future[0, 0] = center + steps
    return dataclasses.replace(state, global_from_model=pose()[None], t_ns=torch.tensor([10**18]))


def _frame(seconds=0.5, global_from_model=None):
    return make_frame(0, 10**18 + round(seconds * 1e9), global_from_model)


@pytest.mark.parametrize("ego_update", ["exact", "as_released"])
def test_standing_still_moves_nothing(ego_update):
    state = _placed_state(motion=(0.0, 0.0))
    moved = propagate(state, _frame(), dataclasses.replace(CONFIG.track, ego_update=ego_update))
    for name in ("reference", "box", "future", "motion"):
        torch.testing.assert_close(getattr(moved, name)[0, 0], getattr(state, name)[0, 0])


@pytest.mark.parametrize("ego_update", ["exact", "as_released"])
def test_one_step_of_motion(ego_update):
    moved = propagate(_placed_state(), _frame(), dataclasses.replace(CONFIG.track, ego_update=ego_update))
    torch.testing.assert_close(moved.reference[0, 0], torch.tensor([11.5, 4.5, -1.0]))
    torch.testing.assert_close(moved.future[0, 0, 0], torch.tensor([13.0, 5.0, -1.0]))


@pytest.mark.parametrize(("seconds", "x"), [(0.25, 10.75), (0.5, 11.5), (1.25, 13.75), (60.0, 22.0), (-1.0, 10.0)])
def test_exact_motion_follows_the_clock_until_the_prediction_ends(seconds, x):
    moved = propagate(_placed_state(), _frame(seconds), CONFIG.track)
    assert moved.reference[0, 0, 0].item() == pytest.approx(x, abs=1e-5)
    assert moved.future[0, 0, 0, 0].item() == pytest.approx(min(x + 1.5, 22.0), abs=1e-5)


def test_two_half_steps_are_one_step():
    once = propagate(_placed_state(), _frame(0.5, pose(2, 1, 0.4)), CONFIG.track)
    twice = propagate(_placed_state(), _frame(0.25, pose(1, 0, -0.2)), CONFIG.track)
    twice = propagate(twice, _frame(0.5, pose(2, 1, 0.4)), CONFIG.track)
    for name in ("reference", "box"):
        torch.testing.assert_close(getattr(twice, name), getattr(once, name), atol=1e-4, rtol=1e-5)


def test_a_turning_car_leaves_the_world_where_it_is():
    """Exact: heading, velocity and prediction are the same in the global frame before and after."""
    state = _placed_state(motion=(0.0, 0.0))
    moved = propagate(state, _frame(0.5, pose(3.0, -2.0, math.radians(90))), CONFIG.track)
    # The car now looks along global y from (3, -2): model (10, 4) is global (10, 4) is model (6, -7).
    torch.testing.assert_close(moved.reference[0, 0], torch.tensor([6.0, -7.0, -1.0]), atol=1e-4, rtol=0)
    assert code_yaw(moved.box)[0, 0].item() == pytest.approx(0.3 - math.pi / 2, abs=1e-5)
    torch.testing.assert_close(moved.box[0, 0, 8:], torch.tensor([1.0, -3.0]), atol=1e-5, rtol=0)


def test_as_released_moves_positions_only():
    track = dataclasses.replace(CONFIG.track, ego_update="as_released")
    state = _placed_state()
    moved = propagate(state, _frame(0.9, pose(yaw=math.radians(90))), track)
    torch.testing.assert_close(moved.box[0, 0, 6:], state.box[0, 0, 6:])
    torch.testing.assert_close(moved.motion[0, 0, :-1], state.motion[0, 0, 1:])
    torch.testing.assert_close(moved.reference[0, 0], torch.tensor([4.5, -11.5, -1.0]), atol=1e-4, rtol=0)


def test_before_the_first_frame_nothing_moves():
    state = dataclasses.replace(_placed_state(motion=(0.0, 0.0)), t_ns=torch.tensor([-1]))
    moved = propagate(state, _frame(), CONFIG.track)
    torch.testing.assert_close(moved.reference, state.reference)
    assert torch.equal(moved.global_from_model[0], pose()) and moved.t_ns.item() == 10**18 + 500_000_000
