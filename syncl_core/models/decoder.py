"""The transformer decoder of PETR, post-norm; the detection head and the three reasoning networks share it.

x = norm(x + self_attention(x)); x = norm(x + cross_attention(x, memory)); x = norm(x + feed_forward(x)), with positions
added to queries and keys but not to values. Positions stay the same in all layers.
"""

import torch
from torch import nn

from syncl_core.models.attention import KeysValues, MultiHeadAttention

Context = tuple[torch.Tensor, torch.Tensor]
"""Features and positions, each [B, E, D], of rows that queries attend to but that do not change themselves."""


class Decoder(nn.Module):
    """Every layer's output passes one shared norm on its way out; the next layer gets it without."""

    def __init__(self, num_layers: int, embed_dim: int, num_heads: int, ffn_dim: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(embed_dim, num_heads, ffn_dim, dropout) for _ in range(num_layers))
        self.post_norm = nn.LayerNorm(embed_dim)

    def project(self, memory: torch.Tensor, position: torch.Tensor) -> list[KeysValues]:
        """Keys and values of the memory [B, P, D] at `position` (broadcastable to it), one pair for each layer."""
        key = memory + position
        return [layer.attentions[1]["attn"].project(key, memory) for layer in self.layers]

    def forward(
        self,
        x: torch.Tensor,  # [B, M, D]
        position: torch.Tensor,  # broadcastable to x
        memory: list[KeysValues],  # from `project`
        valid: torch.Tensor | None = None,  # [B, M] bool; rows that self-attention may look at
        memory_valid: torch.Tensor | None = None,  # [B, P] bool
        all_layers: bool = False,
        num_parallel: int = 0,  # rows at the end that skip self-attention and that nobody attends to (SynCL, sec. 3.3)
        context: Context | None = None,  # self-attention also looks at these (StreamPETR, hybrid attention)
    ) -> torch.Tensor:
        """[L, B, M, D] for all layers, [1, B, M, D] for the last one only."""
        raw = self.run_layers(x, position, memory, valid, memory_valid, all_layers, num_parallel, context)
        return self.post_norm(raw)

    def run_layers(
        self,
        x: torch.Tensor,
        position: torch.Tensor,
        memory: list[KeysValues],
        valid: torch.Tensor | None = None,
        memory_valid: torch.Tensor | None = None,
        all_layers: bool = False,
        num_parallel: int = 0,
        context: Context | None = None,
    ) -> torch.Tensor:
        """As `forward`, without the norm on the way out."""
        if context is not None and valid is not None:
            valid = nn.functional.pad(valid, (0, context[0].shape[1]), value=True)
        outputs = []
        for layer, keys_values in zip(self.layers, memory, strict=True):
            x = layer(x, position, keys_values, valid, memory_valid, num_parallel, context)
            outputs.append(x)
        return torch.stack(outputs if all_layers else outputs[-1:])


class DecoderLayer(nn.Module):
    def __init__(self, embed_dim: int, num_heads: int, ffn_dim: int, dropout: float):
        super().__init__()
        # The one-entry dictionaries and lists reproduce the names of the public checkpoints: attentions.0.attn.*.
        self.attentions = nn.ModuleList(
            nn.ModuleDict({"attn": MultiHeadAttention(embed_dim, num_heads, dropout)}) for _ in ("self", "cross")
        )
        self.ffns = nn.ModuleList([FeedForward(embed_dim, ffn_dim, dropout)])
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: torch.Tensor,
        position: torch.Tensor,
        memory: KeysValues,
        valid: torch.Tensor | None,
        memory_valid: torch.Tensor | None,
        num_parallel: int = 0,
        context: Context | None = None,
    ) -> torch.Tensor:
        self_attention, cross_attention = (attention["attn"] for attention in self.attentions)
        located = x + position
        serial, parallel = x.shape[1] - num_parallel, x[:, x.shape[1] - num_parallel :]
        x, located = x[:, :serial], located[:, :serial]
        if serial:
            keys, values = located, x
            if context is not None:
                keys, values = torch.cat([located, context[0] + context[1]], dim=1), torch.cat([x, context[0]], dim=1)
            x = self.norms[0](x + self.dropout(self_attention(located, self_attention.project(keys, values), valid)))
        x = torch.cat([x, parallel], dim=1) if num_parallel else x
        x = self.norms[1](x + self.dropout(cross_attention(x + position, memory, memory_valid)))
        return self.norms[2](x + self.ffns[0](x))


class FeedForward(nn.Module):
    def __init__(self, embed_dim: int, ffn_dim: int, dropout: float):
        super().__init__()
        # No ReLU in place here or behind other linear maps of [B, M, D]: their output is a view, and autograd copies
        # the whole of it to undo a change of a view. That was a sixth of a training step.
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(embed_dim, ffn_dim), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(ffn_dim, embed_dim),
            nn.Dropout(dropout),
        )
        for linear in (self.layers[0][0], self.layers[1]):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
