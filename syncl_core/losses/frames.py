"""The frames of a clip side by side, as if they were scenes of one batch, so that one call judges all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from syncl_core.losses.matching import Assignment, TrackMatch, match_tracks
from syncl_core.losses.padding import clean_targets
from syncl_core.losses.set_loss import SetSums, set_sums
from syncl_core.models.heads import HeadOutput
from syncl_core.strategy_config import LossConfig
from syncl_core.tensors import Targets, pad_targets
from syncl_core.tracking.base import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedFrame:
    """A frame of B scenes: what the network said, what is there, and who answers for what."""

    observation: Observation
    targets: Targets
    assignment: Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a part of the network says about the rows of N scenes."""

    logits: torch.Tensor  # [L, N, M, C]
    box: torch.Tensor  # [L, N, M, 10] box code


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenes:
    """N = T * B scenes: those of the first frame, then those of the next."""

    frames: int  # T
    valid: torch.Tensor  # [N, M] bool: the row means something
    targets: Targets  # [N, G]
    rows: torch.Tensor  # [N, M] bool: object queries
    tracks: TrackMatch  # [N, M] and [N, G]
    target: torch.Tensor  # [L, N, M] int64 row of `targets`, the matching of every frame; -1 = none

    def set_sums(
        self,
        predictions: Predictions,
        target: torch.Tensor,  # [L, N, M] int64 row of `targets`; -1 = background
        config: LossConfig,
        code_weights: torch.Tensor,
        counts: torch.Tensor | None = None,  # [L, N, M] bool; None = all rows that mean something
    ) -> SetSums:
        """Of every frame: [L, T, B]."""
        counts = self.valid.expand_as(target) if counts is None else counts
        sums = set_sums(predictions.logits, predictions.box, target, counts, self.targets, config, code_weights)
        return sums.split(self.frames)

    def last(self, frames: int) -> "Scenes":
        """Those of the last frames alone."""
        first = self.valid.shape[0] // self.frames * (self.frames - frames)
        return Scenes(
            frames=frames,
            valid=self.valid[first:],
            targets=_from(self.targets, first),
            rows=self.rows[first:],
            tracks=_from(self.tracks, first),
            target=self.target[:, first:],
        )


def side_by_side(frames: Sequence[MatchedFrame]) -> Scenes:
    """T frames of B scenes; objects are padded to the frame that has most."""
    targets = clean_targets(pad_targets([frame.targets for frame in frames]))
    track_id = torch.cat([frame.observation.track_id for frame in frames])
    valid = torch.cat([frame.observation.valid for frame in frames])
    return Scenes(
        frames=len(frames),
        valid=valid,
        targets=targets,
        rows=torch.cat([frame.assignment.rows for frame in frames]),
        tracks=match_tracks(track_id, valid, targets),  # anew: to pad those of each frame takes more operations
        target=torch.cat([frame.assignment.target for frame in frames], dim=1),
    )


def predictions_of(outputs: Sequence[HeadOutput]) -> Predictions:
    """Of all frames by one decoder."""
    return Predictions(
        logits=torch.cat([output.logits for output in outputs], dim=1),
        box=torch.cat([output.box for output in outputs], dim=1),
    )


def refined_predictions(refined: Sequence) -> Predictions:
    """Of all frames by what refines the decoder's last layer (`Observation.refined`): one layer."""
    return Predictions(
        logits=torch.cat([each.logits for each in refined])[None],
        box=torch.cat([each.box for each in refined])[None],
    )


def _from(value: Targets | TrackMatch, first: int) -> Targets | TrackMatch:
    """Its scenes from the `first` on."""
    return type(value)(**{f.name: getattr(value, f.name)[first:] for f in fields(value)})
