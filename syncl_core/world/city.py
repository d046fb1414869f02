"""The street plan: a square grid of equal streets. Everything about it that traffic, scenery and ground share.

A street's cross section, by distance from its axis: two lanes, a parking lane, the kerb, a pavement, houses.
"""

import math

BLOCK = 110.0  # metres between the axes of parallel streets; one crossing is at the origin
LANE_WIDTH = 3.5
LANES = (0.5 * LANE_WIDTH, 1.5 * LANE_WIDTH)  # distance of lane centres from the axis, metres
LANES_EDGE = 2 * LANE_WIDTH  # line between driving and parking lane
PARKING = LANES_EDGE + 1.3  # centre of the parking lane
KERB = LANES_EDGE + 2.6
PAVEMENT_EDGE = KERB + 4.0
HOUSES = PAVEMENT_EDGE + 0.6  # house fronts
ZEBRA = (KERB + 1.0, KERB + 4.0)  # zebra crossings, distance from the axis of the crossing street
STOP_LINE = KERB + 5.0
LANE_CHANGE = 26.0  # metres along the street
TURN_RADIUS = {"left": 9.0, "right": 6.5}  # metres


def lane_point(along: float, heading: int, offset: float) -> tuple[float, float, float]:
    """x, y, yaw of a point on a street through the origin.

    heading: 0..3, quarter turns from +x. along: metres from the crossing in driving direction (negative = before it).
    offset: metres to the right of the street's axis.
    """
    yaw = heading * math.pi / 2
    cos, sin = (1, 0, -1, 0)[heading % 4], (0, 1, 0, -1)[heading % 4]
    return along * cos + offset * sin, along * sin - offset * cos, math.atan2(math.sin(yaw), math.cos(yaw))


def turn_arcs(before: float, offset: float, side: str) -> tuple[tuple[float, float], ...]:
    """Arcs of a drive that starts `before` metres before the crossing and turns there into the like lane."""
    radius, sign = TURN_RADIUS[side], 1 if side == "left" else -1
    # The lane crosses its continuation `offset` beyond (left) or before (right) the crossing's centre.
    straight = before + sign * offset - radius
    return (straight, 0.0), (radius * math.pi / 2, sign / radius)


def lane_change(straight: float, side: int) -> tuple[tuple[float, float], ...]:
    """Arcs of a change to the next lane (side 1: left, -1: right) that begins after `straight` metres."""
    angle = 2 * math.atan(LANE_WIDTH / LANE_CHANGE)
    radius = LANE_CHANGE / (2 * math.sin(angle))
    return (straight, 0.0), (radius * angle, side / radius), (radius * angle, -side / radius)
