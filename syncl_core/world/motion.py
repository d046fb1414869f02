"""Motion in closed form: a route of circular arcs, driven with a piecewise linear speed. Any time can be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """Where something moves on the ground. The route continues straight before its start and beyond its last arc."""

    start: tuple[float, float, float]  # x, y in metres, yaw in radians, city frame, at arc length 0
    arcs: tuple[tuple[float, float], ...] = ()  # (length in metres, curvature in 1/m, positive = left)
    speeds: tuple[tuple[float, float], ...] = ((0.0, 0.0),)  # (seconds, m/s) knots; constant before and after
    ahead: float = 0.0  # metres along the route at t = 0; a platoon shares route and speeds and differs in this


@dataclass(frozen=True, slots=True, kw_only=True)
class Motions:
    """The motions of A movers as arrays, shorter ones padded (N arcs, K knots)."""

    start: np.ndarray  # [A, 3]
    arcs: np.ndarray  # [A, N, 2]
    knot_t: np.ndarray  # [A, K] seconds
    knot_v: np.ndarray  # [A, K] m/s
    knot_s: np.ndarray  # [A, K] metres along the route
    slope: np.ndarray  # [A, K] m/s^2 from a knot to the next


def stack(motions: Sequence[Motion]) -> Motions:
    """One value for all; padding changes no motion."""
    knots = max((len(m.speeds) for m in motions), default=1)
    arcs = max((len(m.arcs) for m in motions), default=0)
    # Padding knots lie one second apart at the last speed, padding arcs have no length.
    padded = [(*m.speeds, *((m.speeds[-1][0] + i + 1, m.speeds[-1][1]) for i in range(knots - len(m.speeds))))
              for m in motions]  # fmt: skip
    knot_t, knot_v = np.array(padded, dtype=np.float64).reshape(len(padded), knots, 2).transpose(2, 0, 1)
    step, rise = np.diff(knot_t), np.diff(knot_v)
    knot_s = np.cumsum(step * (knot_v[:, 1:] + knot_v[:, :-1]) / 2, axis=1)
    # From t = 0 to the first knot the speed is constant.
    first = np.array([m.ahead for m in motions]).reshape(-1, 1) + knot_v[:, :1] * knot_t[:, :1]
    still = np.zeros_like(first)
    pieces = [(*m.arcs, *(((0.0, 0.0),) * (arcs - len(m.arcs)))) for m in motions]
    return Motions(
        start=np.array([m.start for m in motions], dtype=np.float64).reshape(-1, 3),
        arcs=np.array(pieces, dtype=np.float64).reshape(len(pieces), arcs, 2),
        knot_t=knot_t,
        knot_v=knot_v,
        knot_s=np.concatenate([first, first + knot_s], axis=1),
        slope=np.concatenate([rise / np.where(step > 0, step, np.inf), still], axis=1),
    )


def progress(motions: Motions, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arc lengths [A, T] in metres and speeds [A, T] in m/s at times t [T]: exact for piecewise linear speeds."""
    t = np.asarray(t, dtype=np.float64)
    i = np.maximum((motions.knot_t[:, :, None] <= t).sum(axis=1) - 1, 0)
    at = lambda values: np.take_along_axis(values, i, axis=1)  # noqa: E731
    since, v = t - at(motions.knot_t), at(motions.knot_v)
    now = v + at(motions.slope) * np.maximum(since, 0.0)
    return at(motions.knot_s) + since * (v + now) / 2, now


def poses_of(motions: Motions, t: np.ndarray) -> np.ndarray:
    """x, y, yaw [A, T, 3] (city frame, metres and radians) at times t [T] in seconds."""
    left, _ = progress(motions, t)
    x, y, yaw = (np.repeat(motions.start[:, i : i + 1], left.shape[1], axis=1) for i in range(3))
    straight = np.tile([np.inf, 0.0], (len(left), 1, 1))
    pieces = np.concatenate([motions.arcs, straight], axis=1)
    for i in range(pieces.shape[1]):
        length, curvature = pieces[:, i, :1], pieces[:, i, 1:]
        arc = np.clip(left, -np.inf if i == 0 else 0.0, length)
        # Chord of an arc; sinc makes the straight line its limit instead of a special case.
        chord, middle = arc * np.sinc(curvature * arc / (2 * np.pi)), yaw + curvature * arc / 2
        x, y, yaw = x + chord * np.cos(middle), y + chord * np.sin(middle), yaw + curvature * arc
        left = left - arc
    return np.stack([x, y, yaw], axis=-1)


def poses(motion: Motion, t: np.ndarray) -> np.ndarray:
    """x, y, yaw [T, 3] of one mover at times t [T] in seconds."""
    return poses_of(stack([motion]), t)[0]
