"""What an object counts for in the losses: one of a rare class more than one of many.

The metrics are means over classes, and a street has twenty cars for one bus. Class-balanced sampling (CBGS, Zhu et al.
2019) shows frames with rare classes more often; here the objects of one frame weigh differently.
"""

import torch

from syncl_core.tensors import Targets


def object_weights(targets: Targets, exponent: float) -> torch.Tensor:
    """[B, G] float32: n^-exponent where the scene has n objects of the class, scaled to a mean of 1 in every scene.

    0 where there is no object. An exponent of 0 makes all alike.
    """
    alike = (targets.label[:, :, None] == targets.label[:, None]) & targets.valid[:, None]
    weight = torch.where(targets.valid, alike.sum(dim=2).clamp(min=1).float() ** -exponent, 0.0)
    return weight * (targets.valid.sum(dim=1) / weight.sum(dim=1).clamp(min=1e-6))[:, None]
