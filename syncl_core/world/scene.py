"""The synthetic world as a value: what stands and moves where, at any time.

Shape letters: T times, M boxes of the whole scene (scenery first, then the actors' parts).
"""

from dataclasses import dataclass

import numpy as np

from syncl_core.world import motion
from syncl_core.world.actors import Actor, Color
from syncl_core.world.motion import Motion

SCENERY = -1  # owner of boxes that are no actor's

_STRIDE = 4.2  # radians of gait per metre walked, for a step of about 0.75 m


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A box of the scenery: part of a building, a tree, a lamp post."""

    center: tuple[float, float, float]  # metres, city frame
    size: tuple[float, float, float]  # metres along its own x, y, z
    color: Color
    yaw: float = 0.0  # radians
    windows: bool = False  # a facade


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Sun and sky. Colours are linear factors, 1 = full white."""

    toward_sun: tuple[float, float, float]  # unit vector, city frame
    sun: Color
    ambient: Color
    horizon: Color
    zenith: Color
    haze: float  # metres after which 63 % of the light is the horizon's


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One drive. `ego` moves the vehicle's base frame (x forward, z up, on the ground)."""

    name: str
    description: str
    actors: tuple[Actor, ...]
    scenery: tuple[Block, ...]
    ego: Motion
    light: Light
    global_from_city: np.ndarray  # [4, 4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Upright oriented boxes at T times, city frame, metres and radians."""

    center: np.ndarray  # [T, M, 3]
    yaw: np.ndarray  # [T, M]
    size: np.ndarray  # [M, 3]
    color: np.ndarray  # [M, 3]
    owner: np.ndarray  # [M] int64 index into Scene.actors, or SCENERY
    windows: np.ndarray  # [M] bool


def actor_poses(actor: Actor, t: np.ndarray) -> np.ndarray:
    """x, y, z of the box centre and yaw [T, 4], city frame, at times t [T] in seconds."""
    x, y, yaw = motion.poses(actor.motion, t).T
    return np.stack([x, y, np.full_like(x, actor.size[2] / 2), yaw], axis=-1)


def city_from_base(scene: Scene, t: np.ndarray) -> np.ndarray:
    """Poses [T, 4, 4] of the vehicle at times t [T] in seconds."""
    x, y, yaw = motion.poses(scene.ego, np.asarray(t, dtype=np.float64)).T
    result = np.tile(np.eye(4), (len(x), 1, 1))
    result[:, 0, 0], result[:, 0, 1] = np.cos(yaw), -np.sin(yaw)
    result[:, 1, 0], result[:, 1, 1] = np.sin(yaw), np.cos(yaw)
    result[:, 0, 3], result[:, 1, 3] = x, y
    return result


def boxes_at(scene: Scene, t: np.ndarray) -> Boxes:
    """Everything that can be seen or hit, at times t [T] in seconds."""
    t = np.asarray(t, dtype=np.float64)
    blocks = scene.scenery
    groups = [_actor_boxes(actor, i, t) for i, actor in enumerate(scene.actors)]
    if blocks:
        groups.insert(0, _scenery_boxes(blocks, len(t)))
    return Boxes(
        center=np.concatenate([g.center for g in groups], axis=1),
        yaw=np.concatenate([g.yaw for g in groups], axis=1),
        size=np.concatenate([g.size for g in groups]),
        color=np.concatenate([g.color for g in groups]),
        owner=np.concatenate([g.owner for g in groups]),
        windows=np.concatenate([g.windows for g in groups]),
    )


def _scenery_boxes(blocks: tuple[Block, ...], times: int) -> Boxes:
    return Boxes(
        center=np.tile(np.array([b.center for b in blocks], dtype=np.float64), (times, 1, 1)),
        yaw=np.tile(np.array([b.yaw for b in blocks], dtype=np.float64), (times, 1)),
        size=np.array([b.size for b in blocks], dtype=np.float64),
        color=np.array([b.color for b in blocks], dtype=np.float64),
        owner=np.full(len(blocks), SCENERY, dtype=np.int64),
        windows=np.array([b.windows for b in blocks]),
    )


def _actor_boxes(actor: Actor, owner: int, t: np.ndarray) -> Boxes:
    low, high, swing = (np.array([getattr(p, f) for p in actor.parts], np.float64) for f in ("low", "high", "swing"))
    size = np.array(actor.size)
    local = np.tile((low + high) / 2 * size, (len(t), 1, 1))
    gait = np.sin(_STRIDE * motion.travelled(actor.motion, t))
    local[..., 0] += gait[:, None] * swing * size[0]
    x, y, z, yaw = actor_poses(actor, t)[:, :, None].transpose(1, 0, 2)
    cos, sin = np.cos(yaw), np.sin(yaw)
    center = [x + cos * local[..., 0] - sin * local[..., 1], y + sin * local[..., 0] + cos * local[..., 1]]
    return Boxes(
        center=np.stack([*center, z + local[..., 2]], axis=-1),
        yaw=np.broadcast_to(yaw, local.shape[:2]),
        size=(high - low) * size,
        color=np.array([p.color for p in actor.parts]),
        owner=np.full(len(actor.parts), owner, dtype=np.int64),
        windows=np.zeros(len(actor.parts), dtype=bool),
    )
