"""PETR as one network: images -> memory; memory and queries -> classes and boxes. Has no memory of earlier frames."""

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.errors import InputError
from syncl_core.models import position
from syncl_core.models.backbones.resnet import ResNet
from syncl_core.models.backbones.small import SmallBackbone
from syncl_core.models.backbones.vovnet import VoVNet99
from syncl_core.models.heads import HeadOutput, Memory, PETRHead, Queries
from syncl_core.models.neck import CPFPN
from syncl_core.tensors import Frame


class Detector(nn.Module):
    """Parameter names are those of the public PF-Track checkpoints."""

    def __init__(self, config: SynclConfig):
        super().__init__()
        model, dim = config.model, config.model.embed_dim
        self.img_backbone = _backbone(model.backbone)
        self.img_neck = CPFPN(self.img_backbone.out_channels, dim)
        self.pts_bbox_head = PETRHead(model, len(config.classes))
        self.reference_points = nn.Embedding(model.num_queries, 3)
        self.query_feat_embedding = nn.Embedding(model.num_queries, dim) if model.framework == "pf_track" else None
        self.query_embedding = nn.Sequential(nn.Linear(3 * dim // 2, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim))
        nn.init.uniform_(self.reference_points.weight)
        if self.query_feat_embedding is not None:
            nn.init.zeros_(self.query_feat_embedding.weight)
        self.swap_channels = config.image.channel_order == "bgr"
        self.register_buffer("image_mean", torch.tensor(config.image.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(config.image.std).view(1, 3, 1, 1), persistent=False)

    def encode(self, frame: Frame) -> Memory:
        """Image tokens of a frame and where they look."""
        images = frame.images.flatten(0, 1)
        images = ((images.flip(1) if self.swap_channels else images) - self.image_mean) / self.image_std
        features = self.img_neck(self.img_backbone(images.contiguous(memory_format=torch.channels_last)))
        # A missing camera's matrix means nothing and may not even be invertible.
        neutral = torch.eye(4, dtype=torch.float64, device=images.device)
        image_from_model = torch.where(frame.camera_valid[..., None, None], frame.image_from_model, neutral)
        where = self.pts_bbox_head.embed_position(image_from_model, features.shape[-2:], images.shape[-2:])
        return self.pts_bbox_head.encode(features, where, frame.camera_valid)

    def object_queries(self, batch: int) -> Queries:
        """The learned queries that look for new objects, the same in every frame."""
        reference = self.reference_points.weight.expand(batch, -1, -1)
        embedded, learned = self.embed_reference(reference), self.query_feat_embedding
        return Queries(
            content=torch.zeros_like(embedded) if learned is None else learned.weight.expand(batch, -1, -1),
            reference=reference,
            position=embedded,
            valid=torch.ones(reference.shape[:2], dtype=torch.bool, device=reference.device),
        )

    def embed_reference(self, reference: torch.Tensor) -> torch.Tensor:
        """Position embedding [B, M, D] of points [B, M, 3], fractions of pc_range."""
        return self.query_embedding(position.point_sine(reference, self.query_embedding[0].in_features // 3))

    def decode(self, memory: Memory, queries: Queries, all_layers: bool = False, parallel: bool = False) -> HeadOutput:
        return self.pts_bbox_head(memory, queries, all_layers, parallel)


def _backbone(name: str) -> nn.Module:
    match name:
        case "small":
            return SmallBackbone()
        case "v2_99":
            return VoVNet99()
        case "resnet50":
            return ResNet(50, style="pytorch")
        case "resnet101":
            return ResNet(101, style="pytorch")
        case "resnet50_caffe":
            return ResNet(50, style="caffe")
        case "resnet101_caffe":
            return ResNet(101, style="caffe")
    known = "small, v2_99, resnet50, resnet101, resnet50_caffe, resnet101_caffe"
    raise InputError(f"model.backbone: unknown backbone {name!r}; known: {known}")
