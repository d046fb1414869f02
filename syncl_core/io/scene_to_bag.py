"""A nuScenes scene as a rosbag2 that a vehicle could have recorded: `ros2 bag play` and `syncl track` take it."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from syncl_core.classes import CAMERAS
from syncl_core.data.nuscenes import NuScenesScenes, Sample
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.bag_writer import BagWriter
from syncl_core.io.markers import MarkerBuilder, MarkerOptions
from syncl_core.io.messages import Make
from syncl_core.io.topics import BASE_FRAME, FIXED_FRAME, MAP_FRAME, Topics, frame_of
from syncl_core.progress_bar import progress_bar
from syncl_core.types import CameraView

GROUND_TRUTH_STYLE = MarkerOptions(color_by="fixed", line_width=0.06)
"""Thin white boxes, so that coloured tracks stay readable over them."""

Poses = list[tuple[int, np.ndarray]]  # (t_ns, global_from_base [4, 4]), increasing in time

TOPICS = Topics()

_MARGIN_NS = 600_000_000  # poses around the first and last image: a little more than one key frame period


class SceneBag(NamedTuple):
    """What `write_scene_bag` found and wrote."""

    path: Path
    seconds: float  # from the first message to the last
    images: int
    samples: int  # key frames written
    missing_samples: int  # key frames left out, as none of their images is on disk


class _Event(NamedTuple):
    """One message of the bag. Its stamp is its log time, so nothing is known before it was measured."""

    t_ns: int
    topic: str
    message: object


def write_scene_bag(
    data: NuScenesScenes,
    scene: str,
    path: str | Path,
    *,
    cameras: Sequence[str] = CAMERAS,
    sweeps: bool = True,
    overwrite: bool = False,
    progress: bool = False,
) -> SceneBag:
    """Write one scene: images with camera_info, /tf, /tf_static, /odom, and ground truth at key frames.

    JPEG bytes are copied unchanged; time stamps are the sensors' own. `sweeps` adds the 12 Hz frames between key frames
    where the data has them. Where only part of the images is on disk, the bag covers that part and `missing_samples`
    counts the rest. Raises InputError if no image is there, and leaves nothing behind then.
    """
    samples = data.samples(scene)
    kept = [sample for sample in samples if _has_image(data, sample, cameras)]
    if not kept:
        raise InputError(f"{data.root}: {scene}: none of its {len(samples)} key frames has a camera image on disk")
    poses = _poses(data, scene, samples, kept)
    seconds = (poses[-1][0] - poses[0][0]) / 1e9
    images = 0
    with BagWriter(path, overwrite=overwrite) as bag, _bar(scene, seconds, progress) as bar:
        make = bag.types.make
        streams = (
            _pose_events(poses, data.static_transforms(scene), make),
            _image_events(data.camera_views(scene, cameras, sweeps, allow_missing=True), poses, make),
            _sample_events(data, scene, kept, make),
        )
        # At equal times the order of the streams holds: poses are there before the images that need them.
        for event in heapq.merge(*streams, key=lambda event: event.t_ns):
            bag.write(event.topic, event.message, event.t_ns)
            bar.update((event.t_ns - poses[0][0]) / 1e9 - bar.n)
            images += event.message.__msgtype__ == messages.COMPRESSED_IMAGE
    return SceneBag(Path(path), seconds, images, len(kept), len(samples) - len(kept))


def _has_image(data: NuScenesScenes, sample: Sample, cameras: Sequence[str]) -> bool:
    return any(data.frame_set(sample.token, cameras, allow_missing=True).views)


def _poses(data: NuScenesScenes, scene: str, samples: Sequence[Sample], kept: Sequence[Sample]) -> Poses:
    """Vehicle poses that span the bag: those of the whole scene, or around the key frames that have images."""
    poses = data.ego_poses(scene)
    if len(kept) == len(samples):
        return poses
    return [pose for pose in poses if kept[0].t_ns - _MARGIN_NS <= pose[0] <= kept[-1].t_ns + _MARGIN_NS]


def _bar(scene: str, seconds: float, show: bool) -> tqdm:
    layout = "{l_bar}{bar}| {n:.1f}/{total:.1f} s of the scene [{elapsed}]"
    return progress_bar(total=seconds, desc=scene, bar_format=layout, disable=not show)


def _pose_events(poses: Poses, base_from_sensors: Mapping[str, np.ndarray], make: Make) -> Iterator[_Event]:
    start_ns = poses[0][0]
    mounts = [
        messages.transform_stamped(make, start_ns, BASE_FRAME, frame_of(channel), base_from_sensor)
        for channel, base_from_sensor in base_from_sensors.items()
    ]
    # All in one message: a latched topic keeps only its last one.
    yield _Event(start_ns, TOPICS.tf_static, messages.tf_message(make, mounts))
    for t_ns, global_from_base in poses:
        odom = messages.transform_stamped(make, t_ns, MAP_FRAME, FIXED_FRAME, np.eye(4))
        base = messages.transform_stamped(make, t_ns, FIXED_FRAME, BASE_FRAME, global_from_base)
        yield _Event(t_ns, TOPICS.tf, messages.tf_message(make, [odom, base]))
        odometry = messages.odometry(make, t_ns, FIXED_FRAME, BASE_FRAME, global_from_base)
        yield _Event(t_ns, TOPICS.odometry, odometry)


def _image_events(views: Iterable[CameraView], poses: Poses, make: Make) -> Iterator[_Event]:
    for view in views:
        if poses[0][0] <= view.t_ns <= poses[-1][0]:
            frame = frame_of(view.camera)
            info = messages.camera_info(make, view.t_ns, frame, view.model)
            yield _Event(view.t_ns, TOPICS.camera_info_of(view.camera), info)
            image = messages.compressed_image(make, view.t_ns, frame, view.image)
            yield _Event(view.t_ns, TOPICS.compressed_of(view.camera), image)


def _sample_events(data: NuScenesScenes, scene: str, samples: Sequence[Sample], make: Make) -> Iterator[_Event]:
    builder = MarkerBuilder(GROUND_TRUTH_STYLE)
    for token, t_ns in samples:
        yield _Event(t_ns, TOPICS.sample, messages.sample_record(make, scene, token, t_ns))
        objects = data.ground_truth(token)
        yield _Event(t_ns, TOPICS.ground_truth, messages.detection3d_array(make, objects, FIXED_FRAME))
        yield _Event(t_ns, TOPICS.ground_truth_markers, builder.build(objects, FIXED_FRAME, make))
