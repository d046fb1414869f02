"""The synthetic world as a data set that is drawn while it is read: no file, no end."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from syncl_core import geometry
from syncl_core.classes import CAMERAS
from syncl_core.errors import InputError
from syncl_core.types import CameraView, FrameSet, ObjectSet, RawImage
from syncl_core.world import generate, photo, rig, sense, splits, tables
from syncl_core.world.scene import Assembly, Scene, assemble, city_from_base, place
from syncl_core.world.truth import Truth, truth_of

KEY_FRAMES = 40  # of a whole scene, two a second
_TRAIN_SCENES = 10_000  # if nobody says how many
_KEY_FRAME_US = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A scene made ready for pictures."""

    scene: Scene
    assembly: Assembly
    truth: Truth
    start_us: int
    objects: dict[int, ObjectSet] = field(default_factory=dict)  # ground truth asked for before: rays are dear


class WorldSource:
    """Key frames (2 Hz) of a split, with ground truth: a `ClipSource`. Survives pickling; the scenes kept do not.

    Images are raw pixels, `image_width` wide. `image_height` > 0 keeps that many bottom rows and draws nothing else;
    the camera models are those of the cropped images, so whoever scales and crops finds nothing left to do.

    num_key_frames: of each scene, from its start. num_scenes: so many of the split, from number `first_scene` on.
    kept_scenes: scenes held in memory. device: where images are drawn; they arrive on the host. Raises InputError
    naming the argument.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        cameras: Sequence[str] = CAMERAS,
        image_width: int = 800,
        image_height: int = 0,
        num_key_frames: int = KEY_FRAMES,
        num_scenes: int | None = None,
        first_scene: int = 0,
        kept_scenes: int = 16,
        device: torch.device | str = "cpu",
    ):
        self.split, self.cameras = split, tuple(cameras)
        self.image_width, self.image_height, self.device = image_width, image_height, device
        self._key_frames, self._kept_scenes = num_key_frames, kept_scenes
        self._first_scene = first_scene
        self._num_scenes = _TRAIN_SCENES if num_scenes is None and split == "train" else num_scenes
        self._stages: OrderedDict[str, _Stage] = OrderedDict()
        self._check()

    def _check(self) -> None:
        splits.check(self.split, self._num_scenes, self._first_scene)
        unknown = [camera for camera in self.cameras if camera not in CAMERAS]
        if unknown or not self.cameras:
            raise InputError(f"world: cameras: unknown {unknown}; choose from {', '.join(CAMERAS)}")
        if self.image_width < 16:
            raise InputError(f"world: image_width must be at least 16 pixels, got {self.image_width}")
        rows = rig.camera_model(CAMERAS[0], self.image_width).height
        if not 0 <= self.image_height <= rows:
            raise InputError(
                f"world: image_height must lie between 0 (all rows) and {rows}, the rows of images "
                f"{self.image_width} pixels wide, got {self.image_height}"
            )
        if not 1 <= self._key_frames <= KEY_FRAMES:
            raise InputError(f"world: num_key_frames must lie between 1 and {KEY_FRAMES}, got {self._key_frames}")
        if self._kept_scenes < 1:
            raise InputError(f"world: kept_scenes must be at least 1, got {self._kept_scenes}")

    def __getstate__(self) -> dict:
        made = ("_stages", "scene_names")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _stages=OrderedDict())

    @cached_property
    def scene_names(self) -> tuple[str, ...]:
        return splits.scene_names(self.split, self._num_scenes, self._first_scene)

    @property
    def scenes_together(self) -> int:
        """Clips of so many scenes should come close together: making a scene ready costs time."""
        return self._kept_scenes

    @property
    def image_source(self) -> str:
        """Differs where the same key frames have other images: see `ClipSource`."""
        return f"drawn {self.image_width} x {self.image_height}"

    def num_key_frames(self, scene: str) -> int:
        splits.seed_of(scene)
        return self._key_frames

    def frame_set(self, scene: str, index: int) -> FrameSet:
        """Images of the rig's cameras around key frame `index`, each at its own time and from its own pose."""
        return self.frame_sets(scene, (index,))[0]

    def frame_sets(self, scene: str, indices: Sequence[int]) -> list[FrameSet]:
        """Several key frames of a scene, drawn together; the same values as one by one."""
        stage = self._stage(scene)
        key_us = np.array([self._key_us(scene, index) for index in indices])
        leads = np.array([tables.lead_us(camera) for camera in self.cameras])
        camera_us = (key_us[:, None] - leads).ravel()
        pictures = photo.take(
            stage.scene, stage.assembly, camera_us, self.image_width, self.image_height, self.cameras, self.device
        )
        pixels = pictures.cpu().numpy().reshape(len(key_us), len(self.cameras), *pictures.shape[1:])
        return [self._frame_set(stage, int(us), images) for us, images in zip(key_us, pixels, strict=True)]

    def unseen_frame_set(self, scene: str, index: int) -> FrameSet:
        """`frame_set` for whoever does not look at its images: they are black, and nothing is drawn."""
        model = rig.camera_model(self.cameras[0], self.image_width, self.image_height)
        black = np.zeros((len(self.cameras), model.height, model.width, 3), dtype=np.uint8)
        return self._frame_set(self._stage(scene), self._key_us(scene, index), black)

    def ground_truth(self, scene: str, index: int) -> ObjectSet:
        """The actors within ANNOTATION_RANGE of the ego; `num_points` is 0 for those that nothing hits."""
        stage = self._stage(scene)
        if index in stage.objects:
            return stage.objects[index]
        t = np.array([self._key_us(scene, index) / 1e6])
        city_from_lidar = city_from_base(stage.scene, t)[0] @ rig.base_from_lidar()
        points = sense.lidar_points(place(stage.assembly, t), city_from_lidar, len(stage.scene.actors))
        kept = np.flatnonzero(stage.truth.annotated[index])
        objects = replace(self.future_objects(scene, index), num_points=points[kept].astype(np.int64))
        return stage.objects.setdefault(index, objects)

    def future_objects(self, scene: str, index: int) -> ObjectSet:
        """`ground_truth` without `num_points`, for which no ray is cast."""
        stage = self._stage(scene)
        key_us = self._key_us(scene, index)
        actors, kept = stage.scene.actors, np.flatnonzero(stage.truth.annotated[index])
        global_from_box = stage.truth.global_from_box[index, kept]
        return ObjectSet(
            t_ns=(stage.start_us + key_us) * 1000,
            ids=tuple(tables.instance_token(stage.scene, actors[i]) for i in kept),
            labels=tuple(actors[i].category.split(".")[1] for i in kept),
            scores=np.ones(len(kept)),
            centers=global_from_box[:, :3, 3],
            sizes=np.array([actors[i].size for i in kept], dtype=np.float64).reshape(-1, 3),
            rotations=geometry.quaternion_from_matrix(global_from_box[:, :3, :3]),
            velocities=stage.truth.velocities[index, kept],
        )

    def _frame_set(self, stage: _Stage, key_us: int, images: np.ndarray) -> FrameSet:
        leads = [tables.lead_us(camera) for camera in self.cameras]
        t_us = np.array([key_us - lead for lead in (*leads, 0)])
        poses = stage.scene.global_from_city @ city_from_base(stage.scene, t_us / 1e6)
        views = []
        for camera, us, image, pose in zip(self.cameras, t_us, images, poses, strict=False):
            model = rig.camera_model(camera, self.image_width, self.image_height)
            views.append(
                CameraView(
                    camera=camera,
                    t_ns=(stage.start_us + int(us)) * 1000,
                    image=RawImage(encoding="rgb8", data=image.tobytes(), width=model.width, height=model.height),
                    model=model,
                    base_from_cam=rig.base_from_cam(camera),
                    global_from_base=pose,
                )
            )
        return FrameSet(
            t_ns=(stage.start_us + key_us) * 1000,
            global_from_base=poses[-1],
            base_from_model=rig.base_from_lidar(),
            views=tuple(views),
        )

    def _key_us(self, scene: str, index: int) -> int:
        if not 0 <= index < self._key_frames:
            raise InputError(f"world: {scene}: no key frame {index}; there are {self._key_frames}, counted from 0")
        return index * _KEY_FRAME_US

    def _stage(self, name: str) -> _Stage:
        """The scene made ready, from memory if it was used lately."""
        if name in self._stages:
            self._stages.move_to_end(name)
            return self._stages[name]
        seed = splits.seed_of(name)
        scene = generate.make_scene(seed)
        self._stages[name] = _Stage(
            scene=scene,
            assembly=assemble(scene),
            truth=truth_of(scene, self._key_frames),
            start_us=tables.start_us(seed),
        )
        if len(self._stages) > self._kept_scenes:
            self._stages.popitem(last=False)
        return self._stages[name]
