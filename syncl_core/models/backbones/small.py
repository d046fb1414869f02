"""Small residual networks for demos, tests and CPUs."""

import torch
from torch import nn

SMALL = ((24,), (32, 64, 128, 256))
"""Channels of the stem and of the stages, each at half the size of the one before; ResNet-18 at half width, 2.8 M."""

LEAN = ((16, 32), (48, 96, 192))
"""No blocks at stride 4, where most of a small network's time goes; 1.6 million parameters."""


class SmallBackbone(nn.Module):
    """[B*N, 3, H, W] -> the last `num_maps` stages' maps [B*N, C_i, H/s, W/s], rounded up, from fine to coarse.

    The last stage has stride 32; the sizes are `SMALL` or `LEAN`.
    """

    def __init__(self, num_maps: int = 2, sizes: tuple[tuple[int, ...], tuple[int, ...]] = SMALL):
        super().__init__()
        stem, widths = sizes
        self.out_channels = widths[-num_maps:]
        self.stem = nn.Sequential()
        for before, after in zip((3, *stem), stem, strict=False):
            self.stem.extend([_conv(before, after, stride=2), nn.ReLU(inplace=True)])
        self.stages = nn.ModuleList(
            nn.Sequential(_ResidualBlock(before, after, stride=2), _ResidualBlock(after))
            for before, after in zip((stem[-1], *widths), widths, strict=False)
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[-len(self.out_channels) :])


class _ResidualBlock(nn.Module):
    """Basic block of He et al. 2016, eq. 1 and 2: relu(F(x) + W x)."""

    def __init__(self, in_channels: int, out_channels: int | None = None, stride: int = 1):
        super().__init__()
        out_channels = out_channels or in_channels
        self.conv1 = _conv(in_channels, out_channels, stride)
        self.conv2 = _conv(out_channels, out_channels)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else _conv(in_channels, out_channels, stride, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.conv2(self.conv1(x).relu()) + self.shortcut(x)).relu()


def _conv(in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
