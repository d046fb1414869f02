"""Who is not in the traffic: parked rows, cyclists at the kerb, people on pavements, in groups and on crossings."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from syncl_core.world import actors, city, motion
from syncl_core.world.crowd import Crowd
from syncl_core.world.flow import Signal
from syncl_core.world.motion import Motion

_PARKED = {"still": "vehicle.parked", "moving": "vehicle.moving"}
_RIDDEN = {"still": "cycle.with_rider", "moving": "cycle.with_rider"}
_RIDERLESS = {"still": "cycle.without_rider", "moving": "cycle.without_rider"}
_WALKER = {"still": "pedestrian.standing", "moving": "pedestrian.moving"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """What a proposal needs to know."""

    rng: random.Random
    crowd: Crowd
    signal: Signal
    ego_places: np.ndarray  # [T, 3] x, y, yaw of the ego through the scene
    seconds: float

    def spot(self, clear: float) -> tuple[float, int]:
        """Place along a street near the ego's way, at least `clear` metres from crossings, and a heading of it."""
        while True:
            x, y, _ = self.ego_places[self.rng.randrange(len(self.ego_places))]
            heading, along = (0, x) if abs(x) >= abs(y) else (1, y)
            along += self.rng.uniform(-35, 35)
            if abs(along - round(along / city.BLOCK) * city.BLOCK) > clear:
                return (along, heading) if self.rng.random() < 0.5 else (-along, heading + 2)

    def red_time(self, heading: int) -> float:
        """A moment at which the traffic along `heading` has to stop and will have to for a while."""
        for _ in range(40):
            t = self.rng.uniform(-4.0, self.seconds - 4.0)
            if not any(self.signal.is_green(heading, t + ahead) for ahead in (0.0, 3.0, 6.0)):
                return t
        return self.rng.uniform(0.0, self.seconds)


def add_bystanders(rng: random.Random, crowd: Crowd, ego: Motion, signal: Signal, seconds: float) -> None:
    """Everybody else around the ego's way."""
    places = motion.poses(ego, np.linspace(0.0, seconds, 41))
    site = _Site(rng=rng, crowd=crowd, signal=signal, ego_places=places, seconds=seconds)
    busy = rng.uniform(0.6, 1.5)
    for count, propose in (
        (rng.randint(3, 5), _parked_row),
        (rng.randint(1, 2), _standing_bus),
        (rng.randint(0, 1), _parked_trailer),
        (rng.randint(2, 4), _cyclist),
        (rng.randint(1, 3), _parked_cycle),
        (round(busy * rng.randint(2, 4)), _crossing_group),
        (round(busy * rng.randint(1, 4)), _between_parked),
        (round(busy * rng.randint(5, 10)), _walkers),
        (round(busy * rng.randint(1, 3)), _standing_group),
    ):
        for _ in range(count):
            _try(site, propose)


def _try(site: _Site, propose: Callable[[_Site], bool], attempts: int = 6) -> None:
    for _ in range(attempts):
        if propose(site):
            return


def _parked_row(site: _Site) -> bool:
    """Two to six vehicles bumper to bumper at the kerb, sometimes of one model."""
    rng = site.rng
    along, heading = site.spot(city.STOP_LINE + 8)
    same, placed = (actors.car(rng) if rng.random() < 0.4 else None), False
    for _ in range(rng.randint(2, 6)):
        look = same or (actors.truck(rng) if rng.random() < 0.1 else actors.car(rng))
        x, y, yaw = city.lane_point(along - look.size[0] / 2, heading, city.PARKING + rng.uniform(-0.1, 0.1))
        start = (x, y, yaw + rng.gauss(0, 0.02))
        if abs(along - round(along / city.BLOCK) * city.BLOCK) > city.STOP_LINE + 2:
            placed |= site.crowd.add(look, Motion(start=start), _PARKED, margin=0.2)
        along -= look.size[0] + rng.uniform(0.6, 1.6)
    return placed


def _standing_bus(site: _Site) -> bool:
    """A bus at its stop hides what is behind it; people wait there or come out from behind it."""
    rng = site.rng
    along, heading = site.spot(city.STOP_LINE + 10)
    place = city.lane_point(along, heading, city.PARKING - 0.1)
    leave = rng.uniform(-2, 25)
    speeds = ((leave, 0.0), (leave + 5, 7.0)) if 0 < leave < 20 and rng.random() < 0.4 else ((0.0, 0.0),)
    bus = actors.bus(rng)
    if not site.crowd.add(bus, Motion(start=place, speeds=speeds), {**_PARKED, "still": "vehicle.stopped"}):
        return False
    for _ in range(rng.randint(1, 4)):
        spot = city.lane_point(along + rng.uniform(-0.5, 0.5) * bus.size[0], heading, city.KERB + rng.uniform(1.5, 3))
        start = (*spot[:2], rng.uniform(-math.pi, math.pi))
        site.crowd.add(actors.pedestrian(rng), Motion(start=start), _WALKER, margin=0.1)
    ahead = along + bus.size[0] / 2 + rng.uniform(0.8, 2.0)
    _cross(site, ahead, heading, 1, leave=rng.uniform(0, site.seconds - 4))
    return True


