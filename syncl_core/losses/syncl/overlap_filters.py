"""ATSS and SimOTA for queries and boxes in space, the overlap-based rivals of the mixture filter (Table 4b).

Both come from image detectors. Here an anchor is a query's predicted box, the overlap is that of footprints from above
(overlap.py), and there is one level. Each returns (kept [L, B, M, G], candidates [L, B, M, G], price [L, B, M, G]).
"""

import torch

from syncl_core.losses.focal import focal_cost
from syncl_core.losses.syncl.candidates import as_mask, lowest
from syncl_core.losses.syncl.overlap import footprint, footprint_iou, inside_footprint
from syncl_core.strategy_config import LossConfig
from syncl_core.tensors import Targets

_IOU_WEIGHT = 3.0  # of SimOTA's overlap cost (YOLOX)
_IOU_COUNT = 10  # overlaps whose sum is SimOTA's number of matches


def atss(
    box: torch.Tensor,  # [L, B, M, 10]
    allowed: torch.Tensor,  # [B, M, G] bool
    targets: Targets,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Zhang et al. 2020: of the rows nearest to an object, those whose overlap reaches mean plus sample deviation.

    Their centres must also lie within the object. The price is the overlap's negative.
    """
    overlap = footprint_iou(footprint(box), footprint(targets.box))
    distance = (box[..., :, None, :2] - targets.box[..., None, :, :2]).norm(dim=-1)
    values, rows = lowest(distance.masked_fill(~allowed, torch.inf), count)
    near = values.isfinite()
    iou = torch.where(near, overlap.gather(2, rows), 0.0)
    number = near.sum(dim=2, keepdim=True).clamp(min=1)
    mean = iou.sum(dim=2, keepdim=True) / number
    squares = torch.where(near, iou - mean, 0.0).square().sum(dim=2, keepdim=True)
    deviation = (squares / (number - 1).clamp(min=1)).sqrt()
    inside = inside_footprint(box[..., :2], targets.box).gather(2, rows)
    kept = near & inside & (iou >= mean + deviation)
    return as_mask(rows, kept, box.shape[2]), as_mask(rows, near, box.shape[2]), -overlap


def sim_ota(
    logits: torch.Tensor,  # [L, B, M, C]
    box: torch.Tensor,  # [L, B, M, 10]
    allowed: torch.Tensor,  # [B, M, G] bool
    targets: Targets,
    count: int,
    config: LossConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ge et al. 2021 (YOLOX): an object takes as many rows as its ten best overlaps add up to, one at least.

    The price is class cost - 3 log overlap. The centre prior of image grids is left out: queries stand nowhere.
    """
    overlap = torch.where(allowed, footprint_iou(footprint(box), footprint(targets.box)), 0.0)
    of_class = config.class_weight * focal_cost(logits, targets.label, config.focal_alpha, config.focal_gamma)
    price = of_class - _IOU_WEIGHT * (overlap + 1e-8).log()
    values, rows = lowest(price.masked_fill(~allowed, torch.inf), count)
    near = values.isfinite()
    best = overlap.topk(min(_IOU_COUNT, box.shape[2]), dim=2).values.sum(dim=2, keepdim=True)
    rank = torch.arange(rows.shape[2], device=rows.device)[:, None]
    kept = near & (rank < best.floor().clamp(min=1))
    return as_mask(rows, kept, box.shape[2]), as_mask(rows, near, box.shape[2]), price
