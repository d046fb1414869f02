"""The StreamPETR trackers on tensors against themselves on lists (slow_stream): parts, frames, whole sequences."""

import pytest
import torch
from slow_stream import SlowStream
from tiny_stream import stream_drive, stream_frame, tiny_stream
from tiny_tracker import make_frame, scene, stack
from torch.utils._pytree import tree_map

from syncl_core.models.motion_norm import FeatureGate, MotionNorm
from syncl_core.models.position import focal_lengths, octave_sine

FRAMEWORKS = ("none", "mutr3d")
SEEDS = {"none": 2, "mutr3d": 5}  # with these enough happens


def _twin(tracker) -> SlowStream:
    return SlowStream(tracker.config, tracker.state_dict(), tracker.img_backbone)


def _close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance, rtol=tolerance)


@torch.inference_mode()
def test_motion_norm_and_gate_are_their_formulas():
    torch.manual_seed(0)
    norm, gate = MotionNorm(5, 8), FeatureGate(8)
    x, code = torch.randn(2, 3, 8), torch.randn(2, 3, 5)
    _close(norm(x, code), torch.nn.functional.layer_norm(x, (8,)), 1e-6)  # before training
    for layer in (norm.gamma, norm.beta):
        torch.nn.init.normal_(layer.weight)
    ours = norm(x, code)
    for b in range(2):
        for r in range(3):
            values = [float(v) for v in x[b, r]]
            mean = sum(values) / 8
            deviation = (sum((v - mean) ** 2 for v in values) / 8 + 1e-5) ** 0.5
            hidden = (norm.reduce[0].weight.double() @ code[b, r].double() + norm.reduce[0].bias).clamp(min=0)
            for d in range(8):
                gamma = float(norm.gamma.weight[d].double() @ hidden + norm.gamma.bias[d])
                beta = float(norm.beta.weight[d].double() @ hidden + norm.beta.bias[d])
                assert ours[b, r, d].item() == pytest.approx(gamma * (values[d] - mean) / deviation + beta, abs=1e-5)
            hidden = (gate.conv_reduce.weight @ x[b, r] + gate.conv_reduce.bias).clamp(min=0)
            factor = 1 / (1 + (-(gate.conv_expand.weight @ hidden + gate.conv_expand.bias)).exp())
            _close(gate(x, x)[b, r], x[b, r] * factor, 1e-6)


def test_octaves_and_focal_lengths_are_their_formulas():
    x = torch.tensor([0.3, -1.7, 2.0], dtype=torch.float64)
    _close(octave_sine(x, 6), SlowStream.octaves(x), 1e-12)
    frame = stream_frame(make_frame(0))
    expected = torch.stack(SlowStream.focal_lengths(frame.image_from_model[0], frame.camera_valid[0]))
    _close(focal_lengths(frame.image_from_model)[0], expected, 1e-9)
    _close(expected[:, 0], torch.tensor([50.0, 1500.0, 600.0]), 1e-9)
    scaled = frame.image_from_model * torch.tensor([[0.7]]).double()  # the projection is the same
    _close(focal_lengths(scaled)[0], expected, 1e-9)


@torch.inference_mode()
@pytest.mark.parametrize("missing", [None, 1])
def test_image_tokens_equal_the_slow_ones(missing):
    tracker, frame = tiny_stream("none", 1), stream_frame(make_frame(1))
    if missing is not None:
        frame.camera_valid[0, missing] = False
        frame.image_from_model[0, missing] = float("nan")
    memory = tracker.encode(frame)
    tokens, positions = _twin(tracker).memory(*scene(frame)[:3])
    valid = memory.valid[0]
    assert valid.sum() == len(tokens) == 8 * (3 if missing is None else 2)
    _close(memory.tokens[0, valid], tokens)
    _close(memory.position[0, valid], positions, 2e-4)  # where a ray leaves the range, one rounding shows


@torch.inference_mode()
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_queries_and_hybrid_attention_equal_the_slow_ones(framework):
    """Rows of a full queue, seen from a later frame, through the whole decoder."""
    tracker = tiny_stream(framework, 2, born=0.4)
    twin, state = _twin(tracker), tracker.init_state()
    *frames, last = stream_drive(5)
    for frame in frames:
        state, _ = tracker.step(state, frame)
    observation = tracker.observe(state, last)
    queries, _, context = tracker.queries(observation.state)
    for ours, theirs in zip(context, _slow_queries(twin, observation.state.queue), strict=True):
        _close(ours[0], theirs[-ours.shape[1] :], 1e-5)
    valid, head = queries.valid[0], observation.head
    ours = (queries.content[0, valid], queries.position[0, valid], *(part[0] for part in context))
    memory = tracker.encode(last)
    theirs = twin.hybrid_decoder(*(x.double() for x in (*ours, memory.tokens[0], memory.position[0])))
    _close(head.features[-1, 0, valid], theirs, 1e-5)


