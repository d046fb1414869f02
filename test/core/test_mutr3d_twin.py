"""MUTR3D on slots against MUTR3D on lists (slow_mutr3d): parts of the network, and whole sequences."""

import dataclasses

import pytest
import torch
from slow_mutr3d import SlowMUTR3D, bilinear
from tiny_mutr3d import tiny_mutr3d
from tiny_tracker import drive, make_frame, pose, scene, uneven

from syncl_core.models.detr3d_sampling import Pyramid, project, sample
from syncl_core.models.queries import SizedQueries


def _twin(tracker) -> SlowMUTR3D:
    return SlowMUTR3D(tracker.config, tracker.state_dict(), tracker.img_backbone)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_sampling_is_bilinear_between_cell_centres():
    level, points = _noise(1, 1, 3, 4, 6), _noise(1, 1, 20, 2, seed=1)
    ours = sample(level, points)[0, 0]
    for m, (right, down) in enumerate(points[0, 0].tolist()):
        expected = bilinear(level[0, 0].double(), (down + 1) / 2 * 4 - 0.5, (right + 1) / 2 * 6 - 0.5)
        torch.testing.assert_close(ours[:, m].double(), expected, atol=1e-5, rtol=0)


def test_a_camera_sees_what_is_in_front_and_strictly_inside():
    """A camera whose pixels times depth are the point's coordinates; the padded image is 96 wide and 48 high."""
    cases = {
        (48.0, 24.0, 1.0): (0.0, 0.0),
        (144.0, 12.0, 2.0): (0.5, -0.75),
        (0.0, 24.0, 1.0): None,  # on the edge
        (48.0, 48.0, 1.0): None,
        (97.0, 24.0, 1.0): None,
        (48.0, -1.0, 1.0): None,
        (-48.0, -24.0, -1.0): None,  # behind, on the ray of the first
        (1e-4, 1e-4, -1.0): None,  # behind, and still inside after the division by the smallest depth
        (0.0, 0.0, 0.0): None,
    }
    matrix = torch.eye(4, dtype=torch.float64).expand(1, 2, 4, 4)
    valid = torch.tensor([[True, False]])
    pyramid = Pyramid(levels=(), image_from_model=matrix, camera_valid=valid, image_size=(48, 96))
    places, seen = project(torch.tensor([list(cases)]), pyramid)
    for m, place in enumerate(cases.values()):
        assert seen[0, 0, m].item() == (place is not None)
        expected = torch.tensor(place or (-2.0, -2.0))
        torch.testing.assert_close(places[0, 0, m], expected, atol=1e-6, rtol=0)
    assert not seen[0, 1].any()


