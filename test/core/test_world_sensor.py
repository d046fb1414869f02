"""Laws of the camera: noise of the stated size, a function of its key, and nothing at all from a perfect sensor."""

import random

import numpy as np
import pytest
import torch

from syncl_core.world import generate, photo, scene, sensor, weather
from syncl_core.world.sensor import PERFECT, Sensor


def flat(value: int, views: int = 2) -> torch.Tensor:
    return torch.full((views, 120, 160, 3), value, dtype=torch.uint8)


def test_perfect_sensor_changes_nothing():
    picture = torch.arange(2 * 8 * 8 * 3, dtype=torch.uint8).view(2, 8, 8, 3)
    assert torch.equal(sensor.expose(picture, PERFECT, ("a", "b")), picture)


@pytest.mark.parametrize("value", [20, 90, 200])
def test_noise_has_the_stated_size(value):
    """Variances of shot and read noise add, and a twelfth for rounding to whole numbers."""
    shot, read = 0.03, 0.01
    noisy = sensor.expose(flat(value), Sensor(shot=shot, read=read), ("a", "b")).double()
    expected = 255**2 * (shot**2 * value / 255 + read**2) + 1 / 12
    assert noisy.mean().item() == pytest.approx(value, abs=0.1)
    assert noisy.var().item() == pytest.approx(expected, rel=0.04)
    neighbours = (noisy[:, :, 1:] - value) * (noisy[:, :, :-1] - value)
    assert abs(neighbours.mean().item()) < 0.03 * expected  # no pattern along a row


def test_gains_scale_every_camera_and_colour():
    gains = ((1.2, 1.0, 0.5), (0.8, 0.9, 1.1))
    seen = sensor.expose(flat(100, views=4), Sensor(gains=gains), ("a", "b", "c", "d"))
    for view in range(4):
        assert seen[view, 0, 0].tolist() == [round(100 * gain) for gain in gains[view % 2]]


def test_blur_equals_the_slow_twin():
    picture = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (1, 6, 7, 3), dtype=np.uint8))
    share, rows, columns = 0.1, 6, 7
    blurred = sensor.expose(picture, Sensor(blur=share), ("a",))
    for v in range(rows):
        for u in range(columns):
            for c in range(3):
                value = float(picture[0, v, u, c])
                for du in (-1, 1):
                    value += share * (
                        float(picture[0, v, min(max(u + du, 0), columns - 1), c]) - float(picture[0, v, u, c])
                    )
                for dv in (-1, 1):
                    value += share * (
                        float(picture[0, min(max(v + dv, 0), rows - 1), u, c]) - float(picture[0, v, u, c])
                    )
                assert abs(float(blurred[0, v, u, c]) - value) <= 0.5 + 1e-3


def test_noise_is_a_function_of_its_key():
    noisy = Sensor(shot=0.05, read=0.02)
    first, second = sensor.expose(flat(100), noisy, ("a", "b"))
    again = sensor.expose(flat(100, views=1), noisy, ("b",))[0]
    assert torch.equal(second, again) and not torch.equal(first, second)
    large = sensor.expose(torch.full((1, 900, 1600, 3), 100, dtype=torch.uint8), noisy, ("a",))
    assert large.double().std().item() == pytest.approx(first.double().std().item(), rel=0.03)


def test_dark_scenes_are_amplified_and_noisier():
    day, night = ([weather.make_sensor(random.Random(i), hour) for i in range(40)] for hour in ("noon", "night"))
    mean = lambda of, value: sum(map(value, of)) / len(of)  # noqa: E731
    for value in (lambda s: s.read, lambda s: s.gains[0][1]):
        assert mean(night, value) > 1.3 * mean(day, value)
    assert all(len(set(s.gains)) == 6 for s in day)


def test_a_subset_of_cameras_sees_what_the_whole_rig_sees():
    world = generate.make_scene(2)
    assembly = scene.assemble(world)
    t_us = np.array([1_000_000, 1_000_000])
    pair = photo.take(world, assembly, t_us, 64, 20, cameras=("CAM_BACK", "CAM_FRONT"))
    alone = photo.take(world, assembly, t_us[:1], 64, 20, cameras=("CAM_FRONT",))
    assert torch.equal(pair[1], alone[0]) and not torch.equal(pair[0], pair[1])
