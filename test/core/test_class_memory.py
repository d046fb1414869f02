"""A track's class by all its frames: against sums in lists, track by track, for every tracker."""

import dataclasses

import pytest
import torch
from test_duplicates import TRACKERS

from syncl_core.config import SynclConfig, TrackConfig, with_values
from syncl_core.errors import InputError

KINDS = [kind for kind in TRACKERS if not kind.endswith("detector")]


@pytest.mark.parametrize("memory", (0.0, 0.5, 1.0))
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_class_is_what_the_frames_come_to(kind, memory):
    """Rows and their places stay what they are without the option; only classes differ, where they should."""
    make, frames = TRACKERS[kind]
    plain, tracker = make(), make(class_memory=memory)
    assert plain.config.track.class_memory == 0
    state, past, differ, long = tracker.init_state(), {}, 0, 0
    for frame in frames(8):
        observation = _moody(tracker.observe(state, frame))
        decision = tracker.judge(observation)
        state, free = tracker.commit(observation, decision), plain.commit(observation, decision)
        ours, theirs = getattr(state, "slots", state), getattr(free, "slots", free)
        for name in ("track_id", "box", "score", "misses", "age"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        past = _slowly(past, observation, decision, ours, memory, tracker.config)
        expected = {track: label for track, (_, label) in past.items()}
        assert dict(_alive(ours, "label")) == expected
        for track, evidence in _alive(ours, "evidence"):
            assert evidence == pytest.approx(past[track][0], rel=1e-5)
        assert not ours.evidence[ours.track_id < 0].any()
        differ += sum(label != expected[track] for track, label in _alive(theirs, "label"))
        long += sum(age > 1 for _, age in _alive(ours, "age"))
    assert long >= 5 and (differ >= 3 if memory else differ == 0), (long, differ)


def _moody(observation):
    """What an untrained network says of a row's class hardly changes; here it does, with every frame."""
    name = "head" if observation.refined is None else "refined"
    said = getattr(observation, name)
    generator = torch.Generator().manual_seed(int(observation.state.t_ns[0]) % 2**31)
    moods = torch.randn(said.logits.shape, generator=generator)
    return dataclasses.replace(observation, **{name: dataclasses.replace(said, logits=said.logits + 2 * moods)})


def _alive(rows, name: str) -> list[tuple]:
    """Identity and value of every track of the first scene."""
    pairs = zip(rows.track_id[0].tolist(), getattr(rows, name)[0].tolist(), strict=True)
    return [pair for pair in pairs if pair[0] >= 0]


def _slowly(past: dict, observation, decision, rows, memory: float, config: SynclConfig) -> dict:
    """Sums of probabilities and class by identity. A track is the row with its box; an unseen one stays as it was."""
    said = observation.refined or observation.head
    logits, box = (x if x.ndim == 3 else x[-1] for x in (said.logits, said.box))
    now = {}
    for track, place in zip(rows.track_id[0].tolist(), rows.box[0], strict=True):
        if track < 0:
            continue
        row = [i for i in range(box.shape[1]) if torch.equal(box[0, i], place) and decision.seen[0, i]]
        if not row:
            now[track] = past[track]
            continue
        probability = logits[0, row[0]].sigmoid().tolist()
        before = past[track][0] if track in past else [0.0] * len(probability)
        sums = [memory * b + p for b, p in zip(before, probability, strict=True)]
        label, tracked = max(range(len(sums)), key=probability.__getitem__), config.num_tracking_classes
        now[track] = (sums, max(range(tracked), key=sums.__getitem__) if label < tracked else label)
    return now


@pytest.mark.parametrize("value", (-0.1, 1.1, float("nan")))
def test_impossible_values_are_named(value):
    with pytest.raises(InputError, match="^track.class_memory: must be within 0 and 1"):
        with_values(SynclConfig(), {"track": {"class_memory": value}})
    assert TrackConfig().class_memory == 0
