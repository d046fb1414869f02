"""Who is on the road: the ego and the lanes of traffic around it, drawn from the seed."""

import math
import random
from dataclasses import dataclass, replace

from syncl_core.world import actors, city, flow
from syncl_core.world.actors import Look
from syncl_core.world.crowd import Crowd
from syncl_core.world.flow import Driver, Signal
from syncl_core.world.motion import Motion

EGO_SIZE = (4.2, 1.75, 1.6)  # metres
EGO_MIDDLE = 1.2  # metres from the ego's base frame forward to its middle
MANEUVERS = ("straight", "left", "right", "stop", "lane change", "queue")

_FIRST, _LAST = 105.0, -150.0  # metres from the crossing: lanes are filled between them
_TRAILER_GAP = 0.7  # metres
_VEHICLE = {"still": "vehicle.stopped", "moving": "vehicle.moving"}
_RIDDEN = {"still": "cycle.with_rider", "moving": "cycle.with_rider"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vehicle:
    """A driver with what is seen of it; a lorry and its trailer are one driver."""

    looks: tuple[tuple[Look, float], ...]  # and metres from the driver's middle forward to theirs
    driver: Driver
    is_ego: bool = False


def make_traffic(rng: random.Random, crowd: Crowd, maneuver: str, seconds: float) -> tuple[Motion, Signal]:
    """Fill the lanes of both streets; who is in the way of those placed before is left out. Returns the ego's way."""
    signal = _signal(rng, maneuver)
    before = rng.uniform(34, 58)
    lane = {"left": 0, "right": 1}.get(maneuver, rng.randrange(2))
    fleet = tuple(_single(rng) for _ in range(2))  # many vehicles of a scene are one of two models in one paint
    streets = {heading: _street(rng, fleet, dense=0.9 if heading == 0 else 0.65) for heading in range(4)}
    streets[0][lane] = _with_ego(rng, streets[0][lane], before, lane, maneuver)
    lanes = [(heading, i) for heading in range(4) for i in range(2)]
    # The ego's lane comes first: nobody may make the ego impossible.
    lanes.sort(key=lambda key: (key != (0, lane), rng.random()))
    ego = None
    for heading, i in lanes:
        ways = _ways(streets[heading][i], heading, i, signal, seconds, maneuver if (heading, i) == (0, lane) else "")
        for vehicle, way in sorted(zip(streets[heading][i], ways, strict=True), key=lambda both: not both[0].is_ego):
            if vehicle.is_ego:
                ego = replace(way, ahead=-EGO_MIDDLE)
                crowd.place(way, EGO_SIZE)
            else:
                _enter(crowd, vehicle, way)
    return ego, signal


def _signal(rng: random.Random, maneuver: str) -> Signal:
    """Green for the ego's street for most drives, red at first if it is to stop."""
    green = rng.uniform(8, 13)
    signal = Signal(green=green, offset=rng.uniform(0, 2))
    wait = rng.uniform(6, 10)
    return replace(signal, offset=signal.period - wait) if maneuver in ("stop", "queue") else signal


def _street(rng: random.Random, fleet: tuple[Look, ...], dense: float) -> list[list[_Vehicle]]:
    """The two lanes of one direction, foremost vehicle first; sometimes look-alikes drive side by side."""
    inner = _lane(rng, fleet, 0) if rng.random() < dense else []
    if inner and rng.random() < 0.5:
        outer = [_beside(rng, vehicle) for vehicle in inner if len(vehicle.looks) == 1]
    else:
        outer = _lane(rng, fleet, 1) if rng.random() < dense else []
    return [inner, outer]


def _beside(rng: random.Random, vehicle: _Vehicle) -> _Vehicle:
    """The same vehicle once more for the next lane, nearly level with it."""
    driver = vehicle.driver
    twin = Driver(
        at=driver.at + rng.uniform(-1.5, 1.5),
        length=driver.length,
        wish=driver.wish * rng.uniform(0.97, 1.03),
        speed=driver.speed,
    )
    return replace(vehicle, driver=twin)


def _lane(rng: random.Random, fleet: tuple[Look, ...], lane: int) -> list[_Vehicle]:
    """A filled lane: platoons with small gaps, and larger gaps between them."""
    vehicles, at, wish = [], rng.uniform(30, _FIRST), rng.uniform(6.0, 11.0)
    while at > _LAST:
        vehicle = _vehicle(rng, fleet, lane, at, wish * rng.uniform(0.9, 1.15))
        vehicles.append(vehicle)
        gap = rng.uniform(6, 12) if rng.random() < 0.55 else rng.uniform(20, 60)
        at -= vehicle.driver.length + gap
    return vehicles


def _vehicle(rng: random.Random, fleet: tuple[Look, ...], lane: int, front: float, wish: float) -> _Vehicle:
    """A vehicle whose front is at `front`. Large vehicles keep to the right."""
    kind = rng.random()
    if kind < 0.45:
        look = rng.choice(fleet)
    elif kind < 0.55:
        look = actors.motorcycle(rng)
    elif kind < 0.65 and lane == 1:
        look = actors.bus(rng)
    elif kind < 0.73 and lane == 1:
        return _articulated(rng, front, wish)
    else:
        look = _single(rng)
    at, length = front - look.size[0] / 2, look.size[0]
    side, corner = _turn(rng, lane, at)
    driver = Driver(at=at, length=length, wish=wish, speed=0.9 * wish, side=side, corner=corner)
    return _Vehicle(looks=((look, 0.0),), driver=driver)


def _articulated(rng: random.Random, front: float, wish: float) -> _Vehicle:
    """A lorry with a trailer; it drives straight on, as the trailer follows the same line."""
    truck, trailer = actors.truck(rng), actors.trailer(rng)
    length = truck.size[0] + _TRAILER_GAP + trailer.size[0]
    looks = ((truck, (length - truck.size[0]) / 2), (trailer, (trailer.size[0] - length) / 2))
    driver = Driver(at=front - length / 2, length=length, wish=0.85 * wish, speed=0.75 * wish)
    return _Vehicle(looks=looks, driver=driver)


def _single(rng: random.Random) -> Look:
    return actors.truck(rng) if rng.random() < 0.15 else actors.car(rng)


def _turn(rng: random.Random, lane: int, at: float, side: str = "") -> tuple[str, tuple[float, float, float]]:
    """A turn at the crossing from the lane that allows it, now and then or as asked for."""
    straight_on = "", (math.inf, math.inf, 0.0)
    if not side and (at > -city.STOP_LINE - 12 or rng.random() > 0.2):
        return straight_on
    side = side or ("left", "right")[lane]
    (straight, _), (arc, _) = city.turn_arcs(-at, city.LANES[lane], side)
    return side, (at + straight, at + straight + arc, rng.uniform(3.5, 5.0))


def _with_ego(rng: random.Random, lane: list[_Vehicle], before: float, index: int, maneuver: str) -> list[_Vehicle]:
    """The lane with the ego in it and nobody too near; in a queue the ones ahead are many."""
    wish = rng.uniform(7.0, 9.5)
    side, corner = _turn(rng, index, -before, maneuver if maneuver in ("left", "right") else "")
    if maneuver not in ("left", "right"):
        side, corner = "", (math.inf, math.inf, 0.0)
    ego = Driver(at=-before, length=EGO_SIZE[0], wish=wish, speed=0.9 * wish, side=side, corner=corner)
    room = 8.0 + EGO_SIZE[0] / 2
    others = [v for v in lane if abs(v.driver.at + before) > room + v.driver.length / 2]
    if maneuver == "queue":
        others = [v for v in others if v.driver.at < -before or v.driver.at > 0]
        at = -before + room
        while at < -city.STOP_LINE - 6:
            look = _single(rng)
            at += look.size[0]
            driver = Driver(at=at - look.size[0] / 2, length=look.size[0], wish=wish, speed=0.3 * wish)
            others.append(_Vehicle(looks=((look, 0.0),), driver=driver))
            at += rng.uniform(3, 6)
    return sorted([*others, _Vehicle(looks=(), driver=ego, is_ego=True)], key=lambda v: -v.driver.at)


def _ways(lane: list[_Vehicle], heading: int, index: int, signal: Signal, seconds: float, ego: str) -> list[Motion]:
    """How the middles of a lane's vehicles move; `ego`: what its ego does."""
    ways = []
    for vehicle, speeds in zip(lane, flow.simulate([v.driver for v in lane], heading, signal, seconds), strict=True):
        driver = vehicle.driver
        arcs = city.turn_arcs(-driver.at, city.LANES[index], driver.side) if driver.side else ()
        if vehicle.is_ego and ego == "lane change":
            arcs = city.lane_change(8.0, 1 if index == 1 else -1)
        ways.append(Motion(start=city.lane_point(driver.at, heading, city.LANES[index]), arcs=arcs, speeds=speeds))
    return ways


def _enter(crowd: Crowd, vehicle: _Vehicle, way: Motion) -> None:
    """A vehicle with all its parts, or none of it."""
    for look, shift in vehicle.looks:
        attributes = _RIDDEN if look.category == "vehicle.motorcycle" else _VEHICLE
        if not crowd.add(look, replace(way, ahead=shift), attributes, margin=0.3 if shift >= 0 else 0.1):
            return
