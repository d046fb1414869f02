"""Whole camera images survive DDS with the shipped middleware profile: two real processes."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from syncl_ros.bench_middleware import CAMERAS, Case, measure

DOMAIN = 88


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_the_profile_loses_no_image(kind):
    sweeps = 18
    result = measure("profile", Case(kind=kind, reliability="best effort", sweeps=sweeps), DOMAIN)
    assert result["sent"] == sweeps * len(CAMERAS)
    assert result["arrived"] == result["sent"]
    assert 0 < result["p50_ms"] <= result["max_ms"]
