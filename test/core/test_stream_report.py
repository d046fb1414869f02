"""Statistics of stamps against loops over all pairs, and what is suggested for a rig whose clocks disagree."""

import statistics
from random import Random

import pytest

from syncl_core.runtime.stream_report import stream_report

MS = 1_000_000
T0 = 1_532_402_927_000 * MS


def stream(seed, period_ms, offset_ms, count, jitter_ms=2.0, lost=()):
    random = Random(seed)
    return [
        T0 + round((i * period_ms + offset_ms + random.uniform(-jitter_ms, jitter_ms)) * MS)
        for i in range(count)
        if i not in lost
    ]


def slow_phase_s(stamps, anchor):
    distances = []
    for stamp in stamps:
        best = min(abs(stamp - other) for other in anchor)
        distances += [stamp - other for other in anchor if abs(stamp - other) == best][:1]
    return statistics.median(distances) / 1e9


@pytest.mark.parametrize("seed", range(5))
def test_against_loops(seed):
    streams = {
        "A": stream(seed, 1000 / 12, 0, 60),
        "B": stream(seed + 10, 1000 / 12, 31, 60, lost={20, 21, 40}),
        "C": stream(seed + 20, 500, -12, 10),
    }
    report = stream_report(streams, "A", 0.06)
    for name, stamps in streams.items():
        ours = report.streams[name]
        steps = [stamps[i + 1] - stamps[i] for i in range(len(stamps) - 1)]
        period = statistics.median(steps)
        assert ours.count == len(stamps) and ours.period_s == pytest.approx(period / 1e9)
        assert ours.rate_hz == pytest.approx(1e9 / period)
        assert ours.jitter_s == pytest.approx(statistics.median([abs(s - period) for s in steps]) / 1e9)
        assert ours.longest_gap_s == pytest.approx(max(steps) / 1e9)
        assert (ours.gaps, ours.duplicates, ours.out_of_order) == (2 if name == "B" else 0, 0, 0)
        both = [t for t in stamps if streams["A"][0] - period / 2 <= t <= streams["A"][-1] + period / 2]
        assert ours.phase_s == pytest.approx(slow_phase_s(both, streams["A"]))
    assert report.streams["B"].phase_s == pytest.approx(0.031, abs=0.002)
    assert report.suggested_offsets_s == {}


def test_a_clock_that_is_off_gets_an_offset_that_brings_it_to_the_anchor():
    """Rolling firing within the spread is left alone; the suggested offset, applied, needs no other."""
    offsets_ms = {"A": 0, "B": 35, "C": -140, "D": 95}
    streams = {name: stream(i, 500, offset, 30) for i, (name, offset) in enumerate(offsets_ms.items())}
    suggested = stream_report(streams, "A", 0.06).suggested_offsets_s
    assert suggested.keys() == {"C", "D"}
    assert suggested["C"] == pytest.approx(0.140, abs=0.003) and suggested["D"] == pytest.approx(-0.095, abs=0.003)
    for name, offset_s in suggested.items():
        streams[name] = [stamp + round(offset_s * 1e9) for stamp in streams[name]]
    again = stream_report(streams, "A", 0.06)
    assert again.suggested_offsets_s == {} and abs(again.streams["C"].phase_s) < 1e-3


def test_faults_are_counted():
    stamps = stream(1, 100, 0, 10, jitter_ms=0)
    arrived = [*stamps[:4], stamps[3], stamps[6], stamps[5], stamps[4], *stamps[7:]]
    ours = stream_report({"A": arrived}, "A", 0.06).streams["A"]
    assert (ours.count, ours.duplicates, ours.out_of_order, ours.gaps) == (11, 1, 2, 0)
    assert ours.period_s == pytest.approx(0.1) and ours.phase_s == 0.0


def test_streams_that_say_little():
    report = stream_report({"A": [], "B": [T0], "C": [T0, T0 + 9]}, "A", 0.06)
    assert report.streams["A"].count == 0 and report.streams["B"].rate_hz == 0.0
    assert all(one.phase_s is None for one in report.streams.values()) and report.suggested_offsets_s == {}
    assert stream_report({"B": [T0]}, "nobody", 0.06).streams["B"].phase_s is None
    apart = stream_report({"A": [T0, T0 + MS], "B": [T0 + 10**12]}, "A", 0.06)
    assert apart.streams["B"].phase_s is None, "no time in which there were both"
