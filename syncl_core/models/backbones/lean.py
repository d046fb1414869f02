"""A residual network for CPUs: no blocks at stride 4, where most of a small network's time goes (1.5 M parameters)."""

import torch
from torch import nn

from syncl_core.models.backbones.small import ResidualBlock, normed_conv

_STEM = (16, 32)  # channels at strides 2 and 4
_WIDTHS = (48, 96, 192)  # at strides 8, 16, 32


class LeanBackbone(nn.Module):
    """[B*N, 3, H, W] -> the last `num_maps` of [B*N, 48, H/8, W/8], [B*N, 96, H/16, W/16], [B*N, 192, H/32, W/32]."""

    def __init__(self, num_maps: int = 2):
        super().__init__()
        self.out_channels = _WIDTHS[-num_maps:]
        first, second = _STEM
        self.stem = nn.Sequential(
            *(normed_conv(3, first, stride=2), nn.ReLU(inplace=True)),
            *(normed_conv(first, second, stride=2), nn.ReLU(inplace=True)),
        )
        channels = (second, *_WIDTHS)
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
