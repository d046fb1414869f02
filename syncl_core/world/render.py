"""Pictures of the world: rays through pixels, nearest boxes, sunlight and shadows. No motion blur, no lens errors.

Shape letters as in `raycast`: V views, M boxes, K of them in sight of a view, S = V * K, T tiles (of all views, or the
ones at hand), P = 256 pixels of a tile, n some of the pixels; H, W image size. Vectors and colours are planes [3, ...].
"""

from dataclasses import dataclass

import numpy as np
import torch

from syncl_core import geometry
from syncl_core.world import culling, raycast, shading
from syncl_core.world.raycast import Solids
from syncl_core.world.scene import SCENERY, Boxes, Light
from syncl_core.world.shading import FAR, TILE

_CPU_CHUNK = 1200  # tiles drawn at a time on the CPU: few calls, and still in its cache; a GPU takes all at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """V pinhole cameras of one image size. View i sees the boxes of time i."""

    city_from_cam: np.ndarray  # [V, 4, 4] float64
    intrinsics: np.ndarray  # [V, 3, 3] pixels; pixel i covers [i, i + 1)
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    rgb: torch.Tensor  # [V, H, W, 3] uint8
    owner: torch.Tensor  # [V, H, W] int32 index of the actor seen, or SCENERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The pixels of all views in square tiles, the boxes around them, and which may meet."""

    solids: Solids
    box: torch.Tensor  # [S] int64 index in M of each of the solids; 0 for those that only pad, which no tile overlaps
    origin: torch.Tensor  # [3, V] camera positions, city frame
    view_from_pixel: torch.Tensor  # [3, 3, V]: directions are view_from_pixel @ (u, v, 1)
    pixel_from_view: torch.Tensor  # [V, 3, 3]
    view: torch.Tensor  # [T] int64
    corner: torch.Tensor  # [2, T] u and v where the tile begins
    overlap: torch.Tensor  # [T, K] bool, tile x solid of its view
    grid: tuple[int, int]  # tile rows and columns of a view
    focal: torch.Tensor  # [V] pixels


