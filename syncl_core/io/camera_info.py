"""sensor_msgs/CameraInfo -> CameraModel: whose pixels, which pinhole, which lens."""

import numpy as np

from syncl_core.errors import InputError
from syncl_core.lens import check_lens
from syncl_core.types import LENS_COEFFICIENTS, CameraModel, Lens

_LEAST_PX, _MOST_PX = 1e-3, 1e9  # focal lengths below and numbers beyond belong to no camera
_MOST_NARROW = 16  # times that an image with distortion may be higher than wide: OpenCV's remap has an end
_LENS_NAMES = {name: name for name in LENS_COEFFICIENTS} | {"fisheye": "equidistant"}


def images_rectified(rectify: str, topic: str) -> bool:
    """Whether the images of a topic have no distortion, by `rig.rectify`: "always" undistort them, "never", or "auto".

    "auto" goes by ROS's convention that only topics called image_rect or image_rect_color are rectified.
    """
    return rectify == "never" or (rectify == "auto" and "image_rect" in topic)


def camera_model_from(message, rectified: bool = True) -> CameraModel:
    """CameraModel of a CameraInfo, for images as published: region of interest cut out and binning applied.

    `rectified` images are described by P, or by K where P is not filled in. Others are described by K if D is zero;
    with distortion they get a lens, and are to be rectified to P, or to K where P is not filled in. A fisheye whose D
    is zero is distorted, too: r = f * theta. Raises InputError if the camera is not calibrated, if its lens is unknown,
    or if rectified images have a distorting lens but no P.
    """
    projection, k, d = _numbers(message.p, (3, 4))[:, :3], _numbers(message.k, (3, 3)), _numbers(message.d, (-1,))
    distorted = bool(d.any()) or (len(d) > 0 and _LENS_NAMES.get(message.distortion_model) == "equidistant")
    bent = distorted and not rectified
    from_p = projection[0, 0] > 0 and (rectified or distorted)
    pinhole = projection if from_p else k
    for matrix in (pinhole, k) if bent else (pinhole,):
        focal = min(matrix[0, 0], matrix[1, 1])
        if not np.isfinite(matrix).all() or focal < _LEAST_PX or np.abs(matrix).max() > _MOST_PX:
            raise InputError(f"camera is not calibrated: K = {k.ravel().tolist()}")
    if distorted and rectified and not from_p:
        raise InputError(
            "camera images have lens distortion; publish rectified images and a camera_info with P, "
            "or set rig.rectify to always"
        )
    bins = np.maximum([message.binning_x, message.binning_y], 1)
    size = np.array([message.roi.width or message.width, message.roi.height or message.height]) // bins
    if not size.all():
        raise InputError("camera_info states no image size")
    if bent and size[1] > _MOST_NARROW * size[0]:
        raise InputError(f"camera_info states an image of {size[0]}x{size[1]} pixels, which no camera has")
    return CameraModel(
        width=int(size[0]),
        height=int(size[1]),
        intrinsics=_published(pinhole, message.roi, bins),
        lens=_lens(message.distortion_model, d, _published(k, message.roi, bins)) if bent else None,
    )


def _published(intrinsics: np.ndarray, roi, bins: np.ndarray) -> np.ndarray:
    """Intrinsics of the published image from those of the whole sensor: cut out, then binned."""
    intrinsics = intrinsics.copy()
    intrinsics[:2, 2] -= (roi.x_offset, roi.y_offset)
    intrinsics[:2] /= bins[:, None]
    return intrinsics


def _lens(name: str, d: np.ndarray, intrinsics: np.ndarray) -> Lens:
    model = _LENS_NAMES.get(name)
    if model is None:
        raise InputError(f"unknown distortion model {name!r}; known: {', '.join(_LENS_NAMES)}")
    count = LENS_COEFFICIENTS[model]
    if d[count:].any():
        raise InputError(f"{name} has {count} coefficients, camera_info says D = {d.tolist()}")
    lens = Lens(model=model, intrinsics=intrinsics, coefficients=np.pad(d[:count], (0, max(0, count - len(d)))))
    check_lens(lens)
    return lens


def _numbers(values, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.array(values, np.float64).reshape(shape)
    except (ValueError, TypeError):
        raise InputError(f"camera_info: expected numbers of shape {shape}, got {len(values)} values") from None
