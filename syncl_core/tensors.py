"""The device values: what the network takes, remembers and gives. Frames and shape letters are those of `types`."""

from dataclasses import dataclass, fields

import torch
from torch.utils import _pytree


def _device_value(cls):
    """Register a frozen dataclass as a pytree, so that tree_map, compile and export see its tensors."""
    _pytree.register_dataclass(cls)
    return cls


@_device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The network's input: B frame sets after decoding, resizing and cropping."""

    images: torch.Tensor  # [B, N, 3, H, W] uint8 RGB
    image_from_model: torch.Tensor  # [B, N, 4, 4] float64: (u*d, v*d, d, 1) = image_from_model @ (x, y, z, 1), pixels
    camera_valid: torch.Tensor  # [B, N] bool; False = no image, its tokens are masked
    global_from_model: torch.Tensor  # [B, 4, 4] float64 at t_ns
    t_ns: torch.Tensor  # [B] int64


@_device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class TrackState:
    """All memory of the tracker between two frames: K slots per scene, packed or not; track_id -1 marks a free slot.

    Positions are metres in the model frame of `global_from_model`, the frame of the last step.
    """

    query: torch.Tensor  # [B, K, D] track query content
    reference: torch.Tensor  # [B, K, 3] reference point, metres
    box: torch.Tensor  # [B, K, 10] box code (cx, cy, log w, log l, cz, log h, sin yaw, cos yaw, vx, vy)
    score: torch.Tensor  # [B, K]
    label: torch.Tensor  # [B, K] int64
    track_id: torch.Tensor  # [B, K] int64, -1 = free
    misses: torch.Tensor  # [B, K] int64 frames since the track was last confident
    age: torch.Tensor  # [B, K] int64 frames since birth
    motion: torch.Tensor  # [B, K, F, 2] predicted xy displacement per step
    future: torch.Tensor  # [B, K, F, 3] predicted reference points, metres
    history: torch.Tensor  # [B, K, H, D] past track features
    history_valid: torch.Tensor  # [B, K, H] bool
    next_id: torch.Tensor  # [B] int64, the next identity; never decreases within a session
    dropped: torch.Tensor  # [B] int64 tracks lost because all slots were taken, since the session began
    global_from_model: torch.Tensor  # [B, 4, 4] float64
    t_ns: torch.Tensor  # [B] int64; -1 before the first frame

    def to_dict(self) -> dict[str, torch.Tensor]:
        """Tensors by name, for saving (`torch.load(weights_only=True)` reads them back)."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@_device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """The tracker's output of one frame, in the model frame of that frame. Rows where `valid` is False mean nothing."""

    valid: torch.Tensor  # [B, K] bool
    track_id: torch.Tensor  # [B, K] int64
    label: torch.Tensor  # [B, K] int64 index into the tracking classes
    score: torch.Tensor  # [B, K]
    center: torch.Tensor  # [B, K, 3] geometric centre, metres
    size: torch.Tensor  # [B, K, 3] length, width, height, metres
    yaw: torch.Tensor  # [B, K] heading of the length axis, counter-clockwise from the model frame's x axis, radians
    velocity: torch.Tensor  # [B, K, 2] m/s along the model frame's x and y
