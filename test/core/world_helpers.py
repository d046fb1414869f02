"""What tests ask of the synthetic world and no program does: an actor's box, a speed, the depths behind a picture."""

import numpy as np
import pytest
import torch

from syncl_core.world import motion, render
from syncl_core.world.actors import Actor
from syncl_core.world.motion import Motion
from syncl_core.world.scene import Boxes, Light


def actor_poses(actor: Actor, t: np.ndarray) -> np.ndarray:
    """x, y, z of the box centre and yaw [T, 4], city frame, at times t [T] in seconds."""
    x, y, yaw = motion.poses(actor.motion, t).T
    return np.stack([x, y, np.full_like(x, actor.size[2] / 2), yaw], axis=-1)


def speed(path: Motion, t: np.ndarray) -> np.ndarray:
    """Speed [T] in m/s of one mover at times t [T] in seconds."""
    return np.interp(t, *np.array(path.speeds).T)


def rendered_with_depth(boxes: Boxes, light: Light, views: render.Views) -> tuple[render.Pictures, torch.Tensor]:
    """The pictures, and the depths [V, H, W] that their colours are mixed from; a picture does not keep them."""
    mix, seen = render.shading.colors, []

    def colors(light, paint, pixels, tiles, rays, depth, *others):
        seen.append((pixels, tiles, depth.view(len(tiles), -1)))
        return mix(light, paint, pixels, tiles, rays, depth, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render.shading, "colors", colors)
        pictures = render.render(boxes, light, views)
    depths = torch.cat([depth for _, _, depth in seen])
    order = torch.cat([tiles for _, tiles, _ in seen]).argsort()
    return pictures, render._untile(depths[order], seen[0][0], views)
