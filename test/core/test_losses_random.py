"""Any frame at all: nothing to find, one object, more objects than queries, all costs alike, broken outputs."""

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import judge, leaves, make_case, make_criterion, make_strategy

from syncl_core.errors import InputError
from syncl_core.losses.matching import match_tracks
from syncl_core.losses.padding import clean_targets

STRATEGIES = {
    "baseline": {"enabled": False},
    "syncl": {},
    "all objects": {"matching": {"objects": "all"}, "contrastive": {"anchor": "symmetric", "blocks": "all"}},
    "serial": {"matching": {"decoder": "serial", "objects": "new_born"}},
    "overlap": {"filter": {"method": "sim_ota"}},
}


@st.composite
def frames(draw):
    """An observation and its targets; in some every object query says the same, so that all costs are ties."""
    scenes = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=3))
    observation, targets = make_case(
        draw(st.integers(0, 10_000)),
        objects=tuple(objects for objects, _, _ in scenes),
        tracks=tuple(min(objects, tracks) for objects, tracks, _ in scenes),
        vanished=tuple(vanished for _, _, vanished in scenes),
        queries=draw(st.integers(1, 8)),
        padding=draw(st.integers(0, 2)),
    )
    return (_all_alike(observation) if draw(st.booleans()) else observation), targets


def _all_alike(observation):
    parts = {}
    for name in ("head", "parallel", "refined"):
        part = getattr(observation, name)
        values = {}
        for field in ("logits", "box", "features"):
            value = getattr(part, field).detach()
            alike = value[..., :1, :].expand_as(value)
            values[field] = torch.where((observation.track_id < 0)[..., None], alike, value).requires_grad_()
        parts[name] = dataclasses.replace(part, **values)
    return dataclasses.replace(observation, **parts)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(frame=frames(), name=st.sampled_from(list(STRATEGIES)))
def test_losses_are_finite_and_everybody_owns_at_most_one(frame, name):
    observation, targets = frame
    result = judge(make_criterion(make_strategy(STRATEGIES[name])), observation, targets)
    total = sum(result.losses.values())
    assert total.isfinite()
    gradients = torch.autograd.grad(total, list(leaves(observation).values()), allow_unused=True)
    valid = observation.valid
    for gradient in gradients:
        assert gradient is None or gradient[..., valid, :].isfinite().all()
    if "kept" in result.stats:
        assert result.stats["kept"].isnan() or 0 <= result.stats["kept"] <= 5
    objects = clean_targets(targets)
    tracks = match_tracks(observation.track_id, valid, objects)
    for b in range(valid.shape[0]):
        owned = result.identity[b][result.identity[b] >= 0].tolist()
        there = set(objects.identity[b][objects.valid[b]].tolist())
        kept = set(objects.identity[b][tracks.persistent[b]].tolist())
        queries = int((valid[b] & (observation.track_id[b] < 0)).sum())
        assert len(owned) == len(set(owned)) and kept <= set(owned) <= there
        assert len(owned) == len(kept) + min(queries, len(there - kept))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(frame=frames(), seed=st.integers(0, 10_000))
def test_the_broken_row_is_named(frame, seed):
    """One number that is none, anywhere in a row that counts."""
    observation, targets = frame
    dice = random.Random(seed)
    layer, field = dice.randrange(2), dice.choice(["logits", "box"])
    scene, row = dice.choice(observation.valid.nonzero().tolist())
    broken = getattr(observation.head, field).detach().clone()
    broken[layer, scene, row, dice.randrange(broken.shape[-1])] = dice.choice([float("nan"), float("inf")])
    observation = dataclasses.replace(observation, head=dataclasses.replace(observation.head, **{field: broken}))
    with pytest.raises(InputError, match=f"decoder layer {layer}, scene {scene} of the batch, row {row}"):
        judge(make_criterion(make_strategy({})), observation, targets)
