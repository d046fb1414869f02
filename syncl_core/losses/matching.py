"""Which row answers for which object: tracks by identity, new objects by the Hungarian method (Carion et al. 2020)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from syncl_core.errors import InputError
from syncl_core.losses.box_loss import l1_cost
from syncl_core.losses.focal import focal_cost
from syncl_core.strategy_config import LossConfig
from syncl_core.tensors import Targets
from syncl_core.tracking.base import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackMatch:
    """Tracks and the objects they own: those of the same identity."""

    track: torch.Tensor  # [B, M] bool: the row is a track
    target: torch.Tensor  # [B, M] int64 the object the row owns; -1 = none, also where the object vanished
    row: torch.Tensor  # [B, G] int64 the row that owns the object; means nothing where it is not persistent
    persistent: torch.Tensor  # [B, G] bool: a track owns the object; the other objects are new


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which row of a frame answers for which object, as tracking needs it: one row per object."""

    rows: torch.Tensor  # [B, M] bool: object queries, which look for new objects
    tracks: TrackMatch
    target: torch.Tensor  # [L, B, M] int64 row of the ground truth; -1 = none
    identity: torch.Tensor  # [B, M] int64 of the object that the row owns after the last layer; -1 = none


def assign(observation: Observation, targets: Targets, config: LossConfig, refines: bool = False) -> Assignment:
    """Tracks keep their objects in all layers; in each layer object queries get the others at least cost (Eq. 6, 7).

    Raises InputError where a part of the output is not finite, `refined` among them if the losses will look at it.
    """
    head, valid = observation.head, observation.valid
    rows = valid & (observation.track_id < 0)
    tracks = match_tracks(observation.track_id, valid, targets)
    cost = matching_cost(head.logits.detach(), head.box.detach(), targets, config)
    found = match_objects(cost, rows, targets.valid & ~tracks.persistent, *_not_finite(observation, refines))
    target = torch.where(tracks.track, tracks.target, found)
    owner = target[-1]
    identity = torch.where(owner >= 0, targets.identity.gather(1, owner.clamp(min=0)), -1)
    return Assignment(rows=rows, tracks=tracks, target=target, identity=identity)


def _not_finite(observation: Observation, refines: bool) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Which part of the network's output is not finite, as `match_objects` takes it."""
    refined = observation.refined if refines else None
    outputs = {"": observation.head, "parallel ": observation.parallel, "refined ": refined}
    guilty, parts = torch.zeros_like(observation.head.logits[..., 0], dtype=torch.int64), []
    for kind, output in outputs.items():
        for name in ("logits", "box") if output is not None else ():
            parts.append(f"{kind}{'boxes' if name == 'box' else name}")
            bad = ~getattr(output, name).isfinite().all(dim=-1) & observation.valid
            guilty = torch.where((guilty == 0) & bad, len(parts), guilty)
    return guilty, tuple(parts)


def match_tracks(track_id: torch.Tensor, valid: torch.Tensor, targets: Targets) -> TrackMatch:
    """Match rows of identities `track_id` [B, M] (-1 = not a track) with the objects of `targets`."""
    track = (track_id >= 0) & valid
    same = (track_id[:, :, None] == targets.identity[:, None]) & track[:, :, None] & targets.valid[:, None]
    return TrackMatch(
        track=track,
        target=torch.where(same.any(dim=2), same.int().argmax(dim=2), -1),
        row=same.int().argmax(dim=1),
        persistent=same.any(dim=1),
    )


def matching_cost(logits: torch.Tensor, box: torch.Tensor, targets: Targets, config: LossConfig) -> torch.Tensor:
    """Cost [L, B, M, G] of logits [L, B, M, C] and box codes [L, B, M, 10]; without gradient (paper, Eq. 8)."""
    with torch.no_grad():
        of_class = focal_cost(logits, targets.label, config.focal_alpha, config.focal_gamma)
        return config.class_weight * of_class + config.box_weight * l1_cost(box, targets.box, config.ground_cost)


def match_objects(
    cost: torch.Tensor,  # [L, B, M, G]
    rows: torch.Tensor,  # [B, M] bool: the rows to match
    objects: torch.Tensor,  # [B, G] bool: the objects to match
    guilty: torch.Tensor,  # [L, B, M] int64: 0, or one more than the index in `parts` of what is not finite
    parts: tuple[str, ...],
) -> torch.Tensor:
    """The pairs of least total cost, each layer and scene alone: [L, B, M] int64, -1 = no object.

    Everything travels to the host in one copy. Raises InputError where the network's output is not finite.
    """
    cost = cost.masked_fill(~(rows[:, :, None] & objects[:, None]), torch.inf)
    packed = torch.cat([cost, guilty[..., None].to(cost.dtype)], dim=-1)
    return torch.from_numpy(assign_on_host(packed.cpu().numpy(), parts)).to(cost.device, non_blocking=True)


def assign_on_host(packed: np.ndarray, parts: tuple[str, ...]) -> np.ndarray:
    """Solve the costs [L, B, M, G + 1] of `match_objects`; infinite = not to be matched, last column: guilty part."""
    if packed[..., -1].any():
        layer, scene, row = np.argwhere(packed[..., -1])[0]
        part = parts[int(packed[layer, scene, row, -1]) - 1]
        raise InputError(
            f"the network's {part} are not finite (decoder layer {layer}, scene {scene} of the batch, row {row}): "
            "lower the learning rate, or train in float32"
        )
    target = np.full(packed.shape[:3], -1, dtype=np.int64)
    for layer, scene in np.ndindex(packed.shape[:2]):
        cost = packed[layer, scene, :, :-1]
        open_pairs = np.isfinite(cost)
        rows, objects = np.flatnonzero(open_pairs.any(axis=1)), np.flatnonzero(open_pairs.any(axis=0))
        picked_rows, picked_objects = linear_sum_assignment(cost[np.ix_(rows, objects)])
        target[layer, scene, rows[picked_rows]] = objects[picked_objects]
    return target
