"""Birth and death of tracks by three thresholds (MUTR3D, Zhang et al. 2022), without looking at values on the host.

A new row with a score of at least `score_threshold` becomes a track. A track at or above it has its misses forgiven;
one below `filter_threshold` is missed once more and dies when that makes `max_age`; in between nothing changes. There
is no coasting: whatever its score, a living track takes what the network said.
"""

import dataclasses

import torch

from syncl_core.config import TrackConfig
from syncl_core.tensors import Tracks
from syncl_core.tracking.base import Decision
from syncl_core.tracking.duplicates import without_duplicates


def judge(
    track_id: torch.Tensor,  # [B, M] int64; -1 = new row or free slot
    misses: torch.Tensor,  # [B, M] int64
    score: torch.Tensor,  # [B, M] highest class probability
    label: torch.Tensor,  # [B, M] int64 its class
    box: torch.Tensor,  # [B, M, 10] box codes, model frame
    new: torch.Tensor,  # [B, M] bool: object query, may become a track; a free slot is neither new nor alive
    config: TrackConfig,
    num_tracking_classes: int,
) -> Decision:
    """By score, what becomes of each row.

    A network that also knows classes beyond the tracked ones ends a track when it sees such a class with confidence.
    """
    alive = track_id >= 0
    confident = score >= config.score_threshold
    weak = score < config.filter_threshold
    missed = alive & weak
    misses = torch.where(confident | ~alive, 0, misses + missed)
    dies = missed & (misses >= config.max_age)
    trackable = weak | (label < num_tracking_classes)
    keep = trackable & ((new & confident) | (alive & ~dies))
    keep = without_duplicates(keep, box, score, alive & ~weak, config.duplicate_distance)
    return Decision(keep=keep, seen=alive | new, misses=misses)


def shown(tracks: Tracks, score: torch.Tensor, config: TrackConfig) -> Tracks:
    """`tracks` without those that live on, but with a score [B, K] below `filter_threshold`."""
    return dataclasses.replace(tracks, valid=tracks.valid & (score >= config.filter_threshold))
