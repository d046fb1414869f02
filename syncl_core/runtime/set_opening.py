"""Which image opens the next set, and until when the set waits for the other cameras."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from syncl_core.runtime import camera_clocks
from syncl_core.runtime.camera_stream import CameraStream, StampedImage

_ALIVE_NS = 1_000_000_000  # a camera that sent within this time, on the clock, may still come to where another one is


class Opening(NamedTuple):
    """An image that could open the next set; the least of them does."""

    doubtful: bool  # its camera's clock is off, and no other camera has come to its time
    unknown: bool  # its camera was never in a set with the anchor: it says little about the anchor's time
    anchor_ns: int
    deadline_ns: int  # on the clock
    arrivals: int  # images of all cameras up to this one


def next_opening(
    streams: Mapping[str, CameraStream],
    anchor: str,
    is_due: Callable[[int, int], bool],
    timeout_ns: int,
    max_spread_ns: int,
) -> Opening | None:
    """As far as the images that are here tell. `is_due` is asked about anchor times and periods of cameras, ns."""
    openings = []
    for camera, stream in streams.items():
        for image in stream.images:
            anchor_ns = image.stamp_ns - stream.phase_ns
            if is_due(anchor_ns, image.period_ns or 0):
                alone = not camera_clocks.reached(streams, camera, anchor_ns - max_spread_ns)
                doubtful, unknown = alone and stream.clock_off, camera != anchor and not stream.has_phase
                waits = _alone_until_ns if alone else _open_until_ns
                deadline_ns = waits(streams, camera, image, timeout_ns, max_spread_ns)
                openings.append(Opening(doubtful, unknown, anchor_ns, deadline_ns, image.arrivals))
                break
    return min(openings, default=None)


def _alone_until_ns(
    streams: Mapping[str, CameraStream], camera: str, image: StampedImage, timeout_ns: int, _max_spread_ns: int
) -> int:
    """While two others send, one camera alone does not close a set: they come to its time, or its clock is ahead.

    If the clock is in line with one of theirs, they have stopped when two of their images are missing.
    """
    others, deadline_ns = camera_clocks.peers(streams, camera), image.arrived_ns + timeout_ns
    if len(others) < 2:
        return deadline_ns
    in_line = any(camera_clocks.ahead_ns(image, other) <= timeout_ns for other in others)
    return max(deadline_ns, sorted(other.arrived_ns + _patience_ns(other, in_line) for other in others)[-2])


def _patience_ns(stream: CameraStream, in_line: bool) -> int:
    return min(2 * (stream.period_ns or _ALIVE_NS), _ALIVE_NS) if in_line else _ALIVE_NS


def _open_until_ns(
    streams: Mapping[str, CameraStream], camera: str, image: StampedImage, timeout_ns: int, max_spread_ns: int
) -> int:
    """`timeout_ns` after the first image; after the second, if the first one came long before all others."""
    earliest_ns = image.stamp_ns - streams[camera].phase_ns - max_spread_ns
    firsts = (s.first_from(earliest_ns + s.phase_ns) for s in camera_clocks.peers(streams, camera))
    second_ns = min((first.arrived_ns for first in firsts if first is not None), default=image.arrived_ns)
    return timeout_ns + (image.arrived_ns if second_ns <= image.arrived_ns + max_spread_ns else second_ns)
