"""A small residual network (ResNet-18 at half width, 2.8 million parameters) for demos, tests and CPUs."""

import torch
from torch import nn

_WIDTHS = (32, 64, 128, 256)  # at strides 4, 8, 16, 32


class SmallBackbone(nn.Module):
    """[B*N, 3, H, W] -> ([B*N, 128, H/16, W/16], [B*N, 256, H/32, W/32]), rounded up.

    With `num_maps` 3 the map [B*N, 64, H/8, W/8] comes first.
    """

    def __init__(self, num_maps: int = 2):
        super().__init__()
        self.out_channels = _WIDTHS[-num_maps:]
        self.stem = nn.Sequential(normed_conv(3, 24, stride=2), nn.ReLU(inplace=True))
        channels = (24, *_WIDTHS)
        self.stages = nn.ModuleList(
            nn.Sequential(ResidualBlock(channels[i], channels[i + 1], stride=2), ResidualBlock(channels[i + 1]))
            for i in range(len(_WIDTHS))
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[-len(self.out_channels) :])


class ResidualBlock(nn.Module):
    """Basic block of He et al. 2016, eq. 1 and 2: relu(F(x) + W x)."""

    def __init__(self, in_channels: int, out_channels: int | None = None, stride: int = 1):
        super().__init__()
        out_channels = out_channels or in_channels
        self.conv1 = normed_conv(in_channels, out_channels, stride)
        self.conv2 = normed_conv(out_channels, out_channels)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else normed_conv(in_channels, out_channels, stride, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.conv2(self.conv1(x).relu()) + self.shortcut(x)).relu()


def normed_conv(in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
