"""TrackState -> Tracks: what the outside world gets to see."""

import torch

from syncl_core.config import SynclConfig
from syncl_core.models.box_code import code_center, code_size, code_velocity, code_yaw
from syncl_core.tensors import Tracks, TrackState


def read_tracks(state: TrackState, config: SynclConfig) -> Tracks:
    """Metric boxes of all slots.

    Valid are the `max_output` best of the confident tracks, if inside `position_range`; coasting ones stay hidden.
    """
    center = code_center(state.box)
    low, high = config.model.position_range[:3], config.model.position_range[3:]
    inside = [(center[..., i] >= low[i]) & (center[..., i] <= high[i]) for i in range(3)]
    confident = (state.track_id >= 0) & (state.score > config.track.output_threshold)
    return Tracks(
        valid=torch.stack([_best(confident, state.score, config.track.max_output), *inside]).all(dim=0),
        track_id=state.track_id,
        label=state.label,
        score=state.score,
        center=center,
        size=code_size(state.box),
        yaw=code_yaw(state.box),
        velocity=code_velocity(state.box),
    )


def _best(candidates: torch.Tensor, score: torch.Tensor, count: int) -> torch.Tensor:
    """[B, K] bool: the `count` candidates [B, K] with the highest scores."""
    best = torch.where(candidates, score, -1.0).argsort(dim=1, descending=True, stable=True)[:, :count]
    return candidates & torch.zeros_like(candidates).scatter(1, best, True)
