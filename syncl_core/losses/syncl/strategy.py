"""SynCL's part in a frame's loss: matching, filter, parallel decoder and contrastive term put together."""

from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.losses.matching import Assignment
from syncl_core.losses.set_loss import SetSums, set_sums
from syncl_core.losses.syncl.contrastive import InstanceContrast, find_pairs
from syncl_core.losses.syncl.hybrid_matching import OneToMany, match_one_to_many
from syncl_core.losses.syncl.parallel_loss import parallel_targets
from syncl_core.losses.syncl.query_filter import QueryFilter
from syncl_core.tensors import Targets
from syncl_core.tracking.base import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyLoss:
    """What SynCL adds to the loss of a frame."""

    parallel: SetSums | None  # the parallel decoder's, where there is one
    contrastive: torch.Tensor | None  # scalar, weighted
    serial_target: torch.Tensor  # [L, B, M] int64 what the ordinary decoder learns; -1 = background
    stats: dict[str, torch.Tensor]


class Strategy(nn.Module):
    def __init__(self, config: SynclConfig):
        super().__init__()
        self.config, strategy = config.syncl, config.syncl
        layers = config.model.num_layers if strategy.matching.every_block else 1
        self.query_filter = QueryFilter(strategy.filter, strategy.loss, layers)
        contrasts = strategy.needs_parallel and strategy.contrastive.weight > 0
        self.contrast = InstanceContrast(strategy.contrastive, config.model.embed_dim) if contrasts else None
        self.slots = config.track.slots

    def forward(
        self, observation: Observation, targets: Targets, assignment: Assignment, code_weights: torch.Tensor
    ) -> StrategyLoss:
        config, serial_target = self.config, assignment.target
        output = observation.parallel if config.needs_parallel else observation.head
        if output is None:
            assert not config.decodes_twice(tracks=False), "SynCL needs an observation with parallel rows"
            return StrategyLoss(parallel=None, contrastive=None, serial_target=serial_target, stats={})
        many = match_one_to_many(
            *(output.logits, output.box, assignment.rows, targets, assignment.tracks),
            *(self.query_filter, config.matching, config.loss),
        )
        if not config.needs_parallel:
            # The row that tracking continues with stays matched; the others join it.
            serial_target = torch.where(assignment.rows & (serial_target < 0), many.target, serial_target)
            return StrategyLoss(
                parallel=None, contrastive=None, serial_target=serial_target, stats=_stats(many, assignment.rows)
            )
        target, counts = parallel_targets(assignment.rows, assignment.tracks, many, assignment.target, config.parallel)
        return StrategyLoss(
            parallel=set_sums(output.logits, output.box, target, counts, targets, config.loss, code_weights),
            contrastive=self._contrast(observation, assignment, many) if self.contrast else None,
            serial_target=serial_target,
            stats=_stats(many, assignment.rows),
        )

    def _contrast(self, observation: Observation, assignment: Assignment, many: OneToMany) -> torch.Tensor:
        config, tracks = self.config.contrastive, assignment.tracks
        output = observation.parallel
        features = output.raw if config.features == "raw" else output.features
        features = torch.where(observation.valid[..., None], features, 0.0)
        target, vanished = many.target, None
        if config.blocks == "last":
            features, target = features[-1:], target[-1:]
        if config.vanished_negatives:
            vanished = (tracks.track & (tracks.target < 0))[:, -self.slots :]
        # The last rows are those of tracks.
        count = min(tracks.persistent.shape[1] * self.config.filter.candidates, target.shape[2] - self.slots)
        pairs = find_pairs(target, assignment.rows, tracks, count)
        return config.weight * self.contrast(features, pairs, vanished).mean()


@torch.no_grad()
def _stats(many: OneToMany, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the last block: the filter's threshold, queries per object, and the share of objects without any."""
    number = many.objects.sum().float()
    matched = many.target[-1][:, :, None] == torch.arange(many.objects.shape[1], device=rows.device)
    reached = (matched & rows[:, :, None]).any(dim=1) & many.objects
    return {
        "delta": many.threshold[-1].nanmean().float(),
        "kept": ((many.target[-1] >= 0) & rows).sum() / number,
        "left_out": 1 - reached.sum() / number,
    }
