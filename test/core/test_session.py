"""The session around a step: identities, resets, frames of reference, failures. The step here is a small stand-in."""

import dataclasses

import numpy as np
import pytest
import torch

from syncl_core import geometry
from syncl_core.config import ImageConfig, SynclConfig
from syncl_core.errors import InputError
from syncl_core.runtime.session import TrackerSession
from syncl_core.tensors import Tracks
from syncl_core.tracking.state import init_state as init_tracks
from syncl_core.types import CameraModel, CameraView, FrameSet, RawImage

SECOND = 1_000_000_000
T0 = 1_532_402_927 * SECOND
CONFIG = SynclConfig(image=ImageConfig(height=32, width=80))
MODEL = CameraModel(width=80, height=45, intrinsics=np.array([[60.0, 0, 40], [0, 60, 22], [0, 0, 1]]))
IMAGE = RawImage(encoding="mono8", data=bytes(80 * 45), width=80, height=45)
BOXES = torch.tensor(  # x y z, l w h, yaw, vx vy in the model frame
    [[10.0, 2, -1, 4.5, 1.9, 1.6, 0.3, 5, 1], [-3, 20, 0, 0.7, 0.6, 1.8, -2.9, 0, -1.5]], dtype=torch.float64
)


def init_state(batch, device):
    return init_tracks(CONFIG, batch, device)


def pose(t_ns, tilt=0.0):
    matrix = geometry.transform([1e3 + (t_ns - T0) / 1e8, -500, 3], geometry.quaternion_from_yaw(0.8))
    matrix[:3, :3] = matrix[:3, :3] @ geometry.matrix_from_quaternion([np.cos(tilt), np.sin(tilt), 0, 0])
    return matrix


def frame_set(t_ns, image=IMAGE, missing=(), **changes):
    views = tuple(
        None
        if camera in missing
        else CameraView(
            camera=camera, t_ns=t_ns, image=image, model=MODEL, base_from_cam=np.eye(4), global_from_base=pose(t_ns)
        )
        for camera in CONFIG.rig.cameras
    )
    values = {"global_from_base": pose(t_ns, 0.1), "base_from_model": geometry.transform([0.9, 0, 1.8])}
    return FrameSet(t_ns=t_ns, views=views, **(values | changes))


def fake_step(state, frame):
    """Two objects per frame, each with a new identity; `age` counts frames since the memory was emptied."""
    assert frame.images.shape == (1, 6, 3, 32, 80) and torch.is_inference_mode_enabled()
    slots = state.track_id.shape[1]
    rows = torch.zeros(slots, 9, dtype=torch.float64)
    rows[[1, 4]] = BOXES
    track_id = torch.full((1, slots), -1)
    track_id[0, [1, 4]] = state.next_id[0] + torch.arange(2)
    label = torch.zeros(1, slots, dtype=torch.int64)
    label[0, 4] = CONFIG.classes.index("pedestrian")
    tracks = Tracks(
        valid=track_id >= 0,
        track_id=track_id,
        label=label,
        score=torch.linspace(0.1, 0.9, slots)[None],
        center=rows[None, :, :3],
        size=rows[None, :, 3:6],
        yaw=rows[None, :, 6],
        velocity=rows[None, :, 7:],
    )
    return dataclasses.replace(state, age=state.age + 1, next_id=state.next_id + 2), tracks


@pytest.fixture
def session():
    session = TrackerSession(fake_step, init_state, CONFIG)
    yield session
    session.close()


def test_boxes_are_turned_to_the_fixed_frame(session):
    """Against corner by corner arithmetic, with a tilted vehicle."""
    given = frame_set(T0)
    objects = session.process(given).objects
    global_from_model = given.global_from_base @ given.base_from_model
    assert objects.labels == ("car", "pedestrian") and objects.t_ns == T0
    corners = geometry.box_corners(objects.centers, objects.sizes, objects.rotations)
    for m, (x, y, z, length, width, height, yaw, vx, vy) in enumerate(BOXES.tolist()):
        for i, corner in enumerate(corners[m]):
            sx, sy, sz = geometry._CORNER_SIGNS[i] * (length, width, height)
            in_model = [x + np.cos(yaw) * sx - np.sin(yaw) * sy, y + np.sin(yaw) * sx + np.cos(yaw) * sy, z + sz, 1]
            np.testing.assert_allclose(corner, (global_from_model @ in_model)[:3], atol=1e-6)
        ahead = global_from_model @ [x + vx, y + vy, z, 1] - global_from_model @ [x, y, z, 1]
        np.testing.assert_allclose(objects.velocities[m], ahead[:2], atol=1e-6)


def test_report_names_cameras_and_stages(session):
    report = session.process(frame_set(T0, missing=("CAM_BACK",)))
    assert report.cameras_used == tuple(c for c in CONFIG.rig.cameras if c != "CAM_BACK")
    assert report.seconds["total"] >= report.seconds["prepare"] + report.seconds["step"] + report.seconds["output"] > 0


def test_no_tracks_is_an_empty_object_set():
    def step(state, frame):
        state, tracks = fake_step(state, frame)
        return state, dataclasses.replace(tracks, valid=torch.zeros_like(tracks.valid))

    objects = TrackerSession(step, init_state, CONFIG).process(frame_set(T0)).objects
    assert len(objects) == 0 and objects.centers.shape == (0, 3) and objects.rotations.shape == (0, 4)
    assert objects.velocities.shape == (0, 2)


