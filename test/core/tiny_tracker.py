"""The smallest tracker that has every part, and frames for it; shared by the model and tracking tests."""

import dataclasses
import math

import torch

from syncl_core.config import ImageConfig, ModelConfig, RigConfig, SyncConfig, SynclConfig, TrackConfig
from syncl_core.tensors import Frame
from syncl_core.tracking.base import Tracker
from syncl_core.tracking.build import build_tracker

CAMERAS = ("CAM_A", "CAM_B", "CAM_C")


def tiny_config(**track) -> SynclConfig:
    return SynclConfig(
        name="tiny",
        image=ImageConfig(height=32, width=64),
        rig=RigConfig(cameras=CAMERAS),
        sync=SyncConfig(min_cameras=len(CAMERAS)),
        model=ModelConfig(
            embed_dim=16,
            num_queries=12,
            num_layers=2,
            num_heads=2,
            ffn_dim=24,
            reasoning_layers=2,
            depth_bins=5,
            future_steps=8,
            class_prior=0.15,
        ),
        track=TrackConfig(**{"slots": 8, **track}),
    )


def tiny_tracker(seed: int = 0, born: float = 0.2, **track) -> Tracker:
    """Random weights with which about the fraction `born` of the object queries passes the birth threshold."""
    tracker = shake(build_tracker(tiny_config(**track)), seed)
    with torch.no_grad():
        logits = tracker.observe(tracker.init_state(), make_frame(0)).refined.logits
        best = logits[0, : tracker.config.model.num_queries]
        shift = best.amax(dim=1).quantile(1 - born) - math.log(0.4 / 0.6)
        tracker.STReasoner.track_cls[-1].bias -= shift
    return tracker


@torch.no_grad()
def shake(tracker: Tracker, seed: int) -> Tracker:
    """Make every parameter count: untrained norms and biases are ones and zeros, and untrained queries all agree."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in tracker.named_parameters():
        noise = torch.rand(value.shape, generator=generator) * 2 - 1
        if name == "query_feat_embedding.weight":
            value.copy_(noise)
        elif name.endswith("track_cls.6.weight"):
            value.copy_(noise * 4)
        elif value.ndim == 1:
            value.add_(noise * 0.2)
    for name, value in tracker.named_buffers():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return tracker


def pose(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> torch.Tensor:
    """global_from_model [4, 4], far from the global origin as in nuScenes."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 0] = matrix[1, 1] = math.cos(yaw)
    matrix[1, 0] = math.sin(yaw)
    matrix[0, 1] = -math.sin(yaw)
    matrix[:3, 3] = torch.tensor([1000.0 + x, 600.0 + y, 1.8], dtype=torch.float64)
    return matrix


def rig() -> torch.Tensor:
    """image_from_model [N, 4, 4]: cameras that look along x, y and -x of the model frame."""
    intrinsics = torch.eye(4, dtype=torch.float64)
    intrinsics[0, 0] = intrinsics[1, 1] = 50.0
    intrinsics[0, 2], intrinsics[1, 2] = 32.0, 16.0
    cam_from_ahead = torch.tensor([[0.0, -1, 0, 0.1], [0, 0, -1, -0.3], [1, 0, 0, -0.2], [0, 0, 0, 1]]).double()
    matrices = []
    for yaw in (0.0, math.pi / 2, math.pi):
        turned = pose(yaw=-yaw)
        turned[:3, 3] = 0
        matrices.append(intrinsics @ cam_from_ahead @ turned)
    return torch.stack(matrices)


def make_frame(seed: int, t_ns: int = 0, global_from_model: torch.Tensor | None = None) -> Frame:
    """A frame of one scene with smooth random images."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(len(CAMERAS), 3, 4, 8, generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, size=(32, 64), mode="bilinear")
    return Frame(
        images=images.to(torch.uint8)[None],
        image_from_model=rig()[None],
        camera_valid=torch.ones(1, len(CAMERAS), dtype=torch.bool),
        global_from_model=(pose() if global_from_model is None else global_from_model)[None],
        t_ns=torch.tensor([t_ns]),
    )


def drive(count: int, start: int = 0, period_ns: int = 500_000_000) -> list[Frame]:
    """Frames of a car that moves and turns."""
    steps = range(start, start + count)
    return [make_frame(1000 + i, i * period_ns, pose(2.0 * i, 0.5 * i, 0.15 * i)) for i in steps]


def uneven(frames: list[Frame]) -> list[Frame]:
    """The same frames 0.4 to 0.6 s apart, as real key frames are."""
    for i, frame in enumerate(frames):
        frame.t_ns.add_((i * 7919 % 5 - 2) * 50_000_000)
    return frames


def scene(frame: Frame, row: int = 0) -> tuple:
    """One scene of a frame, as the slow trackers want it."""
    return (
        *(frame.images[row], frame.image_from_model[row], frame.camera_valid[row]),
        *(frame.global_from_model[row], int(frame.t_ns[row])),
    )


def stack(frames: list[Frame]) -> Frame:
    """Frames of several scenes as one batch."""
    return Frame(**{f.name: torch.cat([getattr(x, f.name) for x in frames]) for f in dataclasses.fields(Frame)})
