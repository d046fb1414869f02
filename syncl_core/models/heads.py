"""The PETR head: image features become a located memory, queries look at it and turn into classes and boxes."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.config import ModelConfig
from syncl_core.models import position
from syncl_core.models.box_code import CODE_SIZE, denormalize, resolve_center, with_center
from syncl_core.models.decoder import Decoder
from syncl_core.tensors import Frame

TOKEN_STRIDE = 16  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the queries look at: P = N * h * w image tokens, camera-major, then row, then column."""

    tokens: torch.Tensor  # [B, P, D]
    position: torch.Tensor  # [B, P, D] PETR: from the calibration alone; PETRv2, StreamPETR: also from the tokens
    valid: torch.Tensor  # [B, P] bool

    def covered(self, frame: Frame) -> tuple[int, int]:
        """Height and width of the image that the map covers, pixels."""
        return tuple(frame.images.shape[-2:])

    def feature_maps(self, frame: Frame) -> tuple[torch.Tensor, ...]:
        """The one map [B, N, D, h, w] of this frame, whose features know where they look."""
        cameras = frame.camera_valid.shape[1]
        height, width = (-(-pixels // TOKEN_STRIDE) for pixels in frame.images.shape[-2:])
        located = (self.tokens + self.position)[:, : cameras * height * width]  # PETRv2 has an earlier frame behind it
        return (located.unflatten(1, (cameras, height, width)).permute(0, 1, 4, 2, 3),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """What looks at the memory: M rows, object queries first, then track slots."""

    content: torch.Tensor  # [B, M, D]
    reference: torch.Tensor  # [B, M, 3] fractions of pc_range
    position: torch.Tensor  # [B, M, D] embedded reference
    valid: torch.Tensor  # [B, M] bool; False = free slot, invisible to the others


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOutput:
    """One row per query. L is the number of layers asked for; the last is the final one."""

    logits: torch.Tensor  # [L, B, M, C]
    box: torch.Tensor  # [L, B, M, 10] box code
    features: torch.Tensor  # [L, B, M, D]
    reference: torch.Tensor  # [B, M, 3] centre of the last layer's box, fractions of pc_range
    raw: torch.Tensor | None = None  # [L, B, M, D] features before the decoder's last norm, if it has one

    def rows(self, start: int, end: int) -> "HeadOutput":
        """The output of the queries from `start` to before `end`."""
        return HeadOutput(
            logits=self.logits[:, :, start:end],
            box=self.box[:, :, start:end],
            features=self.features[:, :, start:end],
            reference=self.reference[:, start:end],
            raw=None if self.raw is None else self.raw[:, :, start:end],
        )


class PETRHead(nn.Module):
    def __init__(self, config: ModelConfig, num_classes: int):
        super().__init__()
        dim = config.embed_dim
        decoder = Decoder(config.num_layers, dim, config.num_heads, config.ffn_dim, config.dropout)
        self.input_proj = nn.Conv2d(dim, dim, 1)
        self.position_encoder = _conv_mlp(3 * config.depth_bins, 4 * dim, dim)
        self.adapt_pos3d = _conv_mlp(3 * dim // 2, 4 * dim, dim)
        self.transformer = nn.ModuleDict({"decoder": decoder})
        # One head for all layers; the public checkpoints list it once per layer.
        self.cls_branches = nn.ModuleList([class_branch(dim, num_classes, config.class_prior)] * config.num_layers)
        self.reg_branches = nn.ModuleList([_box_branch(dim)] * config.num_layers)
        self.num_queries = config.num_queries
        self.track_cls_branches = track_class_branches(self.cls_branches, config)
        depths = position.lid_depths(config.depth_bins, config.depth_start, config.position_range[3])
        self.register_buffer("depths", depths, persistent=False)
        self.register_buffer("position_range", torch.tensor(config.position_range).view(2, 3), persistent=False)
        self.register_buffer("pc_range", torch.tensor(config.pc_range).view(2, 3), persistent=False)

    def encode(self, features: torch.Tensor, memory_position: torch.Tensor, camera_valid: torch.Tensor) -> Memory:
        """Features [B*N, D, h, w], their positions [B, P, D] and camera_valid [B, N] -> Memory."""
        tokens = self.project_tokens(features, camera_valid.shape[0])
        return Memory(tokens=tokens, position=memory_position, valid=token_valid(camera_valid, tokens.shape[1]))

    def project_tokens(self, features: torch.Tensor, batch: int) -> torch.Tensor:
        """Features [B*N, D, h, w] -> tokens [B, P, D]."""
        return self.input_proj(features).flatten(2).transpose(1, 2).reshape(batch, -1, features.shape[1])

    def embed_position(
        self,
        image_from_model: torch.Tensor,  # [B, N, 4, 4] float64
        feature_size: tuple[int, int],
        image_size: tuple[int, int],
        gate: torch.Tensor | None = None,  # [B, N, D, h, w] factors of what the rays say (PETRv2)
    ) -> torch.Tensor:
        """Position embedding [B, P, D] of the tokens. It changes only with its arguments, so a caller may keep it."""
        batch, cameras = image_from_model.shape[:2]
        points = position.ray_points(image_from_model, feature_size, image_size, self.depths)
        rays = position.ray_encoding(points, self.position_range).flatten(0, 1).permute(0, 3, 1, 2)
        num_features = self.adapt_pos3d[0].in_channels // 3
        sines = position.token_sine(cameras, *feature_size, num_features, rays.device).permute(0, 3, 1, 2)
        where = position.embed(self.position_encoder, rays).unflatten(0, (batch, cameras))
        embedding = (where if gate is None else where * gate) + position.embed(self.adapt_pos3d, sines)
        return embedding.flatten(3).transpose(2, 3).flatten(1, 2)

    def forward(
        self, memory: Memory, queries: Queries, all_layers: bool = False, parallel: bool = False, alone: bool = False
    ) -> HeadOutput:
        """Decode the queries. `all_layers` adds the outputs of the earlier layers, which only losses need.

        `parallel` decodes every query a second time without self-attention, SynCL's C-decoder: rows M to 2M. `alone`:
        object queries, any number of them, that do not see each other.
        """
        return decode_queries(self, memory, queries, all_layers, parallel, alone=alone)

    def classify(self, branches: nn.ModuleList, features: torch.Tensor) -> torch.Tensor:
        """Logits [L, ..., C] of the last L layers' features [L, ..., D]."""
        return branches[0](features)

    def regress(self, features: torch.Tensor) -> torch.Tensor:
        """Raw box codes [L, B, M, 10] of the last L layers' features [L, B, M, D]."""
        return self.reg_branches[0](features)


def decode_queries(
    head: nn.Module,
    memory: Memory,
    queries: Queries,
    all_layers: bool,
    parallel: bool,
    context: tuple[torch.Tensor, torch.Tensor] | None = None,  # further rows for self-attention: content and position
    alone: bool = False,  # object queries that do not see each other
) -> HeadOutput:
    """The way of PETR's heads from M queries to classes and boxes; twice as many rows with `parallel`."""
    decoder = head.transformer["decoder"]
    content, where, reference = queries.content, queries.position, queries.reference
    if parallel:
        content, where, reference = (torch.cat([x, x], dim=1) for x in (content, where, reference))
    num_rows = queries.content.shape[1]
    raw = decoder.run_layers(
        content,
        where,
        decoder.project(memory.tokens, memory.position),
        queries.valid,
        memory.valid,
        all_layers=all_layers,
        num_parallel=num_rows if parallel or alone else 0,
        context=context,
    )
    features = decoder.post_norm(raw)
    logits = head.classify(head.cls_branches, features) if alone else classify_rows(head, features, num_rows)
    center, code = resolve_center(head.regress(features), reference)
    return HeadOutput(
        logits=logits.float(),
        box=with_center(code, denormalize(center, head.pc_range)),
        features=features,
        reference=center[-1],
        raw=raw,
    )


def classify_rows(head: nn.Module, features: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Logits [..., M, C] of features [..., M, D] by the class branches of a head.

    With `model.track_class_head` track rows have branches of their own (OneTrack). There are `num_rows` rows, the first
    `head.num_queries` of them object queries; where M is twice as many, they come twice.
    """
    if head.track_cls_branches is None:
        return head.classify(head.cls_branches, features)
    rows = features.unflatten(-2, (-1, num_rows))
    objects = head.classify(head.cls_branches, rows[..., : head.num_queries, :])
    tracks = head.classify(head.track_cls_branches, rows[..., head.num_queries :, :])
    return torch.cat([objects, tracks], dim=-2).flatten(-3, -2)


def track_class_branches(branches: nn.ModuleList, config: ModelConfig) -> nn.ModuleList | None:
    """Branches for track rows that begin as those of object rows do; None without `model.track_class_head`."""
    return copy.deepcopy(branches) if config.track_class_head else None


def token_valid(camera_valid: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[B, P]: the tokens of cameras [B, N] that are there. Attention needs something to look at: without any, all."""
    visible = camera_valid | ~camera_valid.any(dim=1, keepdim=True)
    return visible.repeat_interleave(num_tokens // camera_valid.shape[1], dim=1)


def class_branch(dim: int, num_classes: int, prior: float) -> nn.Sequential:
    """Logits whose sigmoids all start near `prior` (focal loss, Lin et al. 2017, sec. 4.1)."""
    branch = normed_branch(dim, num_classes)
    nn.init.constant_(branch[-1].bias, -math.log((1 - prior) / prior))
    return branch


def normed_branch(dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU()),
        *(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU()),
        nn.Linear(dim, out_dim),
    )


def _box_branch(dim: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(dim, dim), nn.ReLU()),
        *(nn.Linear(dim, dim), nn.ReLU()),
        nn.Linear(dim, CODE_SIZE),
    )


def _conv_mlp(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_dim, hidden_dim, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden_dim, out_dim, 1))
