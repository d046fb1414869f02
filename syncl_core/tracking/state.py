"""TrackState as a value: the empty one, its rows, and its way into the next frame's coordinates.

`propagate` follows PF-Track's order: motion, then ego motion. Its result serves twice: `reference` is where the decoder
looks for a track, `box`, `motion` and `future` are what the track falls back on if this frame does not show it.
"""

import dataclasses

import torch

from syncl_core.config import SynclConfig, TrackConfig
from syncl_core.models.box_code import CODE_SIZE, code_center, code_velocity, with_center
from syncl_core.models.petrv2 import empty_past
from syncl_core.models.position import relative_transform
from syncl_core.tensors import Frame, TrackState, TwoFrameState
from syncl_core.tracking.slots import clear_free_rows

ROW_FIELDS = (
    *("query", "reference", "box", "score", "label", "evidence", "track_id"),
    *("misses", "age", "motion", "future", "history", "history_valid"),
)
"""Fields with one row per slot; the others belong to the scene."""


def init_state(config: SynclConfig, batch: int = 1, device: torch.device | str | None = None) -> TrackState:
    """The state before the first frame: all slots free. Starting again means taking a new one."""
    model, rows = config.model, (batch, config.track.slots)

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype, device=device)

    def integers(*shape: int) -> torch.Tensor:
        return zeros(*shape, dtype=torch.int64)

    state = TrackState(
        query=zeros(*rows, model.embed_dim),
        reference=zeros(*rows, 3),
        box=zeros(*rows, CODE_SIZE),
        score=zeros(*rows),
        label=integers(*rows),
        evidence=zeros(*rows, len(config.classes)),
        track_id=integers(*rows) - 1,
        misses=integers(*rows),
        age=integers(*rows),
        motion=zeros(*rows, model.future_steps, 2),
        future=zeros(*rows, model.future_steps, 3),
        history=zeros(*rows, model.history_length, model.embed_dim),
        history_valid=zeros(*rows, model.history_length, dtype=torch.bool),
        next_id=integers(batch),
        dropped=integers(batch),
        global_from_model=torch.eye(4, dtype=torch.float64, device=device).repeat(batch, 1, 1),
        t_ns=integers(batch) - 1,
    )
    if model.detector != "petrv2":
        return state
    values = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    return TwoFrameState(**values, past=empty_past(config, batch, device))


def free_all_rows(state: TrackState) -> TrackState:
    """All tracks end; the count of identities goes on."""
    return clear_free_rows(dataclasses.replace(state, track_id=torch.full_like(state.track_id, -1)), ROW_FIELDS)


def propagate(state: TrackState, frame: Frame, config: TrackConfig) -> TrackState:
    """Move the tracks to the time and the model frame of `frame`. Before the first frame nothing moves.

    What was predicted had its loss in its own frame; here it is a number, without gradient.
    """
    state = dataclasses.replace(state, motion=state.motion.detach())
    exact = config.ego_update == "exact"
    state = _advance_by_time(state, frame.t_ns, config.step_seconds) if exact else _advance_one_step(state)
    started = (state.t_ns >= 0)[:, None, None]
    new_from_old = torch.where(
        started,
        relative_transform(frame.global_from_model, state.global_from_model),
        torch.eye(4, dtype=torch.float64, device=state.t_ns.device),
    )
    state = _to_new_frame(state, new_from_old)
    if exact:
        state = _turn(state, torch.atan2(new_from_old[:, 1, 0], new_from_old[:, 0, 0]))
    return dataclasses.replace(state, global_from_model=frame.global_from_model, t_ns=frame.t_ns)


def _advance_one_step(state: TrackState) -> TrackState:
    """As released: one step of the prediction passes with every frame, however long it took."""
    ahead = torch.cat([state.motion[:, :, 0], torch.zeros_like(state.reference[..., 2:])], dim=-1)
    return dataclasses.replace(
        state,
        reference=state.reference + ahead,
        box=with_center(state.box, state.future[:, :, 0]),
        motion=torch.cat([state.motion[:, :, 1:], torch.zeros_like(state.motion[:, :, :1])], dim=2),
        future=torch.cat([state.future[:, :, 1:], state.future[:, :, -1:]], dim=2),
    )


def _advance_by_time(state: TrackState, t_ns: torch.Tensor, step_seconds: float) -> TrackState:
    """Walk along the predicted path, which is linear between its steps and ends in rest, for the time that passed."""
    path = torch.cat([state.reference[:, :, None], state.future], dim=2)  # [B, K, F + 1, 3], knot k at k steps
    last = path.shape[2] - 1
    passed = torch.where(state.t_ns >= 0, t_ns - state.t_ns, 0).clamp(min=0).double() / (1e9 * step_seconds)
    knots = (passed[:, None] + torch.arange(last + 1, device=passed.device)).clamp(max=last)  # [B, F + 1]
    before = knots.floor().clamp(max=last - 1)
    fraction = (knots - before).float()[:, None, :, None]
    index = before.long()[:, None, :, None].expand_as(path)
    path = torch.lerp(path.gather(2, index), path.gather(2, index + 1), fraction)
    return dataclasses.replace(
        state,
        reference=path[:, :, 0],
        box=with_center(state.box, path[:, :, 0]),
        motion=path.diff(dim=2)[..., :2],
        future=path[:, :, 1:],
    )


def _to_new_frame(state: TrackState, new_from_old: torch.Tensor) -> TrackState:
    """Positions only: reference, box centre and future."""
    rotation, translation = new_from_old[:, :3, :3], new_from_old[:, None, :3, 3]

    def move(points: torch.Tensor) -> torch.Tensor:  # [B, ..., 3]
        moved = points.double().flatten(1, -2) @ rotation.transpose(1, 2) + translation
        return moved.float().view_as(points)

    return dataclasses.replace(
        state,
        reference=move(state.reference),
        box=with_center(state.box, move(code_center(state.box))),
        future=move(state.future),
    )


def _turn(state: TrackState, yaw: torch.Tensor) -> TrackState:
    """Turn what PF-Track leaves as it was: heading, velocity and motion, by `yaw` [B] radians of new_from_old."""
    box = state.box
    # The code's angle counts clockwise; as a vector (cos, sin) it turns the other way.
    angle = _rotate(box[..., 6:8].flip(-1), -yaw).flip(-1)
    box = torch.cat([box[..., :6], angle, _rotate(code_velocity(box), yaw)], dim=-1)
    return dataclasses.replace(state, box=box, motion=_rotate(state.motion, yaw))


def _rotate(vectors: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """Vectors [B, ..., 2] turned counter-clockwise by yaw [B]."""
    yaw = yaw.float().view(-1, *[1] * (vectors.ndim - 2))
    x, y = vectors.unbind(-1)
    return torch.stack([yaw.cos() * x - yaw.sin() * y, yaw.sin() * x + yaw.cos() * y], dim=-1)
