"""What a session does when something fails: it masks a camera, predicts, reports, tries again; memory stays."""

import dataclasses

import numpy as np
import pytest
import torch
from test_session import CONFIG, MODEL, SECOND, T0, fake_step, frame_set, init_state
from tiny_tracker import tiny_tracker

from syncl_core import geometry
from syncl_core.errors import DeviceError, RejectedSetError
from syncl_core.frames import make_frame
from syncl_core.runtime.coasting import coasted
from syncl_core.runtime.session import TrackerSession
from syncl_core.runtime.surroundings import TimedPose, jump_m
from syncl_core.types import RawImage

CAMERAS = CONFIG.rig.cameras
CORRUPT = RawImage(encoding="jpeg", data=b"\xff\xd8no")
HALF = SECOND // 2


def configured(**sync):
    return dataclasses.replace(CONFIG, sync=dataclasses.replace(CONFIG.sync, **sync))


def with_view(given, camera, **changes):
    """The set with another image, pose or model of one camera."""
    views = tuple(dataclasses.replace(v, **changes) if v.camera == camera else v for v in given.views)
    return dataclasses.replace(given, views=views)


class Recorder:
    """A step that keeps the frames it is given."""

    def __init__(self):
        self.frames = []

    def __call__(self, state, frame):
        self.frames.append(frame)
        return fake_step(state, frame)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"image": CORRUPT}, "corrupt JPEG of 4 bytes"),
        ({"image": RawImage(encoding="mono8", data=bytes(80 * 40), width=80, height=40)}, "80x40, its calibration"),
        ({"global_from_base": np.full((4, 4), np.nan)}, "its pose global_from_base is not finite"),
        ({"model": dataclasses.replace(MODEL, intrinsics=MODEL.intrinsics * np.nan)}, "intrinsics are not finite"),
        ({"model": dataclasses.replace(MODEL, height=20)}, "the network needs 32"),
    ],
)
def test_an_unusable_image_masks_its_camera_alone(changes, reason):
    step = Recorder()
    session = TrackerSession(step, init_state, configured(min_cameras=5))
    good = frame_set(T0)
    session.process(good)
    report = session.process(with_view(frame_set(T0 + HALF), "CAM_BACK", **changes))
    assert list(report.rejected) == ["CAM_BACK"] and reason in report.rejected["CAM_BACK"]
    assert report.rejected["CAM_BACK"].startswith(f"CAM_BACK at {T0 + HALF} ns: ")
    assert report.cameras_used == tuple(c for c in CAMERAS if c != "CAM_BACK") and report.reset_reason == ""
    assert session.problems()["rejected_image"].message == report.rejected["CAM_BACK"]
    valid = step.frames[1].camera_valid[0].tolist()
    assert valid == [camera != "CAM_BACK" for camera in CAMERAS]
    as_if_missing = make_frame(frame_set(T0 + HALF, missing=("CAM_BACK",)), CONFIG.image)
    assert torch.equal(step.frames[1].images, as_if_missing.images)
    assert torch.equal(step.frames[1].image_from_model, as_if_missing.image_from_model)


def test_a_masked_camera_cannot_be_seen_by_the_network():
    """With a real tracker: whatever the corrupt image was, the tracks are those of a set without it."""
    tracker = tiny_tracker(3)
    config = dataclasses.replace(tracker.config, sync=configured(min_cameras=1).sync)
    cameras, size = config.rig.cameras, (config.image.height, config.image.width)
    model = dataclasses.replace(MODEL, width=size[1], height=size[0])

    def drive(spoil):
        session, objects = TrackerSession(tracker.step, tracker.init_state, config), []
        for i in range(3):
            base = frame_set(T0 + i * HALF)
            noise = np.random.default_rng(i).integers(0, 255, (len(cameras), *size, 3), dtype=np.uint8)
            views = []
            for c, camera in enumerate(cameras):
                image = RawImage(encoding="rgb8", data=noise[c].tobytes(), width=size[1], height=size[0])
                outward = geometry.transform([0, 0, 1], geometry.quaternion_from_yaw(c))
                optical = geometry.transform([0, 0, 0], [0.5, -0.5, 0.5, -0.5])
                seen = dataclasses.replace(base.views[0], camera=camera, image=image, model=model)
                views.append(dataclasses.replace(seen, base_from_cam=outward @ optical))
            views[1] = spoil(views[1])
            objects.append(session.process(dataclasses.replace(base, views=tuple(views))).objects)
        return objects

    missing = drive(lambda view: None)
    corrupt = drive(lambda view: dataclasses.replace(view, image=CORRUPT))
    whole = drive(lambda view: view)
    for a, b in zip(missing, corrupt, strict=True):
        assert a.ids == b.ids and np.array_equal(a.scores, b.scores) and np.array_equal(a.centers, b.centers)
    assert any(len(a) for a in missing)
    assert not np.array_equal(missing[-1].scores, whole[-1].scores), "the image must matter"


