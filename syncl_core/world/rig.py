"""The sensors: six cameras and a lidar mounted like those of the nuScenes cars, and when they fire.

Mounting positions, angles and focal lengths are rounded; like the originals, no two cameras are quite alike.
"""

import math
from dataclasses import dataclass

import numpy as np

from syncl_core.classes import CAMERAS
from syncl_core.types import CameraModel

IMAGE_SIZE = (1600, 900)  # pixels, width and height the focal lengths below are meant for
SWEEP_RATE = 12  # images per second of each camera
SWEEPS_PER_KEY_FRAME = 6

LIDAR = "LIDAR_TOP"
LIDAR_TRANSLATION = (0.94, 0.0, 1.84)  # metres, base frame
LIDAR_YAW = -math.pi / 2  # x to the right
LIDAR_BEAMS = np.deg2rad(np.linspace(-30.67, 10.67, 32))  # elevations, radians
LIDAR_COLUMNS = 1080  # beams fired per turn by each of the 32 lasers


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One camera: where it sits, where it looks, and when it fires within a lidar turn."""

    translation: tuple[float, float, float]  # metres, base frame
    yaw: float  # degrees, viewing direction, 0 = forward, positive = left
    pitch: float  # degrees, positive = down
    roll: float  # degrees about the viewing direction
    focal: float  # pixels
    center: tuple[float, float]  # principal point, pixels
    lead: int  # microseconds before the end of the lidar turn


def _mount(x, y, z, yaw, pitch, roll, focal, u, v, lead) -> Mount:
    return Mount(translation=(x, y, z), yaw=yaw, pitch=pitch, roll=roll, focal=focal, center=(u, v), lead=lead)


MOUNTS = {
    "CAM_FRONT":       _mount(1.70,  0.01, 1.51,    0.2, 0.4,  0.3, 1262.0, 817.0, 490.0, 35_400),
    "CAM_FRONT_RIGHT": _mount(1.56, -0.49, 1.50,  -56.0, 0.5, -0.4, 1259.0, 810.0, 487.0, 27_300),
    "CAM_FRONT_LEFT":  _mount(1.54,  0.49, 1.51,   55.0, 0.3,  0.2, 1268.0, 824.0, 478.0, 43_000),
    "CAM_BACK":        _mount(0.03,  0.01, 1.57,  179.7, 0.6,  0.1,  807.0, 832.0, 481.0, 10_000),
    "CAM_BACK_LEFT":   _mount(1.04,  0.48, 1.58,  108.5, 0.4,  0.5, 1256.0, 798.0, 489.0,    300),
    "CAM_BACK_RIGHT":  _mount(1.02, -0.48, 1.56, -110.5, 0.7, -0.2, 1257.0, 811.0, 494.0, 19_600),
}  # fmt: skip


def base_from_cam(camera: str) -> np.ndarray:
    """Extrinsics [4, 4] of a camera (optical frame: x right, y down, z forward)."""
    mount = MOUNTS[camera]
    yaw, pitch, roll = np.deg2rad([mount.yaw, mount.pitch, mount.roll])
    forward_from_cam = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    result = np.eye(4)
    result[:3, :3] = _rotation(2, yaw) @ _rotation(1, pitch) @ _rotation(0, roll) @ forward_from_cam
    result[:3, 3] = mount.translation
    return result


def base_from_lidar() -> np.ndarray:
    """Extrinsics [4, 4] of the lidar (x right, y forward, z up)."""
    result = np.eye(4)
    result[:3, :3] = _rotation(2, LIDAR_YAW)
    result[:3, 3] = LIDAR_TRANSLATION
    return result


def camera_model(camera: str, width: int = IMAGE_SIZE[0], height: int = 0) -> CameraModel:
    """Intrinsics for images of this width (pixels) and, if `height` is not 0, its bottom `height` rows alone.

    Pixel i covers [i, i + 1), so scaling is exact.
    """
    mount, scale = MOUNTS[camera], width / IMAGE_SIZE[0]
    rows = round(IMAGE_SIZE[1] * scale)
    u, v = mount.center
    intrinsics = np.array([[mount.focal, 0.0, u], [0.0, mount.focal, v], [0.0, 0.0, 1.0 / scale]]) * scale
    if height:
        intrinsics[1, 2] -= rows - height
    return CameraModel(width=width, height=height or rows, intrinsics=intrinsics)


def sweep_times_us(key_frames: int) -> np.ndarray:
    """Ends of the lidar turns [T] in microseconds from the first key frame; every sixth is a key frame."""
    count = SWEEPS_PER_KEY_FRAME * (key_frames - 1) + 1
    return np.round(np.arange(count) * 1e6 / SWEEP_RATE).astype(np.int64)


def camera_times_us(sweep_us: np.ndarray) -> np.ndarray:
    """Time stamps [T, 6] of the images of each sweep, in the order of CAMERAS."""
    leads = np.array([MOUNTS[camera].lead for camera in CAMERAS])
    return np.asarray(sweep_us)[:, None] - leads


def lidar_directions() -> np.ndarray:
    """Unit vectors [columns, beams, 3] of one lidar turn in the base frame, azimuth counter-clockwise."""
    azimuth = (np.arange(LIDAR_COLUMNS) + 0.5) * (2 * math.pi / LIDAR_COLUMNS)
    azimuth, elevation = np.meshgrid(azimuth, LIDAR_BEAMS, indexing="ij")
    return np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=-1
    )


def _rotation(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation [3, 3] about x (0), y (1) or z (2), radians."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    result = np.eye(3)
    result[i, i] = result[j, j] = math.cos(angle)
    result[j, i] = math.sin(angle)
    result[i, j] = -result[j, i]
    return result
