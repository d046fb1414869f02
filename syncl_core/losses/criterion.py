"""All losses of one frame, and which row owns which object afterwards.

    criterion = Criterion(config)
    for frame, targets in clip:
        observation = tracker.observe(state, frame, all_layers=True, parallel=config.syncl.decodes_twice(tracks=True))
        result = criterion(observation, targets)
        state = tracker.commit(observation, assigned(result.identity))
        losses = result.losses | criterion.forecast(state, targets)

The loss of a clip is the sum of all entries over its frames. Scenes of a batch are averaged.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.losses.forecast import forecast_loss
from syncl_core.losses.matching import Assignment, assign
from syncl_core.losses.padding import clean_targets
from syncl_core.losses.set_loss import SetSums, average_over_processes, box_mean, class_mean, set_sums
from syncl_core.losses.syncl.strategy import Strategy
from syncl_core.tensors import Targets, device_value
from syncl_core.tracking.base import Observation


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLoss:
    """What a frame says about the network."""

    losses: dict[str, torch.Tensor]  # weighted scalars; the parallel decoder's where it ran
    identity: torch.Tensor  # [B, M] int64 of the object that the row owns after the last layer's matching; -1 = none
    stats: dict[str, torch.Tensor]  # scalars to watch, without gradient; NaN where the frame has nothing to measure


class Criterion(nn.Module):
    """The baseline's losses and, if `syncl.enabled`, those of SynCL.

    Its parameters are those of the contrastive term: they are trained with the tracker and are no part of it. A frame
    is read on the host once, for the Hungarian method. Losses are float32 whatever autocast says.
    """

    def __init__(self, config: SynclConfig):
        super().__init__()
        self.config = config.syncl
        self.refines = config.model.framework == "pf_track"
        # A detector alone has no track queries that SynCL could help.
        tracks = config.model.framework != "none"
        self.strategy = Strategy(config) if config.syncl.enabled and tracks else None
        self.register_buffer("code_weights", torch.tensor(config.syncl.loss.code_weights), persistent=False)

    def forward(self, observation: Observation, targets: Targets) -> FrameLoss:
        """`observation` has all layers, and parallel rows if `syncl.decodes_twice`.

        Raises InputError where the network's output is not finite.
        """
        with torch.autocast(observation.head.logits.device.type, enabled=False):
            return self._frame_loss(observation, clean_targets(targets))

    def forecast(self, state, targets: Targets) -> dict[str, torch.Tensor]:
        """The loss on the motion [B, K, F, 2] that `commit` predicted for the tracks of `state`, for PF-Track."""
        if not self.refines:
            return {}
        config = self.config.loss
        with torch.autocast(state.motion.device.type, enabled=False):
            as_released = config.forecast_mean == "as_released"
            error = forecast_loss(state.motion, state.track_id, clean_targets(targets), as_released)
        return {"forecast": config.forecast_weight * error}

    def _frame_loss(self, observation: Observation, targets: Targets) -> FrameLoss:
        head, config = observation.head, self.config.loss
        assignment = assign(observation, targets, config, self.refines)
        owner = assignment.target[-1]
        serial_target, extra = assignment.target, None
        if self.strategy is not None:
            extra = self.strategy(observation, targets, assignment, self.code_weights)
            serial_target = extra.serial_target
        counts = observation.valid.expand_as(serial_target)
        serial = set_sums(head.logits, head.box, serial_target, counts, targets, config, self.code_weights)
        losses = self._set_losses(serial, extra.parallel if extra else None)
        if self.refines:
            losses |= self._memory_losses(observation, owner, targets)
        if extra and extra.contrastive is not None:
            losses["contrastive"] = extra.contrastive
        return FrameLoss(
            losses=losses,
            identity=torch.where(owner >= 0, targets.identity.gather(1, owner.clamp(min=0)), -1),
            stats=_stats(assignment, targets) | (extra.stats if extra else {}),
        )

    def _set_losses(self, serial: SetSums, parallel: SetSums | None) -> dict[str, torch.Tensor]:
        """Both decoders' losses, summed over layers. In training mode the processes meet here."""
        config, weight = self.config, self.config.parallel.weight
        kinds = {"": (serial, 1.0)} | ({"parallel_": (parallel, weight)} if parallel else {})
        if parallel and config.parallel.normalizer == "serial":
            kinds["parallel_"] = (dataclasses.replace(parallel, positives=serial.positives), weight)
        positives = torch.stack([sums.positives.mean(dim=1) for sums, _ in kinds.values()])
        if self.training:
            positives = average_over_processes(positives)
        losses = {}
        for (kind, (sums, factor)), average in zip(kinds.items(), positives, strict=True):
            of_class = class_mean(sums.of_class, sums.positives).sum()
            losses[f"{kind}class"] = factor * config.loss.class_weight * of_class
            losses[f"{kind}box"] = factor * config.loss.box_weight * box_mean(sums.of_box, average).sum()
        return losses

    def _memory_losses(
        self, observation: Observation, owner: torch.Tensor, targets: Targets
    ) -> dict[str, torch.Tensor]:
        """PF-Track's second say about the frame, by the last layer's owners [B, M]."""
        refined, config = observation.refined, self.config.loss
        sums = set_sums(
            *(refined.logits[None], refined.box[None], owner[None], observation.valid[None]),
            *(targets, config, self.code_weights),
        )
        return {
            "memory_class": config.class_weight * class_mean(sums.of_class, sums.positives).sum(),
            "memory_box": config.box_weight * class_mean(sums.of_box, sums.positives).sum(),
        }


@torch.no_grad()
def _stats(assignment: Assignment, targets: Targets) -> dict[str, torch.Tensor]:
    """Per scene: objects, those among them that tracks own, and tracks."""
    counts = {
        "objects": targets.valid,
        "persistent": assignment.tracks.persistent,
        "tracks": assignment.tracks.track,
    }
    return {name: mask.sum(dim=1).float().mean() for name, mask in counts.items()}
