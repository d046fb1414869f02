"""What flows from frame to frame of a clip: no gradient into forecasts; the frame that PETRv2 has before the first."""

import pytest
import torch
from train_fixture import ToySource, toy_config

from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.losses.criterion import Criterion
from syncl_core.tracking.build import build_tracker
from syncl_core.training.clip_model import ClipModel

FORECASTERS = ("fut_temporal_transformer", "future_reg")


@pytest.mark.parametrize("detector", ["petr", "petrv2"])
@pytest.mark.parametrize("ego_update", ["exact", "as_released"])
def test_only_the_forecast_loss_teaches_forecasts(detector, ego_update):
    config = with_values(toy_config(), {"model": {"detector": detector}, "track": {"ego_update": ego_update}})
    torch.manual_seed(0)
    model = ClipModel(build_tracker(config), Criterion(config))
    batch = collate([ClipDataset(ToySource(), config)[7]])
    losses = model(batch.frames, batch.targets)["losses"]
    weights = {n: w for n, w in model.named_parameters() if any(part in n for part in FORECASTERS)}
    assert len(weights) > 10 and losses["forecast"] > 0
    others = sum(value for name, value in losses.items() if name != "forecast")
    taught = dict(zip(weights, torch.autograd.grad(others, list(weights.values()), retain_graph=True), strict=True))
    assert {name for name, gradient in taught.items() if gradient.any()} == set()
    own = torch.autograd.grad(losses["forecast"], list(weights.values()), allow_unused=True)
    assert sum(gradient is not None and bool(gradient.any()) for gradient in own) > 10


@pytest.mark.parametrize("framework", ["pf_track", "none"])
def test_clips_of_petrv2_begin_with_a_frame_that_is_only_looked_at(framework):
    """Else a clip's first frame would see itself twice, and learn how things move from images that are equal."""
    config = with_values(toy_config(clip_length=2), {"model": {"detector": "petrv2", "framework": framework}})
    model = ClipModel(build_tracker(config), Criterion(config))
    clips = [ClipDataset(ToySource(), config)[number] for number in range(8)]
    clip = next(clip for clip in clips if clip.names[0].endswith("key frames 1 to 2"))
    times = [frame.t_ns.item() * 1e-9 for frame in clip.frames]
    assert times == [0.5, 1.0, 1.5] and len(clip.targets) == 2 and clip.numbers[0][1] - clip.numbers[0][0] == 1
    seen, observe = [], model.tracker.observe
    model.tracker.observe = lambda *args, **keys: seen.append(observe(*args, **keys)) or seen[-1]
    total = sum(model(clip.frames, clip.targets)["losses"].values())
    assert [observation.memory.seconds.item() for observation in seen[1:]] == pytest.approx([0.5, 0.5])
    assert (seen[1].track_id == -1).all() and not seen[0].memory.tokens.requires_grad and total.requires_grad
    alone = next(clip for clip in clips if clip.names[0].endswith("key frames 0 to 0"))
    assert len({frame.t_ns.item() for frame in alone.frames}) == 1  # a scene's first frame has none before it
    plain = with_values(config, {"model": {"detector": "petr"}})
    assert len(ClipDataset(ToySource(), plain)[0].frames) == 2
