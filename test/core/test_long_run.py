"""Hours of driving with faults: what the runtime holds afterwards is what it held after minutes."""

from collections import deque
from dataclasses import fields, is_dataclass, replace
from random import Random

import numpy as np
from test_intake import CONFIG, IMAGE, MODEL, MS, T0, base_from_cam, odom_from_base
from test_session import CONFIG as SESSION_CONFIG
from test_session import SECOND, fake_step, frame_set, init_state

from syncl_core.runtime.intake import Intake
from syncl_core.runtime.session import TrackerSession
from syncl_core.runtime.transform_tree import MAX_FRAMES, TransformTree

HOUR_SWEEPS = 3600


def weight(value, seen=None) -> int:
    """How many Python values hang on one, each counted once."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (type, str, bytes, int, float, np.ndarray)) or callable(value):
        return 0
    seen.add(id(value))
    if isinstance(value, dict):
        inside = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, deque)):
        inside = list(value)
    elif is_dataclass(value):
        inside = [getattr(value, f.name) for f in fields(value)]
    else:
        inside = list(getattr(value, "__dict__", {}).values())
    return 1 + len(inside) + sum(weight(one, seen) for one in inside)


def test_two_hours_with_faults_leave_no_more_behind_than_ten_minutes():
    """Cameras that die for minutes, poses that stay away, frames with ever new names; images and poses at 1 Hz."""
    cameras = CONFIG.rig.cameras[:3]
    rig, sync = replace(CONFIG.rig, cameras=cameras), replace(CONFIG.sync, min_cameras=2)
    random, now = Random(3), [0]
    intake, weights, sets, missed = Intake(replace(CONFIG, rig=rig, sync=sync), lambda: now[0]), [], 0, 0
    for i, camera in enumerate(cameras):
        intake.add_transform("base_link", camera.lower(), 0, base_from_cam(i), static=True)
        intake.add_camera_model(camera, MODEL)
    dead, no_poses = set(), False
    for n in range(2 * HOUR_SWEEPS):
        if n % 100 == 0:
            dead, no_poses = set(random.sample(cameras, random.choice((0, 0, 1, 3)))), random.random() < 0.2
        t_ns = T0 + n * SECOND
        if not no_poses:
            intake.add_transform("odom", "base_link", t_ns + 100 * MS, odom_from_base(t_ns % (10 * SECOND)))
        for camera in cameras:
            if camera not in dead:
                intake.add_image(camera, t_ns + random.randrange(9 * MS), "", IMAGE)
        if n % 2 == 0:
            intake.add_transform("odom", f"object_{n}", t_ns, np.eye(4))
        now[0] += SECOND
        sets += len(intake.poll())
        if n % 75 == 74:
            missed += len(intake.take_missed())
            weights.append(weight(intake))
    assert sets > HOUR_SWEEPS / 2 and missed > 100, "both must have happened"
    early, later = max(weights[:8]), max(weights[8:])
    assert later <= 1.2 * early, (early, later)


def test_frames_with_ever_new_names_are_forgotten():
    tree = TransformTree(max_seconds=10.0)
    tree.insert("base_link", "camera", 0, np.eye(4), static=True)
    for n in range(5000):
        tree.insert("odom", "base_link", n * SECOND // 10, np.eye(4))
        tree.insert("odom", f"object_{n}", n * SECOND // 10, np.eye(4))
    assert len(tree.frames()) <= MAX_FRAMES + 2
    np.testing.assert_array_equal(tree.lookup("odom", "camera", 4999 * SECOND // 10), np.eye(4))


def test_a_session_does_not_grow():
    session = TrackerSession(fake_step, init_state, SESSION_CONFIG)
    weights = []
    for i in range(300):
        session.process(frame_set(i * SECOND // 2 if i % 7 else i * SECOND))
        session.coast(i * SECOND // 2 + 1)
        own = {name: value for name, value in vars(session).items() if name not in ("_pool", "_config")}
        weights.append(weight(own))
    session.close()
    assert max(weights[100:]) <= max(weights[:100])
