"""What the sensors can tell of each actor: visible share in the images and lidar returns. Shape letter A: actors."""

import math

import numpy as np
import torch

from syncl_core.world import raycast, render, rig
from syncl_core.world.render import TILE, Pictures, Views
from syncl_core.world.scene import Boxes

LIDAR_RANGE = 80.0  # metres
_COLUMNS, _BEAMS = 12, 8  # lidar columns and beams of a tile


def visible_share(boxes: Boxes, views: Views, pictures: Pictures, actors: int) -> np.ndarray:
    """Visible pixels over pixels if drawn alone, both summed over the views, [A]; 0 for an actor outside all images."""
    seen = torch.bincount(pictures.owner[pictures.owner >= 0].flatten(), minlength=actors)
    alone = _pixels_alone(boxes, views, actors, pictures.owner.device)
    return (seen / alone.clamp(min=1)).cpu().numpy()


def _pixels_alone(boxes: Boxes, views: Views, actors: int, device: torch.device) -> torch.Tensor:
    """Pixels [A] that each actor would cover with nothing in front of it: every actor traced in tiles of its own."""
    pixels = render.scan(boxes, views, device)
    per_view = len(pixels.box) // len(views.intrinsics)
    owner = torch.from_numpy(boxes.owner).to(device)[pixels.box].view(-1, per_view)
    hit_tile, hit_box = pixels.overlap.nonzero(as_tuple=True)
    hit_owner = owner[pixels.view[hit_tile], hit_box]
    # One tile for every actor that may show in a tile of the picture.
    pair = torch.unique((hit_tile * actors + hit_owner)[hit_owner >= 0])
    tile, actor = pair // actors, pair % actors
    member = owner[pixels.view[tile]] == actor[:, None]
    lists, counts = raycast.candidate_lists(pixels.overlap[tile] & member, pixels.view[tile] * per_view)
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
    near = np.linalg.norm(boxes.center[0] - city_from_lidar[:3, 3], axis=1) - np.linalg.norm(boxes.size, axis=1)
    near = np.flatnonzero(near < LIDAR_RANGE)
    solids = raycast.solids(
        boxes.center[:, near], boxes.yaw[:, near], boxes.size[None, near], city_from_lidar[None, :3, 3]
    )
    city_from_base = city_from_lidar[:3, :3] @ rig.base_from_lidar()[:3, :3].T
    directions = torch.from_numpy(rig.lidar_directions() @ city_from_base.T).float()  # [columns, beams, 3]
    columns, beams = directions.shape[0] // _COLUMNS, directions.shape[1] // _BEAMS
    tiles = directions.view(columns, _COLUMNS, beams, _BEAMS, 3).permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)
    lists, counts = raycast.candidate_lists(_sector_overlap(solids, tiles), torch.zeros(columns * beams).long())
    ground = torch.where(tiles[2] < 0, -city_from_lidar[2, 3] / tiles[2], torch.inf)
    _, index = raycast.trace(solids, tiles, lists, counts, ground.clamp(max=LIDAR_RANGE))
    owner = torch.from_numpy(boxes.owner[near])[index[index >= 0].long()]
    return torch.bincount(owner[owner >= 0], minlength=actors).numpy()


def _sector_overlap(solids: raycast.Solids, directions: torch.Tensor) -> torch.Tensor:
    """Overlap [T, M] of the sectors of lidar tiles, directions [3, T, P], with boxes."""
    x, y, z = raycast.to_box_axes(solids.offset, solids.cos, -solids.sin)
    distance, radius = torch.hypot(x, y), torch.hypot(solids.half[0], solids.half[1])
    azimuth = torch.atan2(y, x)
    # Half the angle that the box's circle fills; all around if the lidar is inside.
    spread = torch.where(radius < distance, torch.asin((radius / distance).clamp(max=1)), math.pi)
    sector = torch.atan2(directions[1], directions[0])
    middle = sector[:, :1] + _wrap(sector - sector[:, :1]).mean(dim=1, keepdim=True)
    width = _wrap(sector - middle).abs().amax(dim=1, keepdim=True)
    beside = _wrap(middle - azimuth).abs() <= width + spread + 1e-3
    # Slopes of the beams against those under which a box can appear from its nearest and farthest places.
    slope = directions[2] / torch.hypot(directions[0], directions[1])
    near, far = ((distance + sign * radius).clamp(min=1e-3) for sign in (-1, 1))
    low, high = z - solids.half[2], z + solids.half[2]
    lowest, highest = low / torch.where(low < 0, near, far), high / torch.where(high > 0, near, far)
    return beside & (slope.amax(dim=1)[:, None] >= lowest - 1e-4) & (slope.amin(dim=1)[:, None] <= highest + 1e-4)


def _wrap(angle: torch.Tensor) -> torch.Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
