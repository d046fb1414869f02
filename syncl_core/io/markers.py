"""ObjectSets as RViz and Foxglove markers that do not flicker: stable ids, updates in place, explicit deletion."""

import colorsys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from syncl_core import geometry
from syncl_core.classes import DETECTION_CLASSES
from syncl_core.io import messages
from syncl_core.io.messages import Make
from syncl_core.types import ObjectSet
from syncl_core.view.colors import identity_color, short_identity, track_number

MARKER = "visualization_msgs/msg/Marker"

# Constants of visualization_msgs/Marker.
ARROW, CUBE, LINE_STRIP, LINE_LIST, TEXT_VIEW_FACING = 0, 1, 4, 5, 9
ADD, DELETE, DELETEALL = 0, 2, 3

Color = tuple[float, float, float]  # RGB, 0..1
TrailPoint = tuple[int, tuple[float, float, float]]  # t_ns, centre in metres

_ID_RANGE = 2**31  # a marker id is an int32


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerOptions:
    """What the markers look like. Lengths in metres, times in seconds."""

    box_style: str = "lines"  # "lines": wire frame with a heading line; "cubes": translucent solids
    color_by: str = "id"  # "id": a colour per identity, as in the pictures; "class"; "fixed": `color`
    color: Color = (1.0, 1.0, 1.0)
    lifetime: float = 2.0  # safety net against lost deletions: a few cycles, never the way markers vanish
    line_width: float = 0.12
    text_height: float = 0.9
    arrow_seconds: float = 1.0  # the velocity arrow ends where the object will be after this time
    min_speed: float = 0.3  # m/s; slower objects have no arrow
    history_seconds: float = 6.0  # length of the trail


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerState:
    """What has been shown so far. The default is the state before the first array."""

    t_ns: int | None = None  # None: nothing was shown, so the next array clears the display first
    shown: frozenset[tuple[str, int]] = frozenset()  # (ns, id) on display
    tokens: Mapping[str, int] = field(default_factory=dict)  # marker ids of identities that are not "<session>-<n>"
    trails: Mapping[str, tuple[TrailPoint, ...]] = field(default_factory=dict)


class MarkerBuilder:
    """Builds one MarkerArray per ObjectSet. `state` is a value: keep it, restore it, or `reset` it."""

    def __init__(self, options: MarkerOptions | None = None):
        self.options = options or MarkerOptions()
        self.state = MarkerState()

    def reset(self) -> None:
        """Forget everything shown: the next array begins with DELETEALL."""
        self.state = MarkerState()

    def build(self, objects: ObjectSet, frame_id: str, make: Make):
        """visualization_msgs/MarkerArray that turns what is on display into `objects`.

        Namespaces `boxes`, `labels`, `velocity`, `history`; a track keeps its marker id for life. Goes through a reset
        by itself where time runs backwards (a bag that was started again).
        """
        state = self.state
        if state.t_ns is not None and objects.t_ns < state.t_ns:
            state = MarkerState()
        tokens = _allocate(state.tokens, objects.ids)
        trails = _extend(state.trails, objects, self.options.history_seconds)
        canvas = _canvas(make, messages.header(make, objects.t_ns, frame_id), self.options)
        added = list(_markers(canvas, objects, [_marker_id(identity, tokens) for identity in objects.ids], trails))
        shown = frozenset((marker.ns, marker.id) for marker in added)
        removed = [canvas.marker(ns, number, action=DELETE) for ns, number in sorted(state.shown - shown)]
        if state.t_ns is None:
            removed = [canvas.marker("", 0, action=DELETEALL)]
        self.state = MarkerState(t_ns=objects.t_ns, shown=shown, tokens=tokens, trails=trails)
        return make(messages.MARKERS, markers=removed + added)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Canvas:
    """What all markers of one array share."""

    make: Make
    options: MarkerOptions
    header: object
    origin: object  # the identity pose
    lifetime: object

    def marker(self, ns: str, number: int, **fields):
        return self.make(MARKER, **{"header": self.header, "ns": ns, "id": number, "pose": self.origin, **fields})

    def shape(self, ns: str, number: int, kind: int, scale: Sequence[float], color: Color, alpha=1.0, **fields):
        red, green, blue = color
        rgba = self.make("std_msgs/msg/ColorRGBA", r=red, g=green, b=blue, a=alpha)
        scale = messages.vector3(self.make, scale)
        fields = {"type": kind, "action": ADD, "scale": scale, "color": rgba, "lifetime": self.lifetime, **fields}
        return self.marker(ns, number, **fields)

    def points(self, rows: Iterable[Sequence[float]]) -> list:
        return [messages.vector3(self.make, row, "Point") for row in rows]


