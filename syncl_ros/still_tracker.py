"""A tracker that costs nothing: the same boxes beside the car in every frame. What remains is the node's own work."""

import dataclasses

import torch

from syncl_core.config import ImageConfig, SynclConfig, load_config
from syncl_core.tensors import Frame, Tracks, device_value

NUM_TRACKS = 20


@device_value
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StillState:
    """How many frames there were; nothing else is remembered."""

    frames: torch.Tensor  # [B] int64


class StillTracker:
    """Has what the node uses of a Tracker."""

    def __init__(self, config: SynclConfig):
        self.config = config

    def init_state(self, batch: int = 1, device: torch.device | str | None = None) -> StillState:
        return StillState(frames=torch.zeros(batch, dtype=torch.int64, device=device))

    def step(self, state: StillState, frame: Frame) -> tuple[StillState, Tracks]:
        batch, device = frame.images.shape[0], frame.images.device
        number = torch.arange(NUM_TRACKS, device=device).expand(batch, -1)
        center = torch.stack([number * 2.0 - NUM_TRACKS, torch.full_like(number, 8.0), number * 0.0 - 1.0], dim=-1)
        tracks = Tracks(
            valid=torch.ones_like(number, dtype=torch.bool),
            track_id=number,
            label=number % self.config.num_tracking_classes,
            score=torch.full_like(center[..., 0], 0.5),
            center=center,
            size=torch.ones_like(center),
            yaw=torch.zeros_like(center[..., 0]),
            velocity=torch.zeros_like(center[..., :2]),
        )
        return StillState(frames=state.frames + 1), tracks


def load_still_tracker(config: str, checkpoint: str, seed: int, device: str) -> StillTracker:
    """In place of `load_tracker`. Without a configuration: a small image, and every set is processed."""
    if config:
        return StillTracker(load_config(config))
    default = SynclConfig(name="still", image=ImageConfig(height=128, width=320))
    return StillTracker(dataclasses.replace(default, sync=dataclasses.replace(default.sync, process_period=0.0)))
