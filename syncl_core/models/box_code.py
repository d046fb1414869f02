"""The network's box code, and the way from it to metric boxes and back.

Code (10): cx, cy, log w, log l, cz, log h, sin, cos, vx, vy; metres and m/s in the model frame, geometric centre.
The angle is that of mmdetection3d before 1.0, in which the public checkpoints were trained: angle = -yaw - pi/2, with
`yaw` the heading of the length axis, counter-clockwise from the model frame's x axis.
"""

import math

import torch

CODE_SIZE = 10


def inverse_sigmoid(x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """The logit of x clamped to [0, 1]; saturates at about +-11.5, as in training."""
    x = x.clamp(0.0, 1.0)
    return torch.log(x.clamp(min=eps) / (1.0 - x).clamp(min=eps))


def normalize(points: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
    """Metres [..., 3] -> fractions of the volume [2, 3] (min, max); may leave [0, 1]."""
    return (points - volume[0]) / (volume[1] - volume[0])


def denormalize(fractions: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
    """Fractions [..., 3] of the volume [2, 3] (min, max) -> metres."""
    return fractions * (volume[1] - volume[0]) + volume[0]


def code_center(code: torch.Tensor) -> torch.Tensor:
    """Centres [..., 3] of box codes [..., 10]."""
    return torch.cat([code[..., 0:2], code[..., 4:5]], dim=-1)


def with_center(code: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
    """Box codes [..., 10] with their centres replaced by [..., 3]."""
    return torch.cat([center[..., 0:2], code[..., 2:4], center[..., 2:3], code[..., 5:]], dim=-1)


def resolve_center(code: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A head's raw output [..., 10] holds centre offsets in logit space from `reference` [..., 3] (fractions).

    Returns the centres as fractions [..., 3] and the raw code in float32: geometry never stays in half precision.
    """
    code = code.float()
    return torch.sigmoid(code_center(code) + inverse_sigmoid(reference)), code


def code_size(code: torch.Tensor) -> torch.Tensor:
    """Length, width, height [..., 3] in metres."""
    return torch.stack([code[..., 3], code[..., 2], code[..., 5]], dim=-1).exp()


def code_yaw(code: torch.Tensor) -> torch.Tensor:
    """Heading of the length axis [...], counter-clockwise from the model frame's x axis, in [-pi, pi)."""
    yaw = -torch.atan2(code[..., 6], code[..., 7]) - math.pi / 2
    return torch.remainder(yaw + math.pi, 2 * math.pi) - math.pi


def code_velocity(code: torch.Tensor) -> torch.Tensor:
    """Velocity [..., 2], m/s along the model frame's x and y."""
    return code[..., 8:10]


def join_code(
    center: torch.Tensor,  # [..., 3] metres
    log_size: torch.Tensor,  # [..., 3] log of width, length, height
    direction: torch.Tensor,  # [..., 2] sin, cos of the code's angle
    velocity: torch.Tensor,  # [..., 2] m/s
) -> torch.Tensor:
    """Box codes [..., 10] of parts that are coded already."""
    return torch.cat(
        [center[..., :2], log_size[..., :2], center[..., 2:], log_size[..., 2:], direction, velocity], dim=-1
    )


def code_log_size(code: torch.Tensor) -> torch.Tensor:
    """Log of width, length, height [..., 3] of box codes [..., 10]."""
    return torch.cat([code[..., 2:4], code[..., 5:6]], dim=-1)


def encode_boxes(center: torch.Tensor, size: torch.Tensor, yaw: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
    """Box codes [..., 10] of centres [..., 3], sizes [..., 3] (l, w, h), headings [...] and velocities [..., 2]."""
    length, width, height = size.log().unbind(-1)
    angle = -yaw - math.pi / 2
    x, y, z = center.unbind(-1)
    return torch.stack([x, y, width, length, z, height, angle.sin(), angle.cos(), *velocity.unbind(-1)], dim=-1)
