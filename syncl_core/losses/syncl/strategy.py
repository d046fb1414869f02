"""SynCL's part in the loss of a clip: matching, filter, parallel decoder and contrastive term put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.losses.frames import Predictions, Scenes, predictions_of
from syncl_core.losses.set_loss import SetSums
from syncl_core.losses.syncl.contrastive import InstanceContrast, find_pairs
from syncl_core.losses.syncl.hybrid_matching import OneToMany, match_one_to_many
from syncl_core.losses.syncl.parallel_loss import parallel_targets
from syncl_core.losses.syncl.query_filter import QueryFilter
from syncl_core.models.heads import HeadOutput
from syncl_core.tracking.base import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyLoss:
    """What SynCL adds to the loss of T frames."""

    parallel: SetSums | None  # the parallel decoder's, of the last frames: those where it ran
    contrastive: torch.Tensor | None  # scalar, weighted
    serial_target: torch.Tensor  # [L, T * B, M] int64 what the ordinary decoder learns; -1 = background
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
        self, observations: Sequence[Observation], head: Predictions, scenes: Scenes, code_weights: torch.Tensor
    ) -> StrategyLoss:
        """`head`: the ordinary decoder's predictions in these observations, whose frames are `scenes`."""
        config, serial_target = self.config, scenes.target
        if not config.needs_parallel:
            many = self._match(head, scenes)
            # The row that tracking continues with stays matched; the others join it.
            joins = scenes.rows & (serial_target < 0)
            return StrategyLoss(
                parallel=None,
                contrastive=None,
                serial_target=torch.where(joins, many.target, serial_target),
                stats=_stats(many, scenes),
            )
        outputs = _parallel_outputs(observations, every=config.decodes_twice(tracks=False))
        if not outputs:
            return StrategyLoss(parallel=None, contrastive=None, serial_target=serial_target, stats={})
        output, scenes = predictions_of(outputs), scenes.last(len(outputs))
        many = self._match(output, scenes)
        target, counts = parallel_targets(scenes.rows, scenes.tracks, many, scenes.target, config.parallel)
        return StrategyLoss(
            parallel=scenes.set_sums(output, target, config.loss, code_weights, counts),
            contrastive=self._contrast(outputs, scenes, many) if self.contrast else None,
            serial_target=serial_target,
            stats=_stats(many, scenes),
        )

    def _match(self, output: Predictions, scenes: Scenes) -> OneToMany:
        return match_one_to_many(
            *(output.logits, output.box, scenes.rows, scenes.targets, scenes.tracks),
            *(self.query_filter, self.config.matching, self.config.loss),
        )

    def _contrast(self, outputs: Sequence[HeadOutput], scenes: Scenes, many: OneToMany) -> torch.Tensor:
        config, tracks = self.config.contrastive, scenes.tracks
        last = slice(-1, None) if config.blocks == "last" else slice(None)
        features = [(each.raw if config.features == "raw" else each.features)[last] for each in outputs]
        features = torch.where(scenes.valid[..., None], torch.cat(features, dim=1), 0.0)
        target, vanished = many.target[last], None
        if config.vanished_negatives:
            vanished = (tracks.track & (tracks.target < 0))[:, -self.slots :]
        pairs = find_pairs(target, scenes.rows, tracks)
        return config.weight * scenes.frames * self.contrast(features, pairs, vanished).mean()


def _parallel_outputs(observations: Sequence[Observation], every: bool) -> list[HeadOutput]:
    """Of the frames that were decoded twice: all of them, or all but the first ones."""
    outputs = [each.parallel for each in observations if each.parallel is not None]
    expected = observations if every else observations[len(observations) - len(outputs) :]
    assert all(each.parallel is not None for each in expected), "SynCL needs an observation with parallel rows"
    return outputs


@torch.no_grad()
def _stats(many: OneToMany, scenes: Scenes) -> dict[str, torch.Tensor]:
    """Of the last block, the mean over the frames that have them: the filter's threshold, queries per object, and the
    share of objects without any."""
    rows, target = scenes.rows, many.target[-1]
    matched = (target[:, :, None] == torch.arange(many.objects.shape[1], device=rows.device)) & rows[:, :, None]
    reached = matched.any(dim=1) & many.objects

    def per_frame(x: torch.Tensor) -> torch.Tensor:
        return x.view(scenes.frames, -1).sum(dim=1)

    objects = per_frame(many.objects).float()
    return {
        "delta": many.threshold[-1].view(scenes.frames, -1).nanmean(dim=1).nanmean().float(),
        "kept": (per_frame((target >= 0) & rows) / objects).nanmean(),
        "left_out": (1 - per_frame(reached) / objects).nanmean(),
    }
