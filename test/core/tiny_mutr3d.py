"""The smallest MUTR3D that has every part; frames for it are those of tiny_tracker."""

import dataclasses
import math

import torch
from tiny_tracker import make_frame, tiny_config

from syncl_core.config import SynclConfig
from syncl_core.model_config import DETR3DConfig, MUTR3DConfig
from syncl_core.tracking.build import build_tracker
from syncl_core.tracking.mutr3d.tracker import MUTR3D

CLASSES = ("car", "truck", "bus", "trailer", "motorcycle", "bicycle", "pedestrian")


def mutr3d_config(**track) -> SynclConfig:
    config = tiny_config(**{"max_age": 3, **track})
    model = dataclasses.replace(
        config.model,
        framework="mutr3d",
        detector="detr3d",
        ffn_dim=20,
        num_layers=3,
        detr3d=DETR3DConfig(num_levels=5, pad_multiple=48),
        mutr3d=MUTR3DConfig(memory_length=3, memory_period=1),
    )
    return dataclasses.replace(config, name="tiny_mutr3d", model=model, classes=CLASSES)


def tiny_mutr3d(seed: int = 0, born: float = 0.2, **track) -> MUTR3D:
    """Random weights with which about the fraction `born` of the object queries passes the birth threshold."""
    tracker = shake_mutr3d(build_tracker(mutr3d_config(**track)), seed)
    with torch.no_grad():
        logits = tracker.observe(tracker.init_state(), make_frame(0)).head.logits[-1, 0]
        best = logits[: tracker.config.model.num_queries]
        shift = best.amax(dim=1).quantile(1 - born) - math.log(0.4 / 0.6)
        tracker.pts_bbox_head.cls_branches[-1][-1].bias -= shift
    return tracker


@torch.no_grad()
def shake_mutr3d(tracker: MUTR3D, seed: int) -> MUTR3D:
    """Make every parameter count: untrained norms and biases are ones and zeros, untrained offsets zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in tracker.named_parameters():
        noise = torch.rand(value.shape, generator=generator) * 2 - 1
        if ".cls_branches." in name and name.endswith(".6.weight"):
            value.copy_(noise * 2)
        elif value.ndim == 1:
            value.add_(noise * 0.2)
    for name, value in tracker.named_buffers():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif name.endswith("running_mean"):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 - 0.2)
    return tracker
