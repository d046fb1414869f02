"""Deformable convolution against one loop per output number, and the backbones that have it or give three maps."""

import pytest
import torch
from slow_mutr3d import deformable_conv

from syncl_core.models.backbones.build import build_backbone
from syncl_core.models.backbones.deformable import DeformableConv2d, deformable_conv2d
from syncl_core.models.backbones.resnet import ResNet


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("kernel, stride, padding, dilation", [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 2), (1, 2, 1, 1)])
def test_deformable_convolution_is_its_formula(kernel, stride, padding, dilation):
    """Places inside, at the border, up to a pixel beyond it, and far outside."""
    x, weight = _noise(2, 4, 7, 9), _noise(5, 4, kernel, kernel, seed=1)
    rows, cols = ((n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in (7, 9))
    offset = _noise(2, 2 * kernel**2, rows, cols, seed=2) * 6
    offset[:, :, 0, 0], offset[:, :, 1, 1], offset[:, :, 2, 1] = 0.0, 1000.0, -1.0
    modulation = _noise(2, kernel**2, rows, cols, seed=3).sigmoid()
    ours = deformable_conv2d(x, offset, modulation, weight, stride, padding, dilation)
    doubles = (value.double() for value in (x, offset, modulation, weight))
    torch.testing.assert_close(ours.double(), deformable_conv(*doubles, stride, padding, dilation), atol=1e-5, rtol=0)


def test_without_offsets_it_is_an_ordinary_convolution():
    conv, x = DeformableConv2d(4, 6, kernel=3, stride=2), _noise(1, 4, 8, 10)
    expected = torch.nn.functional.conv2d(x, conv.weight, stride=2, padding=1) / 2  # untrained weights are sigmoid(0)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_its_module_reads_offsets_before_weights():
    conv, x = DeformableConv2d(4, 6, kernel=3), _noise(1, 4, 5, 6)
    conv.conv_offset.weight.copy_(_noise(*conv.conv_offset.weight.shape, seed=4))
    raw = torch.nn.functional.conv2d(x, conv.conv_offset.weight, conv.conv_offset.bias, padding=1).double()
    expected = deformable_conv(x.double(), raw[:, :18], raw[:, 18:].sigmoid(), conv.weight.double(), 1, 1, 1)
    torch.testing.assert_close(conv(x).double(), expected, atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_formula():
    """Of input, offsets, modulation and weights, by finite differences; no place lies on a pixel's edge."""
    x, modulation, weight = _noise(1, 2, 4, 5), _noise(1, 9, 2, 3, seed=3), _noise(3, 2, 3, 3, seed=4)
    offset = 0.3 + 0.2 * _noise(1, 18, 2, 3, seed=2)
    values = tuple(value.double().requires_grad_() for value in (x, offset, modulation, weight))

    def convolve(x, offset, modulation, weight):
        return deformable_conv2d(x, offset, modulation, weight, stride=1, padding=0, dilation=1)

    assert torch.autograd.gradcheck(convolve, values)


@torch.inference_mode()
def test_a_deformable_resnet_that_looks_straight_ahead_is_a_plain_one():
    plain, deformable = ResNet(50, "caffe", 3).eval(), ResNet(50, "caffe", 3, (3, 4)).eval()
    straight = {name: torch.zeros_like(v) for name, v in deformable.state_dict().items() if ".conv_offset." in name}
    assert sorted({name.split(".")[0] for name in straight}) == ["layer3", "layer4"] and len(straight) == 2 * 9
    for name, value in straight.items():
        if name.endswith("bias"):
            value[18:] = 40.0  # its sigmoid is one
    deformable.load_state_dict(plain.state_dict() | straight)
    images = _noise(1, 3, 64, 96)
    for ours, theirs in zip(deformable(images), plain(images), strict=True):
        torch.testing.assert_close(ours / theirs.abs().max(), theirs / theirs.abs().max(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name, channels", [("small", 64), ("v2_99", 512), ("resnet50", 512), ("resnet50_caffe", 512)])
def test_a_third_map_comes_before_the_two(name, channels):
    with torch.device("meta"):
        two, three = build_backbone(name), build_backbone(name, num_maps=3)
        maps, more = two(torch.zeros(1, 3, 64, 96)), three(torch.zeros(1, 3, 64, 96))
    assert [x.shape for x in more] == [(1, channels, 8, 12), *(x.shape for x in maps)]
    assert three.out_channels == (channels, *two.out_channels) == tuple(x.shape[1] for x in more)
    assert three.state_dict().keys() == two.state_dict().keys()


@torch.inference_mode()
def test_the_third_map_is_the_one_the_others_come_from():
    network, images = build_backbone("small", num_maps=3).eval(), _noise(1, 3, 64, 96)
    maps = network(images)
    assert torch.equal(network.stages[2](maps[0]), maps[1]) and torch.equal(network.stages[3](maps[1]), maps[2])
