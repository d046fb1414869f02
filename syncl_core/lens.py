"""Lens distortion: where a ray meets the image as taken.

The formulas are OpenCV's (calib3d and calib3d.fisheye, camera models), with its order of coefficients, which is also
that of sensor_msgs/CameraInfo.
"""

import numpy as np

from syncl_core.errors import InputError
from syncl_core.types import LENS_COEFFICIENTS, Lens

_PROFILE_STEPS = 2048


def distort(lens: Lens, rays: np.ndarray) -> np.ndarray:
    """Pixels [..., 2] of the image as taken, of rays [..., 2] (x / z, y / z); NaN beyond the reach of the model.

    Its reach ends where a larger angle would come back towards the centre, as polynomials do far out: the image there
    would be a ghost.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        radius = np.hypot(rays[..., 0], rays[..., 1])
        radial = _radial(lens, radius)[..., None]
        bent = rays * radial + _tangential(lens, rays)
        bent = np.where((radius <= _reach(lens, float(radius.max(initial=0.0))))[..., None], bent, np.nan)
        homogeneous = np.concatenate([bent, np.ones_like(bent[..., :1])], axis=-1)
        return (homogeneous @ np.asarray(lens.intrinsics, np.float64).T)[..., :2]


def check_lens(lens: Lens) -> None:
    """Raises InputError for a lens that cannot be: an unknown model, a wrong number of coefficients, NaN."""
    count = LENS_COEFFICIENTS.get(lens.model)
    if count is None:
        raise InputError(f"unknown distortion model {lens.model!r}; known: {', '.join(LENS_COEFFICIENTS)}")
    coefficients, intrinsics = np.asarray(lens.coefficients), np.asarray(lens.intrinsics)
    if coefficients.shape != (count,) or not np.isfinite(coefficients).all():
        raise InputError(f"{lens.model} needs {count} finite coefficients, got {coefficients.tolist()}")
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all() or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise InputError(f"unusable intrinsics of a lens: {intrinsics.tolist()}")


def _radial(lens: Lens, radius: np.ndarray) -> np.ndarray:
    """By how much rays at this radius (tangent of the angle) are stretched."""
    k = np.asarray(lens.coefficients, np.float64)
    if lens.model == "equidistant":
        angle = np.arctan(radius)
        a2 = angle * angle
        bent = angle * (1 + a2 * (k[0] + a2 * (k[1] + a2 * (k[2] + a2 * k[3]))))
        return np.where(radius > 0, bent / np.where(radius > 0, radius, 1.0), 1.0)
    r2 = radius * radius
    stretch = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
    if lens.model == "rational_polynomial":
        stretch = stretch / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
    return stretch


def _tangential(lens: Lens, rays: np.ndarray) -> np.ndarray:
    if lens.model == "equidistant":
        return np.zeros_like(rays)
    p1, p2 = np.asarray(lens.coefficients, np.float64)[2:4]
    x, y = rays[..., 0], rays[..., 1]
    r2 = x * x + y * y
    return np.stack([2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], axis=-1)


def _reach(lens: Lens, largest: float) -> float:
    """The radius up to which the distorted radius grows, at most the largest asked for."""
    radius = np.linspace(0.0, largest, _PROFILE_STEPS)
    bent = radius * _radial(lens, radius)
    shrinks = np.flatnonzero(~(np.diff(bent) > 0))
    return float(radius[shrinks[0]]) if len(shrinks) and largest > 0 else largest