def _parked_trailer(site: _Site) -> bool:
    along, heading = site.spot(city.STOP_LINE + 8)
    place = city.lane_point(along, heading, city.PARKING)
    return site.crowd.add(actors.trailer(site.rng), Motion(start=place), _PARKED)


def _cyclist(site: _Site) -> bool:
    """Rides along the edge of the street, through the crossing when it is green at first."""
    rng = site.rng
    along, heading = site.spot(0.0)
    start = city.lane_point(along, heading, city.LANES_EDGE - 0.35)
    path = Motion(start=start, speeds=((0.0, rng.uniform(3.0, 6.0)), (rng.uniform(4, 15), rng.uniform(2.5, 6.0))))
    return site.crowd.add(actors.bicycle(rng), path, _RIDDEN, margin=0.15)


def _parked_cycle(site: _Site) -> bool:
    rng = site.rng
    look = actors.bicycle(rng, ridden=False) if rng.random() < 0.6 else actors.motorcycle(rng, ridden=False)
    along, heading = site.spot(city.STOP_LINE + 2)
    x, y, yaw = city.lane_point(along, heading, city.KERB + 1.6)
    return site.crowd.add(look, Motion(start=(x, y, yaw + rng.uniform(0, 2 * math.pi))), _RIDERLESS, margin=0.1)


def _walkers(site: _Site) -> bool:
    """One to three people side by side on the pavement; some stop, some turn round the corner later."""
    rng = site.rng
    along, heading = site.spot(city.HOUSES)
    side = rng.uniform(city.KERB + 1.9, city.PAVEMENT_EDGE - 0.3)
    back, wears = rng.random() < 0.5, actors.outfit(rng) if rng.random() < 0.4 else None
    pace, change = rng.uniform(0.9, 1.7), rng.uniform(1, 12)
    after = rng.choice((0.0, pace, pace, 1.2 * pace))
    speeds = ((0.0, pace), (change, pace), (change + 0.8, after))
    placed = False
    for i in range(rng.choice((1, 1, 2, 2, 3))):
        x, y, yaw = city.lane_point(along + rng.uniform(-0.3, 0.3), heading, side - 0.85 * i)
        path = Motion(start=(x, y, yaw + math.pi * back), speeds=speeds)
        placed |= site.crowd.add(actors.pedestrian(rng, wears), path, _WALKER, margin=0.05)
    return placed


def _crossing_group(site: _Site) -> bool:
    """A crowd waits at a zebra crossing and walks over the street while its traffic is held."""
    rng = site.rng
    heading, side, end = rng.randrange(4), rng.choice((-1, 1)), rng.choice((-1, 1))
    leave, pace = site.red_time(heading), rng.uniform(1.2, 1.8)
    wears = actors.outfit(rng) if rng.random() < 0.4 else None
    placed = False
    for _ in range(rng.randint(2, 7)):
        along = end * rng.uniform(*city.ZEBRA)
        placed |= _cross(site, along, heading, side, leave + rng.uniform(0, 1.5), pace * rng.uniform(0.95, 1.05), wears)
    return placed


def _between_parked(site: _Site) -> bool:
    """Somebody steps out onto the street between parked vehicles."""
    along, heading = site.spot(city.STOP_LINE + 4)
    return _cross(site, along, heading, 1, leave=site.rng.uniform(0, site.seconds - 4))


def _cross(site: _Site, along: float, heading: int, side: int, leave: float, pace: float = 1.6, wears=None) -> bool:
    """Waits on the pavement (side 1: right of the street), then walks over the street and stands beyond it."""
    rng = site.rng
    x, y, yaw = city.lane_point(along, heading, side * (city.KERB + rng.uniform(0.5, 2.5)))
    walk = (2 * city.KERB + 2.5) / pace
    speeds = ((leave, 0.0), (leave + 0.6, pace), (leave + walk, pace), (leave + walk + 0.6, 0.0))
    path = Motion(start=(x, y, yaw + side * math.pi / 2), speeds=speeds)
    return site.crowd.add(actors.pedestrian(rng, wears), path, _WALKER, margin=0.05)


def _standing_group(site: _Site) -> bool:
    rng = site.rng
    along, heading = site.spot(city.HOUSES)
    x, y, _ = city.lane_point(along, heading, rng.uniform(city.KERB + 2.0, city.PAVEMENT_EDGE - 0.8))
    wears, placed = actors.outfit(rng) if rng.random() < 0.4 else None, False
    for _ in range(rng.randint(2, 5)):
        start = (x + rng.uniform(-1.3, 1.3), y + rng.uniform(-1.3, 1.3), rng.uniform(-math.pi, math.pi))
        placed |= site.crowd.add(actors.pedestrian(rng, wears), Motion(start=start), _WALKER, margin=0.05)
    return placed