def scan(boxes: Boxes, views: Views, device: torch.device | str = "cpu") -> Scan:
    """The pixels of `views` and the boxes they may show."""
    origin, city_from_cam = views.city_from_cam[:, :3, 3], views.city_from_cam[:, :3, :3]
    radius = np.linalg.norm(boxes.size, axis=1) / 2
    seen = culling.in_sight(boxes.center, radius[None], geometry.inverse(views.city_from_cam), views)
    solids, box = _solids(boxes, culling.pick(seen), views, device)
    pixel_from_view = views.intrinsics @ np.swapaxes(city_from_cam, 1, 2)
    view_from_pixel = torch.from_numpy(np.linalg.inv(pixel_from_view)).to(device, torch.float32)
    pixel_from_view = torch.from_numpy(pixel_from_view).to(device, torch.float32)
    rows, columns = -(-views.height // TILE), -(-views.width // TILE)
    bounds = culling.image_bounds(raycast.corners(solids), pixel_from_view)
    view, row, column = torch.cartesian_prod(*(torch.arange(n, device=device) for n in (len(origin), rows, columns))).T
    return Scan(
        solids=solids,
        box=box,
        origin=torch.from_numpy(origin.T.copy()).to(device, torch.float32),
        view_from_pixel=view_from_pixel.permute(1, 2, 0),
        pixel_from_view=pixel_from_view,
        view=view,
        corner=torch.stack([column, row]) * TILE,
        overlap=culling.tile_overlap(bounds, rows, columns, TILE),
        grid=(rows, columns),
        focal=torch.from_numpy(views.intrinsics[:, 0, 0]).to(device, torch.float32),
    )


def _solids(boxes: Boxes, index: np.ndarray, views: Views, device) -> tuple[Solids, torch.Tensor]:
    """The boxes `index` [V, K] of the views, and the index again [S]; where it is -1, a box behind the camera."""
    view, some = np.arange(len(index))[:, None], np.maximum(index, 0)
    behind = views.city_from_cam[:, None, :3, 3] - 1e3 * views.city_from_cam[:, None, :3, 2]
    center = np.where(index[..., None] < 0, behind, boxes.center[view, some])
    solids = raycast.solids(center, boxes.yaw[view, some], boxes.size[some], views.city_from_cam[:, :3, 3], device)
    return solids, torch.from_numpy(some.ravel()).to(device)


def directions(pixels: Scan, tiles: torch.Tensor) -> torch.Tensor:
    """Rays [3, T, P] through the pixel centres of tiles [T]; distances along them are depths along the optical axis."""
    step = torch.arange(TILE, device=tiles.device) + 0.5
    u = pixels.corner[0, tiles, None] + step.repeat(TILE)
    v = pixels.corner[1, tiles, None] + step.repeat_interleave(TILE)
    a, b, c = pixels.view_from_pixel[:, :, pixels.view[tiles], None].transpose(0, 1)
    return torch.addcmul(torch.addcmul(c, b, v), a, u)


def render(boxes: Boxes, light: Light, views: Views, device: torch.device | str = "cpu") -> Pictures:
    """Draw the boxes of times [V] into views [V], with ground, shadows, haze and sky."""
    pixels = scan(boxes, views, device)
    lists, counts = raycast.candidate_lists(pixels.overlap, pixels.view * (len(pixels.box) // len(views.intrinsics)))
    throwers, shadow_lists, shadow_counts = _shadow_lists(boxes, light, views, pixels)
    shape = (len(counts), TILE * TILE)
    rgb = torch.empty(3, *shape, dtype=torch.uint8, device=device)
    owner = torch.empty(shape, dtype=torch.int32, device=device)
    paint = shading.mix_paint(boxes, light, pixels)
    owner_of_box = torch.from_numpy(boxes.owner).to(device, torch.int32)[pixels.box]
    for tiles in counts.argsort().split(_CPU_CHUNK if owner.device.type == "cpu" else len(counts)):
        rays = directions(pixels, tiles)
        ground = _ground_depth(pixels, rays, tiles)
        distance, index = raycast.trace(pixels.solids, rays, lists[tiles], counts[tiles], ground)
        on_ground = (index < 0) & (distance < FAR)
        dark = raycast.shadows(
            throwers,
            rays * distance,
            torch.tensor(light.toward_sun, device=device),
            shadow_lists[tiles],
            shadow_counts[tiles] * on_ground.any(dim=1),
        )
        width = distance / pixels.focal[pixels.view[tiles], None]
        met = (rays.flatten(1), distance.flatten(), width.flatten(), index.flatten())
        colors = shading.colors(light, paint, pixels, tiles, *met, dark)
        rgb[:, tiles] = (colors * 255 + 0.5).clamp(0, 255).to(torch.uint8).view_as(rays)
        owner[tiles] = torch.where(
            index >= 0, shading.take(owner_of_box, index.flatten().clamp(min=0)).view_as(index), SCENERY
        )
    return Pictures(
        rgb=torch.stack([_untile(plane, pixels, views) for plane in rgb], dim=-1),
        owner=_untile(owner, pixels, views),
    )


def _ground_depth(pixels: Scan, rays: torch.Tensor, tiles: torch.Tensor) -> torch.Tensor:
    """Depth [T, P] at which rays reach the ground, at most FAR."""
    height, falling = pixels.origin[2, pixels.view[tiles], None], -rays[2]
    return torch.where(falling > height / FAR, height / falling, FAR)


def _shadow_lists(boxes: Boxes, light: Light, views: Views, pixels: Scan) -> tuple[Solids, torch.Tensor, torch.Tensor]:
    """What throws shadows on the ground in sight, and for each tile which of it and how many, see `candidate_lists`."""
    toward_sun, device = np.array(light.toward_sun), pixels.box.device
    # From the box to the end of its shadow, all in one ball.
    half_way = (boxes.center[..., 2] + boxes.size[:, 2] / 2)[..., None] / toward_sun[2] * toward_sun / 2
    radius = np.linalg.norm(boxes.size, axis=1) / 2 + np.linalg.norm(half_way, axis=-1)
    chosen = culling.in_sight(boxes.center - half_way, radius, geometry.inverse(views.city_from_cam), views)
    chosen &= boxes.shadow & any(light.sun)
    solids, _ = _solids(boxes, culling.pick(chosen), views, device)
    per_view = len(solids.cos) // len(views.intrinsics)
    ground = -pixels.origin[2].repeat_interleave(per_view)
    sun = torch.tensor(light.toward_sun, device=device)
    corners = culling.shadow_corners(raycast.corners(solids), sun, ground)
    overlap = culling.tile_overlap(culling.image_bounds(corners, pixels.pixel_from_view), *pixels.grid, TILE)
    return solids, *raycast.candidate_lists(overlap, pixels.view * per_view)


def _untile(values: torch.Tensor, pixels: Scan, views: Views) -> torch.Tensor:
    """Images [V, H, W] of tiled values [T, P]."""
    rows, columns = pixels.grid
    image = values.view(-1, rows, columns, TILE, TILE).transpose(2, 3).reshape(-1, rows * TILE, columns * TILE)
    return image[:, : views.height, : views.width]
