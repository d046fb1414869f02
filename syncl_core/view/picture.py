"""One page per processed set: six cameras as they look around the vehicle, the scene from above, and a headline."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from syncl_core.classes import CAMERAS
from syncl_core.errors import InputError
from syncl_core.types import CameraView, FrameSet, ObjectSet
from syncl_core.view import canvas
from syncl_core.view.birdseye import draw_birdseye
from syncl_core.view.camera_view import draw_camera
from syncl_core.view.colors import MUTED, NOTICE, PANEL, TEXT

LAYOUT = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
"""The nuScenes cameras row by row, as nuScenes shows them: no image is mirrored, so the back row reads left to right as
the driver would name the sides."""

COLUMNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """The headline of a picture."""

    scene: str = ""
    model: str = ""
    notice: str = ""  # a warning that must not be overlooked, such as "UNTRAINED WEIGHTS"
    number: int = 1  # this set's number, from 1
    count: int = 0  # number of sets; 0 = unknown
    seconds: float = 0.0  # since the first set


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLayout:
    """Pixel sizes of a page of `width` pixels; everything scales with the width."""

    width: int
    rows: int  # of cameras

    @property
    def scale(self) -> float:
        return self.width / 1920

    @property
    def gap(self) -> int:
        return max(2, round(6 * self.scale))

    @property
    def header(self) -> int:
        return round(50 * self.scale)

    @property
    def pane(self) -> tuple[int, int]:
        """Width and height of one camera."""
        width = round(464 * self.scale)
        return width, width * 9 // 16

    @property
    def body(self) -> int:
        """Height of the cameras together."""
        return self.rows * self.pane[1] + (self.rows - 1) * self.gap

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the page, both even, as video encoders want them."""
        height = self.header + self.body + self.gap
        return self.width + self.width % 2, height + height % 2

    @property
    def birdseye(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of the bird's-eye view."""
        left = self.gap + COLUMNS * (self.pane[0] + self.gap)
        return left, self.header, self.width - left - self.gap, self.body

    def corner(self, index: int) -> tuple[int, int]:
        """Left and top of camera `index`, counted row by row."""
        row, column = divmod(index, COLUMNS)
        return self.gap + column * (self.pane[0] + self.gap), self.header + row * (self.pane[1] + self.gap)


def draw_picture(
    frame_set: FrameSet,
    tracks: ObjectSet | None = None,
    ground_truth: ObjectSet | None = None,
    history: Sequence[ObjectSet] = (),
    *,
    caption: Caption | None = None,
    cameras: Sequence[str] = CAMERAS,
    width: int = 1920,
) -> np.ndarray:
    """The page [H, width, 3] uint8 RGB; both sides are even.

    `cameras` is the rig, so that a missing camera gets its place and the words "no image". A rig other than that of
    nuScenes is shown in its own order. An image that cannot be decoded shows the reason in its place.
    """
    order = [c for c in LAYOUT if c in cameras] if set(cameras) <= set(LAYOUT) else list(cameras)
    page = PageLayout(width=width, rows=max(1, -(-len(order) // COLUMNS)))
    pixels = canvas.blank(*page.size)
    views = {view.camera: view for view in frame_set.views if view is not None}
    for index, camera in enumerate(order):
        left, top = page.corner(index)
        pane = _camera_pane(camera, views.get(camera), tracks, ground_truth, page)
        pixels[top : top + pane.shape[0], left : left + pane.shape[1]] = pane
    left, top, panel_width, panel_height = page.birdseye
    panel = draw_birdseye(frame_set, tracks, ground_truth, history, width=panel_width, height=panel_height)
    pixels[top : top + panel_height, left : left + panel_width] = panel
    return canvas.write(pixels, _headline(caption or Caption(), tracks, ground_truth, page))


def _camera_pane(
    camera: str, view: CameraView | None, tracks: ObjectSet | None, ground_truth: ObjectSet | None, page: PageLayout
) -> np.ndarray:
    """One camera [height, width, 3] with its name; images of another shape are fitted between dark bars."""
    width, height = page.pane
    pane = canvas.blank(width, height, PANEL)
    name = camera.removeprefix("CAM_").replace("_", " ").lower()
    corner = (7 * page.scale, height - 6 * page.scale)  # at the bottom, out of the way of the labels above boxes
    labels = [canvas.Label(at=corner, text=name, color=TEXT, size=13 * page.scale, anchor="ld", backed=True)]
    if view is None:
        labels += _message(["no image"], page)
    else:
        try:
            fitted = min(width, int(height * view.model.width / view.model.height))
            image = draw_camera(view, tracks, ground_truth, fitted)
            top, left = (height - image.shape[0]) // 2, (width - fitted) // 2
            pane[top : top + image.shape[0], left : left + fitted] = image
        except InputError as error:
            labels += _message(textwrap.wrap(str(error), 60)[:6], page)
    return canvas.write(pane, labels)


def _message(lines: list[str], page: PageLayout) -> list[canvas.Label]:
    """Lines in the middle of a camera's pane."""
    width, height = page.pane
    size = 14 * page.scale
    first = (height - 1.4 * size * (len(lines) - 1)) / 2
    return [
        canvas.Label(at=(width / 2, first + 1.4 * size * i), text=line, color=MUTED, size=size, anchor="mm")
        for i, line in enumerate(lines)
    ]


def _headline(
    caption: Caption, tracks: ObjectSet | None, ground_truth: ObjectSet | None, page: PageLayout
) -> list[canvas.Label]:
    """Left: what is shown. Right: by which model. Between them: the notice."""
    middle, gap = page.header / 2, 22 * page.scale
    number = f"{caption.number}/{caption.count}" if caption.count else f"{caption.number}"
    words = [
        (caption.scene or "SynCL-ROS", TEXT, 22),
        (f"set {number}", MUTED, 16),
        (f"{caption.seconds:.2f} s", MUTED, 16),
    ]
    if tracks is not None:
        words.append((f"{len(tracks)} track" + "s" * (len(tracks) != 1), TEXT, 16))
    if ground_truth is not None:
        words.append((f"{len(ground_truth)} ground truth", MUTED, 16))
    labels, left = [], page.gap + 4 * page.scale
    for text, color, size in words:
        labels.append(canvas.Label(at=(left, middle), text=text, color=color, size=size * page.scale, anchor="lm"))
        left += canvas.text_extent(text, size * page.scale)[0] + gap
    if caption.notice:
        labels.append(
            canvas.Label(at=(left, middle), text=caption.notice, color=NOTICE, size=16 * page.scale, anchor="lm")
        )
    right = page.width - page.gap - 4 * page.scale
    labels.append(canvas.Label(at=(right, middle), text=caption.model, color=MUTED, size=16 * page.scale, anchor="rm"))
    return labels
