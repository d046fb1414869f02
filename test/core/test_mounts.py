"""Cameras that look where their names say are fine; what cannot be meant is said."""

import numpy as np
import pytest

from syncl_core import geometry
from syncl_core.classes import CAMERAS
from syncl_core.runtime.mounts import HEADINGS_DEG, camera_problem, placed_model_frame
from syncl_core.world.rig import base_from_cam, base_from_lidar

FORWARD = base_from_cam("CAM_FRONT")


def turned(axis: int, degrees: float) -> np.ndarray:
    """FORWARD, turned about an axis of the camera: 0 = right, 1 = down, 2 = forward."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [k for k in range(3) if k != axis]
    turn = np.eye(4)
    turn[[i, j, i, j], [i, j, j, i]] = (c, c, -s, s)
    return FORWARD @ turn


def test_a_usual_vehicle_is_fine():
    assert set(HEADINGS_DEG) == set(CAMERAS)
    assert not [camera for camera in CAMERAS if camera_problem(camera, base_from_cam(camera))]
    assert placed_model_frame("lidar_top", base_from_lidar(), base_from_lidar())[1] == ""


def test_a_body_frame_is_not_an_optical_one():
    """REP 103: x forward, y left, z up in camera_link; what is projected by it lies anywhere."""
    for camera, heading_deg in HEADINGS_DEG.items():
        body = geometry.transform((1.0, 0.0, 1.5), geometry.quaternion_from_yaw(np.radians(heading_deg)))
        assert "must name the optical frame" in camera_problem(camera, body)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_is_taken_for_another_one(camera):
    """Of any two that are swapped, both are named."""
    for other in CAMERAS:
        problem = camera_problem(camera, base_from_cam(other))
        assert ("another camera?" in problem) == (camera != other), problem
    said = camera_problem("CAM_FRONT_LEFT", base_from_cam("CAM_BACK_RIGHT"))
    assert said.startswith("it looks 110 degrees to the right, the network's CAM_FRONT_LEFT 55 degrees to the left")
    assert camera_problem("CAM_SIDE", base_from_cam(camera)) == ""


@pytest.mark.parametrize("degrees", [-170, -90, -50, 50, 90, 180])
def test_turned_and_tilted_cameras_are_named(degrees):
    rolled = camera_problem("CAM_FRONT", turned(2, degrees))
    assert f"{abs(degrees)} degrees from pointing down" in rolled
    if abs(degrees) <= 90:
        tilted = camera_problem("CAM_FRONT", turned(0, degrees))
        assert "z up" in tilted if degrees > 0 else "looks down by" in tilted, tilted


@pytest.mark.parametrize("degrees", [-40, 40])
def test_vehicles_differ(degrees):
    assert not any(camera_problem("CAM_FRONT", turned(axis, degrees)) for axis in range(3))
