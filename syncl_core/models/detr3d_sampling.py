"""DETR3D's cross-attention (Wang et al. 2021, sec. 3.3): a query reads the maps where its reference point is seen."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from syncl_core.model_config import ModelConfig
from syncl_core.models.box_code import denormalize, inverse_sigmoid
from syncl_core.models.position import embed
from syncl_core.models.votes import Verdict, VoteCount
from syncl_core.tensors import Frame

_NEAREST = 1e-5
"""Depth in metres from which on a camera can see a point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """What the queries look at: feature maps of every camera, from fine to coarse, and where the cameras are."""

    levels: tuple[torch.Tensor, ...]  # L maps [B, N, D, h, w]
    image_from_model: torch.Tensor  # [B, N, 4, 4] float64, as in `tensors.Frame`
    camera_valid: torch.Tensor  # [B, N] bool
    image_size: tuple[int, int]  # height and width, pixels, of the padded image that the maps cover
    sights: tuple[torch.Tensor, ...] = ()  # L maps [B, N, h, w, 12] of what cells see, or none (models/votes.py)
    votes: tuple[torch.Tensor, ...] = ()  # L maps [B, N, 11, h, w] of what follows from it

    def covered(self, frame: Frame) -> tuple[int, int]:
        """Height and width of the image that the maps cover, pixels."""
        return self.image_size

    def feature_maps(self, frame: Frame) -> tuple[torch.Tensor, ...]:
        """Features [B, N, D, h, w] that know where they look, from fine to coarse."""
        return self.levels

    @property
    def tokens(self) -> torch.Tensor:
        """All cells [B, P, D], level by level."""
        return torch.cat([level.flatten(3).transpose(2, 3).flatten(1, 2) for level in self.levels], dim=1)


class FeatureSampling(nn.Module):
    """One weight per camera and level, no softmax; what no camera sees adds nothing but its position."""

    def __init__(self, num_cameras: int, num_levels: int, config: ModelConfig):
        super().__init__()
        dim = config.embed_dim
        self.attention_weights = nn.Linear(dim, num_cameras * num_levels)
        self.output_proj = nn.Linear(dim, dim)
        self.position_encoder = nn.Sequential(
            *(nn.Linear(3, dim), nn.LayerNorm(dim), nn.ReLU()),
            *(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU()),
        )
        self.vote_count = VoteCount(dim) if config.detr3d.votes else None
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("pc_range", torch.tensor(config.pc_range).view(2, 3), persistent=False)
        for linear in (self.attention_weights, self.output_proj, self.position_encoder[0], self.position_encoder[3]):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.attention_weights.bias)
        nn.init.zeros_(self.output_proj.bias)

    def forward(
        self,
        x: torch.Tensor,  # [B, M, D]
        position: torch.Tensor,  # [B, M, D]
        reference: torch.Tensor,  # [B, M, 3] fractions of pc_range
        pyramid: Pyramid,
    ) -> tuple[torch.Tensor, Verdict | None]:
        """[B, M, D], the residual x included, and what the votes say, if there are any."""
        points, seen = project(denormalize(reference, self.pc_range), pyramid)
        weights = self.attention_weights(x + position).unflatten(-1, (seen.shape[1], -1)).sigmoid()  # [B, M, N, L]
        weights = weights * seen.transpose(1, 2)[..., None]
        # Multiplied and summed, which is several times as fast as a product of matrices this small.
        shares = weights.permute(3, 0, 2, 1)[:, :, :, None]  # [L, B, N, 1, M]
        levels = zip(pyramid.levels, shares, strict=True)
        read = sum((sample(level, points) * share).sum(dim=1) for level, share in levels).transpose(1, 2)
        where = embed(self.position_encoder, inverse_sigmoid(reference))
        verdict = None
        if self.vote_count is not None:
            read_votes = [sample(votes, points, "nearest") for votes in pyramid.votes]
            votes = torch.stack(read_votes, dim=-1).permute(0, 3, 1, 4, 2)  # [B, M, N, L, 11]
            can_see = seen.transpose(1, 2)[..., None].expand(votes.shape[:-1])
            place = denormalize(reference, self.pc_range)
            verdict, news = self.vote_count(x, votes.flatten(2, 3), can_see.flatten(2), place)
            where = where + news
        return self.dropout(self.output_proj(read)) + x + where, verdict


def project(points: torch.Tensor, pyramid: Pyramid) -> tuple[torch.Tensor, torch.Tensor]:
    """Where cameras see points [B, M, 3], metres: [B, N, M, 2] right and down, -1 and 1 at the padded image's edges.

    With it, whether they see them [B, N, M] bool: in front, strictly inside the image, and the camera is there. Points
    that are not seen lie outside.
    """
    matrix = torch.where(pyramid.camera_valid[..., None, None], pyramid.image_from_model, 0.0)
    pixels = torch.einsum("bnij,bmj->bnmi", matrix[:, :, :3, :3], points.double()) + matrix[:, :, None, :3, 3]
    x, y, depth = pixels.unbind(dim=-1)
    ahead, (height, width) = depth.clamp(min=_NEAREST), pyramid.image_size
    place = (torch.stack([x / ahead / width, y / ahead / height], dim=-1) - 0.5) * 2
    seen = (depth > _NEAREST) & (place.abs() < 1.0).all(dim=-1)
    return torch.where(seen[..., None], place, -2.0).float(), seen


def sample(level: torch.Tensor, points: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Features [B, N, D, M] of a map [B, N, D, h, w] at points [B, N, M, 2], between the cells' centres by `mode`."""
    maps, places = level.flatten(0, 1), points.flatten(0, 1)[:, :, None]
    read = functional.grid_sample(maps.to(places.dtype), places, mode=mode, align_corners=False)
    return read[..., 0].to(level.dtype).unflatten(0, level.shape[:2])
