"""PF-Track's loss on predicted motion (Pang et al. 2023, sec. 3.4)."""

import torch

from syncl_core.losses.matching import match_tracks
from syncl_core.tensors import Targets


def forecast_loss(
    motion: torch.Tensor,  # [B, K, F, 2] predicted xy displacement per step
    track_id: torch.Tensor,  # [B, K] int64, -1 = free slot
    targets: Targets,
    as_released: bool = False,
) -> torch.Tensor:
    """Mean absolute error over the annotated steps of a scene's tracks, then over scenes.

    `as_released` divides by all steps of the tracks, so that steps without annotation count as zero error.
    """
    owner = match_tracks(track_id, track_id >= 0, targets)
    scene = torch.arange(track_id.shape[0], device=track_id.device)[:, None]
    index = owner.target.clamp(min=0)
    owned = owner.target >= 0
    known = targets.motion_valid[scene, index] & owned[..., None]  # [B, K, F]
    error = torch.where(known[..., None], motion.float() - targets.motion[scene, index].float(), 0.0).abs()
    steps = owned.sum(dim=1) * known.shape[2] if as_released else known.sum(dim=(1, 2))
    return (error.sum(dim=(1, 2, 3)) / (2 * steps).clamp(min=1)).mean()
