"""All losses of a clip, and in every frame which row owns which object afterwards.

    criterion, frames, losses = Criterion(config), [], []
    for frame, targets in clip:
        observation = tracker.observe(state, frame, all_layers=True, parallel=config.syncl.decodes_twice(tracks=True))
        assignment = criterion.match(observation, targets)
        frames.append(MatchedFrame(observation=observation, targets=targets, assignment=assignment))
        state = tracker.commit(observation, assigned(assignment.identity))
        losses.append(criterion.forecast(state, targets))
    losses.append(criterion(frames).losses)

The loss of a clip is the sum of all entries. Frames are summed up, scenes of a batch averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.losses.forecast import forecast_loss
from syncl_core.losses.frames import (
    MatchedFrame,
    Predictions,
    Scenes,
    predictions_of,
    refined_predictions,
    side_by_side,
)
from syncl_core.losses.matching import Assignment, assign
from syncl_core.losses.padding import clean_targets
from syncl_core.losses.set_loss import SetSums, average_over_processes, box_mean, class_mean
from syncl_core.losses.syncl.strategy import Strategy
from syncl_core.tensors import Targets, device_value
from syncl_core.tracking.base import Observation


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionLoss:
    """What the frames of a clip say about the network."""

    losses: dict[str, torch.Tensor]  # weighted scalars; the parallel decoder's where it ran
    stats: dict[str, torch.Tensor]  # scalars to watch, without gradient; NaN where there is nothing to measure


class Criterion(nn.Module):
    """The baseline's losses and, if `syncl.enabled`, those of SynCL.

    Its parameters are those of the contrastive term: they are trained with the tracker and are no part of it. A frame
    is read on the host once, for the Hungarian method, a clip once more, for the contrastive term. Losses are float32
    whatever autocast says, and of all frames at once: on a GPU a small network waits for the launch of every kernel.
    """

    def __init__(self, config: SynclConfig):
        super().__init__()
        self.config = config.syncl
        self.refines = config.model.framework == "pf_track"
        # A detector alone has no track queries that SynCL could help.
        tracks = config.model.framework != "none"
        self.strategy = Strategy(config) if config.syncl.enabled and tracks else None
        self.register_buffer("code_weights", torch.tensor(config.syncl.loss.code_weights), persistent=False)

    def match(self, observation: Observation, targets: Targets) -> Assignment:
        """Which row of a frame answers for which object. `observation` has all layers.

        Raises InputError where the network's output is not finite.
        """
        with torch.autocast(observation.head.logits.device.type, enabled=False):
            return assign(observation, clean_targets(targets), self.config.loss, self.refines)

    def forward(self, frames: Sequence[MatchedFrame]) -> CriterionLoss:
        """Of a clip. Its observations have parallel rows if `syncl.decodes_twice`; the first ones may lack them."""
        with torch.autocast(frames[0].observation.head.logits.device.type, enabled=False):
            return self._losses_of(frames)

    def forecast(self, state, targets: Targets) -> dict[str, torch.Tensor]:
        """The loss on the motion [B, K, F, 2] that `commit` predicted for the tracks of `state`, for PF-Track."""
        if not self.refines:
            return {}
        config = self.config.loss
        with torch.autocast(state.motion.device.type, enabled=False):
            as_released = config.forecast_mean == "as_released"
            error = forecast_loss(state.motion, state.track_id, clean_targets(targets), as_released)
        return {"forecast": config.forecast_weight * error}

    def _losses_of(self, frames: Sequence[MatchedFrame]) -> CriterionLoss:
        observations, scenes = [frame.observation for frame in frames], side_by_side(frames)
        head, serial_target, extra = predictions_of([each.head for each in observations]), scenes.target, None
        if self.strategy is not None:
            extra = self.strategy(observations, head, scenes, self.code_weights)
            serial_target = extra.serial_target
        serial = scenes.set_sums(head, serial_target, self.config.loss, self.code_weights)
        losses = self._set_losses(serial, extra.parallel if extra else None)
        if self.refines:
            losses |= self._memory_losses(refined_predictions([each.refined for each in observations]), scenes)
        if extra and extra.contrastive is not None:
            losses["contrastive"] = extra.contrastive
        return CriterionLoss(losses=losses, stats=_stats(scenes) | (extra.stats if extra else {}))

    def _set_losses(self, serial: SetSums, parallel: SetSums | None) -> dict[str, torch.Tensor]:
        """Both decoders' losses of [L, T, B], summed over layers and frames. In training mode the processes meet here.

        The parallel decoder's may be of the last frames only.
        """
        config = self.config
        kinds = {"": (serial, 1.0)}
        if parallel is not None:
            if config.parallel.normalizer == "serial":
                parallel = parallel.divided_as(serial)
            kinds["parallel_"] = (parallel, config.parallel.weight)
        averages = [sums.positives.mean(dim=2) for sums, _ in kinds.values()]
        average = torch.cat(averages, dim=1)
        if self.training:
            average = average_over_processes(average)
        losses = {}
        parts = average.split([part.shape[1] for part in averages], dim=1)
        for (kind, (sums, factor)), positives in zip(kinds.items(), parts, strict=True):
            of_class = class_mean(sums.of_class, sums.positives).sum()
            losses[f"{kind}class"] = factor * config.loss.class_weight * of_class
            losses[f"{kind}box"] = factor * config.loss.box_weight * box_mean(sums.of_box, positives).sum()
        return losses

    def _memory_losses(self, refined: Predictions, scenes: Scenes) -> dict[str, torch.Tensor]:
        """PF-Track's second say, by the last layer's owners."""
        config = self.config.loss
        sums = scenes.set_sums(refined, scenes.target[-1:], config, self.code_weights)
        return {
            "memory_class": config.class_weight * class_mean(sums.of_class, sums.positives).sum(),
            "memory_box": config.box_weight * class_mean(sums.of_box, sums.positives).sum(),
        }


@torch.no_grad()
def _stats(scenes: Scenes) -> dict[str, torch.Tensor]:
    """Per scene and frame: objects, those among them that tracks own, and tracks."""
    tracks = scenes.tracks
    counts = {"objects": scenes.targets.valid, "persistent": tracks.persistent, "tracks": tracks.track}
    return {name: mask.sum(dim=1).float().mean() for name, mask in counts.items()}
