"""Pictures of the world: rays through pixels, nearest boxes, sunlight and shadows. No motion blur, no lens errors.

Shape letters as in `raycast`: V views, M boxes, S = V * M, T tiles (of all views, or the ones at hand), P = 256 pixels
of a tile, n some of the pixels; H, W image size. Vectors and colours are planes [3, ...].
"""

from dataclasses import dataclass

import numpy as np
import torch

from syncl_core.world import culling, raycast, surfaces
from syncl_core.world.raycast import Solids
from syncl_core.world.scene import SCENERY, Boxes, Light

TILE = 16  # pixels
_CPU_CHUNK = 512  # tiles drawn at a time on the CPU, as many as its cache holds; a GPU takes all at once
_FAR = 1e4  # metres; rays that hit nothing end there


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
    depth: torch.Tensor  # [V, H, W] metres along the optical axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The pixels of all views in square tiles, the boxes around them, and which may meet."""

    solids: Solids
    origin: torch.Tensor  # [3, V] camera positions, city frame
    view_from_pixel: torch.Tensor  # [3, 3, V]: directions are view_from_pixel @ (u, v, 1)
    pixel_from_view: torch.Tensor  # [V, 3, 3]
    view: torch.Tensor  # [T] int64
    corner: torch.Tensor  # [2, T] u and v where the tile begins
    overlap: torch.Tensor  # [T, M] bool, tile x box of its view
    grid: tuple[int, int]  # tile rows and columns of a view
    focal: float  # pixels, mean of the views


@dataclass(frozen=True, slots=True, kw_only=True)
class _Paint:
    """What decides the colour of a box."""

    color: torch.Tensor  # [3, S]
    windows: torch.Tensor  # [S] bool
    light: torch.Tensor  # [3, S * 6] on its faces, numbered as in `_face`


