"""From this frame's features of the tracks to their queries in the next one (MUTR3D after MOTR's QIM)."""

import torch
from torch import nn

from syncl_core.models.attention import MultiHeadAttention


class QueryInteraction(nn.Module):
    """Tracks attend to each other; the result moves both halves of their queries. Names as in the public checkpoints.

    Released without dropout. What the authors add in training (dropped tracks, false positives) is not part of it.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.self_attn = MultiHeadAttention(dim, num_heads, dropout=0.0)
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.linear_pos1, self.linear_pos2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_pos = nn.LayerNorm(dim)
        self.linear_feat1, self.linear_feat2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_feat = nn.LayerNorm(dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(
        self,
        query: torch.Tensor,  # [B, K, 2 D] position, then content
        features: torch.Tensor,  # [B, K, D] of this frame
        valid: torch.Tensor,  # [B, K] bool; the other rows are not looked at, and what they get means nothing
    ) -> torch.Tensor:
        """The next queries [B, K, 2 D]."""
        position, content = query.chunk(2, dim=-1)
        located = position + features
        # Attention needs something to look at: in a scene without tracks that is the free slots.
        keys = valid | ~valid.any(dim=1, keepdim=True)
        attended = self.self_attn(located, self.self_attn.project(located, features), keys)
        x = self.norm1(features + attended)
        x = self.norm2(x + self.linear2(self.linear1(x).relu()))
        position = self.norm_pos(position + self.linear_pos2(self.linear_pos1(x).relu()))
        content = self.norm_feat(content + self.linear_feat2(self.linear_feat1(x).relu()))
        return torch.cat([position, content], dim=-1)
