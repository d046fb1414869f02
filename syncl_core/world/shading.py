"""What colour a ray brings back: paint, sunlight, sky light, lamps and haze. Shape letters as in `render`."""

from dataclasses import dataclass

import numpy as np
import torch

from syncl_core.world import raycast, surfaces
from syncl_core.world.scene import Boxes, Light

TILE = 16  # pixels
FAR = 1e4  # metres; rays that hit nothing end there


@dataclass(frozen=True, slots=True, kw_only=True)
class Paint:
    """What decides the colour of a box."""

    color: torch.Tensor  # [3, S]
    windows: torch.Tensor  # [S] bool
    light: torch.Tensor  # [3, S * 6] on its faces, numbered as in `_face`


def mix_paint(boxes: Boxes, light: Light, pixels) -> Paint:
    """Paint of the solids of a `render.Scan`: sky light from above, sunlight by Lambert's law, lamps at all hours."""
    solids, box = pixels.solids, pixels.box
    device = box.device
    sun = torch.tensor(light.toward_sun, device=device)[:, None]
    facing = raycast.to_box_axes(sun, solids.cos, solids.sin)
    facing = torch.stack([facing, -facing], dim=-1).clamp(min=0).transpose(0, 1).flatten()
    open_sky = torch.tensor([0.8, 0.8, 0.8, 0.8, 1.0, 0.45], device=device).repeat(len(box))
    ambient, sunlight = (torch.tensor(color, device=device)[:, None] for color in (light.ambient, light.sun))
    glow = torch.from_numpy(boxes.glow).to(device, torch.float32)[box].repeat_interleave(6)
    return Paint(
        color=torch.from_numpy(boxes.color.T.astype(np.float32)).to(device)[:, box],
        windows=torch.from_numpy(boxes.windows).to(device)[box],
        light=ambient * open_sky + sunlight * facing + glow,
    )


def colors(light, paint, pixels, tiles, rays, depth, width, index, dark) -> torch.Tensor:
    """Colours [3, T * P] of what rays [3, T * P] meet at `depth` [T * P]: box `index`, or -1 for ground and sky.

    width: [T * P] metres that a pixel covers at this depth.
    """
    result = torch.empty_like(rays)
    on_box = (index >= 0).nonzero()[:, 0]
    on_ground = ((index < 0) & (depth < FAR)).nonzero()[:, 0]
    in_sky = (depth >= FAR).nonzero()[:, 0]
    some = on_box.int()  # int32 indices read several times faster than int64 ones
    shown = _box_colors(paint, pixels, *(take(of, some) for of in (rays, depth, width, index)))
    result.index_copy_(1, on_box, shown)
    some = on_ground.int()
    origin = take(pixels.origin[:2, pixels.view[tiles]], torch.div(some, TILE * TILE, rounding_mode="floor"))
    lit = light.toward_sun[2] * ~take(dark.flatten(), some)
    shown = _ground_colors(light, origin, *(take(of, some) for of in (rays, depth, width)), lit)
    result.index_copy_(1, on_ground, shown)
    haze = torch.exp(depth / -light.haze)
    result = torch.tensor(light.horizon, device=result.device)[:, None].lerp(result, haze)
    x, y, z = take(rays, in_sky.int())
    return result.index_copy_(1, in_sky, surfaces.sky_color(z / (x * x + y * y + z * z).sqrt(), light))


def _box_colors(paint, pixels, rays, depth, width, index) -> torch.Tensor:
    """Colours [3, n] where rays [3, n] hit the boxes `index` [n] at `depth` [n]."""
    solids = pixels.solids
    cos, sin, half = take(solids.cos, index), take(solids.sin, index), take(solids.half, index)
    local = raycast.to_box_axes(rays * depth, cos, sin) - take(solids.offset, index)
    face, base = _face(local, half), take(paint.color, index)
    walls = (take(paint.windows, index) & (face < 4)).nonzero()[:, 0]
    some = walls.int()
    wall, half, on_x = take(local, some), take(half, some), take(face, some) < 2
    facade = surfaces.facade_color(
        take(base, some),
        along=torch.where(on_x, wall[1], wall[0]),
        height=wall[2] + half[2],
        width=2 * torch.where(on_x, half[1], half[0]),
        footprint=2 * take(width, some),
    )
    base.index_copy_(1, walls, facade)
    return base * take(paint.light, index * 6 + face)


def _face(local: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
    """Which face [n] of their boxes points [3, n] lie on: 0 to 5 for +x, -x, +y, -y, +z, -z."""
    x, y, z = local / half
    on_x, on_y = (x.abs() >= y.abs()) & (x.abs() >= z.abs()), y.abs() >= z.abs()
    return torch.where(on_x, (x < 0).int(), torch.where(on_y, 2 + (y < 0).int(), 4 + (z < 0).int()))


def _ground_colors(light, origin, rays, depth, width, lit) -> torch.Tensor:
    """Colours [3, n] of streets met by rays [3, n] from `origin` [2, n] at `depth` [n]; sun's share `lit` [n]."""
    x, y = origin + (rays * depth)[:2]
    # A pixel is stretched along the line of sight by the flat angle.
    footprint = width * (1 - rays[:2].abs() / rays[2])
    base = surfaces.ground_color(x, y, footprint)
    ambient, sunlight = (torch.tensor(color, device=depth.device)[:, None] for color in (light.ambient, light.sun))
    return base * (ambient + sunlight * lit)


def take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """values[..., index]; with int32 indices [n] several times faster than indexing."""
    return values.index_select(-1, index)
