"""Objects in another frame: against the formula, box by box, in plain loops."""

import math

import numpy as np

from syncl_core import geometry
from syncl_core.runtime.placement import placed
from syncl_core.types import ObjectSet


def test_boxes_and_velocities_turn_with_the_frame():
    random = np.random.default_rng(4)
    count, yaw = 5, 0.7
    rotations = random.normal(size=(count, 4))
    objects = ObjectSet(
        t_ns=7,
        ids=tuple("abcde"),
        labels=("car",) * count,
        scores=random.uniform(size=count),
        centers=random.normal(size=(count, 3)) * 20,
        sizes=random.uniform(1, 4, size=(count, 3)),
        rotations=rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        velocities=random.normal(size=(count, 2)) * 5,
        states=("confirmed",) * count,
    )
    objects.velocities[2] = np.nan
    global_from_dst = geometry.transform([3.0, -2.0, 1.0], geometry.quaternion_from_yaw(yaw))
    seen = placed(objects, geometry.inverse(global_from_dst))
    assert (seen.ids, seen.t_ns, seen.states) == (objects.ids, 7, objects.states)
    cosine, sine = math.cos(yaw), math.sin(yaw)
    for i in range(count):
        x, y, z = (objects.centers[i] - [3.0, -2.0, 1.0]).tolist()
        np.testing.assert_allclose(seen.centers[i], [cosine * x + sine * y, cosine * y - sine * x, z], atol=1e-12)
        vx, vy = objects.velocities[i].tolist()
        np.testing.assert_allclose(seen.velocities[i], [cosine * vx + sine * vy, cosine * vy - sine * vx], atol=1e-12)
        # A point of the box, turned by the box and then placed, is where the placed box turns it to.
        point = np.array([1.0, 2.0, 3.0])
        outside = geometry.matrix_from_quaternion(objects.rotations[i]) @ point + objects.centers[i]
        inside = geometry.matrix_from_quaternion(seen.rotations[i]) @ point + seen.centers[i]
        px, py, pz = (outside - [3.0, -2.0, 1.0]).tolist()
        np.testing.assert_allclose(inside, [cosine * px + sine * py, cosine * py - sine * px, pz], atol=1e-9)
    assert not len(placed(objects.select(np.zeros(count, bool)), np.eye(4)))
