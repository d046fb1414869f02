"""Cameras that fail for a whole clip, so that a tracker has lived through it before one does on the road.

Their images are black, their tokens masked, as for a missing camera at inference; the paper knows no such cameras. An
object that only they show is not taught, or object queries would learn to find what nobody can see. Once the clip has
shown it, it stays a target: a track must go on where no camera looks. What no camera shows at all stays as it was.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from syncl_core import geometry
from syncl_core.tensors import Frame
from syncl_core.types import ObjectSet

_NEAREST = 0.1  # metres: what is closer to the image plane is not seen


def draw_dropped(rng: np.random.Generator, probability: float, most: int, num_cameras: int) -> tuple[int, ...]:
    """The cameras that fail: with `probability` one to `most` of them, at random, and never all."""
    fails, order = rng.random() < probability, rng.permutation(num_cameras)
    count = int(rng.integers(1, most + 1)) if most else 0
    return tuple(sorted(order[: min(count, num_cameras - 1)].tolist())) if fails else ()


def without_cameras(frame: Frame, dropped: Sequence[int]) -> Frame:
    """The frame as if these cameras were missing: black, with a neutral projection."""
    gone = torch.zeros_like(frame.camera_valid)
    gone[:, list(dropped)] = True
    neutral = torch.eye(4, dtype=torch.float64, device=gone.device)
    return dataclasses.replace(
        frame,
        images=frame.images.masked_fill(gone[:, :, None, None, None], 0),
        image_from_model=torch.where(gone[..., None, None], neutral, frame.image_from_model),
        camera_valid=frame.camera_valid & ~gone,
    )


def shown_objects(
    objects: Sequence[ObjectSet], frames: Sequence[Frame], dropped: Sequence[int]
) -> tuple[ObjectSet, ...]:
    """The objects of each frame that are taught without the cameras `dropped`. `frames` still have them."""
    lost = np.isin(np.arange(frames[0].camera_valid.shape[1]), dropped)
    known: set[str] = set()
    result = []
    for there, frame in zip(objects, frames, strict=True):
        seen = seen_by(there, frame)  # [N, M]
        only_lost = seen[lost].any(axis=0) & ~seen[~lost].any(axis=0)
        keep = ~only_lost | np.array([name in known for name in there.ids], dtype=bool)
        known.update(name for name, kept in zip(there.ids, keep, strict=True) if kept)
        result.append(there.select(keep))
    return tuple(result)


def seen_by(objects: ObjectSet, frame: Frame) -> np.ndarray:
    """Which camera sees which object, [N, M] bool: the centre or a corner lies in its image. `frame` has one scene."""
    corners = geometry.box_corners(objects.centers, objects.sizes, objects.rotations)
    points = np.concatenate([objects.centers[:, None], corners], axis=1)  # [M, 9, 3]
    points = geometry.transform_points(geometry.inverse(frame.global_from_model[0].numpy()), points)
    points = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
    u, v, depth, _ = np.moveaxis(np.einsum("nij,mkj->nmki", frame.image_from_model[0].numpy(), points), -1, 0)
    height, width = frame.images.shape[-2:]
    deep = depth > _NEAREST
    depth = np.where(deep, depth, 1.0)
    inside = deep & (u >= 0) & (u < width * depth) & (v >= 0) & (v < height * depth)
    return inside.any(axis=2) & frame.camera_valid[0].numpy()[:, None]
