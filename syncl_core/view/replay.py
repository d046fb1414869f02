"""Frame sets and what belongs to them, paired by time -> one page each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from syncl_core.classes import CAMERAS
from syncl_core.io.key_frames import OWN_SET_NS, objects_at
from syncl_core.types import FrameSet, ObjectSet
from syncl_core.view.picture import Caption, draw_picture
from syncl_core.view.recording import period

_REACH = 0.6
"""In the usual distance of two sets, how far a frame set may lie from both: key frames come after 0.4 to 0.6 s."""


def render_sets(
    frame_sets: Iterable[FrameSet],
    tracks: Mapping[int, ObjectSet] | None = None,
    ground_truth: Mapping[int, ObjectSet] | None = None,
    *,
    caption: Caption | None = None,
    cameras: Sequence[str] = CAMERAS,
    width: int = 1920,
    trail_seconds: float = 6.0,
) -> Iterator[np.ndarray]:
    """A page [H, width, 3] per frame set, drawn as the iterator advances.

    `tracks` and `ground_truth` are keyed by time stamp, ns, and paired with the nearest set within `OWN_SET_NS`. A
    frame set between key frames shows them interpolated. With `tracks` given, sets that have none were not processed by
    the tracker and get no page. `caption` says what all pages share (scene, model, notice, count); number and time are
    filled in. Trails reach `trail_seconds` back.
    """
    caption = caption or Caption()
    first_ns, last_ns, number = None, None, 0
    for frame_set in frame_sets:
        since_ns, last_ns = frame_set.t_ns - (last_ns or 0), frame_set.t_ns
        # Of frame sets that come more often than tracks do, those between tracks were not processed.
        objects = None if tracks is None else _shown(tracks, frame_set.t_ns, between=since_ns > _reach_ns(tracks))
        if tracks is not None and objects is None:
            continue
        number += 1
        first_ns = frame_set.t_ns if first_ns is None else first_ns
        seconds = (frame_set.t_ns - first_ns) / 1e9
        yield draw_picture(
            frame_set,
            objects,
            None if ground_truth is None else _shown(ground_truth, frame_set.t_ns),
            [] if objects is None else before(tracks, objects.t_ns, trail_seconds),
            caption=replace(caption, number=number, seconds=seconds),
            cameras=cameras,
            width=width,
        )


def nearest(sets: Mapping[int, ObjectSet], t_ns: int, tolerance_ns: int = OWN_SET_NS) -> ObjectSet | None:
    """The set whose key is nearest to `t_ns`, or None if none is within the tolerance."""
    key = min(sets, key=lambda other: abs(other - t_ns), default=None)
    return sets[key] if key is not None and abs(key - t_ns) <= tolerance_ns else None


def _shown(sets: Mapping[int, ObjectSet], t_ns: int, between: bool = True) -> ObjectSet | None:
    """The set at `t_ns`; or, where there is none and `between` allows it, what the sets around it say."""
    own = nearest(sets, t_ns)
    if own is not None or not between:
        return own
    return objects_at([sets[key] for key in sorted(sets)], t_ns, _reach_ns(sets))


def _reach_ns(sets: Mapping[int, ObjectSet]) -> int:
    return round(_REACH * period(sets) * 1e9)


def before(sets: Mapping[int, ObjectSet], t_ns: int, seconds: float) -> list[ObjectSet]:
    """The sets of the last `seconds` before `t_ns`, oldest first, without the one at `t_ns`."""
    oldest = t_ns - round(seconds * 1e9)
    return [sets[key] for key in sorted(sets) if oldest <= key < t_ns]
