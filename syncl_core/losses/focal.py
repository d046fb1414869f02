"""The sigmoid focal loss (Lin et al. 2017) and the classification cost derived from it."""

import torch
from torch.nn import functional

_EPS = 1e-12  # inside the cost's logarithms


def sigmoid_focal_loss(
    logits: torch.Tensor,  # [..., C] float32
    one_hot: torch.Tensor,  # [..., C] 0 or 1; all zero = background
    alpha: float,
    gamma: float,
) -> torch.Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t, elementwise [..., C]."""
    p = logits.sigmoid()
    wrong = p * (1 - one_hot) + (1 - p) * one_hot  # 1 - p_t
    weight = alpha * one_hot + (1 - alpha) * (1 - one_hot)
    entropy = functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
    return weight * wrong.pow(gamma) * entropy


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
