"""Laws of the synthetic world's contents: motion in closed form, traffic without collisions, boxes inside boxes."""

import itertools
import math

import numpy as np
import pytest
import world_census
import world_helpers
from hypothesis import given, settings
from hypothesis import strategies as st

from syncl_core.classes import CAMERAS, TRACKING_CLASSES
from syncl_core.world import city, flow, generate, motion, rig, scene, splits, traffic
from syncl_core.world.motion import Motion

SECONDS = generate.SCENE_SECONDS

numbers = st.floats(-20, 20)
arcs = st.lists(st.tuples(st.floats(0, 30), st.floats(-0.1, 0.1)), max_size=3).map(lambda a: ((5.0, 0.0), *a))
speeds = st.lists(st.floats(0, 12), min_size=1, max_size=4).map(lambda v: tuple((1.5 * i, s) for i, s in enumerate(v)))


@settings(max_examples=20, deadline=None)
@given(start=st.tuples(numbers, numbers, st.floats(-3, 3)), arcs=arcs, speeds=speeds, ahead=st.floats(-10, 10))
def test_poses_integrate_speed_and_curvature(start, arcs, speeds, ahead):
    path = Motion(start=start, arcs=arcs, speeds=speeds, ahead=ahead)
    at = lambda t: motion.poses(path, np.array([t]))[0]  # noqa: E731
    steps, t = 3000, 5.0
    x, y, yaw = at(0.0)
    s = ahead
    for i in range(steps):  # midpoint rule, one small step after the other
        v = float(np.interp((i + 0.5) * t / steps, *np.array(speeds).T))
        middle = s + v * t / steps / 2
        ends = np.cumsum([length for length, _ in arcs])
        piece = int(np.searchsorted(ends, middle))
        curvature = arcs[piece][1] if piece < len(arcs) else 0.0
        turn = curvature * v * t / steps
        x += v * t / steps * math.cos(yaw + turn / 2)
        y += v * t / steps * math.sin(yaw + turn / 2)
        yaw += turn
        s += v * t / steps
    assert at(t) == pytest.approx((x, y, yaw), abs=0.1)


def test_time_may_run_backwards_from_the_start():
    path = Motion(start=(1.0, 2.0, 0.0), speeds=((0.0, 4.0), (2.0, 0.0)))
    assert motion.poses(path, np.array([-0.5]))[0] == pytest.approx((-1.0, 2.0, 0.0))


@pytest.mark.parametrize("side, heading", [("left", math.pi / 2), ("right", -math.pi / 2)])
@pytest.mark.parametrize("lane", city.LANES)
def test_turns_end_in_the_middle_of_the_like_lane(side, heading, lane):
    arcs = city.turn_arcs(40.0, lane, side)
    path = Motion(start=city.lane_point(-40.0, 0, lane), arcs=arcs, speeds=((0.0, 1.0),))
    x, _, yaw = motion.poses(path, np.array([sum(length for length, _ in arcs)]))[0]
    assert yaw == pytest.approx(heading)
    assert x == pytest.approx(lane if side == "left" else -lane)  # right-hand traffic


def test_lane_points_keep_to_the_right():
    for heading in range(4):
        x, y, yaw = city.lane_point(20.0, heading, 1.75)
        forward, right = x * math.cos(yaw) + y * math.sin(yaw), x * math.sin(yaw) - y * math.cos(yaw)
        assert (forward, right) == pytest.approx((20.0, 1.75))


@pytest.fixture(scope="module")
def scenes():
    return [generate.make_scene(seed) for seed in range(4)]


def test_scene_is_a_function_of_the_seed(scenes):
    again = generate.make_scene(1, 3.0)  # a shorter scene is the beginning of the longer one
    assert again.actors == scenes[1].actors and again.scenery == scenes[1].scenery and again.light == scenes[1].light
    assert again.actors != scenes[2].actors


def test_every_class_can_be_met(scenes):
    assert {actor.category.split(".")[1] for world in scenes for actor in world.actors} == set(TRACKING_CLASSES)


