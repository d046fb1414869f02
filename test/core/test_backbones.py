"""V2-99 and ResNet agree with their formulas, have the public names and sizes, and are chosen by configuration."""

import dataclasses

import pytest
import slow_backbones as slow
import torch
from tiny_tracker import tiny_config
from torch import nn

from syncl_core.errors import InputError
from syncl_core.models.backbones.resnet import Bottleneck, ResNet
from syncl_core.models.backbones.vovnet import ChannelGate, OSABlock, VoVNet99
from syncl_core.tracking.build import make_tracker


@torch.no_grad()
def _shaken(module: nn.Module) -> nn.Module:
    """In evaluation mode, every number of it random: untrained norms are the identity."""
    generator = torch.Generator().manual_seed(5)
    for name, value in module.state_dict().items():
        noise = torch.rand(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(0.5 + noise)
        elif value.ndim == 1:
            value.add_(0.4 * noise - 0.2)
    return module.eval()


def _images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _assert_close(ours: torch.Tensor, reference: torch.Tensor) -> None:
    assert ours.shape == reference.shape
    assert reference.std() > 0
    torch.testing.assert_close(ours / reference.abs().max(), reference / reference.abs().max(), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def vovnet() -> VoVNet99:
    return _shaken(VoVNet99())


@torch.inference_mode()
def test_channel_gate_is_its_formula():
    gate, x = _shaken(ChannelGate(12)), _images(2, 12, 5, 7) * 9  # reaches both ends of the hard sigmoid
    _assert_close(gate(x), slow.channel_gate(x, gate.state_dict(), ""))


@pytest.mark.parametrize("first", [True, False])
@torch.inference_mode()
def test_block_is_its_formula(first):
    block, x = _shaken(OSABlock("OSA3_1", 6 if first else 10, 4, 10)), _images(2, 6 if first else 10, 9, 6)
    _assert_close(block(x), slow.osa_block(x, block.state_dict(), "", "OSA3_1", first))


@torch.inference_mode()
def test_stem_is_its_formula(vovnet):
    images = _images(2, 3, 21, 30)
    _assert_close(vovnet.stem(images), slow.vovnet_stem(images, vovnet.stem.state_dict(), ""))


@pytest.mark.parametrize("size", [(96, 160), (100, 174)])
@torch.inference_mode()
def test_vovnet_is_its_formula(vovnet, size):
    images = _images(1, 3, *size)
    for ours, reference in zip(vovnet(images), slow.vovnet99(images, vovnet.state_dict()), strict=True):
        _assert_close(ours, reference)


@pytest.mark.parametrize("style", ["pytorch", "caffe"])
@pytest.mark.parametrize("in_channels, stride", [(32, 1), (32, 2), (16, 1)])
@torch.inference_mode()
def test_bottleneck_is_its_formula(style, in_channels, stride):
    block, x = _shaken(Bottleneck(in_channels, 8, stride, style)), _images(2, in_channels, 9, 12)
    _assert_close(block(x), slow.bottleneck(x, block.state_dict(), "", stride, style))


@pytest.mark.parametrize("style, size", [("pytorch", (50, 87)), ("caffe", (33, 64))])
@torch.inference_mode()
def test_resnet50_is_its_formula(style, size):
    network, images = _shaken(ResNet(50, style)), _images(1, 3, *size)
    reference = slow.resnet(images, network.state_dict(), (3, 4, 6, 3), style)
    for ours, expected in zip(network(images), reference, strict=True):
        _assert_close(ours, expected)


@torch.inference_mode()
def test_styles_share_names_but_not_results():
    pytorch, caffe = (Bottleneck(16, 8, 2, style).eval() for style in ("pytorch", "caffe"))
    caffe.load_state_dict(pytorch.state_dict())
    x = _images(1, 16, 12, 12)
    assert (pytorch(x) - caffe(x)).abs().max() > 0.1


@pytest.mark.parametrize(
    "name, parameters, channels",
    [
        ("small", 2_793_336, (128, 256)),
        ("lean", 1_560_624, (96, 192)),
        ("v2_99", 69_523_520, (768, 1024)),
        ("resnet50", 25_557_032 - 2_049_000, (1024, 2048)),  # torchvision's, without fc
        ("resnet101", 44_549_160 - 2_049_000, (1024, 2048)),
        ("resnet50_caffe", 25_557_032 - 2_049_000, (1024, 2048)),
        ("resnet101_caffe", 44_549_160 - 2_049_000, (1024, 2048)),
    ],
)
def test_configuration_chooses_the_backbone_and_the_neck_follows(name, parameters, channels):
    config = tiny_config()
    with torch.device("meta"):
        tracker = make_tracker(dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=name)))
        maps = tracker.img_backbone(torch.zeros(2, 3, 160, 192))
    assert sum(p.numel() for p in tracker.img_backbone.parameters()) == parameters
    assert [tuple(x.shape) for x in maps] == [(2, channels[0], 10, 12), (2, channels[1], 5, 6)]
    assert tuple(lateral["conv"].in_channels for lateral in tracker.img_neck.lateral_convs) == channels
    if name.startswith("resnet"):
        caffe = [m.stride for n, m in tracker.img_backbone.named_modules() if n == "layer2.0.conv1"] == [(2, 2)]
        assert caffe == name.endswith("_caffe")


def test_unknown_backbone_is_refused():
    config = tiny_config()
    with pytest.raises(
        InputError, match=r"^model.backbone: unknown backbone 'vgg'; known: small, lean, v2_99, resnet50,"
    ):
        make_tracker(dataclasses.replace(config, model=dataclasses.replace(config.model, backbone="vgg")))
