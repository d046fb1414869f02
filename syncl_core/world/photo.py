"""Pictures of a scene by its rig: each camera at its own place and time, through its own sensor."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from syncl_core.classes import CAMERAS
from syncl_core.world import render, rig, sensor
from syncl_core.world.scene import Assembly, Scene, city_from_base, place


def camera_views(
    scene: Scene, t: np.ndarray, image_width: int, image_height: int = 0, cameras: Sequence[str] = CAMERAS
) -> render.Views:
    """All cameras, again and again, each where the vehicle is at its own time: t [n * cameras] in seconds."""
    models = [rig.camera_model(camera, image_width, image_height) for camera in cameras]
    base_from_cam = np.stack([rig.base_from_cam(camera) for camera in cameras])
    sets = len(t) // len(cameras)
    return render.Views(
        city_from_cam=city_from_base(scene, t) @ np.tile(base_from_cam, (sets, 1, 1)),
        intrinsics=np.tile(np.stack([model.intrinsics for model in models]), (sets, 1, 1)),
        width=models[0].width,
        height=models[0].height,
    )


def develop(scene: Scene, rgb: torch.Tensor, t_us: np.ndarray, cameras: Sequence[str] = CAMERAS) -> torch.Tensor:
    """What the scene's sensors make of perfect pictures [V, H, W, 3] taken at t_us [V] after the scene's start."""
    gains = scene.sensor.gains
    chosen = replace(scene.sensor, gains=tuple(gains[CAMERAS.index(camera)] for camera in cameras) if gains else ())
    keys = [f"{scene.name} {int(t)} {cameras[i % len(cameras)]}" for i, t in enumerate(t_us)]
    return sensor.expose(rgb, chosen, keys)


def take(
    scene: Scene,
    assembly: Assembly,
    t_us: np.ndarray,
    image_width: int,
    image_height: int = 0,
    cameras: Sequence[str] = CAMERAS,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Pictures [n * cameras, H, W, 3] uint8 at times t_us [n * cameras] in microseconds from the scene's start."""
    t = np.asarray(t_us) / 1e6
    views = camera_views(scene, t, image_width, image_height, cameras)
    pictures = render.render(place(assembly, t), scene.light, views, device)
    return develop(scene, pictures.rgb, t_us, cameras)