def test_actors_never_touch(scenes):
    """Separating axes of the footprints, at times between those the generator looks at."""
    for world in scenes:
        times, checked = np.arange(0.03, SECONDS, 0.23), 0
        bodies = [(world_helpers.actor_poses(actor, times), actor.size, actor.name) for actor in world.actors]
        ego = motion.poses(world.ego, times)[:, [0, 1, 2, 2]]
        ego[:, :2] += traffic.EGO_MIDDLE * np.stack([np.cos(ego[:, 3]), np.sin(ego[:, 3])], axis=-1)
        bodies.append((ego, traffic.EGO_SIZE, "ego"))
        for (a, size_a, name_a), (b, size_b, name_b) in itertools.combinations(bodies, 2):
            reach = (math.hypot(*size_a[:2]) + math.hypot(*size_b[:2])) / 2
            for k in np.flatnonzero(np.linalg.norm(a[:, :2] - b[:, :2], axis=1) < reach):
                checked += 1
                assert _apart(a[k], size_a, b[k], size_b), (world.name, name_a, name_b, times[k])
        assert checked > 100


def _apart(pose_a, size_a, pose_b, size_b) -> bool:
    corners = [_footprint(pose_a, size_a), _footprint(pose_b, size_b)]
    for yaw in (pose_a[3], pose_b[3]):
        for axis in ((math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))):
            a, b = (c @ np.array(axis) for c in corners)
            if a.max() < b.min() or b.max() < a.min():
                return True
    return False


