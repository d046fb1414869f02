"""V2-99-eSE and ResNet written down from their formulas, on a state dictionary alone; slow on purpose."""

import math

import torch
from torch.nn import functional

Weights = dict[str, torch.Tensor]


def convolve(x: torch.Tensor, weight: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """A convolution as a sum over the kernel's taps, padded to keep the size."""
    kernel, (height, width) = weight.shape[-1], x.shape[-2:]
    padded = functional.pad(x, (kernel // 2,) * 4)
    taps = [
        torch.einsum("oc,nchw->nohw", weight[:, :, i, j], padded[:, :, i : i + height : stride, j : j + width : stride])
        for i in range(kernel)
        for j in range(kernel)
    ]
    return torch.stack(taps).sum(dim=0)


def normalize(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    """Batch normalisation with the running statistics."""

    def column(key: str) -> torch.Tensor:
        return weights[f"{name}.{key}"].view(1, -1, 1, 1)

    scale = column("weight") / (column("running_var") + 1e-5).sqrt()
    return (x - column("running_mean")) * scale + column("bias")


def pool(x: torch.Tensor, before: int, whole: bool) -> torch.Tensor:
    """3x3 maximum with stride 2 after `before` empty rows and columns; the last window need not be `whole`."""
    around = math.floor if whole else math.ceil
    rows, cols = (around((size + 2 * before - 3) / 2) + 1 for size in x.shape[-2:])
    padded = functional.pad(x, (before, 3, before, 3), value=-torch.inf)
    taps = [padded[..., i : i + 2 * rows : 2, j : j + 2 * cols : 2] for i in range(3) for j in range(3)]
    return torch.stack([tap[..., :rows, :cols] for tap in taps]).amax(dim=0)


def vovnet_conv(x: torch.Tensor, weights: Weights, name: str, stride: int = 1) -> torch.Tensor:
    return normalize(convolve(x, weights[f"{name}/conv.weight"], stride), weights, f"{name}/norm").clamp(min=0)


def vovnet_stem(x: torch.Tensor, weights: Weights, prefix: str) -> torch.Tensor:
    for i, stride in ((1, 2), (2, 1), (3, 2)):
        x = vovnet_conv(x, weights, f"{prefix}stem_{i}", stride)
    return x


def channel_gate(x: torch.Tensor, weights: Weights, prefix: str) -> torch.Tensor:
    mean = x.flatten(2).sum(dim=-1) / (x.shape[-1] * x.shape[-2])
    mixed = mean @ weights[f"{prefix}fc.weight"][:, :, 0, 0].T + weights[f"{prefix}fc.bias"]
    return x * ((mixed + 3).clamp(0, 6) / 6)[:, :, None, None]


def osa_block(x: torch.Tensor, weights: Weights, prefix: str, name: str, first: bool) -> torch.Tensor:
    outputs = [x]
    for i in range(5):
        outputs.append(vovnet_conv(outputs[-1], weights, f"{prefix}layers.{i}.{name}_{i}"))
    y = vovnet_conv(torch.cat(outputs, dim=1), weights, f"{prefix}concat.{name}_concat")
    y = channel_gate(y, weights, f"{prefix}ese.")
    return y if first else x + y


def vovnet99(images: torch.Tensor, weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    x, maps = vovnet_stem(images, weights, "stem."), {}
    for stage, blocks in ((2, 1), (3, 3), (4, 9), (5, 3)):
        x = x if stage == 2 else pool(x, before=0, whole=False)
        for block in range(1, blocks + 1):
            name = f"OSA{stage}_{block}"
            x = osa_block(x, weights, f"stage{stage}.{name}.", name, first=block == 1)
        maps[stage] = x
    return maps[4], maps[5]


def bottleneck(x: torch.Tensor, weights: Weights, prefix: str, stride: int, style: str) -> torch.Tensor:
    strides = {"pytorch": (1, stride, 1), "caffe": (stride, 1, 1)}[style]
    y = x
    for i, s in enumerate(strides, start=1):
        y = normalize(convolve(y, weights[f"{prefix}conv{i}.weight"], s), weights, f"{prefix}bn{i}")
        y = y if i == 3 else y.clamp(min=0)
    if f"{prefix}downsample.0.weight" in weights:
        x = normalize(convolve(x, weights[f"{prefix}downsample.0.weight"], stride), weights, f"{prefix}downsample.1")
    return (x + y).clamp(min=0)


def resnet(images: torch.Tensor, weights: Weights, blocks: tuple[int, ...], style: str) -> list[torch.Tensor]:
    x = pool(normalize(convolve(images, weights["conv1.weight"], 2), weights, "bn1").clamp(min=0), before=1, whole=True)
    maps = []
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            stride = 2 if stage > 1 and i == 0 else 1
            x = bottleneck(x, weights, f"layer{stage}.{i}.", stride, style)
        maps.append(x)
    return maps[2:]
