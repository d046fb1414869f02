"""Tracks that get lost and wrong ones, in training (MUTR3D, Zhang et al. 2022, after MOTR, Zeng et al. 2022).

Where the ground truth decides which rows live, every track has its object and nearly every object its track. A network
that sees nothing else believes every track and finds no object that appears later.
"""

import torch

from syncl_core.tracking.base import Decision, assigned

NOBODY = 1 << 40
"""Identities from here on belong to no object."""


def disturbed(
    identity: torch.Tensor,  # [B, M] int64 of the object that a row owns; -1 = none
    score: torch.Tensor,  # [B, M] the best class's
    valid: torch.Tensor,  # [B, M] bool; False = free slot
    drop: float,
    false: float,
) -> Decision:
    """The ground truth's decision, except for accidents.

    A row that owns an object ends with probability `drop`; its object has to be found anew. For every row that lives
    on, with probability `false`, so does one that owns none, the highest scores first; it has to be given up.
    """
    if not drop and not false:
        return assigned(identity)
    owns = identity >= 0
    stays = owns & (torch.rand(identity.shape, device=identity.device) >= drop)
    count = (stays & (torch.rand(identity.shape, device=identity.device) < false)).sum(dim=1, keepdim=True)
    order = torch.where(valid & ~owns, score.detach().float(), -1.0).argsort(dim=1, descending=True)
    rank = order.argsort(dim=1)
    wrong = valid & ~owns & (rank < count)
    rows = torch.arange(identity.shape[1], device=identity.device)
    return assigned(torch.where(wrong, NOBODY + rows, torch.where(stays, identity, -1)))
