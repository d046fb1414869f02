"""How boxes overlap from above, for the filters that compare overlaps."""

import math

import torch

from syncl_core.models.box_code import code_size, code_yaw


def footprint(code: torch.Tensor) -> torch.Tensor:
    """Rectangles (min x, min y, max x, max y) [..., 4] of box codes [..., 10], each turned to its nearest axis.

    As SECOND and PointPillars match their anchors (Yan et al. 2018, Lang et al. 2019): the length lies along x if the
    heading is within 45 degrees of that axis, and along y otherwise.
    """
    length, width = code_size(code)[..., :2].unbind(-1)
    along_y = (torch.remainder(code_yaw(code) + math.pi / 4, math.pi) >= math.pi / 2)[..., None]
    half = torch.where(along_y, torch.stack([width, length], dim=-1), torch.stack([length, width], dim=-1)) / 2
    center = code[..., :2]
    return torch.cat([center - half, center + half], dim=-1)


def footprint_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union [..., M, G] of rectangles [..., M, 4] and [..., G, 4]."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    areas = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1)
    return shared / (areas - shared).clamp(min=1e-9)


def inside_footprint(points: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """Whether points [..., M, 2] lie within box codes [..., G, 10] seen from above: [..., M, G] bool."""
    yaw = code_yaw(code)[..., None, :]
    x, y = (points[..., :, None, :] - code[..., None, :, :2]).unbind(-1)
    along, across = x * yaw.cos() + y * yaw.sin(), y * yaw.cos() - x * yaw.sin()
    length, width = code_size(code)[..., None, :, :2].unbind(-1)
    return (along.abs() <= length / 2) & (across.abs() <= width / 2)
