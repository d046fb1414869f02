"""Synthetic scenes on disk: JPEGs, nuScenes tables, a map picture and a split, ready for nuscenes-devkit."""

import functools
import json
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch

from syncl_core.classes import CAMERAS
from syncl_core.errors import InputError
from syncl_core.io.whole_folder import whole_folder
from syncl_core.progress_bar import progress_bar
from syncl_core.worker_signals import held_for_children, leave_signals_to_parent
from syncl_core.world import city, generate, photo, render, rig, sense, splits, tables
from syncl_core.world.scene import Scene, boxes_at, city_from_base
from syncl_core.world.tables import Observation, Recording

VERSION = "v1.0-syncl"
JPEG_QUALITY = 90

_MAP_FILE = "maps/synthetic-city.png"
_MAP_SIZE, _MAP_RESOLUTION = 4000, 0.1  # pixels, metres per pixel (the devkit's default)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """Which scenes to write, and how."""

    split: str = ""  # "train", "val" or "test": that split's first scenes; "": scenes from `seed` on
    scenes: int | None = None  # None = one, or all of `val` or `test`
    seconds: float = 10.0  # length of a scene; two key frames a second
    seed: int = 0  # of the first scene; the others follow
    image_width: int = 800  # pixels; 1600 is the size of the real cameras
    sweeps: bool = True  # 12 images a second per camera instead of two
    workers: int = 0  # processes; 0 = one per CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One sweep to render."""

    root: Path
    seed: int
    key_frames: int
    image_width: int
    sweeps: bool
    sweep: int


def write_world(folder: Path, config: WorldConfig, progress: bool = False) -> Path:
    """Render and write the scenes; the folder appears when it is complete. Returns it.

    progress: show a bar over the sweeps. Raises InputError if the folder is not empty or cannot be written, a process
    was killed, or the configuration is impossible.
    """
    _check(folder, config)
    try:
        with whole_folder(folder) as partial:
            _write_all(partial, config, progress)
    except OSError as error:
        raise InputError(f"{folder}: cannot write it: {error.strerror}") from None
    except BrokenProcessPool:
        raise InputError(
            f"{folder}: a drawing process was killed; did the memory run out? Try fewer --workers"
        ) from None
    return folder.resolve()


def _check(folder: Path, config: WorldConfig) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; choose another folder or remove it")
    if folder.resolve() == Path.cwd():
        raise InputError(f"{folder}: is the current folder, which cannot be replaced; choose another one")
    if config.workers < 0:
        raise InputError("world: workers must not be negative")
    scene_seeds(config)
    if not 1 <= config.seconds <= 60:
        raise InputError(f"world: seconds must lie between 1 and 60, got {config.seconds:g}")
    if config.split and config.seconds > generate.SCENE_SECONDS:
        raise InputError(f"world: seconds: scenes of a split last {generate.SCENE_SECONDS:g} s, got {config.seconds:g}")
    if not 160 <= config.image_width <= 1600 or config.image_width % 16:
        raise InputError(f"world: image width must be a multiple of 16 from 160 to 1600, got {config.image_width}")


def scene_seeds(config: WorldConfig) -> range:
    """The seeds of the scenes to write. Raises InputError naming what is wrong."""
    if config.scenes is not None and config.scenes < 1:
        raise InputError(f"world: scenes must be at least 1, got {config.scenes}")
    if config.split:
        if config.seed:
            raise InputError("world: seed chooses free scenes; leave it out, or leave out split")
        return splits.seeds(config.split, config.scenes or (1 if config.split == "train" else None))
    chosen = range(config.seed, config.seed + (config.scenes or 1))
    if not 0 <= chosen[0] <= chosen[-1] < splits.VAL:
        raise InputError(
            f"world: seed must be at least 0 and seed + scenes at most {splits.VAL}; use split beyond that"
        )
    return chosen