def test_too_few_usable_images_reject_the_set_and_keep_the_memory():
    session = TrackerSession(fake_step, init_state, configured(min_cameras=5))
    first = session.process(frame_set(T0))
    bad = with_view(with_view(frame_set(T0 + HALF), "CAM_BACK", image=CORRUPT), "CAM_FRONT", image=CORRUPT)
    with pytest.raises(RejectedSetError, match="4 usable images, sync.min_cameras asks for 5: CAM_FRONT at .*CAM_BACK"):
        session.process(bad)
    problems = session.problems()
    assert problems["rejected_image"].count == 2 and problems["rejected_set"].count == 1
    report = session.process(frame_set(T0 + 2 * HALF))
    assert (report.session, report.reset_reason) == (first.session, "") and int(session._state.age.max()) == 2


def test_a_set_without_a_view_says_nothing():
    session = TrackerSession(fake_step, init_state, configured())
    with pytest.raises(RejectedSetError, match="0 usable images, .*: it has no view"):
        session.process(dataclasses.replace(frame_set(T0), views=(None,) * 6))


def test_coasting_moves_objects_in_the_fixed_frame_and_leaves_the_state():
    session = TrackerSession(fake_step, init_state, configured(coast_max=2.0))
    assert session.coast(T0) is None
    seen = session.process(frame_set(T0)).objects
    assert seen.states == ("confirmed", "confirmed")
    before = session.snapshot()
    predicted = session.coast(T0 + 3 * HALF)
    assert predicted.t_ns == T0 + 3 * HALF and predicted.ids == seen.ids and predicted.states == ("coasting",) * 2
    for m in range(len(seen)):
        for axis in range(2):
            expected = seen.centers[m, axis] + 1.5 * seen.velocities[m, axis]
            assert predicted.centers[m, axis] == pytest.approx(expected, abs=1e-9)
        assert predicted.centers[m, 2] == seen.centers[m, 2]
        assert predicted.scores[m] == pytest.approx(seen.scores[m] * (1 - 0.5 * 1.5 / 2.0))
    assert session.coast(T0 + 4 * HALF) is not None and session.coast(T0 + 4 * HALF + 1) is None
    assert session.coast(T0) is None and session.coast(T0 - HALF) is None
    after = session.snapshot()
    assert all(torch.equal(before["state"][name], after["state"][name]) for name in before["state"])
    assert session.process(frame_set(T0 + 4 * HALF)).objects.ids[0] == f"{session.session}-2"


def test_coasting_ends_with_a_reset_and_can_be_switched_off():
    session = TrackerSession(fake_step, init_state, CONFIG)
    session.process(frame_set(T0))
    session.reset("service")
    assert session.coast(T0 + HALF) is None
    off = TrackerSession(fake_step, init_state, configured(coast_max=0.0))
    off.process(frame_set(T0))
    assert off.coast(T0 + 1) is None


def test_an_unknown_velocity_coasts_in_place():
    session = TrackerSession(fake_step, init_state, CONFIG)
    seen = session.process(frame_set(T0)).objects
    unknown = dataclasses.replace(seen, velocities=np.full((2, 2), np.nan))
    np.testing.assert_array_equal(coasted(unknown, T0 + HALF, 1.0).centers, seen.centers)


def moved(t_ns, jump=(0.0, 0.0, 0.0)):
    given = frame_set(t_ns)
    shift = geometry.transform(np.array(jump, float))
    views = tuple(dataclasses.replace(v, global_from_base=shift @ v.global_from_base) for v in given.views)
    return dataclasses.replace(given, views=views, global_from_base=shift @ given.global_from_base)


def test_an_ego_jump_is_reported_and_resets_only_if_configured():
    for reset in (False, True):
        session = TrackerSession(fake_step, init_state, configured(reset_on_ego_jump=reset))
        jumps = [0, 0, 0, 4.5, 4.5, 12, 12, 12, 12]
        reports = [session.process(moved(T0 + i * HALF, (0, jump, 0))) for i, jump in enumerate(jumps)]
        assert session.problems()["ego_jump"].count == 1
        message = session.problems()["ego_jump"].message
        assert f"at {T0 + 5 * HALF} ns" in message and "sync.max_ego_jump is 5" in message
        reasons = ["start", "", "", "", "", "ego_jump" if reset else "", "", "", ""]
        assert [report.reset_reason for report in reports] == reasons


