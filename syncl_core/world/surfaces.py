"""Procedural surfaces: streets, facades and sky as functions of the place that was hit.

Every edge is softened over the pixel's footprint (metres on the surface), so that distant markings fade to their mean
instead of flickering. All functions are elementwise over [n] points; colours are planes [3, n].
"""

import torch

from syncl_core.world import city
from syncl_core.world.scene import Light

_ASPHALT, _PAVEMENT, _GRASS = (0.30, 0.30, 0.31), (0.52, 0.51, 0.49), (0.29, 0.37, 0.21)
_KERB, _PAINT, _YELLOW = (0.62, 0.61, 0.59), (0.88, 0.88, 0.86), (0.83, 0.66, 0.20)
_PANE = (0.16, 0.20, 0.26)
_FLOOR_HEIGHT, _BAY_WIDTH = 3.3, 2.9  # metres


def ground_color(x: torch.Tensor, y: torch.Tensor, footprint: torch.Tensor) -> torch.Tensor:
    """Streets, markings, pavements and lawns at city points x, y [n]; footprint [2, n] of a pixel along x and y."""
    fx, fy = footprint
    to_x, to_y = _axis_distance(x), _axis_distance(y)  # distances to the axes of streets along y, along x
    street = torch.maximum(_below(to_y, city.KERB, fy), _below(to_x, city.KERB, fx))
    paved = torch.maximum(_below(to_y, city.PAVEMENT_EDGE, fy), _below(to_x, city.PAVEMENT_EDGE, fx))
    kerb = torch.maximum(_below(to_y, city.KERB + 0.25, fy), _below(to_x, city.KERB + 0.25, fx))
    mottle = 1 + 0.03 * torch.sin(1.7 * x + 0.6 * y) * torch.sin(0.9 * y - 0.4 * x)
    slabs = 1 - 0.12 * torch.maximum(_pulse(x, 2.0, 0.0, 0.06, fx), _pulse(y, 2.0, 0.0, 0.06, fy))
    color = _mix(_constant(_GRASS, mottle), _constant(_PAVEMENT, slabs), paved)
    color = _mix(color, _constant(_KERB, torch.ones_like(x)), kerb)
    color = _mix(color, _constant(_ASPHALT, mottle), street)
    # Of two streets only the nearer one can have paint here: the other's ends before the crossing.
    on_x = to_y <= to_x
    along, f_along, f_across = torch.where(on_x, x, y), torch.where(on_x, fx, fy), torch.where(on_x, fy, fx)
    white, yellow = _markings(along, torch.maximum(to_x, to_y), torch.minimum(to_x, to_y), f_along, f_across)
    color = _mix(color, _constant(_PAINT, torch.ones_like(x)), white)
    return _mix(color, _constant(_YELLOW, torch.ones_like(x)), yellow)


def _markings(along, to_cross, across, f_along, f_across):
    """White and yellow paint [n] of a street whose axis runs in the direction of `along`."""
    open_road = 1 - _below(to_cross, city.STOP_LINE, f_along)
    center = _band(across, 0.10, 0.24, f_across) * open_road
    dashes = _band(across, city.LANE_WIDTH - 0.08, city.LANE_WIDTH + 0.08, f_across) * _pulse(
        along, 7.0, 0.0, 3.0, f_along
    )
    edge = _band(across, city.LANES_EDGE - 0.07, city.LANES_EDGE + 0.07, f_across)
    stop = _band(to_cross, city.STOP_LINE, city.STOP_LINE + 0.45, f_along) * _below(across, city.LANES_EDGE, f_across)
    zebra = _band(to_cross, *city.ZEBRA, f_along) * _pulse(across, 1.1, 0.25, 0.85, f_across)
    zebra = zebra * _below(across, city.KERB - 0.3, f_across)
    white = torch.maximum(torch.maximum(dashes, edge) * open_road, torch.maximum(stop, zebra))
    return white, center


def facade_color(
    base: torch.Tensor, along: torch.Tensor, height: torch.Tensor, width: torch.Tensor, footprint: torch.Tensor
) -> torch.Tensor:
    """Windows on walls [3, n] of colour `base`, at places along the wall (from its middle) and above the ground [n]."""
    bays = (width / _BAY_WIDTH).round().clamp(min=1)
    bay = along * bays / width + 0.5 * bays
    scaled = footprint * bays / width
    upper = _pulse(bay, 1.0, 0.22, 0.78, scaled) * _pulse(height, _FLOOR_HEIGHT, 0.95, 2.6, footprint)
    shop = _pulse(bay, 1.0, 0.08, 0.92, scaled) * _band(height, 0.5, 2.7, footprint)
    ground_floor = _below(height, _FLOOR_HEIGHT, footprint)
    glass = torch.where(ground_floor > 0.5, shop, upper)
    return _mix(base * (1 - 0.15 * ground_floor), _constant(_PANE, torch.ones_like(along)), glass)


def sky_color(elevation: torch.Tensor, light: Light) -> torch.Tensor:
    """Colour towards the sky; elevation [n] is the sine of the ray's angle above the horizon."""
    up = elevation.clamp(min=0).sqrt()
    return _mix(_constant(light.horizon, torch.ones_like(up)), _constant(light.zenith, torch.ones_like(up)), up)


def _axis_distance(value: torch.Tensor) -> torch.Tensor:
    return (value - (value / city.BLOCK).round() * city.BLOCK).abs()


def _below(value: torch.Tensor, edge: float, footprint: torch.Tensor) -> torch.Tensor:
    return ((edge - value) / footprint + 0.5).clamp(0, 1)


def _band(value: torch.Tensor, low: float, high: float, footprint: torch.Tensor) -> torch.Tensor:
    """Share of the footprint that lies in [low, high]."""
    half = footprint / 2
    return (torch.clamp(value + half, max=high) - torch.clamp(value - half, min=low)).clamp(min=0) / footprint


def _pulse(value: torch.Tensor, period: float, low: float, high: float, footprint: torch.Tensor) -> torch.Tensor:
    """Share of the footprint in [low, high] of every period; its mean where the footprint is as wide as the period."""
    sharp = _band(value - (value / period).floor() * period, low, high, footprint)
    blur = (footprint / period).clamp(max=1)
    return sharp + (((high - low) / period) - sharp) * blur


def _constant(color: tuple[float, float, float], factor: torch.Tensor) -> torch.Tensor:
    return torch.tensor(color, dtype=factor.dtype, device=factor.device)[:, None] * factor


def _mix(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    return torch.lerp(a, b, share)
