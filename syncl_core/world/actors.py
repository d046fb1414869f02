"""What the seven tracking classes look like: boxes in boxes.

A `Look` is drawn in fractions of the object's own bounding box (x forward, y left, z up, each from -0.5 to 0.5), so its
parts never leave the annotated box. Sizes and colours are drawn per actor.
"""

import random
from dataclasses import dataclass, replace

from syncl_core.world.motion import Motion

Color = tuple[float, float, float]

GLASS: Color = (0.10, 0.13, 0.17)
RUBBER: Color = (0.06, 0.06, 0.07)
STEEL: Color = (0.34, 0.35, 0.37)
HEADLIGHT: Color = (1.00, 0.98, 0.86)
TAILLIGHT: Color = (0.85, 0.06, 0.05)
PAINTS: tuple[Color, ...] = (
    (0.86, 0.87, 0.88),
    (0.60, 0.62, 0.65),
    (0.16, 0.17, 0.19),
    (0.62, 0.10, 0.09),
    (0.12, 0.25, 0.52),
    (0.15, 0.37, 0.24),
    (0.80, 0.62, 0.16),
    (0.46, 0.33, 0.22),
)
CLOTHES: tuple[Color, ...] = (
    (0.72, 0.16, 0.14),
    (0.15, 0.32, 0.62),
    (0.13, 0.14, 0.18),
    (0.84, 0.83, 0.78),
    (0.25, 0.45, 0.28),
    (0.88, 0.66, 0.16),
    (0.42, 0.24, 0.46),
    (0.45, 0.46, 0.48),
)
SKIN: tuple[Color, ...] = ((0.91, 0.74, 0.62), (0.76, 0.57, 0.44), (0.48, 0.33, 0.25))
VEST: Color = (0.93, 0.86, 0.10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A box of an actor, in fractions of the actor's own box: from `low` to `high`."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    color: Color
    swing: float = 0.0  # amplitude of a stride along x, fraction of the actor's length; the sign sets the phase
    glow: float = 0.0  # light of its own, in multiples of `color`
    shadow: bool = True  # throws one; small parts next to large ones need not


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One annotated object."""

    name: str  # unique in its scene
    category: str  # nuScenes category
    size: tuple[float, float, float]  # length, width, height in metres
    parts: tuple[Part, ...]
    motion: Motion
    still: str  # nuScenes attribute while standing
    moving: str  # and while moving


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A class member's size and parts before it is placed."""

    category: str
    size: tuple[float, float, float]
    parts: tuple[Part, ...]


def _part(x: tuple[float, float], y: float, z: tuple[float, float], color: Color, **more) -> Part:
    return Part(low=(x[0], -y, z[0]), high=(x[1], y, z[1]), color=color, **more)


def _pair(
    x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], color: Color, **more
) -> tuple[Part, Part]:
    """A part and its mirror image."""
    return (
        Part(low=(x[0], y[0], z[0]), high=(x[1], y[1], z[1]), color=color, **more),
        Part(low=(x[0], -y[1], z[0]), high=(x[1], -y[0], z[1]), color=color, **more),
    )


def _jitter(rng: random.Random, *typical: float, spread: float = 0.08) -> tuple[float, ...]:
    scale = rng.uniform(1 - spread, 1 + spread)
    return tuple(value * scale * rng.uniform(1 - spread / 3, 1 + spread / 3) for value in typical)


def _lights(z: tuple[float, float]) -> tuple[Part, ...]:
    front = _pair((0.47, 0.5), (0.27, 0.44), z, HEADLIGHT, glow=0.7, shadow=False)
    return front + _pair((-0.5, -0.47), (0.30, 0.45), z, TAILLIGHT, glow=0.6, shadow=False)


def _wheels(radius: float, top: float, *centers: float) -> tuple[Part, ...]:
    """A pair of wheels at each of the places along x."""
    return tuple(
        part
        for x in centers
        for part in _pair((x - radius, x + radius), (0.37, 0.5), (-0.5, top), RUBBER, shadow=False)
    )


