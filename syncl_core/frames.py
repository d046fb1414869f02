"""FrameSet (host, bytes and poses) -> Frame (tensors): where the two worlds of `types` meet."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from syncl_core import geometry, images
from syncl_core.config import ImageConfig
from syncl_core.errors import InputError
from syncl_core.tensors import Frame
from syncl_core.types import CameraView, FrameSet


def make_frame(frame_set: FrameSet, config: ImageConfig, pool: ThreadPoolExecutor | None = None) -> Frame:
    """Decode, scale and crop the images of one set and chain its transforms. The Frame has batch size 1, on the CPU.

    `pool` decodes cameras side by side (the decoders release the GIL). A missing camera gets a black image, a neutral
    projection and `camera_valid` False. Raises InputError naming the camera.
    """
    apply = pool.map if pool else map
    pixels = list(apply(lambda view: _network_image(view, config), frame_set.views))
    projections = [_image_from_model(view, frame_set, config) for view in frame_set.views]
    return Frame(
        images=torch.stack(pixels)[None],
        image_from_model=torch.from_numpy(np.stack(projections))[None],
        camera_valid=torch.tensor([[view is not None for view in frame_set.views]]),
        global_from_model=torch.from_numpy(frame_set.global_from_base @ frame_set.base_from_model)[None],
        t_ns=torch.tensor([frame_set.t_ns], dtype=torch.int64),
    )


def _network_image(view: CameraView | None, config: ImageConfig) -> torch.Tensor:
    if view is None:
        return torch.zeros(3, config.height, config.width, dtype=torch.uint8)
    try:
        pixels = images.decode(view.image)
        if pixels.shape[:2] != (view.model.height, view.model.width):
            raise InputError(
                f"image is {pixels.shape[1]}x{pixels.shape[0]}, "
                f"its calibration is for {view.model.width}x{view.model.height}"
            )
        return images.scale_and_crop(pixels, config)
    except InputError as error:
        raise InputError(f"{view.camera} at {view.t_ns} ns: {error}") from None


def _image_from_model(view: CameraView | None, frame_set: FrameSet, config: ImageConfig) -> np.ndarray:
    """camera pixels <- cam(t_cam) <- global <- base(t) <- model: the car moves between t_cam and t."""
    if view is None:
        return np.eye(4)
    intrinsics = images.scale_and_crop_intrinsics(view.model.intrinsics, view.model.width, view.model.height, config)
    cam_from_global = geometry.inverse(view.global_from_base @ view.base_from_cam)
    global_from_model = frame_set.global_from_base @ frame_set.base_from_model
    return geometry.image_from_cam(intrinsics) @ cam_from_global @ global_from_model
