"""Transforms and projection against plain loops over points and corners."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncl_core import geometry

UNIT = st.floats(-1, 1)
METRES = st.floats(-100, 100)
QUATERNIONS = st.tuples(UNIT, UNIT, UNIT, UNIT).filter(lambda q: sum(x * x for x in q) > 0.01)
TRANSFORMS = st.builds(lambda t, q: geometry.transform(t, q), st.tuples(METRES, METRES, METRES), QUATERNIONS)
laws = settings(max_examples=60, deadline=None)


def slow_rotate(wxyz, vector):
    """q * v * conj(q), written out (Hamilton product)."""

    def product(a, b):
        aw, ax, ay, az = a
        bw, bx, by, bz = b
        return (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        )

    norm = math.sqrt(sum(x * x for x in wxyz))
    w, x, y, z = (value / norm for value in wxyz)
    return product(product((w, x, y, z), (0.0, *vector)), (w, -x, -y, -z))[1:]


@laws
@given(QUATERNIONS, st.tuples(METRES, METRES, METRES))
def test_matrix_rotates_like_the_quaternion(wxyz, vector):
    rotated = geometry.matrix_from_quaternion(np.array(wxyz)) @ vector
    np.testing.assert_allclose(rotated, slow_rotate(wxyz, vector), atol=1e-9)


@laws
@given(QUATERNIONS)
def test_quaternion_matrix_round_trip(wxyz):
    unit = np.array(wxyz) / np.linalg.norm(wxyz)
    back = geometry.quaternion_from_matrix(geometry.matrix_from_quaternion(unit))
    assert back[0] >= 0 and abs(back @ unit) == pytest.approx(1, abs=1e-12)


@laws
@given(st.floats(-3.1, 3.1))
def test_a_yaw_turns_about_z(yaw):
    rotation = geometry.matrix_from_quaternion(geometry.quaternion_from_yaw(yaw))
    expected = [[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]]
    np.testing.assert_allclose(rotation, expected, atol=1e-12)


@laws
@given(TRANSFORMS, TRANSFORMS, st.tuples(METRES, METRES, METRES))
def test_inverse_and_chain(a_from_b, b_from_c, point):
    a_from_c = a_from_b @ b_from_c
    in_a = geometry.transform_points(a_from_c, np.array([point]))
    np.testing.assert_allclose(geometry.transform_points(geometry.inverse(a_from_c), in_a), [point], atol=1e-9)
    np.testing.assert_allclose(geometry.inverse(np.stack([a_from_b, b_from_c]))[1] @ b_from_c, np.eye(4), atol=1e-10)


@laws
@given(TRANSFORMS, TRANSFORMS, st.floats(0, 1))
def test_interpolation(before, after, fraction):
    result = geometry.interpolate_transform(before, after, fraction)
    np.testing.assert_allclose(result[:3, :3] @ result[:3, :3].T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(geometry.interpolate_transform(before, after, 0.0), before, atol=1e-9)
    np.testing.assert_allclose(geometry.interpolate_transform(before, after, 1.0), after, atol=1e-9)

    def angle(a, b):
        return 2 * math.asin(min(1.0, np.linalg.norm(a[:3, :3] - b[:3, :3]) / math.sqrt(8)))

    assert angle(before, result) == pytest.approx(fraction * angle(before, after), abs=1e-6)


@pytest.mark.parametrize("wxyz", [(0, 0, 0, 0), (math.nan, 0, 0, 1), (math.inf, 0, 0, 1)])
def test_not_a_rotation(wxyz):
    with pytest.raises(ValueError, match="not a rotation"):
        geometry.transform([0, 0, 0], wxyz)


@pytest.mark.parametrize("translation", [(0, 0), (0, 0, math.nan)])
def test_not_a_translation(translation):
    with pytest.raises(ValueError, match="not a translation"):
        geometry.transform(translation)


def random_boxes(rng, count):
    return rng.uniform(-40, 40, (count, 3)), rng.uniform(0.3, 12, (count, 3)), rng.normal(size=(count, 4))


def test_box_corners_against_loops():
    """Front face first; corners in the order that `BOX_EDGES` expects."""
    centers, sizes, rotations = random_boxes(np.random.default_rng(0), 20)
    corners = geometry.box_corners(centers, sizes, rotations)
    order = [(1, 1, -1), (1, -1, -1), (-1, -1, -1), (-1, 1, -1), (1, 1, 1), (1, -1, 1), (-1, -1, 1), (-1, 1, 1)]
    for m in range(20):
        for i, signs in enumerate(order):
            local = [sign * size / 2 for sign, size in zip(signs, sizes[m], strict=True)]
            expected = np.array(slow_rotate(rotations[m], local)) + centers[m]
            np.testing.assert_allclose(corners[m, i], expected, atol=1e-9)
        lengths = sorted(np.linalg.norm(corners[m, a] - corners[m, b]) for a, b in geometry.BOX_EDGES)
        np.testing.assert_allclose(lengths, sorted([*sizes[m]] * 4), atol=1e-9)
    assert geometry.box_corners(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 4))).shape == (0, 8, 3)


def test_projection_of_box_corners_against_loops():
    """Pinhole arithmetic point by point; a corner behind the camera has no pixel."""
    rng = np.random.default_rng(1)
    intrinsics = np.array([[1266.4, 0, 816.3], [0, 1257.1, 491.5], [0, 0, 1]])
    translation, quaternion = np.array([0.2, -0.4, 1.5]), np.array([0.9, 0.1, -0.3, 0.2])
    corners = geometry.box_corners(*random_boxes(rng, 30))
    pixels, depths = geometry.project(intrinsics, geometry.transform(translation, quaternion), corners)
    matrix = geometry.image_from_cam(intrinsics) @ geometry.transform(translation, quaternion)
    behind = 0
    for m in range(30):
        for i in range(8):
            x, y, z = np.array(slow_rotate(quaternion, corners[m, i])) + translation
            assert depths[m, i] == pytest.approx(z, abs=1e-9)
            if z <= 0:
                assert np.isnan(pixels[m, i]).all()
                behind += 1
                continue
            expected = [1266.4 * x / z + 816.3, 1257.1 * y / z + 491.5]
            np.testing.assert_allclose(pixels[m, i], expected, rtol=1e-9)
            ud, vd, d, one = matrix @ [*corners[m, i], 1]
            np.testing.assert_allclose([ud / d, vd / d, d, one], [*expected, z, 1], rtol=1e-9)
    assert 0 < behind < 240
