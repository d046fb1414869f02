"""One camera whose clock is wrong, or whose images come late, is left out by name and costs the others nothing."""

import pytest
from test_set_assembler import CAMERAS, MS, START_NS, Clock, assemble, log_order, recording

from syncl_core.config import SyncConfig
from syncl_core.runtime.set_assembler import SetAssembler

SECOND = 1000 * MS
FROM_1970_MS = -START_NS // MS


def drive(config, shift_ms=None, delay_ms=None, rate=12, seconds=20, silent=lambda camera, t_ms: False):
    """Sets as (clock in ms, set), and the assembler. `shift_ms[camera]`: of its stamps at a true time in ms."""
    events = []
    for c, camera in enumerate(CAMERAS):
        for sweep in range(seconds * rate):
            true_ms = sweep * 1000 / rate
            if not silent(camera, true_ms):
                off_ms = (shift_ms or {}).get(camera, lambda _: 0)(true_ms)
                arrival_ms = true_ms + 8 * c + (delay_ms or {}).get(camera, 20 + 3 * c)
                events.append((round(arrival_ms * MS), camera, START_NS + round((true_ms + 8 * c) * MS) + off_ms * MS))
    return play(config, events)


def play(config, events, cameras=CAMERAS):
    """The same of events (arrival, camera, stamp), on a clock that goes on between them."""
    clock, sets = Clock(), []
    assembler = SetAssembler(config, cameras, clock)

    def poll(now_ns):
        clock.now_ns = now_ns
        sets.extend((now_ns / MS, s) for s in assembler.poll())

    for arrival_ns, camera, stamp_ns in sorted(events):
        for now_ns in range(clock.now_ns + 20 * MS, arrival_ns, 20 * MS):
            poll(now_ns)
        clock.now_ns = arrival_ns
        assembler.add(camera, stamp_ns, None)
        poll(arrival_ns)
    return sets, assembler


def used(s):
    return {camera for camera, stamp in zip(CAMERAS, s.stamps_ns, strict=True) if stamp is not None}


def blamed(assembler):
    """Every camera that a message names."""
    return {problem.message.split(":")[0] for problem in assembler.problems.snapshot().values()}


@pytest.mark.parametrize("rate", [2, 12])
@pytest.mark.parametrize("min_cameras", [1, 4])
@pytest.mark.parametrize("camera", ["A", "D"])  # A is the anchor
@pytest.mark.parametrize("ahead_ms", [200, 2000, 5000, 3_600_000])
def test_a_clock_that_is_ahead_costs_its_camera_alone(ahead_ms, camera, min_cameras, rate):
    sets, assembler = drive(SyncConfig(min_cameras=min_cameras), {camera: lambda _: ahead_ms}, rate=rate)
    # At 12 Hz and 0.2 s off, an image of another sweep may once lie within the spread: stamps cannot tell.
    assert len(sets) == 40 and sum(used(s) == set(CAMERAS) - {camera} for _, s in sets) >= 39
    assert all(arrival_ms - (s.anchor_ns - START_NS) / MS < 400 for arrival_ms, s in sets[1:]), "no set waits for it"
    assert blamed(assembler) == {camera} and assembler.problems.count("too_few_cameras") == 0
    said = assembler.problems.snapshot()["clock_ahead"].message
    assert float(said.split()[1]) == pytest.approx(ahead_ms / 1000, abs=0.03)


def test_two_clocks_that_are_ahead_are_outvoted_by_four():
    ahead = dict.fromkeys(("B", "C"), lambda _: 2000)
    sets, assembler = drive(SyncConfig(min_cameras=4), ahead)
    assert len(sets) == 40 and all(used(s) == set("ADEF") for _, s in sets)
    assert blamed(assembler) <= {"B", "C"}


def test_a_clock_that_is_ahead_in_a_recording_costs_its_camera_alone():
    """Without a clock, stamps alone must tell."""
    for camera in ("A", "D"):
        streams = recording(1000 / 12, 240)
        events = [(t + (3600 * SECOND if c == camera else 0), c, t) for t, c in log_order(streams)]
        sets, assembler = assemble(SyncConfig(min_cameras=5), [(stamp, c) for stamp, c, _ in events])
        assert len(sets) == 40
        assert all(stamps[CAMERAS.index(camera)] is None and stamps.count(None) == 1 for _, stamps in sets)
        assert "clock_ahead" in assembler.problems.snapshot()


