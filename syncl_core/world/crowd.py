"""Room for everybody: ways are accepted one by one, each clear of all before it at all times of the scene."""

import numpy as np

from syncl_core.world import motion
from syncl_core.world.actors import Actor, Look
from syncl_core.world.motion import Motion

_STEP = 0.1  # seconds between two checks


class Crowd:
    """The actors accepted so far, and where they and the fixed obstacles are at the checked times."""

    def __init__(self, seconds: float):
        self.actors: list[Actor] = []
        self._times = np.arange(0.0, seconds + _STEP, _STEP)
        self._poses = np.zeros((0, len(self._times), 3), dtype=np.float32)
        self._half = np.zeros((0, 2), dtype=np.float32)
        self._bounds = np.zeros((0, 2, 2), dtype=np.float32)  # least and largest x and y of the whole way

    def place(self, path: Motion, size: tuple[float, float, float], margin: float = 0.3) -> bool:
        """Reserve the way of a footprint; False, and nothing changes, if it comes closer than `margin` metres."""
        poses = motion.poses(path, self._times).astype(np.float32)
        half = np.array(size[:2], dtype=np.float32) / 2
        if self._touches(poses, half + np.float32(margin)):
            return False
        self._poses = np.concatenate([self._poses, poses[None]])
        self._half = np.concatenate([self._half, half[None]])
        self._bounds = np.concatenate([self._bounds, _bounds(poses, half)[None]])
        return True

    def add(self, look: Look, path: Motion, attributes: dict[str, str], margin: float = 0.3) -> bool:
        """Add an actor if its way is free."""
        if not self.place(path, look.size, margin):
            return False
        name = f"{len(self.actors):03d}-{look.category}"
        self.actors.append(
            Actor(name=name, category=look.category, size=look.size, parts=look.parts, motion=path, **attributes)
        )
        return True

    def _touches(self, poses: np.ndarray, half: np.ndarray) -> bool:
        """Whether a footprint at poses [T, 3] meets one of those placed."""
        low, high = _bounds(poses, half)
        near = np.flatnonzero(((self._bounds[:, 0] < high) & (self._bounds[:, 1] > low)).all(axis=1))
        placed, size = self._poses[near], self._half[near]
        x, y = placed[..., 0] - poses[:, 0], placed[..., 1] - poses[:, 1]
        reach = np.linalg.norm(size, axis=1) + np.linalg.norm(half)
        who, when = np.nonzero(x * x + y * y < (reach * reach)[:, None])
        return bool(_overlap(poses[when], half, placed[who, when], size[who]).any())


def _bounds(poses: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Least and largest x and y [2, 2] that a footprint may reach at poses [T, 3]."""
    reach = np.linalg.norm(half)
    return np.stack([poses[:, :2].min(axis=0) - reach, poses[:, :2].max(axis=0) + reach])


def _overlap(a: np.ndarray, half_a: np.ndarray, b: np.ndarray, half_b: np.ndarray) -> np.ndarray:
    """Whether rectangles meet [n]: poses [n, 3] and half sizes [2] or [n, 2]; separating axes of both."""
    along, across = np.abs(np.cos(b[:, 2] - a[:, 2])), np.abs(np.sin(b[:, 2] - a[:, 2]))
    (la, wa), (lb, wb) = half_a.T, half_b.T
    meets = np.ones(len(a), dtype=bool)
    for yaw, (first, second), (long, wide) in ((a[:, 2], (la, wa), (lb, wb)), (b[:, 2], (lb, wb), (la, wa))):
        dx, dy = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
        cos, sin = np.cos(yaw), np.sin(yaw)
        meets &= np.abs(dx * cos + dy * sin) < first + long * along + wide * across
        meets &= np.abs(dy * cos - dx * sin) < second + long * across + wide * along
    return meets
