"""CameraInfo of distorted cameras: which pinhole, which lens, and what is refused."""

import numpy as np
import pytest
from test_messages import MODEL, TYPES, camera_info

from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.lens import distort


@pytest.mark.parametrize(
    "name, d, model, coefficients",
    [
        ("plumb_bob", [-0.2, 0.1, 0, 0.001, 0.02], "plumb_bob", [-0.2, 0.1, 0, 0.001, 0.02]),
        ("plumb_bob", [-0.2, 0.1, 0, 0.001], "plumb_bob", [-0.2, 0.1, 0, 0.001, 0]),
        ("rational_polynomial", [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0], "rational_polynomial", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("equidistant", [0.1, 0.2, 0.3, 0.4], "equidistant", [0.1, 0.2, 0.3, 0.4]),
        ("fisheye", [0.1, 0.2, 0.3, 0.4], "equidistant", [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_images_with_distortion_get_a_lens(name, d, model, coefficients):
    camera = messages.camera_model_from(camera_info(distortion_model=name, d=d), rectified=False)
    assert camera.lens.model == model and camera.lens.coefficients.tolist() == coefficients
    np.testing.assert_array_equal(camera.lens.intrinsics, MODEL.intrinsics)
    assert camera.intrinsics[0, 0] == 1200  # rectified to P, as image_proc does it
    no_p = camera_info(distortion_model=name, d=d, p=[0.0] * 12)
    np.testing.assert_array_equal(messages.camera_model_from(no_p, rectified=False).intrinsics, MODEL.intrinsics)


@pytest.mark.parametrize("name", ["equidistant", "fisheye"])
def test_an_ideal_fisheye_is_no_pinhole(name):
    """Where all coefficients are zero, r = f * theta remains: 45 degrees from the axis lie at pi / 4, not at 1."""
    info = camera_info(distortion_model=name, d=[0.0] * 4, p=[0.0] * 12)
    camera = messages.camera_model_from(info, rectified=False)
    fx, cx = MODEL.intrinsics[0, 0], MODEL.intrinsics[0, 2]
    np.testing.assert_allclose(distort(camera.lens, np.array([1.0, 0.0]))[0], cx + fx * np.pi / 4)
    with pytest.raises(InputError, match="camera_info with P, or set rig.rectify to always"):
        messages.camera_model_from(info)
    assert messages.camera_model_from(camera_info(distortion_model=name, d=[]), rectified=False).lens is None


def test_rectified_images_have_no_lens():
    assert messages.camera_model_from(camera_info(distortion_model="plumb_bob")).lens is None
    assert messages.camera_model_from(camera_info(d=[0.0] * 5), rectified=False).lens is None


def test_cutting_and_binning_move_the_lens_too():
    roi = TYPES.make("sensor_msgs/msg/RegionOfInterest", x_offset=100, y_offset=60, width=800, height=600)
    fields = {"distortion_model": "plumb_bob", "d": [-0.2, 0.1, 0.003, 0.001, 0.02]}
    whole = messages.camera_model_from(camera_info(**fields), rectified=False)
    part = messages.camera_model_from(camera_info(**fields, roi=roi, binning_x=2, binning_y=4), rectified=False)
    ray = np.array([0.12, 0.07])
    expected = (distort(whole.lens, ray) - (100, 60)) / (2, 4)
    np.testing.assert_allclose(distort(part.lens, ray), expected)


@pytest.mark.parametrize(
    "rectify, topic, expected",
    [
        ("auto", "/cam_front/image_rect/compressed", True),
        ("auto", "/cam_front/image_rect_color", True),
        ("auto", "/cam_front/image_raw", False),
        ("auto", "/cam_front/image/compressed", False),
        ("always", "/cam_front/image_rect", False),
        ("never", "/cam_front/image_raw", True),
    ],
)
def test_whose_images_are_rectified(rectify, topic, expected):
    assert messages.images_rectified(rectify, topic) is expected


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"distortion_model": "thin_prism"}, "unknown distortion model 'thin_prism'; known: plumb_bob"),
        ({"distortion_model": ""}, "unknown distortion model ''"),
        ({"distortion_model": "plumb_bob", "d": [0.1, 0, 0, 0, 0, 0.5]}, "plumb_bob has 5 coefficients"),
        ({"distortion_model": "equidistant", "d": [0.1, np.nan, 0, 0]}, "equidistant needs 4 finite"),
        ({"distortion_model": "plumb_bob", "k": [0.0] * 9}, "not calibrated"),
        ({"distortion_model": "plumb_bob", "width": 1, "height": 1321}, "1x1321 pixels, which no camera has"),
    ],
)
def test_unusable_lenses_are_input_errors(fields, message):
    with pytest.raises(InputError, match=message):
        messages.camera_model_from(camera_info(**fields), rectified=False)


def test_rectified_images_of_a_distorting_lens_need_p():
    with pytest.raises(InputError, match="camera_info with P, or set rig.rectify to always"):
        messages.camera_model_from(camera_info(p=[0.0] * 12))
