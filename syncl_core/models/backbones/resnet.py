"""ResNet-50 and ResNet-101 (He et al. 2016) with torchvision's names, without the classifier.

Two styles share all names and shapes, so a file of the wrong style loads without complaint and detects badly:
"pytorch" (torchvision) halves the map in the 3x3 convolution, "caffe" (MSRA, detectron2) in the 1x1 before it.
Stages may have deformable 3x3 convolutions (mmdetection's DCN variants: the last two stages).
"""

import torch
from torch import nn

from syncl_core.models.backbones.deformable import DeformableConv2d

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # per stage, by depth
_WIDTHS = (64, 128, 256, 512)  # inner width per stage
_EXPANSION = 4  # output width / inner width


class ResNet(nn.Module):
    """[B*N, 3, H, W] -> ([B*N, 1024, H/16, W/16], [B*N, 2048, H/32, W/32]), rounded up.

    With `num_maps` 3 the map [B*N, 512, H/8, W/8] comes first. `deformable` stages count from 1 to 4.
    """

    def __init__(self, depth: int, style: str, num_maps: int = 2, deformable: tuple[int, ...] = ()):
        super().__init__()
        self.out_channels = tuple(width * _EXPANSION for width in _WIDTHS[-num_maps:])
        self.conv1 = _conv(3, 64, kernel=7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        in_channels = 64
        for stage, (blocks, width) in enumerate(zip(_BLOCKS[depth], _WIDTHS, strict=True), start=1):
            sequence = nn.Sequential()
            for i in range(blocks):
                stride = 2 if i == 0 and stage > 1 else 1
                sequence.append(Bottleneck(in_channels, width, stride, style, stage in deformable))
                in_channels = width * _EXPANSION
            self.add_module(f"layer{stage}", sequence)

    def first_stages(self, count: int) -> list[nn.Module]:
        """So many stages and what comes before them."""
        return [self.conv1, self.bn1, self.layer1, self.layer2, self.layer3, self.layer4][: count + 2]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.maxpool(self.bn1(self.conv1(images)).relu())
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return tuple(maps[-len(self.out_channels) :])


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution; relu(F(x) + W x), with W a convolution only where the shape changes."""

    def __init__(self, in_channels: int, width: int, stride: int, style: str, deformable: bool = False):
        super().__init__()
        assert style in ("pytorch", "caffe")
        out_channels = width * _EXPANSION
        stride1, stride2 = (stride, 1) if style == "caffe" else (1, stride)
        self.conv1 = _conv(in_channels, width, kernel=1, stride=stride1)
        self.bn1 = nn.BatchNorm2d(width)
        conv2 = DeformableConv2d if deformable else _conv
        self.conv2 = conv2(width, width, kernel=3, stride=stride2)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, out_channels, kernel=1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride > 1 or in_channels != out_channels:
            shortcut = _conv(in_channels, out_channels, kernel=1, stride=stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
