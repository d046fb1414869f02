"""Frame sets depend on stamps alone. The reference searches the whole recording for the nearest images."""

import json
import statistics
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes_fixture import real_root

from syncl_core.classes import CAMERAS as NUSCENES_CAMERAS
from syncl_core.config import SyncConfig
from syncl_core.runtime.set_assembler import SetAssembler

CAMERAS = ("A", "B", "C", "D", "E", "F")
OFFSETS_MS = (0.0, 8.1, -7.6, 25.1, 35.0, 15.7)  # nuScenes, from CAM_FRONT in the rig's order
MS = 1_000_000
START_NS = 1_532_402_927_512_404_000
NEVER = 10**6


class Clock:
    def __init__(self):
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def recording(period_ms, sweeps, jitter_ms=None, dropped=(), offsets_ms=OFFSETS_MS):
    """Stamps per camera; `jitter_ms[camera][sweep]` moves a stamp, `dropped` holds (camera, sweep) pairs."""
    streams = {}
    for c, camera in enumerate(CAMERAS):
        jitter = jitter_ms[c] if jitter_ms else [0.0] * sweeps
        streams[camera] = [
            START_NS + round((sweep * period_ms + offsets_ms[c] + jitter[sweep]) * MS)
            for sweep in range(sweeps)
            if (c, sweep) not in dropped
        ]
    return streams


def log_order(streams):
    return sorted((stamp, camera) for camera, stamps in streams.items() for stamp in stamps)


def assemble(config, events, clock=lambda: 0):
    """Sets of events [(stamp, camera)], polling after each; payloads must come back with their own stamp."""
    assembler = SetAssembler(config, CAMERAS, clock)
    sets = []
    for stamp, camera in events:
        assembler.add(camera, stamp, (camera, stamp))
        sets += assembler.poll()
    sets += assembler.finish()
    for s in sets:
        for camera, stamp, payload in zip(CAMERAS, s.stamps_ns, s.payloads, strict=True):
            assert payload == (None if stamp is None else (camera, stamp))
        present = [stamp for stamp in s.stamps_ns if stamp is not None]
        assert s.spread_ns == max(present) - min(present)
    return [(s.anchor_ns, s.stamps_ns) for s in sets], assembler


def periods(stamps):
    """Median step of the last nine up to every stamp; 0 before the second one."""
    steps = [b - a for a, b in zip(stamps[:-1], stamps[1:], strict=True)]
    return [statistics.median_low(steps[max(0, i - 9) : i]) if i else 0 for i in range(len(stamps))]


