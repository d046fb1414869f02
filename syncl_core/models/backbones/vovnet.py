"""V2-99-eSE (Lee and Park 2020, CenterMask): one-shot aggregation blocks with effective squeeze and excitation.

Names are those of the public checkpoints: a "/" stands between a layer's name and its kind (OSA2_1_0/conv).
"""

import torch
from torch import nn
from torch.nn import functional

_STEM_WIDTHS = (64, 64, 128)
# Blocks, inner width and output width of stages 2 to 5, at strides 4, 8, 16 and 32.
_STAGES = ((1, 128, 256), (3, 160, 512), (9, 192, 768), (3, 224, 1024))
_LAYERS_PER_BLOCK = 5


class VoVNet99(nn.Module):
    """[B*N, 3, H, W] -> ([B*N, 768, H/16, W/16], [B*N, 1024, H/32, W/32]), rounded up. 69.5 million parameters.

    With `num_maps` 3 the map [B*N, 512, H/8, W/8] comes first.
    """

    def __init__(self, num_maps: int = 2):
        super().__init__()
        self.out_channels = tuple(width for _, _, width in _STAGES[-num_maps:])
        self.stem = nn.Sequential()
        in_channels = 3
        for i, (width, stride) in enumerate(zip(_STEM_WIDTHS, (2, 1, 2), strict=True), start=1):
            _add_conv(self.stem, f"stem_{i}", in_channels, width, kernel=3, stride=stride)
            in_channels = width
        for stage, (blocks, inner, width) in enumerate(_STAGES, start=2):
            sequence = nn.Sequential()
            for block in range(1, blocks + 1):
                sequence.add_module(f"OSA{stage}_{block}", OSABlock(f"OSA{stage}_{block}", in_channels, inner, width))
                in_channels = width
            self.add_module(f"stage{stage}", sequence)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stage2(self.stem(images))
        maps = []
        for stage in (self.stage3, self.stage4, self.stage5):
            x = stage(_halve(x))
            maps.append(x)
        return tuple(maps[-len(self.out_channels) :])


class OSABlock(nn.Module):
    """Five chained 3x3 convolutions; the input and all five outputs are joined once, then weighted by channel.

    All blocks but the first of a stage, which changes the width, add their input.
    """

    def __init__(self, name: str, in_channels: int, inner: int, out_channels: int):
        super().__init__()
        self.residual = in_channels == out_channels
        self.layers = nn.ModuleList(nn.Sequential() for _ in range(_LAYERS_PER_BLOCK))
        for i, layer in enumerate(self.layers):
            _add_conv(layer, f"{name}_{i}", inner if i else in_channels, inner, kernel=3)
        self.concat = nn.Sequential()
        joined = in_channels + _LAYERS_PER_BLOCK * inner
        _add_conv(self.concat, f"{name}_concat", joined, out_channels, kernel=1)
        self.ese = ChannelGate(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        y = self.ese(self.concat(torch.cat(outputs, dim=1)))
        return y + x if self.residual else y


class ChannelGate(nn.Module):
    """Effective squeeze and excitation: every channel times a hard sigmoid of a mixture of all channels' means."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * functional.hardsigmoid(self.fc(x.mean(dim=(2, 3), keepdim=True)))


def _halve(x: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)


def _add_conv(parent: nn.Sequential, name: str, in_channels: int, out_channels: int, kernel: int, stride: int = 1):
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    parent.add_module(f"{name}/conv", conv)
    parent.add_module(f"{name}/norm", nn.BatchNorm2d(out_channels))
    parent.add_module(f"{name}/relu", nn.ReLU(inplace=True))
