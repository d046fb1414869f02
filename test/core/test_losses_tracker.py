"""The losses on a real tracker: who learns from whom, clips unrolled through the tracker's own steps, two processes."""

import dataclasses

import pytest
import torch
from loss_cases import judge, make_case, make_criterion, make_strategy
from tiny_tracker import drive, make_frame, stack, tiny_config, tiny_tracker
from torch import distributed, multiprocessing

from syncl_core.losses.criterion import Criterion
from syncl_core.losses.matching import assign
from syncl_core.losses.padding import clean_targets
from syncl_core.losses.syncl.hybrid_matching import match_one_to_many
from syncl_core.models.box_code import encode_boxes
from syncl_core.tensors import Targets
from syncl_core.tracking.base import assigned


def _world(step: int, identities=(3, 5, 8, 9, 11), seed: int = 0) -> Targets:
    """Objects that drift apart, one of which comes late and one of which goes early."""
    generator = torch.Generator().manual_seed(seed)
    count = len(identities)
    center = torch.rand(count, 3, generator=generator) * 20 - 10
    velocity = torch.rand(count, 2, generator=generator) * 4 - 2
    center[:, :2] += velocity * 0.5 * step
    size = torch.rand(count, 3, generator=generator) * 3 + 1
    box = encode_boxes(center, size, torch.rand(count, generator=generator) * 6, velocity)
    valid = torch.ones(count, dtype=torch.bool)
    valid[0], valid[1] = step >= 1, step < 2
    return Targets(
        valid=valid[None],
        identity=torch.tensor(identities)[None],
        label=torch.randint(0, 10, (count,), generator=generator)[None],
        box=box[None],
        motion=(velocity * 0.5)[None, :, None].expand(-1, -1, 8, -1),
        motion_valid=torch.ones(1, count, 8, dtype=torch.bool),
    )


def _criterion(values: dict) -> Criterion:
    torch.manual_seed(0)
    strategy = make_strategy(values)
    return Criterion(dataclasses.replace(tiny_config(), syncl=strategy))


def _second_frame(tracker):
    """A state whose tracks own three objects of the second frame, as a leaf, and that frame's observation."""
    with torch.no_grad():
        observation = tracker.observe(tracker.init_state(), drive(1)[0], all_layers=True)
        identity = judge(_criterion({"enabled": False}), observation, _world(0)).identity
        state = tracker.commit(observation, assigned(identity))
    assert sorted(state.track_id[0][state.track_id[0] >= 0].tolist()) == [5, 8, 9, 11]
    state = dataclasses.replace(
        state, query=state.query.clone().requires_grad_(), reference=state.reference.clone().requires_grad_()
    )
    return state, tracker.observe(state, drive(2)[1], all_layers=True, parallel=True)


def _grads(losses: list[torch.Tensor], state) -> float:
    grads = torch.autograd.grad(sum(losses), [state.query, state.reference], allow_unused=True, retain_graph=True)
    return sum(0.0 if g is None else g.abs().sum().item() for g in grads)


def test_object_queries_of_the_parallel_decoder_do_not_touch_tracks_before_the_contrastive_term():
    """There is no attention between them; only the contrastive term joins them."""
    state, observation = _second_frame(tiny_tracker(34))
    criterion = _criterion({"parallel": {"track_loss": False}})
    losses = judge(criterion, observation, _world(1)).losses
    assert losses["parallel_box"] > 0 and losses["contrastive"] > 0
    assert _grads([losses["parallel_class"], losses["parallel_box"]], state) == 0.0
    assert _grads([losses["contrastive"]], state) == 0.0  # all pairs begin alike
    torch.nn.init.normal_(criterion.strategy.contrast.mlp[-1].weight)
    assert _grads([judge(criterion, observation, _world(1)).losses["contrastive"]], state) > 0
    assert _grads([losses["class"], losses["box"]], state) > 0
    tracks_too = judge(_criterion({}), observation, _world(1)).losses
    assert _grads([tracks_too["parallel_class"], tracks_too["parallel_box"]], state) > 0


