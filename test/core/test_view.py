"""Laws of the pictures: what is drawn lies where the geometry says, and files appear whole or not at all."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes_fixture import REAL_GAPS_MS
from view_fixture import MODEL, in_front_of, make_objects, make_set, make_view

from syncl_core import geometry
from syncl_core.classes import CAMERAS
from syncl_core.errors import InputError
from syncl_core.types import Lens, RawImage
from syncl_core.view import canvas, replay
from syncl_core.view.birdseye import Ground, draw_birdseye, trails
from syncl_core.view.camera_view import box_outlines, clip_polygon, clip_segments, draw_camera, frustum
from syncl_core.view.colors import identity_color, short_identity
from syncl_core.view.picture import LAYOUT, Caption, PageLayout, draw_picture
from syncl_core.view.png import write_png
from syncl_core.view.replay import before, nearest, render_sets
from syncl_core.view.video import write_video

points = st.lists(st.floats(-20, 20).map(lambda x: round(x, 3)), min_size=3, max_size=3).map(np.array)


def is_inside(point: np.ndarray, near: float) -> bool:
    """Slow reference: would this point of the camera frame be on the image?"""
    if point[2] < near:
        return False
    u, v, w = MODEL.intrinsics @ point
    return 0 <= u / w <= MODEL.width and 0 <= v / w <= MODEL.height


@settings(max_examples=200, deadline=None)
@given(points, points)
def test_clipped_segment_is_the_part_whose_points_are_on_the_image(start, end):
    parts, seen = clip_segments(np.stack([start, end]), frustum(MODEL, near=0.2))
    dense = start + np.linspace(0, 1, 2001)[:, None] * (end - start)
    inside = np.array([is_inside(p, 0.2) for p in dense])
    step = np.linalg.norm(end - start) / 2000
    if not seen:
        assert inside.sum() <= 1  # it touches the border at most
    elif inside.any():
        assert np.linalg.norm(parts[0] - dense[inside][0]) <= step + 1e-6
        assert np.linalg.norm(parts[1] - dense[inside][-1]) <= step + 1e-6
    else:
        assert np.linalg.norm(parts[1] - parts[0]) <= step + 1e-6


@settings(max_examples=60, deadline=None)
@given(points, points, points)
def test_clipped_polygon_has_the_area_of_its_visible_points(a, b, c):
    weights = np.stack(np.meshgrid(*[(np.arange(120) + 0.5) / 120] * 2), axis=-1).reshape(-1, 2)
    cells = a + weights[:, :1] * (b - a) + weights[:, 1:] * (c - a)
    polygon = clip_polygon(np.stack([a, b, b + c - a, c]), frustum(MODEL, near=0.2))
    whole = np.linalg.norm(np.cross(b - a, c - a))
    area = sum(
        np.linalg.norm(np.cross(q - polygon[0], p - polygon[0])) / 2
        for p, q in zip(polygon[1:-1], polygon[2:], strict=True)
    )
    visible = np.mean([is_inside(cell, 0.2) for cell in cells[::7]])
    assert area == pytest.approx(visible * whole, abs=0.05 * whole + 1e-9)


def test_box_partly_behind_the_camera_is_cut_off_at_the_image_border():
    frame_set = make_set(pose=np.eye(4))
    view = frame_set.views[0]
    beside = make_objects([[1.0, 1.5, 1.5]])  # reaches from 1 m behind to 3 m ahead, its side 0.5 m to the left
    (outline,) = box_outlines(beside, MODEL, geometry.inverse(view.global_from_base @ view.base_from_cam))
    assert np.isfinite(outline.edges).all()
    assert (outline.edges >= -1e-6).all() and (outline.edges <= np.array([MODEL.width, MODEL.height]) + 1e-6).all()
    assert outline.edges[..., 0].max() < MODEL.width / 2  # nothing of it wraps to the right side


def test_corner_of_a_known_box_is_drawn_at_its_pixel():
    frame_set = make_set(pose=np.eye(4))
    box = make_objects([[12.0, 0.0, 1.5]])
    image = draw_camera(frame_set.views[0], box, width=MODEL.width)
    # Back face at 10 m: y = +1 is 1 m left, z = +0.75 above the camera's height of 1.5 m.
    u, v = 160 - 200 * 1 / 10, 90 - 200 * 0.75 / 10
    region = image[round(v) - 1 : round(v) + 2, round(u) - 1 : round(u) + 2].reshape(-1, 3).astype(int)
    assert np.abs(region - identity_color(box.ids[0])).sum(axis=1).min() < 60
    plain = draw_camera(frame_set.views[0], width=MODEL.width)
    changed = np.argwhere((image != plain).any(axis=-1))
    assert (changed[:, 1] >= u - 4).all() and (changed[:, 0] <= 90 + 15 + 4).all()


def test_each_camera_draws_from_its_own_pose():
    frame_set = make_set()
    target = make_objects([in_front_of(frame_set, "CAM_BACK")])
    view = frame_set.views[CAMERAS.index("CAM_BACK")]
    moved = replace(view, global_from_base=view.global_from_base @ geometry.transform([0.0, 1.0, 0.0]))
    here, there = (
        box_outlines(target, MODEL, geometry.inverse(v.global_from_base @ v.base_from_cam))[0].edges.mean(axis=(0, 1))
        for v in (view, moved)
    )
    assert here == pytest.approx([160, 90], abs=3)
    # 1 m to the vehicle's left is 1 m to the right for the camera that looks back: the box moves left in its image.
    assert there[0] - here[0] == pytest.approx(-200 / 12, abs=2)


def test_the_image_of_a_lens_is_rectified_before_boxes_are_drawn():
    """A bright spot where the lens puts a ray appears where the pinhole, and so a box, puts it."""
    view = make_view(CAMERAS[0], np.eye(4))
    lens = Lens(model="equidistant", intrinsics=MODEL.intrinsics, coefficients=np.zeros(4))
    ray = np.array([0.55, 0.3])  # x and y at z = 1
    angle = math.atan(math.hypot(*ray))
    taken = MODEL.intrinsics[:2, :2] @ (ray * angle / math.hypot(*ray)) + MODEL.intrinsics[:2, 2]
    expected = MODEL.intrinsics[:2, :2] @ ray + MODEL.intrinsics[:2, 2]
    pixels = np.full((MODEL.height, MODEL.width, 3), 20, np.uint8)
    column, row = np.round(taken).astype(int)
    pixels[row - 2 : row + 3, column - 2 : column + 3] = 255
    image = RawImage(encoding="rgb8", data=pixels.tobytes(), width=MODEL.width, height=MODEL.height)
    for width in (MODEL.width, 2 * MODEL.width):
        shown = draw_camera(replace(view, image=image, model=replace(MODEL, lens=lens)), width=width)
        rows, columns = np.nonzero(shown[..., 0] > 150)
        centre = np.array([columns.mean(), rows.mean()]) * MODEL.width / width
        assert np.abs(centre - expected).max() < 2 and np.abs(taken - expected).max() > 8


def test_track_is_drawn_in_the_camera_that_sees_it_and_in_no_other():
    frame_set = make_set()
    for camera in CAMERAS:
        target = make_objects([in_front_of(frame_set, camera)])
        changed = {view.camera for view in frame_set.views if (draw_camera(view, target) != draw_camera(view)).any()}
        assert changed == {camera}


def test_near_boxes_are_painted_last():
    frame_set = make_set(pose=np.eye(4))
    objects = make_objects([[10.0, 0, 1.5], [30.0, 0, 1.5], [20.0, 0, 1.5]])
    cam_from_global = geometry.inverse(frame_set.views[0].base_from_cam)
    outlines = box_outlines(objects, MODEL, cam_from_global)
    assert [outline.index for outline in outlines] == [1, 2, 0]


def test_dashes_cover_their_share_of_each_stroke_and_nothing_else():
    ends = np.array([[[0.0, 0.0], [80.0, 0.0]], [[5.0, 5.0], [5.0, 5.0]], [[0.0, 10.0], [30.0, 50.0]]])
    parts = canvas.dashes(ends, period=8.0, duty=0.5)
    lengths = np.linalg.norm(parts[:, 1] - parts[:, 0], axis=1)
    assert lengths.max() <= 4.0 + 1e-9
    assert lengths.sum() == pytest.approx(80 / 2 + 50 / 2, abs=4)
    direction = np.array([0.6, 0.8])
    slanted = parts[10:] - [0.0, 10.0]
    assert np.abs(slanted @ [direction[1], -direction[0]]).max() < 1e-9  # on the line


def test_forward_is_up_and_left_is_left_from_above():
    pose = geometry.transform([100.0, 50.0, 3.0], geometry.quaternion_from_yaw(0.7))
    ground = Ground(width=400, height=300, base_from_global=geometry.inverse(pose), pixels_per_metre=5.0)
    ahead, left = geometry.transform_points(pose, np.array([[10.0, 0, 0], [0, 10.0, 0]]))
    assert ground.pixels(ahead) == pytest.approx([200, 100])
    assert ground.pixels(left) == pytest.approx([150, 150])


def test_birdseye_box_is_where_its_centre_is():
    frame_set = make_set(pose=np.eye(4))
    plain = draw_birdseye(frame_set, make_objects(np.zeros((0, 3))))
    drawn = draw_birdseye(frame_set, replace(make_objects([[30.0, -20.0, 0.0]]), velocities=np.zeros((1, 2))))
    changed = np.argwhere((drawn != plain).any(axis=-1))
    scale = 250 / 52
    left, right = 250 + 20 * scale - scale, 250 + 20 * scale + scale  # 2 m wide; the number stands to its right
    inside = changed[(changed[:, 1] > left) & (changed[:, 1] < right)]
    assert inside[:, 0].mean() == pytest.approx(250 - 30 * scale, abs=2)
    assert changed[:, 1].min() == pytest.approx(left, abs=3)


def test_legend_has_what_is_drawn():
    """Recorded tracks have no velocities."""
    frame_set, moving = make_set(pose=np.eye(4)), make_objects([[30.0, -20.0, 0.0]])
    resting = replace(moving, velocities=np.full((1, 2), np.nan))
    moving = replace(moving, velocities=np.zeros((1, 2)))  # below the speed that is drawn
    legends = [draw_birdseye(frame_set, objects)[450:, :150] for objects in (moving, resting)]
    assert (legends[0] != legends[1]).any()
    assert (draw_birdseye(frame_set, moving)[:400] == draw_birdseye(frame_set, resting)[:400]).all()


def test_trail_follows_one_identity_and_skips_sets_without_it():
    sets = [
        make_objects([[0, 0, 0], [5, 5, 0]], ids=("s-1", "s-2")),
        make_objects([[6, 6, 0]], ids=("s-2",)),
        make_objects([[2, 0, 0]], ids=("s-1",)),
    ]
    assert {k: v.tolist() for k, v in trails(sets).items()} == {"s-1": [[0, 0, 0], [2, 0, 0]]}


def test_colours_of_consecutive_tracks_are_apart_and_stay():
    colors = np.array([identity_color(f"0badcafe-{n}") for n in range(40)], dtype=int)
    assert np.abs(colors[1:] - colors[:-1]).sum(axis=1).min() > 100
    assert identity_color("0badcafe-7") == identity_color("deadbeef-7") == tuple(colors[7])
    assert identity_color("f1d4c2") == identity_color("f1d4c2") != identity_color("a77b00")
    assert short_identity("0badcafe-17") == "17" and short_identity("f1d4c2e0") == "f1d4"


def test_picture_has_even_sides_and_all_panes():
    for width in (641, 960):
        page = draw_picture(make_set(), width=width)
        assert page.dtype == np.uint8 and page.shape[0] % 2 == 0 and page.shape[1] == width + width % 2
    layout = PageLayout(width=960, rows=2)
    for index in range(6):
        left, top = layout.corner(index)
        middle = page[top + layout.pane[1] // 2, left + layout.pane[0] // 2]
        assert np.abs(middle.astype(int) - 90).max() < 4


def test_missing_camera_leaves_only_its_own_place_empty():
    whole = make_set()
    lacking = replace(whole, views=tuple(v if v.camera != "CAM_BACK" else None for v in whole.views))
    layout = PageLayout(width=960, rows=2)
    pages = [draw_picture(s, width=960) for s in (whole, lacking)]
    for index, camera in enumerate(LAYOUT):
        left, top = layout.corner(index)
        panes = [page[top : top + layout.pane[1], left : left + layout.pane[0]] for page in pages]
        assert (panes[0] != panes[1]).any() == (camera == "CAM_BACK")
    assert panes[0].std() < 30


def test_unusable_image_is_named_in_its_place_and_by_the_camera_view():
    frame_set = make_set()
    broken = replace(frame_set.views[0], image=RawImage(encoding="jpeg", data=b"\xff\xd8 no"))
    with pytest.raises(InputError, match="CAM_FRONT at 0 ns: corrupt JPEG"):
        draw_camera(broken)
    small = replace(broken, image=RawImage(encoding="rgb8", data=bytes(12), width=2, height=2))
    with pytest.raises(InputError, match="CAM_FRONT at 0 ns: image is 2x2, its calibration is for 320x180"):
        draw_camera(small)
    page = draw_picture(replace(frame_set, views=(broken, *frame_set.views[1:])), width=640)
    assert page.shape[1] == 640


@pytest.mark.parametrize("width", [MODEL.width, 200])
def test_raw_images_look_like_compressed_ones(width):
    gradient = np.indices((MODEL.height, MODEL.width, 3)).sum(axis=0).astype(np.uint8) // 2
    views = [
        replace(make_set().views[0], image=RawImage(encoding=encoding, data=data.tobytes(), width=320, height=180))
        for encoding, data in (("rgb8", gradient), ("bgr8", gradient[..., ::-1]))
    ]
    plain = [draw_camera(view, width=width) for view in views]
    assert (plain[0] == plain[1]).all() and plain[0].shape == (width * 9 // 16, width, 3)
    boxes = make_objects([in_front_of(make_set(), "CAM_FRONT")])
    assert (draw_camera(views[1], boxes, width=width) != plain[0]).any()  # it can be drawn on


def test_rig_of_other_cameras_is_shown_in_its_own_order():
    view = replace(make_set().views[0], camera="roof")
    frame_set = replace(make_set(), views=(view,))
    page = draw_picture(frame_set, cameras=("roof",), width=640)
    left, top = PageLayout(width=640, rows=1).corner(0)
    assert abs(int(page[top + 40, left + 80, 0]) - 90) < 4


@pytest.mark.parametrize("tracks", [None, make_objects(np.zeros((0, 3)))])
def test_nothing_to_draw_is_drawn_without_complaint(tracks):
    empty = make_objects(np.zeros((0, 3)))
    page = draw_picture(make_set(), tracks, empty, [empty], caption=Caption(notice="UNTRAINED"), width=640)
    assert page.std() > 0


def test_sets_meet_their_objects_by_time():
    ms = 1_000_000
    sets = {t * ms: make_objects([[t, 0, 0]], t_ns=t * ms) for t in (0, 500, 1000)}
    assert nearest(sets, 540 * ms).t_ns == 500 * ms
    assert nearest(sets, 551 * ms) is None and nearest({}, 0) is None
    assert [s.t_ns for s in before(sets, 1000 * ms, 0.6)] == [500 * ms]


def test_only_processed_sets_get_a_page():
    ms = 1_000_000
    frame_sets = [make_set(t * ms) for t in (0, 100, 200)]
    tracks = {t * ms: make_objects(np.zeros((0, 3)), t_ns=t * ms) for t in (0, 210)}
    assert len(list(render_sets(frame_sets, tracks, width=480))) == 2
    assert len(list(render_sets(frame_sets, width=480))) == 3


def test_sets_between_key_frames_show_what_is_on_its_way(monkeypatch):
    """One page per set, with tracks and ground truth; but none where sets come more often than tracks."""
    ms = 1_000_000
    key_frames = {t * ms: make_objects([[t, 0, 0]], t_ns=t * ms) for t in np.cumsum([0, *REAL_GAPS_MS]).tolist()}
    times = [t for t in range(0, max(key_frames) // ms + 100, 500)]
    drawn = []
    monkeypatch.setattr(replay, "draw_picture", lambda *page, **_: drawn.append(page))
    list(render_sets([make_set(t * ms) for t in times], key_frames, key_frames))
    assert [frame_set.t_ns // ms for frame_set, *_ in drawn] == times
    for frame_set, tracks, truth, _ in drawn:
        for objects in (tracks, truth):
            assert objects.centers[0, 0] == pytest.approx(objects.t_ns / ms)
            assert abs(objects.t_ns - frame_set.t_ns) <= 50 * ms
    drawn.clear()
    list(render_sets([make_set(t * ms) for t in range(0, 2000, 83)], key_frames, key_frames))
    assert [frame_set.t_ns // ms for frame_set, *_ in drawn] == [0, 498, 996, 1411, 1909]


def test_png_holds_the_picture_and_failure_leaves_nothing(tmp_path):
    import cv2

    page = draw_picture(make_set(), width=480)
    write_png(tmp_path / "page.png", page)
    assert (cv2.imread(str(tmp_path / "page.png"))[..., ::-1] == page).all()
    with pytest.raises(InputError, match="page.png: cannot make this folder"):
        write_png(tmp_path / "page.png" / "below.png", page)  # a file is in the way of the folder
    assert [p.name for p in tmp_path.iterdir()] == ["page.png"]


def test_video_reads_back_with_its_frames_size_time_and_colours(tmp_path):
    import av

    colors = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (120, 120, 120), (230, 230, 60)]
    frames = [np.full((91, 121, 3), color, np.uint8) for color in colors]
    assert write_video(tmp_path / "clip.mp4", iter(frames), fps=2.0) == 5
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        decoded = list(container.decode(stream))
    assert [float(frame.time) for frame in decoded] == [0.0, 0.5, 1.0, 1.5, 2.0]
    for frame, color in zip(decoded, colors, strict=True):
        pixels = frame.to_ndarray(format="rgb24")
        assert pixels.shape == (92, 122, 3)
        assert np.abs(pixels[10:80, 10:110].astype(int) - color).max() <= 6
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_video_that_fails_leaves_nothing(tmp_path):
    def failing():
        yield np.zeros((64, 64, 3), np.uint8)
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        write_video(tmp_path / "clip.mp4", failing(), fps=2.0)
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "clip.mp4", [], fps=2.0)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot make this folder"):
        write_video(tmp_path / "file" / "clip.mp4", [np.zeros((64, 64, 3), np.uint8)], fps=2.0)
