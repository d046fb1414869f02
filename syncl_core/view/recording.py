"""What there is to show: the frame sets of a nuScenes scene or of a bag, their ground truth, tracks made of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from syncl_core import offline
from syncl_core.classes import TRACKING_CLASSES
from syncl_core.config import SynclConfig
from syncl_core.data.nuscenes import NuScenesScenes
from syncl_core.errors import InputError
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.submission import read_submission
from syncl_core.io.topics import Topics
from syncl_core.io.track_bag import TRACKS_TOPIC
from syncl_core.types import FrameSet, ObjectSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One drive. `frame_sets` can be iterated once; a bag's images are read as it advances."""

    name: str
    frame_sets: Iterable[FrameSet]
    count: int  # number of frame sets; 0 = not known before the end
    period_s: float  # seconds between two frame sets, roughly; 0 = unknown
    ground_truth: Mapping[int, ObjectSet]  # by time stamp, ns; tracking classes only
    sample_times: Mapping[str, int]  # nuScenes sample token -> ns


def open_recording(path: str | Path, config: SynclConfig, scene: str = "", version: str = "") -> Recording:
    """The sets a tracker with this configuration sees in a bag, or in a scene ("" = the only one) of a nuScenes root.

    Raises InputError naming the path.
    """
    if not offline.is_bag(path):
        return _open_scene(NuScenesScenes(path, version), scene, config)
    if scene:
        raise InputError(f"{path}: a bag is one recording; --scene is for nuScenes roots")
    if version:
        raise InputError(f"{path}: a bag has no versions; --version is for nuScenes roots")
    return _open_bag(Path(path), config)


def read_tracks(path: str | Path, sample_times: Mapping[str, int], topic: str = TRACKS_TOPIC) -> dict[int, ObjectSet]:
    """Tracks by time stamp, ns: from a bag's Detection3DArray topic, or from a nuScenes tracking JSON.

    `sample_times` gives the JSON's key frames their time; those it does not know belong to other recordings. Raises
    InputError naming the file if nothing is left.
    """
    path = Path(path)
    if path.suffix != ".json":
        with BagReader(path) as reader:
            return {objects.t_ns: objects for objects in reader.object_sets(topic)}
    results = read_submission(path, sample_times)
    tracks = {sample_times[token]: objects for token, objects in results.items() if token in sample_times}
    if not tracks:
        raise InputError(f"{path}: none of its {len(results)} key frames belongs to this recording")
    return tracks


def of_classes(objects: ObjectSet, classes: tuple[str, ...]) -> ObjectSet:
    """Only the objects of these classes."""
    return objects.select(np.array([label in classes for label in objects.labels], dtype=bool))


def period(times_ns: Iterable[int]) -> float:
    """The usual distance of neighbouring time stamps in seconds; 0 for fewer than two."""
    times_ns = sorted(times_ns)
    return float(np.median(np.diff(times_ns))) / 1e9 if len(times_ns) > 1 else 0.0


def _open_scene(data: NuScenesScenes, scene: str, config: SynclConfig) -> Recording:
    if not scene and len(data.scene_names) != 1:
        names = ", ".join(data.scene_names[:10]) + (", ..." if len(data.scene_names) > 10 else "")
        raise InputError(f"{data.root}: choose a scene with --scene: {names or 'there are none'}")
    scene = scene or data.scene_names[0]
    frame_sets = list(offline.scene_frame_sets(data, scene, config))  # compressed: a few megabytes a set
    samples = data.samples(scene)
    return Recording(
        name=scene,
        frame_sets=frame_sets,
        count=len(frame_sets),
        period_s=period(frame_set.t_ns for frame_set in frame_sets),
        ground_truth={sample.t_ns: data.ground_truth(sample.token, TRACKING_CLASSES) for sample in samples},
        sample_times={sample.token: sample.t_ns for sample in samples},
    )


def _open_bag(path: Path, config: SynclConfig) -> Recording:
    scenes = offline.bag_samples(path)
    topic = Topics().ground_truth
    with BagReader(path) as reader:
        truth = reader.object_sets(topic) if topic in reader.topics else []
    return Recording(
        name=" ".join(scenes) or offline.bag_name(path),
        frame_sets=offline.bag_frame_sets(path, config),
        count=0,
        period_s=config.sync.process_period,
        ground_truth={objects.t_ns: of_classes(objects, TRACKING_CLASSES) for objects in truth},
        sample_times={sample.token: sample.t_ns for samples in scenes.values() for sample in samples},
    )
