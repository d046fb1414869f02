"""Strokes, fills and text on an RGB array, all antialiased, at sub-pixel positions. Pixels are (u right, v down)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from syncl_core.view.colors import BACKGROUND, Color

_SHIFT = 4  # cv2 takes coordinates as integers in units of 2**-_SHIFT pixels
_FAR = 1 << 20  # pixels; beyond it cv2's fixed-point coordinates could overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A line of text, held at `at` by its `anchor` (Pillow's: "la" left top, "mm" middle, "ld" left bottom ...)."""

    at: tuple[float, float]  # pixels
    text: str
    color: Color
    size: float = 12.0  # pixels
    anchor: str = "la"
    backed: bool = False  # on a translucent dark plate, for photographs


def blank(width: int, height: int, color: Color = BACKGROUND) -> np.ndarray:
    """An image [height, width, 3] uint8 of one colour."""
    return np.full((height, width, 3), color, dtype=np.uint8)


def polyline(pixels: np.ndarray, points: np.ndarray, color: Color, thickness: int = 1, closed: bool = False) -> None:
    """Stroke through points [P, 2], in place."""
    if len(points) > 1:
        cv2.polylines(pixels, [_fixed(points)], closed, color, thickness, cv2.LINE_AA, _SHIFT)


def segments(pixels: np.ndarray, ends: np.ndarray, color: Color, thickness: int = 1) -> None:
    """Separate strokes [S, 2, 2], in place."""
    if len(ends):
        cv2.polylines(pixels, list(_fixed(ends)), False, color, thickness, cv2.LINE_AA, _SHIFT)


def fill(pixels: np.ndarray, polygon: np.ndarray, color: Color, opacity: float = 1.0) -> None:
    """Fill a convex polygon [P, 2] in place, blended over what is there."""
    if len(polygon) < 3:
        return
    low = np.maximum(np.floor(polygon.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(polygon.max(axis=0)).astype(int) + 2, [pixels.shape[1], pixels.shape[0]])
    if (low >= high).any():
        return
    region = pixels[low[1] : high[1], low[0] : high[0]]
    painted = region.copy()
    cv2.fillConvexPoly(painted, _fixed(polygon - low), color, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(painted, opacity, region, 1.0 - opacity, 0.0, dst=region)


def circle(pixels: np.ndarray, center: Sequence[float], radius: float, color: Color, thickness: int = 1) -> None:
    """Stroke a circle in place; thickness -1 fills it."""
    u, v = _fixed(np.asarray(center, dtype=np.float64))
    cv2.circle(pixels, (int(u), int(v)), round(radius * (1 << _SHIFT)), color, thickness, cv2.LINE_AA, _SHIFT)


def dashes(ends: np.ndarray, period: float = 8.0, duty: float = 0.55) -> np.ndarray:
    """Cut strokes [S, 2, 2] into dashes [D, 2, 2] of `duty * period` pixels, starting at each stroke's first end."""
    ends = np.asarray(ends, dtype=np.float64).reshape(-1, 2, 2)
    vectors = ends[:, 1] - ends[:, 0]
    lengths = np.hypot(vectors[:, 0], vectors[:, 1])
    counts = np.ceil(lengths / period).astype(int)
    stroke = np.repeat(np.arange(len(ends)), counts)
    start = period * (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))
    stop = np.minimum(start + duty * period, lengths[stroke])
    direction = vectors[stroke] / np.maximum(lengths[stroke], 1e-9)[:, None]
    return ends[stroke, :1] + np.stack([start, stop], axis=1)[..., None] * direction[:, None]


def write(pixels: np.ndarray, labels: Iterable[Label]) -> np.ndarray:
    """The image with these labels on it, as a new array: all in one pass through Pillow."""
    labels = list(labels)
    if not labels:
        return pixels
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image, "RGBA")
    for label in labels:
        font = _font(round(label.size))
        if label.backed:
            left, top, right, bottom = pen.textbbox(label.at, label.text, font=font, anchor=label.anchor)
            pen.rounded_rectangle((left - 3, top - 2, right + 3, bottom + 2), radius=3, fill=(*BACKGROUND, 170))
        pen.text(label.at, label.text, font=font, anchor=label.anchor, fill=label.color)
    return np.array(image)


def without_overlaps(labels: Iterable[Label]) -> list[Label]:
    """Those labels that do not cover an earlier one."""
    kept, taken = [], np.zeros((0, 4))
    for label in labels:
        left, top, right, bottom = _font(round(label.size)).getbbox(label.text, anchor=label.anchor)
        area = np.array([left - 3, top - 2, right + 3, bottom + 2]) + np.tile(label.at, 2)
        covers = (area[:2] < taken[:, 2:]).all(axis=1) & (taken[:, :2] < area[2:]).all(axis=1)
        if not covers.any():
            taken = np.vstack([taken, area])
            kept.append(label)
    return kept


def text_extent(text: str, size: float) -> tuple[float, float]:
    """Width and height of a line of text in pixels, the height the same for every text of that size."""
    font = _font(round(size))
    return font.getlength(text), float(sum(font.getmetrics()))


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(np.clip(points, -_FAR, _FAR) * (1 << _SHIFT)).astype(np.int32)
