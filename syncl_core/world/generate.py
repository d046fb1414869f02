"""A scene from a seed."""

import math
import random

import numpy as np

from syncl_core import geometry
from syncl_core.world import bystanders, motion, scenery, splits, traffic, weather
from syncl_core.world.actors import Actor
from syncl_core.world.crowd import Crowd
from syncl_core.world.motion import Motion
from syncl_core.world.scene import Block, Scene

SCENE_SECONDS = 20.0  # a shorter scene is the beginning of one of this length, whatever it is made for
MAP_CENTER = (200.0, 200.0)  # metres, global frame: the crossing in the middle of the map
MAP_YAW = 0.4  # radians, global frame: direction of the streets

_REACH = 75.0  # metres; actors that never come so near to the ego are left out
_MANEUVER_TEXT = {
    "straight": "ego drives over a crossing",
    "left": "ego turns left",
    "right": "ego turns right",
    "stop": "ego stops at a crossing and drives on",
    "lane change": "ego changes the lane",
    "queue": "ego waits in a queue",
}


def make_scene(seed: int, seconds: float = SCENE_SECONDS) -> Scene:
    """The scene of a seed, in which traffic stays clear of itself for `seconds`, at least SCENE_SECONDS."""
    seconds = max(seconds, SCENE_SECONDS)
    rng = random.Random(f"syncl-world {seed}")
    maneuver = rng.choice(traffic.MANEUVERS)
    daytime, light = weather.make_light(rng)
    blocks = scenery.make_scenery(rng)
    crowd = Crowd(seconds)
    for trunk in filter(_stands_on_pavement, blocks):
        crowd.place(Motion(start=(*trunk.center[:2], trunk.yaw)), trunk.size, margin=0.0)
    ego, signal = traffic.make_traffic(rng, crowd, maneuver, seconds)
    bystanders.add_bystanders(rng, crowd, ego, signal, seconds)
    people = _near(tuple(crowd.actors), ego, seconds)
    # The street grid looks the same after a quarter turn, so headings vary while all scenes share one map.
    yaw = MAP_YAW + rng.randrange(4) * math.pi / 2
    return Scene(
        name=splits.scene_name(seed),
        description=f"Synthetic, not nuScenes data: {daytime}, {_MANEUVER_TEXT[maneuver]}, {len(people)} actors",
        actors=people,
        scenery=blocks,
        ego=ego,
        light=light,
        global_from_city=geometry.transform(np.array([*MAP_CENTER, 0.0]), geometry.quaternion_from_yaw(yaw)),
        sensor=weather.make_sensor(rng, daytime),
    )


def _stands_on_pavement(block: Block) -> bool:
    """Trunks and posts, in nobody's way but that of people."""
    return block.center[2] <= block.size[2] / 2 and max(block.size[:2]) < 1.0


def _near(actors: tuple[Actor, ...], ego: Motion, seconds: float) -> tuple[Actor, ...]:
    t = np.linspace(0.0, seconds, 41)
    at = motion.poses_of(motion.stack([a.motion for a in actors]), t)[..., :2]
    close = np.linalg.norm(at - motion.poses(ego, t)[:, :2], axis=-1).min(axis=1) < _REACH
    return tuple(actor for actor, kept in zip(actors, close, strict=True) if kept)
