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
    """While two others send, one camera alone does not close a set: they come to its time, or its clock is ahead."""
    deadline_ns = image.arrived_ns + timeout_ns
    latest_ns = sorted(stream.arrived_ns for stream in camera_clocks.peers(streams, camera))
    return max(deadline_ns, latest_ns[-2] + _ALIVE_NS) if len(latest_ns) > 1 else deadline_ns


def _open_until_ns(
    streams: Mapping[str, CameraStream], camera: str, image: StampedImage, timeout_ns: int, max_spread_ns: int
) -> int:
    """`timeout_ns` after the first image; after the second, if the first one came long before all others."""
    earliest_ns = image.stamp_ns - streams[camera].phase_ns - max_spread_ns
    firsts = (s.first_from(earliest_ns + s.phase_ns) for s in camera_clocks.peers(streams, camera))
    second_ns = min((first.arrived_ns for first in firsts if first is not None), default=image.arrived_ns)
    return timeout_ns + (image.arrived_ns if second_ns <= image.arrived_ns + max_spread_ns else second_ns)
