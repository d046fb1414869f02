"""Lanes of traffic that react: car following and a signal at the crossing, run once and kept as speed knots.

Drivers follow the intelligent driver model (Treiber, Hennecke, Helbing 2000, equations 1 to 3). Positions follow the
trapezoidal rule, which is the exact integral of the piecewise linear speeds that `motion` moves along.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from syncl_core.world import city

_STEP = 0.25  # seconds between two decisions
_EXPONENT = 4  # of the free-road term
_RISE, _BRAKE, _HARDEST = 1.8, 2.2, 6.0  # m/s^2: acceleration, comfortable and hardest braking
_HEADWAY, _STANDSTILL = 1.1, 2.0  # seconds and metres kept to whoever is ahead
_CAN_STOP = 3.5  # m/s^2: a driver who would have to brake harder passes the light
_CLEARANCE = 3.0  # seconds in which nobody has green
_IN_CROSSING = -6.0  # metres: beyond this, drivers with different ways are no longer one behind the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """The lights of the crossing: the street along x has green first, then the one along y."""

    green: float  # seconds of green for each street
    offset: float  # seconds of the cycle that are over at t = 0

    @property
    def period(self) -> float:
        return 2 * (self.green + _CLEARANCE)

    def is_green(self, heading: int, t: float) -> bool:
        since = (t + self.offset - (heading % 2) * self.period / 2) % self.period
        return since < self.green


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """One vehicle of a lane. Places are metres along the lane from the crossing, negative before it."""

    at: float  # of its middle at t = 0
    length: float  # metres
    wish: float  # m/s on a free road
    speed: float  # m/s at t = 0
    side: str = ""  # "left" or "right" if it turns at the crossing
    corner: tuple[float, float, float] = (math.inf, math.inf, 0.0)  # where its arc begins and ends, and m/s there


def simulate(
    lane: Sequence[Driver], heading: int, signal: Signal, seconds: float
) -> list[tuple[tuple[float, float], ...]]:
    """Speed knots (seconds, m/s) of the drivers of one lane, the foremost driver first."""
    s, v = [d.at for d in lane], [d.speed for d in lane]
    knots = [[(0.0, d.speed)] for d in lane]
    for step in range(math.ceil(seconds / _STEP)):
        green = signal.is_green(heading, step * _STEP)
        rates = [_rate(lane, i, s, v, green) for i in range(len(lane))]
        for i, rate in enumerate(rates):
            faster = max(v[i] + rate * _STEP, 0.0)
            s[i] += (v[i] + faster) / 2 * _STEP
            v[i] = faster
            knots[i].append(((step + 1) * _STEP, faster))
    return [tuple(of) for of in knots]


def _rate(lane: Sequence[Driver], i: int, s: list[float], v: list[float], green: bool) -> float:
    """What driver i does now, m/s^2."""
    me, rate = lane[i], _RISE
    rate -= _RISE * (v[i] / max(_wish(me, s[i]), 0.1)) ** _EXPONENT
    worst = 0.0
    ahead = next((j for j in range(i - 1, -1, -1) if lane[j].side == me.side or s[j] < _IN_CROSSING), None)
    if ahead is not None:
        gap = s[ahead] - s[i] - (lane[ahead].length + me.length) / 2
        worst = _pressure(v[i], v[i] - v[ahead], gap)
    to_line = -city.STOP_LINE - 0.5 - s[i] - me.length / 2
    if not green and to_line > 0 and v[i] ** 2 < 2 * _CAN_STOP * to_line:
        worst = max(worst, _pressure(v[i], v[i], to_line + _STANDSTILL))
    return max(rate - _RISE * worst, -_HARDEST)


def _pressure(v: float, closing: float, gap: float) -> float:
    """Square of the wanted over the actual gap."""
    wanted = _STANDSTILL + max(0.0, v * _HEADWAY + v * closing / (2 * math.sqrt(_RISE * _BRAKE)))
    return (wanted / max(gap, 0.3)) ** 2


def _wish(me: Driver, s: float) -> float:
    """The wanted speed, slower before and in a corner."""
    begin, end, slow = me.corner
    if s > end:
        return me.wish
    return min(me.wish, math.sqrt(slow * slow + 2 * 1.5 * max(begin - s, 0.0)) if begin < math.inf else me.wish)
