"""Distances between box codes (models/box_code): the matching's and the loss's."""

import torch

_COST_ENTRIES = 8  # all but the velocity


def l1_cost(box: torch.Tensor, target: torch.Tensor, ground: float = 1.0) -> torch.Tensor:
    """Sum of absolute differences without velocity, [L, B, M, G], of codes [L, B, M, 10] and [B, G, 10]; in metres.

    Those of x and y, the first two, count `ground` times.
    """
    box, target = box[..., :_COST_ENTRIES].float(), target[..., :_COST_ENTRIES].float()
    if ground != 1.0:
        box, target = (torch.cat([ground * code[..., :2], code[..., 2:]], dim=-1) for code in (box, target))
    return torch.cdist(box.contiguous(), target.expand(box.shape[0], -1, -1, -1).contiguous(), p=1.0)


def weighted_l1(
    box: torch.Tensor,  # [..., 10]
    target: torch.Tensor,  # [..., 10]; an entry that is not finite (an unknown velocity) does not count
    positive: torch.Tensor,  # [...] bool; the other rows count nothing
    weights: torch.Tensor,  # [10]
) -> torch.Tensor:
    """Weighted sum of absolute differences of every row, [...]."""
    known = positive[..., None] & target.isfinite()
    return (torch.where(known, box.float() - target, 0.0).abs() * weights).sum(dim=-1)
