"""DETR3D's votes against loops over queries and cells, and what must not depend on them."""

import dataclasses
import math

import pytest
import torch
from train_fixture import ToySource, toy_config

from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.errors import InputError
from syncl_core.models.box_code import code_center, denormalize, inverse_sigmoid
from syncl_core.models.detr3d_sampling import project, sample
from syncl_core.models.lift import lift
from syncl_core.models.position import cell_rays
from syncl_core.models.votes import VoteCount, Voter
from syncl_core.tracking.build import build_tracker

VOTING = {"model": {"framework": "mutr3d", "detector": "detr3d", "detr3d": {"votes": True}}}


def _clip():
    config = with_values(toy_config(), VOTING)
    dataset = ClipDataset(ToySource(), config, augment=False)
    return config, collate([dataset[0], dataset[1]])


def _random(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.rand(value.shape, generator=generator) - 0.5)
    return module


@torch.no_grad()
def test_a_cell_votes_from_its_features_and_its_ray():
    config, clip = _clip()
    matrix = clip.frames[0].image_from_model
    voter = _random(Voter(16, -1.2))
    maps = torch.randn(2, 3, 16, 5, 8, generator=torch.Generator().manual_seed(1))
    known, sights, votes = voter(maps, matrix, (40, 64))
    first, _, second = voter.sight
    rays = cell_rays(matrix, (5, 8), (40, 64))
    norm = voter.ray_norm
    for b, n, i, j in ((0, 0, 0, 0), (1, 2, 4, 7), (0, 1, 2, 3)):
        hidden = (norm.reduce[0].weight @ rays[b, n, i, j] + norm.reduce[0].bias).clamp(min=0)
        x = maps[b, n, :, i, j]
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        x = (norm.gamma.weight @ hidden + norm.gamma.bias) * x + norm.beta.weight @ hidden + norm.beta.bias
        assert torch.allclose(known[b, n, :, i, j], x, atol=1e-4)
        sight = second.weight @ (first.weight @ x + first.bias).clamp(min=0) + second.bias
        assert torch.allclose(sights[b, n, i, j], sight, atol=1e-4)
    codes = lift(sights[..., :10], matrix, (40, 64), -1.2)
    assert torch.equal(votes[:, :, :10], codes.movedim(-1, 2)) and torch.equal(votes[:, :, 10], sights[..., 10])