@pytest.mark.parametrize("with_clock", [True, False])
@pytest.mark.parametrize("ahead_ms", [0, 3_600_000])
def test_the_last_camera_that_sends_makes_sets_alone(ahead_ms, with_clock):
    """Nobody is left to outvote it."""
    config, shift = SyncConfig(min_cameras=1), {"D": lambda _: ahead_ms}
    if with_clock:
        sets, _ = drive(config, shift, silent=lambda camera, t_ms: camera != "D" and t_ms > 5000)
        stamps = [s.stamps_ns for now_ms, s in sets if now_ms > 7000]
    else:
        dead = {(c, sweep) for c in range(6) if c != 3 for sweep in range(60, 240)}
        events = log_order(recording(1000 / 12, 240, dropped=dead))
        sets, _ = assemble(config, [(stamp + ahead_ms * MS if c == "D" else stamp, c) for stamp, c in events])
        stamps = [stamps for _, stamps in sets if stamps.count(None) == 5]
    assert len(stamps) >= 26 and all(one[3] is not None for one in stamps)


@pytest.mark.parametrize("rate", [2, 12])
@pytest.mark.parametrize("min_cameras", [1, 6])
@pytest.mark.parametrize("longer", ["", "B", "AB", "ABCEF"])
def test_in_a_recording_the_last_camera_is_in_time_whoever_died_before_it(longer, min_cameras, rate):
    """All but one die, those in `longer` an image later: without a clock its stamps alone end the wait for them."""
    ends = {camera: 10 * rate + (camera in longer) for camera in CAMERAS} | {"D": 60 * rate}
    dead = {(c, sweep) for c, camera in enumerate(CAMERAS) for sweep in range(ends[camera], 60 * rate)}
    assembler, sets, most = SetAssembler(SyncConfig(min_cameras=min_cameras), CAMERAS, lambda: 0), [], 0
    for stamp, camera in log_order(recording(1000 / rate, 60 * rate, dropped=dead)):
        assembler.add(camera, stamp, None)
        sets += assembler.poll()
        most = max(most, sum(len(stream.images) for stream in assembler._streams.values()))
    assert most <= 5 * rate + 6 and len(sets) >= (112 if min_cameras == 1 else 20)


@pytest.mark.parametrize("period", [0.0, 0.5])
def test_the_last_camera_is_not_held_up_where_its_clock_is_in_line(period):
    """When two images of the others are missing they have stopped: their clocks never contradicted its own."""
    config = SyncConfig(min_cameras=1, process_period=period)
    sets, _ = drive(config, silent=lambda camera, t_ms: camera != "D" and t_ms > 2050, seconds=6)
    late_ms = [now_ms - (max(filter(None, s.stamps_ns)) - START_NS) / MS for now_ms, s in sets[:-1]]
    assert max(late_ms) < 300


def test_a_camera_that_sent_once_does_not_hold_up_the_other_of_two():
    assembler = SetAssembler(SyncConfig(min_cameras=1), ("A", "B"), lambda: 0)
    assembler.add("B", START_NS - 20 * MS, None)
    for sweep in range(120):
        assembler.add("A", START_NS + 500 * sweep * MS, None)
    assert len(assembler.poll()) >= 110


@pytest.mark.parametrize("rates", [(15, 5), (10, 5), (12, 4)])
@pytest.mark.parametrize("slow_ms", [60, 90])
@pytest.mark.parametrize("min_cameras, period", [(6, 0.5), (5, 0.2), (1, 0.0)])
def test_a_camera_that_is_quicker_and_sends_more_often_is_not_ahead(min_cameras, period, slow_ms, rates):
    config, events = SyncConfig(min_cameras=min_cameras, process_period=period), []
    for c, camera in enumerate(CAMERAS):
        delay_ms, step_ms = (slow_ms, 1000 / rates[1]) if c else (20, 1000 / rates[0])
        stamps = [START_NS + round((sweep * step_ms + 8 * c) * MS) for sweep in range(int(20_000 / step_ms))]
        events += [(stamp - START_NS + delay_ms * MS, camera, stamp) for stamp in stamps]
    online, assembler = play(config, events)
    online = [(s.anchor_ns, s.stamps_ns) for s in [s for _, s in online] + assembler.finish()]
    offline, _ = assemble(config, [(stamp, camera) for _, camera, stamp in sorted(events)])
    assert online == offline and assembler.problems.count("clock_ahead") == 0


def test_all_others_pause_and_a_camera_far_ahead_takes_over_until_they_return():
    """Its sets lie an hour ahead; the others are not measured against them."""
    pause = range(8000, 11000)
    sets, _ = drive(
        SyncConfig(min_cameras=1), {"D": lambda _: 3_600_000}, silent=lambda c, t_ms: c != "D" and int(t_ms) in pause
    )
    assert any(used(s) == {"D"} for now_ms, s in sets if 9500 < now_ms < 11000)
    assert len([s for now_ms, s in sets if now_ms > 12_000 and len(used(s)) == 5]) >= 15