def test_no_limit_means_no_ego_jump():
    session = TrackerSession(fake_step, init_state, configured(max_ego_jump=0.0, reset_on_ego_jump=True))
    for i in range(5):
        session.process(moved(T0 + i * HALF, (100.0 * (i % 2), 0, 0)))
    assert session.problems() == {}


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.4, 2.0])
def test_a_curve_is_not_a_jump(seconds):
    """25 m radius at 15 m/s, half a second between the sets whose motion is known: exact poses, no distance."""

    def at(t):
        yaw = 0.6 * t
        center = [25 * np.sin(yaw), 25 * (1 - np.cos(yaw)), 0.0]
        return TimedPose(round(t * SECOND), geometry.transform(center, geometry.quaternion_from_yaw(yaw)))

    assert jump_m(at(0.0), at(0.5), at(0.5 + seconds)) < 0.4
    aside = TimedPose(at(0.5 + seconds).t_ns, geometry.transform([0, 0, 7.0]) @ at(0.5 + seconds).global_from_base)
    assert jump_m(at(0.0), at(0.5), aside) == pytest.approx(7.0, abs=0.02)


def test_a_changed_calibration_resets_only_beyond_its_threshold():
    def changed(t_ns, focal):
        intrinsics = MODEL.intrinsics + np.diag([focal, focal, 0.0])
        return with_view(frame_set(t_ns), "CAM_BACK", model=dataclasses.replace(MODEL, intrinsics=intrinsics))

    session = TrackerSession(fake_step, init_state, CONFIG)
    reasons = [session.process(changed(T0 + i * HALF, f)).reset_reason for i, f in enumerate((0, 15, 30, 51, 51, 30))]
    assert reasons == ["start", "", "", "calibration", "", "calibration"]
    assert "CAM_BACK: intrinsics changed by 21.0 network pixels" in session.problems()["calibration_changed"].message
    assert session.problems()["calibration_changed"].count == 2
    never = dataclasses.replace(CONFIG, rig=dataclasses.replace(CONFIG.rig, max_calibration_change=0.0))
    session = TrackerSession(fake_step, init_state, never)
    assert [session.process(changed(T0 + i * HALF, 300 * i)).reset_reason for i in range(2)] == ["start", ""]


DEVICE_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines"),
    RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ..."),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]


class Failing:
    """A step whose calls fail where told."""

    def __init__(self, error, calls):
        self.error, self.calls, self.count = error, calls, 0

    def __call__(self, state, frame):
        self.count += 1
        if self.count in self.calls:
            raise self.error
        return fake_step(state, frame)


@pytest.mark.parametrize("error", DEVICE_ERRORS)
def test_a_device_error_is_tried_once_more_then_named(error):
    step = Failing(error, {2})
    once = TrackerSession(step, init_state, CONFIG)
    first = once.process(frame_set(T0))
    report = once.process(frame_set(T0 + HALF))
    assert report.session == first.session and report.objects.ids[0].endswith("-2") and step.count == 3
    assert once.problems()["device_retry"].count == 1 and "\n" not in once.problems()["device_retry"].message

    session = TrackerSession(Failing(error, {2, 3}), init_state, CONFIG)
    session.process(frame_set(T0))
    with pytest.raises(DeviceError, match="device cpu failed twice: ") as raised:
        session.process(frame_set(T0 + HALF))
    assert "\n" not in str(raised.value) and raised.value.__cause__ is None
    report = session.process(frame_set(T0 + 2 * HALF))  # back again: nothing was lost
    assert (report.session, report.reset_reason) == (first.session, "") and int(session._state.age.max()) == 2


def test_a_device_error_while_memory_is_made():
    calls = []

    def failing_init(batch, device):
        calls.append(device)
        if len(calls) in (1, 3, 4):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return init_state(batch, device)

    session = TrackerSession(fake_step, failing_init, CONFIG)
    first = session.process(frame_set(T0))
    with pytest.raises(DeviceError):
        session.process(frame_set(T0 + 10 * SECOND))
    second = session.process(frame_set(T0 + 10 * SECOND))
    assert second.reset_reason == "gap" and second.session != first.session


def test_a_mistake_in_the_program_is_not_tried_again():
    step = Failing(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), {1, 2})
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        TrackerSession(step, init_state, CONFIG).process(frame_set(T0))
    assert step.count == 1


def test_states_follow_a_selection():
    objects = TrackerSession(fake_step, init_state, CONFIG).process(frame_set(T0)).objects
    mixed = dataclasses.replace(objects, states=("confirmed", "coasting"))
    assert mixed.select(np.array([False, True])).states == ("coasting",)
    assert dataclasses.replace(objects, states=()).select(np.array([True, False])).states == ()


@pytest.mark.parametrize("device, pinned", [("cuda", True), ("cpu", False)])
def test_images_for_a_gpu_are_laid_into_pinned_memory(device, pinned, monkeypatch):
    asked, empty = [], torch.empty

    def spy(*shape, pin_memory=False, **options):
        asked.append(pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", spy)
    frame, _ = TrackerSession(fake_step, init_state, CONFIG, device)._prepare(frame_set(T0))
    assert asked == [pinned] and frame.images.shape == (1, 6, 3, 32, 80)
