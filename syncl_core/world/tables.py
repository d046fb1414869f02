"""Synthetic scenes as tables in the nuScenes schema. Tokens are hashes of what they name, so runs repeat exactly."""

import datetime
import hashlib
from dataclasses import dataclass

import numpy as np

from syncl_core import geometry
from syncl_core.classes import CAMERAS
from syncl_core.world import rig
from syncl_core.world.actors import Actor
from syncl_core.world.scene import Scene, city_from_base
from syncl_core.world.taxonomy import ATTRIBUTES, CATEGORIES, VISIBILITY
from syncl_core.world.truth import truth_of

SPLIT = "world"
_EPOCH_US = 1_600_000_000_000_000  # start of scene 0
_SPACING_US = 100_000_000  # from the start of a scene to that of the next
_MOVING = 0.2  # m/s, slower is standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the sensors tell of the A actors of a scene at a key frame."""

    visible: np.ndarray  # [A] share of the drawn pixels that is not hidden, 0..1
    lidar_points: np.ndarray  # [A]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A scene with its schedule."""

    scene: Scene
    start_us: int  # time stamp of the first key frame
    sweep_us: np.ndarray  # [T] ends of the recorded sweeps after start_us; those of key frames are multiples of 0.5 s
    image_width: int

    def file_name(self, sweep: int, channel: str) -> str:
        """Path of a sweep's image (or lidar turn, which is not stored) below the data root."""
        folder = "samples" if is_key_frame(self.sweep_us[sweep]) else "sweeps"
        suffix = "pcd.bin" if channel == rig.LIDAR else "jpg"
        stamp = self.start_us + int(self.sweep_us[sweep]) - lead_us(channel)
        return f"{folder}/{channel}/{self.scene.name}__{channel}__{stamp}.{suffix}"


def record(scene: Scene, seed: int, key_frames: int, image_width: int, sweeps: bool) -> Recording:
    """The schedule of a scene: all sweeps, or the key frames alone."""
    sweep_us = rig.sweep_times_us(key_frames)
    return Recording(
        scene=scene,
        start_us=start_us(seed),
        sweep_us=sweep_us if sweeps else sweep_us[:: rig.SWEEPS_PER_KEY_FRAME],
        image_width=image_width,
    )


def start_us(seed: int) -> int:
    """Time stamp of the first key frame of a scene, microseconds."""
    return _EPOCH_US + seed * _SPACING_US


def lead_us(channel: str) -> int:
    """Microseconds by which a sensor fires before the end of the lidar turn."""
    return 0 if channel == rig.LIDAR else rig.MOUNTS[channel].lead


def is_key_frame(sweep_us: int) -> bool:
    return int(sweep_us) % 500_000 == 0


def token(*what: object) -> str:
    """A 32-digit token that depends on nothing but what it names."""
    return hashlib.blake2b("/".join(map(str, what)).encode(), digest_size=16).hexdigest()


def shared_tables(recordings: list[Recording], map_file: str, image_width: int) -> dict[str, list[dict]]:
    """Tables that do not belong to a scene."""
    channels = (rig.LIDAR, *CAMERAS)
    logs = [token("log", r.scene.name) for r in recordings]
    return {
        "category": [{"token": token("category", n), "name": n, "description": d} for n, d in CATEGORIES.items()],
        "attribute": [{"token": token("attribute", n), "name": n, "description": d} for n, d in ATTRIBUTES.items()],
        "visibility": [
            {"token": t, "level": level, "description": f"visible share of the object: {level[1:]} percent"}
            for t, (level, _) in VISIBILITY.items()
        ],
        "sensor": [
            {"token": token("sensor", c), "channel": c, "modality": "lidar" if c == rig.LIDAR else "camera"}
            for c in channels
        ],
        "calibrated_sensor": [_calibration(c, image_width) for c in channels],
        "map": [
            {"token": token("map"), "category": "semantic_prior", "filename": map_file, "log_tokens": logs},
        ],
    }


def _calibration(channel: str, image_width: int) -> dict:
    is_lidar = channel == rig.LIDAR
    base_from_sensor = rig.base_from_lidar() if is_lidar else rig.base_from_cam(channel)
    return {
        "token": token("calibrated_sensor", channel),
        "sensor_token": token("sensor", channel),
        **_pose_fields(base_from_sensor),
        "camera_intrinsic": [] if is_lidar else rig.camera_model(channel, image_width).intrinsics.tolist(),
    }


