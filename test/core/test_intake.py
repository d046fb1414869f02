"""From sensor data to frame sets: poses at every camera's own stamp, waiting, refusing by name, jumps in time."""

import numpy as np
import pytest

from syncl_core import geometry
from syncl_core.config import ImageConfig, RigConfig, SyncConfig, SynclConfig
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.runtime.intake import Intake
from syncl_core.types import CameraModel, RawImage

MS = 1_000_000
T0 = 1_532_402_927_000 * MS
OFFSETS_MS = dict(zip(RigConfig().cameras, (12, 20, 5, 37, 47, 28), strict=True))
WIDTH, HEIGHT = 160, 90
CONFIG = SynclConfig(image=ImageConfig(height=32, width=80))
MODEL = CameraModel(width=WIDTH, height=HEIGHT, intrinsics=np.array([[126.0, 0, 81.0], [0, 127.0, 49.0], [0, 0, 1]]))
IMAGE = RawImage(encoding="rgb8", data=bytes(3 * WIDTH * HEIGHT), width=WIDTH, height=HEIGHT)


def frozen_clock():
    return 0


def base_from_cam(index):
    """Cameras around the car, looking outward and 5 degrees down."""
    outward = geometry.quaternion_from_yaw(index * np.pi / 3)
    optical = geometry.matrix_from_quaternion([0.5, -0.5, 0.5, -0.5])  # z forward, x right, y down
    pitch = geometry.matrix_from_quaternion([np.cos(0.0436), -np.sin(0.0436), 0, 0])
    result = geometry.transform([np.cos(index), np.sin(index), 1.5], outward)
    result[:3, :3] = result[:3, :3] @ optical @ pitch
    return result


def odom_from_base(t_ns):
    """A car at 15 m/s that turns at 0.6 rad/s and pitches and rolls: an analytic, exact pose at any time."""
    t = (t_ns - T0) / 1e9
    yaw, pitch, roll = 0.6 * t, 0.03 * np.sin(3 * t), 0.02 * np.cos(2 * t)
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    turn = turn @ [[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]] @ [[1, 0, 0], [0, cr, -sr], [0, sr, cr]]
    result = np.eye(4)
    result[:3, :3] = turn
    result[:3, 3] = [25 * np.sin(yaw), 25 * (1 - np.cos(yaw)), 0.1 * t]
    return result


def add_rig(intake, config=CONFIG, models=True):
    for i, camera in enumerate(config.rig.cameras):
        intake.add_transform("base_link", camera.lower(), 0, base_from_cam(i), static=True)
        if models:
            intake.add_camera_model(camera, MODEL)


def sweep(n):
    """(stamp, camera) of sweep n, in order of time."""
    return sorted((T0 + n * 500 * MS + offset * MS, camera) for camera, offset in OFFSETS_MS.items())


def add_poses(intake, n):
    for t_ns, _ in sweep(n):
        intake.add_transform("odom", "base_link", t_ns, odom_from_base(t_ns))


def add_images(intake, n, skip=()):
    for t_ns, camera in sweep(n):
        if camera not in skip:
            intake.add_image(camera, t_ns, camera.lower(), IMAGE)


def test_only_what_carries_the_vehicle_or_a_camera_matters():
    """Also a mount that moves, once its camera has been seen; a wheel and another car hang on other branches."""
    intake = Intake(CONFIG, frozen_clock)
    add_rig(intake)
    intake.add_transform("odom", "base_link", T0, odom_from_base(T0))
    intake.add_transform("base_link", "gimbal", T0, np.eye(4))
    intake.add_transform("gimbal", "gimbal_camera", 0, np.eye(4), static=True)
    intake.add_transform("base_link", "wheel", T0, np.eye(4))
    intake.add_transform("odom", "other_car", T0, np.eye(4))
    assert intake.carries({"base_link", "wheel"}) and not intake.carries({"wheel", "other_car", "gimbal"})
    intake.add_image("CAM_FRONT", T0, "gimbal_camera", IMAGE)
    assert intake.carries({"gimbal"}) and not intake.carries({"wheel", "other_car"}) and not intake.carries(set())