def reference(config, streams):
    """Brute force with the whole recording at hand: for every opening, the nearest unused image of every camera."""
    images = {camera: list(zip(stamps, periods(stamps), strict=True)) for camera, stamps in streams.items()}
    wait, spread = round(config.process_period * 1e9), config.max_spread * 1e9
    phase, offsets = dict.fromkeys(CAMERAS, 0), {camera: [] for camera in CAMERAS}
    sets, last, tried = [], None, None

    def due(time, period):
        if tried is not None and time <= tried + period // 2:
            return False
        return last is None or time >= last + wait - min(period // 2, wait // 2, 500 * MS)

    while True:
        opening = [
            (camera != "A" and not offsets[camera], stamp - phase[camera])
            for camera in CAMERAS
            for stamp, period in images[camera]
            if due(stamp - phase[camera], period)
        ]
        if not opening:
            return sets
        time = min(opening)[1]
        chosen = {}
        for camera in CAMERAS:
            nearest = min(images[camera], key=lambda im: (abs(im[0] - time - phase[camera]), -im[0]), default=None)  # noqa: B023
            if nearest is not None and abs(nearest[0] - time - phase[camera]) <= spread:
                chosen[camera] = nearest
            images[camera] = [im for im in images[camera] if im[0] >= time + phase[camera] - spread]
        speakers = [c for c in CAMERAS if c in chosen and (c == "A" or offsets[c])]
        anchor = chosen[speakers[0]][0] - phase[speakers[0]] if speakers else time
        for camera, (stamp, period) in chosen.items():
            images[camera] = [im for im in images[camera] if im[0] > stamp]
            if camera != "A":
                offsets[camera] = [*offsets[camera], stamp - anchor][-9:]
                wrapped = [o - (round(o / period) * period if period else 0) for o in offsets[camera]]
                phase[camera] = statistics.median_low(wrapped)
        tried = max(time, anchor)
        if len(chosen) >= config.min_cameras:
            last = anchor
            sets.append((anchor, tuple(chosen[c][0] if c in chosen else None for c in CAMERAS)))


@st.composite
def drives(draw):
    """(config, streams, events): a jittery, lossy recording and one order of arrival that keeps each camera's order."""
    period_ms = draw(st.sampled_from([500.0, 1000 / 12]))
    sweeps = draw(st.integers(2, 8 if period_ms == 500.0 else 40))
    config = SyncConfig(
        process_period=draw(st.sampled_from([0.0, 0.1, 0.5])), min_cameras=draw(st.integers(1, 6)), timeout=NEVER
    )
    jitters = st.lists(st.floats(-3, 3), min_size=sweeps, max_size=sweeps)
    jitter_ms = [draw(jitters) for _ in CAMERAS]
    lost = st.tuples(st.integers(0, 5), st.integers(3, max(3, sweeps - 1)))
    streams = recording(period_ms, sweeps, jitter_ms, draw(st.sets(lost, max_size=6)))
    latency = st.floats(0, 0.3 if draw(st.booleans()) else 0.9)
    events = []
    for camera, stamps in streams.items():
        arrival = 0
        for stamp in stamps:
            arrival = max(arrival + 1, stamp + round(draw(latency) * 1e9))
            events.append((arrival, stamp, camera))
    return config, streams, [(stamp, camera) for _, stamp, camera in sorted(events)]


@settings(max_examples=150, deadline=None)
@given(drives())
def test_sets_depend_on_stamps_alone(drive):
    config, streams, events = drive
    expected = reference(config, streams)
    assert assemble(config, log_order(streams))[0] == expected
    assert assemble(config, events)[0] == expected


@pytest.mark.parametrize("period_ms, per_set", [(500.0, 1), (1000 / 12, 6)])
def test_every_process_period_gives_one_set(period_ms, per_set):
    streams = recording(period_ms, 6 * per_set + 1)
    sets, assembler = assemble(SyncConfig(), log_order(streams))
    assert sets == [(stamps[0], stamps) for stamps in list(zip(*streams.values(), strict=True))[::per_set]]
    assert assembler.skipped == 6 * (per_set - 1) and not assembler.problems.snapshot()


def test_a_set_closes_with_its_last_image():
    """Cameras fire before and after the anchor; once rates are known nobody waits for the next sweep."""
    streams = recording(500.0, 6)
    assembler = SetAssembler(SyncConfig(), CAMERAS, lambda: 0)
    closed_at = []
    for stamp, camera in log_order(streams):
        assembler.add(camera, stamp, None)
        closed_at += [stamp for _ in assembler.poll()]
    assert closed_at[1:] == [max(stamps) for stamps in zip(*streams.values(), strict=True)][1:]


def test_a_lost_image_is_not_replaced_by_another_sweep():
    streams = recording(1000 / 12, 30, dropped={(4, 12), (2, 12)})
    sets, assembler = assemble(SyncConfig(min_cameras=4), log_order(streams))
    assert [stamps[4] is None for _, stamps in sets] == [False, False, True, False, False]
    assert [stamps[2] is None for _, stamps in sets] == [False, False, True, False, False]
    assert assembler.problems.count("spread_exceeded") == 2
    assert assemble(SyncConfig(), log_order(streams))[1].problems.count("too_few_cameras") == 1


def test_deadline_closes_a_degraded_set_and_a_silent_camera_is_not_waited_for():
    clock = Clock()
    assembler = SetAssembler(SyncConfig(min_cameras=5, timeout=0.15), CAMERAS, clock)
    closed = []
    for stamp, camera in log_order(recording(500.0, 4, dropped={(3, 1), (3, 2)})):
        clock.now_ns = stamp - START_NS
        while (deadline_ns := assembler.next_deadline_ns()) is not None and deadline_ns <= clock.now_ns:
            now_ns, clock.now_ns = clock.now_ns, deadline_ns
            closed += [(deadline_ns, s) for s in assembler.poll()]
            clock.now_ns = now_ns
        assembler.add(camera, stamp, None)
        closed += [(clock.now_ns, s) for s in assembler.poll()]
    assert [s.closed_by for _, s in closed] == ["deadline", "deadline", "complete", "complete"]
    assert [s.stamps_ns[3] is None for _, s in closed] == [False, True, True, False]
    assert closed[1][0] == 642_400_000 and closed[2][0] == 1035 * MS
    assert assembler.problems.snapshot()["late"].message.startswith("D: no image")


def test_a_late_image_never_joins_the_next_set():
    clock = Clock()
    assembler = SetAssembler(SyncConfig(min_cameras=5, process_period=0.0), CAMERAS, clock)
    streams = recording(1000 / 12, 12)
    late = [(stamp + 300 * MS, stamp, "F") for stamp in streams.pop("F")]
    events = sorted(late + [(stamp, stamp, camera) for stamp, camera in log_order(streams)])
    sets = []
    for arrival, stamp, camera in events:
        clock.now_ns = arrival
        assembler.add(camera, stamp, None)
        sets += assembler.poll()
    assert len(sets) == 12
    assert all(s.stamps_ns[5] is None for s in sets)


def test_dead_camera_without_a_clock_is_given_up_by_stamps_and_memory_stays_bounded():
    streams = recording(1000 / 12, 240, dropped={(1, sweep) for sweep in range(240)})
    assembler = SetAssembler(SyncConfig(min_cameras=5), CAMERAS, lambda: 0)
    sets, held = [], 0
    for stamp, camera in log_order(streams):
        assembler.add(camera, stamp, None)
        sets += assembler.poll()
        held = max(held, sum(len(stream.images) for stream in assembler._streams.values()))
    sets += assembler.finish()
    assert len(sets) == 40 and all(s.stamps_ns[1] is None for s in sets)
    assert held <= 6 * 12 * 4  # images of four seconds


@pytest.mark.parametrize("with_clock", [False, True])
def test_another_camera_stands_in_for_a_dead_anchor_until_it_returns(with_clock):
    clock = Clock()
    dead = range(20, 160)
    streams = recording(1000 / 12, 240, dropped={(0, sweep) for sweep in dead})
    assembler = SetAssembler(SyncConfig(min_cameras=5, timeout=0.15), CAMERAS, clock)
    sets = []
    for stamp, camera in log_order(streams):
        clock.now_ns = stamp if with_clock else 0
        assembler.add(camera, stamp, None)
        sets += assembler.poll()
    sets += assembler.finish()
    steps_ms = {(b.anchor_ns - a.anchor_ns) // MS for a, b in zip(sets[:-1], sets[1:], strict=True)}
    assert steps_ms <= {499, 500, 501} and len(sets) == 40
    assert [s.stamps_ns[0] is None for s in sets] == [6 * i in dead for i in range(40)]
    assert all(None not in s.stamps_ns[1:] for s in sets)


def test_refused_images_are_named_and_change_nothing():
    events = log_order(recording(500.0, 3))
    expected, _ = assemble(SyncConfig(), events)
    assembler = SetAssembler(SyncConfig(), CAMERAS, lambda: 0)
    sets = []
    for stamp, camera in events:
        assert assembler.add(camera, stamp, None) == ""
        assert assembler.add(camera, stamp, None) == "duplicate"
        assert assembler.add(camera, stamp - 50 * MS, None) == "out_of_order"
        assert assembler.add("G", stamp, None) == "unknown_camera"
        sets += assembler.poll()
    assert [(s.anchor_ns, s.stamps_ns) for s in sets + assembler.finish()] == expected
    assert {assembler.problems.count(r) for r in ("duplicate", "out_of_order", "unknown_camera")} == {len(events)}
    assert "G: not one of A, B" in assembler.problems.snapshot()["unknown_camera"].message


@pytest.mark.parametrize("period_ms, sweeps", [(500.0, 2), (500.0, 4), (1000 / 12, 60)])
def test_a_looped_bag_gives_the_same_sets_again(period_ms, sweeps):
    """Cameras jump one after the other: images of the first pass that arrive late must not enter the second.

    One that comes before most cameras have jumped belongs to the first pass like any other.
    """
    streams = recording(period_ms, sweeps)
    once, _ = assemble(SyncConfig(), log_order(streams))
    last = {camera: stamps[-1] for camera, stamps in streams.items()}
    first_pass = [e for e in log_order(streams) if e != (last["D"], "D")]
    second_pass = log_order(streams)
    for jumped in (1, 3, 4):
        events = [*first_pass, *second_pass[:jumped], (last["D"], "D"), *second_pass[jumped:]]
        twice, assembler = assemble(SyncConfig(), events)
        assert twice[-len(once) :] == once
        assert assembler.problems.count("time_jump") == 1 and assembler.problems.count("stale") == (jumped > 3)
        assert assembler.problems.count("clock_back") == 0


def test_unsynchronised_camera_is_named_with_its_distance():
    offsets = (*OFFSETS_MS[:5], 120.0)
    sets, assembler = assemble(SyncConfig(min_cameras=5), log_order(recording(500.0, 4, offsets_ms=offsets)))
    assert all(stamps[5] is None for _, stamps in sets) and len(sets) == 4
    said = assembler.problems.snapshot()["spread_exceeded"].message
    assert said.startswith("F: its nearest image is +120.0 ms") and said.endswith("add -0.120 s to its stamp_offset")


@pytest.mark.parametrize(("period_ms", "last"), [(1000 / 12, 3), (1000 / 12, 6), (500.0, 2)])
@pytest.mark.parametrize("with_clock", [False, True])
def test_a_camera_that_falls_silent_is_not_told_to_shift_its_stamps(period_ms, last, with_clock):
    clock = Clock()
    streams = recording(period_ms, 60, dropped={(5, sweep) for sweep in range(last + 1, 60)})
    assembler = SetAssembler(SyncConfig(min_cameras=5, timeout=0.15), CAMERAS, clock)
    for stamp, camera in log_order(streams):
        clock.now_ns = stamp if with_clock else 0
        assembler.add(camera, stamp, None)
        assembler.poll()
    assembler.finish()
    assert assembler.problems.snapshot().keys() == {"late"}


def test_phases_are_learned():
    _, assembler = assemble(SyncConfig(), log_order(recording(1000 / 12, 60)))
    assert list(assembler.phases_ns.values()) == pytest.approx([offset * MS for offset in OFFSETS_MS], abs=1)


@pytest.mark.parametrize("min_cameras", [5, 6])
@pytest.mark.parametrize("offset_ms", [-50.0, 45.0])
def test_a_camera_that_restarts_with_another_phase_comes_back_after_three_sets(offset_ms, min_cameras):
    """Its old phase differs by more than the spread allows: at most three sets are lost, whoever opens them."""
    before, after = list(OFFSETS_MS), list(OFFSETS_MS)
    before[1], after[1] = -offset_ms / 2, offset_ms
    events = log_order(recording(500.0, 6, offsets_ms=before))
    later = [(stamp + 6 * 500 * MS, camera) for stamp, camera in log_order(recording(500.0, 8, offsets_ms=after))]
    sets, assembler = assemble(SyncConfig(min_cameras=min_cameras), events + later)
    whole = [anchor for anchor, stamps in sets if None not in stamps]
    assert [round((anchor - START_NS) / 5e8) for anchor in whole] == [*range(6), *range(9, 14)]
    assert assembler.problems.count("spread_exceeded") in (3, 15)  # it alone, or all others where it opened the set
    assert abs(assembler.phases_ns["B"] - offset_ms * MS) < MS


@pytest.mark.parametrize("rate", [2, 12])
@pytest.mark.parametrize("seed", range(8))
def test_faults_on_the_clock(seed, rate):
    """Loss, delays beyond the deadline, a camera that dies and returns: never blocked, never mixed, always resumed."""
    random = Random(seed)
    config = SyncConfig(min_cameras=random.choice([1, 5, 6]), timeout=0.15, process_period=0.5)
    sweeps, (dead, first, last) = round(16 * rate), (random.randrange(6), 4 * rate, 8 * rate)
    events = []
    for c, camera in enumerate(CAMERAS):
        arrival = 0
        for sweep in range(sweeps):
            stamp = START_NS + round((sweep * 1000 / rate + OFFSETS_MS[c] + random.gauss(0, 1.5)) * MS)
            trouble = 2 * rate <= sweep < 12 * rate
            delay_ms = random.choice([5, 5, 5, 40, 400]) if trouble else 5
            arrival = max(arrival + 1, stamp + delay_ms * MS)
            if not (trouble and random.random() < 0.1) and not (c == dead and first <= sweep < last):
                events.append((arrival, stamp, camera))
    clock, sets = Clock(), []
    assembler = SetAssembler(config, CAMERAS, clock)
    for arrival, stamp, camera in sorted(events):
        while (deadline_ns := assembler.next_deadline_ns()) is not None and deadline_ns <= arrival:
            clock.now_ns = deadline_ns
            sets += assembler.poll()
            later_ns = assembler.next_deadline_ns()
            assert later_ns is None or later_ns > deadline_ns, "an elapsed deadline must settle its set"
        clock.now_ns = arrival
        assembler.add(camera, stamp, None)
        sets += assembler.poll()
    usual = dict(zip(CAMERAS, OFFSETS_MS, strict=True))
    for s in sets:
        present = [(c, stamp) for c, stamp in zip(CAMERAS, s.stamps_ns, strict=True) if stamp is not None]
        assert len(present) >= config.min_cameras
        assert all(abs(stamp - s.anchor_ns - usual[c] * MS) < 20 * MS for c, stamp in present)
    for c in range(6):
        used = [s.stamps_ns[c] for s in sets if s.stamps_ns[c] is not None]
        assert used == sorted(set(used)), "an image is used once"
    calm = [s for s in sets if s.anchor_ns >= START_NS + 13_000 * MS]
    assert len(calm) >= 5 and all(None not in s.stamps_ns for s in calm)


def test_real_key_frames_form_the_samples_of_nuscenes():
    """Real stamps: every key frame of two scenes, all six cameras, comes out as one set."""
    folder = real_root("nuscenes_mini_val") / "v1.0-mini"
    tables = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("scene", "sample", "sample_data")}
    for scene in tables["scene"]:
        samples = [row["token"] for row in tables["sample"] if row["scene_token"] == scene["token"]]
        stamps = {token: {} for token in samples}
        for row in tables["sample_data"]:
            channel = row["filename"].split("/")[1]
            if row["is_key_frame"] and row["sample_token"] in stamps and channel.startswith("CAM_"):
                stamps[row["sample_token"]][channel] = row["timestamp"] * 1000
        assembler, sets = SetAssembler(SyncConfig(), NUSCENES_CAMERAS, lambda: 0), []
        for stamp, camera in sorted((t, c) for sample in stamps.values() for c, t in sample.items()):
            assembler.add(camera, stamp, None)
            sets += assembler.poll()
        sets += assembler.finish()
        expected = sorted(tuple(sample[camera] for camera in NUSCENES_CAMERAS) for sample in stamps.values())
        assert [s.stamps_ns for s in sets] == expected and len(sets) >= 40
