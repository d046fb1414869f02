"""Ground truth of key frames, from the motions themselves: what tables and training both state of a scene.

An actor is annotated while it is in range of the ego, seen or not; its lidar points tell how well it can be noticed.
Velocities are differences of annotated places, as nuscenes-devkit computes them from tables.
"""

from dataclasses import dataclass

import numpy as np

from syncl_core import geometry
from syncl_core.world import motion
from syncl_core.world.scene import Scene, city_from_base

ANNOTATION_RANGE = 60.0  # metres from the ego
KEY_FRAME_SECONDS = 0.5
_LONGEST_GAP = 1.5  # seconds between two annotations, beyond which there is no velocity


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A actors at K key frames, global frame."""

    global_from_box: np.ndarray  # [K, A, 4, 4]
    annotated: np.ndarray  # [K, A] bool
    velocities: np.ndarray  # [K, A, 2] m/s, NaN = unknown
    speeds: np.ndarray  # [K, A] m/s, true ones


def truth_of(scene: Scene, key_frames: int) -> Truth:
    """The truth of the first `key_frames` key frames of a scene."""
    t = np.arange(key_frames) * KEY_FRAME_SECONDS
    movers = motion.stack([actor.motion for actor in scene.actors])
    poses = motion.poses_of(movers, t).swapaxes(0, 1)  # [K, A, 3]
    ego = city_from_base(scene, t)[:, None, :2, 3]
    annotated = np.linalg.norm(poses[..., :2] - ego, axis=-1) < ANNOTATION_RANGE
    boxes = scene.global_from_city @ _city_from_box(poses, np.array([a.size[2] for a in scene.actors]))
    return Truth(
        global_from_box=boxes,
        annotated=annotated,
        velocities=_velocities(boxes[..., :2, 3], annotated, t),
        speeds=motion.progress(movers, t)[1].T,
    )


def _city_from_box(poses: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Transforms [K, A, 4, 4] of boxes that stand at poses [K, A, 3] (x, y, yaw)."""
    result = np.zeros((*poses.shape[:2], 4, 4))
    x, y, yaw = np.moveaxis(poses, -1, 0)
    result[..., :3, :3] = geometry.matrix_from_quaternion(geometry.quaternion_from_yaw(yaw))
    result[..., 0, 3], result[..., 1, 3], result[..., 2, 3] = x, y, heights / 2
    result[..., 3, 3] = 1.0
    return result


def _velocities(places: np.ndarray, annotated: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Velocities [K, A, 2] from the annotations before and after, or one of them and the present one."""
    result = np.full(places.shape, np.nan)
    for actor in range(places.shape[1]):
        frames = np.flatnonzero(annotated[:, actor])
        if len(frames) < 2:
            continue
        first, last = np.r_[frames[0], frames[:-1]], np.r_[frames[1:], frames[-1]]
        gap = t[last] - t[first]
        # Between two neighbours the gap may be twice as long.
        longest = np.where((first < frames) & (last > frames), 2 * _LONGEST_GAP, _LONGEST_GAP)
        velocity = (places[last, actor] - places[first, actor]) / gap[:, None]
        result[frames, actor] = np.where((gap <= longest)[:, None], velocity, np.nan)
    return result