def test_static_point_maps_to_one_place_from_every_camera():
    """The law of per-camera ego motion: what six cameras of a moving, turning car see is one point, within 1 mm.

    Pixels and depths are simulated camera by camera from the analytic trajectory; the frame must take them back.
    """
    intake = Intake(CONFIG, frozen_clock)
    add_rig(intake)
    for n in range(3):
        add_poses(intake, n)
        add_images(intake, n)
    (*_, frame_set) = intake.poll() + intake.finish()
    frame = make_frame(frame_set, CONFIG.image)
    assert frame_set.t_ns == T0 + 1047 * MS and int(frame.t_ns) == frame_set.t_ns
    scale = CONFIG.image.width / WIDTH
    cut = round(HEIGHT * scale) - CONFIG.image.height
    seen = 0
    for i, view in enumerate(frame_set.views):
        cam_from_odom = np.linalg.inv(odom_from_base(view.t_ns) @ base_from_cam(i))
        for point in np.random.default_rng(i).uniform(-30, 30, size=(50, 3)):
            x, y, depth = (cam_from_odom @ [*point, 1])[:3]
            if depth < 1:
                continue
            u, v = (MODEL.intrinsics @ [x / depth, y / depth, 1])[:2]
            pixel = np.array([u * scale * depth, (v * scale - cut) * depth, depth, 1])
            in_model = np.linalg.solve(frame.image_from_model[0, i].numpy(), pixel)
            in_odom = frame.global_from_model[0].numpy() @ in_model
            assert np.abs(in_odom[:3] - point).max() < 1e-3
            seen += 1
    assert seen > 60


def test_pose_between_two_samples_is_interpolated():
    intake = Intake(CONFIG, frozen_clock)
    add_rig(intake)
    for t_ns in range(T0 - 10 * MS, T0 + 600 * MS, 10 * MS):
        intake.add_odometry(t_ns, odom_from_base(t_ns))
    add_images(intake, 0)
    (frame_set,) = intake.finish()
    for view in frame_set.views:
        np.testing.assert_allclose(view.global_from_base, odom_from_base(view.t_ns), atol=1e-3)
        np.testing.assert_allclose(view.base_from_cam, base_from_cam(CONFIG.rig.cameras.index(view.camera)))


def test_any_order_across_topics_gives_the_same_sets():
    """Poses before or after the images, calibration last: the frame sets are equal bit for bit."""

    def run(pose_lag):
        intake, sets = Intake(CONFIG, frozen_clock), []
        for n in range(6):
            add_images(intake, n)
            sets += intake.poll()
            if n >= pose_lag:
                add_poses(intake, n - pose_lag)
            if n == pose_lag:
                add_rig(intake)
            sets += intake.poll()
        for n in range(6 - pose_lag, 6):
            add_poses(intake, n)
        return sets + intake.finish()

    expected = run(0)
    assert len(expected) == 6
    for pose_lag in (1, 3):
        sets = run(pose_lag)
        assert [s.t_ns for s in sets] == [s.t_ns for s in expected]
        for ours, theirs in zip(sets, expected, strict=True):
            for a, b in zip(ours.views, theirs.views, strict=True):
                assert (a.global_from_base == b.global_from_base).all() and a.t_ns == b.t_ns


def test_set_waits_for_its_poses_on_the_clock_then_is_rejected_by_name():
    now = [0]
    intake = Intake(CONFIG, lambda: now[0], ego_wait_s=0.2)
    add_rig(intake)
    add_poses(intake, 0)
    for n in range(2):
        add_images(intake, n)
    (first,) = intake.poll()
    assert intake.next_deadline_ns() == 200 * MS
    now[0] = 199 * MS
    assert intake.poll() == []
    now[0] = 200 * MS
    assert intake.poll() == [] and intake.next_deadline_ns() is None
    problems = intake.problems()
    assert problems["incomplete_set"].count == 1 and problems["missing_transform"].count == 6
    assert "odom -> base_link: not there yet" in problems["incomplete_set"].message
    add_poses(intake, 2)
    add_images(intake, 2)
    assert [s.t_ns - first.t_ns for s in intake.poll()] == [1000 * MS]


def test_a_pose_too_old_to_come_rejects_at_once():
    intake = Intake(CONFIG, frozen_clock)
    add_rig(intake)
    add_poses(intake, 1)
    for n in range(2):
        add_images(intake, n)
    assert len(intake.poll()) == 1
    assert "forgotten" in intake.problems()["incomplete_set"].message


def test_extrapolation_only_as_configured():
    for limit_s, count in ((0.0, 0), (0.6, 1)):
        config = SynclConfig(image=CONFIG.image, sync=SyncConfig(max_extrapolation=limit_s))
        intake = Intake(config, frozen_clock)
        add_rig(intake)
        add_poses(intake, 0)
        add_images(intake, 1)
        assert len(intake.finish()) == count


def test_camera_without_calibration_is_left_out_where_the_rig_allows_it():
    lost = "CAM_BACK"
    for min_cameras, count in ((6, 0), (5, 1)):
        config = SynclConfig(image=CONFIG.image, sync=SyncConfig(min_cameras=min_cameras))
        intake = Intake(config, frozen_clock)
        add_rig(intake, models=False)
        for camera in config.rig.cameras:
            if camera != lost:
                intake.add_camera_model(camera, MODEL)
        add_poses(intake, 0)
        add_images(intake, 0)
        sets = intake.finish()
        assert len(sets) == count
        assert intake.problems()["missing_camera_model"].message == f"{lost}: no calibration (camera_info) received"
        for frame_set in sets:
            assert [view and view.camera for view in frame_set.views] == [
                None if camera == lost else camera for camera in config.rig.cameras
            ]


