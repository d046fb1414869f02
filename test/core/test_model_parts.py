"""Golden values of the public PETR and PF-Track networks, and the box code against nuScenes conventions."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from slow_pftrack import sine
from tiny_stream import stream_config
from tiny_tracker import tiny_config

from syncl_core.config import SynclConfig
from syncl_core.models import box_code, position
from syncl_core.models.attention import MultiHeadAttention
from syncl_core.tracking.build import build_tracker

POSITION_RANGE = torch.tensor([[-61.2, -61.2, -10.0], [61.2, 61.2, 10.0]])


def test_lid_depths_are_petrs():
    depths = position.lid_depths(64, 1.0, 61.2)
    expected = {0: 1.0, 1: 1.0289, 2: 1.0868, 31: 15.3554, 62: 57.5243, 63: 59.3477}
    for i, depth in expected.items():
        assert depths[i].item() == pytest.approx(depth, abs=5e-5)


def _golden_camera() -> torch.Tensor:
    image_from_cam = torch.tensor([[630.0, 0, 400, 0], [0, 630, 160, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).double()
    cam_from_lidar = torch.tensor([[0, -1, 0, 0.1], [0, 0, -1, -0.3], [1, 0, 0, -0.2], [0, 0, 0, 1]]).double()
    return (image_from_cam @ cam_from_lidar)[None, None]


def test_ray_points_and_encoding_are_petrs():
    depths = position.lid_depths(64, 1.0, 61.2)
    points = position.ray_points(_golden_camera(), (20, 50), (320, 800), depths)
    encoding = position.ray_encoding(points, POSITION_RANGE)
    torch.testing.assert_close(points[0, 0, 10, 25, 31], torch.tensor([15.55538, 0.1, -0.3]), atol=1e-4, rtol=0)
    expected = torch.tensor([0.51974, 0.00327, -0.06002])
    torch.testing.assert_close(encoding[0, 0, 10, 25, 93:96], expected, atol=1e-5, rtol=0)
    assert encoding[0, 0, 19, 49, -1].item() == pytest.approx(-11.51293, abs=1e-4)  # z below the range


@pytest.mark.parametrize("detector", ["petr", "petrv2", "stream_petr"])
def test_places_are_embedded_in_float32_whatever_autocast_says(detector):
    """In bfloat16 the median error of a query's embedding is that of moving it by 0.4 m."""
    tracker = build_tracker(stream_config("none") if detector == "stream_petr" else _petr(detector))
    head = tracker.pts_bbox_head

    def embedded() -> list[torch.Tensor]:
        queries = (head if detector == "stream_petr" else tracker).object_queries(1)
        tokens = head.embed_position(_golden_camera(), (3, 5), (50, 84))
        return [queries.position, getattr(tokens, "position", tokens)]

    expected = embedded()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for ours, theirs in zip(embedded(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def _petr(detector: str) -> SynclConfig:
    model = dataclasses.replace(tiny_config().model, framework="none", detector=detector)
    return dataclasses.replace(tiny_config(), model=model)


def test_ray_points_project_back_onto_their_token():
    image_from_model = _golden_camera()
    points = position.ray_points(image_from_model, (3, 5), (50, 84), torch.tensor([2.0, 30.0])).double()
    for r in range(3):
        for c in range(5):
            for point, depth in zip(points[0, 0, r, c], (2.0, 30.0), strict=True):
                u, v, d, _ = image_from_model[0, 0] @ torch.cat([point, torch.ones(1)])
                assert d.item() == pytest.approx(depth, abs=1e-4)
                assert (u / d).item() == pytest.approx(c * 84 / 5, abs=1e-3)
                assert (v / d).item() == pytest.approx(r * 50 / 3, abs=1e-3)


def test_token_sine_is_petrs_blocked_layout():
    embedding = position.token_sine(6, 20, 50, 128, torch.device("cpu"))[0, 0, 0]
    golden = {
        **{0: 0.86603, 1: 0.78756, 2: 0.70703, 64: 0.5, 65: 0.61624, 66: 0.70719},  # camera
        **{128: 0.30902, 129: 0.26871, 192: 0.95106, 193: 0.96322},  # row
        **{256: 0.12533, 257: 0.10861, 320: 0.99211, 321: 0.99408},  # column
    }
    for i, value in golden.items():
        assert embedding[i].item() == pytest.approx(value, abs=1e-5)


def test_point_sine_is_petrs_interleaved_layout_in_order_y_x_z():
    embedding = position.point_sine(torch.tensor([0.25, 0.5, 0.75]), 128)
    y = [0.0, -1.0, 0.40875, -0.91265, 0.70734, -0.70687]
    x, z = [1.0, 0.0, 0.97792, 0.20899], [-1.0, 0.0, -0.80707, -0.59046]
    for start, values in ((0, y), (128, x), (256, z)):
        torch.testing.assert_close(embedding[start : start + len(values)], torch.tensor(values), atol=2e-5, rtol=0)


def test_time_sine_is_pftracks():
    embedding = position.time_sine(3, 256, torch.device("cpu"))[1, :6]
    expected = torch.tensor([0, -1, 0.21639, -0.97631, 0.40875, -0.91265])
    torch.testing.assert_close(embedding, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("count", [8, 128])
def test_sines_equal_plain_loops(count):
    for x in (0.0, 0.3, 5.0):
        for fast, blocked in ((position.sine_interleaved, False), (position.sine_blocked, True)):
            torch.testing.assert_close(
                fast(torch.tensor(x), count), torch.tensor(sine(x, count, blocked)), atol=1e-6, rtol=0
            )


def test_inverse_sigmoid_inverts_and_saturates():
    x = torch.tensor([1e-4, 0.25, 0.5, 0.999])
    torch.testing.assert_close(torch.sigmoid(box_code.inverse_sigmoid(x)), x)
    assert box_code.inverse_sigmoid(torch.tensor([-3.0, 0.0])).tolist() == pytest.approx([-11.51293] * 2, abs=1e-4)
    assert box_code.inverse_sigmoid(torch.tensor([1.0, 7.0])).tolist() == pytest.approx([11.51293] * 2, abs=1e-4)


def test_attention_equals_torch_multihead_attention_with_the_same_state_dict():
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(16, 4, 0.1).eval(), torch.nn.MultiheadAttention(16, 4, batch_first=True).eval()
    torch.nn.init.uniform_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    query, key, value = torch.randn(2, 3, 16), torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    valid = torch.rand(2, 5) > 0.4
    expected = theirs(query, key, value, key_padding_mask=~valid)[0]
    torch.testing.assert_close(ours(query, ours.project(key, value), valid), expected)


def test_box_code_is_that_of_mmdetection3d_before_1_0():
    """A 4 x 2 x 1.5 m car heading 30 degrees left of the lidar's x axis."""
    yaw = math.radians(30)
    code = box_code.encode_boxes(
        torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 2.0, 1.5]), torch.tensor(yaw), torch.tensor([5.0, 6.0])
    )
    angle = -yaw - math.pi / 2
    expected = [1, 2, math.log(2), math.log(4), 3, math.log(1.5), math.sin(angle), math.cos(angle), 5, 6]
    np.testing.assert_allclose(code.numpy(), expected, atol=1e-6)


def test_box_code_round_trip():
    torch.manual_seed(0)
    center, size = torch.randn(2, 50, 3) * 20, torch.rand(2, 50, 3) * 5 + 0.2
    yaw, velocity = (torch.rand(2, 50) * 2 - 1) * 3.1415, torch.randn(2, 50, 2)
    code = box_code.encode_boxes(center, size, yaw, velocity)
    torch.testing.assert_close(box_code.code_center(code), center)
    torch.testing.assert_close(box_code.code_size(code), size)
    torch.testing.assert_close(box_code.code_yaw(code), yaw, atol=1e-5, rtol=0)
    torch.testing.assert_close(box_code.code_velocity(code), velocity)
    # A network's sine and cosine are not of unit length.
    scaled = torch.cat([code[..., :6], 0.3 * code[..., 6:8], code[..., 8:]], dim=-1)
    torch.testing.assert_close(box_code.code_yaw(scaled), yaw, atol=1e-5, rtol=0)
