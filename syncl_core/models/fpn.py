"""Feature pyramid (Lin et al. 2017) with batch norms and further, coarser maps, the way DETR3D sets mmdetection's."""

import torch
from torch import nn
from torch.nn import functional


class FPN(nn.Module):
    """1x1 lateral convolutions, top-down addition, 3x3 convolutions; then each further map halves the one before.

    A ReLU stands before all further maps but the first. Norms follow every convolution, which has no bias.
    """

    def __init__(self, in_channels: tuple[int, ...], out_channels: int, num_levels: int):
        super().__init__()
        self.lateral_convs = nn.ModuleList(_normed_conv(channels, out_channels, kernel=1) for channels in in_channels)
        self.fpn_convs = nn.ModuleList(
            _normed_conv(out_channels, out_channels, kernel=3, stride=1 if level < len(in_channels) else 2)
            for level in range(num_levels)
        )

    def forward(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Maps [B*N, C_i, H_i, W_i] from fine to coarse -> `num_levels` maps [B*N, D, H_i, W_i]."""
        lateral = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in reversed(range(len(lateral) - 1)):
            size = lateral[i].shape[-2:]
            lateral[i] = lateral[i] + functional.interpolate(lateral[i + 1], size=size, mode="nearest")
        levels = [conv(x) for conv, x in zip(self.fpn_convs, lateral, strict=False)]
        for i, conv in enumerate(self.fpn_convs[len(lateral) :]):
            levels.append(conv(levels[-1].relu() if i else levels[-1]))
        return tuple(levels)


def _normed_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """The names are those of the public checkpoints: conv.weight, bn.weight, ..."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.xavier_uniform_(conv.weight)
    sequence = nn.Sequential()
    sequence.add_module("conv", conv)
    sequence.add_module("bn", nn.BatchNorm2d(out_channels))
    return sequence
