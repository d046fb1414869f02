"""Object queries that begin where the feature maps already see something (two-stage detection, after Zhu et al. 2021).

DETR3D's queries begin at learned places, the same in every frame, and most of a short training goes into spreading
them. Here they begin at the boxes that the most convincing cells of the finest map vote for. An addition of ours.
"""

import torch
from torch import nn
from torch.nn import functional

from syncl_core.models.box_code import code_center, code_log_size, normalize
from syncl_core.models.duplicates import duplicates
from syncl_core.models.position import point_sine
from syncl_core.models.queries import SizedQueries
from syncl_core.models.votes import MIDDLE

_NEIGHBOURS = 3  # cells: of so many side by side at most one is the middle of an object
_SPARE = 4  # times as many cells are looked at as queries are needed
_APART = 0.5  # metres beyond half a box: votes nearer than that are for the same object
_BEHIND = 1e4  # logits: a cell beside a better one comes after all others
_AGAIN = 2e4  # and one that votes for the place of a better one after those
_HIDDEN = 1e5  # and one of a missing camera at the end


class Proposer(nn.Module):
    """Queries at the votes of the cells that are most probably the middle of an object."""

    def __init__(self, dim: int, num_queries: int, volume: torch.Tensor):
        super().__init__()
        self.num_queries, self.axis = num_queries, dim // 2
        self.content = nn.Linear(dim, dim)
        self.position = nn.Sequential(nn.Linear(3 * self.axis, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.register_buffer("volume", volume, persistent=False)

    def forward(
        self,
        features: torch.Tensor,  # [B, N, D, h, w] the finest map
        sights: torch.Tensor,  # [B, N, h, w, 12]
        votes: torch.Tensor,  # [B, N, 11, h, w]
        camera_valid: torch.Tensor,  # [B, N] bool
    ) -> SizedQueries:
        """`num_queries` rows, the most convincing first, one for every object whose cells agree on where it is.

        No gradient reaches votes from where their queries begin.
        """
        middle = sights[..., MIDDLE].detach()
        best = functional.max_pool2d(middle, _NEIGHBOURS, stride=1, padding=_NEIGHBOURS // 2)
        order = middle - _BEHIND * (middle < best) - _HIDDEN * ~camera_valid[..., None, None]
        some = order.flatten(1).topk(min(_SPARE * self.num_queries, order[0].numel()), dim=1)
        code = _of_cells(votes.detach(), some.indices)
        again = duplicates(code, some.values, _APART)
        chosen = (some.values - _AGAIN * again).topk(self.num_queries, dim=1).indices
        code = code.gather(1, chosen[..., None].expand(-1, -1, code.shape[-1]))
        place = normalize(code_center(code), self.volume).clamp(0, 1)
        content = self.content(_of_cells(features, some.indices.gather(1, chosen)))
        return self.at(place, code_log_size(code), content)

    def at(
        self,
        reference: torch.Tensor,  # [B, M, 3] fractions of pc_range
        log_size: torch.Tensor,  # [B, M, 3] log of width, length, height in metres
        content: torch.Tensor,  # [B, M, D]
    ) -> SizedQueries:
        """Queries whose positions follow from where they begin."""
        return SizedQueries(
            content=content,
            position=self.position(point_sine(reference, self.axis).to(content.dtype)),
            reference=reference,
            log_size=log_size,
            valid=torch.ones(reference.shape[:2], dtype=torch.bool, device=reference.device),
        )

    def unseen(self, reference: torch.Tensor) -> SizedQueries:
        """Queries at `reference` [B, M, 3] that no cell proposed: cubes of a metre, with the content of no feature."""
        content = self.content.bias.expand(*reference.shape[:2], -1)
        return self.at(reference, torch.zeros_like(reference), content)


def _of_cells(values: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Rows [B, M, C] of maps [B, N, C, h, w] at the flat cells [B, M]."""
    rows = values.movedim(2, -1).flatten(1, 3)
    return rows.gather(1, cells[..., None].expand(-1, -1, rows.shape[-1]))
