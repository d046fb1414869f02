"""Object queries that begin at votes: which cells propose, what a query takes from its cell, and the tracker's laws."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from law_helpers import assert_equal, track
from tiny_mutr3d import mutr3d_config, shake_mutr3d
from tiny_tracker import drive, make_frame, stack
from train_fixture import ToySource, toy_config

from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.errors import InputError
from syncl_core.losses.criterion import Criterion
from syncl_core.models.proposals import Proposer
from syncl_core.tracking.build import build_tracker
from syncl_core.training.clip_model import ClipModel, total_loss

PROPOSING = {"detr3d": {"votes": True, "proposals": True}}
VOLUME = torch.tensor([[-50.0, -40.0, -5.0], [50.0, 40.0, 3.0]])


def proposing_tracker(seed: int = 0, born: float = 0.3):
    """A shaken tracker in which about the fraction `born` of the proposed queries is born."""
    tracker = shake_mutr3d(build_tracker(with_values(mutr3d_config(), {"model": PROPOSING})), seed)
    with torch.no_grad():
        logits = tracker.observe(tracker.init_state(), make_frame(0)).head.logits[-1, 0]
        best = logits[: tracker.config.model.num_queries].amax(dim=1)
        tracker.pts_bbox_head.cls_branches[-1][-1].bias -= best.quantile(1 - born) - math.log(0.4 / 0.6)
    return tracker.eval()


@pytest.mark.parametrize(("queries", "spread"), [(6, 40.0), (6, 1.5), (20, 40.0), (40, 1.0)])
@torch.no_grad()
def test_queries_begin_at_the_peaks_one_by_one(queries, spread):
    """Of cells that vote for one place the best, first those that no neighbour beats; then the rest, dark cameras last.

    Place, size and content are those of the cell. Some votes lie outside, or close together.
    """
    generator = torch.Generator().manual_seed(0)
    proposer = Proposer(8, queries, VOLUME)
    features, sights = (torch.randn(2, 3, *s, generator=generator) for s in ((8, 4, 5), (4, 5, 12)))
    votes, seen = torch.randn(2, 3, 11, 4, 5, generator=generator), torch.ones(2, 3, dtype=torch.bool)
    votes[:, :, :2] *= spread
    sights[..., 11] = torch.stack([torch.randperm(60, generator=generator) / 8 for _ in range(2)]).view(2, 3, 4, 5)
    seen[1, 2] = False
    ours, kinds = proposer(features, sights, votes, seen), set()
    for b in range(2):
        middle, cells = sights[b, ..., 11].numpy(), []
        for n, i, j in np.ndindex(3, 4, 5):
            around = middle[n, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            cells.append(((not seen[b, n], middle[n, i, j] < around.max(), -middle[n, i, j]), (n, i, j)))
        cells = sorted(cells)[: 4 * queries]
        ranked = []
        for k, ((dark, beside, rank), cell) in enumerate(cells):
            again = any(_same(votes[b], better, cell) for _, better in cells[:k])
            ranked.append(((dark, again, beside, rank), cell))
        for row, (kind, (n, i, j)) in enumerate(sorted(ranked)[:queries]):
            code, x = votes[b, n, :, i, j], features[b, n, :, i, j]
            place = ((code[[0, 1, 4]] - VOLUME[0]) / (VOLUME[1] - VOLUME[0])).clamp(0, 1)
            assert torch.allclose(ours.reference[b, row], place, atol=1e-6)
            assert torch.equal(ours.log_size[b, row], code[[2, 3, 5]])
            content = proposer.content.weight @ x + proposer.content.bias
            assert torch.allclose(ours.content[b, row], content, atol=1e-5)
            kinds.add(kind[:3])
    assert ours.valid.all()
    peak, beside, again = (False, False, False), (False, False, True), (False, True, False)
    assert {6: {peak}, 20: {peak, beside}, 40: {peak, beside, again}}[queries] <= kinds  # or little was shown


def _same(votes: torch.Tensor, one: tuple, other: tuple) -> bool:
    """Half a metre more than half of the smaller box lies between what two cells vote for, or less."""
    a, b = (votes[n, :, i, j].double() for n, i, j in (one, other))
    half = min(math.sqrt(math.exp(code[2] + code[3])) / 2 for code in (a, b))
    return math.dist(a[:2].tolist(), b[:2].tolist()) < half + 0.5


def test_too_few_peaks_still_give_all_rows():
    """Flat maps have ties everywhere, dark cameras none; the number of rows never changes."""
    proposer = Proposer(8, 50, VOLUME)
    zeros = torch.zeros(1, 2, 8, 5, 6), torch.zeros(1, 2, 5, 6, 12), torch.zeros(1, 2, 11, 5, 6)
    queries = proposer(*zeros, torch.tensor([[False, False]]))
    assert queries.reference.shape == (1, 50, 3) and torch.isfinite(queries.content).all()


def test_scenes_in_a_batch_do_not_see_each_other():
    tracker = proposing_tracker()
    scenes = [drive(5), drive(5, start=40)]
    scenes[1] = [dataclasses.replace(f, camera_valid=torch.tensor([[True, False, True]])) for f in scenes[1]]
    together = [stack(frames) for frames in zip(*scenes, strict=True)]
    state, outputs = track(tracker, together, tracker.init_state(batch=2))
    assert outputs[-1].valid.sum(dim=1).min() > 0
    for row, frames in enumerate(scenes):
        alone, alone_outputs = track(tracker, frames)
        assert_equal(state, alone, row, tolerance=2e-3)
        for ours, theirs in zip(outputs, alone_outputs, strict=True):
            assert_equal(ours, theirs, row, tolerance=2e-3)


def test_what_a_missing_camera_would_have_shown_does_not_matter():
    tracker = proposing_tracker()
    frames = [dataclasses.replace(f, camera_valid=torch.tensor([[True, False, True]])) for f in drive(4)]
    others = [dataclasses.replace(f, images=f.images.clone()) for f in frames]
    for frame in others:
        frame.images[:, 1] = 255 - frame.images[:, 1]
        frame.image_from_model[:, 1] = torch.nan
    state, _ = track(tracker, frames)
    assert (state.track_id >= 0).any()
    assert_equal(track(tracker, others)[0], state)


def test_a_clip_teaches_what_proposes():
    """Contents and positions learn from the queries; votes from their own loss; all gradients are finite."""
    config = with_values(toy_config(), {"model": {"framework": "mutr3d", "detector": "detr3d", "num_queries": 30}})
    config = with_values(config, {"model": PROPOSING, "syncl": {"enabled": True}})
    dataset = ClipDataset(ToySource(), config, augment=False)
    clip = collate([dataset[0], dataset[1]])
    model = ClipModel(build_tracker(config), Criterion(config))
    total_loss(model(clip.frames, clip.targets)).total.backward()
    gradients = {name: p.grad for name, p in model.tracker.named_parameters()}
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert all(g.abs().sum() > 0 for name, g in gradients.items() if name.startswith("proposer."))


def test_as_many_cells_as_proposals():
    """Three cameras of 48x96 pixels have 216 cells of 8 pixels."""
    config = with_values(mutr3d_config(), {"model": PROPOSING})
    with_values(config, {"model": {"num_queries": 216}})
    with pytest.raises(InputError, match="^model.num_queries: 217 proposals from 216 cells"):
        with_values(config, {"model": {"num_queries": 217}})


def test_proposals_need_votes():
    with pytest.raises(InputError, match="^model.detr3d.proposals: come from votes"):
        with_values(mutr3d_config(), {"model": {"detr3d": {"proposals": True}}})
