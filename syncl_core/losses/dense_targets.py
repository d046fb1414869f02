"""Which object every cell of a feature map shows, and how its camera sees it (after FCOS3D, Wang et al. 2021).

Everything is told in terms of the image, so it holds for mirrored images, too: their projections are mirrored.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from syncl_core.models.box_code import code_center, code_size, code_yaw
from syncl_core.models.lift import cell_pixels
from syncl_core.tensors import Frame, Targets

VIEW_SIZE = 8
"""Numbers of an object's view: centre right and down (pixels), log depth, log l, w, h, heading sin and cos."""

FOCAL_UNIT = 1000.0  # pixels; depth counts as if every camera had this focal length
_NEAREST = 0.5  # metres: an object with a corner nearer to the camera's plane is left out
_SHRINK = 0.7  # of the box around an object in the image, the share of width and height whose cells learn it


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTargets:
    """What the cells of one map should say."""

    owner: torch.Tensor  # [B, N, h, w] int64 row of the ground truth; -1 = no object
    view: torch.Tensor  # [B, N, G, 8] float32: see VIEW_SIZE
    image_size: tuple[int, int]  # height and width, pixels, of the image that the map covers


@torch.no_grad()
def dense_targets(frame: Frame, targets: Targets, size: tuple[int, int], image_size: tuple[int, int]) -> DenseTargets:
    """Targets for a map of `size` (rows, columns) that covers an image of `image_size` (height, width).

    A cell is looked at in its centre; where objects overlap, it shows the nearest. An object inside the image has one
    cell at least, unless a nearer one covers it.
    """
    points = torch.cat([code_center(targets.box)[:, :, None], _corners(targets.box)], dim=2)  # [B, G, 9, 3]
    matrix = frame.image_from_model
    seen = torch.einsum("bnij,bgkj->bngki", matrix[..., :3, :3], points.double()) + matrix[:, :, None, None, :3, 3]
    depth = seen[..., 2]
    pixels = (seen[..., :2] / depth.clamp(min=_NEAREST)[..., None]).float()  # [B, N, G, 9, 2]
    shown = (depth > _NEAREST).all(dim=-1) & targets.valid[:, None] & frame.camera_valid[..., None]
    inside = _cells_inside(pixels[..., 1:, :], size, image_size) & shown[..., None, None]
    distance = torch.where(inside, depth[..., 0].float()[..., None, None], torch.inf)
    nearest, owner = distance.min(dim=2)
    view = _views(targets.box, pixels[..., 0, :], depth[..., 0], matrix)
    return DenseTargets(owner=torch.where(nearest.isfinite(), owner, -1), view=view, image_size=image_size)


@torch.no_grad()
def middles(wanted: DenseTargets) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every object's cells the one nearest to its centre, and the cells of the same object next to that one.

    Both [B, N, h, w] bool.
    """
    size, centers = tuple(wanted.owner.shape[-2:]), wanted.view[..., :2]
    places = cell_pixels(size, wanted.image_size, centers.device).flatten(0, 1)  # [h*w, 2]
    owned = wanted.owner.flatten(2)[:, :, None] == torch.arange(centers.shape[2], device=centers.device)[:, None]
    away = (centers[..., None, :] - places).square().sum(dim=-1)  # [B, N, G, h*w]
    best = torch.where(owned, away, torch.inf).argmin(dim=-1, keepdim=True)
    one = torch.zeros_like(owned).scatter_(-1, best, True) & owned
    near = functional.max_pool2d(one.flatten(0, 2).unflatten(-1, size)[:, None].float(), 3, stride=1, padding=1) > 0
    near = near[:, 0].flatten(1).unflatten(0, owned.shape[:3]) & owned
    middle = one.any(dim=2)
    return middle.unflatten(-1, size), (near.any(dim=2) & ~middle).unflatten(-1, size)


def _corners(box: torch.Tensor) -> torch.Tensor:
    """Corners [B, G, 8, 3] of box codes [B, G, 10]."""
    half = torch.cartesian_prod(*[torch.arange(2.0, device=box.device) - 0.5] * 3)
    x, y, z = (half * code_size(box)[:, :, None]).unbind(-1)
    yaw = code_yaw(box)[..., None]
    turned = torch.stack([yaw.cos() * x - yaw.sin() * y, yaw.sin() * x + yaw.cos() * y, z], dim=-1)
    return turned + code_center(box)[:, :, None]


def _cells_inside(corners: torch.Tensor, size: tuple[int, int], image_size: tuple[int, int]) -> torch.Tensor:
    """[B, N, G, h, w]: cells with their centre in the middle part of the box around corners [B, N, G, 8, 2]."""
    low, high = corners.amin(dim=-2), corners.amax(dim=-2)
    middle, (across, along) = (low + high) / 2, ((high - low) / 2 * _SHRINK).unbind(dim=-1)
    width, height = image_size[1] / size[1], image_size[0] / size[0]  # of a cell
    half = torch.stack([across.clamp(min=width / 2), along.clamp(min=height / 2)], dim=-1)
    pixels = cell_pixels(size, image_size, corners.device)
    across = (pixels[0, :, 0] - middle[..., :1]).abs() <= half[..., :1]
    along = (pixels[:, 0, 1] - middle[..., 1:]).abs() <= half[..., 1:]
    return along[..., :, None] & across[..., None, :]


def _views(box: torch.Tensor, center: torch.Tensor, depth: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """[B, N, G, 8] of box codes [B, G, 10], their centres [B, N, G, 2] in the images and depths [B, N, G]."""
    forward = functional.normalize(matrix[..., 2, :3], dim=-1)
    right = matrix[..., 0, :3]
    right = right - (right * forward).sum(-1, keepdim=True) * forward  # as long as the focal length
    focal = right.norm(dim=-1, keepdim=True) / matrix[..., 2, :3].norm(dim=-1, keepdim=True)
    right = functional.normalize(right, dim=-1)
    axes = torch.stack([right, forward], dim=-2)[..., :2].float()  # [B, N, 2, 2] how far along them x and y lead
    yaw = code_yaw(box)
    heading = torch.einsum("bnij,bgj->bngi", axes, torch.stack([yaw.cos(), yaw.sin()], dim=-1))
    log_depth = (depth.clamp(min=_NEAREST) / focal * FOCAL_UNIT).log().float()
    size = code_size(box).log()[:, None].expand(-1, matrix.shape[1], -1, -1)
    return torch.cat([center, log_depth[..., None], size, heading], dim=-1)
