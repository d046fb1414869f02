"""Objects in another frame than the fixed one."""

from dataclasses import replace

import numpy as np

from syncl_core import geometry
from syncl_core.types import ObjectSet


def placed(objects: ObjectSet, dst_from_global: np.ndarray) -> ObjectSet:
    """The objects in a frame that lies at `dst_from_global` [4, 4] at their time.

    Velocities stay those over ground; only their axes turn, and what then points up is left out.
    """
    rotation = dst_from_global[:3, :3]
    velocities = np.concatenate([objects.velocities, np.zeros((len(objects), 1))], axis=1)
    return replace(
        objects,
        centers=geometry.transform_points(dst_from_global, objects.centers),
        rotations=geometry.quaternion_from_matrix(rotation @ geometry.matrix_from_quaternion(objects.rotations)),
        velocities=(velocities @ rotation.T)[:, :2],
    )