@torch.no_grad()
def test_places_are_as_exact_in_half_precision():
    """What follows from geometry alone; what networks say may be rounded."""
    config, clip = _clip()
    matrix, generator = clip.frames[0].image_from_model, torch.Generator().manual_seed(1)
    views = torch.randn(2, 3, 5, 8, 10, generator=generator)
    count = _random(VoteCount(16), 3)
    x, votes = torch.randn(2, 4, 16, generator=generator), torch.randn(2, 4, 6, 11, generator=generator) * 3
    seen, place = torch.rand(2, 4, 6, generator=generator) < 0.6, torch.randn(2, 4, 3, generator=generator) * 10
    codes, verdict = lift(views, matrix, (40, 64), -1.2), count(x, votes, seen, place)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lift(views, matrix, (40, 64), -1.2), codes)
        half = count(x, votes, seen, place)[0]
    leaves = (1 - half.stay) / (1 - verdict.stay)  # the share that stays comes from a layer, in half precision
    torch.testing.assert_close(half.code, verdict.code * leaves, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_votes_are_counted_as_one_by_one():
    generator = torch.Generator().manual_seed(2)
    count = _random(VoteCount(16), 3)
    x, votes = torch.randn(2, 4, 16, generator=generator), torch.randn(2, 4, 6, 11, generator=generator) * 3
    seen, place = torch.rand(2, 4, 6, generator=generator) < 0.6, torch.randn(2, 4, 3, generator=generator) * 10
    seen[0, 1] = False
    verdict, news = count(x, votes, seen, place)
    rate = math.log1p(math.exp(count.reluctance))
    for b in range(2):
        for m in range(4):
            scores = {"stay": float(count.stay.weight[0] @ x[b, m] + count.stay.bias)}
            for v in range(6):
                if seen[b, m, v]:
                    away = (code_center(votes[b, m, v]) - place[b, m]) / 5.0
                    scores[v] = float(votes[b, m, v, 10] - rate * away.norm())
            total = sum(map(math.exp, scores.values()))
            weights = {key: math.exp(score) / total for key, score in scores.items()}
            assert verdict.stay[b, m].item() == pytest.approx(weights["stay"], abs=1e-5)
            code = sum((w * votes[b, m, v, :10] for v, w in weights.items() if v != "stay"), torch.zeros(10))
            assert torch.allclose(verdict.code[b, m], code, atol=1e-4)
            told = code.clone()
            moved = torch.zeros(3)
            for v, w in weights.items():
                if v != "stay":
                    moved += w * ((code_center(votes[b, m, v]) - place[b, m]) / 5.0).clamp(-4, 4)
            told[[0, 1, 4]] = moved
            told = torch.cat([told, torch.tensor([weights["stay"]])])
            assert torch.allclose(news[b, m], count.embed.weight @ told + count.embed.bias, atol=1e-4)
    assert verdict.stay[0, 1] == 1.0 and (verdict.code[0, 1] == 0).all()


@torch.no_grad()
def test_the_first_layer_goes_where_the_votes_say():
    """The centre is the network's step from the mixed place, over the votes of every map and camera that sees it."""
    config, clip = _clip()
    tracker = build_tracker(config).eval()
    head = tracker.pts_bbox_head
    observation = tracker.observe(tracker.init_state(2), clip.frames[0], all_layers=True)
    pyramid, queries = observation.memory, tracker.object_queries(observation.memory)
    place = denormalize(queries.reference, head.pc_range)
    points, seen = project(place, pyramid)
    layer = head.transformer["decoder"]["layers"][0]
    attention = layer.attentions[0]["attn"]
    located = queries.content + queries.position
    x = layer.norms[0](queries.content + attention(located, attention.project(located, queries.content), queries.valid))
    read = torch.stack([sample(votes, points, "nearest") for votes in pyramid.votes], dim=-1)  # [B, N, 11, M, L]
    votes = torch.stack([read[:, n, :, :, level] for n in range(3) for level in range(read.shape[-1])], dim=-1)
    can_see = torch.stack([seen[:, n] for n in range(3) for _ in range(read.shape[-1])], dim=-1)
    verdict, _ = layer.attentions[1].vote_count(x, votes.permute(0, 2, 3, 1), can_see, place)
    rows = slice(0, queries.valid.shape[1])
    step = head.reg_branches[0](observation.head.features[0][:, rows])[..., [0, 1, 4]]
    mixed = (verdict.stay * place + code_center(verdict.code) - head.pc_range[0]) / (
        head.pc_range[1] - head.pc_range[0]
    )
    center = denormalize((step + inverse_sigmoid(mixed)).sigmoid(), head.pc_range)
    assert torch.allclose(code_center(observation.head.box[0][:, rows]), center, atol=1e-3)
    assert (verdict.stay < 1).any(), "no query sees a vote: the test shows nothing"


def test_only_detr3d_has_votes():
    with pytest.raises(InputError, match="^model.detr3d.votes: only for detector detr3d, got petr"):
        with_values(toy_config(), {"model": {"detr3d": {"votes": True}}})


@torch.no_grad()
def test_scenes_and_missing_cameras_do_not_disturb_each_other():
    config, clip = _clip()
    tracker = build_tracker(config).eval()
    blind = dataclasses.replace(clip.frames[0], camera_valid=torch.tensor([[True] * 3, [True, False, True]]))
    broken = blind.image_from_model.clone()
    broken[1, 1] = 0.0  # what stands in a missing camera's place cannot be inverted
    together = tracker.observe(tracker.init_state(2), dataclasses.replace(blind, image_from_model=broken)).head
    for b in range(2):
        one = dataclasses.replace(
            blind, **{f.name: getattr(blind, f.name)[b : b + 1] for f in dataclasses.fields(blind)}
        )
        alone = tracker.observe(tracker.init_state(1), one).head
        assert torch.allclose(alone.box[:, 0], together.box[:, b], atol=1e-4)
        assert torch.allclose(alone.logits[:, 0], together.logits[:, b], atol=1e-4)
    assert together.box.isfinite().all()
