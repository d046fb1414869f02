"""Who teaches a forecast: its own loss, and nothing in later frames, where a track merely starts from it (PF-Track)."""

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
