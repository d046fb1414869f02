"""nuScenes scenes as the values of `syncl_core.types`: frame sets, camera streams, poses, calibration, ground truth.

Whatever has the nuScenes schema will do: the real data, a mini version, a partly filled root, the synthetic world.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from syncl_core import geometry
from syncl_core.classes import CAMERAS, DETECTION_CLASSES
from syncl_core.data import tables
from syncl_core.errors import InputError
from syncl_core.types import CameraModel, CameraView, FrameSet, ObjectSet, RawImage

REFERENCE_CHANNEL = "LIDAR_TOP"
"""The sensor whose time stamp, pose and calibration define a key frame, also for cameras-only methods."""

_ENCODINGS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}


class Sample(NamedTuple):
    """One annotated key frame (2 Hz)."""

    token: str
    t_ns: int


class NuScenesScenes:
    """Read access to one version of a nuScenes root. The tables are loaded once; images are read when asked for.

    Raises InputError, naming the folder or table, if the root cannot be used.
    """

    def __init__(self, root: str | Path, version: str = ""):
        self.root = Path(root)
        self.version = tables.find_version(self.root, version)
        self._nusc = tables.open_devkit(self.root, self.version)
        self._scenes = {record["name"]: record for record in self._nusc.scene}

    @property
    def scene_names(self) -> tuple[str, ...]:
        return tuple(self._scenes)

    def split(self, name: str) -> tuple[str, ...]:
        """Scenes of a predefined or custom split (`splits.json`) that this root has. Raises InputError if none."""
        return tables.scenes_of_split(self.root, self.version, name, self.scene_names)

    def description(self, scene: str) -> str:
        return self._scene(scene)["description"]

    def samples(self, scene: str) -> tuple[Sample, ...]:
        """The key frames of a scene, in time order."""
        records = self._samples_of_scene[self._scene(scene)["token"]]
        return tuple(Sample(record["token"], record["timestamp"] * 1000) for record in records)

    def scene_of(self, sample_token: str) -> str:
        """The name of the scene a key frame belongs to."""
        return self._nusc.get("scene", self._sample(sample_token)["scene_token"])["name"]

    def cameras_on_disk(self, sample_token: str, cameras: Sequence[str] = CAMERAS) -> tuple[str, ...]:
        """Those of `cameras` whose image of a key frame exists; a partly filled root has none for most key frames."""
        sample = self._sample(sample_token)
        records = [(camera, self._key_frame(sample, camera, allow_missing=True)) for camera in cameras]
        return tuple(camera for camera, record in records if record and (self.root / record["filename"]).is_file())

    def frame_set(
        self, sample_token: str, cameras: Sequence[str] = CAMERAS, *, allow_missing: bool = False
    ) -> FrameSet:
        """The images of a key frame, each with the vehicle pose of its own exposure.

        An image that is not on disk is an InputError, or a None among the views if `allow_missing`.
        """
        sample = self._sample(sample_token)
        scene = self.scene_of(sample_token)
        reference = self._key_frame(sample, REFERENCE_CHANNEL)
        records = [self._key_frame(sample, camera, allow_missing) for camera in cameras]
        return FrameSet(
            t_ns=reference["timestamp"] * 1000,
            global_from_base=self._global_from_base(scene, reference),
            base_from_model=self._base_from_sensor(scene, reference),
            views=tuple(record and self._view(scene, record, allow_missing) for record in records),
        )

    def camera_views(
        self, scene: str, cameras: Sequence[str] = CAMERAS, sweeps: bool = True, *, allow_missing: bool = False
    ) -> Iterator[CameraView]:
        """All images of a scene in time order: key frames (2 Hz) and, where the data has them, `sweeps` (12 Hz).

        Bytes are read as the iterator advances. An image that is not on disk is an InputError, or left out if
        `allow_missing`.
        """
        for record in self._records(scene):
            if record["channel"] in cameras and (sweeps or record["is_key_frame"]):
                view = self._view(scene, record, allow_missing)
                if view is not None:
                    yield view

    def has_sweeps(self, scene: str, camera: str) -> bool:
        """Whether a frame between key frames is on disk."""
        records = (r for r in self._records(scene) if r["channel"] == camera and not r["is_key_frame"])
        return any((self.root / record["filename"]).is_file() for record in records)

    def ego_pose(self, sample_token: str) -> np.ndarray:
        """`global_from_base` [4, 4], metres, of a key frame, at the time of its `REFERENCE_CHANNEL`."""
        reference = self._key_frame(self._sample(sample_token), REFERENCE_CHANNEL)
        return self._global_from_base(self.scene_of(sample_token), reference)

    def ego_poses(self, scene: str) -> list[tuple[int, np.ndarray]]:
        """Every known vehicle pose of a scene, (t_ns, global_from_base), strictly increasing in time."""
        poses = {}
        for record in self._records(scene):
            t_ns = record["timestamp"] * 1000
            if t_ns not in poses:
                poses[t_ns] = self._global_from_base(scene, record)
        return list(poses.items())

    def static_transforms(self, scene: str) -> dict[str, np.ndarray]:
        """`base_from_sensor` of every sensor of a scene, by channel name."""
        return {
            channel: self._base_from_sensor(scene, record) for channel, record in self._first_records(scene).items()
        }

    def camera_models(self, scene: str) -> dict[str, CameraModel]:
        """The pinhole model of every camera of a scene, by channel name."""
        records = self._first_records(scene)
        return {
            channel: self._camera_model(scene, record)
            for channel, record in records.items()
            if record["sensor_modality"] == "camera"
        }

    def camera_model(self, sample_token: str, camera: str) -> CameraModel:
        """The pinhole model of a camera at a key frame."""
        return self._camera_model(self.scene_of(sample_token), self._key_frame(self._sample(sample_token), camera))

    def ground_truth(self, sample_token: str, classes: Sequence[str] = DETECTION_CLASSES) -> ObjectSet:
        """The annotated boxes of `classes` at a key frame, as nuscenes-devkit's evaluation sees them.

        Ids are instance tokens, scores are 1, unknown velocities NaN; `num_points` counts lidar and radar points.
        """
        from nuscenes.eval.detection.utils import category_to_detection_name

        sample = self._sample(sample_token)
        scene = self.scene_of(sample_token)
        records = [self._nusc.get("sample_annotation", token) for token in sample["anns"]]
        labels = [category_to_detection_name(record["category_name"]) for record in records]
        kept = [(record, label) for record, label in zip(records, labels, strict=True) if label in classes]
        global_from_box = [self._transform(scene, "sample_annotation", record["token"]) for record, _ in kept]
        global_from_box = np.array(global_from_box).reshape(-1, 4, 4)
        velocities = [self._velocity(scene, record["token"]) for record, _ in kept]
        return ObjectSet(
            t_ns=sample["timestamp"] * 1000,
            ids=tuple(record["instance_token"] for record, _ in kept),
            labels=tuple(label for _, label in kept),
            scores=np.ones(len(kept)),
            centers=global_from_box[:, :3, 3],
            # nuScenes stores width, length, height.
            sizes=np.array([record["size"] for record, _ in kept], dtype=np.float64).reshape(-1, 3)[:, [1, 0, 2]],
            rotations=geometry.quaternion_from_matrix(global_from_box[:, :3, :3]),
            velocities=np.array(velocities, dtype=np.float64).reshape(-1, 2),
            num_points=np.array([r["num_lidar_pts"] + r["num_radar_pts"] for r, _ in kept], dtype=np.int64),
        )

    def _velocity(self, scene: str, annotation: str) -> np.ndarray:
        try:
            return self._nusc.box_velocity(annotation)[:2]
        except KeyError as error:
            raise InputError(f"{self.root}: {scene}: sample_annotation {annotation}: no neighbour {error}") from None

    def _scene(self, name: str) -> dict:
        if name not in self._scenes:
            known = tables.some(self.scene_names)
            raise InputError(f"{self.root}: no scene {name!r} in {self.version}; scenes here: {known}")
        return self._scenes[name]

    def _sample(self, token: str) -> dict:
        try:
            return self._nusc.get("sample", token)
        except KeyError:
            raise InputError(f"{self.root}: no sample {token!r} in {self.version}") from None

    @cached_property
    def _samples_of_scene(self) -> dict[str, list[dict]]:
        scenes = defaultdict(list)
        for record in sorted(self._nusc.sample, key=lambda record: record["timestamp"]):
            scenes[record["scene_token"]].append(record)
        return scenes

    @cached_property
    def _records_of_scene(self) -> dict[str, list[dict]]:
        # By sample rather than along prev/next: a root with part of the data has broken chains.
        scenes = defaultdict(list)
        for record in sorted(self._nusc.sample_data, key=lambda record: record["timestamp"]):
            scenes[self._nusc.get("sample", record["sample_token"])["scene_token"]].append(record)
        return scenes

    def _records(self, scene: str) -> list[dict]:
        """All sample_data of a scene, key frames and sweeps of every sensor, in time order."""
        return self._records_of_scene[self._scene(scene)["token"]]

    def _first_records(self, scene: str) -> dict[str, dict]:
        """One sample_data of each channel: the calibration of a sensor does not change within a scene."""
        first = {}
        for record in self._records(scene):
            first.setdefault(record["channel"], record)
        return first

    def _key_frame(self, sample: dict, channel: str, allow_missing: bool = False) -> dict | None:
        if channel in sample["data"]:
            return self._nusc.get("sample_data", sample["data"][channel])
        if allow_missing:
            return None
        scene = self.scene_of(sample["token"])
        raise InputError(f"{self.root}: {scene}: sample {sample['token']} has no {channel} key frame")

    def _view(self, scene: str, record: dict, allow_missing: bool) -> CameraView | None:
        path = self.root / record["filename"]
        if not path.is_file():
            if allow_missing:
                return None
            raise InputError(f"{path}: no such image; {scene} lists it for {record['channel']}")
        return CameraView(
            camera=record["channel"],
            t_ns=record["timestamp"] * 1000,
            image=_read_image(path, record),
            model=self._camera_model(scene, record),
            base_from_cam=self._base_from_sensor(scene, record),
            global_from_base=self._global_from_base(scene, record),
        )

    def _camera_model(self, scene: str, record: dict) -> CameraModel:
        token = record["calibrated_sensor_token"]
        intrinsics = np.array(self._nusc.get("calibrated_sensor", token)["camera_intrinsic"], dtype=np.float64)
        width, height = record["width"], record["height"]
        usable = intrinsics.shape == (3, 3) and np.isfinite(intrinsics).all() and intrinsics.diagonal()[:2].min() > 0
        if not usable or min(width, height) <= 0:
            raise InputError(
                f"{self.root}: {scene}: {record['channel']} has no usable camera model: image {width}x{height}, "
                f"calibrated_sensor {token}"
            )
        return CameraModel(width=width, height=height, intrinsics=intrinsics)

    def _base_from_sensor(self, scene: str, record: dict) -> np.ndarray:
        return self._transform(scene, "calibrated_sensor", record["calibrated_sensor_token"])

    def _global_from_base(self, scene: str, record: dict) -> np.ndarray:
        return self._transform(scene, "ego_pose", record["ego_pose_token"])

    def _transform(self, scene: str, table: str, token: str) -> np.ndarray:
        try:
            record = self._nusc.get(table, token)
            return geometry.transform(record["translation"], record["rotation"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"{self.root}: {scene}: {table} {token}: {tables.describe(error)}") from None


def _read_image(path: Path, record: dict) -> RawImage:
    encoding = _ENCODINGS.get(path.suffix.lower())
    if encoding is None:
        raise InputError(f"{path}: unknown image type; known: {', '.join(_ENCODINGS)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the image: {error.strerror}") from None
    return RawImage(encoding=encoding, data=data, width=record["width"], height=record["height"])
