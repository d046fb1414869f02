"""The one way from bytes to the network's pixels, for training, offline tracking and the ROS node.

decode -> scale to the network's width (bicubic, antialiased, as PETR's Pillow path) -> keep the bottom rows.
Normalisation happens inside the model, on its device. Scaling and cropping change the intrinsics with the image.
"""

import numpy as np
import simplejpeg
import torch

from syncl_core.config import ImageConfig
from syncl_core.errors import InputError
from syncl_core.image_header import MAX_PIXELS, compressed_size, corrupt
from syncl_core.types import RawImage

_RAW_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def decode(image: RawImage) -> np.ndarray:
    """RGB pixels [H, W, 3] uint8 (read-only where it views the message). Raises InputError with the reason."""
    if image.decode is not None:
        pixels = _checked(image.decode())
    elif image.encoding in ("jpeg", "png"):
        pixels = _decode_compressed(image)
    else:
        pixels = _view_raw(image)
    height, width = pixels.shape[:2]
    if (image.width and width != image.width) or (image.height and height != image.height):
        raise InputError(f"image is {width}x{height}, expected {image.width}x{image.height}")
    return pixels


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"expected RGB pixels of 8 bits, got {pixels.dtype} {list(pixels.shape)}")
    return pixels


def _decode_compressed(image: RawImage) -> np.ndarray:
    data = bytes(image.data)
    compressed_size(image.encoding, data)  # refuses what claims to be huge before there is memory for it
    try:
        return _decode_jpeg(data) if image.encoding == "jpeg" else _decode_png(data)
    except ValueError as error:
        raise corrupt(image.encoding, data, error) from None


def _decode_jpeg(data: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)


def _decode_png(data: bytes) -> np.ndarray:
    import cv2

    # An EXIF rotation would turn the image away from its calibration.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError("OpenCV cannot decode it")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _view_raw(image: RawImage) -> np.ndarray:
    channels = _RAW_CHANNELS.get(image.encoding)
    if channels is None:
        raise InputError(f"unknown image encoding {image.encoding!r}; known: jpeg, png, {', '.join(_RAW_CHANNELS)}")
    step = image.step or image.width * channels
    data = np.frombuffer(image.data, np.uint8)
    if image.width <= 0 or image.height <= 0 or step < image.width * channels or data.size < step * image.height:
        raise InputError(
            f"{image.encoding} image of {image.width}x{image.height} "
            f"with {step} bytes a row does not fit {data.size} bytes"
        )
    # Rows may be padded, so the view needs explicit strides.
    pixels = np.ndarray((image.height, image.width, channels), np.uint8, buffer=data, strides=(step, channels, 1))
    if image.encoding == "mono8":
        return np.repeat(pixels, 3, axis=2)
    return pixels[..., 2::-1] if image.encoding.startswith("bgr") else pixels[..., :3]


def scale_and_crop(pixels: np.ndarray, config: ImageConfig) -> torch.Tensor:
    """The network's image [3, height, width] uint8 from RGB pixels [H, W, 3]. Raises InputError if rows are missing."""
    scaled = scale(pixels, config)
    return scaled[:, scaled.shape[1] - config.height :].contiguous()


def scale(pixels: np.ndarray, config: ImageConfig) -> torch.Tensor:
    """RGB pixels [H, W, 3] at the network's width, with all rows: [3, h, width] uint8."""
    size = (scaled_height(pixels.shape[1], pixels.shape[0], config), config.width)
    tensor = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
    if tensor.shape[-2:] != size:
        tensor = torch.nn.functional.interpolate(tensor, size=size, mode="bicubic", antialias=True)
    return tensor[0]


def scale_and_crop_intrinsics(intrinsics: np.ndarray, width: int, height: int, config: ImageConfig) -> np.ndarray:
    """Intrinsics [3, 3] of the network's image, for a camera image of `width` x `height` pixels."""
    rows = scaled_height(width, height, config)
    result = np.array(intrinsics, dtype=np.float64)
    result[0] *= config.width / width
    result[1] *= rows / height
    result[1, 2] -= rows - config.height
    return result


def scaled_height(width: int, height: int, config: ImageConfig) -> int:
    """Rows of a camera image that was scaled to the network's width. Raises InputError if they are too few."""
    scaled = round(height * config.width / width)
    if scaled * config.width > MAX_PIXELS:
        raise InputError(f"image of {width}x{height} pixels is too narrow to be scaled to width {config.width}")
    if scaled < config.height:
        raise InputError(
            f"image of {width}x{height} pixels scaled to width {config.width} has {scaled} rows, "
            f"the network needs {config.height} (image.height)"
        )
    return scaled