@pytest.mark.parametrize("camera", ["A", "D"])
@pytest.mark.parametrize("back_ms", [-400, -3000, -60_000, FROM_1970_MS])
def test_a_clock_that_goes_back_costs_its_camera_alone(back_ms, camera):
    config = SyncConfig(min_cameras=5)
    sets, assembler = drive(config, {camera: lambda t_ms: back_ms if 8000 <= t_ms < 14_000 else 0})
    assert len(sets) == 40 and all(used(s) >= set(CAMERAS) - {camera} for _, s in sets)
    times = [s.anchor_ns for _, s in sets]
    assert times == sorted(times)
    whole = [len(used(s)) == 6 for _, s in sets]
    assert all(whole[:16]) and not any(whole[17:28]) and all(whole[29:])
    assert assembler.problems.count("time_jump") == 0 and blamed(assembler) == {camera}
    said = assembler.problems.snapshot()["clock_back"].message
    assert said.startswith(f"{camera}: its clock went back by ")
    assert float(said.split()[6]) == pytest.approx(-back_ms / 1000, abs=0.1)


def test_a_clock_that_was_ahead_and_is_set_right_brings_its_camera_back():
    sets, assembler = drive(SyncConfig(min_cameras=5), {"D": lambda t_ms: 3_600_000 if t_ms < 8000 else 0})
    assert len(sets) == 40 and [len(used(s)) for _, s in sets] == [5] * 17 + [6] * 23
    assert assembler.problems.count("time_jump") == 0 and assembler.problems.count("clock_back") == 1


@pytest.mark.parametrize("rate", [2, 12])
@pytest.mark.parametrize("later_ms", [0, 100, 500])
@pytest.mark.parametrize("rebooted", ["BE", "BDE"])
def test_some_of_six_cameras_that_reboot_are_no_jump_of_time(rebooted, later_ms, rate):
    """On one computer, or one after the other: the rest goes on."""
    begins = {camera: 8000 + later_ms * n for n, camera in enumerate(rebooted)}
    shift = {c: lambda t_ms, begin=begin: -60_000 if t_ms >= begin else 0 for c, begin in begins.items()}
    sets, assembler = drive(SyncConfig(min_cameras=3), shift, rate=rate)
    assert len(sets) == 40 and assembler.problems.count("time_jump") == 0
    assert all(used(s) == set(CAMERAS) - set(rebooted) for _, s in sets[20:])


def test_one_image_with_a_stamp_of_1970_costs_itself_alone():
    sets, assembler = drive(SyncConfig(min_cameras=6), {"D": lambda t_ms: FROM_1970_MS if 8050 < t_ms < 8100 else 0})
    assert len(sets) == 40 and assembler.problems.count("clock_back") == 1


@pytest.mark.parametrize("left", [1, 2, 6])
def test_everything_that_still_sends_jumps_and_time_does(left):
    """A rig in which all cameras but so many are silent; a bag that loops."""
    streams = {c: stamps for c, stamps in recording(1000 / 12, 60).items() if c in CAMERAS[-left:]}
    once, _ = assemble(SyncConfig(min_cameras=left), log_order(streams))
    other = [(START_NS - 40 * SECOND, c) for c in CAMERAS]  # all have sent, long ago
    twice, assembler = assemble(SyncConfig(min_cameras=left), other + log_order(streams) * 2)
    assert twice[-len(once) :] == once and assembler.problems.count("time_jump") == 1
    assert assembler.problems.count("clock_back") == 0


def test_a_loop_loses_no_set_where_most_cameras_come_late():
    """Those that jump first seem to be wrong until the others follow: their images are kept."""
    streams = recording(1000 / 12, 60)
    late_ns = {camera: 400 * MS if camera in "CDEF" else 0 for camera in CAMERAS}
    once = [(stamp + late_ns[camera], stamp, camera) for stamp, camera in log_order(streams)]
    again = [(arrival + 5 * SECOND, stamp, camera) for arrival, stamp, camera in once]
    expected, _ = assemble(SyncConfig(), [event[1:] for event in sorted(once)])
    sets, assembler = assemble(SyncConfig(), [event[1:] for event in sorted(once + again)])
    assert sets[-len(expected) :] == expected and assembler.problems.count("time_jump") == 1


