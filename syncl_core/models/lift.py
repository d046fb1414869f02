"""From what a cell of a feature map sees to a box in space, and back, for maps whose cells vote (models/votes.py).

A view is what can be read off the image: where the middle of the box's underside appears, how far the box is compared
with a flat road there, how large it is, how it stands to the line of sight, how fast it drives along its own axis. The
place then follows from the camera's geometry and need not be learned. That the road is flat is a first guess, which a
view corrects. A mirrored image has mirrored views, and they lift to the same boxes.
"""

import torch
from torch.nn import functional

from syncl_core.models.box_code import code_center, code_log_size, code_velocity, code_yaw, join_code

VIEW_SIZE = 10
"""Underside right, down (units of 2 cells, from the cell's centre), log of depth over that of a flat road (units of
0.2); log w, l, h (metres); sin and cos of the heading against the line of sight, counter-clockwise seen from above;
velocity along and across the heading (units of 5 m/s)."""

_CELLS = 2.0  # of the map: unit of an offset
_DEPTH = 0.2  # unit of the correction of the log depth
_SPEED = 5.0  # m/s, unit of velocities
_FARTHEST = 80.0  # metres: a road seen no farther below the horizon than that ends there
_LOWEST = 0.1  # metres: a camera counts as at least so high above the road
_MOST = 2.0  # a log depth is corrected by no more
_LOG_SIZE = (-3.0, 4.0)  # of a size in metres; beyond it is noise


def lift(
    views: torch.Tensor,  # [B, N, h, w, 10]
    image_from_model: torch.Tensor,  # [B, N, 4, 4] float64, invertible
    image_size: tuple[int, int],  # height and width, pixels
    ground: float,  # metres: height of a flat road in the model frame
) -> torch.Tensor:
    """Box codes [B, N, h, w, 10] float32, model frame, of what the cells see."""
    views, side = views.float(), _side(image_from_model)
    origin, ahead = _line_of_sight(_seen_at(views, image_size), image_from_model)
    depth = _road_depth(origin, ahead, ground) * (views[..., 2] * _DEPTH).clamp(-_MOST, _MOST).exp()
    foot = origin + depth[..., None] * ahead
    log_size = views[..., 3:6].clamp(*_LOG_SIZE)
    heading = _turn(torch.stack([views[..., 7], side * views[..., 6]], dim=-1), _direction(ahead))
    speed = torch.stack([views[..., 8], side * views[..., 9]], dim=-1) * _SPEED
    center = torch.cat([foot[..., :2], foot[..., 2:] + log_size[..., 2:].exp() / 2], dim=-1)
    # The code's angle is -yaw - pi/2, so its sine and cosine are those of the yaw, negative and swapped.
    return join_code(center, log_size, -heading, _turn(speed, functional.normalize(heading, dim=-1)))


def view_of(
    code: torch.Tensor,  # [B, N, h, w, 10] box codes, one for every cell, model frame
    image_from_model: torch.Tensor,  # [B, N, 4, 4] float64, invertible
    image_size: tuple[int, int],  # height and width, pixels
    ground: float,  # metres: height of a flat road in the model frame
) -> torch.Tensor:
    """The views [B, N, h, w, 10] that `lift` turns into these boxes; meaningless for boxes behind the camera."""
    size, side = tuple(code.shape[2:4]), _side(image_from_model)
    log_size, yaw = code_log_size(code), code_yaw(code)
    foot = code_center(code) - functional.pad(log_size[..., 2:].exp() / 2, (2, 0))
    matrix = image_from_model[:, :, None, None]
    seen = (matrix[..., :3, :3] @ foot.double()[..., None])[..., 0] + matrix[..., :3, 3]
    depth = seen[..., 2].clamp(min=1e-3)
    pixels = (seen[..., :2] / depth[..., None]).float()
    origin, ahead = _line_of_sight(pixels, image_from_model)
    offset = (pixels - cell_pixels(size, image_size, code.device)) / _offset_unit(size, image_size)
    farther = (depth.float() / _road_depth(origin, ahead, ground)).log() / _DEPTH
    heading = torch.stack([yaw.cos(), yaw.sin()], dim=-1)
    cosine, sine = _turn(heading, _opposite(_direction(ahead))).unbind(-1)
    along, across = (_turn(code_velocity(code), _opposite(heading)) / _SPEED).unbind(-1)
    rest = torch.stack([side * sine, cosine, along, side * across], dim=-1)
    return torch.cat([offset, farther[..., None], log_size, rest], dim=-1)


