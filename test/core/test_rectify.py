"""Distorted images become those of a pinhole: formulas against plain arithmetic and OpenCV, pixels against geometry."""

import math

import cv2
import numpy as np
import pytest
import torch
from test_images import picture

from syncl_core import images
from syncl_core.config import ImageConfig
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.lens import check_lens, distort
from syncl_core.rectify import Rectifier, rectification_maps, rectified
from syncl_core.types import CameraModel, CameraView, FrameSet, Lens, RawImage

CONFIG = ImageConfig(height=160, width=400)
TAKEN = np.array([[612.0, 0, 405.5], [0, 608.0, 219.0], [0, 0, 1]])  # the lens' own
PINHOLE = np.array([[590.0, 0, 398.0], [0, 595.0, 226.0], [0, 0, 1]])  # what the images are rectified to
COEFFICIENTS = {
    "plumb_bob": [-0.21, 0.06, 0.0011, -0.0017, -0.004],
    "rational_polynomial": [0.31, -0.12, 0.0008, 0.0013, 0.02, 0.52, 0.04, -0.01],
    "equidistant": [-0.031, 0.012, -0.006, 0.001],
}


def lens(model, coefficients=None):
    return Lens(model=model, intrinsics=TAKEN, coefficients=np.array(coefficients or COEFFICIENTS[model]))


def camera(model, coefficients=None):
    return CameraModel(width=800, height=450, intrinsics=PINHOLE, lens=lens(model, coefficients))


def slow_distort(model, k, x, y):
    """One ray, term by term as the formulas are printed in OpenCV's manual."""
    r = math.sqrt(x**2 + y**2)
    if model == "equidistant":
        theta = math.atan(r)
        theta_d = theta * (1 + k[0] * theta**2 + k[1] * theta**4 + k[2] * theta**6 + k[3] * theta**8)
        x2, y2 = (x * theta_d / r, y * theta_d / r) if r else (x, y)
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = [*k, 0, 0, 0][:8]
        f = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
        x2 = x * f + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
        y2 = y * f + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
    return TAKEN[0, 0] * x2 + TAKEN[0, 2], TAKEN[1, 1] * y2 + TAKEN[1, 2]


@pytest.mark.parametrize("model", COEFFICIENTS)
def test_formulas(model):
    rays = np.random.default_rng(1).uniform(-0.7, 0.7, (200, 2))
    rays[0] = 0
    ours, k = distort(lens(model), rays), COEFFICIENTS[model]
    for ray, pixel in zip(rays, ours, strict=True):
        np.testing.assert_allclose(pixel, slow_distort(model, k, *ray), atol=1e-9)
    points = np.concatenate([rays, np.ones((200, 1))], axis=1)[:, None]
    none = np.zeros(3)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    theirs, _ = project(points, none, none, TAKEN, np.array(k))
    np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-6)


def drawn(u, v, sigma=4.0):
    """A soft dot whose centre is exactly at a pixel's coordinates."""
    rows, columns = np.mgrid[0:450, 0:800]
    dot = 250 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(dot).astype(np.uint8)[..., None], 3, axis=2)


def center(image):
    weight = image[0].double()
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in weight.shape), indexing="ij")
    return np.array([float((weight * grid).sum() / weight.sum()) for grid in (columns, rows)])


@pytest.mark.parametrize("model", COEFFICIENTS)
def test_a_point_in_space_lands_on_the_same_network_pixel_with_and_without_distortion(model):
    rectifier, checked = Rectifier(CONFIG), 0
    projection = images.scale_and_crop_intrinsics(PINHOLE, 800, 450, CONFIG)
    for x, y, z in np.random.default_rng(2).uniform([-9, -2, 14], [9, 4.5, 18], (25, 3)):
        expected = (projection @ [x / z, y / z, 1])[:2]
        if not (12 < expected[0] < 388 and 12 < expected[1] < 148):
            continue
        as_taken = drawn(*slow_distort(model, COEFFICIENTS[model], x / z, y / z))
        straight = images.scale_and_crop(drawn(*(PINHOLE @ [x / z, y / z, 1])[:2]), CONFIG)
        rectified = center(rectifier.network_image(as_taken, camera(model)))
        np.testing.assert_allclose(rectified, center(straight), atol=0.15)
        np.testing.assert_allclose(rectified, expected, atol=0.5)  # pixel centres move by half a source pixel
        checked += 1
    assert checked > 10 and len(rectifier) == 1


