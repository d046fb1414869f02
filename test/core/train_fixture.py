"""A toy data set for training tests: three cameras that see noise, objects that move, one born late, one leaving."""

import dataclasses

import numpy as np

from syncl_core import geometry
from syncl_core.config import ImageConfig, ModelConfig, RigConfig, SyncConfig, SynclConfig, TrackConfig
from syncl_core.strategy_config import StrategyConfig
from syncl_core.train_config import TrainConfig
from syncl_core.types import CameraModel, CameraView, FrameSet, ObjectSet, RawImage

CAMERAS = ("CAM_A", "CAM_B", "CAM_C")
WIDTH, HEIGHT = 64, 40
STEP_NS = 500_000_000
# name: (class, centre in global x, y, z at time 0; velocity; first and last key frame; lidar points)
OBJECTS = {
    "car": ("car", (12.0, 4.0, 0.8), (3.0, 0.5), (0, 99), 9),
    "walker": ("pedestrian", (6.0, -8.0, 0.9), (0.0, 1.4), (0, 99), 3),
    "leaves": ("truck", (-14.0, 6.0, 1.6), (-4.0, 0.0), (0, 1), 20),
    "late": ("bus", (20.0, -12.0, 1.5), (-2.0, 2.0), (1, 99), 8),
    "hidden": ("car", (9.0, 9.0, 0.8), (0.0, 0.0), (0, 99), 0),
    "far": ("car", (200.0, 0.0, 0.8), (0.0, 0.0), (0, 99), 4),
}
SIZES = {"car": (4.5, 1.9, 1.6), "pedestrian": (0.7, 0.6, 1.8), "truck": (8.0, 2.5, 3.0), "bus": (11.0, 2.9, 3.4)}


@dataclasses.dataclass(frozen=True)
class ToySource:
    """A ClipSource whose scenes differ in their images and in where the vehicle starts."""

    scenes: tuple[str, ...] = ("toy-0", "toy-1")
    key_frames: int = 4
    empty: tuple[tuple[str, int], ...] = ()  # (scene, key frame) without any ground truth

    @property
    def scene_names(self) -> tuple[str, ...]:
        return self.scenes

    def num_key_frames(self, scene: str) -> int:
        return self.key_frames

    def frame_set(self, scene: str, index: int) -> FrameSet:
        t_ns = (1 + index) * STEP_NS
        return FrameSet(
            t_ns=t_ns,
            global_from_base=ego_pose(scene, t_ns),
            base_from_model=base_from_model(),
            views=tuple(self._view(scene, index, i) for i in range(len(CAMERAS))),
        )

    def ground_truth(self, scene: str, index: int) -> ObjectSet:
        present = [] if (scene, index) in self.empty else [n for n, o in OBJECTS.items() if o[3][0] <= index <= o[3][1]]
        seconds = index * STEP_NS * 1e-9
        centers = [np.add(OBJECTS[n][1], (*np.multiply(OBJECTS[n][2], seconds), 0.0)) for n in present]
        velocities = np.array([OBJECTS[n][2] for n in present], dtype=np.float64).reshape(-1, 2)
        return ObjectSet(
            t_ns=(1 + index) * STEP_NS,
            ids=tuple(present),
            labels=tuple(OBJECTS[n][0] for n in present),
            scores=np.ones(len(present)),
            centers=np.array(centers).reshape(-1, 3) + start(scene),
            sizes=np.array([SIZES[OBJECTS[n][0]] for n in present], dtype=np.float64).reshape(-1, 3),
            rotations=geometry.quaternion_from_yaw(np.arctan2(velocities[:, 1], velocities[:, 0])),
            velocities=velocities,
            num_points=np.array([OBJECTS[n][4] for n in present], dtype=np.int64),
        )

    def _view(self, scene: str, index: int, camera: int) -> CameraView:
        seed = [self.scenes.index(scene), index, camera]
        coarse = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        t_ns = (1 + index) * STEP_NS - 10_000_000 * camera
        return CameraView(
            camera=CAMERAS[camera],
            t_ns=t_ns,
            image=RawImage(encoding="rgb8", data=coarse.repeat(8, 0).repeat(8, 1), width=WIDTH, height=HEIGHT),
            model=CameraModel(width=WIDTH, height=HEIGHT, intrinsics=np.array([[40.0, 0, 32], [0, 40, 20], [0, 0, 1]])),
            base_from_cam=base_from_cam(camera),
            global_from_base=ego_pose(scene, t_ns),
        )


def start(scene: str) -> np.ndarray:
    return np.array([700.0 + 10 * len(scene), 1500.0, 0.0])


def ego_pose(scene: str, t_ns: int) -> np.ndarray:
    """The vehicle drives and turns."""
    seconds = t_ns * 1e-9 - 0.5
    rotation = geometry.quaternion_from_yaw(np.array(0.3 + 0.2 * seconds))
    return geometry.transform(start(scene) + [2.0 * seconds, 0.3 * seconds, 0.0], rotation)


def base_from_model() -> np.ndarray:
    return geometry.transform([0.9, 0.0, 1.8], geometry.quaternion_from_yaw(np.array(-np.pi / 2)))


def base_from_cam(camera: int) -> np.ndarray:
    upright = np.eye(4)
    upright[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # camera axes (right, down, forward) in (forward, left, up)
    return geometry.transform([1.0, 0.0, 1.5], geometry.quaternion_from_yaw(np.array(2.1 * camera))) @ upright


def toy_config(syncl: bool = True, **train) -> SynclConfig:
    """A tracker that learns quickly; nothing is augmented and nothing is random unless `train` says so."""
    settled = dict(
        **dict(clip_length=3, iterations=4, learning_rate=1e-3, backbone_lr_factor=1.0, warmup_iterations=0),
        **dict(resize=(1.0, 1.0), grid_mask=0.0, workers=0, log_every=1, save_every=1000, precision="fp32"),
    )
    return SynclConfig(
        name="toy",
        image=ImageConfig(height=32, width=64),
        rig=RigConfig(cameras=CAMERAS),
        sync=SyncConfig(min_cameras=len(CAMERAS)),
        model=ModelConfig(
            **dict(embed_dim=32, num_queries=16, num_layers=2, num_heads=2, ffn_dim=64, reasoning_layers=1),
            **dict(depth_bins=8, dropout=0.0, future_steps=4),
        ),
        track=TrackConfig(slots=8),
        train=TrainConfig(**(settled | train)),
        syncl=StrategyConfig(enabled=syncl),
    )
