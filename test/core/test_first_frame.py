"""A clip begins without tracks: the parallel decoder would be taught nothing there, so it is left out."""

import pytest
import torch
from loss_cases import judge
from test_overfit import TRACKERS
from train_fixture import ToySource, toy_config

from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.losses.criterion import Criterion
from syncl_core.tracking.base import assigned
from syncl_core.tracking.build import build_tracker
from syncl_core.training.clip_model import ClipModel, total_loss

OTHERS = [  # what a first frame may teach after all
    {"matching": {"objects": "all"}},
    {"matching": {"objects": "new_born"}},
    {"parallel": {"empty_frames": "background"}},
]


def _model(kind: str, strategy: dict) -> tuple[ClipModel, tuple, tuple]:
    """A new tracker and two whole scenes, as a batch."""
    changed = {"model": TRACKERS[kind][0], "syncl": strategy | {"contrastive": {"anchor": "symmetric"}}}
    config = with_values(toy_config(), changed)
    torch.manual_seed(0)
    tracker = build_tracker(config)
    clips = [clip for clip in map(ClipDataset(ToySource(), config).__getitem__, range(8)) if "0 to 2" in clip.names[0]]
    batch = collate(clips[:2])
    return ClipModel(tracker, Criterion(config)), batch.frames, batch.targets


def _taught(total: torch.Tensor, model: ClipModel) -> dict[str, torch.Tensor]:
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    return {name: g for name, g in zip(weights, gradients, strict=True) if g is not None}


@pytest.mark.parametrize("kind", TRACKERS)
def test_nothing_is_lost_where_it_is_left_out(kind, monkeypatch):
    """Loss, statistics and gradients are those of a clip whose every frame is decoded twice."""
    model, frames, targets = _model(kind, {})
    tracker, asked = model.tracker, []
    observe = tracker.observe

    def listen(*args, parallel=False, **keys):
        asked.append(parallel)
        return observe(*args, parallel=parallel, **keys)

    monkeypatch.setattr(tracker, "observe", listen)
    ours = total_loss(model(frames, targets))
    assert asked[-3:] == [False, True, True]
    before, taught = frames[:-3], frames[-3:]  # PETRv2's clips have a frame in front
    state, losses, stats = model._looked_at(before, tracker.init_state(2)), [], []
    for number, (frame, target) in enumerate(zip(taught, targets, strict=True)):
        observation = observe(state, frame, all_layers=True, parallel=True)
        assert number or not observation.valid[:, tracker.config.model.num_queries :].any()
        judged = judge(model.criterion, observation, target)
        stats.append(judged.stats)
        losses += judged.losses.values()
        if number < 2 or tracker.config.model.framework == "pf_track":
            state = tracker.commit(observation, assigned(judged.identity))
            losses += model.criterion.forecast(state, target).values()
    total = torch.stack([loss.float() for loss in losses]).sum()
    torch.testing.assert_close(ours.total, total, rtol=1e-6, atol=0.0)
    for name, value in ours.stats.items():
        expected = torch.stack([frame[name].float() for frame in stats]).nanmean()
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0.0, equal_nan=True, msg=name)
    assert {"delta", "kept", "left_out"} <= ours.stats.keys()
    got, wanted = _taught(ours.total, model), _taught(total, model)
    for name, gradient in wanted.items():
        size = gradient.abs().max().item()
        torch.testing.assert_close(got[name], gradient, rtol=0.0, atol=1e-4 * size + 1e-6, msg=name)


@pytest.mark.parametrize("strategy", OTHERS)
def test_it_runs_where_the_first_frame_teaches_it(strategy):
    model, frames, targets = _model("mutr3d_detr3d", strategy)
    first = model(frames[:1], targets[:1])["losses"]
    assert first["parallel_class"] > 0
    observation = model.tracker.observe(model.tracker.init_state(2), frames[0], all_layers=True)
    with pytest.raises(AssertionError, match="parallel rows"):
        judge(model.criterion, observation, targets[0])
