"""Pictures of the world: rays through pixels, nearest boxes, sunlight and shadows. No motion blur, no lens errors.

Shape letters as in `raycast`: V views, M boxes, S = V * M, T tiles of all views, P = 256 pixels of a tile, n some of
the pixels; H, W image size. Vectors and colours are planes [3, ...].
"""

from dataclasses import dataclass

import numpy as np
import torch

from syncl_core.world import culling, raycast, surfaces
from syncl_core.world.raycast import Solids
from syncl_core.world.scene import SCENERY, Boxes, Light

TILE = 16  # pixels
_CPU_CHUNK = 32768  # pixels shaded at a time on the CPU
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
class Rays:
    """The pixels of all views in tiles, the boxes around them, and which may meet."""

    solids: Solids
    origin: torch.Tensor  # [V, 3] camera positions, city frame
    directions: torch.Tensor  # [3, T, P] of such length that distances are depths along the optical axis
    pixel_from_view: torch.Tensor  # [V, 3, 3]
    overlap: torch.Tensor  # [T, M] bool, tile x box of its view
    view: torch.Tensor  # [T] int64
    grid: tuple[int, int]  # tile rows and columns of a view
    focal: float  # pixels, mean of the views


def cast(boxes: Boxes, views: Views, device: torch.device | str = "cpu") -> Rays:
    """Rays through all pixel centres and the boxes they may hit."""
    count, origin = len(views.intrinsics), views.city_from_cam[:, :3, 3]
    solids = raycast.solids(boxes, origin, device)
    pixel_from_view = views.intrinsics @ np.swapaxes(views.city_from_cam[:, :3, :3], 1, 2)
    view_from_pixel = torch.from_numpy(np.linalg.inv(pixel_from_view)).to(device, torch.float32)
    pixel_from_view = torch.from_numpy(pixel_from_view).to(device, torch.float32)
    rows, columns = -(-views.height // TILE), -(-views.width // TILE)
    bounds = culling.image_bounds(raycast.corners(solids), pixel_from_view)
    step = torch.arange(TILE, device=device) + 0.5
    u = (torch.arange(columns, device=device)[:, None, None] * TILE + step).expand(columns, TILE, TILE)
    v = (torch.arange(rows, device=device)[:, None, None] * TILE + step[:, None]).expand(rows, TILE, TILE)
    a, b, c = (m[..., None, None, None, None] for m in view_from_pixel.permute(2, 1, 0))  # [3, V, 1, 1, 1, 1]
    directions = (b * v[:, None] + c) + a * u  # [3, V, rows, columns, TILE, TILE]
    return Rays(
        solids=solids,
        origin=torch.from_numpy(origin).to(device, torch.float32),
        directions=directions.reshape(3, -1, TILE * TILE),
        pixel_from_view=pixel_from_view,
        overlap=culling.tile_overlap(bounds, rows, columns, TILE),
        view=torch.arange(count, device=device).repeat_interleave(rows * columns),
        grid=(rows, columns),
        focal=float(views.intrinsics[:, 0, 0].mean()),
    )


def render(boxes: Boxes, light: Light, views: Views, device: torch.device | str = "cpu") -> Pictures:
    """Draw the boxes of times [V] into views [V], with ground, shadows, haze and sky."""
    rays = cast(boxes, views, device)
    lists, counts = raycast.candidate_lists(rays.overlap, rays.view * boxes.yaw.shape[1])
    depth, index = raycast.trace(rays.solids, rays.directions, lists, counts, _ground_depth(rays))
    pixels = rays.directions.flatten(1)
    flat_depth, flat_index = depth.flatten(), index.flatten()
    colors = torch.empty_like(pixels)
    on_box, on_ground, in_sky = (mask.nonzero()[:, 0] for mask in _sort_pixels(flat_depth, flat_index))
    dark = _shadows(rays, depth, light, on_ground)
    for some in _chunks(on_box):
        colors.index_copy_(1, some, _box_colors(boxes, light, rays, flat_index, flat_depth, some.int()))
    for some in _chunks(on_ground):
        colors.index_copy_(1, some, _ground_colors(light, rays, flat_depth, dark.flatten(), some.int()))
    horizon = torch.tensor(light.horizon, device=colors.device)[:, None]
    colors = horizon.lerp(colors, torch.exp(flat_depth / -light.haze))
    for some in _chunks(in_sky):
        x, y, z = _take(pixels, some.int())
        colors.index_copy_(1, some, surfaces.sky_color(z / (x * x + y * y + z * z).sqrt(), light))
    owner = torch.from_numpy(boxes.owner).to(device, torch.int32).repeat(len(rays.origin))
    owner = torch.where(index >= 0, _take(owner, flat_index.clamp(min=0)).view(index.shape), SCENERY)
    rgb = (colors * 255 + 0.5).clamp(0, 255).to(torch.uint8).view(3, *depth.shape)
    return Pictures(
        rgb=torch.stack([_untile(plane, rays, views) for plane in rgb], dim=-1),
        owner=_untile(owner, rays, views),
        depth=_untile(depth, rays, views),
    )


def _ground_depth(rays: Rays) -> torch.Tensor:
    """Depth [T, P] at which rays reach the ground, at most _FAR."""
    height, falling = rays.origin[rays.view, 2, None], -rays.directions[2]
    return torch.where(falling > height / _FAR, height / falling, torch.full_like(falling, _FAR))


def _sort_pixels(depth: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Masks of the pixels that show a box, the ground, the sky."""
    on_box, far = index >= 0, depth >= _FAR
    return on_box, ~on_box & ~far, ~on_box & far


def _box_colors(boxes, light, rays, index, depth, pixel) -> torch.Tensor:
    """Lambert-shaded colours [3, n] of `pixel` [n], whose rays hit the boxes `index` at `depth` (of all pixels)."""
    solids, index, depth = rays.solids, _take(index, pixel), _take(depth, pixel)
    cos, sin, half = _take(solids.cos, index), _take(solids.sin, index), _take(solids.half, index)
    hit = _take(rays.directions.flatten(1), pixel) * depth
    local = raycast.to_box_axes(hit, cos, sin) - _take(solids.offset, index)
    face = _face(local, half)
    template = index % len(boxes.size)
    base = _take(torch.from_numpy(boxes.color.T).to(depth.device, torch.float32), template)
    is_wall = _take(torch.from_numpy(boxes.windows).to(depth.device), template) & (face < 4)
    walls = is_wall.nonzero()[:, 0]
    wall, half, on_x = _take(local, walls.int()), _take(half, walls.int()), _take(face, walls.int()) < 2
    facade = surfaces.facade_color(
        _take(base, walls.int()),
        along=torch.where(on_x, wall[1], wall[0]),
        height=wall[2] + half[2],
        width=2 * torch.where(on_x, half[1], half[0]),
        footprint=2 * _take(depth, walls.int()) / rays.focal,
    )
    base.index_copy_(1, walls, facade)
    return base * _take(_face_light(solids, light), index * 6 + face)


def _face(local: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
    """Which face [n] of their boxes points [3, n] lie on: 0 to 5 for +x, -x, +y, -y, +z, -z."""
    x, y, z = local / half
    on_x, on_y = (x.abs() >= y.abs()) & (x.abs() >= z.abs()), y.abs() >= z.abs()
    return torch.where(on_x, (x < 0).int(), torch.where(on_y, 2 + (y < 0).int(), 4 + (z < 0).int()))


def _face_light(solids: Solids, light: Light) -> torch.Tensor:
    """Light [3, S * 6] on the faces of boxes, numbered as in `_face`: sky from above, sun by Lambert's law."""
    device = solids.cos.device
    sun = torch.tensor(light.toward_sun, device=device)[:, None]
    facing = raycast.to_box_axes(sun, solids.cos, solids.sin)
    facing = torch.stack([facing, -facing], dim=-1).clamp(min=0).transpose(0, 1).flatten()
    open_sky = torch.tensor([0.8, 0.8, 0.8, 0.8, 1.0, 0.45], device=device).repeat(len(solids.cos))
    ambient, sunlight = (torch.tensor(color, device=device)[:, None] for color in (light.ambient, light.sun))
    return ambient * open_sky + sunlight * facing


def _ground_colors(
    light: Light, rays: Rays, depth: torch.Tensor, dark: torch.Tensor, pixel: torch.Tensor
) -> torch.Tensor:
    """Colours [3, n] of `pixel` [n], which show the ground: procedural streets in the sun or in shadow."""
    direction, depth = _take(rays.directions.flatten(1), pixel), _take(depth, pixel)
    tile = torch.div(pixel, rays.directions.shape[2], rounding_mode="floor")
    x, y = _take(_take(rays.origin.T[:2], rays.view), tile) + (direction * depth)[:2]
    # A pixel is as wide as depth / focal length, and stretched along the line of sight by the flat angle.
    footprint = depth / rays.focal * (1 - direction[:2].abs() / direction[2])
    base = surfaces.ground_color(x, y, footprint)
    ambient, sunlight = (torch.tensor(color, device=depth.device)[:, None] for color in (light.ambient, light.sun))
    return base * (ambient + sunlight * (light.toward_sun[2] * ~_take(dark, pixel)))


def _shadows(rays: Rays, depth: torch.Tensor, light: Light, on_ground: torch.Tensor) -> torch.Tensor:
    """True [T, P] where the ground is in shadow; only tiles with one of the pixels `on_ground` are looked at."""
    sun = torch.tensor(light.toward_sun, device=depth.device)
    per_view = len(rays.solids.cos) // len(rays.origin)
    ground = -rays.origin[:, 2].repeat_interleave(per_view)
    corners = culling.shadow_corners(raycast.corners(rays.solids), sun, ground)
    overlap = culling.tile_overlap(culling.image_bounds(corners, rays.pixel_from_view), *rays.grid, TILE)
    has_ground = torch.zeros(len(depth), dtype=torch.bool, device=depth.device)
    has_ground[torch.div(on_ground, depth.shape[1], rounding_mode="floor")] = True
    lists, counts = raycast.candidate_lists(overlap & has_ground[:, None], rays.view * per_view)
    return raycast.shadows(rays.solids, rays.directions * depth, sun, lists, counts)


def _chunks(pixels: torch.Tensor):
    """Index lists that the CPU's cache can hold the work on; a GPU takes all at once."""
    return pixels.split(_CPU_CHUNK if pixels.device.type == "cpu" else max(len(pixels), 1))


def _take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """values[..., index]; with int32 indices [n] several times faster than indexing."""
    return values.index_select(-1, index)


def _untile(values: torch.Tensor, rays: Rays, views: Views) -> torch.Tensor:
    """Images [V, H, W] of tiled values [T, P]."""
    rows, columns = rays.grid
    image = values.view(-1, rows, columns, TILE, TILE).transpose(2, 3).reshape(-1, rows * TILE, columns * TILE)
    return image[:, : views.height, : views.width]