def _slow_queries(twin: SlowStream, entries) -> tuple[torch.Tensor, torch.Tensor]:
    """Content and position of the entries, from the numbers that the network sees."""
    rows = zip(entries.feature[0], entries.center[0], entries.motion()[0], entries.seconds()[0], strict=True)
    found = [
        twin.query(feature.double(), twin.fractions(center.double()), motion.double(), seconds.item())
        for feature, center, motion, seconds in rows
    ]
    return torch.stack([content for content, _ in found]), torch.stack([position for _, position in found])


def _assert_same_memory(tracker, state, twin: SlowStream, now: tuple, row: int = 0) -> None:
    seen = [twin.see(entry, *now) for entry in twin.queue]
    queue = state.queue
    for ours, name in (
        *((queue.feature, "feature"), (queue.center, "center"), (queue.now_from_then, "pose")),
        (queue.motion(), "motion"),
    ):
        _close(ours[row], torch.stack([entry[name] for entry in seen]))
    _close(queue.seconds()[row], torch.tensor([entry["seconds"] for entry in seen], dtype=torch.float64), 1e-9)
    slots = state.slots
    ids = slots.track_id[row].tolist()
    assert sorted(i for i in ids if i >= 0) == sorted(track["id"] for track in twin.tracks)
    for track in twin.tracks:
        slot = ids.index(track["id"])
        _close(slots.box[row, slot], track["box"])
        _close(slots.entry.feature[row, slot], track["feature"])
        _close(slots.entry.center[row, slot], twin.see(track, *now)["center"])
        numbers = (slots.label[row, slot].item(), slots.misses[row, slot].item(), slots.age[row, slot].item())
        assert numbers == (track["label"], track["misses"], track["age"])
        assert slots.score[row, slot].item() == pytest.approx(track["score"], abs=1e-4)
    assert (state.next_id[row].item(), state.dropped[row].item()) == (twin.next_id, twin.dropped)


@torch.inference_mode()
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_scenes_equal_the_slow_ones(framework):
    """Births, misses, deaths, full slots, a turning ego, uneven times; one scene begins anew in the middle."""
    tracker = tiny_stream(framework, SEEDS[framework], born=0.15)
    twins, state = [_twin(tracker), _twin(tracker)], tracker.init_state(2)
    events = {"births": 0, "deaths": 0, "misses": 0, "output": 0, "longest": 0}
    frames = [stream_drive(9), stream_drive(9, start=51)]
    for step in range(9):
        if step == 4:
            twins[1], state = _twin(tracker), _restart(tracker, state, 1)
        now = [drive[step] for drive in frames]
        state, tracks = tracker.step(state, stack(now))
        for row, (twin, frame) in enumerate(zip(twins, now, strict=True)):
            before = {track["id"] for track in twin.tracks}
            shown = twin.step(*scene(frame))
            after = {track["id"] for track in twin.tracks}
            assert set(tracks.track_id[row][tracks.valid[row]].tolist()) == {
                track["id"] for track in shown if _inside(tracker.config, track["box"])
            }
            _assert_same_memory(tracker, state, twin, scene(frame)[3:], row)
            events["births"] += len(after - before)
            events["deaths"] += len(before - after)
            events["misses"] += sum(track["misses"] > 0 for track in twin.tracks)
            events["longest"] = max([events["longest"], *(track["age"] for track in twin.tracks)])
            events["output"] += len(shown)
    assert events["births"] >= 5 and events["deaths"] >= 3 and events["output"] >= 5, events
    if framework == "mutr3d":
        assert events["misses"] >= 3 and events["longest"] >= 3, events


def _inside(config, box: torch.Tensor) -> bool:
    low, high = config.model.position_range[:3], config.model.position_range[3:]
    return all(lo <= box[i] <= hi for i, lo, hi in zip((0, 1, 4), low, high, strict=True))


def _restart(tracker, state, row: int):
    """The state with scene `row` replaced by the empty one."""

    def replace(old: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
        return torch.cat([old[:row], empty, old[row + 1 :]])

    return tree_map(replace, state, tracker.init_state())
