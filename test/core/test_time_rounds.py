"""A recording in a loop: poses, images and several transforms go back one after the other, and no set is lost."""

from random import Random

import numpy as np
import pytest
from test_intake import CONFIG, IMAGE, MS, OFFSETS_MS, T0, add_rig, odom_from_base

from syncl_core import geometry
from syncl_core.runtime.intake import Intake
from syncl_core.runtime.rounds import Rounds

SWEEPS = 8
LENGTH_MS = 500 * SWEEPS


def recording() -> list[tuple[int, str, str]]:
    """(stamp, kind, name) of one round: six cameras at 2 Hz; the vehicle and a camera's gimbal under it at 50 Hz."""
    images = [(T0 + (500 * n + ms) * MS, "image", c) for n in range(SWEEPS) for c, ms in OFFSETS_MS.items()]
    poses = [(T0 + (20 * k - 20) * MS, kind, "") for k in range(LENGTH_MS // 20 + 1) for kind in ("vehicle", "gimbal")]
    return sorted(images + poses)


def play(rate: float, delays_ms: dict[str, float], seed: int, rounds: int = 3, jitter_ms: float = 30.0) -> tuple:
    """Sets by round and the intake, after a replay in a loop. Every stream comes late by its own delay on the clock;
    streams overtake each other, a stream keeps its order."""
    random, now, sets = Random(seed), [0], []
    intake = Intake(CONFIG, lambda: now[0], fixed_frame="odom", ego_wait_s=1.0)
    add_rig(intake)
    intake.add_transform("gimbal", "cam_back", 0, np.eye(4), static=True)
    arrivals = []
    for number in range(rounds):
        latest: dict[tuple, float] = {}
        for t_ns, kind, name in recording():
            due_ms = (number * LENGTH_MS + (t_ns - T0) / MS) / rate
            at_ms = due_ms + delays_ms.get(kind, 0.0) + random.uniform(0, jitter_ms)
            at_ms = latest[kind, name] = max(at_ms, latest.get((kind, name), at_ms))
            arrivals.append((at_ms, number, t_ns, kind, name))
    per_stream: dict[tuple, float] = {}
    ordered = []
    for at_ms, number, t_ns, kind, name in arrivals:  # also over the seam between two rounds
        at_ms = per_stream[kind, name] = max(at_ms, per_stream.get((kind, name), at_ms))
        ordered.append((at_ms, len(ordered), number, t_ns, kind, name))
    for at_ms, _, number, t_ns, kind, name in sorted(ordered):
        now[0] = round(at_ms * MS)
        if kind == "image":
            intake.add_image(name, t_ns, name.lower(), IMAGE)
        elif kind == "vehicle":
            pose = odom_from_base(t_ns) @ geometry.transform([number, 0, 0], [1, 0, 0, 0])
            intake.add_transform("odom", "base_link", t_ns, pose)
        else:
            intake.add_transform("base_link", "gimbal", t_ns, np.eye(4))
        sets += [(intake.time_jumps, frame_set) for frame_set in intake.poll()]
    sets += [(intake.time_jumps, frame_set) for frame_set in intake.finish()]
    return [[s for number, s in sets if number == n] for n in range(rounds)], intake


@pytest.mark.parametrize("rate", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("ahead_ms", [-120, 60, 400])
@pytest.mark.parametrize("gimbal_ms", [0, 200])
def test_the_first_set_of_every_round_is_there_whoever_jumps_first(rate, ahead_ms, gimbal_ms):
    """At rate 4 poses that come 400 ms before their images are 1.6 s into the new round when the images jump.

    The poses of every round lie a metre apart: a set that took one of another round would be seen.
    """
    delays = {"image": max(0, ahead_ms), "vehicle": max(0, -ahead_ms), "gimbal": gimbal_ms}
    rounds, intake = play(rate, delays, seed=round(rate) + gimbal_ms)
    assert intake.time_jumps == 2
    for number, sets in enumerate(rounds):
        starts = [round((s.t_ns - T0) / (500 * MS) - 0.094) for s in sets]
        # The last sets of a round may lose the poses, which belong to the next round already.
        assert starts[:4] == [0, 1, 2, 3], (number, starts)
        for frame_set in sets[:4]:
            assert all(frame_set.views)
            for view in frame_set.views:
                expected = odom_from_base(view.t_ns) @ geometry.transform([number, 0, 0], [1, 0, 0, 0])
                np.testing.assert_allclose(view.global_from_base, expected, atol=5e-3)


def test_a_pose_from_before_the_jump_is_refused_by_name_and_costs_no_set():
    intake = Intake(CONFIG, lambda: 0)
    add_rig(intake)

    def sweep(n: int, poses: bool = True) -> None:
        for t_ns, camera in sorted((T0 + (500 * n + ms) * MS, c) for c, ms in OFFSETS_MS.items()):
            if poses:
                intake.add_transform("odom", "base_link", t_ns, odom_from_base(t_ns))
            intake.add_image(camera, t_ns, camera.lower(), IMAGE)

    for n in range(20, 24):
        sweep(n)
    assert len(intake.poll()) == 4
    sweep(0, poses=False)  # the images are back at the start
    intake.add_transform("odom", "base_link", T0 + 12_100 * MS, np.eye(4))  # was still on its way
    assert intake.problems()["stale_transform"].message.startswith(f"odom -> base_link: {T0 + 12_100 * MS} ns")
    sweep(0)  # the poses come; of the images these are duplicates
    sweep(1)
    frame_set = intake.poll()[0]
    assert frame_set.t_ns == T0 + 47 * MS and intake.time_jumps == 1


def test_a_hiccup_of_one_transform_does_not_touch_a_later_jump_of_all():
    """A localisation goes back by half a second; long after that everything goes back, the images first."""
    intake = Intake(CONFIG, lambda: 0)
    add_rig(intake)

    def drive(begin: int, end: int) -> list:
        sets = []
        for n in range(begin, end):
            for t_ns, camera in sorted((T0 + (500 * n + ms) * MS, c) for c, ms in OFFSETS_MS.items()):
                intake.add_transform("odom", "base_link", t_ns, odom_from_base(t_ns))
                intake.add_image(camera, t_ns, camera.lower(), IMAGE)
            sets += intake.poll()
        return sets

    assert len(drive(0, 4)) == 4
    intake.add_transform("odom", "base_link", T0 + 1_000 * MS, odom_from_base(T0 + 1_000 * MS))
    assert intake.problems()["transform_time_jump"].count == 1
    assert len(drive(4, 30)) == 26
    for camera in CONFIG.rig.cameras[:4]:  # with half of them, it might be their clocks
        assert intake.time_jumps == 0
        intake.add_image(camera, T0 + OFFSETS_MS[camera] * MS, camera.lower(), IMAGE)
    assert intake.time_jumps == 1 and intake._tree.newest_ns("base_link") is None  # the old poses are gone
    assert intake.problems()["transform_time_jump"].count == 1


@pytest.mark.parametrize(
    "stamp_ms",
    [
        lambda n: 100 * n - 60_000 * (n > 20),  # its computer reboots
        lambda n: 100 * n - 400 * (n % 2),  # two sources
        lambda n: 100 * n - T0 // MS * (n == 20),  # a message without a stamp
    ],
)
@pytest.mark.parametrize("parent", ["base_link", "odom"])
def test_frames_that_no_set_looks_up_say_nothing_about_time(parent, stamp_ms):
    intake, sets = Intake(CONFIG, lambda: 0), []
    add_rig(intake)
    for n in range(8):
        for k in range(5 * n, 5 * n + 5):
            intake.add_transform(parent, "tag", T0 + stamp_ms(k) * MS, np.eye(4))
        for t_ns, camera in sorted((T0 + (500 * n + ms) * MS, c) for c, ms in OFFSETS_MS.items()):
            intake.add_transform("odom", "base_link", t_ns, odom_from_base(t_ns))
            intake.add_image(camera, t_ns, camera.lower(), IMAGE)
        sets += intake.poll()
    assert len(sets) == 8 and intake.problems() == {}
    assert intake._tree.newest_ns("tag") in {T0 + stamp_ms(k) * MS for k in range(30, 40)}


def test_one_camera_that_goes_back_forgets_no_pose():
    intake, sets = Intake(CONFIG, lambda: 0), []
    add_rig(intake)
    for n in range(12):
        for t_ns, camera in sorted((T0 + (500 * n + ms) * MS, c) for c, ms in OFFSETS_MS.items()):
            intake.add_transform("odom", "base_link", t_ns, odom_from_base(t_ns))
            back_ns = 60_000 * MS if camera == "CAM_BACK" and n == 6 else 0
            intake.add_image(camera, t_ns - back_ns, camera.lower(), IMAGE)
        sets += intake.poll()
    assert len(sets) == 11 and intake.time_jumps == 0  # the set of sweep 6 has five images, and six are demanded
    assert intake.problems()["clock_back"].message.startswith("CAM_BACK: its clock went back by 59.5")


def test_who_follows_a_jump_begins_no_round_of_its_own():
    rounds = Rounds()
    assert rounds.takes("a", 10_000) and rounds.takes("b", 10_000)
    assert rounds.jump("a", 10_000, 0, ("a", "b", "c"))
    assert rounds.takes("a", 0)
    assert not rounds.takes("b", 9_990)  # from before
    assert not rounds.jump("b", 10_000, 20, ("a", "b", "c"))  # follows
    assert rounds.takes("a", 5_100)  # time is at the middle again: nothing more is refused ...
    assert rounds.takes("c", 9_990)
    assert not rounds.jump("c", 9_990, 30, ("a", "b", "c"))  # ... but who comes now still only follows
    assert rounds.jump("c", 9_990, 40, ("a", "b", "c"))  # a second time is another jump
    assert rounds.takes("c", 9_990)  # a round is over once its time is reached again
    assert rounds.jump("b", 9_995, 0, ("a", "b", "c"))
    assert rounds.jump("c", 9_995, 9_700, ("a", "b", "c"))  # not across the same middle: another jump