def scan(boxes: Boxes, views: Views, device: torch.device | str = "cpu") -> Scan:
    """The pixels of `views` and the boxes they may show."""
    origin = views.city_from_cam[:, :3, 3]
    solids = raycast.solids(boxes, origin, device)
    pixel_from_view = views.intrinsics @ np.swapaxes(views.city_from_cam[:, :3, :3], 1, 2)
    view_from_pixel = torch.from_numpy(np.linalg.inv(pixel_from_view)).to(device, torch.float32)
    pixel_from_view = torch.from_numpy(pixel_from_view).to(device, torch.float32)
    rows, columns = -(-views.height // TILE), -(-views.width // TILE)
    bounds = culling.image_bounds(raycast.corners(solids), pixel_from_view)
    view, row, column = torch.cartesian_prod(*(torch.arange(n, device=device) for n in (len(origin), rows, columns))).T
    return Scan(
        solids=solids,
        origin=torch.from_numpy(origin.T.copy()).to(device, torch.float32),
        view_from_pixel=view_from_pixel.permute(1, 2, 0),
        pixel_from_view=pixel_from_view,
        view=view,
        corner=torch.stack([column, row]) * TILE,
        overlap=culling.tile_overlap(bounds, rows, columns, TILE),
        grid=(rows, columns),
        focal=float(views.intrinsics[:, 0, 0].mean()),
    )


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
    first_box = pixels.view * boxes.yaw.shape[1]
    lists, counts = raycast.candidate_lists(pixels.overlap, first_box)
    shadow_lists, shadow_counts = raycast.candidate_lists(_shadow_overlap(pixels, light), first_box)
    shape = (len(counts), TILE * TILE)
    rgb = torch.empty(3, *shape, dtype=torch.uint8, device=device)
    owner = torch.empty(shape, dtype=torch.int32, device=device)
    depth = torch.empty(shape, device=device)
    paint = _paint(boxes, light, pixels.solids)
    owner_of_box = torch.from_numpy(boxes.owner).to(device, torch.int32).repeat(len(views.intrinsics))
    for tiles in counts.argsort().split(_CPU_CHUNK if owner.device.type == "cpu" else len(counts)):
        rays = directions(pixels, tiles)
        ground = _ground_depth(pixels, rays, tiles)
        distance, index = raycast.trace(pixels.solids, rays, lists[tiles], counts[tiles], ground)
        on_ground = (index < 0) & (distance < _FAR)
        dark = raycast.shadows(
            pixels.solids,
            rays * distance,
            torch.tensor(light.toward_sun, device=device),
            shadow_lists[tiles],
            shadow_counts[tiles] * on_ground.any(dim=1),
        )
        colors = _colors(light, paint, pixels, tiles, rays.flatten(1), distance.flatten(), index.flatten(), dark)
        rgb[:, tiles] = (colors * 255 + 0.5).clamp(0, 255).to(torch.uint8).view_as(rays)
        owner[tiles] = torch.where(
            index >= 0, _take(owner_of_box, index.flatten().clamp(min=0)).view_as(index), SCENERY
        )
        depth[tiles] = distance
    return Pictures(
        rgb=torch.stack([_untile(plane, pixels, views) for plane in rgb], dim=-1),
        owner=_untile(owner, pixels, views),
        depth=_untile(depth, pixels, views),
    )


def _ground_depth(pixels: Scan, rays: torch.Tensor, tiles: torch.Tensor) -> torch.Tensor:
    """Depth [T, P] at which rays reach the ground, at most _FAR."""
    height, falling = pixels.origin[2, pixels.view[tiles], None], -rays[2]
    return torch.where(falling > height / _FAR, height / falling, _FAR)


def _shadow_overlap(pixels: Scan, light: Light) -> torch.Tensor:
    """Overlap [T, M] of tiles with the shadows that boxes throw on the ground."""
    sun = torch.tensor(light.toward_sun, device=pixels.origin.device)
    ground = -pixels.origin[2].repeat_interleave(pixels.overlap.shape[1])
    corners = culling.shadow_corners(raycast.corners(pixels.solids), sun, ground)
    return culling.tile_overlap(culling.image_bounds(corners, pixels.pixel_from_view), *pixels.grid, TILE)


def _paint(boxes: Boxes, light: Light, solids: Solids) -> _Paint:
    """Sky light falls from above, sunlight by Lambert's law."""
    device, views = solids.cos.device, boxes.yaw.shape[0]
    sun = torch.tensor(light.toward_sun, device=device)[:, None]
    facing = raycast.to_box_axes(sun, solids.cos, solids.sin)
    facing = torch.stack([facing, -facing], dim=-1).clamp(min=0).transpose(0, 1).flatten()
    open_sky = torch.tensor([0.8, 0.8, 0.8, 0.8, 1.0, 0.45], device=device).repeat(len(solids.cos))
    ambient, sunlight = (torch.tensor(color, device=device)[:, None] for color in (light.ambient, light.sun))
    return _Paint(
        color=torch.from_numpy(boxes.color.T).to(device, torch.float32).repeat(1, views),
        windows=torch.from_numpy(boxes.windows).to(device).repeat(views),
        light=ambient * open_sky + sunlight * facing,
    )


def _colors(light, paint, pixels, tiles, rays, depth, index, dark) -> torch.Tensor:
    """Colours [3, T * P] of what rays [3, T * P] meet at `depth` [T * P]: box `index`, or -1 for ground and sky."""
    colors = torch.empty_like(rays)
    on_box = (index >= 0).nonzero()[:, 0]
    on_ground = ((index < 0) & (depth < _FAR)).nonzero()[:, 0]
    in_sky = (depth >= _FAR).nonzero()[:, 0]
    some = on_box.int()  # int32 indices read several times faster than int64 ones
    shown = _box_colors(paint, pixels, _take(rays, some), _take(depth, some), _take(index, some))
    colors.index_copy_(1, on_box, shown)
    some = on_ground.int()
    origin = _take(pixels.origin[:2, pixels.view[tiles]], torch.div(some, TILE * TILE, rounding_mode="floor"))
    lit = light.toward_sun[2] * ~_take(dark.flatten(), some)
    shown = _ground_colors(light, origin, _take(rays, some), _take(depth, some), pixels.focal, lit)
    colors.index_copy_(1, on_ground, shown)
    haze = torch.exp(depth / -light.haze)
    colors = torch.tensor(light.horizon, device=colors.device)[:, None].lerp(colors, haze)
    x, y, z = _take(rays, in_sky.int())
    return colors.index_copy_(1, in_sky, surfaces.sky_color(z / (x * x + y * y + z * z).sqrt(), light))


def _box_colors(paint, pixels, rays, depth, index) -> torch.Tensor:
    """Colours [3, n] where rays [3, n] hit the boxes `index` [n] at `depth` [n]."""
    solids = pixels.solids
    cos, sin, half = _take(solids.cos, index), _take(solids.sin, index), _take(solids.half, index)
    local = raycast.to_box_axes(rays * depth, cos, sin) - _take(solids.offset, index)
    face, base = _face(local, half), _take(paint.color, index)
    walls = (_take(paint.windows, index) & (face < 4)).nonzero()[:, 0]
    some = walls.int()
    wall, half, on_x = _take(local, some), _take(half, some), _take(face, some) < 2
    facade = surfaces.facade_color(
        _take(base, some),
        along=torch.where(on_x, wall[1], wall[0]),
        height=wall[2] + half[2],
        width=2 * torch.where(on_x, half[1], half[0]),
        footprint=2 * _take(depth, some) / pixels.focal,
    )
    base.index_copy_(1, walls, facade)
    return base * _take(paint.light, index * 6 + face)


def _face(local: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
    """Which face [n] of their boxes points [3, n] lie on: 0 to 5 for +x, -x, +y, -y, +z, -z."""
    x, y, z = local / half
    on_x, on_y = (x.abs() >= y.abs()) & (x.abs() >= z.abs()), y.abs() >= z.abs()
    return torch.where(on_x, (x < 0).int(), torch.where(on_y, 2 + (y < 0).int(), 4 + (z < 0).int()))


def _ground_colors(light, origin, rays, depth, focal, lit) -> torch.Tensor:
    """Colours [3, n] of streets met by rays [3, n] from `origin` [2, n] at `depth` [n]; sun's share `lit` [n]."""
    x, y = origin + (rays * depth)[:2]
    # A pixel is as wide as depth / focal length, and stretched along the line of sight by the flat angle.
    footprint = depth / focal * (1 - rays[:2].abs() / rays[2])
    base = surfaces.ground_color(x, y, footprint)
    ambient, sunlight = (torch.tensor(color, device=depth.device)[:, None] for color in (light.ambient, light.sun))
    return base * (ambient + sunlight * lit)


def _take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """values[..., index]; with int32 indices [n] several times faster than indexing."""
    return values.index_select(-1, index)


def _untile(values: torch.Tensor, pixels: Scan, views: Views) -> torch.Tensor:
    """Images [V, H, W] of tiled values [T, P]."""
    rows, columns = pixels.grid
    image = values.view(-1, rows, columns, TILE, TILE).transpose(2, 3).reshape(-1, rows * TILE, columns * TILE)
    return image[:, : views.height, : views.width]
