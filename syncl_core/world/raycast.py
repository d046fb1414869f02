"""Rays against upright boxes: the nearest hit of every ray, vectorised over rays, tiles and cameras (slab method).

Rays come in tiles of neighbouring rays; a tile is tested only against its candidates, the boxes whose bounds overlap
it. Tiles are sorted by their number of candidates, so that the k-th candidate of all tiles is one dense operation on a
prefix of them: no padding, no scatter, the same code on CPU and GPU.

Shape letters: V views (ray origins), M boxes per view, S = V * M boxes in all, T tiles, P rays per tile, K candidates.
Vectors are planes [3, ...], which keeps elementwise work contiguous. Coordinates are relative to the view's ray origin,
along the axes of the city frame, in metres, float32.
"""

from dataclasses import dataclass

import numpy as np
import torch

_HUGE = 1e12  # stands in for 1/0: a ray parallel to a slab


@dataclass(frozen=True, slots=True, kw_only=True)
class Solids:
    """Boxes as rays see them, for V ray origins."""

    cos: torch.Tensor  # [S] of yaw
    sin: torch.Tensor  # [S]
    half: torch.Tensor  # [3, S]
    offset: torch.Tensor  # [3, S] centre in the box's own axes


def solids(
    center: np.ndarray, yaw: np.ndarray, size: np.ndarray, origins: np.ndarray, device: torch.device | str = "cpu"
) -> Solids:
    """Boxes [V, M] (centres and sizes [V, M, 3]), seen from `origins` [V, 3] (city frame)."""
    # Relative positions first, then float32: centimetres survive however far the city is from its origin.
    place, yaw, half = (
        torch.from_numpy(value.reshape(-1, *value.shape[2:]).astype(np.float32)).to(device)
        for value in (center - origins[:, None], yaw, size / 2)
    )
    cos, sin = yaw.cos(), yaw.sin()
    return Solids(cos=cos, sin=sin, half=half.T.contiguous(), offset=to_box_axes(place.T, cos, sin))


def corners(boxes: Solids) -> torch.Tensor:
    """Corners [3, S, 8]; corner i lies at +half along axis a where bit a of i is set."""
    signs = torch.tensor([[(i >> a & 1) * 2.0 - 1 for i in range(8)] for a in range(3)], device=boxes.half.device)
    local = boxes.offset[..., None] + boxes.half[..., None] * signs[:, None]
    return to_box_axes(local, boxes.cos[:, None], -boxes.sin[:, None])


def to_box_axes(vectors: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Vectors [3, ...] along the axes of boxes turned by the angle with this cosine and sine [...]."""
    x, y, z = vectors
    return torch.stack([cos * x + sin * y, cos * y - sin * x, z.expand_as(cos * x)])


def candidate_lists(overlap: torch.Tensor, first_box: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidates [T, K] (indices into S, padded with 0) and their counts [T].

    overlap: [T, M] bool, tile x box of its view. first_box: [T] index of the view's first box in S.
    """
    tile, box = overlap.nonzero(as_tuple=True)
    counts = tile.bincount(minlength=len(overlap))
    rank = torch.arange(len(tile), device=tile.device) - (counts.cumsum(0) - counts)[tile]
    lists = torch.zeros(len(overlap), int(counts.max()) if len(tile) else 0, dtype=torch.int64, device=tile.device)
    lists[tile, rank] = box + first_box[tile]
    return lists, counts


def trace(
    boxes: Solids, directions: torch.Tensor, lists: torch.Tensor, counts: torch.Tensor, limit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance [T, P] to the nearest box (in multiples of the direction's length) and its index [T, P] in S.

    directions: [3, T, P]. lists, counts: see `candidate_lists`. limit: [T, P], hits beyond it do not count; where there
    is none the limit is returned with index -1. A box that contains the ray's origin is not hit.
    """
    order, remaining = _schedule(counts)
    nearest, owner = limit[order], torch.full_like(limit, -1, dtype=torch.int32)
    dx, dy, dz = directions[:, order]
    inverse_z = _inverse(dz)
    for k, n in enumerate(remaining):
        box = lists[order[:n], k]
        cos, sin, half, offset = _rows(boxes, box)
        inverse_x = _inverse(torch.addcmul(dy[:n] * sin, dx[:n], cos))
        inverse_y = _inverse(torch.addcmul(dy[:n] * cos, dx[:n], sin, value=-1))
        slabs = [
            _slab(inverse, inverse * middle, reach)
            for inverse, middle, reach in zip((inverse_x, inverse_y, inverse_z[:n]), offset, half, strict=True)
        ]
        near, far = _overlap(slabs)
        hit = (near < torch.minimum(far, nearest[:n])) & (near > 0)
        torch.where(hit, near, nearest[:n], out=nearest[:n])
        torch.where(hit, box[:, None].to(torch.int32), owner[:n], out=owner[:n])
    back = order.argsort()
    return nearest[back], owner[back]


def shadows(
    boxes: Solids, points: torch.Tensor, toward_sun: torch.Tensor, lists: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """True [T, P] where the way from points [3, T, P] to the sun (unit vector [3]) is blocked by a candidate."""
    order, remaining = _schedule(counts)
    x, y, z = points[:, order]
    dark = torch.zeros_like(x, dtype=torch.bool)
    # One direction per box, so its inverse is a number; only the origin varies from ray to ray.
    inverse = _inverse(to_box_axes(toward_sun[:, None], boxes.cos, boxes.sin))
    for k, n in enumerate(remaining):
        box = lists[order[:n], k]
        cos, sin, half, offset = _rows(boxes, box)
        origin = (torch.addcmul(y[:n] * sin, x[:n], cos), torch.addcmul(y[:n] * cos, x[:n], sin, value=-1), z[:n])
        slabs = [
            _slab(rate, (middle - start) * rate, reach)
            for rate, middle, start, reach in zip(inverse[:, box, None], offset, origin, half, strict=True)
        ]
        near, far = _overlap(slabs)
        dark[:n] |= (far > near) & (far > 0)
    return dark[order.argsort()]


def _schedule(counts: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Tiles by falling number of candidates, and how many of them have a k-th candidate, for all k."""
    falling, order = counts.sort(descending=True, stable=True)
    most = int(falling[0]) if len(falling) else 0
    return order, (falling[:, None] > torch.arange(most, device=counts.device)).sum(0).tolist()


def _rows(boxes: Solids, box: torch.Tensor):
    return boxes.cos[box, None], boxes.sin[box, None], boxes.half[:, box, None], boxes.offset[:, box, None]


def _slab(inverse: torch.Tensor, middle: torch.Tensor, half: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where rays enter and leave the space between two parallel faces, `middle` being halfway."""
    reach = inverse.abs() * half
    return middle - reach, middle + reach


def _overlap(slabs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where rays are inside all three slabs: the box, if it ends after it begins."""
    (near_x, far_x), (near_y, far_y), (near_z, far_z) = slabs
    near = torch.maximum(torch.maximum(near_x, near_y), near_z)
    return near, torch.minimum(torch.minimum(far_x, far_y), far_z)


def _inverse(value: torch.Tensor) -> torch.Tensor:
    return value.reciprocal().clamp_(-_HUGE, _HUGE)
