"""A scene from a seed."""

import math
import random

import numpy as np

from syncl_core import geometry
from syncl_core.world import scenery, traffic
from syncl_core.world.scene import Scene

MAP_CENTER = (200.0, 200.0)  # metres, global frame: the crossing in the middle of the map
MAP_YAW = 0.4  # radians, global frame: direction of the streets

_MANEUVER_TEXT = {
    "straight": "ego drives over a crossing",
    "left": "ego turns left",
    "right": "ego turns right",
    "stop": "ego stops at a crossing and drives on",
}


def make_scene(seed: int, seconds: float) -> Scene:
    """The scene of a seed: the same value on every machine. `seconds` is how long traffic must stay clear of itself."""
    rng = random.Random(f"syncl-world {seed}")
    maneuver = rng.choice(traffic.MANEUVERS)
    ego = traffic.make_ego(rng, maneuver)
    people = traffic.make_actors(rng, ego, seconds)
    # The street grid looks the same after a quarter turn, so headings vary while all scenes share one map.
    yaw = MAP_YAW + rng.randrange(4) * math.pi / 2
    return Scene(
        name=f"world-{seed:04d}",
        description=f"Synthetic, not nuScenes data: {_MANEUVER_TEXT[maneuver]}, {len(people)} actors",
        actors=people,
        scenery=scenery.make_scenery(rng),
        ego=ego,
        light=scenery.make_light(rng),
        global_from_city=geometry.transform(np.array([*MAP_CENTER, 0.0]), geometry.quaternion_from_yaw(yaw)),
    )