def car(rng: random.Random) -> Look:
    """A saloon, an estate, a van or a pickup: the cabin's ends and the roof's height differ."""
    paint = rng.choice(PAINTS)
    shape = rng.choices(("saloon", "estate", "van", "pickup"), (0.5, 0.25, 0.15, 0.1))[0]
    back, front = {"saloon": (-0.38, 0.24), "estate": (-0.49, 0.24), "van": (-0.49, 0.42), "pickup": (-0.06, 0.26)}[
        shape
    ]
    belt = 0.16 if shape == "van" else 0.06
    parts = (
        _part((-0.48, 0.48), 0.48, (-0.36, belt), paint),
        _part((back, front), 0.44, (belt, 0.42), GLASS),
        _part((back + 0.01, front - 0.09), 0.43, (0.42, 0.50), paint),
        _part((-0.02, 0.03), 0.45, (belt, 0.42), paint, shadow=False),
        *((_part((-0.46, -0.12), 0.46, (belt, 0.44), paint),) if shape == "van" else ()),  # no windows at the back
        *_wheels(0.075, -0.10, 0.31, -0.30),
        *_lights((-0.12, 0.0)),
    )
    typical = {"saloon": (4.5, 1.87, 1.52), "estate": (4.6, 1.90, 1.72), "van": (5.2, 1.98, 2.1),
               "pickup": (5.3, 1.98, 1.85)}[shape]  # fmt: skip
    return Look(category="vehicle.car", size=_jitter(rng, *typical), parts=parts)


def truck(rng: random.Random) -> Look:
    paint, cargo = rng.choice(PAINTS), rng.choice(((0.83, 0.84, 0.85), *PAINTS))
    parts = (
        _part((0.30, 0.49), 0.47, (-0.36, 0.28), paint),
        _part((0.36, 0.495), 0.44, (0.02, 0.24), GLASS),
        _part((-0.49, 0.27), 0.5, (-0.24, 0.5), cargo),
        _part((-0.48, 0.45), 0.30, (-0.38, -0.24), STEEL),
        *_wheels(0.06, -0.20, 0.36, -0.22, -0.36),
        *_lights((-0.32, -0.26)),
    )
    return Look(category="vehicle.truck", size=_jitter(rng, 7.4, 2.5, 3.2, spread=0.15), parts=parts)


def bus(rng: random.Random) -> Look:
    paint, roof = rng.choice(PAINTS[3:]), rng.choice(PAINTS[:2])
    parts = (
        _part((-0.49, 0.49), 0.49, (-0.40, -0.02), paint),
        _part((-0.495, 0.495), 0.485, (-0.02, 0.33), GLASS),
        *(_part((x - 0.008, x + 0.008), 0.49, (-0.02, 0.33), paint, shadow=False) for x in (-0.4, -0.2, 0.0, 0.2, 0.4)),
        _part((-0.49, 0.49), 0.49, (0.33, 0.5), roof),
        *_wheels(0.045, -0.22, 0.32, -0.28),
        *_lights((-0.30, -0.23)),
    )
    return Look(category="vehicle.bus.rigid", size=_jitter(rng, 11.2, 2.9, 3.4), parts=parts)


def trailer(rng: random.Random) -> Look:
    cargo = rng.choice(((0.83, 0.84, 0.85), *PAINTS))
    stripe = rng.choice(CLOTHES)
    parts = (
        _part((-0.49, 0.42), 0.5, (-0.22, 0.5), cargo),
        _part((-0.492, 0.422), 0.5, (-0.02, 0.08), stripe, shadow=False),
        _part((-0.48, 0.5), 0.12, (-0.34, -0.22), STEEL),
        *_wheels(0.05, -0.24, -0.24, -0.37),
        *_pair((-0.5, -0.485), (0.32, 0.46), (-0.30, -0.24), TAILLIGHT, glow=0.6, shadow=False),
    )
    return Look(category="vehicle.trailer", size=_jitter(rng, 10.5, 2.7, 3.6), parts=parts)


def _rider(rng: random.Random, seat: float) -> tuple[Part, ...]:
    shirt, trousers, skin = rng.choice(CLOTHES), rng.choice(CLOTHES), rng.choice(SKIN)
    return (
        *_pair((-0.13, 0.08), (0.12, 0.34), (-0.32, seat), trousers),
        _part((-0.16, 0.02), 0.42, (seat, 0.33), shirt),
        *_pair((-0.02, 0.26), (0.34, 0.48), (seat + 0.14, seat + 0.22), shirt, shadow=False),
        _part((-0.11, 0.03), 0.20, (0.34, 0.5), skin),
    )


