"""Who is on the road: every actor of a scene with its motion, drawn from the seed.

Collisions are avoided by rejection: a candidate is kept only if it stays clear of everything placed before it, at all
times of the scene. There is no interaction to simulate, so poses stay closed functions of time.
"""

import math
import random
from dataclasses import replace

import numpy as np

from syncl_core.world import actors, city, motion
from syncl_core.world.actors import Actor, Look
from syncl_core.world.motion import Motion, speed_plan

EGO_SIZE = (4.2, 1.75, 1.6)  # metres; the ego's base frame lies about 1.2 m behind its middle
MANEUVERS = ("straight", "left", "right", "stop")

_DISCS = 5  # a footprint is covered by so many discs along its length
_STEP = 0.2  # seconds between two collision checks
_VEHICLE = {"still": "vehicle.stopped", "moving": "vehicle.moving"}
_PARKED = {"still": "vehicle.parked", "moving": "vehicle.moving"}
_RIDDEN = {"still": "cycle.with_rider", "moving": "cycle.with_rider"}
_RIDERLESS = {"still": "cycle.without_rider", "moving": "cycle.without_rider"}
_WALKER = {"still": "pedestrian.standing", "moving": "pedestrian.moving"}


def make_ego(rng: random.Random, maneuver: str) -> Motion:
    """The ego's drive towards the crossing at the origin, along +x."""
    before, cruise = rng.uniform(36, 58), rng.uniform(7.0, 9.5)
    lane = 0 if maneuver == "left" else 1 if maneuver == "right" else rng.randrange(2)
    start = city.lane_point(-before, 0, city.LANES[lane])
    return Motion(start=start, **_course(rng, before, city.LANES[lane], cruise, maneuver))


def make_actors(rng: random.Random, ego: Motion, seconds: float) -> tuple[Actor, ...]:
    """About sixty actors around the ego's way, clear of each other for `seconds`."""
    crowd = _Crowd(seconds)
    crowd.place(ego, EGO_SIZE)
    _platoon(rng, crowd, ego)
    for count, propose in (
        (rng.randint(1, 2), _truck_and_trailer),
        (rng.randint(13, 19), _parked_vehicle),
        (rng.randint(1, 2), _driving_bus),
        (rng.randint(8, 14), _driving_vehicle),
        (rng.randint(2, 4), _driving_cycle),
        (rng.randint(2, 5), _parked_cycle),
        (rng.randint(3, 6), _crossing_pedestrian),
        (rng.randint(10, 16), _walking_pedestrian),
        (rng.randint(2, 4), _standing_group),
    ):
        for _ in range(count):
            _try(rng, crowd, propose)
    return tuple(crowd.actors)


class _Crowd:
    """The actors accepted so far and where they are at the checked times."""

    def __init__(self, seconds: float):
        self.actors: list[Actor] = []
        self._times = np.arange(0.0, seconds + _STEP, _STEP)
        self._discs = np.zeros((0, len(self._times), _DISCS, 2))
        self._radii = np.zeros(0)

    def place(self, motion: Motion, size: tuple[float, float, float], margin: float = 0.25) -> bool:
        """Reserve the way of a footprint; False, and nothing changes, if it is taken."""
        discs, radius = self._cover(motion, size)
        gaps = np.linalg.norm(self._discs[:, :, :, None] - discs[None, :, None], axis=-1).min(
            axis=(1, 2, 3), initial=1e9
        )
        if (gaps < self._radii + radius + margin).any():
            return False
        self._discs = np.concatenate([self._discs, discs[None]])
        self._radii = np.append(self._radii, radius)
        return True

    def add(self, look: Look, motion: Motion, attributes: dict[str, str], margin: float = 0.25) -> bool:
        """Add an actor if its way is free."""
        if not self.place(motion, look.size, margin):
            return False
        name = f"{len(self.actors):03d}-{look.category}"
        self.actors.append(Actor(name=name, motion=motion, **attributes, **_fields(look)))
        return True

    def _cover(self, path: Motion, size: tuple[float, float, float]) -> tuple[np.ndarray, float]:
        x, y, yaw = motion.poses(path, self._times).T[:, :, None]
        along = np.linspace(-0.5, 0.5, _DISCS) * max(size[0] - size[1], 0.0)
        return np.stack([x + along * np.cos(yaw), y + along * np.sin(yaw)], axis=-1), 0.56 * size[1]


