"""Boxes that say what a better one beside them says already: in proposals, and among tracks.

Suppression by the distance of centres, as in CenterPoint's circle NMS (Yin et al. 2021), but with a reach that grows
with the boxes, and for all rows at once.
"""

import torch

from syncl_core.models.box_code import code_center, code_log_size


def duplicates(
    code: torch.Tensor,  # [B, M, 10] float32 box codes, model frame
    priority: torch.Tensor,  # [B, M] any numbers; of equal ones the first row's is the highest
    distance: float,  # metres
    counts: torch.Tensor | None = None,  # [B, M] bool: who can make others duplicates; None = all
) -> torch.Tensor:
    """[B, M] bool: on the ground the centre of a box with a higher priority is nearer than the smaller reach of both.

    A box reaches `distance` metres beyond half the side of a square with the area of its ground. A row is also beaten
    by one that is a duplicate itself, so that no loop over rows is needed. A box that is NaN is near nobody.
    """
    place, reach = code_center(code)[..., :2], code_log_size(code)[..., :2].mean(dim=-1).exp() / 2 + distance
    rank = priority.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    away = torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist")
    beaten = (away < torch.minimum(reach[:, :, None], reach[:, None])) & (rank[:, None] < rank[:, :, None])
    return (beaten if counts is None else beaten & counts[:, None]).any(dim=-1)