@torch.inference_mode()
def test_pyramid_equals_the_slow_one():
    tracker, frame = tiny_mutr3d(1), make_frame(1)
    pyramid, expected = tracker.encode(frame), _twin(tracker).encode(frame.images[0])
    assert pyramid.image_size == (48, 96) and len(expected) == 5
    for ours, level in zip(pyramid.levels, expected, strict=True):
        torch.testing.assert_close(ours[0].double(), level, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_sampling_attention_equals_the_slow_one():
    """Points behind, beside and in several cameras, one camera missing; each row sees some cells or none."""
    tracker, frame = tiny_mutr3d(2), make_frame(3)
    frame.camera_valid[0, 2], frame.image_from_model[0, 2] = False, float("nan")
    twin, attention = _twin(tracker), tracker.pts_bbox_head.transformer["decoder"]["layers"][1].attentions[1]
    x, position = _noise(1, 40, 16), _noise(1, 40, 16, seed=1)
    reference = torch.rand(1, 40, 3, generator=torch.Generator().manual_seed(2))
    reference[..., :2] = 0.5 + (reference[..., :2] - 0.5) / 3  # near the cameras
    reference[..., 2] = 0.55 + reference[..., 2] / 10
    pyramid = tracker.encode(frame)
    ours, _ = attention(x, position, reference, pyramid)
    levels = [level[0].double() for level in pyramid.levels]
    views = (levels, frame.image_from_model[0], frame.camera_valid[0], (48, 96))
    name, blind = "pts_bbox_head.transformer.decoder.layers.1.attentions.1", 0
    for m in range(40):
        row = (x[0, m].double(), position[0, m].double(), reference[0, m].double())
        expected = twin.sample(name, *row, *views)
        torch.testing.assert_close(ours[0, m].double(), expected, atol=1e-5, rtol=1e-5)
        views_off = (*views[:2], torch.zeros(3, dtype=torch.bool), views[3])
        blind += bool((twin.sample(name, *row, *views_off) - expected).abs().max() < 1e-9)
    assert 5 <= blind <= 35


@torch.inference_mode()
def test_refinement_equals_the_slow_one_in_every_layer():
    """A decoder of fewer layers is the beginning of a longer one, with the heads of its last layer."""
    tracker, frame = tiny_mutr3d(3), make_frame(4)
    head = tracker.observe(tracker.init_state(), frame, all_layers=True).head
    twin = _twin(tracker)
    levels, size = twin.encode(frame.images[0]), (48, 96)
    for layers in (1, 2, 3):
        model = dataclasses.replace(tracker.config.model, num_layers=layers)
        twin.config, rows = dataclasses.replace(tracker.config, model=model), twin.new_rows()
        twin.detect(rows, levels, frame.image_from_model[0], frame.camera_valid[0], size)
        for name, ours in (("logits", head.logits), ("box", head.box), ("feature", head.features)):
            expected = torch.stack([row[name] for row in rows])
            torch.testing.assert_close(ours[layers - 1, 0, : len(rows)].double(), expected, atol=1e-4, rtol=1e-5)
    center = torch.stack([row["reference"] for row in rows])
    torch.testing.assert_close(twin.metres(head.reference[0, : len(rows)].double()), center, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_memory_bank_equals_the_slow_one():
    """Six frames of three rows: one always there, one that is never saved, one that starts later."""
    tracker = tiny_mutr3d(4)
    bank, twin = tracker.memory_bank, _twin(tracker)
    rows = [dict(past=[], wait=0) for _ in range(3)]
    memory, valid, wait = torch.zeros(1, 3, 3, 16), torch.zeros(1, 3, 3, dtype=torch.bool), torch.zeros(1, 3).long()
    for step in range(7):
        x, score = _noise(1, 3, 16, seed=step), torch.tensor([[0.7, 0.0, float(step >= 2)]])
        y = bank(x, memory, valid)
        memory, valid, wait = bank.remember(y, score, memory, valid, wait)
        for m in (0, 2):
            rows[m]["feature"] = x[0, m].double()
            if score[0, m] > 0:
                twin.remember(rows[m])
            torch.testing.assert_close(y[0, m].double(), rows[m]["feature"], atol=1e-5, rtol=1e-5)
            past = rows[m]["past"]
            assert valid[0, m].sum() == len(past) and wait[0, m] == rows[m]["wait"]
            if past:
                torch.testing.assert_close(memory[0, m, -len(past) :].double(), torch.stack(past), atol=1e-5, rtol=1e-5)
        assert torch.equal(y[0, 1], x[0, 1]) and not valid[0, 1].any()
    assert len(rows[0]["past"]) == 3


@torch.inference_mode()
def test_query_interaction_equals_the_slow_one_of_the_valid_rows():
    tracker = tiny_mutr3d(5)
    query, features = _noise(1, 7, 32), _noise(1, 7, 16, seed=1)
    valid = torch.tensor([[True, False, True, True, False, False, True]])
    ours = tracker.query_interact(query, features, valid)
    rows = [
        dict(position=query[0, m, :16].double(), content=query[0, m, 16:].double(), feature=features[0, m].double())
        for m in valid[0].nonzero()[:, 0].tolist()
    ]
    _twin(tracker).interact(rows)
    expected = torch.stack([torch.cat([row["position"], row["content"]]) for row in rows])
    torch.testing.assert_close(ours[valid].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ego_update", ["exact", "as_released"])
@torch.inference_mode()
def test_sequence_equals_the_slow_one(ego_update):
    """Same identities, boxes, queries and memories over births, weak frames, deaths, drops, ego turns, uneven times."""
    tracker = tiny_mutr3d(0, ego_update=ego_update)
    twin, state = _twin(tracker), tracker.init_state()
    events = dict.fromkeys(("births", "deaths", "hidden", "comebacks"), 0)
    ids_before, seen_before = set(), set()
    for frame in uneven(drive(14, start=1)):
        expected = twin.step(*scene(frame))
        state, tracks = tracker.step(state, frame)
        ids = set(state.track_id[0][state.track_id[0] >= 0].tolist())
        seen = set(tracks.track_id[0][tracks.valid[0]].tolist())
        assert ids == {row["id"] for row in twin.tracks}
        assert seen == {row["id"] for row in expected}
        events["births"] += len(ids - ids_before)
        events["deaths"] += len(ids_before - ids)
        events["hidden"] += len(ids - seen)
        events["comebacks"] += len((ids_before - seen_before) & seen)
        ids_before, seen_before = ids, seen
        for row in twin.tracks:
            _assert_same_track(state, row)
    assert (state.dropped.item(), state.next_id.item()) == (twin.dropped, twin.next_id)
    assert min(events.values()) >= 3, events  # otherwise this test has shown little
    assert twin.dropped > 0


def _assert_same_track(state, row: dict) -> None:
    slot = state.track_id[0].tolist().index(row["id"])
    past = row["past"]
    pairs = [
        (state.box[0, slot], row["box"]),
        (state.reference[0, slot], row["reference"]),
        (state.query[0, slot], torch.cat([row["position"], row["content"]])),
        (state.memory[0, slot][len(state.memory[0, slot]) - len(past) :], torch.stack(past)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-4)
    assert state.memory_valid[0, slot].sum() == len(past) and state.memory_wait[0, slot] == row["wait"]
    assert (state.label[0, slot].item(), state.misses[0, slot].item()) == (row["label"], row["misses"])
    assert state.age[0, slot] == row["age"]
    assert state.score[0, slot].item() == pytest.approx(row["score"], abs=1e-5)


@torch.inference_mode()
def test_missing_camera_equals_the_slow_one_that_never_had_it():
    tracker, frame = tiny_mutr3d(3), make_frame(5, global_from_model=pose())
    frame.camera_valid[0, 1], frame.image_from_model[0, 1] = False, float("nan")
    twin = _twin(tracker)
    twin.step(*scene(frame))
    state, _ = tracker.step(tracker.init_state(), frame)
    assert len(twin.tracks) >= 2
    assert sorted(state.track_id[0][state.track_id[0] >= 0].tolist()) == [row["id"] for row in twin.tracks]
    for row in twin.tracks:
        _assert_same_track(state, row)


@torch.inference_mode()
def test_parallel_rows_equal_the_slow_ones_that_see_nobody():
    """SynCL's second branch: no self-attention and no norm after it; reference points of their own."""
    tracker, frame = tiny_mutr3d(6), make_frame(7)
    observation = tracker.observe(tracker.init_state(), frame, all_layers=True, parallel=True)
    alone = tracker.observe(tracker.init_state(), frame, all_layers=True)
    torch.testing.assert_close(observation.head.box, alone.head.box, atol=1e-4, rtol=1e-5)
    queries = tracker.object_queries(alone.memory)
    twin, slots = _twin(tracker), tracker.config.model.num_queries
    x, reference = queries.content[0].double(), queries.reference[0].double()
    views = (twin.encode(frame.images[0]), frame.image_from_model[0], frame.camera_valid[0], (48, 96))
    assert isinstance(queries, SizedQueries)
    for i in range(3):
        layer = f"pts_bbox_head.transformer.decoder.layers.{i}"
        where = zip(x, queries.position[0].double(), reference, strict=True)
        x = twin.norm(
            f"{layer}.norms.1", torch.stack([twin.sample(f"{layer}.attentions.1", *w, *views) for w in where])
        )
        hidden = twin.linear(f"{layer}.ffns.0.layers.0.0", x).clamp(min=0)
        x = twin.norm(f"{layer}.norms.2", x + twin.linear(f"{layer}.ffns.0.layers.1", hidden))
        torch.testing.assert_close(observation.parallel.features[i, 0, :slots].double(), x, atol=1e-4, rtol=1e-5)
        raw = twin.mlp(f"pts_bbox_head.reg_branches.{i}", x, (0, 2, 4))
        reference = (raw[:, [0, 1, 4]] + torch.logit(reference)).sigmoid()
    ours = observation.parallel.reference[0, :slots].double()
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)
    assert (observation.parallel.features - observation.head.features).abs().max() > 0.1
