"""FrameSet (host, bytes and poses) -> Frame (tensors): where the two worlds of `types` meet."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from syncl_core import geometry, images
from syncl_core.config import ImageConfig
from syncl_core.errors import InputError
from syncl_core.rectify import Rectifier
from syncl_core.tensors import Frame
from syncl_core.types import CameraView, FrameSet


def make_frame(
    frame_set: FrameSet,
    config: ImageConfig,
    pool: ThreadPoolExecutor | None = None,
    rectifier: Rectifier | None = None,
    look: bool = True,
) -> Frame:
    """`prepare_frame` for which every image must be usable. Raises InputError naming the camera."""
    frame, rejected = prepare_frame(frame_set, config, pool, rectifier, look=look)
    for message in rejected.values():
        raise InputError(message)
    return frame


def prepare_frame(
    frame_set: FrameSet,
    config: ImageConfig,
    pool: ThreadPoolExecutor | None = None,
    rectifier: Rectifier | None = None,
    pin_memory: bool = False,
    look: bool = True,
) -> tuple[Frame, dict[str, str]]:
    """Decode, scale and crop the images of one set and chain its transforms. The Frame has batch size 1, on the CPU.

    A camera that is missing, or whose image, pose or calibration cannot be used, gets a black image, a neutral
    projection and `camera_valid` False. The latter are named: {camera: why}.

    `pool` decodes cameras side by side (the decoders release the GIL). `rectifier` keeps the maps of distorted cameras
    from set to set. With `pin_memory` the images lie where a GPU can fetch them by itself. Without `look` no image is
    decoded and all are black, for whoever knows what the network sees in them.
    """
    rectifier = rectifier or Rectifier(config)
    black = torch.zeros(3, config.height, config.width, dtype=torch.uint8)

    def prepare(view: CameraView | None) -> tuple[torch.Tensor, np.ndarray] | str | None:
        if view is None:
            return None
        try:
            _check_finite(view)
            projection = _image_from_model(view, frame_set, config)
            return _network_image(view, rectifier) if look else black, projection
        except InputError as error:
            return f"{view.camera} at {view.t_ns} ns: {error}"

    results = list((pool.map if pool else map)(prepare, frame_set.views))
    usable = [isinstance(result, tuple) for result in results]
    pixels = torch.empty(len(results), *black.shape, dtype=torch.uint8, pin_memory=pin_memory)
    torch.stack([result[0] if ok else black for result, ok in zip(results, usable, strict=True)], out=pixels)
    projections = [result[1] if ok else np.eye(4) for result, ok in zip(results, usable, strict=True)]
    frame = Frame(
        images=pixels[None],
        image_from_model=torch.from_numpy(np.stack(projections))[None],
        camera_valid=torch.tensor([usable]),
        global_from_model=torch.from_numpy(frame_set.global_from_base @ frame_set.base_from_model)[None],
        t_ns=torch.tensor([frame_set.t_ns], dtype=torch.int64),
    )
    rejected = {v.camera: r for v, r in zip(frame_set.views, results, strict=True) if isinstance(r, str)}
    return frame, rejected


def _check_finite(view: CameraView) -> None:
    for name in ("global_from_base", "base_from_cam"):
        if not np.isfinite(getattr(view, name)).all():
            raise InputError(f"its pose {name} is not finite")
    if not np.isfinite(view.model.intrinsics).all():
        raise InputError("its intrinsics are not finite")


def _network_image(view: CameraView, rectifier: Rectifier) -> torch.Tensor:
    pixels, model = images.decode(view.image), view.model
    if pixels.shape[:2] != (model.height, model.width):
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise InputError(f"image is {size}, its calibration is for {model.width}x{model.height}")
    return rectifier.network_image(pixels, model)


def _image_from_model(view: CameraView, frame_set: FrameSet, config: ImageConfig) -> np.ndarray:
    """camera pixels <- cam(t_cam) <- global <- base(t) <- model: the car moves between t_cam and t."""
    intrinsics = images.scale_and_crop_intrinsics(view.model.intrinsics, view.model.width, view.model.height, config)
    cam_from_global = geometry.inverse(view.global_from_base @ view.base_from_cam)
    global_from_model = frame_set.global_from_base @ frame_set.base_from_model
    return geometry.image_from_cam(intrinsics) @ cam_from_global @ global_from_model