def _fields(look: Look) -> dict:
    return {"category": look.category, "size": look.size, "parts": look.parts}


def _try(rng: random.Random, crowd: _Crowd, propose, attempts: int = 12) -> None:
    for _ in range(attempts):
        if propose(rng, crowd):
            return


def _course(rng: random.Random, before: float, lane: float, cruise: float, maneuver: str) -> dict:
    """Arcs and speeds of a drive that starts `before` metres before the crossing."""
    if maneuver in ("left", "right"):
        arcs = city.turn_arcs(before, lane, maneuver)
        corner = rng.uniform(3.5, 5.0)
        return {"arcs": arcs, "speeds": speed_plan(cruise, (arcs[0][0], corner, arcs[1][0] / corner))}
    if maneuver == "stop":
        return {"speeds": speed_plan(cruise, (before - city.STOP_LINE - 2.5, 0.0, rng.uniform(1.5, 5.0)))}
    return {"speeds": ((0.0, cruise), (rng.uniform(3, 9), cruise * rng.uniform(0.75, 1.25)))}


def _platoon(rng: random.Random, crowd: _Crowd, ego: Motion) -> None:
    """Vehicles that drive the ego's way before and behind it."""
    for gap in (rng.uniform(9, 20), rng.uniform(24, 38), rng.uniform(-24, -10)):
        if rng.random() < 0.7:
            look = _vehicle(rng)
            shift = math.copysign(look.size[0] / 2, gap)
            crowd.add(look, replace(ego, ahead=gap + shift), _VEHICLE)


def _vehicle(rng: random.Random) -> Look:
    return actors.truck(rng) if rng.random() < 0.15 else actors.car(rng)


def _drive(rng: random.Random, lane: float, slow: float = 1.0) -> Motion:
    """A random drive along one of the two streets, on the given lane."""
    heading, along = rng.randrange(4), rng.uniform(-95, 70)
    cruise, maneuver = slow * rng.uniform(5.0, 10.5), "straight"
    if along < -city.STOP_LINE - 12:
        maneuver = rng.choices(("straight", "stop", "left", "right"), (0.5, 0.25, 0.1, 0.15))[0]
    if (maneuver, lane) in (("left", city.LANES[1]), ("right", city.LANES[0])):
        maneuver = "straight"
    return Motion(start=city.lane_point(along, heading, lane), **_course(rng, -along, lane, cruise, maneuver))


def _driving_vehicle(rng: random.Random, crowd: _Crowd) -> bool:
    look, first = _vehicle(rng), _drive(rng, rng.choice(city.LANES))
    if not crowd.add(look, first, _VEHICLE):
        return False
    if rng.random() < 0.4:  # often somebody follows, sometimes the same model
        follower = look if rng.random() < 0.3 else _vehicle(rng)
        gap = (look.size[0] + follower.size[0]) / 2 + rng.uniform(3, 9)
        crowd.add(follower, replace(first, ahead=-gap), _VEHICLE)
    return True


def _driving_bus(rng: random.Random, crowd: _Crowd) -> bool:
    return crowd.add(actors.bus(rng), _drive(rng, city.LANES[1], slow=0.8), _VEHICLE, margin=0.4)


def _truck_and_trailer(rng: random.Random, crowd: _Crowd) -> bool:
    truck, trailer = actors.truck(rng), actors.trailer(rng)
    first = _drive(rng, city.LANES[1], slow=0.8)
    second = replace(first, ahead=-(truck.size[0] + trailer.size[0]) / 2 - 0.7)
    if rng.random() < 0.4:  # a trailer parked without its truck
        place = city.lane_point(rng.choice((-1, 1)) * rng.uniform(32, 75), rng.randrange(4), city.PARKING)
        return crowd.add(trailer, Motion(start=place), _PARKED)
    return crowd.add(truck, first, _VEHICLE) and crowd.add(trailer, second, _VEHICLE, margin=0.1)


