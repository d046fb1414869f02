"""What a camera adds to the light that reaches it: optics, exposure, colour cast, shot noise and read noise.

The noise of a picture is a function of its key (any text), so a picture can be made again, alone and on any machine.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_BANK = 1 << 20  # standard normal numbers to draw from


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """The cameras of a scene. The default is a perfect sensor."""

    gains: tuple[tuple[float, float, float], ...] = ()  # exposure and colour cast: red, green, blue of each camera
    shot: float = 0.0  # standard deviation of the noise at full white that grows with the square root of the light
    read: float = 0.0  # standard deviation of the noise that is always there; both are fractions of full white
    blur: float = 0.0  # share of a pixel's light that falls on each of its four neighbours


PERFECT = Sensor()


def expose(rgb: torch.Tensor, sensor: Sensor, keys: Sequence[str]) -> torch.Tensor:
    """Pictures [V, H, W, 3] uint8 of perfect pictures `rgb` of the same shape, all cameras' in turn, one key each."""
    if sensor == PERFECT:
        return rgb
    light = rgb.to(torch.float32)
    if sensor.blur:
        light = _blur(light, sensor.blur)
    if sensor.gains:
        gains = torch.tensor(sensor.gains, device=rgb.device).repeat(len(rgb) // len(sensor.gains), 1)
        light = light * gains[:, None, None]
    # Variances add: photons arrive as a Poisson process, the electronics add a constant.
    spread = (light * (255 * sensor.shot**2) + (255 * sensor.read) ** 2).sqrt_()
    noise = torch.stack([_noise(rgb[0].numel(), key, rgb.device) for key in keys]).view_as(light)
    return torch.addcmul(light, spread, noise).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _blur(light: torch.Tensor, share: float) -> torch.Tensor:
    """Every pixel gives `share` to each of its four neighbours; at the border it keeps what falls outside."""
    result = light.clone()
    for axis in (1, 2):
        step = share * light.diff(dim=axis)
        size = step.shape[axis]
        result.narrow(axis, 0, size).add_(step)
        result.narrow(axis, 1, size).sub_(step)
    return result


def _noise(count: int, key: str, device: torch.device) -> torch.Tensor:
    """Standard normal numbers [count]: a stretch of the bank that the key chooses."""
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") % _BANK
    bank = _bank(str(device))
    stretch = bank[start : start + count]
    while len(stretch) < count:
        stretch = torch.cat([stretch, bank[: count - len(stretch)]])
    return stretch


@functools.lru_cache(maxsize=4)
def _bank(device: str) -> torch.Tensor:
    """Drawn once; drawing numbers for every picture would take as long as tracing it."""
    return torch.from_numpy(np.random.default_rng(20_240_229).standard_normal(_BANK, dtype=np.float32)).to(device)
