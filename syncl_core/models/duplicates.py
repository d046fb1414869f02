"""Boxes that say what a better one beside them says already: in proposals, and among tracks.

Suppression by the distance of centres, as in CenterPoint's circle NMS (Yin et al. 2021), but with a reach that grows
with the boxes, and along the line of sight with the distance, and for all rows at once.
"""

import torch

from syncl_core.models.box_code import code_center, code_log_size


def duplicates(
    code: torch.Tensor,  # [B, M, 10] box codes, model frame
    priority: torch.Tensor,  # [B, M] any numbers; of equal ones the first row's is the highest
    distance: float,  # metres
    counts: torch.Tensor | None = None,  # [B, M] bool: who can make others duplicates; None = all
    stretch: float = 0.0,  # per metre from the model frame's origin
) -> torch.Tensor:
    """[B, M] bool: on the ground the centre of a box with a higher priority is nearer than the smaller reach of both.

    A box reaches `distance` metres beyond half the side of a square with the area of its ground, and along the line of
    sight, where a camera's error grows with the distance r, 1 + `stretch` r times as far. A row is also beaten by one
    that is a duplicate itself, so that no loop over rows is needed. A box that is NaN is near nobody.
    """
    place, reach = code_center(code)[..., :2], code_log_size(code)[..., :2].mean(dim=-1).exp() / 2 + distance
    rank = priority.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    away = _away(place[:, :, None], place[:, None], stretch)
    beaten = (away < torch.minimum(reach[:, :, None], reach[:, None])) & (rank[:, None] < rank[:, :, None])
    return (beaten if counts is None else beaten & counts[:, None]).any(dim=-1)


def _away(a: torch.Tensor, b: torch.Tensor, stretch: float) -> torch.Tensor:
    """How far places [..., 2] are from each other, the part along the line of sight counting for less."""
    off, middle = a - b, (a + b) / 2
    if not stretch:
        return off.norm(dim=-1)
    range_m = middle.norm(dim=-1)
    along = (off * middle).sum(dim=-1) / range_m.clamp(min=1e-6)
    spared = along.square() * (1 - (1 + stretch * range_m) ** -2)
    return (off.square().sum(dim=-1) - spared).clamp(min=0).sqrt()
