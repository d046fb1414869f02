"""PETR or PETRv2 as one network: images -> memory; memory and queries -> classes and boxes.

It remembers nothing: what PETRv2 needs of the frame before, the caller keeps and gives back.
"""

import dataclasses

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.models import position
from syncl_core.models.backbones.build import build_backbone
from syncl_core.models.heads import HeadOutput, Memory, PETRHead, Queries
from syncl_core.models.neck import CPFPN
from syncl_core.models.petrv2 import PETRv2Head
from syncl_core.tensors import Frame, PastFrame


class ImageNormalizer(nn.Module):
    """Pixels as the backbone was trained with; it has buffers, no parameters."""

    def __init__(self, config: SynclConfig):
        super().__init__()
        self.swap_channels = config.image.channel_order == "bgr"
        self.register_buffer("image_mean", torch.tensor(config.image.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(config.image.std).view(1, 3, 1, 1), persistent=False)

    def normalize_images(self, frame: Frame) -> torch.Tensor:
        """[B*N, 3, H, W] float32 in the backbone's channel order."""
        images = frame.images.flatten(0, 1)
        return ((images.flip(1) if self.swap_channels else images) - self.image_mean) / self.image_std


class ImageEncoder(ImageNormalizer):
    """Backbone and neck; the parameter names are those of the public PETR, PF-Track and StreamPETR checkpoints."""

    def __init__(self, config: SynclConfig):
        super().__init__(config)
        self.img_backbone = build_backbone(config.model.backbone)
        self.img_neck = CPFPN(self.img_backbone.out_channels, config.model.embed_dim)

    def image_features(self, frame: Frame) -> torch.Tensor:
        """Features [B*N, D, h, w] at stride 16."""
        images = self.normalize_images(frame)
        return self.img_neck(self.img_backbone(images.contiguous(memory_format=torch.channels_last)))


def usable_projections(frame: Frame) -> torch.Tensor:
    """`image_from_model` [B, N, 4, 4], the identity for a missing camera: its matrix may not even be invertible."""
    neutral = torch.eye(4, dtype=torch.float64, device=frame.image_from_model.device)
    return torch.where(frame.camera_valid[..., None, None], frame.image_from_model, neutral)


class Detector(ImageEncoder):
    """Parameter names are those of the public PF-Track checkpoints."""

    # Whose weights `encode` uses: see Tracker.ENCODER.
    ENCODER = (
        *("img_backbone", "img_neck", "pts_bbox_head.input_proj", "pts_bbox_head.position_encoder"),
        *("pts_bbox_head.adapt_pos3d", "pts_bbox_head.fpe"),
    )

    def __init__(self, config: SynclConfig):
        super().__init__(config)
        model, dim = config.model, config.model.embed_dim
        make_head = PETRv2Head if model.detector == "petrv2" else PETRHead
        self.pts_bbox_head = make_head(model, len(config.classes))
        self.reference_points = nn.Embedding(model.num_queries, 3)
        self.query_feat_embedding = nn.Embedding(model.num_queries, dim) if model.framework == "pf_track" else None
        self.query_embedding = nn.Sequential(nn.Linear(3 * dim // 2, dim), nn.ReLU(), nn.Linear(dim, dim))
        nn.init.uniform_(self.reference_points.weight)
        if self.query_feat_embedding is not None:
            nn.init.zeros_(self.query_feat_embedding.weight)

    def encode(self, frame: Frame, past: PastFrame | None = None) -> Memory:
        """Image tokens of a frame and where they look. PETRv2 adds those of the frame before, if there was one."""
        features, sizes = self.image_features(frame), frame.images.shape[-2:]
        if isinstance(self.pts_bbox_head, PETRv2Head):
            frame = dataclasses.replace(frame, image_from_model=usable_projections(frame))
            return self.pts_bbox_head.encode_two(features, frame, past)
        where = self.pts_bbox_head.embed_position(usable_projections(frame), features.shape[-2:], sizes)
        return self.pts_bbox_head.encode(features, where, frame.camera_valid)

    def object_queries(self, batch: int) -> Queries:
        """The learned queries that look for new objects, the same in every frame."""
        learned = self.query_feat_embedding
        content = None if learned is None else learned.weight.expand(batch, -1, -1)
        return self._queries_at(content, self.reference_points.weight.expand(batch, -1, -1))

    def probe(self, memory: Memory, reference: torch.Tensor) -> HeadOutput:
        """What the decoder makes of object queries at any places: see `tracking.base.Tracker.probe`."""
        learned = self.query_feat_embedding
        content = None if learned is None else learned.weight.mean(dim=0).expand(*reference.shape[:2], -1)
        return self.pts_bbox_head(memory, self._queries_at(content, reference), all_layers=True, alone=True)

    def _queries_at(self, content: torch.Tensor | None, reference: torch.Tensor) -> Queries:
        """Queries at `reference` [B, M, 3] with `content` [B, M, D], or with none."""
        embedded = self.embed_reference(reference)
        return Queries(
            content=torch.zeros_like(embedded) if content is None else content,
            reference=reference,
            position=embedded,
            valid=torch.ones(reference.shape[:2], dtype=torch.bool, device=reference.device),
        )

    def embed_reference(self, reference: torch.Tensor) -> torch.Tensor:
        """Position embedding [B, M, D] of points [B, M, 3], fractions of pc_range."""
        sines = position.point_sine(reference, self.query_embedding[0].in_features // 3)
        return position.embed(self.query_embedding, sines)

    def decode(self, memory: Memory, queries: Queries, all_layers: bool = False, parallel: bool = False) -> HeadOutput:
        return self.pts_bbox_head(memory, queries, all_layers, parallel)
