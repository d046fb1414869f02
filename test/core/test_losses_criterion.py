"""The criterion against its slow twin: every loss and gradient, every switch of the strategy, padding and batches."""

import dataclasses
import math
import random

import pytest
import torch
from loss_cases import contrast_weights, doubled, judge, leaves, make_case, make_criterion, make_strategy, matched
from slow_frame_loss import SlowFrame

from syncl_core.losses.syncl.contrastive import InstanceContrast, Pairs

SWITCHES = {
    "baseline": {"enabled": False},
    "syncl": {},
    "object_loss_only": {"parallel": {"track_loss": False}},
    "track_loss_only": {"parallel": {"object_loss": False}},
    "scores_by_place": {"loss": {"quality_distance": 1.0}},
    "ground_costs_more": {"loss": {"ground_cost": 4.0}},
    "rare_classes": {"loss": {"class_balance": 0.5}},
    "half_weight": {"parallel": {"weight": 0.5}, "contrastive": {"weight": 0.25}},
    "background_in_empty_frames": {"parallel": {"empty_frames": "background"}},
    "ignore_new_born": {"parallel": {"new_born": "ignore"}},
    "ignore_rejected": {"parallel": {"rejected": "ignore"}},
    "serial_normalizer": {"parallel": {"normalizer": "serial"}},
    "one_matching": {"matching": {"every_block": False}},
    "new_born": {"matching": {"objects": "new_born"}},
    "all": {"matching": {"objects": "all"}},
    "serial": {"matching": {"decoder": "serial", "objects": "new_born"}},
    "top_k": {"filter": {"method": "top_k", "candidates": 3}},
    "deta": {"filter": {"method": "deta", "candidates": 4}},
    "all_blocks": {"filter": {"pool": "all_blocks"}},
    "all_pairs": {"filter": {"pool": "all_pairs"}},
    "force_best": {"filter": {"force_best": True, "candidates": 2}},
    "track_anchor": {"contrastive": {"anchor": "track"}, "matching": {"objects": "all"}},
    "symmetric": {"contrastive": {"anchor": "symmetric", "temperature": 0.5}},
    "all_blocks_contrast": {"contrastive": {"blocks": "all", "mlp_dim": 0}},
    "raw_features": {"contrastive": {"features": "raw"}},
    "vanished": {"contrastive": {"vanished_negatives": True}},
    "stop_gradient": {"contrastive": {"stop_gradient": "object"}},
}


CASES = {
    "usual": {},
    "no_objects": {"objects": (0, 0), "tracks": (0, 0), "padding": 0},
    "one_object": {"objects": (1, 0), "tracks": (0, 0), "vanished": (0, 0)},
    "one_persistent": {"objects": (2, 3), "tracks": (1, 1)},
    "first_frame": {"objects": (3, 4), "tracks": (0, 0), "vanished": (0, 0)},
    "some_first_frame": {"objects": (3, 4, 5), "tracks": (0, 2, 4), "vanished": (0, 2, 1)},
    "crowd": {"objects": (6, 5), "tracks": (1, 1), "queries": 3},
    "only_persistent": {"objects": (4, 5), "tracks": (4, 5), "vanished": (0, 0)},
}


PAIRS = [(switch, "usual") for switch in SWITCHES]
PAIRS += [("rare_classes", "crowd")]  # where classes come twice
PAIRS += [(switch, case) for case in CASES for switch in ("baseline", "syncl") if case != "usual"]


@pytest.mark.parametrize("switch, case", PAIRS)
def test_losses_and_gradients_equal_the_slow_ones(switch, case):
    _compare(make_strategy(SWITCHES[switch]), *make_case(7, **CASES[case]))


@pytest.mark.parametrize("seed", range(14))
def test_random_frames(seed):
    """Any number of scenes, objects, tracks and queries, under any two switches."""
    dice = random.Random(seed)
    scenes = dice.randint(1, 3)
    objects = tuple(dice.randint(0, 6) for _ in range(scenes))
    tracks = tuple(dice.randint(0, min(n, 4)) for n in objects)
    vanished = tuple(dice.randint(0, 2) for _ in objects)
    shape = {"objects": objects, "tracks": tracks, "vanished": vanished}
    values = {}
    for name in dice.sample([name for name in SWITCHES if name != "serial"], 2):
        for group, keys in SWITCHES[name].items():
            values[group] = values.get(group, {}) | keys if isinstance(keys, dict) else keys
    case = make_case(100 + seed, **shape, queries=dice.randint(2, 8), padding=dice.randint(1, 3))
    _compare(make_strategy(values), *case)


