"""Track rows with a class head of their own (OneTrack), in every framework; and features before the last norm."""

import dataclasses

import pytest
import torch
from tiny_mutr3d import tiny_mutr3d
from tiny_petrv2 import tiny_petrv2
from tiny_stream import stream_drive, tiny_stream
from tiny_tracker import drive, tiny_tracker

from syncl_core.checkpoint import load_checkpoint, save_checkpoint
from syncl_core.config import SynclConfig, check_config, with_values
from syncl_core.errors import InputError
from syncl_core.model_config import ModelConfig
from syncl_core.tracking.base import assigned
from syncl_core.tracking.build import build_tracker

TRACKERS = {
    "petr": lambda: tiny_tracker(34),
    "petrv2": lambda: tiny_petrv2(4),
    "detr3d": lambda: tiny_mutr3d(3),
    "stream_petr": lambda: tiny_stream("mutr3d", 5),
}
FRAMES = {"stream_petr": stream_drive}


def _with_two_heads(plain, apart: bool):
    """The same tracker with the switch; where `apart`, track rows have other weights than object rows."""
    config = dataclasses.replace(plain.config, model=dataclasses.replace(plain.config.model, track_class_head=True))
    tracker, generator = build_tracker(config), torch.Generator().manual_seed(1)
    state = plain.state_dict()
    for name in tracker.state_dict().keys() - state.keys():
        twin = name.replace("track_cls_branches", "cls_branches").replace("known_track_cls", "track_cls")
        assert twin != name
        state[name] = state[twin].clone()
    tracker.load_state_dict(state)
    for name, value in tracker.named_parameters():
        if apart and ("track_cls_branches" in name or "known_track_cls" in name):
            value.data.add_(torch.rand(value.shape, generator=generator) * 0.6 - 0.3)
    return tracker


def _observe(tracker, kind: str):
    """The second frame of a drive; the first three object queries of the first frame are tracks."""
    first, second = FRAMES.get(kind, drive)(2)
    observation = tracker.observe(tracker.init_state(), first)
    identity = torch.full_like(observation.track_id, -1)
    identity[:, :3] = torch.arange(3)
    state = tracker.commit(observation, assigned(identity))
    return tracker.observe(state, second, all_layers=True, parallel=True)


def _slow_logits(branch: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Linear, norm, ReLU, linear, norm, ReLU, linear, from their definitions."""
    x, parts = x.double(), list(branch)
    for linear, norm in ((parts[0], parts[1]), (parts[3], parts[4])):
        x = linear.weight.double() @ x + linear.bias.double()
        x = (x - x.mean()) / (x.var(correction=0) + norm.eps).sqrt() * norm.weight.double() + norm.bias.double()
        x = x.clamp(min=0)
    return parts[6].weight.double() @ x + parts[6].bias.double()


@pytest.mark.parametrize("kind", TRACKERS)
@torch.no_grad()
def test_each_row_is_classified_by_its_own_head(kind):
    plain = TRACKERS[kind]()
    tracker, same = _with_two_heads(plain, apart=True), _with_two_heads(plain, apart=False)
    seen, equal, before = (_observe(x, kind) for x in (tracker, same, plain))
    rows, queries = torch.nonzero(seen.valid[0]).flatten().tolist(), plain.config.model.num_queries
    assert sum(row >= queries for row in rows) == 3
    head = tracker.pts_bbox_head
    for part in ("head", "parallel"):
        output, changed = getattr(seen, part), 0
        for layer in range(output.logits.shape[0]):
            for row in rows:
                branches = head.track_cls_branches if row >= queries else head.cls_branches
                expected = _slow_logits(branches[layer], output.features[layer, 0, row])
                torch.testing.assert_close(output.logits[layer, 0, row].double(), expected, atol=1e-4, rtol=1e-4)
        difference = (output.logits - getattr(before, part).logits)[:, 0, rows].abs().amax(dim=(0, 2))
        for row, change in zip(rows, difference.tolist(), strict=True):
            assert (change > 0.01) == (row >= queries)
            changed += change > 0.01
        assert changed == 3
        torch.testing.assert_close(
            getattr(equal, part).logits[:, :, rows], getattr(before, part).logits[:, :, rows], atol=1e-4, rtol=1e-4
        )
    if seen.refined is not None:
        reasoner = tracker.STReasoner
        for row in rows:
            branch = reasoner.known_track_cls if row >= queries else reasoner.track_cls
            expected = _slow_logits(branch, seen.refined.features[0, row])
            torch.testing.assert_close(seen.refined.logits[0, row].double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_head_learns_from_its_own_rows_only(kind):
    tracker = _with_two_heads(TRACKERS[kind](), apart=True)
    tracker.requires_grad_(True)
    seen, queries = _observe(tracker, kind), tracker.config.model.num_queries
    tracks = slice(queries, queries + 3)
    names = [name for name, _ in tracker.named_parameters() if "cls" in name]
    for rows, of_tracks in ((slice(0, queries), False), (tracks, True)):
        said = [seen.head.logits[:, :, rows], seen.parallel.logits[:, :, rows]]
        said += [] if seen.refined is None else [seen.refined.logits[:, rows]]
        weights = [tracker.get_parameter(name) for name in names]
        gradients = torch.autograd.grad(sum(x.sum() for x in said), weights, allow_unused=True, retain_graph=True)
        taught = {name for name, g in zip(names, gradients, strict=True) if g is not None and g.abs().sum() > 0}
        own = {name for name in names if ("track_cls_branches" in name or "known_track_cls" in name) == of_tracks}
        assert taught == {name for name in own if not name.endswith((".0.bias", ".3.bias"))} | (taught & own)


def test_a_checkpoint_keeps_both_heads(tmp_path):
    tracker = _with_two_heads(TRACKERS["petr"](), apart=True)
    save_checkpoint(tmp_path / "two.safetensors", tracker)
    loaded = load_checkpoint(tmp_path / "two.safetensors")
    assert loaded.config.model.track_class_head
    for (name, a), b in zip(tracker.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("detector", ["petr", "stream_petr"])
def test_a_detector_has_no_tracks_to_classify(detector):
    model = ModelConfig(framework="none", detector=detector, track_class_head=True)
    with pytest.raises(InputError, match="^model.track_class_head: framework none has no tracks"):
        check_config(SynclConfig(model=model))


@pytest.mark.parametrize("kind", ["petr", "petrv2", "stream_petr"])
@torch.no_grad()
def test_raw_features_become_the_normed_ones(kind):
    tracker = TRACKERS[kind]()
    seen, norm = _observe(tracker, kind), tracker.pts_bbox_head.transformer["decoder"].post_norm
    for output in (seen.head, seen.parallel):
        x = output.raw[:, seen.valid].double()
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
        expected = x * norm.weight.double() + norm.bias.double()
        torch.testing.assert_close(output.features[:, seen.valid].double(), expected, atol=1e-4, rtol=1e-4)
        assert (output.features - output.raw)[:, seen.valid].abs().max() > 0.05


def test_detr3d_has_no_raw_features():
    raw = {"syncl": {"contrastive": {"features": "raw"}}}
    assert with_values(SynclConfig(), raw).syncl.contrastive.features == "raw"
    detr3d = {"model": {"framework": "mutr3d", "detector": "detr3d"}}
    with pytest.raises(InputError, match="^syncl.contrastive.features: detr3d has no norm"):
        with_values(SynclConfig(), detr3d | raw)
