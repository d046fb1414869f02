"""The sigmoid focal loss (Lin et al. 2017), also for soft targets, and the classification cost derived from it.

A target of 1 for whatever a row is matched with makes scores say what a row sees, not how well it sees where that is;
tracks, matched by identity, then keep their score when they have lost their object. With `loss.quality_distance` the
target falls with the distance between box and object, as it does with the overlap in Generalized Focal Loss (Li et al.
2020, eq. 5).
"""

import torch
from torch.nn import functional

_EPS = 1e-12  # inside the cost's logarithms


def sigmoid_focal_loss(
    logits: torch.Tensor,  # [..., C] float32
    target: torch.Tensor,  # [..., C] 0 to 1; all zero = background
    alpha: float,
    gamma: float,
) -> torch.Tensor:
    """alpha_t |target - p|^gamma cross-entropy, elementwise [..., C].

    alpha_t goes from 1 - alpha for a target of 0 to alpha for 1; for these two it is -alpha_t (1 - p_t)^gamma log p_t.
    """
    wrong = (target - logits.sigmoid()).abs()
    weight = alpha * target + (1 - alpha) * (1 - target)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return weight * wrong.pow(gamma) * entropy


def soft_target(
    place: torch.Tensor,  # [..., 3] centre of the row's box, metres, model frame
    goal: torch.Tensor,  # [..., 3] centre of its object's
    half: float,  # metres: the distance on the ground at which the target is 1/2; 0 = it is 1 everywhere
) -> torch.Tensor:
    """What the class of a matched row is taught, [...]: 2^-(distance / half)^2, without gradient."""
    away = (place[..., :2] - goal[..., :2]).detach().float().square().sum(dim=-1)
    return torch.exp2(-away / half**2) if half else torch.ones_like(away)


def focal_cost(
    logits: torch.Tensor,  # [L, B, M, C]
    label: torch.Tensor,  # [B, G] int64
    alpha: float,
    gamma: float,
) -> torch.Tensor:
    """What calling row m the class of object g costs more than calling it background, [L, B, M, G]; may be negative."""
    p = logits.float().sigmoid()
    positive = alpha * (1 - p).pow(gamma) * -(p + _EPS).log()
    negative = (1 - alpha) * p.pow(gamma) * -(1 - p + _EPS).log()
    index = label[None, :, None, :].expand(*logits.shape[:3], -1)
    return (positive - negative).gather(-1, index)
