"""The StreamPETR head (Wang et al. 2023): PETR whose queries and self-attention remember earlier frames.

Three things differ from PETR: image tokens and their positions know the cameras' focal lengths; queries pass a layer
norm that knows their motion; and queries also attend to memory entries that are no queries (hybrid attention). The
memory itself is the caller's (`stream_memory`). Parameter names are those of the public checkpoints.
"""

from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.config import ModelConfig
from syncl_core.models import position
from syncl_core.models.box_code import CODE_SIZE, denormalize, normalize
from syncl_core.models.decoder import Context, Decoder
from syncl_core.models.heads import (
    HeadOutput,
    Memory,
    Queries,
    class_branch,
    decode_queries,
    token_valid,
    track_class_branches,
)
from syncl_core.models.motion_norm import FeatureGate, MotionNorm
from syncl_core.models.stream_memory import Entries

MOTION_OCTAVES = 6
MOTION_CODE = 15 * 2 * MOTION_OCTAVES  # velocity, time and pose are 15 numbers
SECOND_DEPTH = 30  # a token's ray is told by its farthest point and the one that comes 30th from the end
FOCAL_UNIT = 1000.0  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlaces:
    """Where P image tokens look; depends on the calibration only."""

    position: torch.Tensor  # [B, P, D] embedded rays
    ray: torch.Tensor  # [B, P, 6] two points of the ray, fractions of position_range
    focal: torch.Tensor  # [B, N, 2] focal lengths, pixels


