"""Augmented images and their projection tell the same story; what is drawn depends on the key alone."""

import dataclasses

import numpy as np
import pytest
import torch
from train_fixture import HEIGHT, WIDTH, ToySource, toy_config

from syncl_core.config import ImageConfig
from syncl_core.data.augment import Augmentation, augmented_frame, blank, draw_augmentation, draw_grid_masks
from syncl_core.data.loader import clip_numbers
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.train_config import TrainConfig
from syncl_core.types import RawImage

SOURCE, CONFIG = ToySource(), toy_config()


def _set_with_spot(sigma: float = 2.5):
    """A frame set whose images are black but for a soft white spot where a point of the model frame is seen."""
    frame_set = SOURCE.frame_set("toy-0", 0)
    point = np.array([0.6, 9.0, -0.5, 1.0])
    frame = make_frame(frame_set, ImageConfig(height=HEIGHT, width=WIDTH))
    u, v, depth, _ = frame.image_from_model[0, 0].numpy() @ point
    assert depth > 1
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5  # a pixel's middle
    spot = 255 * np.exp(-((x - u / depth) ** 2 + (y - v / depth) ** 2) / (2 * sigma**2))
    pixels = np.repeat(spot.round().astype(np.uint8)[..., None], 3, axis=2)
    image = RawImage(encoding="rgb8", data=pixels, width=WIDTH, height=HEIGHT)
    views = tuple(dataclasses.replace(view, image=image) for view in frame_set.views)
    return dataclasses.replace(frame_set, views=views), point


def _seen(frame, point) -> np.ndarray:
    u, v, depth, _ = frame.image_from_model[0, 0].numpy() @ point
    return np.array([u / depth, v / depth])


def _middle_of_light(frame) -> np.ndarray:
    image = frame.images[0, 0].double().mean(dim=0).numpy()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(x * image).sum(), (y * image).sum()]) / image.sum()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (0.9, 0.0), (1.25, 0.0), (1.25, 0.5), (1.1, 0.99), (0.7, 0.3)])
def test_the_projection_follows_the_pixels(scale, offset, flip):
    frame_set, point = _set_with_spot()
    augmentation = Augmentation(scale=scale, offset=offset, flip=flip)
    frame = augmented_frame(frame_set, CONFIG.image, augmentation)
    assert frame.images.shape == (1, 3, 3, 32, 64)
    np.testing.assert_allclose(_middle_of_light(frame), _seen(frame, point), atol=0.25)


def test_no_augmentation_is_inference():
    frame_set = SOURCE.frame_set("toy-1", 2)
    plain, augmented = make_frame(frame_set, CONFIG.image), augmented_frame(frame_set, CONFIG.image, Augmentation())
    for f in dataclasses.fields(plain):
        assert torch.equal(getattr(plain, f.name), getattr(augmented, f.name)), f.name


def test_mirrored_twice_is_the_original():
    frame_set = SOURCE.frame_set("toy-0", 1)
    plain, mirrored = (augmented_frame(frame_set, CONFIG.image, Augmentation(flip=f)) for f in (False, True))
    assert torch.equal(mirrored.images.flip(-1), plain.images) and not torch.equal(mirrored.images, plain.images)
    u, d = plain.image_from_model[..., 0, :], plain.image_from_model[..., 2, :]
    torch.testing.assert_close(mirrored.image_from_model[..., 0, :], 64 * d - u)


def test_a_smaller_image_is_black_at_the_top_and_right():
    frame = augmented_frame(SOURCE.frame_set("toy-0", 0), CONFIG.image, Augmentation(scale=0.5))
    assert not frame.images[..., :12, :].any() and not frame.images[..., 32:].any()  # 20 x 32 pixels are left
    assert (frame.images[..., 12:, :32] > 0).float().mean() > 0.9


def test_images_that_inference_refuses_are_not_trained_on():
    """Black rows at the top are for smaller scales; at the scale of inference they would be learned, and never seen."""
    low = ImageConfig(height=48, width=64)
    for scale in (1.0, 1.3):
        with pytest.raises(InputError, match=r"^CAM_A: image of 64x40 .* the network needs 48 \(image\.height\)"):
            augmented_frame(SOURCE.frame_set("toy-0", 0), low, Augmentation(scale=scale))


