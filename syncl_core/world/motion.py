"""Motion in closed form: a route of circular arcs, driven with a piecewise linear speed. Any time can be asked for."""

from dataclasses import dataclass

import numpy as np

COMFORT = 2.5  # m/s^2, usual braking and acceleration of a car


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """Where something moves on the ground. The route continues straight before its start and beyond its last arc."""

    start: tuple[float, float, float]  # x, y in metres, yaw in radians, city frame, at arc length 0
    arcs: tuple[tuple[float, float], ...] = ()  # (length in metres, curvature in 1/m, positive = left)
    speeds: tuple[tuple[float, float], ...] = ((0.0, 0.0),)  # (seconds, m/s) knots; constant before and after
    ahead: float = 0.0  # metres along the route at t = 0; a platoon shares route and speeds and differs in this


def travelled(motion: Motion, t: np.ndarray) -> np.ndarray:
    """Arc length [T] in metres at times t [T] in seconds: the exact integral of the piecewise linear speed."""
    t = np.asarray(t, dtype=np.float64)
    knot_t, knot_v = np.array(motion.speeds).T
    knot_s = np.concatenate([[0.0], np.cumsum(np.diff(knot_t) * (knot_v[1:] + knot_v[:-1]) / 2)])
    knot_s += knot_v[0] * knot_t[0]  # from t = 0 to the first knot the speed is constant
    i = np.clip(np.searchsorted(knot_t, t, side="right") - 1, 0, len(knot_t) - 1)
    return motion.ahead + knot_s[i] + (t - knot_t[i]) * (knot_v[i] + speed(motion, t)) / 2


def speed(motion: Motion, t: np.ndarray) -> np.ndarray:
    """Speed [T] in m/s at times t [T] in seconds."""
    knot_t, knot_v = np.array(motion.speeds).T
    return np.interp(t, knot_t, knot_v)


def poses(motion: Motion, t: np.ndarray) -> np.ndarray:
    """x, y, yaw [T, 3] (city frame, metres and radians) at times t [T] in seconds."""
    left = travelled(motion, t)
    x, y, yaw = (np.full_like(left, value) for value in motion.start)
    pieces = (*motion.arcs, (np.inf, 0.0))
    for i, (length, curvature) in enumerate(pieces):
        arc = np.clip(left, -np.inf if i == 0 else 0.0, length)
        # Chord of an arc; sinc makes the straight line its limit instead of a special case.
        chord, middle = arc * np.sinc(curvature * arc / (2 * np.pi)), yaw + curvature * arc / 2
        x, y, yaw = x + chord * np.cos(middle), y + chord * np.sin(middle), yaw + curvature * arc
        left = left - arc
    return np.stack([x, y, yaw], axis=-1)


def speed_plan(cruise: float, *events: tuple[float, float, float]) -> tuple[tuple[float, float], ...]:
    """Speed knots of a drive that starts at `cruise` m/s.

    Each event (distance, speed, hold): have `speed` m/s at `distance` metres from the start, keep it for `hold`
    seconds, then accelerate back to `cruise`. An event too near for comfortable braking is braked for harder.
    """
    t, s, v = 0.0, 0.0, cruise
    knots = [(t, v)]
    for distance, target, hold in events:
        room = max(distance - s, 0.5)
        brake = min((v * v - target * target) / (2 * COMFORT), room)
        t += (room - brake) / v
        knots.append((t, v))
        t += 2 * brake / (v + target)
        knots.append((t, target))
        t += hold
        knots.append((t, target))
        rise = (cruise - target) / COMFORT
        t, s, v = t + rise, distance + target * hold + rise * (cruise + target) / 2, cruise
        knots.append((t, v))
    return tuple(knots)