class StreamPETRHead(nn.Module):
    def __init__(self, config: ModelConfig, num_classes: int):
        super().__init__()
        dim = config.embed_dim
        decoder = Decoder(config.num_layers, dim, config.num_heads, config.ffn_dim, config.dropout)
        self.transformer = nn.ModuleDict({"decoder": decoder})
        # One head for all layers; the public checkpoints list it once per layer.
        self.cls_branches = nn.ModuleList([class_branch(dim, num_classes, config.class_prior)] * config.num_layers)
        self.reg_branches = nn.ModuleList([_mlp(dim, dim, dim, CODE_SIZE)] * config.num_layers)
        self.num_queries = config.num_queries
        self.track_cls_branches = track_class_branches(self.cls_branches, config)
        self.position_encoder = _mlp(3 * config.depth_bins, 4 * dim, dim)
        self.memory_embed = _mlp(dim, dim, dim)
        self.featurized_pe = FeatureGate(dim)
        self.spatial_alignment = MotionNorm(8, dim)
        self.reference_points = nn.Embedding(config.num_queries, 3)
        self.pseudo_reference_points = nn.Embedding(config.stream.propagated, 3)
        self.query_embedding = _mlp(3 * dim // 2, dim, dim)
        self.time_embedding = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.ego_pose_pe = MotionNorm(MOTION_CODE, dim)
        self.ego_pose_memory = MotionNorm(MOTION_CODE, dim)
        nn.init.uniform_(self.reference_points.weight)
        nn.init.uniform_(self.pseudo_reference_points.weight)
        self.pseudo_reference_points.requires_grad_(False)
        depths = position.lid_depths(config.depth_bins, config.depth_start, config.position_range[3])
        self.register_buffer("depths", depths, persistent=False)
        self.register_buffer("position_range", torch.tensor(config.position_range).view(2, 3), persistent=False)
        self.register_buffer("pc_range", torch.tensor(config.pc_range).view(2, 3), persistent=False)

    def embed_position(
        self,
        image_from_model: torch.Tensor,  # [B, N, 4, 4] float64
        feature_size: tuple[int, int],
        image_size: tuple[int, int],
    ) -> TokenPlaces:
        """It changes only with its arguments, so a caller may keep it."""
        points = position.ray_points(image_from_model, feature_size, image_size, self.depths, offset=0.5)
        encoded = position.ray_encoding(points, self.position_range).flatten(1, 3)
        two_points = torch.stack([points[..., -1, :], points[..., -SECOND_DEPTH, :]], dim=-2)
        fractions = normalize(two_points, self.position_range)
        return TokenPlaces(
            position=position.embed(self.position_encoder, encoded),
            ray=fractions.flatten(-2).flatten(1, 3),
            focal=position.focal_lengths(image_from_model).float(),
        )

    def encode(self, features: torch.Tensor, places: TokenPlaces, camera_valid: torch.Tensor) -> Memory:
        """Features [B*N, D, h, w], where they look, and camera_valid [B, N] -> Memory."""
        batch, cameras = camera_valid.shape
        tokens = self.memory_embed(features.flatten(2).transpose(1, 2)).reshape(batch, -1, features.shape[1])
        valid = token_valid(camera_valid, tokens.shape[1])
        per_camera = tokens.shape[1] // cameras
        # As released: row i of the focal lengths goes to token i, although the cameras take turns there (i mod N), not
        # in the tokens. The weights are trained with it.
        focal = _fill_missing(places.focal, camera_valid).repeat(1, per_camera, 1) / FOCAL_UNIT
        tokens = self.spatial_alignment(tokens, torch.cat([focal, places.ray], dim=-1))
        return Memory(
            tokens=tokens,
            position=self.featurized_pe(places.position, tokens),
            valid=valid,
        )

    def object_queries(self, batch: int) -> Queries:
        """The learned queries that look for new objects, the same in every frame: at rest, here and now."""
        return self.queries_at(self.reference_points.weight.expand(batch, -1, -1))

    def queries_at(self, reference: torch.Tensor) -> Queries:
        """Queries like the learned ones at other places [B, M, 3], fractions of pc_range."""
        at_rest = torch.zeros_like(reference[..., :1]).expand(-1, -1, 15).clone()
        at_rest[..., 3::5] = 1.0  # the identity's diagonal
        content = torch.zeros(*reference.shape[:2], self.query_embedding[-1].out_features, device=reference.device)
        return self._queries(content, reference, at_rest, torch.zeros_like(reference[..., 0], dtype=torch.float64))

    def entry_queries(self, entries: Entries) -> Queries:
        """Memory entries as queries that start from what they were; all valid."""
        reference = normalize(entries.center, self.pc_range)
        return self._queries(entries.feature, reference, entries.motion(), entries.seconds())

    def context(self, entries: Entries) -> Context:
        """Memory entries as rows that queries may attend to."""
        queries = self.entry_queries(entries)
        return queries.content, queries.position

    def pseudo_centers(self) -> torch.Tensor:
        """[propagated, 3] metres: where the first entries of an empty queue stand."""
        return denormalize(self.pseudo_reference_points.weight, self.pc_range)

    def forward(
        self,
        memory: Memory,
        queries: Queries,
        context: Context | None = None,
        all_layers: bool = False,
        parallel: bool = False,
        alone: bool = False,
    ) -> HeadOutput:
        """Decode the queries. `all_layers` adds the outputs of the earlier layers, which only losses need.

        `parallel` decodes every query a second time without self-attention, and so without `context`: SynCL's
        C-decoder, rows M to 2M. `alone`: object queries, any number of them, that do not see each other.
        """
        return decode_queries(self, memory, queries, all_layers, parallel, context, alone)

    def classify(self, branches: nn.ModuleList, features: torch.Tensor) -> torch.Tensor:
        """Logits [L, ..., C] of the last L layers' features [L, ..., D]."""
        return branches[0](features)

    def regress(self, features: torch.Tensor) -> torch.Tensor:
        """Raw box codes [L, B, M, 10] of the last L layers' features [L, B, M, D]."""
        return self.reg_branches[0](features)

    def _queries(
        self,
        content: torch.Tensor,  # [B, M, D]
        reference: torch.Tensor,  # [B, M, 3] fractions of pc_range
        motion: torch.Tensor,  # [B, M, 15]
        seconds: torch.Tensor,  # [B, M] float64
    ) -> Queries:
        """Content and position pass the motion-aware norms; the position also gets the time (sec. 3.3)."""
        code = position.octave_sine(motion, MOTION_OCTAVES)
        axis = self.query_embedding[0].in_features // 3
        embedded = position.embed(self.query_embedding, position.point_sine(reference, axis))
        angle = 2 * torch.pi * seconds
        time = position.embed(self.time_embedding, position.sine_interleaved(angle, content.shape[-1]).float())
        return Queries(
            content=self.ego_pose_memory(content, code),
            reference=reference,
            position=position.embed(self.ego_pose_pe, embedded, code) + time,
            valid=torch.ones(reference.shape[:2], dtype=torch.bool, device=reference.device),
        )


def _fill_missing(focal: torch.Tensor, camera_valid: torch.Tensor) -> torch.Tensor:
    """Focal lengths [B, N, 2] with the mean of the others for a missing camera, whose calibration means nothing."""
    present = camera_valid[..., None].to(focal.dtype)
    mean = torch.where(present > 0, focal, 0.0).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(present > 0, focal, mean)


def _mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