def _compare(strategy, observation, targets) -> None:
    criterion = make_criterion(strategy)
    result = judge(criterion, observation, targets)
    twin, weights = doubled(observation), contrast_weights(criterion)
    slow = SlowFrame(twin, targets, strategy, weights)
    expected = slow.losses()
    assert set(result.losses) == set(expected)
    for name, value in expected.items():
        assert result.losses[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name
    assert result.identity.tolist() == [scene["identity"] for scene in slow.scenes]

    parameters = dict(criterion.strategy.contrast.named_parameters()) if weights else {}
    ours = leaves(observation) | parameters
    theirs = leaves(twin) | {name: weights[name] for name in parameters}
    gradients = _gradients(sum(result.losses.values()), ours)
    for name, expected_gradient in _gradients(sum(expected.values()), theirs).items():
        torch.testing.assert_close(
            *(gradients[name].double(), expected_gradient),
            **{"atol": 2e-5, "rtol": 1e-3, "msg": lambda text, name=name: f"{name}: {text}"},
        )


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_clip_is_the_sum_of_its_frames(switch):
    """Frames differ in objects and tracks; the first one has no track and was not decoded twice if it need not be."""
    strategy = make_strategy(SWITCHES[switch])
    criterion, frames = make_criterion(strategy), []
    for seed, name in enumerate(("first_frame", "usual", "no_objects", "only_persistent", "one_persistent")):
        observation, targets = make_case(20 + seed, **CASES[name])
        alone = not strategy.decodes_twice(tracks=name != "first_frame")
        frames.append((dataclasses.replace(observation, parallel=None) if alone else observation, targets))
    singles = [judge(criterion, *frame) for frame in frames]
    whole = criterion([matched(criterion, *frame) for frame in frames])
    for name, value in whole.losses.items():
        parts = [single.losses[name] for single in singles if name in single.losses]
        torch.testing.assert_close(value, torch.stack(parts).sum(), msg=lambda text, name=name: f"{name}: {text}")
    assert {name for single in singles for name in single.losses} == set(whole.losses)
    for name, value in whole.stats.items():
        parts = [single.stats[name] for single in singles if name in single.stats]
        torch.testing.assert_close(value, torch.stack(parts).nanmean(), msg=lambda text, name=name: f"{name}: {text}")
    inputs = {f"{i}.{name}": leaf for i, frame in enumerate(frames) for name, leaf in leaves(frame[0]).items()}
    inputs |= dict(criterion.named_parameters())
    expected = _gradients(sum(value for single in singles for value in single.losses.values()), inputs)
    for name, gradient in _gradients(sum(whole.losses.values()), inputs).items():
        torch.testing.assert_close(gradient, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def _gradients(total: torch.Tensor, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Zeros where the total does not depend on an input."""
    found = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(inputs.items(), found, strict=True)
    }


@pytest.mark.parametrize("mlp_dim", [9, 0])
def test_the_contrastive_term_begins_at_chance(mlp_dim):
    """Every track of a frame is as likely: the mean over scenes of the logarithms of their numbers."""
    config = make_strategy({"contrastive": {"mlp_dim": mlp_dim, "anchor": "object"}}).contrastive
    contrast, features = InstanceContrast(config, 16), torch.randn(2, 2, 12, 16, requires_grad=True)
    pairs = Pairs(
        query_row=torch.tensor([[[0, 1, 2], [3, 4, 5]]] * 2),
        query_object=torch.tensor([[[0, 1, -1], [2, 2, 0]]] * 2),
        track_row=torch.tensor([[8, 9, 10], [8, 9, 10]]),
        track_valid=torch.tensor([[True, True, False], [True, True, True]]),
    )
    loss = contrast(features, pairs)
    torch.testing.assert_close(loss, torch.tensor([[math.log(2), math.log(3)]] * 2))
    gradients = torch.autograd.grad(loss.sum(), [features, *contrast.parameters()], allow_unused=True)
    assert not gradients[0].any() and any(g is not None and g.any() for g in gradients[1:])


@pytest.mark.parametrize("switch", [name for name in SWITCHES if name != "syncl"])
def test_every_switch_changes_something(switch):
    """Otherwise the test above would show little."""
    strategy = make_strategy(SWITCHES[switch])
    outcomes = []
    for s in (strategy, make_strategy({})):
        observation, targets = make_case(7, **CASES["some_first_frame"])
        result = judge(make_criterion(s), observation, targets)
        grads = torch.autograd.grad(sum(result.losses.values()), observation.parallel.features, allow_unused=True)
        outcomes.append((result.losses, grads[0]))
    (ours, our_grad), (default, default_grad) = outcomes
    same_values = set(ours) == set(default) and all(torch.equal(ours[name], default[name]) for name in ours)
    assert not (same_values and torch.equal(our_grad, default_grad))
