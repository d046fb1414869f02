"""Where an untrained network begins, if not as published."""

import math
from collections.abc import Collection

import torch
from torch import nn

from syncl_core.models.box_code import encode_boxes
from syncl_core.models.stream_head import StreamPETRHead
from syncl_core.tracking.base import Tracker

_CAR = (4.6, 1.9, 1.7)  # metres: length, width, height
_POSITION_GAIN = 8.0  # against the bias that all positions share, which the norm behind them would keep
_ATTENTION_GAIN = 2.0  # of queries, keys and values
_SCATTER = 1.7  # standard deviation of a logit whose sigmoid is nearly uniform


@torch.no_grad()
def spread(tracker: Tracker) -> None:
    """Queries that differ, and boxes that begin where their queries are, resting and as large as a car.

    As published all queries have the same content and boxes begin anywhere; a short training then spends its time on
    telling queries apart. StreamPETR's queries have no content to differ in: there positions count for more, and
    attention is sharper. MUTR3D's learned DETR3D queries differ, but begin near the vehicle: here they begin all over
    the ground.
    """
    if isinstance(places := getattr(tracker, "reference_points", None), nn.Linear):  # those of DETR3D, if learned
        _scatter(places)
    contents = getattr(tracker, "query_feat_embedding", None)
    if contents is not None:
        nn.init.uniform_(contents.weight, -1.0, 1.0)
    if isinstance(tracker.pts_bbox_head, StreamPETRHead):
        _sharpen(tracker.pts_bbox_head)
    car = encode_boxes(torch.zeros(3), torch.tensor(_CAR), torch.tensor(math.pi / 2), torch.zeros(2))
    branches = list(tracker.pts_bbox_head.reg_branches)
    reasoner = getattr(tracker, "STReasoner", None)
    if reasoner is not None:
        branches.append(reasoner.track_reg)
    for branch in branches:
        layers = [head[-1] for head in branch.task_heads] if hasattr(branch, "task_heads") else [branch[-1]]
        sizes = [layer.out_features for layer in layers]
        if sum(sizes) != len(car):
            continue  # DETR3D refines a size from layer to layer; it keeps its start
        for layer, part in zip(layers, car.split(sizes), strict=True):
            nn.init.zeros_(layer.weight)
            layer.bias.copy_(part)


@torch.no_grad()
def carry_on(tracker: Tracker, loaded: Collection[str]) -> None:
    """A PF-Track that got a trained PETR's decoder goes on as the detector did, tracks or not, in both decoders.

    `loaded`: names of the tensors that have weights already. Changes nothing if the queries' contents are among them,
    or the decoder is not.

    A PETR detector's queries have no content. The first self-attention then adds little, and its norm makes of that the
    constant which the detector lives on. As published the contents begin with none, too: that constant is gone as soon
    as there are tracks to look at, and SynCL's parallel decoder, which skips attention and norm, never has it. Here the
    contents begin as what the norm makes of them, and the first self-attention adds nothing until it has learned to.
    """
    embedding = getattr(tracker, "query_feat_embedding", None)
    decodes = any(name.startswith("pts_bbox_head.transformer.") for name in loaded)
    if embedding is None or "query_feat_embedding.weight" in loaded or not decodes:
        return
    contents, first = embedding.weight, tracker.pts_bbox_head.transformer["decoder"].layers[0]
    attention, position = first.attentions[0]["attn"], tracker.embed_reference(tracker.reference_points.weight[None])
    nothing, training = torch.zeros_like(position), attention.training
    attention.eval()  # dropout would differ between processes, which must begin alike
    contents.copy_(first.norms[0](attention(position, attention.project(position, nothing)))[0])
    attention.train(training)
    nn.init.zeros_(attention.out_proj.weight)


def _scatter(places: nn.Linear) -> None:
    """Reference points (x, y, z) of normally distributed queries all over `pc_range`, at half of its height."""
    nn.init.zeros_(places.bias)
    nn.init.zeros_(places.weight)
    nn.init.normal_(places.weight[:2], std=_SCATTER / places.in_features**0.5)


def _sharpen(head: StreamPETRHead) -> None:
    head.query_embedding[-1].weight.mul_(_POSITION_GAIN)
    for layer in head.transformer["decoder"].layers:
        for attention in layer.attentions:
            attention["attn"].in_proj_weight.mul_(_ATTENTION_GAIN)
