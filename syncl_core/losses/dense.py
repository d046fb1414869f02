"""What every cell of the feature maps says about the object it shows: a loss that teaches the image backbone.

Object queries reach the backbone through a decoder that has to learn where to look first. A small convolutional head on
the maps themselves, after FCOS3D (Wang et al. 2021), has nothing of that to learn. It is no part of the tracker.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from syncl_core.config import SynclConfig
from syncl_core.losses import dense_targets
from syncl_core.losses.class_balance import object_weights
from syncl_core.losses.dense_targets import DenseTargets
from syncl_core.losses.focal import sigmoid_focal_loss
from syncl_core.losses.padding import clean_targets
from syncl_core.models import lift
from syncl_core.models.votes import BELIEF, MIDDLE
from syncl_core.tensors import Frame, Targets
from syncl_core.tracking.base import Seen

_PRIOR = 0.01  # initial class probability
_TYPICAL_LOG_DEPTH = 4.0  # of an object 20 m away, seen through the unit focal length of a small image
_VIEW_WEIGHTS = (0.5, 0.5, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # of the numbers in `dense_targets.VIEW_SIZE`
_SIGHT_WEIGHTS = (1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5)  # of the numbers in `lift.VIEW_SIZE`
_DEPTH_WEIGHT = 10.0  # of the log depth that a sight comes to: of a box's place it is the least certain part
_OFFSET_UNIT = 2.0  # cells


class DenseHead(nn.Module):
    """Class and view from the camera of every cell, and their losses. A tracker with votes is taught its own views.

    The others have a view that is read here: `dense_targets.VIEW_SIZE`.
    """

    def __init__(self, config: SynclConfig):
        super().__init__()
        dim, self.loss, self.ground = config.model.embed_dim, config.syncl.loss, config.model.detr3d.ground
        self.shared = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.ReLU(inplace=True))
        self.classes = nn.Conv2d(dim, len(config.classes), 1)
        self.view = None if config.model.detr3d.votes else nn.Conv2d(dim, dense_targets.VIEW_SIZE, 1)
        nn.init.constant_(self.classes.bias, -math.log((1 - _PRIOR) / _PRIOR))
        self.register_buffer("view_weights", torch.tensor(_VIEW_WEIGHTS), persistent=False)
        self.register_buffer("sight_weights", torch.tensor(_SIGHT_WEIGHTS), persistent=False)

    def forward(self, memory: Seen, frame: Frame, targets: Targets) -> dict[str, torch.Tensor]:
        """Weighted scalars by name, the mean over the maps.

        Focal loss of all cells, that of the background by the number of those that show an object, and L1 of the
        latter. Means over cells that show objects are such that an object that n cells of an image show counts as
        sqrt(n), or the nearest would count for nearly all; L1 without votes, after FCOS3D, counts every cell alike.
        With votes also the focal loss of being a middle, by the number of middles (cells beside one count for
        nothing), and the cross-entropy of showing an object, both kinds of cells alike. In all but that L1 and this
        cross-entropy the cells of an object count by its class, too, with `class_balance` (losses/class_balance.py).
        """
        targets = clean_targets(targets)
        importance, losses = object_weights(targets, self.loss.class_balance), []
        for i, maps in enumerate(memory.feature_maps(frame)):
            wanted = dense_targets.dense_targets(frame, targets, tuple(maps.shape[-2:]), memory.covered(frame))
            shared = self.shared(maps.flatten(0, 1))
            weight = _weight(wanted, importance)
            logits = _by_cell(self.classes(shared), maps)
            of_map = {"dense_class": self._of_classes(logits, wanted, weight, frame, targets)}
            if self.view is not None:
                of_map["dense_view"] = self._of_view(_by_cell(self.view(shared), maps), wanted)
            else:
                of_map |= self._of_sights(memory.sights[i], wanted, weight, frame, targets)
            losses.append(of_map)
        return {name: torch.stack([of[name] for of in losses]).mean() for name in losses[0]}

    def _of_classes(
        self, logits: torch.Tensor, wanted: DenseTargets, weight: torch.Tensor, frame: Frame, targets: Targets
    ) -> torch.Tensor:
        """Of one map's logits [B, N, h, w, C]; `weight` is that of the cells, [B, N, h, w]."""
        positive, owner, scene, _ = _owners(wanted)
        label = torch.arange(logits.shape[-1], device=owner.device)
        one_hot = (targets.label[scene, owner][..., None] == label) & positive[..., None]
        focal = sigmoid_focal_loss(logits, one_hot.float(), self.loss.focal_alpha, self.loss.focal_gamma).sum(dim=-1)
        looked, share = frame.camera_valid[..., None, None], _share(positive, wanted) * weight
        of_objects = (focal * share).sum() / share.sum().clamp(min=1)
        of_background = torch.where(looked & ~positive, focal, 0.0).sum() / positive.sum().clamp(min=1)
        return self.loss.class_weight * (of_objects + of_background)

    def _of_view(self, view: torch.Tensor, wanted: DenseTargets) -> torch.Tensor:
        """Of one map's views [B, N, h, w, 8]."""
        positive, owner, scene, camera = _owners(wanted)
        goal = _from_cells(wanted.view[scene, camera, owner], wanted.image_size)
        error = ((view - torch.where(positive[..., None], goal, 0.0)).abs() * self.view_weights).sum(dim=-1)
        return torch.where(positive, error, 0.0).sum() / positive.sum().clamp(min=1)

    def _of_sights(
        self, sights: torch.Tensor, wanted: DenseTargets, weight: torch.Tensor, frame: Frame, targets: Targets
    ) -> dict[str, torch.Tensor]:
        """Of one map's sights [B, N, h, w, 12]; `weight` is that of the cells, [B, N, h, w]."""
        positive, owner, scene, _ = _owners(wanted)
        looked = frame.camera_valid[..., None, None].expand_as(positive)
        where = (frame.image_from_model, wanted.image_size, self.ground)
        goal = torch.where(positive[..., None], lift.view_of(targets.box[scene, owner], *where), 0.0)
        views = sights[..., : lift.VIEW_SIZE]
        too_far = lift.log_depth(views, *where) - lift.log_depth(goal, *where)
        error = ((views - goal).abs() * self.sight_weights).sum(dim=-1) + _DEPTH_WEIGHT * too_far.abs()
        share = _share(positive, wanted) * weight
        middle, beside = dense_targets.middles(wanted)
        of_middle = sigmoid_focal_loss(
            sights[..., MIDDLE], middle.float(), self.loss.focal_alpha, self.loss.focal_gamma
        )
        doubt = functional.binary_cross_entropy_with_logits(sights[..., BELIEF], positive.float(), reduction="none")
        return {
            "dense_sight": torch.where(positive, error * share, 0.0).sum() / share.sum().clamp(min=1),
            "dense_middle": torch.where(looked & ~beside, of_middle * weight, 0.0).sum() / middle.sum().clamp(min=1),
            "dense_belief": _mean(doubt, positive) + _mean(doubt, looked & ~positive),
        }