def log_depth(
    views: torch.Tensor,  # [B, N, h, w, 10]
    image_from_model: torch.Tensor,  # [B, N, 4, 4] float64, invertible
    image_size: tuple[int, int],  # height and width, pixels
    ground: float,  # metres: height of a flat road in the model frame
) -> torch.Tensor:
    """Natural log of the depth [B, N, h, w] in metres of the undersides that the cells see, however far corrected."""
    views = views.float()
    road = _road_depth(*_line_of_sight(_seen_at(views, image_size), image_from_model), ground)
    return road.log() + views[..., 2] * _DEPTH


def cell_pixels(size: tuple[int, int], image_size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Centres [h, w, 2] of the cells of a map of `size` (rows, columns): right and down, pixels."""
    (rows, cols), (height, width) = size, image_size
    down = (torch.arange(rows, device=device) + 0.5) * (height / rows)
    right = (torch.arange(cols, device=device) + 0.5) * (width / cols)
    return torch.stack(torch.broadcast_tensors(right[None, :], down[:, None]), dim=-1)


def _offset_unit(size: tuple[int, int], image_size: tuple[int, int]) -> float:
    return _CELLS * image_size[0] / size[0]


def _seen_at(views: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Pixels [B, N, h, w, 2] of the undersides."""
    size = tuple(views.shape[2:4])
    return cell_pixels(size, image_size, views.device) + views[..., :2] * _offset_unit(size, image_size)


def _line_of_sight(pixels: torch.Tensor, image_from_model: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cameras' places [B, N, 1, 1, 3] and what a metre of depth leads to [B, N, h, w, 3], float32, model frame."""
    model_from_image = torch.linalg.inv_ex(image_from_model).inverse.float()[:, :, None, None]
    # Multiplied and summed: autocast would round a product of matrices to bfloat16, and places by decimetres.
    ahead = (model_from_image[..., :3, :2] * pixels[..., None, :]).sum(dim=-1) + model_from_image[..., :3, 2]
    return model_from_image[..., :3, 3], ahead


def _road_depth(origin: torch.Tensor, ahead: torch.Tensor, ground: float) -> torch.Tensor:
    """Depth [B, N, h, w], metres, at which the lines of sight meet the flat road."""
    height = (origin[..., 2] - ground).clamp(min=_LOWEST)
    return height / torch.maximum(-ahead[..., 2], height / _FARTHEST)


def _side(image_from_model: torch.Tensor) -> torch.Tensor:
    """[B, N, 1, 1] float32: -1 for mirrored images, else 1."""
    return torch.linalg.det(image_from_model[..., :3, :3]).sign().float()[..., None, None]


def _direction(ahead: torch.Tensor) -> torch.Tensor:
    """Horizontal unit vectors [..., 2] of lines of sight [..., 3]."""
    return functional.normalize(ahead[..., :2], dim=-1)


def _turn(vectors: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Vectors [..., 2] turned by the angle of unit vectors [..., 2] against the x axis."""
    (x, y), (cosine, sine) = vectors.unbind(-1), direction.unbind(-1)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=-1)


def _opposite(direction: torch.Tensor) -> torch.Tensor:
    """Unit vectors [..., 2] of the negative angles."""
    return torch.stack([direction[..., 0], -direction[..., 1]], dim=-1)
