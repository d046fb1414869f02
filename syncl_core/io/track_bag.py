"""Tracks as a rosbag2: what the node would have published, for RViz, Foxglove and `ros2 bag play`."""

from collections.abc import Iterable
from pathlib import Path

from syncl_core.io import messages
from syncl_core.io.bag_writer import BagWriter
from syncl_core.io.markers import MarkerBuilder
from syncl_core.io.topics import FIXED_FRAME
from syncl_core.types import ObjectSet

TRACKS_TOPIC = "/tracker/tracks"
MARKERS_TOPIC = "/tracker/markers"


def write_track_bag(path: str | Path, object_sets: Iterable[ObjectSet], *, overwrite: bool = False) -> int:
    """Write tracks and markers of every set, at its time stamp; returns the number of sets. All or nothing."""
    builder, count = MarkerBuilder(), 0
    with BagWriter(path, overwrite=overwrite) as bag:
        for objects in object_sets:
            tracks = messages.detection3d_array(bag.types.make, objects, FIXED_FRAME)
            bag.write(TRACKS_TOPIC, tracks, objects.t_ns)
            bag.write(MARKERS_TOPIC, builder.build(objects, FIXED_FRAME, bag.types.make), objects.t_ns)
            count += 1
    return count
