"""What the sensors can tell of each actor: visible share in the images and lidar returns. Shape letter A: actors."""

import math

import numpy as np
import torch

from syncl_core.world import raycast, render, rig
from syncl_core.world.render import TILE, Pictures, Views
from syncl_core.world.scene import Boxes

LIDAR_RANGE = 80.0  # metres
_COLUMNS = 8  # lidar columns of a tile


def visible_share(boxes: Boxes, views: Views, pictures: Pictures, actors: int) -> np.ndarray:
    """Visible pixels over pixels if drawn alone, both summed over the views, [A]; 0 for an actor outside all images."""
    seen = torch.bincount(pictures.owner[pictures.owner >= 0].flatten(), minlength=actors)
    alone = _pixels_alone(boxes, views, actors, pictures.owner.device)
    return (seen / alone.clamp(min=1)).cpu().numpy()


def _pixels_alone(boxes: Boxes, views: Views, actors: int, device: torch.device) -> torch.Tensor:
    """Pixels [A] that each actor would cover with nothing in front of it: every actor traced in tiles of its own."""
    pixels = render.scan(boxes, views, device)
    owner = torch.from_numpy(boxes.owner).to(device)
    member = owner == torch.arange(actors, device=device)[:, None]  # [A, M]
    tile, actor = ((pixels.overlap.float() @ member.float().T) > 0).nonzero(as_tuple=True)
    per_view = boxes.yaw.shape[1]
    lists, counts = raycast.candidate_lists(pixels.overlap[tile] & member[actor], pixels.view[tile] * per_view)
    rays = render.directions(pixels, tile)
    _, index = raycast.trace(pixels.solids, rays, lists, counts, torch.full_like(rays[0], torch.inf))
    covered = ((index >= 0) & _in_image(pixels, views)[tile]).sum(dim=1)
    return torch.zeros(actors, dtype=torch.int64, device=device).index_add_(0, actor, covered)


def _in_image(pixels: render.Scan, views: Views) -> torch.Tensor:
    """False [T, P] for the pixels that only complete the last row and column of tiles."""
    step = torch.arange(TILE, device=pixels.view.device)
    u = pixels.corner[0, :, None] + step.repeat(TILE)
    v = pixels.corner[1, :, None] + step.repeat_interleave(TILE)
    return (u < views.width) & (v < views.height)


def lidar_points(boxes: Boxes, city_from_lidar: np.ndarray, actors: int) -> np.ndarray:
    """Lidar returns [A] from each actor in one turn, taken as instantaneous. boxes: of one time, T = 1."""
    solids = raycast.solids(boxes, city_from_lidar[None, :3, 3])
    city_from_base = city_from_lidar[:3, :3] @ rig.base_from_lidar()[:3, :3].T
    directions = torch.from_numpy(rig.lidar_directions() @ city_from_base.T).float()  # [columns, beams, 3]
    directions = directions.reshape(-1, _COLUMNS * len(rig.LIDAR_BEAMS), 3).permute(2, 0, 1).contiguous()
    lists, counts = raycast.candidate_lists(
        _sector_overlap(solids, directions), torch.zeros(directions.shape[1]).long()
    )
    ground = torch.where(directions[2] < 0, -city_from_lidar[2, 3] / directions[2], torch.inf)
    _, index = raycast.trace(solids, directions, lists, counts, ground.clamp(max=LIDAR_RANGE))
    owner = torch.from_numpy(boxes.owner)[index[index >= 0].long()]
    return torch.bincount(owner[owner >= 0], minlength=actors).numpy()


def _sector_overlap(solids: raycast.Solids, directions: torch.Tensor) -> torch.Tensor:
    """Overlap [T, M] of the azimuth sectors of lidar tiles with boxes in range."""
    x, y, _ = corners = raycast.corners(solids)
    center = raycast.to_box_axes(solids.offset, solids.cos, -solids.sin)
    azimuth = torch.atan2(center[1], center[0])
    spread = _wrap(torch.atan2(y, x) - azimuth[:, None]).abs().amax(dim=1)
    tile = directions[:, :, :: len(rig.LIDAR_BEAMS)]
    first, last = (torch.atan2(tile[1, :, i], tile[0, :, i]) for i in (0, -1))
    middle, width = first + _wrap(last - first) / 2, _wrap(last - first).abs() / 2
    near = (corners.square().sum(dim=0).amin(dim=1) - solids.half.square().sum(dim=0) * 4) < LIDAR_RANGE**2
    return (_wrap(middle[:, None] - azimuth).abs() <= width[:, None] + spread + 1e-3) & near


def _wrap(angle: torch.Tensor) -> torch.Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
