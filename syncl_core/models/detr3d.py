"""DETR3D as one network: images -> pyramid; pyramid and queries -> classes and boxes. Remembers no earlier frame."""

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.models.backbones.build import build_backbone
from syncl_core.models.detector import ImageNormalizer, usable_projections
from syncl_core.models.detr3d_head import DETR3DHead
from syncl_core.models.detr3d_sampling import Pyramid
from syncl_core.models.fpn import FPN
from syncl_core.models.heads import HeadOutput
from syncl_core.models.proposals import Proposer
from syncl_core.models.queries import SizedQueries
from syncl_core.models.tower import Tower
from syncl_core.models.votes import Voter
from syncl_core.tensors import Frame

_BACKBONE_MAPS = 3  # at strides 8, 16 and 32


class DETR3D(ImageNormalizer):
    """Parameter names are those of the public MUTR3D checkpoints.

    What they do not have: with `model.detr3d.votes` cells guess boxes (models/votes.py), with `model.detr3d.tower`
    there are further convolutions (models/tower.py).
    """

    # Whose weights `encode` uses: see Tracker.ENCODER.
    ENCODER = ("img_backbone", "img_neck", "tower", "voter", "pts_bbox_head.level_embeds", "pts_bbox_head.cam_embeds")

    def __init__(self, config: SynclConfig):
        super().__init__(config)
        model, dim = config.model, config.model.embed_dim
        self.pad_multiple = model.detr3d.pad_multiple
        self.img_backbone = build_backbone(model.backbone, _BACKBONE_MAPS)
        self.img_neck = FPN(self.img_backbone.out_channels, dim, model.detr3d.num_levels)
        self.tower = Tower(dim, model.detr3d.tower) if model.detr3d.tower else None
        self.pts_bbox_head = DETR3DHead(model, len(config.classes), len(config.rig.cameras))
        self.voter = Voter(dim, model.detr3d.ground) if model.detr3d.votes else None
        self.proposer = None
        if model.detr3d.proposals:
            self.proposer = Proposer(dim, model.num_queries, self.pts_bbox_head.pc_range.clone())
        else:
            self.reference_points = nn.Linear(dim, 3)
            self.bbox_size_fc = nn.Linear(dim, 3)
            self.query_embedding = nn.Embedding(model.num_queries, 2 * dim)  # position, then content

    def encode(self, frame: Frame) -> Pyramid:
        """Feature maps of a frame with their positions added, and its cameras."""
        images = pad_images(self.normalize_images(frame), self.pad_multiple)
        maps = self.img_neck(self.img_backbone(images.contiguous(memory_format=torch.channels_last)))
        if self.tower is not None:
            maps = (self.tower(maps[0]), *maps[1:])
        maps, sights, votes = [x.unflatten(0, frame.camera_valid.shape) for x in maps], (), ()
        if self.voter is not None:
            matrix, size = usable_projections(frame), tuple(images.shape[-2:])
            maps, sights, votes = zip(*(self.voter(x, matrix, size) for x in maps), strict=True)
        levels = tuple(x + self.pts_bbox_head.embed_position(i, x.shape[-2:]) for i, x in enumerate(maps))
        return Pyramid(
            levels=levels,
            sights=sights,
            votes=votes,
            image_from_model=frame.image_from_model,
            camera_valid=frame.camera_valid,
            image_size=tuple(images.shape[-2:]),
        )

    def object_queries(self, memory: Pyramid) -> SizedQueries:
        """The queries that look for new objects: learned ones, the same in every frame, or what the cells propose."""
        if self.proposer is not None:
            return self.proposer(memory.levels[0], memory.sights[0], memory.votes[0], memory.camera_valid)
        rows = torch.arange(self.query_embedding.num_embeddings, device=self.query_embedding.weight.device)
        query = self.query_embedding(rows).expand(memory.camera_valid.shape[0], -1, -1)
        return self._queries_at(query, _exact(self.reference_points, query.chunk(2, dim=-1)[0]).sigmoid())

    def probe(self, pyramid: Pyramid, reference: torch.Tensor) -> HeadOutput:
        """What the decoder makes of object queries at any places: see `tracking.base.Tracker.probe`."""
        if self.proposer is not None:
            queries = self.proposer.unseen(reference)
        else:
            query = self.query_embedding.weight.mean(dim=0).expand(*reference.shape[:2], -1)
            queries = self._queries_at(query, reference)
        return self.pts_bbox_head(pyramid, queries, all_layers=True, alone=True)

    def _queries_at(self, query: torch.Tensor, reference: torch.Tensor) -> SizedQueries:
        """Position and content [B, M, 2 D], starting at `reference` [B, M, 3]."""
        position, content = query.chunk(2, dim=-1)
        return SizedQueries(
            content=content,
            position=position,
            reference=reference,
            log_size=_exact(self.bbox_size_fc, position),
            valid=torch.ones(query.shape[:2], dtype=torch.bool, device=query.device),
        )

    def decode(
        self, memory: Pyramid, queries: SizedQueries, all_layers: bool = False, parallel: bool = False
    ) -> HeadOutput:
        return self.pts_bbox_head(memory, queries, all_layers, parallel)


def _exact(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """A layer's float32 result also under autocast, which leaves float64 alone: rounded, a place is 0.1 m off."""
    return nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double()).float()


def pad_images(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Normalised images [B, C, H, W] with zeros at the right and the bottom, up to multiples of `multiple`."""
    height, width = images.shape[-2:]
    return nn.functional.pad(images, (0, -width % multiple, 0, -height % multiple))
