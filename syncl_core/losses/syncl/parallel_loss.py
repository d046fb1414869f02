"""Who learns what in the parallel decoder (paper, sec. 3.3, Table 4a)."""

import torch

from syncl_core.losses.matching import TrackMatch
from syncl_core.losses.syncl.hybrid_matching import OneToMany
from syncl_core.strategy_config import ParallelConfig


def parallel_targets(
    rows: torch.Tensor,  # [B, M] bool: object queries
    tracks: TrackMatch,
    many: OneToMany,
    serial_target: torch.Tensor,  # [L, B, M] int64 the ordinary decoder's matching
    config: ParallelConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For `set_sums`: the object of every row [L, B, M] int64 (-1 = background), and whether it counts [L, B, M] bool.

    Track queries keep their identity's object, as in the ordinary decoder; tracks whose object vanished are background.
    """
    target = torch.where(tracks.track, tracks.target, many.target)
    counts = (rows & config.object_loss) | (tracks.track & config.track_loss)
    if config.empty_frames == "skip":
        any_object = many.objects.any(dim=1) & config.object_loss
        any_track = tracks.persistent.any(dim=1) & config.track_loss
        counts = counts & (any_object | any_track)[:, None]
    counts = counts.expand_as(target)
    unmatched = rows & (target < 0)
    if config.new_born == "ignore":
        counts = counts & ~(unmatched & (serial_target >= 0))
    if config.rejected == "ignore":
        counts = counts & ~(unmatched & many.rejected)
    return target, counts
