"""Where a token, a query or a past frame is: rays through pixels and sine embeddings (PETR, sec. 3.2 and 3.3).

Two sine layouts exist in the public checkpoints and both are kept: queries and times interleave sine and cosine, image
tokens hold all sines before all cosines.
"""

import math

import torch
from torch import nn

from syncl_core.models.box_code import inverse_sigmoid, normalize


def embed(network: nn.Module, *places: torch.Tensor) -> torch.Tensor:
    """What a network makes of places or their sines, [..., C] or as maps [B, C, h, w]: an embedding with D channels.

    In float32 also under autocast, whose bfloat16 would round places by decimetres.
    """
    device = places[0].device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return network(*places)
    with torch.autocast(device, enabled=False):
        return network(*(place.float() for place in places))


def lid_depths(num_bins: int, start: float, end: float, device: torch.device | None = None) -> torch.Tensor:
    """Depths [num_bins] in metres that grow further apart with distance (linear-increasing discretisation, CaDDN)."""
    i = torch.arange(num_bins, dtype=torch.float32, device=device)
    return start + (end - start) / (num_bins * (num_bins + 1)) * i * (i + 1)


def ray_points(
    image_from_model: torch.Tensor,  # [B, N, 4, 4] float64, pixels of the network's image
    feature_size: tuple[int, int],
    image_size: tuple[int, int],
    depths: torch.Tensor,  # [Z] metres
    offset: float = 0.0,  # which pixel of its cell a token looks through: 0 = the upper left one, 0.5 = the centre
) -> torch.Tensor:
    """Points [B, N, h, w, Z, 3], metres, model frame, float32, on the ray through one pixel of every token."""
    (rows, cols), (height, width) = feature_size, image_size
    device = image_from_model.device
    v = (torch.arange(rows, dtype=torch.float64, device=device) + offset) * (height / rows)
    u = (torch.arange(cols, dtype=torch.float64, device=device) + offset) * (width / cols)
    v, u = torch.meshgrid(v, u, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1)  # [h, w, 3]
    # inv() checks its input on the host, inv_ex() does not wait for the device.
    model_from_image = torch.linalg.inv_ex(image_from_model).inverse
    # (u d, v d, d, 1) is linear in d: a ray's direction needs float64 only once, its points do not.
    directions = torch.einsum("bnij,hwj->bnhwi", model_from_image[..., :3, :3], pixels).float()
    origins = model_from_image[..., :3, 3].float()
    return origins[:, :, None, None, None] + depths[:, None] * directions[..., None, :]


def cell_rays(
    image_from_model: torch.Tensor,  # [B, N, 4, 4] float64, pixels of the network's image
    feature_size: tuple[int, int],
    image_size: tuple[int, int],
) -> torch.Tensor:
    """Where every cell looks from and to, [B, N, h, w, 6] float32, model frame.

    The camera's centre in units of 10 m, then the unit vector through the cell's centre.
    """
    depths = torch.arange(2.0, device=image_from_model.device)
    center, ahead = ray_points(image_from_model, feature_size, image_size, depths, offset=0.5).unbind(dim=-2)
    return torch.cat([center / 10.0, torch.nn.functional.normalize(ahead - center, dim=-1)], dim=-1)


def relative_transform(global_from_new: torch.Tensor, global_from_old: torch.Tensor) -> torch.Tensor:
    """new_from_old [B, 4, 4] float64 of rigid transforms; subtracting positions first keeps large coordinates exact."""
    new_from_global = global_from_new[:, :3, :3].transpose(1, 2)
    result = torch.zeros_like(global_from_new)
    result[:, :3, :3] = new_from_global @ global_from_old[:, :3, :3]
    result[:, :3, 3:] = new_from_global @ (global_from_old[:, :3, 3:] - global_from_new[:, :3, 3:])
    result[:, 3, 3] = 1.0
    return result


def ray_encoding(points: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
    """Encoder input [B, N, h, w, Z*3] of ray points [B, N, h, w, Z, 3]: logits of fractions of the volume [2, 3]."""
    return inverse_sigmoid(normalize(points, volume)).flatten(-2)


def sine_angles(x: torch.Tensor, num_features: int) -> torch.Tensor:
    """Angles [..., num_features] of x [...]: x / 10000^(2 floor(k/2) / num_features)."""
    k = torch.arange(num_features, dtype=torch.float32, device=x.device)
    wavelength = 10000.0 ** (2 * torch.div(k, 2, rounding_mode="floor") / num_features)
    return x[..., None] / wavelength


def sine_interleaved(x: torch.Tensor, num_features: int) -> torch.Tensor:
    """[..., num_features] as sin, cos, sin, cos, ..."""
    angles = sine_angles(x, num_features)
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)


def sine_blocked(x: torch.Tensor, num_features: int) -> torch.Tensor:
    """[..., num_features] as all sines, then all cosines (what the public checkpoints saw for image tokens)."""
    angles = sine_angles(x, num_features)
    return torch.cat([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1)


def point_sine(fractions: torch.Tensor, num_features: int) -> torch.Tensor:
    """[..., 3 * num_features] of points [..., 3], fractions of the volume; axis order y, x, z."""
    x, y, z = (fractions * (2 * math.pi)).unbind(-1)
    return torch.cat([sine_interleaved(axis, num_features) for axis in (y, x, z)], dim=-1)


def token_sine(num_cameras: int, rows: int, cols: int, num_features: int, device: torch.device) -> torch.Tensor:
    """[N, h, w, 3 * num_features] of every token's camera, row and column number, counted from one."""
    blocks = []
    for axis, count in enumerate((num_cameras, rows, cols)):
        numbers = torch.arange(1, count + 1, dtype=torch.float32, device=device)
        embedding = sine_blocked(numbers / (count + 1e-6) * (2 * math.pi), num_features)
        shape = [1, 1, 1, num_features]
        shape[axis] = count
        blocks.append(embedding.view(shape).expand(num_cameras, rows, cols, num_features))
    return torch.cat(blocks, dim=-1)


def time_sine(num_steps: int, num_features: int, device: torch.device) -> torch.Tensor:
    """[num_steps, num_features] of num_steps times evenly spaced over one period, first and last included."""
    return sine_interleaved(torch.linspace(0, 1, num_steps, device=device) * (2 * math.pi), num_features)


def octave_sine(x: torch.Tensor, num_octaves: int) -> torch.Tensor:
    """[..., 2 * num_octaves * C] of x [..., C]: sin(x), cos(x), sin(2x), cos(2x), sin(4x), ... (NeRF, eq. 4, no pi)."""
    return torch.cat([wave(x * 2.0**k) for k in range(num_octaves) for wave in (torch.sin, torch.cos)], dim=-1)


def focal_lengths(image_from_model: torch.Tensor) -> torch.Tensor:
    """Focal lengths [..., 2] (x, y), pixels, of projections [..., 4, 4], whose rows are K [R t] without skew.

    With the rows m1, m2, m3 of the left 3x3 block, f_x = |m1 x m3| / |m3|^2 and f_y = |m2 x m3| / |m3|^2.
    """
    rows, depth = image_from_model[..., :2, :3], image_from_model[..., 2:3, :3]
    crossed = torch.linalg.cross(rows, depth.expand_as(rows))
    return crossed.norm(dim=-1) / depth.square().sum(dim=-1)