def _driving_cycle(rng: random.Random, crowd: _Crowd) -> bool:
    if rng.random() < 0.5:
        return crowd.add(actors.motorcycle(rng), _drive(rng, rng.choice(city.LANES)), _RIDDEN)
    offset = city.LANES_EDGE - 0.6
    path = Motion(
        start=city.lane_point(rng.uniform(-70, 50), rng.randrange(4), offset),
        speeds=((0.0, rng.uniform(3.0, 5.5)),),
    )
    return crowd.add(actors.bicycle(rng), path, _RIDDEN)


def _parked_vehicle(rng: random.Random, crowd: _Crowd) -> bool:
    along = rng.choice((-1, 1)) * rng.uniform(city.STOP_LINE + 4, 80)
    x, y, yaw = city.lane_point(along, rng.randrange(4), city.PARKING)
    start = (x, y, yaw + rng.gauss(0, 0.02))
    look = actors.truck(rng) if rng.random() < 0.08 else actors.car(rng)
    return crowd.add(look, Motion(start=start), _PARKED, margin=0.4)


def _parked_cycle(rng: random.Random, crowd: _Crowd) -> bool:
    look = actors.bicycle(rng, ridden=False) if rng.random() < 0.6 else actors.motorcycle(rng, ridden=False)
    along = rng.choice((-1, 1)) * rng.uniform(city.STOP_LINE + 2, 60)
    x, y, yaw = city.lane_point(along, rng.randrange(4), city.KERB + 1.6)
    start = (x, y, yaw + rng.uniform(0, 2 * math.pi))
    return crowd.add(look, Motion(start=start), _RIDERLESS)


def _walking_pedestrian(rng: random.Random, crowd: _Crowd) -> bool:
    side = rng.uniform(city.KERB + 1.6, city.PAVEMENT_EDGE - 0.3)
    start = city.lane_point(rng.uniform(-70, 60), rng.randrange(4), side)
    if rng.random() < 0.5:  # against the traffic
        start = (*start[:2], start[2] + math.pi)
    pace, change = rng.uniform(0.9, 1.7), rng.uniform(1, 8)
    stops = rng.random() < 0.2
    speeds = ((0.0, pace), (change, pace), (change + 0.8, 0.0 if stops else pace))
    return crowd.add(actors.pedestrian(rng), Motion(start=start, speeds=speeds), _WALKER)


def _crossing_pedestrian(rng: random.Random, crowd: _Crowd) -> bool:
    """Waits at a zebra crossing, then walks over the street."""
    heading, side = rng.randrange(4), rng.choice((-1, 1))
    x, y, yaw = city.lane_point(rng.choice((-1, 1)) * rng.uniform(*city.ZEBRA), heading, side * (city.KERB + 0.8))
    pace, leave = rng.uniform(1.1, 1.9), rng.uniform(-8, 6)
    speeds = ((leave, 0.0), (leave + 0.6, pace)) if leave > 0 else ((0.0, pace),)
    ahead = 0.0 if leave > 0 else -leave * pace
    path = Motion(start=(x, y, yaw + side * math.pi / 2), speeds=speeds, ahead=ahead)
    return crowd.add(actors.pedestrian(rng), path, _WALKER)


def _standing_group(rng: random.Random, crowd: _Crowd) -> bool:
    side = rng.uniform(city.KERB + 1.8, city.PAVEMENT_EDGE - 0.8)
    x, y, _ = city.lane_point(rng.uniform(-50, 50), rng.randrange(4), side)
    placed = False
    for _ in range(rng.randint(2, 4)):
        start = (x + rng.uniform(-1.2, 1.2), y + rng.uniform(-1.2, 1.2), rng.uniform(-math.pi, math.pi))
        placed |= crowd.add(actors.pedestrian(rng), Motion(start=start), _WALKER, margin=0.05)
    return placed
