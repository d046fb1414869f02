"""The palette: one dark theme, and a colour per identity that never changes during a track's life."""

import zlib
from functools import lru_cache

import numpy as np

Color = tuple[int, int, int]  # RGB, 0..255

BACKGROUND: Color = (16, 18, 22)
PANEL: Color = (24, 27, 33)
GRID: Color = (52, 58, 68)
TEXT: Color = (232, 234, 238)
MUTED: Color = (146, 153, 164)
EGO: Color = (226, 230, 236)
GROUND_TRUTH: Color = (255, 255, 255)
NOTICE: Color = (255, 190, 70)

_GOLDEN_RATIO = 0.6180339887498949
_LIGHTNESS, _CHROMA = 0.76, 0.15  # every identity equally bright on the dark theme and on photographs


@lru_cache(maxsize=4096)
def identity_color(identity: str) -> Color:
    """RGB of a track. The hues of consecutive numbers "<session>-<n>" lie a golden angle apart: neighbours differ."""
    number = track_number(identity)
    turn = (number if number is not None else zlib.crc32(identity.encode())) * _GOLDEN_RATIO % 1.0
    return _rgb_from_oklch(_LIGHTNESS, _CHROMA, 2 * np.pi * turn)


def track_number(identity: str) -> int | None:
    """The n of "<session>-<n>"; None for other identities, such as ground-truth tokens."""
    number = identity.rpartition("-")[2]
    return int(number) if "-" in identity and number.isascii() and number.isdigit() else None


def short_identity(identity: str) -> str:
    """What a label shows of an identity: the track number, else its first four characters."""
    number = track_number(identity)
    return identity[:4] if number is None else str(number)


def _rgb_from_oklch(lightness: float, chroma: float, hue: float) -> Color:
    """sRGB of an OKLCH colour (B. Ottosson, "A perceptual color space for image processing", 2020)."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    roots = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_linear @ (roots @ [lightness, a, b]) ** 3, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(v) for v in np.round(255 * encoded))
    return red, green, blue