def _owners(wanted: DenseTargets) -> tuple[torch.Tensor, ...]:
    """Whether a cell shows an object and which, [B, N, h, w]; and scene and camera numbers to look it up with."""
    positive, owner = wanted.owner >= 0, wanted.owner.clamp(min=0)
    scene = torch.arange(len(owner), device=owner.device).view(-1, 1, 1, 1)
    return positive, owner, scene, torch.arange(owner.shape[1], device=owner.device).view(-1, 1, 1)


def _weight(wanted: DenseTargets, importance: torch.Tensor) -> torch.Tensor:
    """Of the object that a cell shows, [B, N, h, w], from that of every object [B, G]; 1 where it shows none."""
    positive, owner, scene, _ = _owners(wanted)
    return torch.where(positive, importance[scene, owner], 1.0)


def _share(positive: torch.Tensor, wanted: DenseTargets) -> torch.Tensor:
    """What the cells that show an object count for, [B, N, h, w]: 1 / sqrt(n) where n cells of the image show it."""
    return positive / _cells_per_object(wanted).sqrt()


def _cells_per_object(wanted: DenseTargets) -> torch.Tensor:
    """How many cells of its image show the object that a cell shows, [B, N, h, w] float32; 1 where it shows none."""
    owner = wanted.owner.flatten(2) + 1
    counts = torch.zeros((*owner.shape[:2], wanted.view.shape[2] + 1), device=owner.device)
    counts = counts.scatter_add(2, owner, torch.ones_like(owner, dtype=counts.dtype))
    return torch.where(owner > 0, counts.gather(2, owner), 1.0).view_as(wanted.owner)


def _by_cell(values: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """[B*N, C, h, w] -> [B, N, h, w, C] float32."""
    return values.unflatten(0, maps.shape[:2]).permute(0, 1, 3, 4, 2).float()


def _mean(values: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    return torch.where(which, values, 0.0).sum() / which.sum().clamp(min=1)


def _from_cells(view: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Views [B, N, h, w, 8] with the centre as seen from the cell, and numbers of a similar size."""
    size = tuple(view.shape[2:4])
    unit = _OFFSET_UNIT * image_size[0] / size[0]
    offset = (view[..., :2] - lift.cell_pixels(size, image_size, view.device)) / unit
    return torch.cat([offset, view[..., 2:3] - _TYPICAL_LOG_DEPTH, view[..., 3:]], dim=-1)
