"""Task-specific hybrid matching (paper, sec. 3.3): one object to many object queries, identity for track queries."""

from dataclasses import dataclass

import torch

from syncl_core.losses.matching import TrackMatch, matching_cost
from syncl_core.losses.syncl.query_filter import QueryFilter
from syncl_core.strategy_config import LossConfig, MatchingConfig
from syncl_core.tensors import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class OneToMany:
    """Object queries and the objects they answer for."""

    target: torch.Tensor  # [L, B, M] int64 row of the ground truth; -1 = none
    rejected: torch.Tensor  # [L, B, M] bool: was a candidate, but the filter kept it for no object
    objects: torch.Tensor  # [B, G] bool: the objects that were to be matched
    threshold: torch.Tensor  # [L, B] float64 the filter's, delta


def match_one_to_many(
    logits: torch.Tensor,  # [L, B, M, C]
    box: torch.Tensor,  # [L, B, M, 10]
    rows: torch.Tensor,  # [B, M] bool: object queries
    targets: Targets,
    tracks: TrackMatch,
    query_filter: QueryFilter,
    config: MatchingConfig,
    loss: LossConfig,
) -> OneToMany:
    """Up to K rows per object, those the filter keeps; a row that several objects keep goes to the cheapest (Eq. 9)."""
    objects = (
        targets.valid
        & {
            "persistent": tracks.persistent,
            "new_born": ~tracks.persistent,
            "all": torch.ones_like(tracks.persistent),
        }[config.objects]
    )
    layers = logits.shape[0]
    if not config.every_block:
        logits, box = logits[-1:], box[-1:]
    logits, box = logits.detach(), box.detach()
    cost = matching_cost(logits, box, targets, loss)
    chosen = query_filter(cost, rows[:, :, None] & objects[:, None], logits, box, targets)
    price, target = chosen.price.masked_fill(~chosen.kept, torch.inf).min(dim=3)
    target = torch.where(price.isfinite(), target, -1)
    rejected = chosen.candidates.any(dim=3) & (target < 0)
    return OneToMany(
        target=target.expand(layers, -1, -1),
        rejected=rejected.expand(layers, -1, -1),
        objects=objects,
        threshold=chosen.threshold.expand(layers, -1),
    )
