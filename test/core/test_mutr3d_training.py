"""What training asks of MUTR3D: ground-truth identities, gradients across frames, parallel rows, empty scenes."""

import dataclasses

import torch
from tiny_mutr3d import mutr3d_config, tiny_mutr3d
from tiny_tracker import drive, make_frame

from syncl_core.losses.criterion import Criterion
from syncl_core.models.box_code import encode_boxes
from syncl_core.tensors import Targets
from syncl_core.tracking.base import assigned
from syncl_core.tracking.build import build_tracker
from syncl_core.training.clip_model import ClipModel, total_loss

SEED = 0


def _train_step(tracker, state, frame, identity_of_best: int):
    """Observe and commit like training: the best object query owns an object."""
    observation = tracker.observe(state, frame, all_layers=True, parallel=True)
    identity = torch.where(observation.valid, observation.track_id, -1)
    best = observation.head.logits[-1, 0, : tracker.config.model.num_queries].amax(dim=1).argmax()
    identity[0, best] = identity_of_best
    return observation, tracker.commit(observation, assigned(identity))


def test_training_follows_the_ground_truth_and_learns_across_frames():
    tracker = tiny_mutr3d(SEED).train()
    first, second, third = drive(3)
    _, state = _train_step(tracker, tracker.init_state(), first, identity_of_best=40)
    assert state.track_id[0].sort().values.tolist()[-1] == 40 and (state.track_id >= 0).sum() == 1
    assert state.memory_valid.sum() == 1 and state.next_id.item() == 0
    for value in (state.query, state.reference, state.memory, state.box):
        value.retain_grad()
    _, later = _train_step(tracker, state, second, identity_of_best=7)
    assert sorted(later.track_id[0].tolist())[-2:] == [7, 40]
    assert later.memory_valid.sum() == 3  # in training every frame is remembered
    observation, _ = _train_step(tracker, later, third, identity_of_best=9)
    slot = tracker.config.model.num_queries + later.track_id[0].tolist().index(40)
    observation.head.box[:, 0, slot].square().sum().backward()
    for name in ("query", "reference", "memory", "box"):
        gradient = getattr(state, name).grad
        assert gradient.isfinite().all() and gradient.abs().sum() > 0, name
    for name in ("query_interact.self_attn.in_proj_weight", "memory_bank.save_proj.weight", "query_embedding.weight"):
        assert tracker.get_parameter(name).grad.abs().sum() > 0, name


def test_no_object_at_all_gives_finite_gradients():
    tracker = tiny_mutr3d(SEED).train()
    state = tracker.init_state()
    for frame in drive(2):
        observation = tracker.observe(state, frame, all_layers=True, parallel=True)
        state = tracker.commit(observation, assigned(torch.full_like(observation.track_id, -1)))
    assert (state.track_id < 0).all() and not state.query.any()
    objects = observation.head.rows(0, tracker.config.model.num_queries)
    (objects.box.sum() + objects.logits.sum() + state.query.sum()).backward()
    for name, parameter in tracker.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_parallel_object_rows_do_not_teach_tracks():
    tracker = tiny_mutr3d(SEED).train()
    _, state = _train_step(tracker, tracker.init_state(), drive(1)[0], identity_of_best=3)
    state.query.retain_grad()
    observation = tracker.observe(state, drive(2)[1], all_layers=True, parallel=True)
    queries = tracker.config.model.num_queries
    observation.parallel.logits[:, :, :queries].sum().backward(retain_graph=True)
    assert not state.query.grad.any()
    observation.parallel.logits[:, :, queries:].sum().backward(retain_graph=True)
    assert state.query.grad.any()
    state.query.grad = None
    observation.head.logits[:, :, :queries].sum().backward()
    assert state.query.grad.any()  # through self-attention


def test_layers_learn_their_own_refinement():
    """A centre's loss stays in its layer's branch. A size's also reaches the first layer, from the second."""
    tracker = tiny_mutr3d(SEED)
    box = tracker.observe(tracker.init_state(), make_frame(0), all_layers=True).head.box
    last = [branch[-1].bias for branch in tracker.pts_bbox_head.reg_branches]
    centers = torch.autograd.grad(box[2, ..., [0, 1, 4]].sum(), last, retain_graph=True, allow_unused=True)
    for gradient, learns in zip(centers, (False, False, True), strict=True):
        reached = gradient is not None and gradient[[0, 1, 4]].abs().max() > 0
        assert reached == learns
    second = torch.autograd.grad(box[1, ..., [2, 3, 5]].sum(), last[:1], retain_graph=True)[0]
    assert second[[2, 3, 5]].abs().min() > 0
    third = torch.autograd.grad(box[2, ..., [2, 3, 5]].sum(), last[:2], allow_unused=True)
    assert all(gradient is None or not gradient[[2, 3, 5]].any() for gradient in third)


def test_a_missing_camera_spoils_no_gradient():
    tracker, frames = tiny_mutr3d(SEED).train(), drive(2)
    for frame in frames:
        frame.camera_valid[0, 1], frame.image_from_model[0, 1] = False, float("nan")
    _, state = _train_step(tracker, tracker.init_state(), frames[0], identity_of_best=3)
    observation, _ = _train_step(tracker, state, frames[1], identity_of_best=4)
    observation.head.box.square().sum().backward()
    for name, parameter in tracker.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert tracker.reference_points.weight.grad.abs().sum() > 0


def _three_objects(step: int) -> Targets:
    """Two of them move."""
    center = torch.tensor([[[10.0 + step, 3.0, 0.0], [-8.0, 5.0 - step, 0.5], [4.0, -12.0, 0.0]]])
    velocity = torch.tensor([[[2.0, 0.0], [0.0, -2.0], [0.0, 0.0]]])
    size, yaw = torch.tensor([4.0, 2.0, 1.5]).expand(1, 3, 3), torch.tensor([[0.0, 1.0, 2.0]])
    return Targets(
        valid=torch.ones(1, 3, dtype=torch.bool),
        identity=torch.tensor([[5, 6, 7]]),
        label=torch.tensor([[0, 1, 6]]),
        box=encode_boxes(center, size, yaw, velocity),
        motion=torch.zeros(1, 3, 8, 2),
        motion_valid=torch.ones(1, 3, 8, dtype=torch.bool),
    )


def test_a_clip_is_learned_with_both_branches():
    config = mutr3d_config()
    config = dataclasses.replace(config, syncl=dataclasses.replace(config.syncl, enabled=True))
    tracker = build_tracker(config)
    torch.manual_seed(0)  # dropout
    model = ClipModel(tracker, Criterion(config)).train()
    optimizer = torch.optim.AdamW(tracker.parameters(), lr=2e-3)
    frames, targets = tuple(drive(3)), tuple(_three_objects(step) for step in range(3))
    totals = []
    for _ in range(10):
        loss = total_loss(model(frames, targets))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        totals.append(loss.total.item())
    assert {"class", "box", "parallel_class", "parallel_box", "contrastive"} <= loss.losses.keys()
    assert totals[-1] < 0.8 * totals[0], totals
