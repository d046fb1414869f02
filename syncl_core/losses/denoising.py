"""Object queries that begin near an object and learn to find it (DN-DETR, Li et al. 2022; StreamPETR trains so, too).

Nothing has to be matched, so the decoder learns where to look while its own queries are still being shared out. The
queries do not see each other or the others: they run as SynCL's parallel decoder does, without self-attention.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.losses.padding import clean_targets
from syncl_core.losses.set_loss import class_mean, set_sums
from syncl_core.models.box_code import code_center, normalize
from syncl_core.models.heads import HeadOutput
from syncl_core.tensors import Targets

_INSIDE = 1e-3  # fractions of pc_range from its border
_HEIGHT_NOISE = 0.5  # metres, standard deviation


class Denoising(nn.Module):
    """`train.denoising` queries for every object, at most `train.denoising_radius` metres away from it."""

    def __init__(self, config: SynclConfig):
        super().__init__()
        self.loss = config.syncl.loss
        self.per_object, self.radius = config.train.denoising, config.train.denoising_radius
        self.register_buffer("pc_range", torch.tensor(config.model.pc_range).view(2, 3), persistent=False)
        self.register_buffer("code_weights", torch.tensor(config.syncl.loss.code_weights), persistent=False)

    def forward(self, probe: Callable[[torch.Tensor], HeadOutput], targets: Targets) -> dict[str, torch.Tensor]:
        """Losses of all layers' outputs `probe(reference)` for reference points [B, P, 3], fractions of pc_range."""
        targets = clean_targets(targets)
        center = code_center(targets.box).repeat(1, self.per_object, 1)
        counts = targets.valid.repeat(1, self.per_object)
        reference = normalize(center + self._noise(center), self.pc_range).clamp(_INSIDE, 1 - _INSIDE)
        head = probe(torch.where(counts[..., None], reference, 0.5))  # empty rows may hold anything
        shape = head.logits.shape[:3]
        owner = torch.arange(targets.valid.shape[1], device=center.device).repeat(self.per_object)
        with torch.autocast(center.device.type, enabled=False):
            sums = set_sums(
                *(head.logits, head.box, owner.expand(shape), counts.expand(shape)),
                *(targets, self.loss, self.code_weights),
            )
        return {
            "denoising_class": self.loss.class_weight * class_mean(sums.of_class, sums.positives).sum(),
            "denoising_box": self.loss.box_weight * class_mean(sums.of_box, sums.positives).sum(),
        }

    def _noise(self, center: torch.Tensor) -> torch.Tensor:
        """Metres, like `center` [B, P, 3]: any direction on the ground, any distance up to the radius."""
        distance, angle = torch.rand(2, *center.shape[:2], device=center.device)
        distance, angle = distance * self.radius, angle * (2 * math.pi)
        height = torch.randn_like(distance) * _HEIGHT_NOISE
        return torch.stack([distance * angle.cos(), distance * angle.sin(), height], dim=-1)
