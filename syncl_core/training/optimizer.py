"""AdamW with two groups, and the learning rate as a function of the iteration (PF-Track's schedule)."""

import math

import torch
from torch import nn

from syncl_core.train_config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Weight decay (Loshchilov and Hutter 2019) applies to every parameter; the image backbone learns slower.

    A group remembers its share of the learning rate as `factor`.
    """
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["img_backbone." in name].append(parameter)
    kinds = len({type(parameter.data) for parameter in model.parameters()})
    return torch.optim.AdamW(
        [
            {"params": parameters, "factor": config.backbone_lr_factor if is_backbone else 1.0}
            for is_backbone, parameters in groups.items()
            if parameters
        ],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        # One kernel for all weights, unless they are of two kinds: shares, and what FSDP leaves whole.
        fused=kinds == 1 and next(model.parameters()).is_cuda,
        foreach=None if kinds == 1 else False,
    )


def learning_rate(config: TrainConfig, iteration: int, iterations: int) -> float:
    """The learning rate of an iteration, 0 to iterations - 1: a cosine from the full rate to `final_lr_factor` of it.

    The first `warmup_iterations` multiply it by a line from `warmup_start` to 1.
    """
    lowest = config.final_lr_factor
    rate = lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
    if iteration < config.warmup_iterations:
        rate *= 1 - (1 - iteration / config.warmup_iterations) * (1 - config.warmup_start)
    return config.learning_rate * rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
