"""A tiny world in the nuScenes schema, known in closed form, and the way to the real data where there is any."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from syncl_core import geometry
from syncl_core.classes import CAMERAS

VERSION = "v1.0-tiny"
SCENES = ("tiny-0001", "tiny-0002")
SAMPLES_PER_SCENE = 4
START_US = 1_500_000_000_000_000
CAMERA_DELAY_US = {camera: -45_000 + 8_000 * i for i, camera in enumerate(CAMERAS)}  # relative to the key frame
CAMERA_YAW = dict(zip(CAMERAS, np.radians([0, -55, 55, 180, 110, -110]), strict=True))
WIDTH, HEIGHT = 64, 36
INTRINSICS = [[40.0, 0.0, 32.0], [0.0, 40.0, 18.0], [0.0, 0.0, 1.0]]

REAL_GAPS_MS = (500, 500, 399, 500, 600, 400, 550, 450)  # between key frames; as they occur in scene-0103

# name: (category, start in global x, y, z; velocity in x, y; width, length, height; lidar points)
OBJECTS = {
    "car": ("vehicle.car", (20.0, 3.0, 1.0), (4.0, 0.5), (1.9, 4.5, 1.6), 9),
    "walker": ("human.pedestrian.adult", (10.0, -5.0, 0.9), (0.0, 1.2), (0.6, 0.7, 1.8), 3),
    "unseen_truck": ("vehicle.truck", (-15.0, 6.0, 1.5), (2.0, 0.0), (2.5, 8.0, 3.0), 0),
    "far_car": ("vehicle.car", (300.0, 0.0, 1.0), (0.0, 0.0), (1.9, 4.5, 1.6), 1),
    "barrier": ("movable_object.barrier", (12.0, 8.0, 0.5), (0.0, 0.0), (2.0, 0.5, 1.0), 4),
    "dog": ("animal", (5.0, 5.0, 0.3), (1.0, 0.0), (0.3, 0.8, 0.6), 2),
}


def real_root(name: str) -> Path:
    """A folder of real nuScenes data; skips the test without it."""
    base = os.environ.get("SYNCL_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(base) / name
    if not root.is_dir():
        pytest.skip(f"no real nuScenes data at {root}; set SYNCL_DATA")
    return root


def seconds(t_us: int) -> float:
    """Time since the start of the scene; scenes start 10 s apart, and cameras fire a little before."""
    t = (t_us - START_US) * 1e-6
    return t - 10 * round(t / 10)


def global_from_base(t_us: int) -> np.ndarray:
    """The vehicle drives and turns, so that a wrong pose shows."""
    t = seconds(t_us)
    return geometry.transform([6.0 * t, 0.3 * t * t, 0.0], geometry.quaternion_from_yaw(np.array(0.15 * t)))


def base_from_sensor(channel: str) -> np.ndarray:
    if channel == "LIDAR_TOP":
        return geometry.transform([0.9, 0.0, 1.8], geometry.quaternion_from_yaw(np.array(-np.pi / 2)))
    yaw = CAMERA_YAW[channel]
    upright = np.eye(4)
    upright[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # camera axes (right, down, forward) in (forward, left, up)
    return geometry.transform([np.cos(yaw), np.sin(yaw), 1.5], geometry.quaternion_from_yaw(yaw)) @ upright


def object_center(name: str, t_us: int) -> np.ndarray:
    _, start, velocity, _, _ = OBJECTS[name]
    return np.array(start) + seconds(t_us) * np.array([*velocity, 0.0])


def write_tiny_nuscenes(root: Path, sweeps_between: int = 2, gaps_ms: tuple[int, ...] = ()) -> Path:
    """Two scenes of four key frames, six cameras and a lidar, with `sweeps_between` sweeps in each half second.

    `gaps_ms` between key frames replace the usual three of 500 ms.
    """
    offsets_us = np.cumsum([0, *(1000 * gap for gap in gaps_ms or (500,) * (SAMPLES_PER_SCENE - 1))]).tolist()
    tables = _static_tables()
    for index, scene in enumerate(SCENES):
        start_us = START_US + 10_000_000 * index
        _add_scene(tables, scene, [start_us + offset for offset in offsets_us], sweeps_between)
    for record in tables["sample_data"]:
        if record["fileformat"] == "jpg":
            _write_image(root / record["filename"], seed=(len(record["token"]) + record["timestamp"]) % 251)
    (root / VERSION).mkdir(parents=True)
    (root / "maps").mkdir()
    (root / "maps" / "map.png").write_bytes(b"")
    for name, records in tables.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(records))
    (root / VERSION / "splits.json").write_text(json.dumps({"tiny_val": [SCENES[1]]}))
    return root


def edit_table(root: Path, name: str, edit) -> None:
    """Apply `edit(records)` to a table on disk."""
    path = root / VERSION / f"{name}.json"
    records = json.loads(path.read_text())
    edit(records)
    path.write_text(json.dumps(records))


def _static_tables() -> dict[str, list[dict]]:
    channels = (*CAMERAS, "LIDAR_TOP")
    categories = sorted({category for category, *_ in OBJECTS.values()})
    return {
        "attribute": [],
        "visibility": [],
        "category": [{"token": f"category-{name}", "name": name, "description": ""} for name in categories],
        "sensor": [
            {"token": f"sensor-{c}", "channel": c, "modality": "camera" if c in CAMERAS else "lidar"} for c in channels
        ],
        "calibrated_sensor": [
            {
                "token": f"calibrated-{c}",
                "sensor_token": f"sensor-{c}",
                **_pose(base_from_sensor(c)),
                "camera_intrinsic": INTRINSICS if c in CAMERAS else [],
            }
            for c in channels
        ],
        "log": [
            {"token": "log", "logfile": "tiny", "vehicle": "n0", "date_captured": "", "location": "boston-seaport"}
        ],
        "map": [{"token": "map", "category": "semantic_prior", "filename": "maps/map.png", "log_tokens": ["log"]}],
        **{name: [] for name in ("ego_pose", "instance", "sample", "sample_annotation", "sample_data", "scene")},
    }


def _add_scene(tables: dict, scene: str, times_us: list[int], sweeps_between: int) -> None:
    tokens = [f"{scene}-sample-{i}" for i in range(len(times_us))]
    tables["scene"].append(
        {
            "token": scene,
            "name": scene,
            "log_token": "log",
            "nbr_samples": len(tokens),
            "first_sample_token": tokens[0],
            "last_sample_token": tokens[-1],
            "description": "six cameras, a car, a pedestrian",
        }
    )
    samples = [{"token": t, "timestamp": us, "scene_token": scene} for t, us in zip(tokens, times_us, strict=True)]
    tables["sample"] += _chain(samples)
    for channel in (*CAMERAS, "LIDAR_TOP"):
        tables["sample_data"] += _chain(_sample_data(scene, channel, samples, sweeps_between))
    for record in tables["sample_data"]:
        if record["token"].startswith(scene):
            pose = _pose(global_from_base(record["timestamp"]))
            tables["ego_pose"].append({"token": record["ego_pose_token"], "timestamp": record["timestamp"], **pose})
    for name, (category, _, _, size, points) in OBJECTS.items():
        annotations = [
            {
                "token": f"{sample['token']}-{name}",
                "sample_token": sample["token"],
                "instance_token": f"{scene}-{name}",
                "visibility_token": "",
                "attribute_tokens": [],
                "translation": object_center(name, sample["timestamp"]).tolist(),
                "size": list(size),
                "rotation": geometry.quaternion_from_yaw(np.array(0.3)).tolist(),
                "num_lidar_pts": points,
                "num_radar_pts": 0,
            }
            for sample in samples
        ]
        tables["sample_annotation"] += _chain(annotations)
        tables["instance"].append(
            {
                "token": f"{scene}-{name}",
                "category_token": f"category-{category}",
                "nbr_annotations": len(annotations),
                "first_annotation_token": annotations[0]["token"],
                "last_annotation_token": annotations[-1]["token"],
            }
        )


def _sample_data(scene: str, channel: str, samples: list[dict], sweeps_between: int) -> list[dict]:
    camera = channel in CAMERAS
    records = []
    ends_us = [sample["timestamp"] for sample in samples[1:]]
    for sample, end_us in zip(samples, [*ends_us, samples[-1]["timestamp"]], strict=True):
        gap_us = end_us - sample["timestamp"]
        count = max(1, round(gap_us / 500_000 * (sweeps_between + 1)))
        for i in range(count):
            t_us = sample["timestamp"] + i * gap_us // count + CAMERA_DELAY_US.get(channel, 0)
            folder = "sweeps" if i else "samples"
            records.append(
                {
                    "token": f"{scene}-{channel}-{t_us}",
                    "sample_token": sample["token"],
                    "ego_pose_token": f"pose-{scene}-{channel}-{t_us}",
                    "calibrated_sensor_token": f"calibrated-{channel}",
                    "timestamp": t_us,
                    "fileformat": "jpg" if camera else "pcd",
                    "is_key_frame": i == 0,
                    "height": HEIGHT if camera else 0,
                    "width": WIDTH if camera else 0,
                    "filename": f"{folder}/{channel}/{scene}__{channel}__{t_us}.{'jpg' if camera else 'pcd.bin'}",
                }
            )
    return records


def _chain(records: list[dict]) -> list[dict]:
    tokens = ["", *(record["token"] for record in records), ""]
    for i, record in enumerate(records):
        record["prev"], record["next"] = tokens[i], tokens[i + 2]
    return records


def _pose(matrix: np.ndarray) -> dict:
    rotation = geometry.quaternion_from_matrix(matrix[:3, :3])
    return {"translation": matrix[:3, 3].tolist(), "rotation": rotation.tolist()}


def _write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH, 3), seed, dtype=np.uint8)
    path.write_bytes(simplejpeg.encode_jpeg(pixels, quality=90))
