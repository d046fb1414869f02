"""The losses that only help the training along: dense targets and denoising queries, against slow references."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
from loss_cases import make_case
from slow_dense import slow_dense
from slow_losses import importance
from tiny_tracker import tiny_config
from train_fixture import ToySource, toy_config

from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.errors import InputError
from syncl_core.losses.criterion import Criterion
from syncl_core.losses.denoising import Denoising
from syncl_core.losses.dense import DenseHead
from syncl_core.losses.dense_targets import dense_targets, middles
from syncl_core.models import lift
from syncl_core.models.box_code import code_center, denormalize
from syncl_core.models.position import cell_rays
from syncl_core.tracking.build import build_tracker
from syncl_core.training.clip_model import ClipModel, prepare
from syncl_core.training.optimizer import make_optimizer

_HELPED = {"train": {"dense_weight": 0.7, "denoising": 2}}
_OF_VOTES = {"dense_sight", "dense_middle", "dense_belief"}
KINDS = {
    "petr": {},
    "petrv2": {"detector": "petrv2"},
    "detector": {"framework": "none"},
    "detr3d": {"framework": "mutr3d", "detector": "detr3d"},
    "detr3d_votes": {"framework": "mutr3d", "detector": "detr3d", "detr3d": {"votes": True}},
    "detr3d_proposals": {
        **{"framework": "mutr3d", "detector": "detr3d", "num_queries": 30},
        "detr3d": {"votes": True, "proposals": True, "tower": 1},
    },
    "stream": {"framework": "none", "detector": "stream_petr", "depth_bins": 32}
    | {"stream": {"memory_length": 16, "pushed": 8, "propagated": 8}},
}


def _clip(**train):
    config = with_values(toy_config(), {"train": train})
    dataset = ClipDataset(ToySource(), config, augment=bool(train))
    return config, collate([dataset[0], dataset[1]])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [(5, 8), (3, 4), (20, 32)])
def test_dense_targets_equal_the_slow_ones(size, mirrored):
    config, clip = _clip(**({"flip": 1.0, "resize": [1.0, 1.3]} if mirrored else {}))
    for frame, targets in zip(clip.frames, clip.targets, strict=True):
        frame = dataclasses.replace(frame, camera_valid=torch.tensor([[True, True, True], [True, False, True]]))
        image_size = tuple(frame.images.shape[-2:])
        ours = dense_targets(frame, targets, size, image_size)
        of_cells = middles(ours)
        for b in range(2):
            args = (frame.image_from_model[b].numpy(), frame.camera_valid[b], targets.box[b].double().numpy())
            slow = slow_dense(*args, targets.valid[b], size, image_size)
            owner, view, middle, beside = slow
            assert np.array_equal(ours.owner[b].numpy(), owner)
            assert all(np.array_equal(one[b].numpy(), two) for one, two in zip(of_cells, (middle, beside), strict=True))
            known = np.isfinite(view)
            np.testing.assert_allclose(ours.view[b].numpy()[known], view[known], rtol=1e-4, atol=1e-3)
    assert (ours.owner >= 0).any()


def test_a_mirrored_image_has_mirrored_targets():
    """Left and right change places, and so does the side a thing faces; distances stay."""
    _, straight = _clip()
    _, mirrored = _clip(flip=1.0, resize=[1.0, 1.0])
    image_size = tuple(straight.frames[0].images.shape[-2:])
    a = dense_targets(straight.frames[0], straight.targets[0], (5, 8), image_size)
    b = dense_targets(mirrored.frames[0], mirrored.targets[0], (5, 8), image_size)
    assert torch.equal(a.owner, b.owner.flip(-1))
    rows = torch.arange(a.view.shape[2])
    shown = (a.owner.flatten(2)[..., None] == rows).any(dim=2)  # [B, N, G]
    assert shown.any()
    assert torch.allclose(a.view[..., 0][shown], image_size[1] - b.view[..., 0][shown], atol=1e-3)
    assert torch.allclose(a.view[..., 6][shown], -b.view[..., 6][shown], atol=1e-5)
    assert torch.allclose(a.view[..., [1, 2, 3, 4, 5, 7]][shown], b.view[..., [1, 2, 3, 4, 5, 7]][shown], atol=1e-3)


def _plain_focal(p, is_class):
    return float(torch.where(is_class, 0.25 * (1 - p) ** 2 * -p.log(), 0.75 * p**2 * -(1 - p).log()).sum())


def _half_blind(balance=0.0, **model):
    """Frame with a camera missing, targets with two objects of one class, dense head and what the tracker sees."""
    config, clip = _clip()
    config = with_values(config, {"model": model, "syncl": {"loss": {"class_weight": 1.5, "class_balance": balance}}})
    frame = dataclasses.replace(clip.frames[0], camera_valid=torch.tensor([[True, True, False]] * 2))
    targets = dataclasses.replace(clip.targets[0], label=torch.tensor([[0, 6, 0], [1, 1, 6]]))
    tracker, head = build_tracker(config), DenseHead(config)
    return frame, targets, head, tracker.observe(tracker.init_state(2), frame).memory


@pytest.mark.parametrize("balance", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["petr", "detr3d"])
@torch.no_grad()
def test_what_the_dense_loss_counts(kind, balance):
    """It equals focal loss and L1 summed cell by cell; blind cameras and empty frames add nothing but background."""
    frame, targets, head, memory = _half_blind(balance, **KINDS[kind])
    losses = head(memory, frame, targets)
    of_maps = [_slow_dense_loss(maps, head, frame, targets, balance) for maps in memory.feature_maps(frame)]
    of_class, of_view = np.mean(of_maps, axis=0)
    assert losses["dense_class"].item() == pytest.approx(1.5 * of_class, rel=1e-4)
    assert losses["dense_view"].item() == pytest.approx(of_view, rel=1e-4)
    nothing = dataclasses.replace(targets, valid=torch.zeros_like(targets.valid))
    assert head(memory, frame, nothing)["dense_view"] == 0 < head(memory, frame, nothing)["dense_class"]


def _importance(targets, balance):
    """Weights of the objects by scene and row."""
    result = {}
    for b, valid in enumerate(targets.valid.tolist()):
        rows = [g for g, there in enumerate(valid) if there]
        weights = importance([int(targets.label[b, g]) for g in rows], balance)
        result |= {(b, g): weight for g, weight in zip(rows, weights, strict=True)}
    return result


def _slow_dense_loss(maps, head, frame, targets, balance):
    """Of the classes and of the views of one map, without weights of their own."""
    shared = head.shared(maps.flatten(0, 1))
    logits, view = (x.unflatten(0, maps.shape[:2]).double() for x in (head.classes(shared), head.view(shared)))
    image_size = height, width = tuple(frame.images.shape[-2:])
    wanted = dense_targets(frame, targets, tuple(maps.shape[-2:]), image_size)
    cells = Counter(_cells_of(wanted.owner))
    cell = torch.tensor([width / maps.shape[-1], height / maps.shape[-2]])
    of_objects = background = shares = l1 = number = 0.0
    for b, n, i, j in np.ndindex(*wanted.owner.shape):
        if not frame.camera_valid[b, n]:
            continue
        owner = int(wanted.owner[b, n, i, j])
        p = logits[b, n, :, i, j].sigmoid()
        is_class = torch.zeros(len(p), dtype=torch.bool)
        if owner < 0:
            background += _plain_focal(p, is_class)
            continue
        is_class[targets.label[b, owner]] = True
        goal = wanted.view[b, n, owner].double()
        place = (goal[:2] - torch.tensor([j + 0.5, i + 0.5]) * cell) / (2 * cell[1])
        goal = torch.cat([place, goal[2:3] - 4.0, goal[3:]])
        weights = torch.tensor([0.5, 0.5, 3.0, 1, 1, 1, 1, 1])
        l1 += float(((view[b, n, :, i, j] - goal).abs() * weights).sum())
        number += 1
        share = _importance(targets, balance)[b, owner] / math.sqrt(cells[b, n, owner])
        of_objects, shares = of_objects + share * _plain_focal(p, is_class), shares + share
    assert number > 0
    return of_objects / shares + background / number, l1 / number


@pytest.mark.parametrize(("balance", "image_size"), [(0.0, (32, 64)), (0.5, (32, 64)), (0.0, (48, 96))])
@torch.no_grad()
def test_what_the_loss_of_votes_counts(balance, image_size):
    """Cell by cell: what is seen, how deep it comes to lie, where the middle is, and whether there is anything.

    Maps may cover a larger image than there is, which is padded.
    """
    detr3d = {"votes": True, "pad_multiple": image_size[0]}
    frame, targets, head, memory = _half_blind(balance, **KINDS["detr3d_votes"] | {"detr3d": detr3d})
    assert memory.image_size == image_size
    important = _importance(targets, balance)
    losses = head(memory, frame, targets)
    sums = {"dense_sight": [], "dense_middle": [], "dense_belief": []}
    for sights, votes in zip(memory.sights, memory.votes, strict=True):
        size = tuple(sights.shape[2:4])
        wanted = dense_targets(frame, targets, size, image_size)
        is_middle, beside = middles(wanted)
        depth_of = _depths(votes[:, :, :10], frame)
        error = focal = number = 0.0
        doubts, cells = {True: [], False: []}, Counter(_cells_of(wanted.owner))
        for b, n, i, j in np.ndindex(*wanted.owner.shape):
            if not frame.camera_valid[b, n]:
                continue
            owner, sight = int(wanted.owner[b, n, i, j]), sights[b, n, i, j].double()
            belief, middle = sight[10:].sigmoid()
            doubts[owner >= 0].append(-float((belief if owner >= 0 else 1 - belief).log()))
            if not beside[b, n, i, j]:
                focal += important.get((b, owner), 1.0) * _plain_focal(middle[None], is_middle[b, n, i, j][None])
            if owner >= 0:
                code = targets.box[b, owner].expand(2, 3, *size, 10)
                goal = lift.view_of(code, frame.image_from_model, image_size, -1.84)[b, n, i, j]
                weights = torch.tensor([1, 1, 0.2, 1, 1, 1, 1, 1, 0.5, 0.5])
                of_cell = float(((sight[:10] - goal).abs() * weights).sum())
                true_depth = _depths(targets.box[b, owner].view(1, 1, 10, 1, 1).expand(2, 3, -1, -1, -1), frame)
                of_cell += 10 * abs(float((depth_of[b, n, i, j] / true_depth[b, n, 0, 0]).log()))
                share = important[b, owner] / math.sqrt(cells[b, n, owner])
                error, number = error + share * of_cell, number + share
        sums["dense_sight"].append(error / number)
        sums["dense_middle"].append(focal / int(is_middle.sum()))
        sums["dense_belief"].append(sum(np.mean(of) for of in doubts.values() if of))
    for name, values in sums.items():
        assert losses[name].item() == pytest.approx(np.mean(values), rel=1e-3), name


def _cells_of(owner):
    """Scene, camera and object of every cell [B, N, h, w] that shows one."""
    return [(b, n, int(owner[b, n, i, j])) for b, n, i, j in np.ndindex(*owner.shape) if owner[b, n, i, j] >= 0]


def _depths(codes, frame):
    """Depths [B, N, h, w] of the undersides of boxes [B, N, 10, h, w] in their cameras."""
    foot = torch.stack([codes[:, :, 0], codes[:, :, 1], codes[:, :, 4] - codes[:, :, 5].exp() / 2], dim=-1).double()
    row = frame.image_from_model[:, :, None, None, 2]
    return (row[..., :3] * foot).sum(dim=-1) + row[..., 3]


@torch.no_grad()
def test_denoising_queries_begin_near_their_objects_and_learn_them():
    config = with_values(tiny_config(), _HELPED | {"train": {"denoising": 3, "denoising_radius": 2.0}})
    denoising = Denoising(config)
    _, targets = make_case(3)
    asked, case = [], make_case(3)[0]

    def probe(reference):
        asked.append(reference)
        rows = torch.arange(reference.shape[1]) % case.head.logits.shape[2]
        head = case.parallel
        values = {n: torch.nan_to_num(getattr(head, n))[:, :, rows] for n in ("logits", "box", "features")}
        asked.append(values)
        return dataclasses.replace(head, **values)

    losses = denoising(probe, targets)
    places, values = denormalize(asked[0], denoising.pc_range), asked[1]
    count = targets.valid.shape[1]
    of_class = of_box = 0.0
    code_weights = torch.tensor(config.syncl.loss.code_weights)
    for b in range(2):
        rows = [r for r in range(3 * count) if targets.valid[b, r % count]]
        for r in rows:
            g = r % count
            away = (places[b, r] - code_center(targets.box[b, g]))[:2].norm()
            assert away <= 2.0 + 1e-3
            for layer in range(len(values["logits"])):
                p = values["logits"][layer, b, r].double().sigmoid()
                own = torch.arange(len(p)) == targets.label[b, g]
                focal = torch.where(own, 0.25 * (1 - p) ** 2 * -p.log(), 0.75 * p**2 * -(1 - p).log())
                of_class += 2.0 * float(focal.sum()) / len(rows) / 2
                error = (values["box"][layer, b, r] - targets.box[b, g]).abs() * code_weights
                of_box += 0.25 * float(error.sum()) / len(rows) / 2
    assert losses["denoising_class"].item() == pytest.approx(of_class, rel=1e-4)
    assert losses["denoising_box"].item() == pytest.approx(of_box, rel=1e-4)
    assert not torch.equal(places[0, 0], places[0, count])  # each of an object's queries begins elsewhere


@pytest.mark.parametrize("kind", KINDS)
def test_helpers_train_every_detector_and_change_no_output(kind):
    config, clip = _clip()
    model = {"pc_range": [-25.6, -25.6, -5.0, 25.6, 25.6, 3.0]} | KINDS[kind]
    helped = with_values(config, _HELPED | {"model": model} | {"syncl": {"enabled": False}})
    tracker = build_tracker(helped)
    module = ClipModel(tracker, Criterion(helped))
    output = module(clip.frames[:1], clip.targets[:1])
    plain = with_values(helped, {"train": {"dense_weight": 0.0, "denoising": 0}})
    same = build_tracker(plain)
    expected = ClipModel(same, Criterion(plain))(clip.frames[:1], clip.targets[:1])["losses"]
    views = _OF_VOTES if helped.model.detr3d.votes else {"dense_view"}
    names = {"dense_class", "denoising_class", "denoising_box"} | views
    assert set(output["losses"]) - set(expected) == names
    for name, value in expected.items():
        assert torch.equal(value, output["losses"][name])
    sum(output["losses"][name] for name in names).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    assert any(p.grad.abs().max() > 0 for p in tracker.img_backbone.parameters() if p.grad is not None)
    assert set(tracker.state_dict()) == set(same.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_probes_do_not_see_each_other(kind):
    config, clip = _clip()
    tracker = build_tracker(with_values(config, {"model": KINDS[kind]})).eval()
    with torch.inference_mode():
        memory = tracker.observe(tracker.init_state(2), clip.frames[0]).memory
        reference = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0))
        together = tracker.probe(memory, reference)
        for i in range(5):
            alone = tracker.probe(memory, reference[:, i : i + 1])
            assert torch.allclose(alone.box, together.box[:, :, i : i + 1], atol=1e-4)
            assert torch.allclose(alone.logits, together.logits[:, :, i : i + 1], atol=1e-4)
    assert together.logits.shape[:3] == (config.model.num_layers, 2, 5)


def test_the_loss_of_several_maps_is_their_mean():
    config, clip = _clip()
    config = with_values(config, {"model": KINDS["detr3d"]})
    tracker, head = build_tracker(config), DenseHead(config)
    with torch.no_grad():
        memory = tracker.observe(tracker.init_state(2), clip.frames[0]).memory
        together = head(memory, clip.frames[0], clip.targets[0])
        alone = [head(dataclasses.replace(memory, levels=(x,)), clip.frames[0], clip.targets[0]) for x in memory.levels]
    assert len(alone) > 1
    for name, value in together.items():
        assert value.item() == pytest.approx(sum(part[name].item() for part in alone) / len(alone), rel=1e-5)


@torch.no_grad()
def test_cells_know_their_rays():
    _, clip = _clip()
    frame = clip.frames[0]
    rays = cell_rays(frame.image_from_model, (5, 8), (40, 64)).double()
    for b, n, i, j in ((0, 0, 0, 0), (1, 2, 4, 7), (0, 1, 2, 3)):
        place = rays[b, n, i, j, :3] * 10.0 + 7.0 * rays[b, n, i, j, 3:]
        seen = frame.image_from_model[b, n] @ torch.cat([place, torch.ones(1, dtype=torch.float64)])
        assert (seen[:2] / seen[2]).tolist() == pytest.approx([8 * (j + 0.5), 8 * (i + 0.5)], abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_maps_can_be_trained_alone(kind):
    """What the dense head reads gets a gradient; all else stays as it is, whatever the weight decay."""
    config, clip = _clip()
    alone = {"dense_weight": 1.0, "dense_only": True, "clip_length": 1, "denoising": 2, "weight_decay": 0.5}
    config = with_values(config, {"model": KINDS[kind], "train": alone})
    tracker = build_tracker(config)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():  # where some weights start at zero, others have no gradient yet
        for parameter in tracker.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=random)
    before = {name: p.detach().clone() for name, p in tracker.named_parameters()}
    model = ClipModel(tracker, Criterion(config))

    def learn():
        model.zero_grad()
        losses = model(clip.frames[:1], clip.targets[:1])["losses"]
        sum(losses.values()).backward()
        return set(losses)

    names = learn()
    assert names == {"dense_class", "unused"} | (_OF_VOTES if config.model.detr3d.votes else {"dense_view"})
    reached = {name for name, p in tracker.named_parameters() if p.grad is not None and p.grad.abs().sum()}
    assert not any("cls_branches" in name or "decoder" in name for name in reached)
    prepare(tracker, config.train)
    learn()
    make_optimizer(model, config.train).step()
    assert {name for name, p in tracker.named_parameters() if not torch.equal(p, before[name])} == reached
    for wrong in ({"dense_weight": 0.0}, {"clip_length": 2}):
        with pytest.raises(InputError, match="train.dense_only"):
            with_values(config, {"train": wrong})