def motorcycle(rng: random.Random, ridden: bool = True) -> Look:
    paint = rng.choice(PAINTS[2:])
    top = 0.02 if ridden else 0.35  # the box of a ridden one is taller, the machine itself is not
    parts = (
        _part((0.20, 0.49), 0.12, (-0.5, -0.5 + 0.7 * (top + 0.5)), RUBBER),
        _part((-0.49, -0.20), 0.14, (-0.5, -0.5 + 0.7 * (top + 0.5)), RUBBER),
        _part((-0.36, 0.26), 0.25, (-0.5 + 0.4 * (top + 0.5), top), paint),
        _part((0.22, 0.27), 0.5, (top, top + 0.06), STEEL),
        _part((0.27, 0.33), 0.16, (top - 0.08, top), HEADLIGHT, glow=0.7, shadow=False),
        _part((-0.42, -0.36), 0.14, (top - 0.08, top - 0.02), TAILLIGHT, glow=0.6, shadow=False),
        *(_rider(rng, top) if ridden else ()),
    )
    size = _jitter(rng, 2.1, 0.80, 1.75) if ridden else _jitter(rng, 2.1, 0.80, 1.15)
    return Look(category="vehicle.motorcycle", size=size, parts=parts)


def bicycle(rng: random.Random, ridden: bool = True) -> Look:
    paint = rng.choice(PAINTS[3:])
    top = 0.02 if ridden else 0.42
    wheel = -0.5 + 0.72 * (top + 0.5)
    parts = (
        _part((0.12, 0.5), 0.06, (-0.5, wheel), RUBBER),
        _part((-0.5, -0.12), 0.06, (-0.5, wheel), RUBBER),
        _part((-0.30, 0.30), 0.08, (wheel - 0.12, wheel), paint),
        _part((-0.22, -0.08), 0.16, (wheel, top), RUBBER),
        _part((0.24, 0.29), 0.5, (top, top + 0.05), STEEL),
        *(_rider(rng, top) if ridden else ()),
    )
    size = _jitter(rng, 1.75, 0.60, 1.72) if ridden else _jitter(rng, 1.75, 0.55, 1.10)
    return Look(category="vehicle.bicycle", size=size, parts=parts)


Outfit = tuple[Color, Color]  # shirt and trousers


def outfit(rng: random.Random) -> Outfit:
    return rng.choice(CLOTHES), rng.choice(CLOTHES)


def pedestrian(rng: random.Random, wears: Outfit | None = None) -> Look:
    """Somebody on foot; `wears` dresses several people alike."""
    kind = rng.choices(("adult", "child", "construction_worker"), (0.82, 0.1, 0.08))[0]
    shirt, trousers = wears or outfit(rng)
    skin = rng.choice(SKIN)
    shirt = VEST if kind == "construction_worker" else shirt
    hair = VEST if kind == "construction_worker" else rng.choice(((0.10, 0.07, 0.05), (0.42, 0.28, 0.14)))
    leg, arm = (0.06, 0.40), (0.34, 0.50)
    left, right = _pair((-0.14, 0.14), leg, (-0.5, -0.02), trousers)
    arm_left, arm_right = _pair((-0.09, 0.09), arm, (-0.08, 0.31), shirt, shadow=False)
    parts = (
        replace(left, swing=0.28),
        replace(right, swing=-0.28),
        replace(arm_left, swing=-0.25),
        replace(arm_right, swing=0.25),
        _part((-0.20, 0.20), 0.35, (-0.04, 0.34), shirt),
        _part((-0.13, 0.16), 0.17, (0.35, 0.45), skin),
        _part((-0.16, 0.14), 0.18, (0.44, 0.5), hair, shadow=False),
    )
    height = rng.uniform(1.1, 1.4) if kind == "child" else rng.uniform(1.58, 1.88)
    size = (0.42 * height, 0.37 * height, height)
    return Look(category=f"human.pedestrian.{kind}", size=size, parts=parts)
