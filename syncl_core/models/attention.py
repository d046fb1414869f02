"""Multi-head attention with the parameter names of torch.nn.MultiheadAttention, on scaled_dot_product_attention."""

import torch
from torch import nn
from torch.nn import functional

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Projected keys and values, each [B, heads, P, D / heads]."""


class MultiHeadAttention(nn.Module):
    """Keys and values are projected apart from the queries, so that one memory can serve several calls."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, key: torch.Tensor, value: torch.Tensor) -> KeysValues:
        """Keys and values of tokens [B, P, D]."""
        _, weight_k, weight_v = self.in_proj_weight.chunk(3)
        _, bias_k, bias_v = self.in_proj_bias.chunk(3)
        keys = functional.linear(key, weight_k, bias_k)
        values = functional.linear(value, weight_v, bias_v)
        return self._split(keys), self._split(values)

    def forward(
        self,
        query: torch.Tensor,  # [B, M, D]
        keys_values: KeysValues,
        valid: torch.Tensor | None = None,  # [B, P] bool; False = this key is not looked at
    ) -> torch.Tensor:
        """[B, M, D]."""
        embed_dim = query.shape[-1]
        q = self._split(functional.linear(query, self.in_proj_weight[:embed_dim], self.in_proj_bias[:embed_dim]))
        mask = None if valid is None else valid[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        x = functional.scaled_dot_product_attention(q, *keys_values, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(x.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, P, D / heads]
