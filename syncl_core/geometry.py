"""Rigid transforms, rotations, boxes and projection on the host: numpy, float64.

A transform named `dst_from_src` is a [4, 4] matrix that takes points of `src` to `dst`; chains read right to left:
`image_from_model = image_from_cam @ cam_from_global @ global_from_model`.
Quaternions are (w, x, y, z), as in nuScenes; ROS messages hold (x, y, z, w).
"""

import numpy as np
from scipy.spatial.transform import Rotation

BOX_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Pairs of `box_corners` indices that form the twelve edges. Corners 0, 1, 4, 5 are the front face."""

_CORNER_SIGNS = 0.5 * np.array(
    [[1, 1, -1], [1, -1, -1], [-1, -1, -1], [-1, 1, -1], [1, 1, 1], [1, -1, 1], [-1, -1, 1], [-1, 1, 1]]
)


def matrix_from_quaternion(wxyz: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] (w, x, y, z); they are normalised first.

    Raises ValueError for a zero or non-finite quaternion.
    """
    wxyz = np.asarray(wxyz, dtype=np.float64)
    if not np.isfinite(wxyz).all() or (np.linalg.norm(wxyz, axis=-1) < 1e-6).any():
        raise ValueError(f"not a rotation: quaternion (w, x, y, z) = {np.array2string(wxyz, precision=4)}")
    flat = Rotation.from_quat(wxyz.reshape(-1, 4)[:, [1, 2, 3, 0]]).as_matrix()
    return flat.reshape(*wxyz.shape[:-1], 3, 3)


def quaternion_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions [..., 4] (w, x, y, z) with w >= 0 of rotation matrices [..., 3, 3]."""
    rotation = np.asarray(rotation, dtype=np.float64)
    xyzw = Rotation.from_matrix(rotation.reshape(-1, 3, 3)).as_quat()
    wxyz = xyzw[:, [3, 0, 1, 2]]
    wxyz = np.where(wxyz[:, :1] < 0, -wxyz, wxyz)
    return wxyz.reshape(*rotation.shape[:-2], 4)


def quaternion_from_yaw(yaw: np.ndarray) -> np.ndarray:
    """Quaternions [..., 4] (w, x, y, z) of rotations [...] about z, radians."""
    half = np.asarray(yaw, dtype=np.float64) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)


def transform(translation: np.ndarray, wxyz: np.ndarray = (1.0, 0.0, 0.0, 0.0)) -> np.ndarray:
    """The [4, 4] transform with this translation [3] (metres) and rotation [4] (w, x, y, z)."""
    translation = np.asarray(translation, dtype=np.float64)
    if translation.shape != (3,) or not np.isfinite(translation).all():
        raise ValueError(f"not a translation: {translation}")
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_quaternion(wxyz)
    matrix[:3, 3] = translation
    return matrix


def inverse(dst_from_src: np.ndarray) -> np.ndarray:
    """`src_from_dst` [..., 4, 4], exact for rigid transforms (the rotation is transposed, not inverted)."""
    rotation = np.swapaxes(dst_from_src[..., :3, :3], -1, -2)
    result = np.zeros_like(dst_from_src)
    result[..., :3, :3] = rotation
    result[..., :3, 3] = -(rotation @ dst_from_src[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1.0
    return result


def transform_points(dst_from_src: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., 3] of `src`, expressed in `dst`, by one transform [4, 4]."""
    return points @ dst_from_src[:3, :3].T + dst_from_src[:3, 3]


def interpolate_transform(before: np.ndarray, after: np.ndarray, fraction: float) -> np.ndarray:
    """The rigid transform a `fraction` (0..1) of the way: translation linear, rotation by slerp, the shorter way."""
    turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec()
    result = np.eye(4)
    result[:3, :3] = before[:3, :3] @ Rotation.from_rotvec(fraction * turn).as_matrix()
    result[:3, 3] = (1 - fraction) * before[:3, 3] + fraction * after[:3, 3]
    return result


def box_corners(centers: np.ndarray, sizes: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Corners [M, 8, 3] of boxes: centres [M, 3], sizes [M, 3] (length, width, height), quaternions [M, 4]."""
    centers = np.asarray(centers, dtype=np.float64).reshape(-1, 3)
    if not len(centers):
        return np.zeros((0, 8, 3))
    local = _CORNER_SIGNS[None] * np.asarray(sizes, dtype=np.float64).reshape(-1, 1, 3)
    rotation = matrix_from_quaternion(np.asarray(rotations, dtype=np.float64).reshape(-1, 4))
    return local @ np.swapaxes(rotation, -1, -2) + centers[:, None]


def project(intrinsics: np.ndarray, cam_from_src: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [..., 2] and depths [...] (metres along the optical axis) of points [..., 3] of frame `src`.

    A point with depth <= 0 is behind the camera: its pixel is NaN.
    """
    in_cam = transform_points(cam_from_src, np.asarray(points, dtype=np.float64))
    depth = in_cam[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (in_cam @ intrinsics.T)[..., :2] / np.where(depth > 0, depth, np.nan)[..., None]
    return pixels, depth


def image_from_cam(intrinsics: np.ndarray) -> np.ndarray:
    """The [4, 4] projection (u*d, v*d, d, 1) = image_from_cam @ (x, y, z, 1) of intrinsics [3, 3]."""
    matrix = np.eye(4)
    matrix[:3, :3] = intrinsics
    return matrix