CONFIGURED = geometry.transform((0.943713, 0.0, 1.84023), geometry.quaternion_from_yaw(-np.pi / 2))


def model_frames(intake: Intake) -> list[np.ndarray]:
    """Where the network is in three sets."""
    add_rig(intake)
    sets = []
    for n in range(3):
        add_poses(intake, n)
        add_images(intake, n)
        sets += intake.poll()
    sets += intake.finish()
    assert len(sets) == 3
    return [frame_set.base_from_model for frame_set in sets]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "yaw_deg, height_m, used, said",
    [
        (-90, 1.84, True, ""),
        (-75, 2.1, True, ""),
        (-75, 3.0, True, "lies 3.00 m above the vehicle's frame, the network's 1.84 m above the road"),
        (-65, 1.84, False, "is turned by 25 degrees"),
        (0, 1.84, False, "is turned by 90 degrees"),
        (None, None, False, ""),
    ],
)
def test_model_frame_comes_from_the_tree_if_it_points_where_the_networks_does(yaw_deg, height_m, used, said, strict):
    """A lidar of another car may be called lidar_top, too, and have x forward, or sit on a lorry."""
    intake = Intake(CONFIG, frozen_clock, strict=strict)
    if yaw_deg is not None:
        known = geometry.transform([1.0, 2.0, height_m], geometry.quaternion_from_yaw(np.radians(yaw_deg)))
        intake.add_transform("base_link", "lidar_top", 0, known, static=True)
    for base_from_model in model_frames(intake):
        np.testing.assert_allclose(base_from_model, known if used else CONFIGURED, atol=1e-12)
    problems = intake.problems()
    assert ("model_frame" in problems) == bool(said)
    if said:
        assert problems["model_frame"].count == 1
        assert f"lidar_top in /tf {said}" in problems["model_frame"].message


@pytest.mark.parametrize("published", [True, False])
def test_the_model_frame_may_have_another_name(published):
    intake = Intake(CONFIG, frozen_clock, model_frame="Network")
    wrong = geometry.transform([0.0, 0.0, 2.8], CONFIG.rig.base_from_model_rotation)
    intake.add_transform("base_link", "lidar_top", 0, wrong, static=True)
    right = geometry.transform([1.5, 0.0, 1.7], CONFIG.rig.base_from_model_rotation)
    if published:
        intake.add_transform("base_link", "Network", 0, right, static=True)
    for base_from_model in model_frames(intake):
        np.testing.assert_allclose(base_from_model, right if published else CONFIGURED, atol=1e-12)
    problem = intake.problems().get("model_frame")
    assert problem is None if published else problem.message.startswith("model_frame: unknown frame 'Network'")


BAD_POSE = np.full((4, 4), np.nan)
BAD_MODEL = CameraModel(width=WIDTH, height=HEIGHT, intrinsics=np.zeros((3, 3)))


@pytest.mark.parametrize(
    "reason, add, message",
    [
        ("bad_transform", lambda i: i.add_odometry(7, BAD_POSE), "transform at 7 ns: odom -> base_link: not a finite"),
        ("bad_camera_model", lambda i: i.add_camera_model("CAM_BACK", BAD_MODEL), "CAM_BACK: unusable calibration"),
        ("unknown_camera", lambda i: i.add_image("CAM_ROOF", 7, "", IMAGE), "CAM_ROOF: not "),
    ],
)
def test_unusable_input_is_counted_or_raised(reason, add, message):
    intake = Intake(CONFIG, frozen_clock)
    add(intake)
    assert intake.problems()[reason].message.startswith(message)
    with pytest.raises(InputError, match=message):
        add(Intake(CONFIG, frozen_clock, strict=True))


@pytest.mark.parametrize("poses_first", [True, False])
def test_looped_bag_gives_the_same_sets_again(poses_first):
    intake, passes = Intake(CONFIG, frozen_clock), []
    add_rig(intake)
    for _ in range(2):
        sets = []
        for n in range(4):
            for add in (add_poses, add_images) if poses_first else (add_images, add_poses):
                add(intake, n)
            sets += intake.poll()
        passes.append([frame_set.t_ns for frame_set in sets])
    assert len(passes[0]) == 4 and passes[0] == passes[1]
    assert intake.time_jumps == 1
    assert intake.problems()["transform_time_jump" if poses_first else "time_jump"].count == 1


def test_sets_that_wait_are_bounded():
    intake = Intake(CONFIG, frozen_clock)
    add_rig(intake)
    for n in range(40):
        add_images(intake, n)
        intake.poll()
    assert len(intake._waiting) == 7  # three seconds
    assert intake.problems()["incomplete_set"].count == 33
