"""Feature pyramid neck of PETR (CPFPN): two levels in, the stride-16 level out."""

import torch
from torch import nn


class CPFPN(nn.Module):
    """1x1 lateral convolutions, top-down addition, and a 3x3 convolution on the fine level only."""

    def __init__(self, in_channels: tuple[int, int], out_channels: int):
        super().__init__()
        # The one-entry dictionaries reproduce the names of the public checkpoints: lateral_convs.0.conv.weight.
        self.lateral_convs = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(channels, out_channels, 1)}) for channels in in_channels
        )
        self.fpn_convs = nn.ModuleList([nn.ModuleDict({"conv": nn.Conv2d(out_channels, out_channels, 3, padding=1)})])

    def forward(self, maps: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Maps [B*N, C_i, H_i, W_i] at stride 16 and 32 -> [B*N, D, H_0, W_0]."""
        fine, coarse = (lateral["conv"](x) for lateral, x in zip(self.lateral_convs, maps, strict=True))
        fine = fine + nn.functional.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
        return self.fpn_convs[0]["conv"](fine)
