"""The synthetic world as a value: what stands and moves where, at any time.

Shape letters: T times, M boxes of the whole scene (scenery first, then the actors' parts).
"""

from dataclasses import dataclass

import numpy as np

from syncl_core.world import motion
from syncl_core.world.actors import Actor, Color
from syncl_core.world.motion import Motion
from syncl_core.world.sensor import PERFECT, Sensor

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
    glow: float = 0.0  # light of its own, in multiples of `color`
    shadow: bool = True  # throws one


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
    sensor: Sensor = PERFECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Upright oriented boxes at T times, city frame, metres and radians."""

    center: np.ndarray  # [T, M, 3]
    yaw: np.ndarray  # [T, M]
    size: np.ndarray  # [M, 3]
    color: np.ndarray  # [M, 3]
    owner: np.ndarray  # [M] int64 index into Scene.actors, or SCENERY
    windows: np.ndarray  # [M] bool
    glow: np.ndarray  # [M] light of its own, in multiples of the colour
    shadow: np.ndarray  # [M] bool, throws one


def city_from_base(scene: Scene, t: np.ndarray) -> np.ndarray:
    """Poses [T, 4, 4] of the vehicle at times t [T] in seconds."""
    x, y, yaw = motion.poses(scene.ego, np.asarray(t, dtype=np.float64)).T
    result = np.tile(np.eye(4), (len(x), 1, 1))
    result[:, 0, 0], result[:, 0, 1] = np.cos(yaw), -np.sin(yaw)
    result[:, 1, 0], result[:, 1, 1] = np.sin(yaw), np.cos(yaw)
    result[:, 0, 3], result[:, 1, 3] = x, y
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """A scene as arrays, made once: P boxes of scenery, Q parts of actors, M = P + Q."""

    fixed: np.ndarray  # [P, 4] x, y, z of the centre and yaw, city frame
    local: np.ndarray  # [Q, 3] centre of a part in its actor's frame, origin on the ground
    swing: np.ndarray  # [Q] metres along x
    part_owner: np.ndarray  # [Q] index into Scene.actors
    movers: motion.Motions
    constant: dict[str, np.ndarray]  # what Boxes holds that no time changes


def assemble(scene: Scene) -> Assembly:
    """The arrays of a scene."""
    blocks, actors = scene.scenery, scene.actors
    parts = [(p, i) for i, actor in enumerate(actors) for p in actor.parts]
    owner = np.array([i for _, i in parts], dtype=np.int64)
    low, high = (np.array([getattr(p, f) for p, _ in parts], np.float64).reshape(-1, 3) for f in ("low", "high"))
    size = np.array([a.size for a in actors], dtype=np.float64).reshape(-1, 3)[owner]
    drawn = [*blocks, *(p for p, _ in parts)]
    return Assembly(
        fixed=np.array([(*b.center, b.yaw) for b in blocks], dtype=np.float64).reshape(-1, 4),
        local=(low + high) / 2 * size + np.array([0.0, 0.0, 0.5]) * size,
        swing=np.array([p.swing for p, _ in parts]) * size[:, 0],
        part_owner=owner,
        movers=motion.stack([a.motion for a in actors]),
        constant={
            "size": np.concatenate(
                [np.array([b.size for b in blocks], np.float64).reshape(-1, 3), (high - low) * size]
            ),
            "color": np.array([d.color for d in drawn], dtype=np.float64).reshape(-1, 3),
            "owner": np.concatenate([np.full(len(blocks), SCENERY, dtype=np.int64), owner]),
            "windows": np.array([b.windows for b in blocks] + [False] * len(parts), dtype=bool),
            "glow": np.array([d.glow for d in drawn], dtype=np.float64),
            "shadow": np.array([d.shadow for d in drawn], dtype=bool),
        },
    )


def place(assembly: Assembly, t: np.ndarray) -> Boxes:
    """Everything that can be seen or hit, at times t [T] in seconds."""
    t = np.asarray(t, dtype=np.float64)
    actor = assembly.part_owner
    x, y, yaw = (motion.poses_of(assembly.movers, t)[actor]).transpose(2, 1, 0)  # [T, Q]
    gait = np.sin(_STRIDE * motion.progress(assembly.movers, t)[0]).T[:, actor]
    ahead, (_, left, up) = assembly.local[:, 0] + gait * assembly.swing, assembly.local.T
    cos, sin = np.cos(yaw), np.sin(yaw)
    moved = np.stack(
        [x + cos * ahead - sin * left, y + sin * ahead + cos * left, np.broadcast_to(up, x.shape)], axis=-1
    )
    fixed = np.broadcast_to(assembly.fixed, (len(t), *assembly.fixed.shape))
    return Boxes(
        center=np.concatenate([fixed[..., :3], moved], axis=1),
        yaw=np.concatenate([fixed[..., 3], yaw], axis=1),
        **assembly.constant,
    )


def boxes_at(scene: Scene, t: np.ndarray) -> Boxes:
    """`place(assemble(scene), t)`, for a scene that is looked at once."""
    return place(assemble(scene), t)
