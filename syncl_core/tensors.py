"""The device values: what the network takes, remembers and gives. Frames and shape letters are those of `types`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch.utils import _pytree


def device_value(cls):
    """Register a frozen dataclass as a pytree, so that tree_map, compile and export see its tensors."""
    _pytree.register_dataclass(cls)
    return cls


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The network's input: B frame sets after decoding, resizing and cropping."""

    images: torch.Tensor  # [B, N, 3, H, W] uint8 RGB
    image_from_model: torch.Tensor  # [B, N, 4, 4] float64: (u*d, v*d, d, 1) = image_from_model @ (x, y, z, 1), pixels
    camera_valid: torch.Tensor  # [B, N] bool; False = no image, its tokens are masked
    global_from_model: torch.Tensor  # [B, 4, 4] float64 at t_ns
    t_ns: torch.Tensor  # [B] int64


@device_value
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
    evidence: torch.Tensor  # [B, K, C] probabilities of the classes, summed over frames (class_memory.py)
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


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class PastFrame:
    """What a two-frame detector keeps of a frame: its P image tokens, and what places them in space and time."""

    tokens: torch.Tensor  # [B, P, D] without position
    image_from_model: torch.Tensor  # [B, N, 4, 4] float64; the identity for a missing camera
    camera_valid: torch.Tensor  # [B, N] bool
    global_from_model: torch.Tensor  # [B, 4, 4] float64 at t_ns
    t_ns: torch.Tensor  # [B] int64; -1 = there was no frame yet


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class TwoFrameState(TrackState):
    """The memory of a tracker whose detector looks at two frames."""

    past: PastFrame


@device_value
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


def to_dict(value, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a device value by dotted name, for saving (`torch.load(weights_only=True)` reads them back)."""
    tensors = {}
    for f in fields(value):
        inner = getattr(value, f.name)
        tensors |= to_dict(inner, f"{prefix}{f.name}.") if is_dataclass(inner) else {prefix + f.name: inner}
    return tensors


def from_dict(like, tensors: dict[str, torch.Tensor], prefix: str = ""):
    """The device value that `to_dict` took apart; `like` is one of the same kind, such as an empty state."""
    values = {}
    for f in fields(like):
        inner = getattr(like, f.name)
        values[f.name] = (
            from_dict(inner, tensors, f"{prefix}{f.name}.") if is_dataclass(inner) else tensors[prefix + f.name]
        )
    return type(like)(**values)


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Ground truth of one frame, for training: G rows per scene, in the frame's model frame."""

    valid: torch.Tensor  # [B, G] bool; the other rows mean nothing
    identity: torch.Tensor  # [B, G] int64, the same object in all frames of a clip; -1 = empty row
    label: torch.Tensor  # [B, G] int64 index into the classes
    box: torch.Tensor  # [B, G, 10] box code
    motion: torch.Tensor  # [B, G, F, 2] xy displacement in the next F steps, metres
    motion_valid: torch.Tensor  # [B, G, F] bool; False = the object is not annotated so far ahead


def pad_targets(targets: Sequence[Targets]) -> Targets:
    """Several batches as one: B is the sum of theirs, G the largest of theirs and at least 1; new rows are empty."""
    rows = max(1, *(t.identity.shape[1] for t in targets))

    def join(name: str) -> torch.Tensor:
        empty = -1 if name == "identity" else 0
        return torch.cat([_with_rows(getattr(t, name), rows, empty) for t in targets])

    return Targets(**{f.name: join(f.name) for f in fields(Targets)})


def _with_rows(value: torch.Tensor, rows: int, empty: int) -> torch.Tensor:
    missing = value.new_full((value.shape[0], rows - value.shape[1], *value.shape[2:]), empty)
    return torch.cat([value, missing], dim=1)