def _canvas(make: Make, header, options: MarkerOptions) -> _Canvas:
    seconds, fraction = divmod(options.lifetime, 1.0)
    lifetime = make("builtin_interfaces/msg/Duration", sec=int(seconds), nanosec=int(fraction * 1e9))
    origin = messages.pose(make, (0.0, 0.0, 0.0))
    return _Canvas(make=make, options=options, header=header, origin=origin, lifetime=lifetime)


def _markers(
    canvas: _Canvas, objects: ObjectSet, numbers: Sequence[int], trails: Mapping[str, tuple[TrailPoint, ...]]
) -> Iterator:
    corners = geometry.box_corners(objects.centers, objects.sizes, objects.rotations)
    for i, (identity, number) in enumerate(zip(objects.ids, numbers, strict=True)):
        color = _color(canvas.options, identity, objects.labels[i])
        yield _box(canvas, number, color, objects, i, corners[i])
        yield _label(canvas, number, color, objects, i, corners[i])
        if np.linalg.norm(objects.velocities[i]) >= canvas.options.min_speed:  # False for an unknown (NaN) velocity
            yield _arrow(canvas, number, color, objects, i)
        if len(trails[identity]) > 1:
            scale = (canvas.options.line_width, 0.0, 0.0)
            points = canvas.points(point for _, point in trails[identity])
            yield canvas.shape("history", number, LINE_STRIP, scale, color, 0.8, points=points)


def _box(canvas: _Canvas, number: int, color: Color, objects: ObjectSet, i: int, corners: np.ndarray):
    if canvas.options.box_style == "cubes":
        pose = messages.pose(canvas.make, objects.centers[i], objects.rotations[i])
        return canvas.shape("boxes", number, CUBE, objects.sizes[i], color, 0.5, pose=pose)
    edges = corners[np.array(geometry.BOX_EDGES).ravel()]
    heading = (corners[:4].mean(axis=0), corners[:2].mean(axis=0))  # on the ground, centre to front
    points = canvas.points([*edges, *heading])
    return canvas.shape("boxes", number, LINE_LIST, (canvas.options.line_width, 0.0, 0.0), color, points=points)


def _label(canvas: _Canvas, number: int, color: Color, objects: ObjectSet, i: int, corners: np.ndarray):
    x, y, _ = objects.centers[i]
    height = canvas.options.text_height
    pose = messages.pose(canvas.make, (x, y, corners[:, 2].max() + height))
    text = f"{objects.labels[i]} {short_identity(objects.ids[i])}"
    return canvas.shape("labels", number, TEXT_VIEW_FACING, (0.0, 0.0, height), color, pose=pose, text=text)


def _arrow(canvas: _Canvas, number: int, color: Color, objects: ObjectSet, i: int):
    start = objects.centers[i]
    end = start + np.append(objects.velocities[i], 0.0) * canvas.options.arrow_seconds
    width = canvas.options.line_width
    points = canvas.points((start, end))
    return canvas.shape("velocity", number, ARROW, (1.5 * width, 4 * width, 0.0), color, points=points)


def _color(options: MarkerOptions, identity: str, label: str) -> Color:
    if options.color_by == "id":
        return _identity_color(identity)
    if options.color_by == "class" and label in DETECTION_CLASSES:
        return colorsys.hsv_to_rgb(DETECTION_CLASSES.index(label) / len(DETECTION_CLASSES), 0.7, 1.0)
    return options.color


@lru_cache(maxsize=4096)
def _identity_color(identity: str) -> Color:
    red, green, blue = identity_color(identity)
    return red / 255, green / 255, blue / 255


def _allocate(tokens: Mapping[str, int], identities: Iterable[str]) -> dict[str, int]:
    """Marker ids of instance tokens count down from the top, so that they never meet the numbers of tracks."""
    result = dict(tokens)
    for identity in identities:
        if track_number(identity) is None and identity not in result:
            result[identity] = _ID_RANGE - 1 - len(result)
    return result


def _marker_id(identity: str, tokens: Mapping[str, int]) -> int:
    return tokens[identity] if identity in tokens else track_number(identity) % _ID_RANGE


def _extend(
    trails: Mapping[str, tuple[TrailPoint, ...]], objects: ObjectSet, seconds: float
) -> dict[str, tuple[TrailPoint, ...]]:
    """Trails with the new centres; a track that is missing for a while takes up its trail again."""
    oldest = objects.t_ns - int(seconds * 1e9)
    result = {identity: tuple(point for point in trail if point[0] >= oldest) for identity, trail in trails.items()}
    for identity, center in zip(objects.ids, objects.centers, strict=True):
        result[identity] = (*result.get(identity, ()), (objects.t_ns, tuple(center.tolist())))
    return {identity: trail for identity, trail in result.items() if trail}
