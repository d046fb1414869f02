"""Calibrations from a file, for cameras whose drivers publish none.

    cameras:
      cam_front:
        width: 1600
        height: 900
        intrinsics: [1266.4, 1266.4, 816.3, 491.5]             # fx, fy, cx, cy of the images as published, pixels
        distortion: {model: plumb_bob, coefficients: [0, 0, 0, 0, 0]}                    # optional
        base_from_camera: {translation: [1.70, 0.02, 1.51], rotation: [0.5, -0.5, 0.5, -0.5]}   # optional; else /tf

Rotations are (w, x, y, z) and turn the optical frame (x right, y down, z forward) into the vehicle's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from syncl_core import geometry
from syncl_core.errors import InputError
from syncl_core.io.topics import frame_of
from syncl_core.io.yaml_file import read_yaml
from syncl_core.types import LENS_COEFFICIENTS, CameraModel, Lens

_KEYS = ("width", "height", "intrinsics", "distortion", "base_from_camera")
Calibration = tuple[CameraModel, np.ndarray | None]  # and base_from_camera [4, 4]; None = /tf knows it


def load_calibration(path: str | Path, cameras: Sequence[str]) -> dict[str, Calibration]:
    """The calibration of every one of `cameras`. Raises InputError naming file and key."""
    content = read_yaml(path, "calibration")
    if not isinstance(content, Mapping) or not isinstance(content.get("cameras"), Mapping):
        raise InputError(f"{path}: expected a key cameras with one entry per camera")
    entries = content["cameras"]
    missing = [frame_of(camera) for camera in cameras if frame_of(camera) not in entries]
    if missing:
        raise InputError(f"{path}: cameras: {', '.join(missing)} missing; known: {', '.join(map(str, entries))}")
    return {
        camera: _calibration(f"{path}: cameras.{frame_of(camera)}", entries[frame_of(camera)]) for camera in cameras
    }


def _calibration(where: str, entry) -> Calibration:
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: expected {', '.join(_KEYS)}")
    for key in entry:
        if key not in _KEYS:
            raise InputError(f"{where}.{key}: unknown key; known: {', '.join(_KEYS)}")
    width, height = (_size(f"{where}.{key}", entry.get(key)) for key in ("width", "height"))
    fx, fy, cx, cy = _numbers(f"{where}.intrinsics", entry.get("intrinsics"), 4)
    if fx <= 0 or fy <= 0:
        raise InputError(f"{where}.intrinsics: focal lengths must be positive, got {fx:g} and {fy:g}")
    intrinsics = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    lens = _lens(f"{where}.distortion", entry["distortion"], intrinsics) if entry.get("distortion") else None
    model = CameraModel(width=width, height=height, intrinsics=intrinsics, lens=lens)
    return model, _mount(f"{where}.base_from_camera", entry.get("base_from_camera"))


def _lens(where: str, entry, intrinsics: np.ndarray) -> Lens | None:
    if not isinstance(entry, Mapping) or entry.get("model") not in LENS_COEFFICIENTS:
        raise InputError(f"{where}.model: expected one of {', '.join(LENS_COEFFICIENTS)}")
    model = entry["model"]
    coefficients = _numbers(f"{where}.coefficients", entry.get("coefficients"), LENS_COEFFICIENTS[model])
    if model != "equidistant" and not any(coefficients):
        return None  # a pinhole; an ideal fisheye is none: r = f * theta
    return Lens(model=model, intrinsics=intrinsics, coefficients=np.array(coefficients))


def _mount(where: str, entry) -> np.ndarray | None:
    if entry is None:
        return None
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: expected translation and rotation")
    translation = _numbers(f"{where}.translation", entry.get("translation"), 3)
    rotation = _numbers(f"{where}.rotation", entry.get("rotation"), 4)
    try:
        return geometry.transform(translation, rotation)
    except ValueError as error:
        raise InputError(f"{where}.rotation: {error}") from None


def _size(where: str, value) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InputError(f"{where}: expected a number of pixels, got {value!r}")
    return value


def _numbers(where: str, value, count: int) -> list[float]:
    numbers = value if isinstance(value, list) else []
    fine = [x for x in numbers if isinstance(x, (int, float)) and not isinstance(x, bool) and np.isfinite(x)]
    if len(numbers) != count or len(fine) != count:
        raise InputError(f"{where}: expected {count} numbers, got {value!r}")
    return [float(x) for x in fine]
