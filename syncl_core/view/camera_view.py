"""3D boxes in one camera image, seen from where that camera was when it fired."""

from dataclasses import dataclass

import cv2
import numpy as np

from syncl_core import geometry, images
from syncl_core.errors import InputError
from syncl_core.types import CameraModel, CameraView, ObjectSet
from syncl_core.view import canvas
from syncl_core.view.colors import BACKGROUND, GROUND_TRUTH, Color, identity_color, short_identity

NEAR = 0.2  # metres: what is closer to the camera plane is cut off
FRONT_FACE = (0, 1, 5, 4)  # indices into geometry.box_corners, around the face
_EDGES = np.array(geometry.BOX_EDGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxOutline:
    """What a camera sees of one box."""

    index: int  # row in the ObjectSet
    edges: np.ndarray  # [E, 2, 2] pixels: the visible parts of at most twelve edges
    front: np.ndarray  # [P, 2] pixels: the visible part of the front face, maybe empty


def draw_camera(
    view: CameraView, tracks: ObjectSet | None = None, ground_truth: ObjectSet | None = None, width: int = 800
) -> np.ndarray:
    """The camera's image, scaled to `width` pixels, with boxes: [H, width, 3] uint8 RGB.

    Tracks are solid, coloured by identity, with the front face tinted and a label, near ones painted over far ones.
    Ground truth lies below them, dashed and white: white shows where the two differ. It is labelled only if `tracks` is
    None. Raises InputError naming the camera if its image cannot be used.
    """
    pixels, model = _scaled_image(view, width)
    cam_from_global = geometry.inverse(view.global_from_base @ view.base_from_cam)
    scale = width / 800
    labels: list[canvas.Label] = []
    if ground_truth is not None:
        outlines = box_outlines(ground_truth, model, cam_from_global)
        for outline in outlines:
            strokes = canvas.dashes(outline.edges, period=max(5.0, 9 * scale))
            canvas.segments(pixels, strokes, GROUND_TRUTH, max(1, round(scale)))
        if tracks is None:
            labels = _labels(outlines, [(f"GT {name}", GROUND_TRUTH) for name in ground_truth.labels], model)
    if tracks is not None:
        outlines = box_outlines(tracks, model, cam_from_global)
        for outline in outlines:
            _draw_track(pixels, outline, identity_color(tracks.ids[outline.index]), scale)
        labels = _labels(outlines, [track_label(tracks, i) for i in range(len(tracks))], model)
    return canvas.write(pixels, labels)


def track_label(tracks: ObjectSet, index: int) -> tuple[str, Color]:
    """What is written beside a track, and in which colour: class, number, score."""
    identity = tracks.ids[index]
    text = f"{tracks.labels[index]} {short_identity(identity)}  {tracks.scores[index]:.2f}"
    return text, identity_color(identity)


def box_outlines(objects: ObjectSet, model: CameraModel, cam_from_global: np.ndarray) -> list[BoxOutline]:
    """The visible parts of all boxes that reach into the image, far ones first."""
    if not len(objects):
        return []
    corners = geometry.box_corners(objects.centers, objects.sizes, objects.rotations)
    in_cam = geometry.transform_points(cam_from_global, corners)
    planes = frustum(model)
    edges, seen = clip_segments(in_cam[:, _EDGES], planes)
    depths = in_cam[..., 2].mean(axis=1)
    outlines = []
    for i in np.argsort(-depths, kind="stable"):
        if seen[i].any():
            front = _pixels(model, clip_polygon(in_cam[i, FRONT_FACE, :], planes))
            visible = _pixels(model, edges[i, seen[i]])
            outlines.append(BoxOutline(index=int(i), edges=visible, front=front))
    return outlines


def frustum(model: CameraModel, near: float = NEAR) -> np.ndarray:
    """The planes [5, 4] of what a camera sees: a point p (camera frame) is inside where all plane @ (p, 1) >= 0."""
    row_u, row_v = model.intrinsics[0], model.intrinsics[1]
    depth = np.array([0.0, 0.0, 1.0])
    normals = np.stack([depth, row_u, model.width * depth - row_u, row_v, model.height * depth - row_v])
    return np.concatenate([normals, [[-near], [0.0], [0.0], [0.0], [0.0]]], axis=1)


def clip_segments(ends: np.ndarray, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts [..., 2, 3] of segments [..., 2, 3] inside all planes [P, 4], and where there is one [...] bool.

    Liang and Barsky's parametric clipping (1984), in 3D and before projection: a projected point behind the camera has
    no meaning. Segments without an inside part come back as NaN.
    """
    distance = ends @ planes[:, :3].T + planes[:, 3]  # [..., 2, P]
    start, stop = distance[..., 0, :], distance[..., 1, :]
    crossing = start / np.where(start == stop, 1.0, start - stop)
    enter = np.where(start < 0, crossing, 0.0).max(axis=-1)
    leave = np.where(stop < 0, crossing, 1.0).min(axis=-1)
    seen = ~((start < 0) & (stop < 0)).any(axis=-1) & (enter < leave)
    fractions = np.stack([enter, leave], axis=-1)[..., None]
    parts = ends[..., :1, :] + fractions * (ends[..., 1:, :] - ends[..., :1, :])
    return np.where(seen[..., None, None], parts, np.nan), seen


def clip_polygon(polygon: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """The part [Q, 3] of a convex polygon [P, 3] inside all planes [P, 4]; Q = 0 if none (Sutherland, Hodgman 1974)."""
    for plane in planes:
        distance = polygon @ plane[:3] + plane[3]
        kept = []
        for i in range(len(polygon)):
            if (distance[i - 1] < 0) != (distance[i] < 0):
                fraction = distance[i - 1] / (distance[i - 1] - distance[i])
                kept.append(polygon[i - 1] + fraction * (polygon[i] - polygon[i - 1]))
            if distance[i] >= 0:
                kept.append(polygon[i])
        polygon = np.array(kept).reshape(-1, 3)
    return polygon


def _scaled_image(view: CameraView, width: int) -> tuple[np.ndarray, CameraModel]:
    """The decoded image at the width asked for, and the camera model that goes with it."""
    model = view.model
    try:
        pixels = images.decode(view.image)
    except InputError as error:
        raise InputError(f"{view.camera} at {view.t_ns} ns: {error}") from None
    if pixels.shape[:2] != (model.height, model.width):
        raise InputError(
            f"{view.camera} at {view.t_ns} ns: image is {pixels.shape[1]}x{pixels.shape[0]}, "
            f"its calibration is for {model.width}x{model.height}"
        )
    height = round(model.height * width / model.width)
    if model.lens is None:
        interpolation = cv2.INTER_AREA if width <= model.width else cv2.INTER_LINEAR
        pixels = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=interpolation)
    else:
        pixels = _rectified(pixels, model, width, height)
    intrinsics = np.diag([width / model.width, height / model.height, 1.0]) @ model.intrinsics
    return pixels, CameraModel(width=width, height=height, intrinsics=intrinsics)


def _rectified(pixels: np.ndarray, model: CameraModel, width: int, height: int) -> np.ndarray:
    """The image as the pinhole that the boxes are drawn with would have taken it, at a new size."""
    from syncl_core.config import ImageConfig
    from syncl_core.rectify import Rectifier

    image = Rectifier(ImageConfig(height=height, width=width)).network_image(pixels, model)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _pixels(model: CameraModel, points: np.ndarray) -> np.ndarray:
    return geometry.project(model.intrinsics, np.eye(4), points)[0]


def _draw_track(pixels: np.ndarray, outline: BoxOutline, color: Color, scale: float) -> None:
    thickness = max(1, round(2.2 * scale))
    canvas.segments(pixels, outline.edges, BACKGROUND, thickness + max(1, round(scale)))  # a rim for bright photographs
    canvas.fill(pixels, outline.front, color, opacity=0.25)
    canvas.segments(pixels, outline.edges, color, thickness)


def _labels(outlines: list[BoxOutline], texts: list[tuple[str, Color]], model: CameraModel) -> list[canvas.Label]:
    """One label above each box, as far as there is room; near boxes come first."""
    size = max(11.0, 14 * model.width / 800)
    labels = []
    for outline in reversed(outlines):
        text, color = texts[outline.index]
        width, height = canvas.text_extent(text, size)
        left, top = outline.edges.reshape(-1, 2).min(axis=0)
        at = (min(max(left, 3.0), max(3.0, model.width - width - 4)), max(top - 3, height))
        labels.append(canvas.Label(at=at, text=text, color=color, size=size, anchor="ld", backed=True))
    return canvas.without_overlaps(labels)