def scene_tables(recording: Recording, observations: list[Observation]) -> dict[str, list[dict]]:
    """Tables of one scene; `observations` has one entry per key frame."""
    scene, name = recording.scene, recording.scene.name
    key_us = [int(t) for t in recording.sweep_us if is_key_frame(t)]
    samples = [token("sample", name, t) for t in key_us]
    start = datetime.datetime.fromtimestamp(recording.start_us / 1e6, tz=datetime.timezone.utc)
    sensor_rows, pose_rows = _sensor_data(recording, key_us, samples)
    annotation_rows, instance_rows = _annotations(recording, key_us, samples, observations)
    return {
        "log": [
            {
                "token": token("log", name),
                "logfile": name,
                "vehicle": "synthetic",
                "date_captured": start.strftime("%Y-%m-%d"),
                "location": "synthetic-city",
            }
        ],
        "scene": [
            {
                "token": token("scene", name),
                "log_token": token("log", name),
                "nbr_samples": len(samples),
                "first_sample_token": samples[0],
                "last_sample_token": samples[-1],
                "name": name,
                "description": scene.description,
            }
        ],
        "sample": _chain(
            {"token": s, "timestamp": recording.start_us + t, "scene_token": token("scene", name)}
            for s, t in zip(samples, key_us, strict=True)
        ),
        "sample_data": sensor_rows,
        "ego_pose": pose_rows,
        "sample_annotation": annotation_rows,
        "instance": instance_rows,
    }


def _sensor_data(recording: Recording, key_us: list[int], samples: list[str]) -> tuple[list[dict], list[dict]]:
    """sample_data and ego_pose rows; every image has the pose of its own time stamp."""
    scene, data, poses = recording.scene, [], []
    # A sweep belongs to the key frame that follows it.
    owners = [samples[i] for i in np.searchsorted(key_us, recording.sweep_us)]
    for channel in (rig.LIDAR, *CAMERAS):
        model = None if channel == rig.LIDAR else rig.camera_model(channel, recording.image_width)
        stamps = recording.sweep_us - lead_us(channel)
        global_from_base = scene.global_from_city @ city_from_base(scene, stamps / 1e6)
        names = [token("sample_data", scene.name, channel, t) for t in stamps]
        data += _chain(
            {
                "token": names[i],
                "sample_token": owners[i],
                "ego_pose_token": names[i],
                "calibrated_sensor_token": token("calibrated_sensor", channel),
                "timestamp": recording.start_us + int(stamp),
                "fileformat": "jpg" if model else "pcd",
                "is_key_frame": is_key_frame(recording.sweep_us[i]),
                "height": model.height if model else 0,
                "width": model.width if model else 0,
                "filename": recording.file_name(i, channel),
            }
            for i, stamp in enumerate(stamps)
        )
        poses += [
            {"token": t, "timestamp": recording.start_us + int(stamp), **_pose_fields(pose)}
            for t, stamp, pose in zip(names, stamps, global_from_base, strict=True)
        ]
    return data, poses


def _annotations(recording: Recording, key_us, samples, observations) -> tuple[list[dict], list[dict]]:
    """sample_annotation and instance rows of the actors in range."""
    scene, truth = recording.scene, truth_of(recording.scene, len(key_us))
    annotations, instances = [], []
    for i, actor in enumerate(scene.actors):
        frames = np.flatnonzero(truth.annotated[:, i])
        if not len(frames):
            continue
        instance = instance_token(scene, actor)
        rows = _chain(
            {
                "token": token("sample_annotation", scene.name, actor.name, key_us[k]),
                "sample_token": samples[k],
                "instance_token": instance,
                "visibility_token": _visibility_token(observations[k].visible[i]),
                "attribute_tokens": [token("attribute", _attribute(actor, truth.speeds[k, i]))],
                "size": [actor.size[1], actor.size[0], actor.size[2]],  # nuScenes: width, length, height
                **_pose_fields(truth.global_from_box[k, i]),
                "num_lidar_pts": int(observations[k].lidar_points[i]),
                "num_radar_pts": 0,
            }
            for k in frames
        )
        annotations += rows
        instances.append(
            {
                "token": instance,
                "category_token": token("category", actor.category),
                "nbr_annotations": len(rows),
                "first_annotation_token": rows[0]["token"],
                "last_annotation_token": rows[-1]["token"],
            }
        )
    return annotations, instances


def instance_token(scene: Scene, actor: Actor) -> str:
    """The identity of an actor, in tables and in ground truth."""
    return token("instance", scene.name, actor.name)


def _attribute(actor: Actor, speed: float) -> str:
    return actor.moving if speed > _MOVING else actor.still


def _visibility_token(visible: float) -> str:
    return next((t for t, (_, most) in VISIBILITY.items() if visible <= most), "4")


def _pose_fields(matrix: np.ndarray) -> dict:
    return {
        "translation": matrix[:3, 3].tolist(),
        "rotation": geometry.quaternion_from_matrix(matrix[:3, :3]).tolist(),
    }


def _chain(rows) -> list[dict]:
    """The rows, linked by prev and next."""
    rows = list(rows)
    tokens = ["", *(row["token"] for row in rows), ""]
    return [{**row, "prev": tokens[i], "next": tokens[i + 2]} for i, row in enumerate(rows)]
