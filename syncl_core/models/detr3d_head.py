"""The DETR3D head as MUTR3D has it: every layer has heads of its own and refines the reference point and the size.

Layer: self-attention, norm, feature sampling, norm, feed-forward, norm. Its heads are read before the next one looks.
"""

import math

import torch
from torch import nn

from syncl_core.config import ModelConfig
from syncl_core.models.attention import MultiHeadAttention
from syncl_core.models.box_code import (
    code_center,
    code_log_size,
    denormalize,
    inverse_sigmoid,
    join_code,
    normalize,
)
from syncl_core.models.decoder import FeedForward
from syncl_core.models.detr3d_sampling import FeatureSampling, Pyramid
from syncl_core.models.heads import HeadOutput, class_branch, classify_rows, track_class_branches
from syncl_core.models.position import sine_interleaved
from syncl_core.models.queries import SizedQueries
from syncl_core.models.votes import Verdict


class DETR3DHead(nn.Module):
    """Parameter names are those of the public MUTR3D checkpoints."""

    def __init__(self, config: ModelConfig, num_classes: int, num_cameras: int):
        super().__init__()
        dim, layers, levels = config.embed_dim, config.num_layers, config.detr3d.num_levels
        self.transformer = nn.ModuleDict(
            {"decoder": nn.ModuleDict({"layers": nn.ModuleList(Layer(config, num_cameras) for _ in range(layers))})}
        )
        self.cls_branches = nn.ModuleList(class_branch(dim, num_classes, config.class_prior) for _ in range(layers))
        self.num_queries = config.num_queries
        self.track_cls_branches = track_class_branches(self.cls_branches, config)
        self.reg_branches = nn.ModuleList(_branch(dim, 6) for _ in range(layers))
        self.direction_branches = nn.ModuleList(_branch(dim, 2) for _ in range(layers))
        self.velo_branches = nn.ModuleList(_branch(dim, 2) for _ in range(layers))
        self.level_embeds = nn.Parameter(torch.randn(levels, dim))
        self.cam_embeds = nn.Parameter(torch.randn(num_cameras, dim))
        self.register_buffer("pc_range", torch.tensor(config.pc_range).view(2, 3), persistent=False)

    def embed_position(self, level: int, feature_size: tuple[int, int]) -> torch.Tensor:
        """What is added to a map, [N, D, h, w]: which camera and level it is, and sines of row and column."""
        sines = sine_grid(*feature_size, self.level_embeds.shape[1] // 2, self.level_embeds.device)
        return sines.permute(2, 0, 1) + (self.level_embeds[level] + self.cam_embeds)[..., None, None]

    def forward(
        self,
        pyramid: Pyramid,
        queries: SizedQueries,
        all_layers: bool = False,
        parallel: bool = False,
        alone: bool = False,
    ) -> HeadOutput:
        """Decode the queries. `all_layers` adds the outputs of the earlier layers, which only losses need.

        `parallel` decodes every query a second time without self-attention, SynCL's C-decoder: rows M to 2M, which
        refine reference points of their own. `alone`: object queries, any number of them, that do not see each other.
        """
        num_rows = queries.content.shape[1]
        rows = queries.twice() if parallel else queries
        x, reference, log_size = rows.content, rows.reference, rows.log_size
        outputs = []
        for i, layer in enumerate(self.transformer["decoder"]["layers"]):
            x, verdict = layer(
                x, rows.position, reference, pyramid, queries.valid, num_rows if parallel or alone else 0
            )
            raw, rest = self.reg_branches[i](x).float(), 0.0
            if verdict is not None:
                reference, log_size, rest = self._follow(verdict, reference, log_size)
            center, log_size = _refine(raw, reference, log_size)
            if all_layers or i == len(self.reg_branches) - 1:
                outputs.append((self._box(i, x, center, log_size, rest), x))
            # As released: each layer learns from its own loss, except that the second one's size reaches the first.
            reference, log_size = center.detach(), log_size if i == 0 else log_size.detach()
        box, features = (torch.stack(values) for values in zip(*outputs, strict=True))
        logits = self.classify(self.cls_branches, features) if alone else classify_rows(self, features, num_rows)
        return HeadOutput(logits=logits.float(), box=box, features=features, reference=center)

    def classify(self, branches: nn.ModuleList, features: torch.Tensor) -> torch.Tensor:
        """Logits [L, ..., C] of the last L layers' features [L, ..., D]."""
        last = list(branches)[-features.shape[0] :]
        return torch.stack([branch(x) for branch, x in zip(last, features, strict=True)])

    def _follow(self, verdict: Verdict, reference: torch.Tensor, log_size: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Reference points and log sizes after the votes, and their sin, cos, vx, vy [B, M, 4]."""
        place = verdict.stay * denormalize(reference, self.pc_range) + code_center(verdict.code)
        log_size = verdict.stay * log_size + code_log_size(verdict.code)
        return normalize(place, self.pc_range), log_size, verdict.code[..., 6:]

    def _box(
        self, layer: int, x: torch.Tensor, center: torch.Tensor, log_size: torch.Tensor, rest: torch.Tensor | float
    ) -> torch.Tensor:
        """Box codes; what the votes say of direction and velocity is in `rest` [B, M, 4], the layer adds to it."""
        both = torch.cat([self.direction_branches[layer](x), self.velo_branches[layer](x)], dim=-1).float() + rest
        return join_code(denormalize(center, self.pc_range), log_size, both[..., :2], both[..., 2:])


def sine_grid(rows: int, cols: int, num_features: int, device: torch.device) -> torch.Tensor:
    """[rows, cols, 2 * num_features]: the cell's centre as fractions of a period, down and then right."""
    down, right = (
        sine_interleaved((torch.arange(n, device=device) + 0.5) / (n + 1e-6) * (2 * math.pi), num_features)
        for n in (rows, cols)
    )
    return torch.cat([down[:, None].expand(-1, cols, -1), right.expand(rows, -1, -1)], dim=-1)


def _refine(raw: torch.Tensor, reference: torch.Tensor, log_size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre (fractions) and log size [..., 3] from a layer's raw output [..., 6]: cx, cy, log w, log l, cz, log h."""
    step = torch.cat([raw[..., 0:2], raw[..., 4:5]], dim=-1)
    growth = torch.cat([raw[..., 2:4], raw[..., 5:6]], dim=-1)
    return torch.sigmoid(step + inverse_sigmoid(reference)), log_size + growth


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, num_cameras: int):
        super().__init__()
        dim, levels = config.embed_dim, config.detr3d.num_levels
        attention = MultiHeadAttention(dim, config.num_heads, config.dropout)
        sampling = FeatureSampling(num_cameras, levels, config)
        # The lists and dictionaries reproduce the names of the public checkpoints: attentions.0.attn.*.
        self.attentions = nn.ModuleList([nn.ModuleDict({"attn": attention}), sampling])
        self.ffns = nn.ModuleList([FeedForward(dim, config.ffn_dim, config.dropout)])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: torch.Tensor,  # [B, M, D]
        position: torch.Tensor,  # [B, M, D]
        reference: torch.Tensor,  # [B, M, 3] fractions of pc_range
        pyramid: Pyramid,
        valid: torch.Tensor,  # [B, M - num_parallel] bool
        num_parallel: int,  # rows at the end that skip self-attention and that nobody attends to
    ) -> tuple[torch.Tensor, Verdict | None]:
        """[B, M, D], and what the votes say, if there are any."""
        attention, serial = self.attentions[0]["attn"], x.shape[1] - num_parallel
        x, parallel = x[:, :serial], x[:, serial:]
        if serial:
            located = x + position[:, :serial]
            x = self.norms[0](x + self.dropout(attention(located, attention.project(located, x), valid)))
        x, verdict = self.attentions[1](torch.cat([x, parallel], dim=1), position, reference, pyramid)
        x = self.norms[1](x)
        return self.norms[2](x + self.ffns[0](x)), verdict


def _branch(dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(dim, dim), nn.ReLU()),
        *(nn.Linear(dim, dim), nn.ReLU()),
        nn.Linear(dim, out_dim),
    )
