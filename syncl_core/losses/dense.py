"""What every cell of the feature maps says about the object it shows: a loss that teaches the image backbone.

Object queries reach the backbone through a decoder that has to learn where to look first. A small convolutional head on
the maps themselves, after FCOS3D (Wang et al. 2021), has nothing of that to learn. It is no part of the tracker.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from syncl_core.config import SynclConfig
from syncl_core.losses.box_loss import weighted_l1
from syncl_core.losses.dense_targets import VIEW_SIZE, cell_centers, dense_targets
from syncl_core.losses.focal import sigmoid_focal_loss
from syncl_core.losses.padding import clean_targets
from syncl_core.models.box_code import CODE_SIZE
from syncl_core.models.votes import VOTE_SIZE, VOTE_UNITS
from syncl_core.tensors import Frame, Targets
from syncl_core.tracking.base import Seen

_PRIOR = 0.01  # initial class probability
_TYPICAL_LOG_DEPTH = 4.0  # of an object 20 m away, seen through the unit focal length of a small image
_VIEW_WEIGHTS = (0.5, 0.5, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # of the numbers in `dense_targets.VIEW_SIZE`
_OFFSET_UNIT = 2.0  # cells


class DenseHead(nn.Module):
    """Class, view from the camera (dense_targets.VIEW_SIZE) and vote (models/votes.py) of every cell, and their losses.

    A tracker with votes is taught its own.
    """

    def __init__(self, config: SynclConfig):
        super().__init__()
        dim, self.loss = config.model.embed_dim, config.syncl.loss
        self.shared = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.ReLU(inplace=True))
        self.classes = nn.Conv2d(dim, len(config.classes), 1)
        self.view = nn.Conv2d(dim, VIEW_SIZE, 1)
        self.vote = None if config.model.detr3d.votes else nn.Conv2d(dim, VOTE_SIZE, 1)
        nn.init.constant_(self.classes.bias, -math.log((1 - _PRIOR) / _PRIOR))
        self.register_buffer("view_weights", torch.tensor(_VIEW_WEIGHTS), persistent=False)
        self.register_buffer("vote_units", torch.tensor(VOTE_UNITS), persistent=False)
        self.register_buffer("code_weights", torch.tensor(config.syncl.loss.code_weights), persistent=False)

    def forward(self, memory: Seen, frame: Frame, targets: Targets) -> dict[str, torch.Tensor]:
        """Weighted scalars by name, the mean over the maps.

        Focal loss of all cells and L1 of those that show an object, both by the number of the latter; cross-entropy on
        whether a cell shows one, both kinds of cells alike.
        """
        targets = clean_targets(targets)
        maps = memory.feature_maps(frame)
        losses = [
            self._of_map(x, votes, frame, targets) for x, votes in zip(maps, self._votes(memory, maps), strict=True)
        ]
        return {name: torch.stack([of[name] for of in losses]).mean() for name in losses[0]}

    def _votes(self, memory: Seen, maps: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Votes [B, N, 11, h, w] of every map (models/votes.py): the network's own, or linear in the features."""
        if self.vote is None:
            return memory.votes
        units = self.vote_units.view(-1, 1, 1)
        return [self.vote(x.flatten(0, 1)).unflatten(0, x.shape[:2]).float() * units for x in maps]

    def _of_map(
        self, maps: torch.Tensor, votes: torch.Tensor, frame: Frame, targets: Targets
    ) -> dict[str, torch.Tensor]:
        """Of one map [B, N, D, h, w] and its votes [B, N, 11, h, w]."""
        shared = self.shared(maps.flatten(0, 1))
        logits, view = (
            x.unflatten(0, maps.shape[:2]).permute(0, 1, 3, 4, 2).float()
            for x in (self.classes(shared), self.view(shared))
        )
        size, image_size = tuple(maps.shape[-2:]), tuple(frame.images.shape[-2:])
        wanted = dense_targets(frame, targets, size)
        positive, owner = wanted.owner >= 0, wanted.owner.clamp(min=0)
        scene = torch.arange(len(owner), device=owner.device).view(-1, 1, 1, 1)
        camera = torch.arange(owner.shape[1], device=owner.device).view(-1, 1, 1)
        label = torch.arange(logits.shape[-1], device=owner.device)
        one_hot = (targets.label[scene, owner][..., None] == label) & positive[..., None]
        focal = sigmoid_focal_loss(logits, one_hot.float(), self.loss.focal_alpha, self.loss.focal_gamma)
        goal = _from_cells(wanted.view[scene, camera, owner], size, image_size)
        goal = torch.where(positive[..., None], goal, 0.0)
        error = ((view - goal).abs() * self.view_weights).sum(dim=-1)
        boxes, belief = votes.permute(0, 1, 3, 4, 2).split([CODE_SIZE, 1], dim=-1)
        of_box = weighted_l1(boxes, targets.box[scene, owner], positive, self.code_weights)
        looked = frame.camera_valid[..., None, None].expand_as(positive)
        doubt = functional.binary_cross_entropy_with_logits(belief[..., 0], positive.float(), reduction="none")
        number = positive.sum().clamp(min=1)
        return {
            "dense_class": self.loss.class_weight * torch.where(looked[..., None], focal, 0.0).sum() / number,
            "dense_view": torch.where(positive, error, 0.0).sum() / number,
            "dense_box": self.loss.box_weight * of_box.sum() / number,
            "dense_belief": _mean(doubt, positive) + _mean(doubt, looked & ~positive),
        }


def _mean(values: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    return torch.where(which, values, 0.0).sum() / which.sum().clamp(min=1)


def _from_cells(view: torch.Tensor, size: tuple[int, int], image_size: tuple[int, int]) -> torch.Tensor:
    """Views [B, N, h, w, 8] with the centre as seen from the cell, and numbers of a similar size."""
    right, down = cell_centers(size, image_size, view.device)
    unit = _OFFSET_UNIT * image_size[0] / size[0]
    centers = torch.stack(torch.broadcast_tensors(right[None, :], down[:, None]), dim=-1)
    offset = (view[..., :2] - centers) / unit
    return torch.cat([offset, view[..., 2:3] - _TYPICAL_LOG_DEPTH, view[..., 3:]], dim=-1)