def test_identities_never_repeat_across_resets_and_restarts(session):
    ids, reasons = [], []
    for seconds in (0, 0.5, 1.0, 3.1, 0.2, 0.2, 0.7):
        report = session.process(frame_set(T0 + round(seconds * SECOND)))
        assert all(i.startswith(report.session + "-") for i in report.objects.ids) and len(report.session) == 8
        ids += report.objects.ids
        reasons.append(report.reset_reason)
    assert reasons == ["start", "", "", "gap", "time_jump", "time_jump", ""]
    restarted = TrackerSession(fake_step, init_state, CONFIG).process(frame_set(T0 + SECOND))
    assert len({*ids, *restarted.objects.ids}) == len(ids) + 2


def test_replay_gives_the_same_identities(session):
    def run(session):
        return [session.process(frame_set(T0 + i * SECOND // 2)).objects.ids for i in (0, 1, 9, 2)]

    assert run(session) == run(TrackerSession(fake_step, init_state, CONFIG))


def test_reset_by_hand_announces_the_next_session(session):
    assert session.reset("before anything") == ""
    first = session.process(frame_set(T0)).session
    announced = session.reset("service")
    report = session.process(frame_set(T0 - 5 * SECOND))
    assert (report.session, report.reset_reason) == (announced, "service") and announced != first
    assert session.process(frame_set(T0 - 4 * SECOND)).reset_reason == ""


BAD_POSE = np.full((4, 4), np.nan)


@pytest.mark.parametrize(
    "bad, message",
    [
        (frame_set(T0 + SECOND, image=RawImage(encoding="jpeg", data=b"\xff\xd8no")), "CAM_FRONT at .*corrupt JPEG"),
        (
            frame_set(T0 + SECOND, image=RawImage(encoding="yuv", data=b"")),
            "CAM_FRONT at .*unknown image encoding 'yuv'",
        ),
        (frame_set(T0 + SECOND, global_from_base=BAD_POSE), "frame set at .*: its pose global_from_base is not finite"),
        (
            dataclasses.replace(
                frame_set(T0 + SECOND),
                views=(
                    *frame_set(T0 + SECOND).views[:3],
                    dataclasses.replace(frame_set(T0 + SECOND).views[3], global_from_base=BAD_POSE),
                    *frame_set(T0 + SECOND).views[4:],
                ),
            ),
            "CAM_BACK at .*: its pose global_from_base is not finite",
        ),
    ],
)
def test_unusable_set_is_named_and_memory_is_kept(session, bad, message):
    first = session.process(frame_set(T0))
    with pytest.raises(InputError, match=message):
        session.process(bad)
    report = session.process(frame_set(T0 + 3 * SECOND // 2))
    assert (report.session, report.reset_reason) == (first.session, "")
    assert report.objects.ids[0] == f"{first.session}-2"


def test_boxes_that_are_not_finite_are_refused():
    def step(state, frame):
        state, tracks = fake_step(state, frame)
        return state, dataclasses.replace(tracks, center=tracks.center * torch.nan)

    with pytest.raises(InputError, match="not finite"):
        TrackerSession(step, init_state, CONFIG).process(frame_set(T0))


def test_a_memory_that_is_not_finite_is_refused_and_the_last_one_kept():
    """One NaN would spread to all tracks and stay: a tracker that shows nothing, and nobody told."""
    broken = []

    def step(state, frame):
        state, tracks = fake_step(state, frame)
        query = state.query.masked_fill(torch.tensor(bool(broken)), torch.nan)
        return dataclasses.replace(state, query=query), tracks

    session = TrackerSession(step, init_state, CONFIG)
    first = session.process(frame_set(T0))
    broken.append(True)
    with pytest.raises(InputError, match=f"memory at {T0 + SECOND} ns is not finite"):
        session.process(frame_set(T0 + SECOND))
    broken.clear()
    report = session.process(frame_set(T0 + 3 * SECOND // 2))
    assert report.objects.ids[0] == f"{first.session}-2" and report.reset_reason == ""


def test_snapshot_on_disk_continues_with_the_same_identities(session, tmp_path):
    session.process(frame_set(T0))
    torch.save(session.snapshot(), tmp_path / "memory.pt")
    expected = session.process(frame_set(T0 + SECOND))
    other = TrackerSession(fake_step, init_state, CONFIG)
    other.restore(torch.load(tmp_path / "memory.pt", weights_only=True))
    report = other.process(frame_set(T0 + SECOND))
    assert report.objects.ids == expected.objects.ids and report.reset_reason == ""
    assert int(other._state.age.max()) == 2


def test_tracks_that_found_no_slot_are_told():
    def step(state, frame):
        state, tracks = fake_step(state, frame)
        return dataclasses.replace(state, dropped=state.dropped + 2), tracks

    session = TrackerSession(step, init_state, CONFIG)
    assert "dropped_tracks" not in session.problems()
    session.process(frame_set(T0))
    problem = session.problems()["dropped_tracks"]
    assert problem.count == 2 and "track.slots" in problem.message
