"""From what cells see to boxes and back: against plane intersections in float64, and the round trip."""

import math

import numpy as np
import pytest
import torch
from train_fixture import ToySource, toy_config

from syncl_core.data.clips import ClipDataset, collate
from syncl_core.losses.dense_targets import dense_targets
from syncl_core.models import lift

SIZE, IMAGE, GROUND = (5, 8), (40, 64), -1.2


def _clip():
    dataset = ClipDataset(ToySource(), toy_config(), augment=False)
    return collate([dataset[0], dataset[1]])


def _slow_box(view, projection, pixel):
    """One box code from three planes that meet in the foot of the box: two through the pixel, and the road."""
    cell = 8.0
    u, v = pixel[0] + 2 * cell * view[0], pixel[1] + 2 * cell * view[1]
    p = np.asarray(projection, dtype=np.float64)
    through = np.stack([p[0] - u * p[2], p[1] - v * p[2]])
    camera = np.linalg.solve(p[:3, :3], -p[:3, 3])
    ahead = np.cross(through[0, :3], through[1, :3])
    ahead /= p[2, :3] @ ahead  # one metre of depth
    height = max(camera[2] - GROUND, 0.1)
    if -ahead[2] * 80 > height:
        planes = np.concatenate([through, [[0, 0, 1, -(camera[2] - height)]]])
        depth = p[2] @ np.append(np.linalg.solve(planes[:, :3], -planes[:, 3]), 1.0)
    else:
        depth = 80.0
    depth *= math.exp(min(max(0.2 * view[2], -2), 2))
    planes = np.concatenate([through, [p[2] - np.array([0, 0, 0, depth])]])
    foot = np.linalg.solve(planes[:, :3], -planes[:, 3])
    log_w, log_l, log_h = np.clip(view[3:6], -3, 4)
    yaw = math.atan2(view[6], view[7]) + math.atan2(ahead[1], ahead[0])
    along, across = 5 * view[8], 5 * view[9]
    velocity = [
        math.cos(yaw) * along - math.sin(yaw) * across,
        math.sin(yaw) * along + math.cos(yaw) * across,
    ]
    length = math.hypot(view[6], view[7])
    angle = -yaw - math.pi / 2
    turned = [length * math.sin(angle), length * math.cos(angle)]
    return [foot[0], foot[1], log_w, log_l, foot[2] + math.exp(log_h) / 2, log_h, *turned, *velocity]


@torch.no_grad()
def test_lifting_equals_the_planes_that_meet():
    matrix = _clip().frames[0].image_from_model
    views = torch.randn(2, 3, *SIZE, 10, generator=torch.Generator().manual_seed(0)) * 0.7
    views[..., 2] *= 5
    codes = lift.lift(views, matrix, IMAGE, GROUND)
    pixels = lift.cell_pixels(SIZE, IMAGE, views.device)
    for b, n, i, j in np.ndindex(2, 3, *SIZE):
        slow = _slow_box(views[b, n, i, j].double().numpy(), matrix[b, n], pixels[i, j].numpy())
        np.testing.assert_allclose(codes[b, n, i, j].numpy(), slow, rtol=2e-3, atol=2e-3)


@torch.no_grad()
@pytest.mark.parametrize("ground", [-1.84, -1.2])
def test_there_and_back(ground):
    """Views of real boxes lift to the boxes, wherever the road is thought to be."""
    clip = _clip()
    frame, targets = clip.frames[0], clip.targets[0]
    wanted = dense_targets(frame, targets, SIZE, IMAGE)
    shown = wanted.owner >= 0
    code = targets.box[torch.arange(2).view(-1, 1, 1, 1), wanted.owner.clamp(min=0)]
    views = lift.view_of(code, frame.image_from_model, IMAGE, ground)
    back = lift.lift(views, frame.image_from_model, IMAGE, ground)
    assert shown.any()
    torch.testing.assert_close(back[shown], code[shown], atol=1e-3, rtol=1e-4)
    ours = lift.log_depth(views, frame.image_from_model, IMAGE, ground)
    foot = torch.cat([code[..., :2], code[..., 4:5] - code[..., 5:6].exp() / 2], dim=-1).double()
    row = frame.image_from_model[:, :, None, None, 2]
    depth = (row[..., :3] * foot).sum(dim=-1) + row[..., 3]
    torch.testing.assert_close(ours[shown], depth[shown].log().float(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_mirrored_images_have_mirrored_views_of_the_same_boxes():
    """Left and right, the side a thing faces and the way it drifts change sign; what is lifted stays where it is."""
    views = torch.randn(2, 3, *SIZE, 10, generator=torch.Generator().manual_seed(2)) * 0.7
    matrix = _clip().frames[0].image_from_model
    mirror = torch.eye(4, dtype=torch.float64)
    mirror[0, 0], mirror[0, 2] = -1.0, IMAGE[1]
    signs = torch.tensor([-1.0, 1, 1, 1, 1, 1, -1, 1, 1, -1])
    straight = lift.lift(views, matrix, IMAGE, GROUND)
    mirrored = lift.lift(views.flip(3) * signs, mirror @ matrix, IMAGE, GROUND).flip(3)
    torch.testing.assert_close(mirrored, straight, atol=1e-3, rtol=1e-3)
    seen = lift.view_of(straight.flip(3), mirror @ matrix, IMAGE, GROUND).flip(3) * signs
    torch.testing.assert_close(seen, lift.view_of(straight, matrix, IMAGE, GROUND), atol=1e-3, rtol=1e-3)


def test_gradients_are_finite_everywhere():
    """Also at and above the horizon, and for absurd outputs of an untrained network."""
    matrix = _clip().frames[0].image_from_model
    views = (torch.randn(2, 3, *SIZE, 10, generator=torch.Generator().manual_seed(1)) * 30).requires_grad_()
    codes = lift.lift(views, matrix, IMAGE, -1.84)
    (codes.square().mean() + lift.log_depth(views, matrix, IMAGE, -1.84).mean()).backward()
    assert torch.isfinite(codes).all() and torch.isfinite(views.grad).all()
