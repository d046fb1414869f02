"""Which rows say what a better one beside them says already: in proposals, and among tracks."""

import torch

from syncl_core.models.box_code import code_log_size


def reach(code: torch.Tensor, distance: float) -> torch.Tensor:
    """Metres [...] within which another box's middle tells of the same object as a box (codes [..., 10]) does.

    Half the side of a square with the area of its ground, and `distance` metres more.
    """
    return code_log_size(code)[..., :2].mean(dim=-1).exp() / 2 + distance


def duplicates(
    place: torch.Tensor,  # [B, M, 2] metres
    reach: torch.Tensor,  # [B, M] metres
    priority: torch.Tensor,  # [B, M] any numbers; of equal ones the first row's is the highest
    counts: torch.Tensor | None = None,  # [B, M] bool: who can make others duplicates; None = all
) -> torch.Tensor:
    """[B, M] bool: a row with a higher priority lies nearer than the smaller reach of the two.

    Also if that one is a duplicate itself, so that no loop over rows is needed. Who is NaN is near nobody.
    """
    rank = priority.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    away = (place[:, :, None] - place[:, None]).norm(dim=-1)
    beaten = (away < torch.minimum(reach[:, :, None], reach[:, None])) & (rank[:, None] < rank[:, :, None])
    return (beaten if counts is None else beaten & counts[:, None]).any(dim=-1)
