"""Every encoding gives the same pixels; scaling agrees with Pillow and with the intrinsics."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from syncl_core import images
from syncl_core.config import ImageConfig
from syncl_core.errors import InputError
from syncl_core.types import RawImage


def picture(height=45, width=80, seed=0):
    """A smooth colourful picture with some detail."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (height // 8 + 2, width // 8 + 2, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


RGB = picture()
GREY = np.repeat(RGB[..., :1], 3, axis=2)
ALPHA = np.full((45, 80, 1), 99, np.uint8)
WIRE = {
    "rgb8": (RGB, RGB),
    "bgr8": (RGB[..., ::-1], RGB),
    "rgba8": (np.concatenate([RGB, ALPHA], axis=2), RGB),
    "bgra8": (np.concatenate([RGB[..., ::-1], ALPHA], axis=2), RGB),
    "mono8": (RGB[..., :1], GREY),
}


def pillow_bytes(format_name, **options):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", WIRE)
@pytest.mark.parametrize("padding", [0, 13])
@pytest.mark.parametrize("container", [bytes, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_raw_encodings(encoding, padding, container):
    pixels, expected = WIRE[encoding]
    rows = b"".join(row.tobytes() + b"\xee" * padding for row in pixels)
    step = 80 * pixels.shape[2] + padding
    image = RawImage(encoding=encoding, data=container(rows), width=80, height=45, step=step)
    np.testing.assert_array_equal(images.decode(image), expected)


def test_png_is_lossless():
    np.testing.assert_array_equal(images.decode(RawImage(encoding="png", data=pillow_bytes("PNG"))), RGB)


def test_jpeg_equals_pillow():
    data = pillow_bytes("JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(images.decode(RawImage(encoding="jpeg", data=data)) - expected).max() <= 1


@pytest.mark.parametrize(
    "image, message",
    [
        (RawImage(encoding="yuv422", data=b"", width=8, height=8), "unknown image encoding 'yuv422'; known: jpeg, png"),
        (RawImage(encoding="jpeg", data=b""), "corrupt JPEG of 0 bytes"),
        (RawImage(encoding="jpeg", data=pillow_bytes("JPEG")[:60]), "corrupt JPEG of 60 bytes"),
        (RawImage(encoding="png", data=pillow_bytes("PNG")[:60]), "corrupt PNG of 60 bytes"),
        (RawImage(encoding="png", data=b""), "corrupt PNG of 0 bytes"),
        (RawImage(encoding="rgb8", data=bytes(99), width=80, height=45), "rgb8 image of 80x45 .* does not fit 99"),
        (RawImage(encoding="rgb8", data=bytes(9), width=0, height=45), "rgb8 image of 0x45"),
        (RawImage(encoding="rgb8", data=bytes(10800), width=80, height=45, step=100), "with 100 bytes a row"),
        (RawImage(encoding="png", data=pillow_bytes("PNG"), width=160, height=90), "image is 80x45, expected 160x90"),
    ],
)
def test_unusable_images_are_named(image, message):
    with pytest.raises(InputError, match=message):
        images.decode(image)


def test_truncated_jpeg_is_refused():
    data = pillow_bytes("JPEG", quality=95)
    with pytest.raises(InputError, match="corrupt JPEG"):
        images.decode(RawImage(encoding="jpeg", data=data[: len(data) // 2]))


@pytest.mark.parametrize("size", [(900, 1600), (450, 800), (720, 1280)])
def test_scaling_equals_pillow_bicubic(size):
    """PETR scales with Pillow; one grey level apart at most."""
    pixels = picture(*size)
    config = ImageConfig(height=320, width=800)
    result = images.scale_and_crop(pixels, config)
    scaled = Image.fromarray(pixels).resize((800, 450), Image.Resampling.BICUBIC)
    expected = np.asarray(scaled)[450 - 320 :]
    assert result.shape == (3, 320, 800) and result.dtype == torch.uint8 and result.is_contiguous()
    assert np.abs(result.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_scaling_does_not_write_to_the_message():
    data = bytes(RGB.tobytes())
    pixels = images.decode(RawImage(encoding="rgb8", data=data, width=80, height=45))
    images.scale_and_crop(pixels, ImageConfig(height=45, width=80)).zero_()
    assert data == RGB.tobytes()


def test_intrinsics_follow_the_image():
    """A point projected by the scaled intrinsics lies where scaling and cropping moved its pixel."""
    config = ImageConfig(height=320, width=800)
    intrinsics = np.array([[1266.4, 0.3, 816.3], [0, 1257.1, 491.5], [0, 0, 1]])
    scaled = images.scale_and_crop_intrinsics(intrinsics, 1600, 900, config)
    for point in np.random.default_rng(0).uniform([-5, -3, 2], [5, 3, 60], (20, 3)):
        u, v, _ = intrinsics @ point / point[2]
        np.testing.assert_allclose(scaled @ point / point[2], [u / 2, v / 2 - 130, 1], atol=1e-9)


def test_a_drawn_dot_stays_on_its_projection():
    """The same with pixels: pixel centres differ by at most half a source pixel."""
    config = ImageConfig(height=320, width=800)
    pixels = np.zeros((900, 1600, 3), np.uint8)
    u, v = 611, 777
    pixels[v - 1 : v + 2, u - 1 : u + 2] = 255
    intrinsics = images.scale_and_crop_intrinsics(np.eye(3), 1600, 900, config)
    bright = images.scale_and_crop(pixels, config)[0].double()
    rows, columns = torch.meshgrid(torch.arange(320.0), torch.arange(800.0), indexing="ij")
    center = [float((bright * grid).sum() / bright.sum()) for grid in (columns, rows)]
    expected = (intrinsics @ [u, v, 1])[:2]
    np.testing.assert_allclose(center, expected, atol=0.5)


def test_image_with_too_few_rows_is_refused():
    config = ImageConfig(height=320, width=800)
    for call in (
        lambda: images.scale_and_crop(picture(100, 400), config),
        lambda: images.scale_and_crop_intrinsics(np.eye(3), 400, 100, config),
    ):
        with pytest.raises(InputError, match="image of 400x100 .* has 200 rows, the network needs 320"):
            call()
