"""Key frames and the object sets of a tracker, paired by time.

nuScenes annotates key frames every 0.4 to 0.6 s. The sets of a bag come by `sync.process_period` instead: after the
first shorter gap they lie beside the key frames, and stay there.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from syncl_core.config import SyncConfig
from syncl_core.types import ObjectSet

OWN_SET_NS = 50_000_000
"""A set at most so far from a key frame is its own: a set's cameras fire within 50 ms."""


class KeyFrames(NamedTuple):
    """What the key frames of a scene got."""

    objects: dict[str, ObjectSet]  # by token, every key frame
    filled: int  # of them lie between sets: their objects are interpolated
    without: int  # of them have no set: no objects

    def notes(self, scene: str) -> Iterable[str]:
        """What must be said of them, a line each."""
        of = f"of {len(self.objects)} key frames"
        if self.filled:
            yield f"{scene}: {self.filled} {of} lie between processed sets; their boxes are interpolated"
        if self.without:
            yield f"{scene}: {self.without} {of} have no set, so no boxes; are images missing (sync.min_cameras)?"


def match_to_samples(object_sets: Iterable[ObjectSet], samples: Iterable[tuple[str, int]]) -> dict[str, ObjectSet]:
    """Give every key frame (token, t_ns) of a scene the object set nearest in time, at most `OWN_SET_NS` away.

    Pairs are formed closest first, of equals the earliest, whatever order the sets come in; a set serves one key frame
    only. A key frame left alone gets an empty set: the evaluation wants every key frame, and a tracker that said
    nothing has no boxes.
    """
    return fill_samples(object_sets, samples, 0.0).objects


def fill_samples(object_sets: Iterable[ObjectSet], samples: Iterable[tuple[str, int]], reach_s: float) -> KeyFrames:
    """`match_to_samples`, but a key frame left alone gets the `objects_at` its time, if a set is within `reach_s`."""
    object_sets = sorted(object_sets, key=lambda objects: objects.t_ns)
    samples = sorted(samples, key=lambda sample: sample[1])
    own, results, filled, without = _own_sets(object_sets, samples), {}, 0, 0
    for index, (token, t_ns) in enumerate(samples):
        objects = own.get(index)
        if objects is None and reach_s:
            objects = objects_at(object_sets, t_ns, round(reach_s * 1e9))
            filled += objects is not None
        without += objects is None
        results[token] = nothing(t_ns) if objects is None else objects
    return KeyFrames(results, filled, without)


def reach(sync: SyncConfig) -> float:
    """Seconds around a processed set in which objects are known: until coasting ends, or the next set is due."""
    return max(sync.coast_max, sync.process_period)


def objects_at(object_sets: Sequence[ObjectSet], t_ns: int, reach_ns: int) -> ObjectSet | None:
    """The objects of the set nearest to `t_ns`, each on the line through its place in the set on the other side.

    After the last set the line is that of the last two. What the second set does not have moves with its velocity; an
    unknown one counts as zero. Everything but the places stays as it is in the nearest set. None before the first set,
    and if the nearest is more than `reach_ns` away. The sets must be in order of time.
    """
    index = bisect_right(object_sets, t_ns, key=lambda objects: objects.t_ns)
    if index == 0:
        return None
    around = object_sets[index - 1 : index + 1] if index < len(object_sets) else object_sets[-2:]
    near, *far = sorted(around, key=lambda objects: abs(objects.t_ns - t_ns))
    return _moved(near, far[0] if far else None, t_ns) if abs(near.t_ns - t_ns) <= reach_ns else None


def nothing(t_ns: int) -> ObjectSet:
    """No objects."""
    return ObjectSet(
        t_ns=t_ns,
        ids=(),
        labels=(),
        scores=np.zeros(0),
        centers=np.zeros((0, 3)),
        sizes=np.zeros((0, 3)),
        rotations=np.zeros((0, 4)),
        velocities=np.zeros((0, 2)),
    )


def _own_sets(object_sets: Sequence[ObjectSet], samples: Sequence[tuple[str, int]]) -> dict[int, ObjectSet]:
    """The sets of the key frames that have one, by their number; `samples` are in order of time."""
    times = [t_ns for _, t_ns in samples]
    pairs = []
    for set_index, objects in enumerate(object_sets):
        first = bisect_left(times, objects.t_ns - OWN_SET_NS)
        last = bisect_right(times, objects.t_ns + OWN_SET_NS)
        pairs += [(abs(times[index] - objects.t_ns), index, set_index) for index in range(first, last)]
    matched, used = {}, set()
    for _, index, set_index in sorted(pairs):
        if index not in matched and set_index not in used:
            matched[index] = object_sets[set_index]
            used.add(set_index)
    return matched


def _moved(near: ObjectSet, far: ObjectSet | None, t_ns: int) -> ObjectSet:
    moved = near.moved(t_ns)
    if far is not None and far.t_ns != near.t_ns:  # time may have gone back to the very same stamp
        share = (t_ns - near.t_ns) / (far.t_ns - near.t_ns)
        there = dict(zip(far.ids, far.centers, strict=True))
        for row, name in enumerate(near.ids):
            if name in there:
                moved.centers[row] = near.centers[row] + share * (there[name] - near.centers[row])
    return moved
