"""The memory of the StreamPETR trackers as a value: the queue of past objects, and the tracks of now."""

import dataclasses
from dataclasses import dataclass

import torch

from syncl_core.config import SynclConfig
from syncl_core.models.box_code import CODE_SIZE
from syncl_core.models.stream_memory import Entries, advance, empty_entries, where
from syncl_core.tensors import Frame, device_value
from syncl_core.tracking.mutr3d.motion import new_from_old


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """R tracks per scene; track_id -1 marks a free row. `entry` is what a track is asked for again with."""

    entry: Entries  # of the frame that last saw the track
    box: torch.Tensor  # [B, R, 10] box code, model frame of the frame that last saw the track
    score: torch.Tensor  # [B, R]
    label: torch.Tensor  # [B, R] int64
    evidence: torch.Tensor  # [B, R, C] probabilities of the classes, summed over frames (class_memory.py)
    track_id: torch.Tensor  # [B, R] int64, -1 = free
    misses: torch.Tensor  # [B, R] int64 frames since the track was last confident
    age: torch.Tensor  # [B, R] int64 frames since birth


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """All memory between two frames. Positions are metres in the model frame of `global_from_model`."""

    queue: Entries  # the newest in front; no identities
    slots: Slots  # K tracks
    next_id: torch.Tensor  # [B] int64, the next identity; never decreases within a session
    dropped: torch.Tensor  # [B] int64 tracks lost because all slots were taken, since the session began
    global_from_model: torch.Tensor  # [B, 4, 4] float64
    t_ns: torch.Tensor  # [B] int64; -1 before the first frame


def init_state(config: SynclConfig, batch: int = 1, device: torch.device | str | None = None) -> StreamState:
    """The state before the first frame: an empty queue, all slots free. Starting again means taking a new one."""
    dim = config.model.embed_dim
    return StreamState(
        queue=empty_entries(batch, config.model.stream.memory_length, dim, device),
        slots=free_slots(batch, config.track.slots, dim, len(config.classes), device),
        next_id=torch.zeros(batch, dtype=torch.int64, device=device),
        dropped=torch.zeros(batch, dtype=torch.int64, device=device),
        global_from_model=torch.eye(4, dtype=torch.float64, device=device).repeat(batch, 1, 1),
        t_ns=torch.full((batch,), -1, dtype=torch.int64, device=device),
    )


def free_slots(batch: int, rows: int, dim: int, classes: int, device: torch.device | str | None = None) -> Slots:
    """Free rows hold zeros."""
    integers = torch.zeros(batch, rows, dtype=torch.int64, device=device)
    return Slots(
        entry=empty_entries(batch, rows, dim, device),
        box=torch.zeros(batch, rows, CODE_SIZE, device=device),
        score=torch.zeros(batch, rows, device=device),
        label=integers,
        evidence=torch.zeros(batch, rows, classes, device=device),
        track_id=integers - 1,
        misses=integers,
        age=integers,
    )


def propagate(state: StreamState, frame: Frame) -> StreamState:
    """Everything as seen from `frame`. Before the first frame nothing moves.

    Entries keep their centres at rest in the world, as released: the network knows velocity and time. A track's box
    stays as it was; `commit_rows` replaces it, whatever becomes of the track.
    """
    passed_ns = torch.where(state.t_ns >= 0, frame.t_ns - state.t_ns, 0)
    transform = new_from_old(state.global_from_model, frame.global_from_model, state.t_ns)
    slots = dataclasses.replace(state.slots, entry=advance(state.slots.entry, transform, passed_ns))
    return dataclasses.replace(
        state,
        queue=advance(state.queue, transform, passed_ns),
        slots=clear_free(slots),
        global_from_model=frame.global_from_model,
        t_ns=frame.t_ns,
    )


def clear_free(slots: Slots) -> Slots:
    """Free rows hold zeros again, so that equal tracks mean equal states and no old number lives on."""
    batch, rows, dim = slots.entry.feature.shape
    return where(slots.track_id >= 0, slots, free_slots(batch, rows, dim, slots.evidence.shape[-1], slots.box.device))
