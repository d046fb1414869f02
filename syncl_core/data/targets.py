"""Ground truth of a clip -> Targets: the rows a loss compares with, in each frame's own model frame.

Which objects count follows PF-Track's training: a known class, at least one lidar or radar point, and the centre inside
`pc_range` seen from above (height is not asked). An unknown velocity becomes 0, as mmdetection3d writes it.
"""

from collections.abc import Sequence

import numpy as np
import torch

from syncl_core import geometry
from syncl_core.config import SynclConfig
from syncl_core.models.box_code import CODE_SIZE, encode_boxes
from syncl_core.tensors import Targets
from syncl_core.types import ObjectSet

_STEP_TOLERANCE = 0.5  # of a step: an annotation this much too early or late shows no motion "per step"


def clip_targets(
    present: Sequence[ObjectSet],
    following: Sequence[Sequence[ObjectSet]],
    global_from_model: np.ndarray,
    config: SynclConfig,
) -> tuple[Targets, ...]:
    """One Targets of batch size 1 for each of the T frames of a clip.

    present: what is annotated in each frame, in the fixed frame. following: for each frame, the next annotated frames
    in order of time, up to F of them, fewer at the end of a scene. global_from_model: [T, 4, 4].
    An object has the same `identity` in all frames: it counts the objects of the clip in order of appearance.
    """
    numbers: dict[str, int] = {}
    frames = []
    for objects, ahead, pose in zip(present, following, global_from_model, strict=True):
        chosen = trainable(objects, pose, config)
        identity = [numbers.setdefault(name, len(numbers)) for name in chosen.ids]
        frames.append(_targets(chosen, identity, ahead, pose, config))
    return tuple(frames)


def trainable(objects: ObjectSet, global_from_model: np.ndarray, config: SynclConfig) -> ObjectSet:
    """The objects a tracker of this configuration is taught."""
    low, high = np.reshape(config.model.pc_range, (2, 3))
    center = geometry.transform_points(geometry.inverse(global_from_model), objects.centers)
    keep = ((center >= low) & (center <= high))[:, :2].all(axis=1)
    keep &= np.array([label in config.classes for label in objects.labels], dtype=bool)
    if objects.num_points is not None:
        keep &= objects.num_points > 0
    return objects.select(keep)


def _targets(
    objects: ObjectSet, identity: Sequence[int], ahead: Sequence[ObjectSet], pose: np.ndarray, config: SynclConfig
) -> Targets:
    model_from_global = geometry.inverse(pose)
    motion, motion_valid = _motion(objects, ahead, model_from_global, config)
    return Targets(
        valid=torch.ones(1, len(objects), dtype=torch.bool),
        identity=torch.tensor([identity], dtype=torch.int64),
        label=torch.tensor([[config.classes.index(label) for label in objects.labels]], dtype=torch.int64),
        box=_box_code(objects, model_from_global)[None],
        motion=torch.from_numpy(motion)[None].float(),
        motion_valid=torch.from_numpy(motion_valid)[None],
    )


def _box_code(objects: ObjectSet, model_from_global: np.ndarray) -> torch.Tensor:
    """[M, 10] float32; computed in float64, because global coordinates are large."""
    if not len(objects):
        return torch.zeros(0, CODE_SIZE)
    rotation = model_from_global[:3, :3]
    forward = (rotation @ geometry.matrix_from_quaternion(objects.rotations))[..., 0]
    velocity = np.pad(np.nan_to_num(objects.velocities, nan=0.0), ((0, 0), (0, 1))) @ rotation.T
    return encode_boxes(
        torch.from_numpy(geometry.transform_points(model_from_global, objects.centers)),
        torch.from_numpy(np.asarray(objects.sizes, dtype=np.float64)),
        torch.from_numpy(np.arctan2(forward[:, 1], forward[:, 0])),
        torch.from_numpy(velocity[:, :2]),
    ).float()


def _motion(
    objects: ObjectSet, ahead: Sequence[ObjectSet], model_from_global: np.ndarray, config: SynclConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement [M, F, 2] in each of the next F steps along the axes of the present model frame, and where known.

    A step is known if the object is annotated before and after it, and the two frames are about a step apart.
    """
    steps = config.model.future_steps
    path = np.full((len(objects), steps + 1, 3), np.nan)
    path[:, 0] = objects.centers
    times = [objects.t_ns, *(frame.t_ns for frame in ahead[:steps])]
    for step, frame in enumerate(ahead[:steps], start=1):
        row_of = {name: row for row, name in enumerate(frame.ids)}
        for row, name in enumerate(objects.ids):
            if name in row_of:
                path[row, step] = frame.centers[row_of[name]]
    moved = (np.diff(path, axis=1) @ model_from_global[:3, :3].T)[..., :2]
    valid = np.isfinite(moved).all(axis=-1)
    seconds = np.diff(times) * 1e-9
    regular = np.abs(seconds / config.track.step_seconds - 1) <= _STEP_TOLERANCE
    valid &= np.pad(regular, (0, steps - len(regular)))[None]
    return np.where(valid[..., None], moved, 0.0), valid
