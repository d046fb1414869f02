"""Instance-aware contrastive learning (paper, sec. 3.5): object and track queries of one object score high together."""

from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.losses.matching import TrackMatch
from syncl_core.strategy_config import ContrastiveConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The queries that meet, by object: at most K object queries and one track query each."""

    object_row: torch.Tensor  # [L, B, G, K] int64 row of an object query
    object_valid: torch.Tensor  # [L, B, G, K] bool; the other entries mean nothing
    track_row: torch.Tensor  # [B, G] int64 row of the object's track query
    track_valid: torch.Tensor  # [B, G] bool: the object is persistent


def find_pairs(target: torch.Tensor, rows: torch.Tensor, tracks: TrackMatch, count: int) -> Pairs:
    """By matched objects: `target` [L, B, M] of the object queries `rows` [B, M], -1 = none."""
    objects = torch.arange(tracks.persistent.shape[1], device=target.device)
    matched = (target[..., None] == objects) & rows[:, :, None]  # [L, B, M, G]
    found = matched.transpose(2, 3).to(torch.uint8).topk(min(count, target.shape[2]), dim=3)
    return Pairs(
        object_row=found.indices,
        object_valid=found.values > 0,
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
        objects = _take(features, pairs.object_row.flatten(2))  # [L, B, G * K, D]
        tracks = _take(features, pairs.track_row.expand(features.shape[0], -1, -1))  # [L, B, G, D]
        if self.config.stop_gradient == "object":
            objects = objects.detach()
        valid = pairs.object_valid & pairs.track_valid[..., None]  # [L, B, G, K]
        scores = self.score(objects, tracks).unflatten(2, valid.shape[2:])  # [L, B, G, K, G]
        terms = []
        if self.config.anchor in ("object", "symmetric"):
            others = None if vanished is None else self.score(objects, features[:, :, -vanished.shape[1] :])
            terms.append(_object_anchor(scores, valid, pairs.track_valid, others, vanished))
        if self.config.anchor in ("track", "symmetric"):
            terms.append(_track_anchor(scores, valid, pairs.object_valid))
        return torch.stack(terms).mean(dim=0)


def _take(features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """[L, B, N, D]: rows [L, B, N] of features [L, B, M, D]."""
    return features.gather(2, rows[..., None].expand(-1, -1, -1, features.shape[3]))


def _object_anchor(
    scores: torch.Tensor,  # [L, B, G, K, G]
    valid: torch.Tensor,  # [L, B, G, K]
    track_valid: torch.Tensor,  # [B, G]
    others: torch.Tensor | None,  # [L, B, G * K, S] scores with the last S rows
    vanished: torch.Tensor | None,  # [B, S]
) -> torch.Tensor:
    """Eq. 11: cross-entropy of every matched object query over the frame's tracks; [L, B]. Zero with one track only."""
    lowest = torch.finfo(scores.dtype).min
    masked = scores.masked_fill(~track_valid[:, None, None, :], lowest)
    if vanished is not None:
        others = others.masked_fill(~vanished[:, None, :], lowest).unflatten(2, valid.shape[2:])
        masked = torch.cat([masked, others], dim=-1)
    return _mean_over(masked.logsumexp(dim=-1) - _own(scores), valid)


def _track_anchor(scores: torch.Tensor, valid: torch.Tensor, object_valid: torch.Tensor) -> torch.Tensor:
    """The other way round: each pair against the object queries of all other objects; [L, B]."""
    size = scores.shape[2]
    foreign = object_valid[..., None] & ~torch.eye(size, dtype=torch.bool, device=scores.device)[:, None, :]
    # Of every track, all queries of other objects: [L, B, G].
    rest = scores.masked_fill(~foreign, torch.finfo(scores.dtype).min).flatten(2, 3).logsumexp(dim=2)
    own = _own(scores)
    return _mean_over(torch.logaddexp(own, rest[..., None]) - own, valid)


def _own(scores: torch.Tensor) -> torch.Tensor:
    """[L, B, G, K]: of scores [L, B, G, K, G] those of the pairs, where query and track share the object."""
    return scores.diagonal(dim1=2, dim2=4).transpose(2, 3)


def _mean_over(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """[L, B]: the mean of values [L, B, G, K] where chosen; zero without any."""
    total = torch.where(chosen, values, 0.0).sum(dim=(2, 3))
    return total / chosen.sum(dim=(2, 3)).clamp(min=1)
