"""Sensor data that changes or fails on the way: new calibrations, clocks that are off, sets that become nothing."""

import dataclasses

import numpy as np
import pytest
from test_intake import CONFIG, IMAGE, MODEL, MS, OFFSETS_MS, T0, add_images, add_poses, add_rig, frozen_clock, sweep
from test_session import fake_step, init_state

from syncl_core.config import SynclConfig, check_config
from syncl_core.errors import InputError
from syncl_core.runtime.intake import Intake
from syncl_core.runtime.session import TrackerSession
from syncl_core.types import Lens

CAMERAS = CONFIG.rig.cameras


def configured(rig=(), sync=()) -> SynclConfig:
    return dataclasses.replace(
        CONFIG, rig=dataclasses.replace(CONFIG.rig, **dict(rig)), sync=dataclasses.replace(CONFIG.sync, **dict(sync))
    )


def test_stamp_offsets_are_applied_once_to_every_image():
    """A camera whose clock is 700 ms late is brought back; without that its sets are incomplete."""
    late_ns = 700 * MS
    for offset_s, count in ((-0.7, 3), (0.0, 0)):
        offsets = tuple(offset_s if camera == "CAM_BACK" else 0.0 for camera in CAMERAS)
        intake = Intake(configured(rig={"stamp_offsets": offsets}), frozen_clock)
        add_rig(intake)
        for n in range(3):
            add_poses(intake, n)
        for n in range(3):
            for t_ns, camera in sweep(n):
                stamp_ns = t_ns + late_ns if camera == "CAM_BACK" else t_ns
                intake.add_image(camera, stamp_ns, camera.lower(), IMAGE)
        sets = [s for s in intake.poll() + intake.finish() if all(s.views)]
        assert len(sets) == count
        for n, frame_set in enumerate(sets):
            for view in frame_set.views:
                assert view.t_ns == T0 + n * 500 * MS + OFFSETS_MS[view.camera] * MS


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rig": {"stamp_offsets": (0.1,)}}, "rig.stamp_offsets: expected 6 numbers of seconds"),
        ({"rig": {"stamp_offsets": (0.0,) * 5 + (float("nan"),)}}, "rig.stamp_offsets: expected 6 numbers"),
        ({"rig": {"stamp_offsets": (11.0,) + (0.0,) * 5}}, "rig.stamp_offsets: .* within -10 and 10"),
        ({"rig": {"rectify": "on"}}, "rig.rectify: expected auto, always or never, got 'on'"),
        ({"rig": {"max_calibration_change": -1.0}}, "rig.max_calibration_change: must be zero or more pixels"),
        ({"sync": {"coast_max": -1.0}}, "sync.coast_max: must be zero or more seconds"),
        ({"sync": {"max_ego_jump": float("nan")}}, "sync.max_ego_jump: must be zero or more metres"),
    ],
)
def test_impossible_values_are_refused(changes, message):
    check_config(configured())
    with pytest.raises(InputError, match=message):
        check_config(configured(**changes))


def test_a_changed_calibration_counts_from_then_on_and_is_said_once_per_change():
    intake = Intake(CONFIG, frozen_clock)
    add_rig(intake)
    longer = dataclasses.replace(MODEL, intrinsics=MODEL.intrinsics + np.diag([2.5, 1, 0]))
    bent = dataclasses.replace(
        longer, lens=Lens(model="equidistant", intrinsics=MODEL.intrinsics, coefficients=np.zeros(4))
    )
    more_bent = dataclasses.replace(bent, lens=dataclasses.replace(bent.lens, coefficients=np.full(4, 0.1)))
    larger = dataclasses.replace(MODEL, width=320)
    said = []
    for model in (MODEL, longer, longer, bent, bent, more_bent, larger):
        intake.add_camera_model("CAM_BACK", model)
        problem = intake.problems().get("camera_model_changed")
        said.append((problem.count, problem.message) if problem else (0, ""))
    assert [count for count, _ in said] == [0, 1, 1, 2, 2, 3, 4]
    assert said[1][1] == "CAM_BACK: its calibration changed: its intrinsics, by up to 2.50 pixels"
    assert said[3][1].endswith("its lens") and said[5][1].endswith("its lens")
    assert said[6][1].endswith("images of 160x90 are now 320x90")
    intake.add_camera_model("CAM_BACK", longer)
    add_poses(intake, 0)
    add_images(intake, 0)
    (frame_set,) = intake.finish()
    assert frame_set.views[CAMERAS.index("CAM_BACK")].model is longer


