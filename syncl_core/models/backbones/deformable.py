"""Modulated deformable convolution, DCNv2 (Zhu et al. 2019, eq. 1), from PyTorch's own operators.

Every kernel point looks where a second convolution sends it, between pixels, and weighs what it sees by a number in
(0, 1). Names are those of the public checkpoints: `weight`, `conv_offset.weight`, `conv_offset.bias`.
"""

import torch
from torch import nn
from torch.nn import functional


class DeformableConv2d(nn.Module):
    """[B, C, H, W] -> [B, C', H', W'], square kernel, without bias. Untrained it is a convolution times one half."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.conv_offset = nn.Conv2d(in_channels, 3 * kernel**2, kernel, stride, padding, dilation)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        points = self.weight.shape[-1] ** 2
        offset, modulation = self.conv_offset(x).split([2 * points, points], dim=1)
        return deformable_conv2d(x, offset, modulation.sigmoid(), self.weight, self.stride, self.padding, self.dilation)


def deformable_conv2d(
    x: torch.Tensor,  # [B, C, H, W]
    offset: torch.Tensor,  # [B, 2 K, H', W'] pixels; down then right of each of the K points, row by row
    modulation: torch.Tensor,  # [B, K, H', W']
    weight: torch.Tensor,  # [C', C, k, k], K = k * k
    stride: int,
    padding: int,
    dilation: int,
) -> torch.Tensor:
    """[B, C', H', W']. Between pixels it interpolates bilinearly; beyond the border all pixels are zero."""
    (height, width), kernel = x.shape[-2:], weight.shape[-1]
    rows, cols = (torch.arange(n, device=x.device) * stride - padding for n in offset.shape[-2:])
    taps = torch.arange(kernel, device=x.device) * dilation
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))  # half precision cannot name a place
    down = taps.repeat_interleave(kernel)[:, None, None] + rows[:, None] + offset[:, 0::2]
    right = taps.repeat(kernel)[:, None, None] + cols + offset[:, 1::2]
    # grid_sample's units: -1 and 1 are the outer edges of the first and the last pixel.
    grid = torch.stack([(2 * right + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1).flatten(1, 2)
    seen = functional.grid_sample(x.to(grid.dtype), grid, padding_mode="zeros", align_corners=False)
    seen = seen.to(x.dtype).unflatten(2, (kernel**2, -1)) * modulation[:, None]
    return (weight.flatten(1) @ seen.flatten(3).flatten(1, 2)).unflatten(2, offset.shape[-2:])
