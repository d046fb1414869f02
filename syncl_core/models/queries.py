"""What DETR3D looks with."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedQueries:
    """What looks at the pyramid: M rows, object queries first, then track slots."""

    content: torch.Tensor  # [B, M, D]
    position: torch.Tensor  # [B, M, D] learned with the content, or computed from where the query begins
    reference: torch.Tensor  # [B, M, 3] fractions of pc_range
    log_size: torch.Tensor  # [B, M, 3] log of width, length, height in metres
    valid: torch.Tensor  # [B, M] bool; False = free slot, invisible to the others

    def twice(self) -> "SizedQueries":
        """The same rows a second time at the end."""
        names = ("content", "position", "reference", "log_size", "valid")
        return SizedQueries(**{name: torch.cat([getattr(self, name)] * 2, dim=1) for name in names})
