"""Images of lenses with distortion -> the pinhole image the network knows."""

import threading

import numpy as np
import torch

from syncl_core import images
from syncl_core.config import ImageConfig
from syncl_core.lens import distort
from syncl_core.types import CameraModel

_MAX_MAPS = 32  # calibrations whose maps are kept
_OUTSIDE = -1e4  # a pixel far outside of every image: black


class Rectifier:
    """Makes network images out of distorted ones. Keeps the maps of the calibrations it has seen; threads may share it.

    A camera image is scaled as any other image is, which filters it; then one remap undistorts and crops. So an image
    without distortion comes out exactly as without a rectifier.
    """

    def __init__(self, config: ImageConfig):
        self._config = config
        self._maps: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def network_image(self, pixels: np.ndarray, model: CameraModel) -> torch.Tensor:
        """The network's image [3, height, width] uint8 from RGB pixels [H, W, 3]; black where the lens saw nothing."""
        if model.lens is None:
            return images.scale_and_crop(pixels, self._config)
        import cv2

        scaled = np.ascontiguousarray(images.scale(pixels, self._config).permute(1, 2, 0).numpy())
        rectified = cv2.remap(scaled, *self._maps_of(model), cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
        return torch.from_numpy(rectified).permute(2, 0, 1).contiguous()

    def __len__(self) -> int:
        return len(self._maps)

    def _maps_of(self, model: CameraModel) -> tuple[np.ndarray, np.ndarray]:
        key = _key(model)
        with self._lock:
            maps = self._maps.pop(key, None)
            if maps is None:
                maps = rectification_maps(model, self._config)
            self._maps[key] = maps  # at the end: the one used longest ago is the first to go
            while len(self._maps) > _MAX_MAPS:
                del self._maps[next(iter(self._maps))]
            return maps


def rectified(pixels: np.ndarray, model: CameraModel) -> np.ndarray:
    """The whole camera image [H, W, 3] as the pinhole would have taken it: what boxes may be drawn on."""
    whole = Rectifier(ImageConfig(height=model.height, width=model.width))
    return whole.network_image(pixels, model).permute(1, 2, 0).numpy()


def rectification_maps(model: CameraModel, config: ImageConfig) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel of the network's image, where it lies in the scaled image as taken: x and y [height, width].

    Scaling moves pixel centres by half a pixel, as in `images.scale`.
    """
    scaled_height = images.scaled_height(model.width, model.height, config)
    scale = np.array([config.width / model.width, scaled_height / model.height])
    columns, rows = np.meshgrid(np.arange(config.width), np.arange(config.height) + scaled_height - config.height)
    pinhole = (np.stack([columns, rows], axis=-1) + 0.5) / scale - 0.5
    rays = np.concatenate([pinhole, np.ones_like(pinhole[..., :1])], axis=-1) @ np.linalg.inv(model.intrinsics).T
    taken = (distort(model.lens, rays[..., :2]) + 0.5) * scale - 0.5
    taken = np.where(np.isfinite(taken) & (np.abs(taken) < -_OUTSIDE), taken, _OUTSIDE).astype(np.float32)
    return np.ascontiguousarray(taken[..., 0]), np.ascontiguousarray(taken[..., 1])


def _key(model: CameraModel) -> tuple:
    lens = model.lens
    arrays = (model.intrinsics, lens.intrinsics, lens.coefficients)
    return (model.width, model.height, lens.model, *(np.asarray(a, np.float64).tobytes() for a in arrays))
