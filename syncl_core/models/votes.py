"""Cells of the feature maps vote for the box of the object they show; a query goes where the cells it looks at send it.

An addition of ours to DETR3D, for networks that train for hours, not weeks. A query of DETR3D has to work out from
features alone, camera by camera, where the thing it looks at is, and then the small difference to where it is itself.
Here the map says it: features are scaled and shifted by the ray of their cell, the way StreamPETR tells its tokens
(a depth times a direction is a place), and a linear map reads a box code and a confidence from them.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from syncl_core.models.box_code import CODE_SIZE, code_center, with_center
from syncl_core.models.motion_norm import MotionNorm
from syncl_core.models.position import cell_rays

VOTE_SIZE = CODE_SIZE + 1
"""Channels of a map of votes: a box code, and how much the cell believes in it (any number)."""

VOTE_UNITS = (20.0, 20.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 1.0)
"""Metres, m/s: a linear map's outputs times these are a vote."""

_RAY = 6  # numbers that say where a cell looks
_NEAR = 5.0  # metres: unit of the difference between a vote and a query
_FARTHEST = 4.0  # of that unit; what is farther away is told as so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the votes that M queries see come to: weights that sum to one, between staying and every vote."""

    code: torch.Tensor  # [B, M, 10] sum of the votes' box codes by their weights; without the share that stays
    stay: torch.Tensor  # [B, M, 1] weight of staying as one is


class Voter(nn.Module):
    """The same for every map: what a cell's features and ray say about the object it shows."""

    def __init__(self, dim: int):
        super().__init__()
        self.ray_norm = MotionNorm(_RAY, dim)
        self.vote = nn.Linear(dim, VOTE_SIZE)
        self.register_buffer("units", torch.tensor(VOTE_UNITS), persistent=False)

    def forward(
        self,
        maps: torch.Tensor,  # [B, N, D, h, w]
        image_from_model: torch.Tensor,  # [B, N, 4, 4] float64, invertible
        image_size: tuple[int, int],  # pixels
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features that know their rays [B, N, D, h, w], and the cells' votes [B, N, 11, h, w] float32."""
        rays = cell_rays(image_from_model, tuple(maps.shape[-2:]), image_size)
        known = self.ray_norm(maps.movedim(2, -1), rays.to(maps.dtype))
        votes = self.vote(known).float() * self.units
        return known.movedim(-1, 2), votes.movedim(-1, 2)


class VoteCount(nn.Module):
    """A softmax over staying and the votes a query sees; far ones count less, by a learned rate."""

    def __init__(self, dim: int):
        super().__init__()
        self.stay = nn.Linear(dim, 1)
        self.reluctance = nn.Parameter(torch.zeros(()))
        self.embed = nn.Linear(CODE_SIZE + 1, dim)

    def forward(
        self,
        x: torch.Tensor,  # [B, M, D]
        votes: torch.Tensor,  # [B, M, V, 11]
        seen: torch.Tensor,  # [B, M, V] bool
        place: torch.Tensor,  # [B, M, 3] metres, model frame
    ) -> tuple[Verdict, torch.Tensor]:
        """The verdict, and what it means for the queries' features [B, M, D]. Who sees no vote stays."""
        codes, belief = votes[..., :CODE_SIZE].float(), votes[..., CODE_SIZE].float()
        away = (code_center(codes) - place[:, :, None]) / _NEAR
        belief = belief - functional.softplus(self.reluctance) * away.norm(dim=-1)
        scores = torch.cat([self.stay(x).float(), belief.masked_fill(~seen, -torch.inf)], dim=-1)
        weights = scores.softmax(dim=-1)
        stay, weights = weights[..., :1], weights[..., 1:]
        code = torch.einsum("bmv,bmvc->bmc", weights, codes)
        moved = torch.einsum("bmv,bmvc->bmc", weights, away.clamp(-_FARTHEST, _FARTHEST))
        news = torch.cat([with_center(code, moved), stay], dim=-1)
        return Verdict(code=code, stay=stay), self.embed(news)
