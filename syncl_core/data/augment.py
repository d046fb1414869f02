"""Augmentation of images, told to the projection: boxes never move.

Resize and crop are PF-Track's: one scale for all cameras and frames of a clip, bottom rows, columns at one random
place; where the scaled image is smaller than the network's, black is added at the top and right. The mirror is PETR's:
pixels u -> W - u. GridMask (Chen et al. 2020) as PETR uses it blanks squares of the same grid in all images of a clip.

Everything drawn is a pure function of a key of integers, so a resumed run sees what the interrupted one would have.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from syncl_core.config import ImageConfig
from syncl_core.data.camera_dropout import draw_dropped
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.images import scaled_height
from syncl_core.tensors import Frame
from syncl_core.train_config import TrainConfig
from syncl_core.types import CameraModel, FrameSet

_GRID_KEY = 1  # keeps the grid's random numbers apart from other draws with the same seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What happens to all images of a clip. The default does nothing."""

    scale: float = 1.0  # relative to the scale at inference
    offset: float = 0.0  # of the crop's left edge, as a fraction of the columns to spare
    flip: bool = False
    dropped: tuple[int, ...] = ()  # cameras that fail


def draw_augmentation(config: TrainConfig, key: Sequence[int], num_cameras: int = 0) -> Augmentation:
    """The augmentation of a clip; `key` says which. Without cameras none fails."""
    rng = np.random.default_rng(key)
    scale, offset, flip = rng.uniform(*config.resize), rng.random(), rng.random() < config.flip
    dropped = draw_dropped(rng, config.camera_dropout, config.max_dropped_cameras, num_cameras)
    return Augmentation(scale=float(scale), offset=float(offset), flip=bool(flip), dropped=dropped)


def augmented_frame(frame_set: FrameSet, config: ImageConfig, augmentation: Augmentation, look: bool = True) -> Frame:
    """`frames.make_frame` with an augmentation: same decoding and scaling, image_from_model follows every pixel.

    Cameras that are to fail are still there: what they show decides about the targets (data/camera_dropout.py). Raises
    InputError, naming the camera, for images that inference would refuse: only a smaller scale may leave rows black.
    """
    for view in frame_set.views:
        if view is not None:
            check_size(view.camera, view.model, config)
    width = round(config.width * augmentation.scale)
    rows = [round(v.model.height * width / v.model.width) for v in frame_set.views if v is not None]
    height = min([config.height, *rows])
    frame = make_frame(frame_set, dataclasses.replace(config, width=width, height=height), look=look)
    left = int(augmentation.offset * max(0, width - config.width))
    right = config.width - (width - left)  # columns to add; negative = to cut off
    pad = (-left, right, config.height - height, 0)
    pixels_from_pixels = torch.eye(4, dtype=torch.float64)
    pixels_from_pixels[0, 2] = -left
    pixels_from_pixels[1, 2] = config.height - height
    if augmentation.flip:
        mirror = torch.eye(4, dtype=torch.float64)
        mirror[0, 0], mirror[0, 2] = -1.0, config.width
        pixels_from_pixels = mirror @ pixels_from_pixels
    images = torch.nn.functional.pad(frame.images, pad)
    return dataclasses.replace(
        frame,
        images=images.flip(-1) if augmentation.flip else images,
        # A missing camera's neutral matrix stays neutral.
        image_from_model=torch.where(
            frame.camera_valid[..., None, None], pixels_from_pixels @ frame.image_from_model, frame.image_from_model
        ),
    )


def check_size(where: str, model: CameraModel, config: ImageConfig) -> None:
    """Raises InputError, `where` first, for images that inference cannot bring to the network's size."""
    try:
        scaled_height(model.width, model.height, config)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def draw_grid_masks(config: TrainConfig, image: ImageConfig, clips: Sequence[int]) -> torch.Tensor | None:
    """The pixels [B, H, W] bool that stay in the clips of these numbers; None = all."""
    masks = [_draw_grid_mask(config, image, clip) for clip in clips]
    if all(mask is None for mask in masks):
        return None
    return torch.stack([torch.ones(image.height, image.width).bool() if mask is None else mask for mask in masks])


def _draw_grid_mask(config: TrainConfig, image: ImageConfig, clip: int) -> torch.Tensor | None:
    """The pixels [H, W] bool that stay; None = all.

    Period d is drawn from 2 .. H-1 pixels, stripes are d/2 wide; what lies in no horizontal and no vertical stripe is
    blanked. The grid covers a canvas of 1.5 H x 1.5 W, of which the middle is used.
    """
    rng = np.random.default_rng([config.seed, _GRID_KEY, clip])
    if rng.random() >= config.grid_mask:
        return None
    period = int(rng.integers(2, max(3, image.height)))
    stripe = min(max(int(period / 2 + 0.5), 1), period - 1)
    rows, columns = (
        _in_stripe(size, period, stripe, int(rng.integers(period))) for size in (image.height, image.width)
    )
    return torch.from_numpy(rows[:, None] | columns[None, :])


def _in_stripe(size: int, period: int, stripe: int, start: int) -> np.ndarray:
    """[size] bool: pixels of one axis that lie in a stripe; stripes begin at `start` on the canvas, one per period."""
    canvas = int(1.5 * size)
    position = np.arange(size) + (canvas - size) // 2 - start
    return (position >= 0) & (position % period < stripe) & (position // period < canvas // period)


def blank(frame: Frame, stays: torch.Tensor, config: ImageConfig) -> Frame:
    """The frame with all pixels but `stays` [B, H, W] set to the mean colour, which the network sees as zero."""
    mean = torch.tensor(config.mean if config.channel_order == "rgb" else config.mean[::-1])
    color = mean.round().to(torch.uint8).to(frame.images.device).view(3, 1, 1)
    return dataclasses.replace(
        frame, images=torch.where(stays[:, None, None].to(frame.images.device), frame.images, color)
    )
