"""Laws of the renderer, against a ray caster of loops and scalars and against the projection of `geometry`."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from world_helpers import actor_poses, rendered_with_depth

from syncl_core import geometry
from syncl_core.world import generate, photo, render, rig, scene, sense, surfaces
from syncl_core.world.actors import Actor, Part
from syncl_core.world.motion import Motion
from syncl_core.world.scene import Block, Boxes, Light

LIGHT = Light(
    toward_sun=(0.48, 0.36, 0.8),
    sun=(0.8, 0.78, 0.7),
    ambient=(0.5, 0.5, 0.55),
    horizon=(0.8, 0.85, 0.9),
    zenith=(0.3, 0.5, 0.9),
    haze=300.0,
)

FIELDS = ("size", "color", "owner", "windows", "glow", "shadow")  # of Boxes, that no time changes


@pytest.fixture(scope="module")
def world():
    return generate.make_scene(4)


def small_views(world, t, width=32):
    return photo.camera_views(world, t, width)


def slow_hit(boxes: Boxes, time: int, origin: np.ndarray, direction: np.ndarray, limit: float, only=None):
    """Nearest box along a ray: index, distance, face (as render._face numbers them). One box at a time, in float64."""
    best, hit, face = limit, -1, -1
    for m in range(boxes.yaw.shape[1]):
        if only is not None and not only[m]:
            continue
        cos, sin = math.cos(boxes.yaw[time, m]), math.sin(boxes.yaw[time, m])
        into_box = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        start, way = into_box @ (origin - boxes.center[time, m]), into_box @ direction
        half, near, far, axis = boxes.size[m] / 2, -math.inf, math.inf, 0
        for a in range(3):
            if way[a] == 0.0:
                continue
            enter, leave = sorted(((-half[a] - start[a]) / way[a], (half[a] - start[a]) / way[a]))
            if enter > near:
                near, axis = enter, a
            far = min(far, leave)
        if 0 < near < min(far, best):
            best, hit, face = near, m, 2 * axis + (way[axis] > 0)
    return hit, best, face


def slow_pixel(boxes, light, views, view, u, v):
    """Colour, owner and depth of one pixel."""
    origin = views.city_from_cam[view, :3, 3]
    in_cam = np.linalg.inv(views.intrinsics[view]) @ (u + 0.5, v + 0.5, 1.0)
    direction = views.city_from_cam[view, :3, :3] @ in_cam
    ground = origin[2] / -direction[2] if direction[2] < 0 else math.inf
    depth_limit = ground if ground < 1e4 else math.inf
    hit, depth, face = slow_hit(boxes, view, origin, direction, depth_limit)
    sun, ambient, sunlight = (np.array(x) for x in (light.toward_sun, light.ambient, light.sun))
    point, footprint = origin + depth * direction, depth / views.intrinsics[:, 0, 0].mean()
    if hit >= 0:
        half, yaw = boxes.size[hit] / 2, boxes.yaw[view, hit]
        cos, sin = math.cos(yaw), math.sin(yaw)
        local = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) @ (point - boxes.center[view, hit])
        outward = np.zeros(3)
        outward[face // 2] = -1 if face % 2 else 1
        normal = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ outward
        base = boxes.color[hit]
        if boxes.windows[hit] and face < 4:
            along, width = (local[1], 2 * half[1]) if face < 2 else (local[0], 2 * half[0])
            numbers = [torch.tensor([float(x)]) for x in (along, local[2] + half[2], width, 2 * footprint)]
            base = surfaces.facade_color(torch.tensor(base).float()[:, None], *numbers)[:, 0].numpy()
        open_sky = 0.8 if face < 4 else 1.0 if face == 4 else 0.45
        color = base * (ambient * open_sky + sunlight * max(normal @ sun, 0) + boxes.glow[hit])
    elif math.isfinite(depth):
        stretch = 1 + np.abs(direction[:2]) / -direction[2]
        place = [torch.tensor([float(x)]) for x in point[:2]]
        base = surfaces.ground_color(*place, torch.tensor(footprint * stretch).float()[:, None])[:, 0].numpy()
        # The sun sees the ground unless something stands between; a hit from inside counts too.
        dark = slow_hit(boxes, view, point + 1e3 * sun, -sun, 1e3, boxes.shadow)[0] >= 0
        color = base * (ambient + sunlight * sun[2] * (not dark))
    else:
        slope = direction[2] / np.linalg.norm(direction)
        return surfaces.sky_color(torch.tensor([slope]), light)[:, 0].numpy() * 255, scene.SCENERY, 1e4
    color = np.array(light.horizon) + (color - light.horizon) * math.exp(-depth / light.haze)
    return np.clip(color * 255, 0, 255), boxes.owner[hit] if hit >= 0 else scene.SCENERY, depth


def only_nearby(boxes: Boxes, at: np.ndarray, radius: float) -> Boxes:
    """Fewer boxes, so that the slow twin is bearable."""
    keep = np.linalg.norm(boxes.center[0, :, :2] - at, axis=-1) < radius
    return Boxes(center=boxes.center[:, keep], yaw=boxes.yaw[:, keep],
                 **{name: getattr(boxes, name)[keep] for name in FIELDS})  # fmt: skip


@pytest.mark.parametrize("camera", [0, 4])
def test_pictures_equal_the_slow_twin(world, camera):
    t = rig.camera_times_us([1_500_000])[0, camera : camera + 1] / 1e6
    everything = photo.camera_views(world, np.repeat(t, 6), 32)
    views = render.Views(
        city_from_cam=everything.city_from_cam[camera : camera + 1],
        intrinsics=everything.intrinsics[camera : camera + 1],
        width=everything.width,
        height=everything.height,
    )
    boxes = only_nearby(scene.boxes_at(world, t), views.city_from_cam[0, :2, 3], 30)
    pictures, depths = rendered_with_depth(boxes, LIGHT, views)
    same_owner = color_error = 0
    for v in range(views.height):
        for u in range(views.width):
            color, owner, depth = slow_pixel(boxes, LIGHT, views, 0, u, v)
            # Float32 may put a ray on the other side of an edge; so few are allowed to.
            agrees = int(pictures.owner[0, v, u]) == owner and abs(float(depths[0, v, u]) / depth - 1) < 1e-3
            same_owner += agrees
            color_error += agrees and np.abs(pictures.rgb[0, v, u].numpy() - color).max() > 2
    pixels = views.width * views.height
    assert len(boxes.size) > 100 and (pictures.owner >= 0).sum() > 20
    assert same_owner >= pixels - 2 and color_error <= 3


def test_culling_loses_nothing(world, monkeypatch):
    t = rig.camera_times_us([1_000_000])[0] / 1e6
    boxes, views = scene.boxes_at(world, t), small_views(world, t, 96)
    culled, culled_depth = rendered_with_depth(boxes, LIGHT, views)
    everything = lambda bounds, rows, columns, tile: torch.ones(  # noqa: E731
        bounds.shape[1] * rows * columns, bounds.shape[2], dtype=torch.bool
    )
    monkeypatch.setattr(render.culling, "tile_overlap", everything)
    monkeypatch.setattr(render.culling, "in_sight", lambda center, *_: np.ones(center.shape[:2], dtype=bool))
    full, full_depth = rendered_with_depth(boxes, LIGHT, views)
    assert torch.equal(culled.rgb, full.rgb) and torch.equal(culled.owner, full.owner)
    assert torch.equal(culled_depth, full_depth)


def test_views_in_a_batch_are_those_rendered_alone(world):
    t = rig.camera_times_us([500_000])[0] / 1e6
    boxes, views = scene.boxes_at(world, t), small_views(world, t, 64)
    together, depths = rendered_with_depth(boxes, LIGHT, views)
    for i in (0, 3):
        alone = render.Views(
            city_from_cam=views.city_from_cam[i : i + 1],
            intrinsics=views.intrinsics[i : i + 1],
            width=views.width,
            height=views.height,
        )
        picture, depth = rendered_with_depth(scene.boxes_at(world, t[i : i + 1]), LIGHT, alone)
        assert torch.equal(picture.owner[0], together.owner[i])
        assert torch.equal(depth[0], depths[i])


def block_world(*actors: Actor, scenery: tuple[Block, ...] = ()) -> scene.Scene:
    return scene.Scene(
        name="blocks",
        description="",
        actors=actors,
        scenery=scenery,
        ego=Motion(start=(0.0, 0.0, 0.0)),
        light=LIGHT,
        global_from_city=np.eye(4),
    )


def solid_actor(x: float, y: float, yaw: float = 0.0, size=(4.0, 2.0, 1.5), category="vehicle.car") -> Actor:
    whole = Part(low=(-0.5, -0.5, -0.5), high=(0.5, 0.5, 0.5), color=(0.5, 0.1, 0.1))
    return Actor(name=f"{x}", category=category, size=size, parts=(whole,), motion=Motion(start=(x, y, yaw)),
                 still="vehicle.parked", moving="vehicle.moving")  # fmt: skip


@pytest.mark.parametrize("x, y, yaw", [(9.0, 0.5, 0.7), (25.0, -6.0, -2.0), (-12.0, 2.0, 0.1), (6.0, 7.0, 1.0)])
def test_projected_box_coincides_with_the_mask(x, y, yaw):
    world = block_world(solid_actor(x, y, yaw))
    t = np.zeros(6)
    views = photo.camera_views(world, t, 400)
    owner = render.render(scene.boxes_at(world, t), LIGHT, views).owner.numpy()
    pose = actor_poses(world.actors[0], t[:1])
    corners = geometry.box_corners(
        pose[:, :3], np.array([world.actors[0].size]), geometry.quaternion_from_yaw(pose[:, 3])
    )
    compared = 0
    for i in range(6):
        cam_from_city = geometry.inverse(views.city_from_cam[i])
        pixels, depth = geometry.project(views.intrinsics[i], cam_from_city, corners[0])
        if (depth > 0.5).all() and (owner[i] == 0).any():
            hull = cv2.convexHull(np.round((pixels - 0.5) * 16).astype(np.int32))  # pixel i covers [i, i + 1)
            drawn = cv2.fillConvexPoly(np.zeros(owner[i].shape, np.uint8), hull, 1, shift=4) > 0
            mask = owner[i] == 0
            assert (drawn & mask).sum() / (drawn | mask).sum() > 0.9
            compared += 1
    assert compared


def test_visible_share_counts_what_is_not_hidden():
    wall = Block(center=(6.0, 5.0, 2.0), size=(0.2, 10.0, 4.0), color=(0.5, 0.5, 0.5))  # hides all with y > 0
    world = block_world(solid_actor(12.0, -4.0), solid_actor(16.0, 0.0), solid_actor(12.0, 4.0), scenery=(wall,))
    t = np.zeros(6)
    boxes, views = scene.boxes_at(world, t), photo.camera_views(world, t, 480)
    share = sense.visible_share(boxes, views, render.render(boxes, LIGHT, views), 3)
    assert share[0] == 1 and share[2] == 0 and share[1] == pytest.approx(0.5, abs=0.06)


def test_pixels_alone_equal_a_picture_without_the_others(world):
    t = rig.camera_times_us([1_000_000])[0] / 1e6
    boxes, views = scene.boxes_at(world, t), small_views(world, t, 192)
    counts = sense._pixels_alone(boxes, views, len(world.actors), torch.device("cpu"))
    for i in np.argsort(-counts.numpy())[[0, 3, 10]]:
        keep = boxes.owner == i
        alone = Boxes(center=boxes.center[:, keep], yaw=boxes.yaw[:, keep],
                      **{n: getattr(boxes, n)[keep] for n in FIELDS})  # fmt: skip
        # On its own and without ground: every pixel it could cover.
        picture = render.render(alone, LIGHT, views)
        lone = (picture.owner == i).sum()
        assert counts[i] == lone > 0


def test_lidar_points_equal_the_slow_twin(world, monkeypatch):
    monkeypatch.setattr(rig, "LIDAR_COLUMNS", 48)
    t = np.array([1.0])
    city_from_lidar = scene.city_from_base(world, t)[0] @ rig.base_from_lidar()
    boxes = only_nearby(scene.boxes_at(world, t), city_from_lidar[:2, 3], 25)
    counts = np.zeros(len(world.actors), int)
    city_from_base = scene.city_from_base(world, t)[0]
    for direction in rig.lidar_directions().reshape(-1, 3) @ city_from_base[:3, :3].T:
        height = city_from_lidar[2, 3]
        limit = min(sense.LIDAR_RANGE, height / -direction[2] if direction[2] < 0 else math.inf)
        hit, _, _ = slow_hit(boxes, 0, city_from_lidar[:3, 3], direction, limit)
        if hit >= 0 and boxes.owner[hit] >= 0:
            counts[boxes.owner[hit]] += 1
    fast = sense.lidar_points(boxes, city_from_lidar, len(world.actors))
    assert counts.sum() > 30 and np.abs(fast - counts).sum() <= 2


def test_markings_fade_to_their_mean_far_away():
    x = torch.linspace(30, 51, 2101)[:-1]  # three dashes and gaps
    y = torch.full_like(x, 3.5)
    fine = surfaces.ground_color(x, y, torch.full((2, len(x)), 0.01))
    coarse = surfaces.ground_color(x, y, torch.stack([torch.full_like(x, 10.0), torch.full_like(x, 0.01)]))
    assert (coarse.amax(dim=1) - coarse.amin(dim=1) < 0.02).all() and (fine.amax(dim=1) - fine.amin(dim=1) > 0.3).all()
    torch.testing.assert_close(coarse.mean(dim=1), fine.mean(dim=1), atol=0.03, rtol=0)


def test_culling_loses_no_lidar_return(world, monkeypatch):
    for t in (np.array([0.5]), np.array([12.0])):
        city_from_lidar = scene.city_from_base(world, t)[0] @ rig.base_from_lidar()
        culled = sense.lidar_points(scene.boxes_at(world, t), city_from_lidar, len(world.actors))
        with monkeypatch.context() as patch:
            everything = lambda solids, tiles: torch.ones(tiles.shape[1], len(solids.cos), dtype=torch.bool)  # noqa: E731
            patch.setattr(sense, "_sector_overlap", everything)
            full = sense.lidar_points(scene.boxes_at(world, t), city_from_lidar, len(world.actors))
        assert full.sum() > 1000 and (culled == full).all()


def test_shadow_and_glow_are_drawn_as_stated():
    """A box without shadow leaves the ground lit; one that glows is as bright as its colour in the dark."""
    whole = {"low": (-0.5, -0.5, -0.5), "high": (0.5, 0.5, 0.5), "color": (0.6, 0.2, 0.1)}
    pictures = []
    for more in ({}, {"shadow": False}, {"glow": 1.0}):
        part = Part(**whole, **more)
        actor = replace(solid_actor(8.0, 0.0), parts=(part,))
        light = replace(LIGHT, sun=(0.0, 0.0, 0.0), ambient=(0.0, 0.0, 0.0), haze=1e9) if "glow" in more else LIGHT
        world = replace(block_world(actor), light=light)
        t = np.zeros(6)
        pictures.append(render.render(scene.boxes_at(world, t), light, photo.camera_views(world, t, 320)))
    throws, without, glows = (picture.rgb[0].float() for picture in pictures)
    box = pictures[0].owner[0] == 0
    darker = (throws < without - 10).all(-1)
    assert darker.sum() > 50 and not (darker & box).any() and torch.equal(throws[box], without[box])
    assert (glows[box] - torch.tensor([0.6, 0.2, 0.1]) * 255).abs().max() <= 1 and glows[-20:][~box[-20:]].max() == 0
