"""Which boxes, and which shadows, can appear in which view, and in which tile of it."""

import numpy as np
import torch

_NEAR = 0.05  # metres in front of the camera; nearer geometry is clipped away before projection
_EDGES = tuple((i, i | 1 << a) for a in range(3) for i in range(8) if not i >> a & 1)  # of `raycast.corners`


def in_sight(center: np.ndarray, radius: np.ndarray, cam_from_city: np.ndarray, views) -> np.ndarray:
    """Which balls [V, M] reach into the pyramids that `views` see; centres [V, M, 3], city frame, radii [V, M]."""
    x, y, z = np.moveaxis(center @ np.swapaxes(cam_from_city[:, :3, :3], 1, 2) + cam_from_city[:, None, :3, 3], -1, 0)
    focal_x, focal_y, u, v = (views.intrinsics[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    seen = z > -radius
    # Each side of the pyramid: the distance from its plane must exceed -radius.
    for focal, across, edge in ((focal_x, x, u), (-focal_x, x, views.width - u), (focal_y, y, v),
                                (-focal_y, y, views.height - v)):  # fmt: skip
        seen &= focal * across + edge * z > -radius * np.hypot(focal, edge)
    return seen


def pick(chosen: np.ndarray) -> np.ndarray:
    """Indices [V, K] of the True of each row of `chosen` [V, M], padded with -1."""
    row, column = np.nonzero(chosen)
    counts = chosen.sum(axis=1)
    index = np.full((len(chosen), int(counts.max(initial=0))), -1)
    index[row, np.arange(len(row)) - (np.cumsum(counts) - counts)[row]] = column
    return index


def image_bounds(points: torch.Tensor, pixel_from_view: torch.Tensor) -> torch.Tensor:
    """Bounding rectangles [4, V, M] (left, top, right, bottom; pixels) of projected boxes; empty: left > right.

    points: [3, V * M, 8] box corners, or their images under a linear map, relative to the camera.
    pixel_from_view: [V, 3, 3], (u * d, v * d, d) = pixel_from_view @ point. Edges that pass behind the camera are
    clipped, so the bounds are exact.
    """
    views = len(pixel_from_view)
    x, y, z = points.unflatten(1, (views, -1))
    first, second = (torch.tensor([edge[i] for edge in _EDGES], device=points.device) for i in range(2))
    u, v, depth = (a[:, None, None] * x + b[:, None, None] * y + c[:, None, None] * z
                   for a, b, c in pixel_from_view.permute(1, 2, 0))  # fmt: skip
    depth_a, depth_b = depth[..., first], depth[..., second]
    crossing = (depth_a < _NEAR) != (depth_b < _NEAR)
    share = torch.where(crossing, (_NEAR - depth_a) / (depth_b - depth_a), torch.zeros_like(depth_a))
    valid = torch.cat([depth >= _NEAR, crossing], dim=-1)
    inverse = 1 / torch.cat([depth, torch.full_like(depth_a, _NEAR)], dim=-1)
    bounds = []
    for value in (u, v):
        pixel = torch.cat([value, torch.lerp(value[..., first], value[..., second], share)], dim=-1) * inverse
        bounds.append(torch.where(valid, pixel, torch.full_like(pixel, torch.inf)).amin(-1))
        bounds.append(torch.where(valid, pixel, torch.full_like(pixel, -torch.inf)).amax(-1))
    left, right, top, bottom = bounds
    return torch.stack([left, top, right, bottom])


def tile_overlap(bounds: torch.Tensor, rows: int, columns: int, tile: int) -> torch.Tensor:
    """Overlap [V * rows * columns, M] of square tiles (`tile` pixels) with rectangles [4, V, M]."""
    left, top, right, bottom = bounds[:, :, None]
    x = torch.arange(columns, device=bounds.device)[:, None] * tile
    y = torch.arange(rows, device=bounds.device)[:, None] * tile
    in_column = (right > x) & (left < x + tile)  # [V, columns, M]
    in_row = (bottom > y) & (top < y + tile)
    return (in_row[:, :, None] & in_column[:, None]).flatten(0, 2)


def shadow_corners(points: torch.Tensor, toward_sun: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """Corners [3, S, 8] moved along the sun's rays (unit vector [3]) onto the ground, `ground` [S] above the origin."""
    drop = (points[2] - ground[:, None]) / toward_sun[2]
    return points - drop * toward_sun[:, None, None]
