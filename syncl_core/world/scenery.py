"""Houses, trees and lamps of a scene, drawn from its seed."""

import colorsys
import math
import random

from syncl_core.world import city
from syncl_core.world.scene import Block

_FACADES = ((0.66, 0.55, 0.46), (0.74, 0.70, 0.62), (0.56, 0.34, 0.28), (0.60, 0.62, 0.64), (0.80, 0.74, 0.60))
_DEEPEST = 16.0  # metres from the front to the back of a house
_REACH = 2  # street blocks that are built up in each direction of the origin


def make_scenery(rng: random.Random) -> tuple[Block, ...]:
    """Rows of houses, trees and lamps along the two streets that cross at the origin."""
    blocks = []
    for heading in range(4):
        for along in range(_REACH):
            for side in (-1, 1):
                start = along * city.BLOCK
                blocks += _houses(rng, heading, start, side)
                blocks += _street_furniture(rng, heading, start, side)
    return tuple(blocks)


def _houses(rng: random.Random, heading: int, start: float, side: int) -> list[Block]:
    """One side of one block: houses from corner to corner."""
    blocks, at, end = [], start + city.HOUSES, start + city.BLOCK - city.HOUSES
    if heading % 2:  # corner houses belong to the streets along x
        at, end = at + _DEEPEST, end - _DEEPEST
    while at < end - 8:
        width = min(rng.uniform(10, 24), end - at)
        depth, height = rng.uniform(10, _DEEPEST), rng.choice((2, 3, 3, 4, 4, 5, 6, 8)) * 3.3 + 0.8
        setback = rng.choice((0.0, 0.0, 1.5, 3.0))
        x, y, yaw = city.lane_point(at + width / 2, heading, side * (city.HOUSES + setback + depth / 2))
        color = _vary(rng, rng.choice(_FACADES))
        house = Block(center=(x, y, height / 2), size=(width, depth, height), yaw=yaw, color=color, windows=True)
        roof_color = tuple(0.6 * c for c in color)
        roof = Block(center=(x, y, height + 0.15), size=(width + 0.5, depth + 0.5, 0.3), yaw=yaw, color=roof_color)
        blocks += [house, roof]
        at += width + rng.choice((0.0, 0.0, 2.5, 6.0))
    return blocks


def _street_furniture(rng: random.Random, heading: int, start: float, side: int) -> list[Block]:
    """Trees and lamps on the pavement near the kerb."""
    blocks, at, lamps = [], start + city.STOP_LINE + rng.uniform(2, 6), rng.random() < 0.7
    while at < start + city.BLOCK - city.STOP_LINE - 2:
        x, y, yaw = city.lane_point(at, heading, side * (city.KERB + 0.8))
        if lamps and rng.random() < 0.35:
            blocks += _lamp(x, y, yaw, side)
        elif rng.random() < 0.6:
            blocks += _tree(rng, x, y)
        at += rng.uniform(7, 13)
    return blocks


def _tree(rng: random.Random, x: float, y: float) -> list[Block]:
    trunk, crown, width = rng.uniform(1.9, 2.6), rng.uniform(2.2, 3.6), rng.uniform(1.8, 3.0)
    green = _vary(rng, (0.24, 0.40, 0.17))
    bark = Block(center=(x, y, trunk / 2), size=(0.28, 0.28, trunk), color=(0.28, 0.21, 0.15))
    return [bark] + [
        Block(
            center=(x, y, trunk + crown * middle),
            size=(width * scale, width * scale, crown * height),
            yaw=rng.uniform(0, math.pi / 2),
            color=green,
        )
        for middle, height, scale in ((0.35, 0.7, 1.0), (0.5, 1.0, 0.72))
    ]


def _lamp(x: float, y: float, yaw: float, side: int) -> list[Block]:
    arm_x, arm_y = -0.9 * side * math.sin(yaw), 0.9 * side * math.cos(yaw)  # over the street
    gray = (0.38, 0.39, 0.40)
    return [
        Block(center=(x, y, 3.0), size=(0.14, 0.14, 6.0), yaw=yaw, color=gray),
        Block(center=(x + arm_x, y + arm_y, 5.95), size=(0.25, 1.9, 0.12), yaw=yaw, color=gray, shadow=False),
        Block(
            center=(x + 1.8 * arm_x, y + 1.8 * arm_y, 5.87),
            size=(0.2, 0.4, 0.06),
            yaw=yaw,
            color=(0.98, 0.88, 0.66),
            glow=0.7,
            shadow=False,
        ),
    ]


def _vary(rng: random.Random, color: tuple[float, float, float]) -> tuple[float, float, float]:
    hue, lightness, saturation = colorsys.rgb_to_hls(*color)
    lightness, saturation = lightness * rng.uniform(0.85, 1.12), saturation * rng.uniform(0.7, 1.1)
    return colorsys.hls_to_rgb(hue + rng.uniform(-0.015, 0.015), min(lightness, 0.85), min(saturation, 1))
