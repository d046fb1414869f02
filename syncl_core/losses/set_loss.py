"""Focal and L1 loss of matched rows, summed per layer and scene, and their divisors (DETR's set loss)."""

from dataclasses import dataclass, fields, replace

import torch
from torch import distributed

from syncl_core.losses.box_loss import weighted_l1
from syncl_core.losses.class_balance import object_weights
from syncl_core.losses.focal import sigmoid_focal_loss, soft_target
from syncl_core.models.box_code import code_center
from syncl_core.strategy_config import LossConfig
from syncl_core.tensors import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSums:
    """Of every layer and scene, before division and weighting: [L, B], or frame by frame [L, T, B]."""

    of_class: torch.Tensor
    of_box: torch.Tensor
    positives: torch.Tensor  # float32 number of rows with an object

    def split(self, frames: int) -> "SetSums":
        """[L, T, B] of [L, T * B], the scenes of `frames` frames side by side."""
        return SetSums(**{f.name: getattr(self, f.name).unflatten(1, (frames, -1)) for f in fields(self)})

    def divided_as(self, other: "SetSums") -> "SetSums":
        """These sums with the positives [L, T, B] of another's last frames."""
        return replace(self, positives=other.positives[:, -self.positives.shape[1] :])


def set_sums(
    logits: torch.Tensor,  # [L, B, M, C]
    box: torch.Tensor,  # [L, B, M, 10]
    target: torch.Tensor,  # [L, B, M] int64 row of `targets`; -1 = background
    counts: torch.Tensor,  # [L, B, M] bool; the other rows are left out, whatever they hold
    targets: Targets,
    config: LossConfig,
    code_weights: torch.Tensor,  # [10] `config.code_weights` on the device
) -> SetSums:
    """Every counting row learns its object's class or background; rows with an object also learn its box.

    With `quality_distance` a row far from its object learns less of its class: see losses/focal.py. With
    `class_balance` rows count as their objects do: see losses/class_balance.py.
    """
    positive = counts & (target >= 0)
    scene = torch.arange(target.shape[1], device=target.device)[:, None]
    index = target.clamp(min=0)
    classes = torch.arange(logits.shape[-1], device=logits.device)
    one_hot = (targets.label[scene, index][..., None] == classes) & positive[..., None]
    wanted = targets.box[scene, index]
    quality = soft_target(code_center(box), code_center(wanted), config.quality_distance)
    soft = torch.where(one_hot, quality[..., None], 0.0)
    # Rows that do not count may hold anything: they are replaced first, or a NaN would return with the gradient.
    kept_logits = torch.where(counts[..., None], logits.float(), 0.0)
    focal = sigmoid_focal_loss(kept_logits, soft, config.focal_alpha, config.focal_gamma)
    weight = torch.where(positive, object_weights(targets, config.class_balance)[scene, index], 1.0)
    return SetSums(
        of_class=(torch.where(counts[..., None], focal, 0.0).sum(dim=3) * weight).sum(dim=2),
        of_box=(weighted_l1(box, wanted, positive, code_weights) * weight).sum(dim=2),
        positives=positive.sum(dim=2).float(),
    )


def class_mean(sums: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """[L]: each scene's sum [L, B] by its own positives, then the mean over scenes. [L, T] of [L, T, B].

    A scene is what a process was in the released training, so scenes may be spread over processes in any way.
    """
    return (sums / positives.clamp(min=1)).mean(dim=-1)


def box_mean(sums: torch.Tensor, average_positives: torch.Tensor) -> torch.Tensor:
    """[L, T]: the scenes' mean [L, T, B] by the mean number of positives [L, T] over all scenes of all processes."""
    return sums.mean(dim=-1) / average_positives.clamp(min=1)


def average_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor without gradient over all processes; itself where there is only one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()