def test_decoders_agree_where_self_attention_and_its_norm_are_bypassed():
    tracker = tiny_tracker(34)
    _, observation = _second_frame(tracker)
    assert (observation.head.logits - observation.parallel.logits)[..., observation.valid[0], :].abs().max() > 1e-2
    with torch.no_grad():
        for layer in tracker.pts_bbox_head.transformer["decoder"].layers:
            layer.attentions[0]["attn"].out_proj.weight.zero_()
            layer.attentions[0]["attn"].out_proj.bias.zero_()
            layer.norms[0] = torch.nn.Identity()
    state, observation = _second_frame(tracker)
    rows = observation.valid[0]
    for name in ("logits", "box", "features"):
        serial, parallel = (getattr(x, name)[:, :, rows] for x in (observation.head, observation.parallel))
        torch.testing.assert_close(serial, parallel, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("objects", ["persistent", "new_born", "all"])
def test_one_to_many_stays_in_its_range_of_objects(objects):
    """New-born objects are never matched by default; each object takes 0 to K object queries, tracks none."""
    for seed in range(8):
        observation, targets = make_case(seed, objects=(6, 5), tracks=(3, 2), queries=12)
        targets = clean_targets(targets)
        strategy = make_strategy({"matching": {"objects": objects}})
        criterion = make_criterion(strategy)
        result = assign(observation, targets, strategy.loss)
        output, tracks = observation.parallel, result.tracks
        many = match_one_to_many(
            *(output.logits, output.box, result.rows, targets, tracks, criterion.strategy.query_filter),
            *(strategy.matching, strategy.loss),
        )
        new = targets.valid & ~tracks.persistent
        allowed = {"persistent": tracks.persistent, "new_born": new, "all": targets.valid}[objects]
        assert (many.target[:, ~result.rows] == -1).all()
        counts = torch.zeros(2, 2, targets.valid.shape[1], dtype=torch.int64)
        for layer, b, m in torch.nonzero(many.target >= 0).tolist():
            counts[layer, b, many.target[layer, b, m]] += 1
        assert (counts[:, ~allowed] == 0).all()
        assert counts.max() <= 5 and 0 < counts.sum() < 5 * 2 * allowed.sum()


@pytest.mark.parametrize("values", [{"enabled": False}, {"contrastive": {"anchor": "symmetric"}}])
def test_a_clip_teaches_every_parameter_and_its_loss_falls(values):
    torch.manual_seed(0)
    tracker, criterion = tiny_tracker(34).train(), _criterion(values)
    tracker.requires_grad_(True)
    modules = torch.nn.ModuleList([tracker, criterion])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=3e-3)
    for module in tracker.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.BatchNorm2d)):
            module.eval()
    totals = []
    for _ in range(8):
        state, losses = tracker.init_state(), []
        for step, frame in enumerate(drive(3)):
            observation = tracker.observe(state, frame, True, criterion.config.needs_parallel)
            result = judge(criterion, observation, _world(step))
            state = tracker.commit(observation, assigned(result.identity))
            losses += [*result.losses.values(), *criterion.forecast(state, _world(step)).values()]
            present = _world(step)
            expected = sorted(present.identity[present.valid].tolist())
            assert sorted(state.track_id[0][state.track_id[0] >= 0].tolist()) == expected
        total = torch.stack(losses).sum()
        optimizer.zero_grad()
        total.backward()
        if not totals:
            silent = [n for n, p in modules.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
            assert not silent
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 35.0)
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.85 * totals[0]


def test_scenes_of_a_real_batch_are_averaged():
    tracker, criterion = tiny_tracker(34), _criterion({})
    worlds = [_world(1, seed=s) for s in (0, 1)]
    both = Targets(**{f.name: torch.cat([getattr(w, f.name) for w in worlds]) for f in dataclasses.fields(Targets)})
    frames = [make_frame(1), make_frame(2)]
    observation = tracker.observe(tracker.init_state(2), stack(frames), True, True)
    whole = judge(criterion, observation, both).losses["class"]
    singles = []
    for frame, world in zip(frames, worlds, strict=True):
        observation = tracker.observe(tracker.init_state(), frame, True, True)
        singles.append(judge(criterion, observation, world).losses["class"])
    torch.testing.assert_close(torch.stack(singles).mean(), whole)


# --- two processes ---


def _gradient(scene: int | None) -> torch.Tensor:
    """Of all losses in a weight every prediction shares; of one scene, or of the batch of both."""
    observation, targets = make_case(11, objects=(6, 2), tracks=(4, 1), vanished=(0, 1))
    criterion = make_criterion(make_strategy({}))
    if scene is not None:
        pick = slice(scene, scene + 1)
        targets = Targets(**{f.name: getattr(targets, f.name)[pick] for f in dataclasses.fields(Targets)})
        parts = {}
        for part, axis in (("head", 1), ("parallel", 1), ("refined", 0)):
            value = getattr(observation, part)
            rows = {n: getattr(value, n).narrow(axis, scene, 1) for n in ("logits", "box", "features")}
            parts[part] = dataclasses.replace(value, **rows)
        observation = dataclasses.replace(
            observation, track_id=observation.track_id[pick], valid=observation.valid[pick], **parts
        )
    shared = torch.ones(10, requires_grad=True)
    for part in ("head", "parallel", "refined"):
        value = getattr(observation, part)
        moved = dataclasses.replace(
            value, logits=value.logits.nan_to_num() * shared, box=value.box.nan_to_num() * shared
        )
        observation = dataclasses.replace(observation, **{part: moved})
    losses = judge(criterion, observation, targets).losses
    return torch.autograd.grad(sum(losses.values()), shared)[0]


def _worker(rank: int, meeting: str, results) -> None:
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    gradient = _gradient(rank)
    distributed.all_reduce(gradient)
    if rank == 0:
        results.put((gradient / 2).tolist())
    distributed.destroy_process_group()


def test_two_processes_give_the_gradient_of_one_with_both_scenes(tmp_path):
    meeting = (tmp_path / "meeting").as_uri()
    results = multiprocessing.get_context("spawn").SimpleQueue()
    workers = multiprocessing.start_processes(_worker, (meeting, results), nprocs=2, join=False, start_method="spawn")
    found = results.get()
    workers.join()
    torch.testing.assert_close(torch.tensor(found), _gradient(None), atol=1e-5, rtol=1e-5)
    alone = (_gradient(0) + _gradient(1)) / 2
    assert (alone - _gradient(None)).abs().max() > 1e-3  # without the shared divisor it would differ
