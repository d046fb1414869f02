"""Laws of the synthetic world's contents: motion in closed form, traffic without collisions, boxes inside boxes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncl_core.classes import CAMERAS, TRACKING_CLASSES
from syncl_core.world import city, generate, motion, rig, scene
from syncl_core.world.motion import Motion

SECONDS = 6.0

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


@given(cruise=st.floats(4, 12), distance=st.floats(35, 80), slow=st.floats(0, 3.9), hold=st.floats(0, 5))
def test_speed_plan_has_the_speed_at_the_place(cruise, distance, slow, hold):
    path = Motion(start=(0.0, 0.0, 0.0), speeds=motion.speed_plan(cruise, (distance, slow, hold)))
    t = np.linspace(0, 60, 60001)
    s, v = motion.travelled(path, t), motion.speed(path, t)
    arrival = np.argmax(s >= distance - 1e-3)
    assert v[arrival] == pytest.approx(slow, abs=0.15)
    assert np.abs(np.diff(v) / np.diff(t)).max() < motion.COMFORT + 1e-6
    assert v[-1] == pytest.approx(cruise)


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
    return [generate.make_scene(seed, SECONDS) for seed in range(3)]


def test_scene_is_a_function_of_the_seed(scenes):
    again = generate.make_scene(1, SECONDS)
    assert again.actors == scenes[1].actors and again.scenery == scenes[1].scenery and again.light == scenes[1].light
    assert again.actors != scenes[2].actors


def test_every_class_can_be_met(scenes):
    assert {actor.category.split(".")[1] for world in scenes for actor in world.actors} == set(TRACKING_CLASSES)


def test_actors_never_touch(scenes):
    """Separating axes of the footprints, at times between those the generator looks at."""
    for world in scenes:
        for t in np.arange(0.1, SECONDS, 0.7):
            at = np.array([scene.actor_poses(actor, np.array([t]))[0] for actor in world.actors])
            for i, first in enumerate(world.actors):
                for j in range(i):
                    reach = (math.hypot(*first.size[:2]) + math.hypot(*world.actors[j].size[:2])) / 2
                    if np.linalg.norm(at[i, :2] - at[j, :2]) < reach:
                        assert _apart(at[i], first.size, at[j], world.actors[j].size), (first, world.actors[j], t)


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
    for world in scenes:
        boxes = scene.boxes_at(world, t)
        for i, actor in enumerate(world.actors):
            of = boxes.owner == i
            x, y, z, yaw = scene.actor_poses(actor, t).T[:, :, None]
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