@pytest.mark.parametrize("begin_ms", [1000, 5000])
def test_a_straggler_from_before_the_loop_does_not_hold_up_the_only_camera_that_is_there(begin_ms):
    """B begins late in the bag, and its last image comes after A's first of the new round."""
    events = []
    for n in range(200):
        images = [(20, "A", 0)] + [(125, "B", 5)] * (100 * n >= begin_ms)
        for at_ms in (100 * n, 20_000 + 100 * n):
            events += [((at_ms + late) * MS, c, START_NS + (100 * n + ms) * MS) for late, c, ms in images]
    sets, assembler = play(SyncConfig(min_cameras=1), events, cameras=("A", "B"))
    again = [now_ms for now_ms, _ in sets if now_ms > 20_200]
    assert again[0] < 20_400 and len(again) == 40 and assembler.problems.count("time_jump") == 1


@pytest.mark.parametrize("images, silence_ms", [(1, 600), (10, 3600)])
def test_the_last_camera_left_makes_sets_whatever_its_clock(images, silence_ms):
    """A goes back by an hour; B sends a few more images, and dies."""
    back_ms, events = 10_000, []
    for at_ms in range(0, 30_000, 100):
        events.append((at_ms * MS, "A", START_NS + (at_ms - 3_600_000 * (at_ms >= back_ms)) * MS))
        if at_ms < back_ms + 100 * images:
            events.append((at_ms * MS, "B", START_NS + (at_ms + 5) * MS))
    sets, assembler = play(SyncConfig(min_cameras=1), events, cameras=("A", "B"))
    died_ms = back_ms + 100 * images
    after = [now_ms for now_ms, _ in sets if now_ms > died_ms]
    assert any(now_ms <= died_ms + silence_ms for now_ms in after) and len(after) >= 2 * (29_000 - died_ms) // 1000 - 7
    assert assembler.problems.count("time_jump") == 1


def test_what_is_held_back_is_bounded():
    """B sends too rarely to say soon which of the two clocks is right."""
    assembler = SetAssembler(SyncConfig(), ("A", "B"), lambda: 0)
    for n in range(400):
        assembler.add("A", START_NS + 100 * n * MS - 3600 * SECOND * (n >= 100), None)
        if n % 20 == 5:
            assembler.add("B", START_NS + 100 * n * MS, None)
        assert sum(len(setback.held) for setback in assembler._setbacks._setbacks.values()) <= 32
    assert assembler.problems.count("clock_back") > 200 and assembler.problems.count("time_jump") == 0


def test_the_own_jump_of_a_single_camera_counts_at_once():
    assembler = SetAssembler(SyncConfig(min_cameras=1), ("A",), lambda: 0)
    said = [assembler.add("A", START_NS + ms * MS, None) for ms in (0, 500, 1000, 100, 600)]
    assert said == ["", "", "", "time_jump", ""] and len(assembler.finish()) == 2
    assert assembler.jumped_ns == (START_NS + 1000 * MS, START_NS + 100 * MS)


def test_who_goes_on_for_seconds_after_a_jump_was_right():
    """The one camera left reboots with a wrong clock; then the others come back with the right one."""
    shift = {"D": lambda t_ms: -3_600_000 if t_ms >= 6000 else 0}
    config = SyncConfig(min_cameras=5)
    sets, assembler = drive(config, shift, silent=lambda c, t_ms: c != "D" and 5000 < t_ms < 8000)
    assert assembler.problems.count("time_jump") == 1 and 0 < assembler.problems.count("stale") < 5 * 40
    assert len([s for now_ms, s in sets if now_ms > 11_500]) >= 16


@pytest.mark.parametrize("delay_ms", [175, 250, 400])
def test_a_camera_that_is_only_slow_is_not_told_to_change_its_stamps(delay_ms):
    sets, assembler = drive(SyncConfig(min_cameras=5), delay_ms={"D": delay_ms})
    assert len(sets) == 40 and any("D" not in used(s) for _, s in sets)
    assert set(assembler.problems.snapshot()) == {"late"}
    said = assembler.problems.snapshot()["late"].message
    assert said.startswith("D: no image at") and "raise sync.timeout (0.15 s)" in said and "stamp_offset" not in said


def test_a_camera_that_fires_elsewhere_is_not_called_slow():
    """At 2 Hz the next image comes long after the deadline; the one that is there is of this sweep."""
    sets, assembler = drive(SyncConfig(min_cameras=5), {"D": lambda _: -110}, rate=2)
    assert len(sets) == 39 and assembler.problems.count("spread_exceeded") == 38
    assert assembler.problems.snapshot()["spread_exceeded"].message.startswith("D: its nearest image is -86.0 ms")