def test_maps_against_one_pixel_at_a_time():
    model = camera("rational_polynomial")
    map_x, map_y = rectification_maps(model, CONFIG)
    assert map_x.shape == map_y.shape == (160, 400)
    for row, column in ((0, 0), (0, 399), (159, 0), (159, 399), (70, 211)):
        u, v = (column + 0.5) * 2 - 0.5, (row + 65 + 0.5) * 2 - 0.5  # 800 x 450 -> 400 x 225, its lower 160 rows
        x, y = (u - PINHOLE[0, 2]) / PINHOLE[0, 0], (v - PINHOLE[1, 2]) / PINHOLE[1, 1]
        taken_u, taken_v = slow_distort("rational_polynomial", COEFFICIENTS["rational_polynomial"], x, y)
        expected = ((taken_u + 0.5) / 2 - 0.5, (taken_v + 0.5) / 2 - 0.5)
        np.testing.assert_allclose((map_x[row, column], map_y[row, column]), expected, atol=1e-3)


def test_without_distortion_nothing_changes():
    pixels = picture(450, 800)
    expected = images.scale_and_crop(pixels, CONFIG)
    plain = CameraModel(width=800, height=450, intrinsics=PINHOLE)
    assert torch.equal(Rectifier(CONFIG).network_image(pixels, plain), expected)
    harmless = Lens(model="plumb_bob", intrinsics=PINHOLE, coefficients=np.zeros(5))
    through_maps = CameraModel(width=800, height=450, intrinsics=PINHOLE, lens=harmless)
    assert torch.equal(Rectifier(CONFIG).network_image(pixels, through_maps), expected)


def test_beyond_the_reach_of_a_polynomial_is_black_instead_of_a_ghost():
    """r (1 - 0.3 r^2) turns back at r = 1.054: farther out it would show the middle of the image again."""
    turning = lens("plumb_bob", [-0.3, 0.0, 0.0, 0.0, 0.0])
    pixels = distort(turning, np.array([[r, 0.0] for r in (0.5, 1.04, 1.07, 1.8)]))
    assert np.isfinite(pixels).all(axis=1).tolist() == [True, True, False, False]
    intrinsics = np.array([[200.0, 0, 400], [0, 200, 225], [0, 0, 1]])
    wide = CameraModel(width=800, height=450, intrinsics=intrinsics, lens=turning)
    image = Rectifier(CONFIG).network_image(np.full((450, 800, 3), 200, np.uint8), wide)
    assert not image[:, :, :80].any() and (image[:, 30:60, 150:250] == 200).all()


def test_a_frame_of_a_distorted_camera():
    """Its pixels are rectified, its projection is the pinhole's, and other cameras are not touched."""
    as_taken, plain = picture(450, 800, seed=3), CameraModel(width=800, height=450, intrinsics=PINHOLE)
    image = RawImage(encoding="rgb8", data=as_taken.tobytes(), width=800, height=450)
    views = tuple(
        CameraView(camera=name, t_ns=0, image=image, model=model, base_from_cam=np.eye(4), global_from_base=np.eye(4))
        for name, model in (("A", camera("equidistant")), ("B", plain))
    )
    both = FrameSet(t_ns=0, global_from_base=np.eye(4), base_from_model=np.eye(4), views=views)
    frame = make_frame(both, CONFIG)
    assert torch.equal(frame.images[0, 0], Rectifier(CONFIG).network_image(as_taken, camera("equidistant")))
    assert torch.equal(frame.images[0, 1], images.scale_and_crop(as_taken, CONFIG))
    assert not torch.equal(frame.images[0, 0], frame.images[0, 1])
    assert torch.equal(frame.image_from_model[0, 0], frame.image_from_model[0, 1])


@pytest.mark.parametrize("model", COEFFICIENTS)
def test_a_whole_image_is_rectified_for_pictures(model):
    x, y = 0.23, -0.14
    image = rectified(drawn(*slow_distort(model, COEFFICIENTS[model], x, y)), camera(model))
    assert image.shape == (450, 800, 3)
    expected = (PINHOLE @ [x, y, 1])[:2]
    np.testing.assert_allclose(center(torch.from_numpy(image).permute(2, 0, 1)), expected, atol=0.1)


def test_memory_of_maps_is_bounded():
    rectifier, small = Rectifier(ImageConfig(height=8, width=20)), picture(450, 800)
    for i in range(70):
        rectifier.network_image(small, camera("plumb_bob", [-0.2 - 1e-3 * i, 0.0, 0.0, 0.0, 0.0]))
    assert len(rectifier) == 32


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "mirror"}, "unknown distortion model 'mirror'; known: plumb_bob"),
        ({"coefficients": np.zeros(4)}, "plumb_bob needs 5 finite coefficients"),
        ({"coefficients": np.array([0, 0, np.nan, 0, 0])}, "plumb_bob needs 5 finite coefficients"),
        ({"intrinsics": np.zeros((3, 3))}, "unusable intrinsics of a lens"),
    ],
)
def test_a_lens_that_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_lens(Lens(**{"model": "plumb_bob", "intrinsics": TAKEN, "coefficients": np.zeros(5)} | changes))
