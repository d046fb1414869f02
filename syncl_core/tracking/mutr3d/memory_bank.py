"""A track's own past: it attends to features it remembered some frames ago (MUTR3D after MeMOT and MOTR)."""

import torch
from torch import nn

from syncl_core.models.attention import MultiHeadAttention


class MemoryBank(nn.Module):
    """Parameter names are those of the public checkpoints."""

    def __init__(self, dim: int, num_heads: int, period: int):
        super().__init__()
        self.period = period
        self.save_proj = nn.Linear(dim, dim)
        self.temporal_attn = MultiHeadAttention(dim, num_heads, dropout=0.0)
        self.temporal_fc1 = nn.Linear(dim, dim)
        self.temporal_fc2 = nn.Linear(dim, dim)
        self.temporal_norm1 = nn.LayerNorm(dim)
        self.temporal_norm2 = nn.LayerNorm(dim)
        for linear in (self.save_proj, self.temporal_fc1, self.temporal_fc2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        x: torch.Tensor,  # [B, K, D]
        memory: torch.Tensor,  # [B, K, H, D]
        memory_valid: torch.Tensor,  # [B, K, H] bool
    ) -> torch.Tensor:
        """[B, K, D]; rows that remember nothing stay as they are. Rows do not see each other."""
        remembers = memory_valid.any(dim=-1)
        # Attention needs something to look at, also where its result is not used.
        keys = (memory_valid | ~remembers[..., None]).flatten(0, 1)
        past = memory.flatten(0, 1)
        read = self.temporal_attn(x.flatten(0, 1)[:, None], self.temporal_attn.project(past, past), keys)
        y = self.temporal_norm1(x + read[:, 0].unflatten(0, x.shape[:2]))
        y = self.temporal_norm2(y + self.temporal_fc2(self.temporal_fc1(y).relu()))
        return torch.where(remembers[..., None], y, x)

    def remember(
        self,
        x: torch.Tensor,  # [B, K, D] what `forward` gave
        score: torch.Tensor,  # [B, K]
        memory: torch.Tensor,
        memory_valid: torch.Tensor,
        wait: torch.Tensor,  # [B, K] int64
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The new memory, which of it is valid, and the frames to wait. In training every frame is remembered."""
        save = score > 0
        if not self.training:
            save = save & (wait == 0)
            wait = torch.where(save, self.period, (wait - 1).clamp(min=0))
        newest = self.save_proj(x)[:, :, None].to(memory.dtype)
        shifted = torch.cat([memory[:, :, 1:], newest], dim=2)
        shifted_valid = torch.cat([memory_valid[:, :, 1:], torch.ones_like(memory_valid[:, :, :1])], dim=2)
        memory = torch.where(save[..., None, None], shifted, memory)
        return memory, torch.where(save[..., None], shifted_valid, memory_valid), wait