def _write_all(root: Path, config: WorldConfig, progress: bool) -> None:
    key_frames = round(2 * config.seconds)
    seeds = scene_seeds(config)
    recordings = [_recording(seed, key_frames, config.image_width, config.sweeps) for seed in seeds]
    for channel in CAMERAS:
        (root / "samples" / channel).mkdir(parents=True)
        if config.sweeps:
            (root / "sweeps" / channel).mkdir(parents=True)
    common = {"root": root, "key_frames": key_frames, "image_width": config.image_width, "sweeps": config.sweeps}
    jobs = [
        _Job(seed=seed, sweep=i, **common)
        for seed, recording in zip(seeds, recordings, strict=True)
        for i in range(len(recording.sweep_us))
    ]
    results = _run(jobs, config.workers or _cpu_count())
    bar = progress_bar(results, total=len(jobs), desc="world", unit="sweep", disable=not progress)
    observations = [o for o in bar if o is not None]
    content = tables.shared_tables(recordings, _MAP_FILE, config.image_width)
    for i, recording in enumerate(recordings):
        for name, rows in tables.scene_tables(recording, observations[i * key_frames : (i + 1) * key_frames]).items():
            content.setdefault(name, []).extend(rows)
    names = [r.scene.name for r in recordings]
    content["splits"] = {tables.SPLIT: names, **({f"world_{config.split}": names} if config.split else {})}
    _write_tables(root / VERSION, content)
    _write_map(root / _MAP_FILE, recordings[0].scene)


@functools.lru_cache(maxsize=4)
def _recording(seed: int, key_frames: int, image_width: int, sweeps: bool) -> Recording:
    scene = generate.make_scene(seed, key_frames / 2)
    return tables.record(scene, seed, key_frames, image_width, sweeps)


def _run(jobs: list[_Job], workers: int) -> Iterable[Observation | None]:
    """Results of the jobs in their order, as they become ready."""
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the renderer's pieces fit a cache, they are too small to share
        try:
            yield from map(_render_sweep, jobs)
        finally:
            torch.set_num_threads(threads)
        return
    # Processes are spawned: forking a process whose torch threads run may deadlock.
    context = multiprocessing.get_context("spawn")
    ended = context.Event()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_work, initargs=(ended,)) as pool:
        try:
            with held_for_children():
                results = pool.map(_render_unless_ended, jobs, chunksize=2)
            yield from results
        finally:
            ended.set()


_ended: Event  # of a drawing process: nobody wants more


def _begin_work(ended: Event) -> None:
    global _ended
    _ended = ended
    leave_signals_to_parent()
    torch.set_num_threads(1)


def _render_unless_ended(job: _Job) -> Observation | None:
    """After an interrupt the pool goes on with what it has given out, some ten sweeps: they take no time then."""
    return None if _ended.is_set() else _render_sweep(job)


def _render_sweep(job: _Job) -> Observation | None:
    """Write the six images of a sweep; for a key frame, what they and the lidar tell of the actors."""
    recording = _recording(job.seed, job.key_frames, job.image_width, job.sweeps)
    scene, end_us = recording.scene, recording.sweep_us[job.sweep]
    t_us = rig.camera_times_us([end_us])[0]
    boxes, views = boxes_at(scene, t_us / 1e6), photo.camera_views(scene, t_us / 1e6, job.image_width)
    pictures = render.render(boxes, scene.light, views)
    for image, channel in zip(photo.develop(scene, pictures.rgb, t_us).numpy(), CAMERAS, strict=True):
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=JPEG_QUALITY, colorsubsampling="420")
        (job.root / recording.file_name(job.sweep, channel)).write_bytes(data)
    if not tables.is_key_frame(end_us):
        return None
    end = np.array([end_us / 1e6])
    city_from_lidar = city_from_base(scene, end)[0] @ rig.base_from_lidar()
    return Observation(
        visible=sense.visible_share(boxes, views, pictures, len(scene.actors)),
        lidar_points=sense.lidar_points(boxes_at(scene, end), city_from_lidar, len(scene.actors)),
    )


def _write_tables(folder: Path, content: dict) -> None:
    folder.mkdir()
    for name, rows in content.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0), encoding="utf-8")


def _write_map(path: Path, scene: Scene) -> None:
    """Drivable area in white; pixel rows run from the largest y down, as in nuScenes' maps."""
    image = np.zeros((_MAP_SIZE, _MAP_SIZE), np.uint8)
    reach = _MAP_SIZE * _MAP_RESOLUTION
    for axis in np.arange(-3, 4) * city.BLOCK:
        for swap in (False, True):
            street = np.array([[-reach, axis - city.KERB], [reach, axis - city.KERB],
                               [reach, axis + city.KERB], [-reach, axis + city.KERB]])  # fmt: skip
            x, y = (street[:, ::-1] if swap else street).T
            points = scene.global_from_city @ np.stack([x, y, np.zeros(4), np.ones(4)])
            pixels = np.stack([points[0], reach - points[1]], axis=-1) / _MAP_RESOLUTION
            cv2.fillPoly(image, [np.round(pixels).astype(np.int32)], 255)
    path.parent.mkdir()
    path.write_bytes(cv2.imencode(path.suffix, image)[1])  # cv2.imwrite says nothing of a full disk


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
