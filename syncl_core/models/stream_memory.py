"""Memory entries: objects as they were found in some frame, and how a later one sees them (StreamPETR, sec. 3.2).

An entry's feature and velocity stay as they were; its centre follows the vehicle's motion, and it knows how long ago
and from which pose it was found. Those who use it read its own motion from the velocity, the time and the pose.
"""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils._pytree import tree_map

from syncl_core.tensors import device_value

Rows = TypeVar("Rows")
"""A device value all of whose tensors are [B, R, ...]."""


@device_value
@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """R rows per scene. "Now" is the frame the rows were last advanced to, "then" the one where a row was found.

    An empty row of a queue that is not yet full is all zeros, its pose too; the released network attends to such rows.
    """

    feature: torch.Tensor  # [B, R, D] decoder output
    center: torch.Tensor  # [B, R, 3] metres, model frame of now
    velocity: torch.Tensor  # [B, R, 2] m/s along x and y of the model frame of then
    elapsed_ns: torch.Tensor  # [B, R] int64 since then
    now_from_then: torch.Tensor  # [B, R, 4, 4] float64 between the model frames

    def rows(self, start: int, end: int | None = None) -> "Entries":
        """The rows from `start` to before `end`."""
        return tree_map(lambda x: x[:, start:end], self)

    def motion(self) -> torch.Tensor:
        """[B, R, 15] float32: velocity, seconds since then, upper three rows of the pose."""
        pose = self.now_from_then[..., :3, :].flatten(-2)
        return torch.cat([self.velocity.float(), self.seconds()[..., None].float(), pose.float()], dim=-1)

    def seconds(self) -> torch.Tensor:
        """[B, R] float64 since then."""
        return self.elapsed_ns.double() / 1e9


def empty_entries(batch: int, rows: int, dim: int, device: torch.device | str | None = None) -> Entries:
    """All zeros."""
    return Entries(
        feature=torch.zeros(batch, rows, dim, device=device),
        center=torch.zeros(batch, rows, 3, device=device),
        velocity=torch.zeros(batch, rows, 2, device=device),
        elapsed_ns=torch.zeros(batch, rows, dtype=torch.int64, device=device),
        now_from_then=torch.zeros(batch, rows, 4, 4, dtype=torch.float64, device=device),
    )


def found_now(feature: torch.Tensor, center: torch.Tensor, velocity: torch.Tensor) -> Entries:
    """Entries of this frame: feature [B, R, D], centre [B, R, 3] metres, velocity [B, R, 2] m/s."""
    rows, device = center.shape[:2], center.device
    return Entries(
        feature=feature.float(),
        center=center,
        velocity=velocity,
        elapsed_ns=torch.zeros(rows, dtype=torch.int64, device=device),
        now_from_then=torch.eye(4, dtype=torch.float64, device=device).expand(*rows, 4, 4),
    )


def advance(entries: Entries, new_from_old: torch.Tensor, passed_ns: torch.Tensor) -> Entries:
    """The same entries as seen from a new frame: new_from_old [B, 4, 4] float64, passed_ns [B] int64."""
    rotation, translation = new_from_old[:, None, :3, :3], new_from_old[:, None, :3, 3]
    center = (rotation @ entries.center.double()[..., None])[..., 0] + translation
    return dataclasses.replace(
        entries,
        center=center.to(entries.center.dtype),
        elapsed_ns=entries.elapsed_ns + passed_ns[:, None],
        now_from_then=new_from_old[:, None] @ entries.now_from_then,
    )


def begin(queue: Entries, fresh: torch.Tensor, pseudo_center: torch.Tensor) -> Entries:
    """Where `fresh` [B] bool, an empty queue whose first rows stand at rest at pseudo_center [P, 3] metres."""
    count, rows = pseudo_center.shape[0], queue.center.shape[1]
    empty = empty_entries(queue.center.shape[0], rows, queue.feature.shape[-1], queue.center.device)
    first = torch.arange(rows, device=fresh.device) < count
    center = torch.nn.functional.pad(pseudo_center, (0, 0, 0, rows - count)).expand_as(queue.center)
    pose = first[:, None, None] * torch.eye(4, dtype=torch.float64, device=fresh.device)
    started = dataclasses.replace(empty, center=center, now_from_then=pose.expand_as(queue.now_from_then))
    return where(fresh[:, None], started, queue)


def push(queue: Entries, newest: Entries, score: torch.Tensor, count: int) -> Entries:
    """The `count` rows of `newest` with the highest score [B, R] in front, as many old ones leave. Detached."""
    newest = tree_map(torch.detach, select(newest, score.topk(count, dim=1).indices))
    return join(newest, queue).rows(0, queue.center.shape[1])


def select(rows: Rows, index: torch.Tensor) -> Rows:
    """The rows index [B, R'] of every scene, in that order."""
    batch = torch.arange(index.shape[0], device=index.device)[:, None]
    return tree_map(lambda x: x[batch, index], rows)


def join(first: Rows, second: Rows) -> Rows:
    """The rows of `first`, then those of `second`."""
    return tree_map(lambda a, b: torch.cat([a, b], dim=1), first, second)


def where(condition: torch.Tensor, ours: Rows, theirs: Rows) -> Rows:
    """Row by row ours where condition [B, R] (or [B, 1]) is true, else theirs."""

    def choose(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.where(condition.view(*condition.shape, *[1] * (a.ndim - 2)), a, b)

    return tree_map(choose, ours, theirs)
