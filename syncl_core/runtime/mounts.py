"""How cameras and the model frame sit on the vehicle: what cannot be meant so, in words.

Transforms are [4, 4], metres. Base frame: x forward, y left, z up; optical frames: x right, y down, z forward
(REP 103).
"""

import math

import numpy as np

from syncl_core import geometry
from syncl_core.config import RigConfig

HEADINGS_DEG = {
    "CAM_FRONT": 0.0,
    "CAM_FRONT_RIGHT": -55.0,
    "CAM_FRONT_LEFT": 55.0,
    "CAM_BACK": 180.0,
    "CAM_BACK_LEFT": 110.0,
    "CAM_BACK_RIGHT": -110.0,
}
"""Where the cameras of nuScenes look, to 5 degrees; 0 = forward, positive = left."""

MOST_OFF_DEG = 45.0
"""A camera that looks farther away from there, or is turned or tilted by more, is not the one of that name."""

MAX_MODEL_TURN_DEG = 20.0
"""A frame in /tf with the model frame's name and a larger turn means something else: a lidar may have x forward."""

MAX_MODEL_RISE_M = 0.3
"""The network knows at which height the road lies in its frame: one that is higher or lower by more misplaces it."""


def camera_problem(camera: str, base_from_cam: np.ndarray) -> str:
    """Why `base_from_cam` [4, 4] cannot be that of the camera's optical frame; "" = it can."""
    view, down = base_from_cam[:3, 2], base_from_cam[:3, 1]
    up_deg = math.degrees(math.asin(np.clip(view[2], -1.0, 1.0)))
    if up_deg > MOST_OFF_DEG:
        return "its frame has z up, so it is the camera's body: images must name the optical frame, which has z forward"
    if up_deg < -MOST_OFF_DEG:
        return f"it looks down by {-up_deg:.0f} degrees, the network's cameras look to the horizon"
    roll_deg = math.degrees(math.acos(np.clip(-down[2], -1.0, 1.0)))
    if roll_deg > MOST_OFF_DEG:
        return f"its picture is turned: y of its optical frame is {roll_deg:.0f} degrees from pointing down"
    if camera not in HEADINGS_DEG:
        return ""
    heading_deg, usual_deg = math.degrees(math.atan2(view[1], view[0])), HEADINGS_DEG[camera]
    if abs((heading_deg - usual_deg + 180.0) % 360.0 - 180.0) <= MOST_OFF_DEG:
        return ""
    return f"it looks {_heading(heading_deg)}, the network's {camera} {_heading(usual_deg)}: another camera?"


def _heading(heading_deg: float) -> str:
    side = "left" if heading_deg > 0 else "right"
    return f"{abs(heading_deg):.0f} degrees to the {side}" if abs(heading_deg) >= 0.5 else "forward"


def configured_model_frame(rig: RigConfig) -> np.ndarray:
    """Base from model frame [4, 4] where the vehicle has no such frame."""
    return geometry.transform(rig.base_from_model_translation, rig.base_from_model_rotation)


def placed_model_frame(
    name: str, found: np.ndarray, configured: np.ndarray, *, chosen: bool = False
) -> tuple[np.ndarray, str]:
    """Base from model frame [4, 4], from the vehicle's frame of that name and the tracker's own idea of it.

    `chosen`: somebody named the frame for this, so its height is meant. Returns the transform to use, and what is odd
    about the vehicle's, "" = nothing.
    """
    turn_deg = _turn_deg(configured, found)
    if turn_deg > MAX_MODEL_TURN_DEG:
        what = "(rig.base_from_model_rotation): it is another frame of that name and not used"
        return configured, f"{name} in /tf is turned by {turn_deg:.0f} degrees against the network's {what}"
    rise_m = found[2, 3] - configured[2, 3]
    if chosen or abs(rise_m) <= MAX_MODEL_RISE_M:
        return found, ""
    where = f"the network's {configured[2, 3]:.2f} m above the road"
    side = "above" if rise_m > 0 else "below"
    return found, (
        f"{name} in /tf lies {found[2, 3]:.2f} m above the vehicle's frame, {where}. Is the road {abs(rise_m):.2f} m "
        f"{side} the vehicle's frame? Then set model_frame: {name}, else to a frame that is where the network's is"
    )


def _turn_deg(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between the rotations of two transforms, degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1.0, 1.0))))
