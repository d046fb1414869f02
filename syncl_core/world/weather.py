"""Light and cameras of a scene: the hour of the day, the sky, exposure and noise."""

import math
import random

from syncl_core.classes import CAMERAS
from syncl_core.world.scene import Color, Light
from syncl_core.world.sensor import Sensor

DAYTIMES = {"noon": 0.34, "low sun": 0.2, "overcast": 0.2, "dusk": 0.13, "night": 0.13}  # and their shares
_DARK = ("dusk", "night")


def make_light(rng: random.Random) -> tuple[str, Light]:
    """A time of day and its light."""
    daytime = rng.choices(tuple(DAYTIMES), tuple(DAYTIMES.values()))[0]
    return daytime, {
        "noon": lambda: _day(rng, rng.uniform(32, 65), rng.random() * 0.5),
        "low sun": lambda: _day(rng, rng.uniform(14, 30), rng.random() * 0.3),
        "overcast": lambda: _day(rng, rng.uniform(30, 60), 1.0),
        "dusk": lambda: _sunless(rng, 0.30, horizon=(0.62, 0.46, 0.42), zenith=(0.20, 0.24, 0.42), haze=350.0),
        "night": lambda: _sunless(rng, 0.22, horizon=(0.12, 0.12, 0.15), zenith=(0.03, 0.04, 0.08), haze=300.0),
    }[daytime]()


def make_sensor(rng: random.Random, daytime: str) -> Sensor:
    """Six cameras that differ slightly; in the dark the amplifier turns light and noise up together."""
    amplified = rng.uniform(1.4, 1.9) if daytime in _DARK else 1.0
    exposure = amplified * math.exp(rng.gauss(0, 0.08))
    warmth = rng.gauss(0, 0.03)
    gains = tuple(
        _scaled(
            (1 + warmth + rng.gauss(0, 0.01), 1.0, 1 - warmth + rng.gauss(0, 0.01)), exposure * rng.uniform(0.96, 1.04)
        )
        for _ in CAMERAS
    )
    noise = rng.uniform(0.6, 1.6)
    return Sensor(gains=gains, shot=0.02 * noise * math.sqrt(amplified), read=0.006 * noise * amplified, blur=0.06)


def _day(rng: random.Random, degrees: float, overcast: float) -> Light:
    """Under an overcast sky (1) there is light from everywhere, and no sun."""
    elevation = math.radians(degrees)
    warmth = 0.16 * max(62 - degrees, 0) / 48
    sun = _scaled(
        (1.0, 0.97 - 0.5 * warmth, 0.92 - 1.2 * warmth), 0.88 * (1 - overcast) * min(1.0, 0.55 + degrees / 60)
    )
    blue, gray = (0.36, 0.58, 0.88), (0.68, 0.72, 0.77)
    return Light(
        toward_sun=_toward_sun(rng, elevation),
        sun=sun,
        ambient=_scaled((0.95, 0.99, 1.06), 0.56 + 0.24 * overcast - 0.12 * (degrees < 30)),
        horizon=(0.80 + warmth, 0.85, 0.90 - warmth),
        zenith=tuple((1 - overcast) * b + overcast * g for b, g in zip(blue, gray, strict=True)),
        haze=500 - 250 * overcast * rng.random(),
    )


def _sunless(rng: random.Random, brightness: float, horizon: Color, zenith: Color, haze: float) -> Light:
    return Light(
        toward_sun=(0.0, 0.0, 1.0),
        sun=(0.0, 0.0, 0.0),
        ambient=_scaled((0.92, 0.95, 1.10), brightness * rng.uniform(0.85, 1.25)),
        horizon=horizon,
        zenith=zenith,
        haze=haze,
    )


def _toward_sun(rng: random.Random, elevation: float) -> tuple[float, float, float]:
    azimuth = rng.uniform(0, 2 * math.pi)
    return (
        math.cos(elevation) * math.cos(azimuth),
        math.cos(elevation) * math.sin(azimuth),
        math.sin(elevation),
    )


def _scaled(color: Color, factor: float) -> Color:
    return tuple(factor * c for c in color)