def test_an_impossible_lens_is_named():
    intake = Intake(CONFIG, frozen_clock)
    lens = Lens(model="equidistant", intrinsics=MODEL.intrinsics, coefficients=np.zeros(3))
    intake.add_camera_model("CAM_BACK", dataclasses.replace(MODEL, lens=lens))
    message = intake.problems()["bad_camera_model"].message
    assert message.startswith("CAM_BACK: unusable calibration: equidistant needs 4 finite coefficients")


def test_poses_that_come_minutes_before_their_images_are_kept_where_that_is_asked_for():
    """As in a replay that was held up: what waits of /tf is read at once, images one by one."""
    for seconds, least, most in ((1000.0, 200, 200), (None, 60, 160)):
        intake, sets = Intake(CONFIG, frozen_clock), []
        if seconds:
            intake.remember_transforms(seconds)
        add_rig(intake)
        for n in range(200):
            for later in range(n, n + 100) if n % 100 == 0 else ():
                add_poses(intake, later)
            add_images(intake, n)
            sets += intake.poll()
        assert least <= len(sets + intake.finish()) <= most


def test_sets_that_became_nothing_are_known_with_their_time():
    now = [0]
    intake = Intake(CONFIG, lambda: now[0], ego_wait_s=0.2)
    add_rig(intake)
    for n in range(3):
        add_poses(intake, n)
    for n in range(2):
        add_images(intake, n)
    sets = intake.poll()
    now[0] += 150 * MS  # the deadline
    assert len(sets + intake.poll()) == 2 and intake.take_missed() == []
    add_images(intake, 2, skip=("CAM_BACK", "CAM_FRONT_LEFT"))
    now[0] += 150 * MS
    assert intake.poll() == []
    (few,) = intake.take_missed()
    assert few.reason == "too_few_cameras"
    assert few.message.endswith("missing " + ", ".join(c for c in CAMERAS if c in ("CAM_BACK", "CAM_FRONT_LEFT")))
    assert few.t_ns == T0 + (1000 + OFFSETS_MS[CAMERAS[0]]) * MS
    assert intake.take_missed() == []
    add_images(intake, 3)  # no poses
    intake.poll()
    now[0] += 200 * MS
    assert intake.poll() == []
    (blind,) = intake.take_missed()
    assert blind.reason == "incomplete_set" and "not there yet" in blind.message
    assert blind.t_ns == T0 + (1500 + OFFSETS_MS[CAMERAS[0]]) * MS


def test_missed_sets_come_in_order_and_are_bounded():
    intake = Intake(CONFIG, frozen_clock)
    add_rig(intake)
    for n in range(300):
        add_images(intake, n, skip=("CAM_BACK",) if n % 2 else ())
        intake.poll()
    times = [one.t_ns for one in intake.take_missed()]
    assert times == sorted(times) and len(times) == 128


def test_a_time_jump_forgets_missed_sets():
    """Their times would be ahead of the new ones."""
    intake = Intake(CONFIG, frozen_clock)
    add_rig(intake)
    for n in range(10, 20):
        add_images(intake, n, skip=("CAM_BACK",) if n % 2 else ())
        intake.poll()
    add_images(intake, 0)
    assert intake.time_jumps == 1 and intake.take_missed() == []


def test_a_set_that_became_nothing_is_bridged_by_predictions():
    """Intake and session as an owner joins them: seen, seen, predicted, seen; one session, one memory."""
    now, said = [0], []
    intake, session = Intake(CONFIG, lambda: now[0]), TrackerSession(fake_step, init_state, CONFIG)
    add_rig(intake)
    for n in range(5):
        add_poses(intake, n)
        add_images(intake, n, skip=("CAM_BACK",) if n == 3 else ())
        now[0] += 150 * MS
        for frame_set in intake.poll():
            said.append(session.process(frame_set).objects)
        said += [session.coast(missed.t_ns) for missed in intake.take_missed()]
    assert [objects.states[0] for objects in said] == ["confirmed"] * 3 + ["coasting", "confirmed"]
    assert [round((objects.t_ns - T0) / (500 * MS)) for objects in said] == list(range(5))
    assert len({i.split("-")[0] for objects in said for i in objects.ids}) == 1
    assert said[3].ids == said[2].ids and (said[3].scores < said[2].scores).all()
    session.close()
