"""Further convolutions on the finest map of a feature pyramid, as the towers of FCOS (Tian et al. 2019) have them.

In the pyramid the coarse maps' knowledge of what an object is and the finest one's of where its edges are meet in a
single convolution. Here cells that are to say to a fraction of themselves where an object stands get more. An addition
of ours to DETR3D, whose blocks start as nearly nothing: a network trained without them can go on with them.
"""

import torch
from torch import nn

_START = 0.1  # share of a block's own part at first; with 0 it would take hundreds of steps to begin learning


class Tower(nn.Sequential):
    """Maps [B*N, D, h, w] -> the same, through `blocks` blocks."""

    def __init__(self, dim: int, blocks: int):
        super().__init__(*(_Block(dim, dim // 2) for _ in range(blocks)))


class _Block(nn.Module):
    """x + F(x), F: two 3x3 convolutions of `width` channels between two of 1x1. It ends without a ReLU."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        sizes = ((dim, width, 1), (width, width, 3), (width, width, 3), (width, dim, 1))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k, padding=k // 2, bias=False) for a, b, k in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _ in sizes)
        for conv in self.convs:
            nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
        nn.init.constant_(self.norms[-1].weight, _START)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y.relu() if i else y))
        return x + y
