"""Cells of the feature maps vote for the box of the object they show; a query goes where the cells it looks at send it.

An addition of ours to DETR3D, for networks that train for hours, not weeks. A query of DETR3D has to work out from
features alone, camera by camera, where the thing it looks at is, and then the small difference to where it is itself.
Here the map says it: a small network reads from every cell what it sees of an object, and `lift` works out the place.
Features that queries read are scaled and shifted by the ray of their cell, the way StreamPETR tells its tokens.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from syncl_core.models.box_code import CODE_SIZE, code_center, with_center
from syncl_core.models.lift import VIEW_SIZE, lift
from syncl_core.models.motion_norm import MotionNorm
from syncl_core.models.position import cell_rays

BELIEF, MIDDLE = VIEW_SIZE, VIEW_SIZE + 1
"""Channels behind a cell's view, any numbers: that it shows an object; that it is the object's middle."""

_SIGHT_SIZE = VIEW_SIZE + 2
_PRIOR = -4.6  # logit of the initial probability 0.01 of a middle
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

    def __init__(self, dim: int, ground: float):
        super().__init__()
        self.ground = ground
        self.ray_norm = MotionNorm(_RAY, dim)
        self.sight = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, _SIGHT_SIZE))
        nn.init.constant_(self.sight[-1].bias[MIDDLE:], _PRIOR)

    def forward(
        self,
        maps: torch.Tensor,  # [B, N, D, h, w]
        image_from_model: torch.Tensor,  # [B, N, 4, 4] float64, invertible
        image_size: tuple[int, int],  # pixels
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features that know their rays [B, N, D, h, w]; the cells' sights, views with BELIEF and MIDDLE,
        [B, N, h, w, 12] float32; and their votes [B, N, 11, h, w]: box codes and beliefs."""
        rays = cell_rays(image_from_model, tuple(maps.shape[-2:]), image_size)
        known = self.ray_norm(maps.movedim(2, -1), rays.to(maps.dtype))
        sights = self.sight(known).float()
        codes = lift(sights[..., :VIEW_SIZE], image_from_model, image_size, self.ground)
        votes = torch.cat([codes, sights[..., BELIEF:MIDDLE]], dim=-1)
        return known.movedim(-1, 2), sights, votes.movedim(-1, 2)


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
        # Multiplied and summed: autocast would round a product of matrices to bfloat16.
        code = (weights[..., None] * codes).sum(dim=2)
        moved = (weights[..., None] * away.clamp(-_FARTHEST, _FARTHEST)).sum(dim=2)
        news = torch.cat([with_center(code, moved), stay], dim=-1)
        return Verdict(code=code, stay=stay), self.embed(news)
