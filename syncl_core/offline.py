"""Recordings through the tracker, without ROS: every set is processed, none is dropped.

A bag goes through the same Intake as the node's topics, with a clock that stands still: stamps alone close sets, so the
result does not depend on how fast anything is read. nuScenes tables give their key frames directly.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from syncl_core.config import SynclConfig
from syncl_core.data.nuscenes import NuScenesScenes, Sample
from syncl_core.errors import InputError, RejectedSetError, list_names
from syncl_core.io import messages
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.sensor_events import sensor_events
from syncl_core.io.topics import Topics
from syncl_core.runtime.intake import Intake
from syncl_core.runtime.problems import Problem, ProblemLog
from syncl_core.types import FrameSet, ObjectSet, StepReport


def bag_frame_sets(
    path: str | Path,
    config: SynclConfig,
    topics: Topics | None = None,
    on_problems: Callable[[dict[str, Problem]], None] | None = None,
) -> Iterator[FrameSet]:
    """The frame sets of a rosbag2, in order of time. `on_problems` hears at the end why other input became no set.

    Raises InputError naming the file and the topic for unusable content, and if there is not a single set.
    """
    intake, left_out = Intake(config, clock_ns=lambda: 0, strict=True), ProblemLog()
    given = {"rectify": config.rig.rectify, "on_unusable": left_out.add}
    count = 0
    with BagReader(path) as reader:
        cameras, required = config.rig.cameras, config.sync.min_cameras
        for _, deliver in sensor_events(reader, cameras, topics, min_cameras=required, **given):
            deliver(intake)
            for frame_set in intake.poll():
                count += 1
                yield frame_set
        for frame_set in intake.finish():
            count += 1
            yield frame_set
    problems = left_out.snapshot() | intake.problems()
    if not count:
        reasons = "; ".join(f"{name} ({problem.count} times): {problem.message}" for name, problem in problems.items())
        raise InputError(f"{path}: no complete set of images{': ' + reasons if reasons else ''}")
    if on_problems is not None:
        on_problems(problems)


def usable_scenes(data: NuScenesScenes, scenes: Iterable[str], config: SynclConfig) -> tuple[str, ...]:
    """Those with a key frame that has enough images on disk: a root may be filled in part."""

    def usable(scene: str) -> bool:
        cameras, least = config.rig.cameras, config.sync.min_cameras
        return any(len(data.cameras_on_disk(sample.token, cameras)) >= least for sample in data.samples(scene))

    return tuple(filter(usable, scenes))


def chosen_scenes(
    data: NuScenesScenes,
    asked: Sequence[str],
    split: Sequence[str],
    config: SynclConfig,
    on_left_out: Callable[[str], None],
) -> tuple[str, ...]:
    """The scenes asked for; without any those of the split, or of the root, that have images.

    `on_left_out` hears, in one line, which have none. Raises InputError if one that was asked for has none, or if no
    scene has.
    """
    scenes = tuple(dict.fromkeys(asked)) or tuple(split) or data.scene_names
    if not scenes:
        raise InputError(f"{data.root}: has no scene")
    usable = usable_scenes(data, scenes, config)
    without = [name for name in scenes if name not in usable]
    if without and (asked or not usable):
        least = config.sync.min_cameras
        raise InputError(f"{data.root}: {without[0]}: no key frame has {least} images on disk (sync.min_cameras)")
    if without:
        on_left_out(f"{data.root}: left out, without images on disk: {list_names(without)}")
    return usable


def scene_frame_sets(data: NuScenesScenes, scene: str, config: SynclConfig) -> Iterator[FrameSet]:
    """The key frames of a scene that have enough images. Raises InputError if none has."""
    count = 0
    for sample in data.samples(scene):
        frame_set = data.frame_set(sample.token, config.rig.cameras, allow_missing=True)
        if sum(view is not None for view in frame_set.views) >= config.sync.min_cameras:
            count += 1
            yield frame_set
    if not count:
        raise InputError(
            f"{data.root}: {scene}: no key frame has {config.sync.min_cameras} images on disk (sync.min_cameras)"
        )


def track(
    process: Callable[[FrameSet], StepReport], frame_sets: Iterable[FrameSet], source: str
) -> Iterator[ObjectSet]:
    """The objects of every set that can be used, as the node does it: a set that the session rejects is left out.

    Raises InputError, naming the source (the recording), if none can be used, or if the tracker itself fails.
    """
    count, message = 0, "there is no set"
    for frame_set in frame_sets:
        try:
            objects = process(frame_set).objects
        except RejectedSetError as error:
            message = str(error)
            continue
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        count += 1
        yield objects
    if not count:
        raise InputError(f"{source}: no set of images can be used; the last: {message}")


def bag_samples(path: str | Path, topics: Topics | None = None) -> dict[str, list[Sample]]:
    """The nuScenes key frames by scene that `syncl bag` recorded; empty for a bag of another origin."""
    topic = (topics or Topics()).sample
    scenes: dict[str, list[Sample]] = {}
    with BagReader(path) as reader:
        if topic in reader.topics:
            for _, message, _ in reader.decoded([topic]):
                scene, token, t_ns = messages.sample_record_from(message)
                scenes.setdefault(scene, []).append(Sample(token, t_ns))
    return scenes


def bag_name(path: str | Path) -> str:
    """How a bag is called: its folder, or its file without .mcap or .db3."""
    path = Path(path).resolve()
    return path.name if path.is_dir() else path.stem


def is_bag(path: str | Path) -> bool:
    """Whether `path` looks like a rosbag2 rather than a nuScenes root. Raises InputError if nothing is there."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return path.is_file() or (path / "metadata.yaml").is_file() or any(path.glob("*.mcap"))
