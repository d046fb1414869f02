"""Tracks that get lost and wrong ones, in training (MUTR3D, Zhang et al. 2022, after MOTR, Zeng et al. 2022).

Where the ground truth decides which rows live, every track has its object and nearly every object its track. A network
that sees nothing else believes every track and finds no object that appears later.
"""

import torch

from syncl_core.models.box_code import code_center
from syncl_core.tensors import Targets
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


def within_reach(
    identity: torch.Tensor,  # [B, M] int64 of the object that a row owns; -1 = none
    box: torch.Tensor,  # [B, M, 10] box codes of the rows, model frame
    targets: Targets,  # of the same frame; empty rows may hold anything
    distance: float,  # metres on the ground; 0 = any
) -> torch.Tensor:
    """`identity` without the rows that are farther away from their object: they have lost it (MOTR does so by overlap).

    The object then has to be found anew, as at inference, where a track that is off loses its score and ends.
    """
    if not distance:
        return identity
    owns = (identity[..., None] == targets.identity[:, None]) & targets.valid[:, None]  # [B, M, G]
    away = (code_center(box)[:, :, None, :2].detach() - code_center(targets.box)[:, None, :, :2]).norm(dim=-1)
    return torch.where((owns & (away <= distance)).any(dim=-1), identity, -1)