def _footprint(pose, size):
    cos, sin = math.cos(pose[3]), math.sin(pose[3])
    local = np.array([[x * size[0] / 2, y * size[1] / 2] for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
    return pose[:2] + local @ np.array([[cos, sin], [-sin, cos]])


def test_parts_stay_inside_their_actor(scenes):
    """Whatever is drawn of an actor, at any phase of its stride, lies in the annotated box."""
    t = np.linspace(0, SECONDS, 40)
    for world in scenes[:2]:
        boxes = scene.boxes_at(world, t)
        for i, actor in enumerate(world.actors):
            of = boxes.owner == i
            x, y, z, yaw = world_helpers.actor_poses(actor, t).T[:, :, None]
            dx, dy = boxes.center[:, of, 0] - x, boxes.center[:, of, 1] - y
            local = np.stack([np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx], axis=-1)
            reach = np.abs(np.concatenate([local, boxes.center[:, of, 2:] - z[..., None]], axis=-1))
            assert (reach + boxes.size[of] / 2 <= np.array(actor.size) / 2 + 1e-9).all()


def test_boxes_of_many_times_are_those_of_each_time(scenes):
    t = np.array([-0.04, 0.3, 5.0])
    together = scene.boxes_at(scenes[0], t)
    for i, moment in enumerate(t):
        alone = scene.boxes_at(scenes[0], np.array([moment]))
        np.testing.assert_array_equal(together.center[i], alone.center[0])
        np.testing.assert_array_equal(together.yaw[i], alone.yaw[0])


def test_rig_looks_where_its_names_say_and_fires_within_a_turn():
    directions = {"FRONT": 0, "FRONT_LEFT": 55, "BACK_LEFT": 110, "BACK": 180, "BACK_RIGHT": -110, "FRONT_RIGHT": -55}
    for camera in CAMERAS:
        matrix = rig.base_from_cam(camera)
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
        angle = math.degrees(math.atan2(matrix[1, 2], matrix[0, 2])) - directions[camera.removeprefix("CAM_")]
        assert abs((angle + 180) % 360 - 180) < 3
        assert matrix[2, 1] < -0.99  # image rows run downwards
    sweeps = rig.sweep_times_us(4)
    assert (sweeps[:: rig.SWEEPS_PER_KEY_FRAME] == np.arange(4) * 500_000).all()
    leads = sweeps[:, None] - rig.camera_times_us(sweeps)
    assert (leads > 0).all() and (leads <= 45_000).all()


def test_intrinsics_scale_with_the_image():
    full, half = (rig.camera_model("CAM_FRONT", width) for width in (1600, 800))
    assert (half.width, half.height) == (800, 450)
    np.testing.assert_allclose(half.intrinsics[:2], full.intrinsics[:2] / 2)
    np.testing.assert_allclose(half.intrinsics[2], [0, 0, 1])


def test_difficulty_has_a_floor():
    """What makes tracking hard is there in every scene, whatever the seed."""
    counts = [world_census.census(seed) for seed in (0, splits.VAL, splits.TEST + 1, splits.TRAIN + 2)]
    for of in counts:
        assert of.in_range > 20 and of.noticed > 15 and of.classes >= 5
        assert of.births >= 15 and of.exits >= 15 and of.hidden >= 20
        assert of.crossing >= 3 and of.stop_and_go >= 5
    assert np.mean([of.look_alikes for of in counts]) > 5


def test_egos_and_hours_differ():
    texts = [generate.make_scene(splits.TRAIN + i).description for i in range(24)]
    for word in ("left", "right", "stops", "lane", "queue", "night", "overcast", "noon", "low sun", "dusk"):
        assert any(word in text for text in texts), word


def test_ego_turns_stops_and_changes_lanes():
    """What the description says of the ego is what it does."""
    t, found = np.linspace(0, SECONDS, 200), set()
    for seed in range(24):
        world = generate.make_scene(seed)
        x, y, yaw = motion.poses(world.ego, t).T
        slowest, side = world_helpers.speed(world.ego, t).min(), y - y[0]
        if "turns" in world.description:
            expected = math.pi / 2 if "left" in world.description else -math.pi / 2
            assert yaw[-1] == pytest.approx(expected, abs=1e-6)
        elif "stops" in world.description or "queue" in world.description:
            assert slowest < 1.5 and yaw[-1] == 0
        elif "lane" in world.description:
            assert abs(side[-1]) == pytest.approx(city.LANE_WIDTH, abs=1e-6) and np.abs(yaw).max() > 0.2
        else:
            assert np.abs(side).max() < 1e-9 and x[-1] > 0
        found.add(world.description.split(",")[2])
    assert len(found) == 6


def test_lanes_of_drivers_equal_the_slow_twin():
    """The intelligent driver model, written down once more from its equations; one red light, one leader."""
    signal = flow.Signal(green=8.0, offset=12.0)  # red for the street along x at first
    lane = [
        flow.Driver(at=-40.0, length=4.5, wish=9.0, speed=8.0),
        flow.Driver(at=-60.0, length=5.0, wish=10.0, speed=9.0),
    ]
    knots = flow.simulate(lane, 0, signal, 20.0)
    (s1, v1), (s2, v2), step = (-40.0, 8.0), (-60.0, 9.0), 0.25
    for k in range(80):
        t = k * step
        green = (t + 12.0) % 22.0 < 8.0
        assert signal.is_green(0, t) == green
        assert not (signal.is_green(0, t) and signal.is_green(1, t))
        line = -city.STOP_LINE - 0.5 - s1 - 2.25
        red = line + 2.0 if not green and line > 0 and v1 * v1 / 7.0 < line else math.inf
        a1 = _idm(v1, 9.0, red, v1)
        line2 = -city.STOP_LINE - 0.5 - s2 - 2.5
        red2 = line2 + 2.0 if not green and line2 > 0 and v2 * v2 / 7.0 < line2 else math.inf
        a2 = min(_idm(v2, 10.0, s1 - s2 - 4.75, v2 - v1), _idm(v2, 10.0, red2, v2))
        n1, n2 = max(v1 + a1 * step, 0), max(v2 + a2 * step, 0)
        s1, s2, v1, v2 = s1 + (v1 + n1) / 2 * step, s2 + (v2 + n2) / 2 * step, n1, n2
        assert (knots[0][k + 1][1], knots[1][k + 1][1]) == pytest.approx((v1, v2), abs=1e-9)
    speeds = np.array([[v for _, v in of] for of in knots])
    assert speeds.min(axis=1).max() < 0.6 and speeds[:, -1].min() > 3  # both stood, both drive


def _idm(v: float, wish: float, gap: float, closing: float) -> float:
    wanted = 2.0 + max(0.0, 1.1 * v + v * closing / (2 * math.sqrt(1.8 * 2.2)))
    return max(1.8 * (1 - (v / wish) ** 4 - (wanted / max(gap, 0.3)) ** 2), -6.0)


def test_stacked_motions_are_each_motion():
    """Padding of knots and arcs changes nothing, and equal knots are allowed."""
    some = [
        Motion(start=(1.0, 2.0, 0.3)),
        Motion(
            start=(0.0, 0.0, -1.0),
            arcs=((5.0, 0.1), (3.0, -0.2)),
            speeds=((0.0, 4.0), (2.0, 0.0), (2.0, 0.0), (5.0, 6.0)),
        ),
        Motion(start=(3.0, 1.0, 2.0), arcs=((7.0, 0.0),), speeds=((-3.0, 0.0), (-2.0, 1.5)), ahead=2.0),
    ]
    t = np.linspace(-4, 9, 40)
    together, speeds = motion.poses_of(motion.stack(some), t), motion.progress(motion.stack(some), t)[1]
    for i, path in enumerate(some):
        np.testing.assert_allclose(together[i], motion.poses(path, t), atol=1e-12)
        np.testing.assert_allclose(speeds[i], world_helpers.speed(path, t), atol=1e-12)