def test_a_missing_camera_stays_neutral():
    frame_set = SOURCE.frame_set("toy-0", 0)
    frame_set = dataclasses.replace(frame_set, views=(None, *frame_set.views[1:]))
    frame = augmented_frame(frame_set, CONFIG.image, Augmentation(scale=1.2, offset=0.5, flip=True))
    assert frame.camera_valid.tolist() == [[False, True, True]]
    assert torch.equal(frame.image_from_model[0, 0], torch.eye(4, dtype=torch.float64)) and not frame.images[0, 0].any()


def test_draws_depend_on_the_key_alone_and_fill_their_ranges():
    config = TrainConfig(resize=(0.9, 1.3), flip=0.5)
    draws = [draw_augmentation(config, [7, i]) for i in range(400)]
    assert draws == [draw_augmentation(config, [7, i]) for i in range(400)]
    scales, offsets = np.array([d.scale for d in draws]), np.array([d.offset for d in draws])
    assert (
        0.9 <= scales.min() < 0.91
        and 1.29 < scales.max() <= 1.3
        and 0 <= offsets.min() < 0.01 < 0.99 < offsets.max() < 1
    )
    assert 0.4 < np.mean([d.flip for d in draws]) < 0.6
    never = [draw_augmentation(TrainConfig(), [7, i]).flip for i in range(100)]
    assert not any(never)


def _slow_grid_mask(height: int, width: int, period: int, starts: tuple[int, int]) -> np.ndarray:
    """What stays, drawn stripe by stripe on the larger canvas."""
    stripe = min(max(int(period / 2 + 0.5), 1), period - 1)
    canvas = np.zeros((int(1.5 * height), int(1.5 * width)), dtype=bool)
    for i in range(canvas.shape[0] // period):
        canvas[starts[0] + i * period : starts[0] + i * period + stripe] = True
    for i in range(canvas.shape[1] // period):
        canvas[:, starts[1] + i * period : starts[1] + i * period + stripe] = True
    top, left = (canvas.shape[0] - height) // 2, (canvas.shape[1] - width) // 2
    return canvas[top : top + height, left : left + width]


def test_grid_mask_equals_the_slow_one():
    image = ImageConfig(height=37, width=90)
    drawn = 0
    masks = draw_grid_masks(TrainConfig(grid_mask=0.7, seed=3), image, range(60))
    for clip, stays in enumerate(masks):
        if stays.all():
            continue
        drawn += 1
        same = [
            (period, a, b)
            for period in range(2, 37)
            for a in range(period)
            for b in range(period)
            if clip < 12 and np.array_equal(stays.numpy(), _slow_grid_mask(37, 90, period, (a, b)))
        ]
        assert same or clip >= 12, clip
    assert 30 <= drawn <= 52  # 42 expected
    assert draw_grid_masks(TrainConfig(grid_mask=0.0), image, range(60)) is None


def test_every_clip_has_its_own_grid_mask_however_they_are_shared_out():
    config, image = TrainConfig(grid_mask=0.7, seed=3), ImageConfig(height=37, width=90)
    together = draw_grid_masks(config, image, clip_numbers(1, batch_size=4, rank=0, size=1))
    assert len({mask.numpy().tobytes() for mask in together}) >= 3
    for rank in range(2):
        half = draw_grid_masks(config, image, clip_numbers(1, batch_size=2, rank=rank, size=2))
        expected = together[2 * rank : 2 * rank + 2]
        assert torch.equal(half, expected) if half is not None else expected.all()


def test_blanked_pixels_are_zero_to_the_network():
    frame = make_frame(SOURCE.frame_set("toy-0", 0), CONFIG.image)
    stays = torch.zeros(1, 32, 64, dtype=torch.bool)
    stays[..., ::2] = True
    blanked = blank(frame, stays, CONFIG.image)
    assert torch.equal(blanked.images[..., ::2], frame.images[..., ::2])
    bgr = blanked.images[..., 1::2].flip(2).float()
    normal = (bgr - torch.tensor(CONFIG.image.mean).view(3, 1, 1)) / torch.tensor(CONFIG.image.std).view(3, 1, 1)
    assert normal.abs().max() < 0.01
