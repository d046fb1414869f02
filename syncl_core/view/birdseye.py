"""The scene from above, around the vehicle: forward is up, left is left."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from syncl_core import geometry
from syncl_core.types import CameraView, FrameSet, ObjectSet
from syncl_core.view import canvas
from syncl_core.view.colors import (
    BACKGROUND,
    EGO,
    GRID,
    GROUND_TRUTH,
    MUTED,
    PANEL,
    Color,
    identity_color,
    short_identity,
)

VEHICLE = (4.08, 1.73, 0.75)
"""Length, width and rear overhang behind the base frame's origin, metres: the nuScenes car (Renault Zoe)."""

MIN_SPEED = 0.3  # m/s: below it a velocity arrow would be noise

_LEGEND_COLOR = identity_color("-0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where the ground lies in the panel: pixels of global points, seen from straight above."""

    width: int  # pixels
    height: int  # pixels
    base_from_global: np.ndarray  # [4, 4]
    pixels_per_metre: float

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Pixels [..., 2] of global points [..., 3]; the vehicle's origin is in the middle of the panel."""
        return self.pixels_of_base(geometry.transform_points(self.base_from_global, points))

    def pixels_of_base(self, points: np.ndarray) -> np.ndarray:
        """Pixels [..., 2] of points [..., 2 or 3] of the base frame."""
        points = np.asarray(points, dtype=np.float64)
        offset = np.stack([-points[..., 1], -points[..., 0]], axis=-1)
        return offset * self.pixels_per_metre + [self.width / 2, self.height / 2]


def draw_birdseye(
    frame_set: FrameSet,
    tracks: ObjectSet | None = None,
    ground_truth: ObjectSet | None = None,
    history: Sequence[ObjectSet] = (),
    *,
    width: int = 500,
    height: int = 500,
    reach: float = 52.0,
) -> np.ndarray:
    """The panel [height, width, 3] uint8 RGB, showing `reach` metres to the nearer borders.

    `history` holds the tracks of past sets, oldest first; each present track trails a line through its past centres.
    An arrow ends where the track's front will be in one second. Ground truth lies below the tracks, dashed and white.
    """
    ground = Ground(
        width=width,
        height=height,
        base_from_global=geometry.inverse(frame_set.global_from_base),
        pixels_per_metre=min(width, height) / 2 / reach,
    )
    scale = min(width, height) / 500
    pixels = canvas.blank(width, height, PANEL)
    labels = _draw_rings(pixels, ground, scale)
    for view in frame_set.views:
        if view is not None:
            _draw_wedge(pixels, ground, view, length=0.9 * reach)
    if ground_truth is not None:
        _draw_ground_truth(pixels, ground, ground_truth, scale)
    if tracks is not None:
        _draw_trails(pixels, ground, [*history, tracks], scale)
        labels += _draw_tracks(pixels, ground, tracks, scale)
    _draw_vehicle(pixels, ground)
    labels += _draw_legend(pixels, _legend(tracks, ground_truth), scale)
    return canvas.write(pixels, labels)


def footprints(objects: ObjectSet, ground: Ground) -> tuple[np.ndarray, np.ndarray]:
    """Outlines [M, 4, 2] of the boxes in pixels and the middle [M, 2] of their front edges."""
    corners = geometry.box_corners(objects.centers, objects.sizes, objects.rotations)
    outlines = ground.pixels(corners[:, :4])
    return outlines, outlines[:, :2].mean(axis=1)


def trails(sets: Sequence[ObjectSet]) -> dict[str, np.ndarray]:
    """Past and present centres [T, 3] in global, oldest first, of every object of the last set."""
    rows = [dict(zip(objects.ids, objects.centers, strict=True)) for objects in sets]
    return {identity: np.array([row[identity] for row in rows if identity in row]) for identity in sets[-1].ids}


def _draw_rings(pixels: np.ndarray, ground: Ground, scale: float) -> list[canvas.Label]:
    labels = []
    farthest = np.hypot(ground.width, ground.height) / 2 / ground.pixels_per_metre
    for radius in range(10, int(farthest) + 1, 10):
        center = (ground.width / 2, ground.height / 2)
        canvas.circle(pixels, center, radius * ground.pixels_per_metre, GRID)
        at = ground.pixels_of_base(np.array([0.0, -radius]))  # sideways: roads run ahead and behind
        if radius % 20 == 0 and at[0] < ground.width - 16 * scale:
            labels.append(canvas.Label(at=tuple(at), text=f"{radius} m", color=MUTED, size=11 * scale, anchor="mm"))
    return labels


def _draw_wedge(pixels: np.ndarray, ground: Ground, view: CameraView, length: float) -> None:
    """The horizontal field of view, from the rays through the left and right middle of the image."""
    borders = np.array([[0.0, view.model.height / 2, 1.0], [view.model.width, view.model.height / 2, 1.0]])
    rays = borders @ np.linalg.inv(view.model.intrinsics).T @ view.base_from_cam[:3, :3].T
    rays = rays[:, :2] / np.linalg.norm(rays[:, :2], axis=1, keepdims=True)
    turn = np.linspace(0.0, 1.0, 9)[:, None]
    arc = rays[0] * (1 - turn) + rays[1] * turn
    arc *= length / np.linalg.norm(arc, axis=1, keepdims=True)
    center = view.base_from_cam[:2, 3]
    wedge = ground.pixels_of_base(np.concatenate([center[None], center + arc]))
    canvas.fill(pixels, wedge, EGO, opacity=0.05)


def _draw_trails(pixels: np.ndarray, ground: Ground, sets: Sequence[ObjectSet], scale: float) -> None:
    thickness = max(1, round(1.5 * scale))
    for identity, centers in trails(sets).items():
        points, color = ground.pixels(centers), np.array(identity_color(identity))
        for i in range(len(points) - 1):
            freshness = 0.25 + 0.75 * (i + 1) / len(points)  # older parts fade into the panel
            faded = tuple(int(c) for c in freshness * color + (1 - freshness) * np.array(PANEL))
            canvas.polyline(pixels, points[i : i + 2], faded, thickness)


def _draw_tracks(pixels: np.ndarray, ground: Ground, tracks: ObjectSet, scale: float) -> list[canvas.Label]:
    if not len(tracks):
        return []
    labels = []
    thickness = max(1, round(1.5 * scale))
    outlines, fronts = footprints(tracks, ground)
    centers = ground.pixels(tracks.centers)
    in_one_second = ground.pixels(tracks.centers + np.pad(tracks.velocities, ((0, 0), (0, 1))))
    near_first = np.argsort(np.linalg.norm(centers - [ground.width / 2, ground.height / 2], axis=1), kind="stable")
    for i in near_first:
        color = identity_color(tracks.ids[i])
        canvas.fill(pixels, outlines[i], color, opacity=0.35)
        canvas.polyline(pixels, outlines[i], color, thickness, closed=True)
        canvas.polyline(pixels, np.stack([centers[i], fronts[i]]), color, thickness)
        if np.linalg.norm(tracks.velocities[i]) > MIN_SPEED:  # False for NaN
            _draw_arrow(pixels, fronts[i], fronts[i] + in_one_second[i] - centers[i], color, scale)
        at = (outlines[i, :, 0].max() + 3 * scale, outlines[i, :, 1].min())
        text = short_identity(tracks.ids[i])
        labels.append(canvas.Label(at=at, text=text, color=color, size=11 * scale, anchor="lm"))
    return canvas.without_overlaps(labels)


def _draw_arrow(pixels: np.ndarray, start: np.ndarray, end: np.ndarray, color: Color, scale: float) -> None:
    along = (end - start) / max(np.linalg.norm(end - start), 1e-9) * 5 * scale
    across = np.array([-along[1], along[0]]) * 0.5
    canvas.polyline(pixels, np.stack([start, end]), color, max(1, round(scale)))
    canvas.fill(pixels, np.stack([end, end - along + across, end - along - across]), color)


def _draw_ground_truth(pixels: np.ndarray, ground: Ground, objects: ObjectSet, scale: float) -> None:
    outlines, _ = footprints(objects, ground)
    edges = np.stack([outlines, np.roll(outlines, -1, axis=1)], axis=2).reshape(-1, 2, 2)
    canvas.segments(pixels, canvas.dashes(edges, period=5 * scale), GROUND_TRUTH, max(1, round(scale)))


def _draw_vehicle(pixels: np.ndarray, ground: Ground) -> None:
    length, width, rear = VEHICLE
    chamfer = 0.35
    half, front = width / 2, length - rear
    body = np.array(
        [
            [front, half - chamfer], [front, chamfer - half], [front - chamfer, -half], [chamfer - rear, -half],
            [-rear, chamfer - half], [-rear, half - chamfer], [chamfer - rear, half], [front - chamfer, half],
        ]
    )  # fmt: skip
    windscreen = np.array([[0.66, 0.4], [0.66, -0.4], [0.5, -0.36], [0.5, 0.36]]) * [length, width] - [rear, 0.0]
    canvas.fill(pixels, ground.pixels_of_base(body), EGO)
    canvas.fill(pixels, ground.pixels_of_base(windscreen), BACKGROUND)


def _legend(tracks: ObjectSet | None, ground_truth: ObjectSet | None) -> list[str]:
    """What kinds of lines there are. Recorded tracks may have no velocities."""
    moving = tracks is not None and (not len(tracks) or np.isfinite(tracks.velocities).any())
    shown = {
        "track, colour = identity": tracks is not None,
        "velocity, 1 s": moving,
        "ground truth": ground_truth is not None,
    }
    return [text for text, is_shown in shown.items() if is_shown]


def _draw_legend(pixels: np.ndarray, entries: list[str], scale: float) -> list[canvas.Label]:
    """A sample of every kind of line, with a word each, in the lower left corner."""
    labels = []
    height, width = pixels.shape[0], canvas.text_extent(max(entries, key=len, default=""), 11 * scale)[0]
    top, right = height - (8 + 16 * len(entries)) * scale, width + 48 * scale
    plate = np.array([[0, top], [right, top], [right, height], [0, height]])
    canvas.fill(pixels, plate, PANEL, opacity=0.8)
    for row, text in enumerate(entries):
        v = height - (12 + 16 * (len(entries) - 1 - row)) * scale
        line = np.array([[10 * scale, v], [34 * scale, v]])
        if text == "ground truth":
            canvas.segments(pixels, canvas.dashes(line[None], period=5 * scale), GROUND_TRUTH, max(1, round(scale)))
        elif text == "velocity, 1 s":
            _draw_arrow(pixels, line[0], line[1], _LEGEND_COLOR, scale)
        else:
            canvas.polyline(pixels, line, _LEGEND_COLOR, max(1, round(2 * scale)))
        labels.append(canvas.Label(at=(40 * scale, v), text=text, color=MUTED, size=11 * scale, anchor="lm"))
    return labels
