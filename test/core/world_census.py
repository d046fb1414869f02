"""How hard scenes are, counted from their truth. Run as a program it prints the table of docs/world.md."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from syncl_core.world import generate, motion, rig, scene, sense, splits
from syncl_core.world.truth import truth_of

KEY_FRAMES = 40
_NEAR = 45.0  # metres from the ego: where somebody is in everybody's way


class Census(NamedTuple):
    """Counts of one scene of 20 s."""

    in_range: float  # annotated actors, mean over key frames
    noticed: float  # of them with lidar points
    births: int  # actors first noticed after the first key frame
    exits: int  # actors noticed for the last time before the last key frame
    hidden: int  # times that somebody noticed before and after is not noticed at key frames in between
    look_alikes: int  # pairs of equal appearance within 8 m of each other near the ego
    crossing: int  # actors that move across the ego's direction near it
    stop_and_go: int  # actors that stand and drive (or walk), both
    classes: int  # of the seven


def census(seed: int) -> Census:
    world = generate.make_scene(seed)
    t = np.arange(KEY_FRAMES) / 2
    truth, assembly = truth_of(world, KEY_FRAMES), scene.assemble(world)
    ego = scene.city_from_base(world, t)
    points = np.array(
        [
            sense.lidar_points(scene.place(assembly, t[k : k + 1]), ego[k] @ rig.base_from_lidar(), len(world.actors))
            for k in range(KEY_FRAMES)
        ]
    )
    noticed = truth.annotated & (points > 0)
    poses = np.array([motion.poses(actor.motion, t) for actor in world.actors])  # [A, K, 3]
    near = np.linalg.norm(poses[..., :2] - ego[:, :2, 3], axis=-1) < _NEAR
    turned = np.abs(np.sin(poses[..., 2] - np.arctan2(ego[:, 1, 0], ego[:, 0, 0])))
    moving = truth.speeds.T > 0.8
    seen = [np.flatnonzero(of) for of in noticed.T if of.any()]
    stands, drives = (truth.speeds < 0.2).any(axis=0), (truth.speeds > 0.8).any(axis=0)
    return Census(
        in_range=truth.annotated.sum(axis=1).mean(),
        noticed=noticed.sum(axis=1).mean(),
        births=sum(of[0] > 0 for of in seen),
        exits=sum(of[-1] < KEY_FRAMES - 1 for of in seen),
        hidden=sum(int((np.diff(of) > 1).sum()) for of in seen),
        look_alikes=_look_alikes(world, poses, near),
        crossing=int((moving & near & (turned > math.sin(math.radians(60)))).any(axis=1).sum()),
        stop_and_go=int((stands & drives & near.any(axis=1)).sum()),
        classes=len({actor.category.split(".")[1] for actor in world.actors}),
    )


def _look_alikes(world: scene.Scene, poses: np.ndarray, near: np.ndarray) -> int:
    """Equal appearance: the same colours in the same places, whatever the exact size."""
    coats = [(a.category, tuple(p.color for p in a.parts if p.shadow)[:5]) for a in world.actors]
    count = 0
    for i, j in itertools.combinations(range(len(coats)), 2):
        if coats[i] == coats[j]:
            gap = np.linalg.norm(poses[i, :, :2] - poses[j, :, :2], axis=-1)
            count += bool(((gap < 8) & near[i] & near[j]).any())
    return count


if __name__ == "__main__":
    rows = np.array([census(seed) for seed in splits.seeds("val")])
    for name, of in zip(Census._fields, rows.T, strict=True):
        print(f"| {name} | {of.mean():.1f} | {of.min():.0f} to {of.max():.0f} |")
