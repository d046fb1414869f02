"""Instance-aware contrastive learning (paper, sec. 3.5): object and track queries of one object score high together."""

from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.losses.matching import TrackMatch
from syncl_core.strategy_config import ContrastiveConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The queries that meet: object queries that answer for an object, and the objects' track queries."""

    query_row: torch.Tensor  # [L, B, P] int64 row of an object query
    query_object: torch.Tensor  # [L, B, P] int64 its object; -1 = the row means nothing
    track_row: torch.Tensor  # [B, G] int64 row of the object's track query
    track_valid: torch.Tensor  # [B, G] bool: the object is persistent


def find_pairs(target: torch.Tensor, rows: torch.Tensor, tracks: TrackMatch) -> Pairs:
    """By the objects `target` [L, B, M] of the object queries `rows` [B, M], -1 = none.

    The host reads the largest number of such queries in a scene, P: about a quarter of all, and each of them goes
    through a network with every track.
    """
    matched = (target >= 0) & rows
    found = matched.to(torch.uint8).topk(int(matched.sum(dim=2).max()), dim=2)
    return Pairs(
        query_row=found.indices,
        query_object=torch.where(found.values > 0, target.gather(2, found.indices), -1),
        track_row=tracks.row,
        track_valid=tracks.persistent,
    )


class InstanceContrast(nn.Module):
    """K[e_obj, e_trk] = MLP(FFN(e_obj) * e_trk) (Eq. 14). Its parameters are left behind after training."""

    def __init__(self, config: ContrastiveConfig, embed_dim: int):
        super().__init__()
        self.config = config
        self.ffn = nn.Sequential(nn.Linear(embed_dim, config.ffn_dim), nn.ReLU(), nn.Linear(config.ffn_dim, embed_dim))
        self.norm = nn.LayerNorm(embed_dim)
        hidden = config.mlp_dim
        self.mlp = (
            nn.Sequential(nn.Linear(embed_dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            if hidden
            else nn.Linear(embed_dim, 1)
        )
        # All pairs begin alike. A random start would be worse than chance at so low a temperature, and its gradient
        # the largest of all.
        nn.init.zeros_((self.mlp[-1] if hidden else self.mlp).weight)

    def score(self, objects: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
        """Scores [..., P, T] by temperature of object queries [..., P, D] and track queries [..., T, D]."""
        mapped = self.norm(objects + self.ffn(objects))
        return self.mlp(mapped[..., :, None, :] * tracks[..., None, :, :])[..., 0] / self.config.temperature

    def forward(
        self,
        features: torch.Tensor,  # [L, B, M, D] of the parallel decoder
        pairs: Pairs,
        vanished: torch.Tensor | None = None,  # [B, S] bool: which of the last S rows are tracks without object
    ) -> torch.Tensor:
        """The loss of every scene [L, B]: the mean over its pairs, zero where there is nothing to tell apart."""
        features = features.float()
        layers, index = features.shape[0], pairs.query_object.clamp(min=0)
        objects = _take(features, pairs.query_row)  # [L, B, P, D]
        tracks = _take(features, pairs.track_row.expand(layers, -1, -1))  # [L, B, G, D]
        if self.config.stop_gradient == "object":
            objects = objects.detach()
        scores = self.score(objects, tracks)  # [L, B, P, G]
        own = scores.gather(3, index[..., None])[..., 0]  # [L, B, P]: query and track share the object
        valid = (pairs.query_object >= 0) & pairs.track_valid.expand(layers, -1, -1).gather(2, index)
        terms = []
        if self.config.anchor in ("object", "symmetric"):
            others = None if vanished is None else self.score(objects, features[:, :, -vanished.shape[1] :])
            terms.append(_mean_over(_among_tracks(scores, pairs.track_valid, others, vanished) - own, valid))
        if self.config.anchor in ("track", "symmetric"):
            rest = _foreign_queries(scores, pairs.query_object).gather(2, index)
            terms.append(_mean_over(torch.logaddexp(own, rest) - own, valid))
        return torch.stack(terms).mean(dim=0)


def _take(features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """[L, B, N, D]: rows [L, B, N] of features [L, B, M, D]."""
    return features.gather(2, rows[..., None].expand(-1, -1, -1, features.shape[3]))


def _among_tracks(
    scores: torch.Tensor,  # [L, B, P, G]
    track_valid: torch.Tensor,  # [B, G]
    others: torch.Tensor | None,  # [L, B, P, S] scores with the last S rows
    vanished: torch.Tensor | None,  # [B, S]
) -> torch.Tensor:
    """Of every query the sum over the frame's tracks, the divisor of Eq. 11, as a logarithm [L, B, P]."""
    lowest = torch.finfo(scores.dtype).min
    masked = scores.masked_fill(~track_valid[:, None], lowest)
    if vanished is not None:
        masked = torch.cat([masked, others.masked_fill(~vanished[:, None], lowest)], dim=-1)
    return masked.logsumexp(dim=-1)


def _foreign_queries(scores: torch.Tensor, query_object: torch.Tensor) -> torch.Tensor:
    """Of every object's track the sum over the queries [L, B, P] of other objects, as a logarithm [L, B, G]."""
    objects = torch.arange(scores.shape[3], device=scores.device)
    foreign = (query_object >= 0)[..., None] & (query_object[..., None] != objects)
    return scores.masked_fill(~foreign, torch.finfo(scores.dtype).min).logsumexp(dim=2)


def _mean_over(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """[L, B]: the mean of values [L, B, P] where chosen; zero without any."""
    return torch.where(chosen, values, 0.0).sum(dim=2) / chosen.sum(dim=2).clamp(min=1)
