"""Frame sets out of nothing, for measuring: a car drives straight ahead past images that never change."""

import math
from collections.abc import Iterator

import cv2
import numpy as np

from syncl_core import geometry
from syncl_core.config import RigConfig
from syncl_core.runtime.mounts import configured_model_frame
from syncl_core.types import CameraModel, CameraView, FrameSet, RawImage

_SPEED = 10.0  # m/s
_PERIOD_NS = 500_000_000
_CAMERA_DELAY_NS = 8_000_000  # between two cameras: each has a pose of its own, as on a real car
_START = (1000.0, 600.0, 0.0)  # metres, global; maps put cars far from the origin
_BASE_FROM_FORWARD_CAM = geometry.transform((0.0, 0.0, 1.5), (0.5, -0.5, 0.5, -0.5))  # looks along x, y is down
_JPEG_QUALITY = 90  # with the noise of `fake_jpeg`: about 180 kB at 1600x900, as in nuScenes


def fake_drive(rig: RigConfig, width: int, height: int) -> Iterator[FrameSet]:
    """Endless frame sets, two a second, the same in every run; images are JPEGs of `width` x `height` pixels."""
    base_from_model = configured_model_frame(rig)
    model = _camera_model(width, height)
    images = [RawImage(encoding="jpeg", data=fake_jpeg(i, width, height)) for i in range(len(rig.cameras))]
    t_ns = 0
    while True:
        t_ns += _PERIOD_NS
        views = [
            CameraView(
                camera=camera,
                t_ns=(view_ns := t_ns - i * _CAMERA_DELAY_NS),
                image=images[i],
                model=model,
                base_from_cam=_base_from_cam(i, len(rig.cameras)),
                global_from_base=_global_from_base(view_ns),
            )
            for i, camera in enumerate(rig.cameras)
        ]
        pose = _global_from_base(t_ns)
        yield FrameSet(t_ns=t_ns, global_from_base=pose, base_from_model=base_from_model, views=tuple(views))


def fake_jpeg(seed: int, width: int, height: int) -> bytes:
    """Smooth colours under a little noise: the work of decoding depends on how much detail there is."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 16, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.int16)
    pixels = np.clip(smooth + random.integers(-3, 4, (height, width, 1)), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _camera_model(width: int, height: int) -> CameraModel:
    focal = 0.8 * width
    intrinsics = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return CameraModel(width=width, height=height, intrinsics=intrinsics)


def _base_from_cam(index: int, count: int) -> np.ndarray:
    """Extrinsics [4, 4]: the cameras look evenly around."""
    turn = geometry.transform((0.0, 0.0, 0.0), geometry.quaternion_from_yaw(2 * math.pi * index / count))
    return turn @ _BASE_FROM_FORWARD_CAM


def _global_from_base(t_ns: int) -> np.ndarray:
    x, y, z = _START
    return geometry.transform((x + _SPEED * t_ns / 1e9, y, z))
