"""The memory of MUTR3D between two frames as a value, and its way into the next frame's coordinates."""

import dataclasses
from dataclasses import dataclass

import torch

from syncl_core.config import SynclConfig
from syncl_core.models.box_code import CODE_SIZE, code_velocity
from syncl_core.tensors import Frame, device_value
from syncl_core.tracking.mutr3d import motion


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class MUTR3DState:
    """K slots per scene; track_id -1 marks a free slot, which holds zeros. Positions as in `tensors.TrackState`."""

    query: torch.Tensor  # [B, K, 2 D] position, then content
    reference: torch.Tensor  # [B, K, 3] metres
    box: torch.Tensor  # [B, K, 10] box code
    score: torch.Tensor  # [B, K]
    label: torch.Tensor  # [B, K] int64
    evidence: torch.Tensor  # [B, K, C] probabilities of the classes, summed over frames (class_memory.py)
    track_id: torch.Tensor  # [B, K] int64, -1 = free
    misses: torch.Tensor  # [B, K] int64 weak frames since the track was last confident
    age: torch.Tensor  # [B, K] int64 frames since birth
    memory: torch.Tensor  # [B, K, H, D] remembered features, the newest last
    memory_valid: torch.Tensor  # [B, K, H] bool
    memory_wait: torch.Tensor  # [B, K] int64 frames until the next one is remembered
    next_id: torch.Tensor  # [B] int64, the next identity; never decreases within a session
    dropped: torch.Tensor  # [B] int64 tracks lost because all slots were taken, since the session began
    global_from_model: torch.Tensor  # [B, 4, 4] float64
    t_ns: torch.Tensor  # [B] int64; -1 before the first frame


ROW_FIELDS = (
    *("query", "reference", "box", "score", "label", "evidence", "track_id", "misses", "age"),
    *("memory", "memory_valid", "memory_wait"),
)
"""Fields with one row per slot; the others belong to the scene."""


def init_state(config: SynclConfig, batch: int = 1, device: torch.device | str | None = None) -> MUTR3DState:
    """The state before the first frame: all slots free. Starting again means taking a new one."""
    dim, length, rows = config.model.embed_dim, config.model.mutr3d.memory_length, (batch, config.track.slots)

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype, device=device)

    def integers(*shape: int) -> torch.Tensor:
        return zeros(*shape, dtype=torch.int64)

    return MUTR3DState(
        query=zeros(*rows, 2 * dim),
        reference=zeros(*rows, 3),
        box=zeros(*rows, CODE_SIZE),
        score=zeros(*rows),
        label=integers(*rows),
        evidence=zeros(*rows, len(config.classes)),
        track_id=integers(*rows) - 1,
        misses=integers(*rows),
        age=integers(*rows),
        memory=zeros(*rows, length, dim),
        memory_valid=zeros(*rows, length, dtype=torch.bool),
        memory_wait=integers(*rows),
        next_id=integers(batch),
        dropped=integers(batch),
        global_from_model=torch.eye(4, dtype=torch.float64, device=device).repeat(batch, 1, 1),
        t_ns=integers(batch) - 1,
    )


def propagate(state: MUTR3DState, frame: Frame) -> MUTR3DState:
    """Move the tracks to the time and the model frame of `frame`. Before the first frame nothing moves.

    Reference points move: all that the network looks at. The box that a track had stays as it was; `commit` replaces
    it, whatever becomes of the track.
    """
    transform = motion.new_from_old(state.global_from_model, frame.global_from_model, state.t_ns)
    seconds = motion.elapsed_seconds(state.t_ns, frame.t_ns)
    reference = motion.carry_over(state.reference, code_velocity(state.box), seconds, transform)
    return dataclasses.replace(state, reference=reference, global_from_model=frame.global_from_model, t_ns=frame.t_ns)
