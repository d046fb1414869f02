"""The smallest StreamPETR trackers in which every parameter counts, and frames whose cameras differ."""

import dataclasses
import math

import torch
from tiny_tracker import drive, make_frame, shake, tiny_config, uneven

from syncl_core.config import SynclConfig
from syncl_core.model_config import StreamConfig
from syncl_core.tensors import Frame
from syncl_core.tracking.base import Tracker
from syncl_core.tracking.build import build_tracker


def stream_config(framework: str, **track) -> SynclConfig:
    config = tiny_config(**{"slots": 6, "max_age": 3} | track)
    stream = StreamConfig(memory_length=14, pushed=5, propagated=4)
    model = dataclasses.replace(
        config.model, framework=framework, detector="stream_petr", depth_bins=32, stream=stream, class_prior=0.15
    )
    return dataclasses.replace(config, model=model)


@torch.no_grad()
def tiny_stream(framework: str, seed: int = 0, born: float = 0.2, **track) -> Tracker:
    """Random weights with which about the fraction `born` of the object queries passes the birth threshold."""
    tracker = shake(build_tracker(stream_config(framework, **track)), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    head = tracker.pts_bbox_head
    for norm in (head.spatial_alignment, head.ego_pose_pe, head.ego_pose_memory):
        for weight in (norm.gamma.weight, norm.beta.weight):
            weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * 0.8)
    head.query_embedding[-1].weight.mul_(4)  # untrained queries nearly agree
    for decoder_layer in head.transformer["decoder"].layers:
        for attention in decoder_layer.attentions:
            attention["attn"].in_proj_weight.mul_(2)
    layer = head.cls_branches[0][-1]
    layer.weight.copy_((torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * 3)
    logits = tracker.observe(tracker.init_state(), stream_frame(make_frame(0))).head.logits[-1]
    best = logits[0, : tracker.config.model.num_queries]
    layer.bias -= best.amax(dim=1).quantile(1 - born) - math.log(0.4 / 0.6)
    return tracker


def stream_frame(frame: Frame) -> Frame:
    """The same frame through cameras of different focal lengths."""
    scale = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    scale[:, 0, 0], scale[:, 1, 1] = torch.tensor([1.0, 30.0, 12.0]), torch.tensor([1.0, 25.0, 18.0])
    center = torch.eye(4, dtype=torch.float64)
    center[0, 2], center[1, 2] = 32.0, 16.0
    zoom = center @ scale @ torch.linalg.inv(center)
    return dataclasses.replace(frame, image_from_model=zoom @ frame.image_from_model)


def stream_drive(count: int, start: int = 1) -> list[Frame]:
    """Frames of a car that moves and turns, 0.4 to 0.6 s apart."""
    return [stream_frame(frame) for frame in uneven(drive(count, start))]
