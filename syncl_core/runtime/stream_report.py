"""What the stamps of sensor streams say about a rig: rates, gaps, when each fires, which clock is off.

Pure functions over observed stamps: of cameras, and as well of /tf or odometry.
"""

import bisect
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from syncl_core.runtime.camera_stream import JUMP_NS

GAP_PERIODS = 1.5
"""A longer step between two stamps, in periods of the stream, is a gap."""
RARE = 10
"""Of so many stamps at least, one may jump back because a recording starts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """One stream. Times are seconds; a stream with fewer than two stamps has no period, and all that needs one is 0."""

    count: int  # stamps, duplicates included
    period_s: float  # median step between two stamps
    rate_hz: float
    jitter_s: float  # median distance of a step from the period
    gaps: int  # steps longer than GAP_PERIODS periods
    longest_gap_s: float  # the longest step of all, gap or not
    duplicates: int  # stamps seen before
    out_of_order: int  # stamps older than the newest one that was seen before them
    phase_s: float | None  # usual offset from the anchor, within half a period; None = no anchor to compare with


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    streams: Mapping[str, StreamStatistics]
    suggested_offsets_s: Mapping[str, float]  # for rig.stamp_offsets: streams whose phase no set would admit


def stream_report(stamps_ns: Mapping[str, Sequence[int]], anchor: str, max_spread_s: float) -> StreamReport:
    """Of stamps in order of arrival, by stream. `anchor` is the stream the others are compared with.

    Phases within `max_spread_s` (sync.max_spread) are how a rig fires, and are left alone. A larger one is taken for a
    clock that is off: the suggested offset brings the stream to the anchor. Whole periods cannot be seen in stamps.
    """
    ordered = {name: sorted(set(stamps)) for name, stamps in stamps_ns.items()}
    streams = {name: _statistics(stamps, ordered[name], ordered.get(anchor, [])) for name, stamps in stamps_ns.items()}
    phases = {name: stream.phase_s for name, stream in streams.items() if stream.phase_s is not None}
    return StreamReport(
        streams=streams,
        suggested_offsets_s={name: -phase for name, phase in phases.items() if abs(phase) > max_spread_s},
    )


def longest_round(stamps_ns: Sequence[int]) -> Sequence[int]:
    """Of stamps in order of arrival, the longest part without a jump back: a recording in a loop repeats its stamps.

    All of them where jumps are frequent: two publishers on one topic take turns.
    """
    jumps = [i for i in range(1, len(stamps_ns)) if stamps_ns[i] < stamps_ns[i - 1] - JUMP_NS]
    if RARE * len(jumps) > len(stamps_ns):
        return stamps_ns
    bounds = [0, *jumps, len(stamps_ns)]
    return max((stamps_ns[a:b] for a, b in zip(bounds, bounds[1:], strict=False)), key=len)


def _statistics(arrived: Sequence[int], ordered: Sequence[int], anchor: Sequence[int]) -> StreamStatistics:
    steps = [after - before for before, after in zip(ordered, ordered[1:], strict=False)]
    period_ns = statistics.median(steps) if steps else 0
    late, newest_ns = 0, None
    for stamp_ns in arrived:
        late += newest_ns is not None and stamp_ns < newest_ns
        newest_ns = stamp_ns if newest_ns is None else max(newest_ns, stamp_ns)
    return StreamStatistics(
        count=len(arrived),
        period_s=period_ns * 1e-9,
        rate_hz=1e9 / period_ns if period_ns else 0.0,
        jitter_s=statistics.median(abs(step - period_ns) for step in steps) * 1e-9 if steps else 0.0,
        gaps=sum(step > GAP_PERIODS * period_ns for step in steps),
        longest_gap_s=max(steps, default=0) * 1e-9,
        duplicates=len(arrived) - len(ordered),
        out_of_order=late,
        phase_s=_phase_s(ordered, anchor, period_ns),
    )


def _phase_s(stamps_ns: Sequence[int], anchor_ns: Sequence[int], period_ns: float) -> float | None:
    """Median distance from the nearest anchor stamp, over the time in which there were both."""
    if not anchor_ns or not stamps_ns:
        return None
    margin_ns = period_ns / 2
    both = [t for t in stamps_ns if anchor_ns[0] - margin_ns <= t <= anchor_ns[-1] + margin_ns]
    if not both:
        return None
    return statistics.median(t - _nearest(anchor_ns, t) for t in both) * 1e-9


def _nearest(ordered: Sequence[int], t_ns: int) -> int:
    """The earlier one of two that are equally near."""
    index = bisect.bisect_left(ordered, t_ns)
    return min(ordered[max(0, index - 1) : index + 1], key=lambda stamp: abs(stamp - t_ns))
