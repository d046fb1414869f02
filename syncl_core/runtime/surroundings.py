"""What a tracker's memory silently relies on: that the vehicle goes on as it moved and the cameras stay what they were.

Both are compared with the last sets. A localisation that corrects itself makes the vehicle jump; somebody who changes
a camera's focal length makes all that was remembered of its images wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from syncl_core import geometry, images
from syncl_core.config import ImageConfig
from syncl_core.types import FrameSet


class TimedPose(NamedTuple):
    t_ns: int
    global_from_base: np.ndarray  # [4, 4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Of the sets processed so far in a session."""

    poses: tuple[TimedPose, ...] = ()  # of the last two, without those before a jump
    intrinsics: Mapping[str, np.ndarray] = field(default_factory=dict)  # [3, 3] network pixels, latest of every camera

    def after(self, frame_set: FrameSet, intrinsics: Mapping[str, np.ndarray], jumped: bool) -> "Surroundings":
        """With one more set."""
        pose = TimedPose(frame_set.t_ns, frame_set.global_from_base)
        earlier = () if jumped else self.poses[-1:]
        return Surroundings(poses=(*earlier, pose), intrinsics={**self.intrinsics, **intrinsics})

    def calibration_change(self, intrinsics: Mapping[str, np.ndarray], limit_px: float) -> str:
        """Which camera's intrinsics changed by more than the limit (0 = none is too much); "" = none."""
        for camera in intrinsics.keys() & self.intrinsics.keys() if limit_px else ():
            change_px = float(np.abs(intrinsics[camera] - self.intrinsics[camera]).max())
            if change_px > limit_px:
                return (
                    f"{camera}: intrinsics changed by {change_px:.1f} network pixels, "
                    f"rig.max_calibration_change is {limit_px:g}"
                )
        return ""

    def ego_jump(self, frame_set: FrameSet, limit_m: float) -> str:
        """By how much the vehicle is farther than the limit (0 = none is too far) from where its motion led; "" = no.

        It takes two earlier sets to know a motion.
        """
        if not limit_m or len(self.poses) < 2 or frame_set.t_ns <= self.poses[-1].t_ns:
            return ""
        distance_m = jump_m(*self.poses, TimedPose(frame_set.t_ns, frame_set.global_from_base))
        if distance_m <= limit_m:
            return ""
        return (
            f"the vehicle is {distance_m:.1f} m from where its motion led at {frame_set.t_ns} ns, "
            f"sync.max_ego_jump is {limit_m:g}"
        )


def network_intrinsics(frame_set: FrameSet, config: ImageConfig) -> dict[str, np.ndarray]:
    """Intrinsics [3, 3] of the network's images of every camera in the set."""
    models = {view.camera: view.model for view in frame_set.views if view is not None}
    return {
        camera: images.scale_and_crop_intrinsics(model.intrinsics, model.width, model.height, config)
        for camera, model in models.items()
    }


def jump_m(earlier: TimedPose, last: TimedPose, now: TimedPose) -> float:
    """Metres from where the vehicle is now to where the motion between the two earlier poses would have brought it.

    The motion goes on in the vehicle's own frame, so that a curve stays a curve. Times must increase.
    """
    ratio = (now.t_ns - last.t_ns) / (last.t_ns - earlier.t_ns)
    steps = max(1, round(ratio))
    moved = geometry.inverse(earlier.global_from_base) @ last.global_from_base
    step = geometry.interpolate_transform(np.eye(4), moved, ratio / steps)
    expected = last.global_from_base @ np.linalg.matrix_power(step, steps)
    return float(np.linalg.norm(now.global_from_base[:3, 3] - expected[:3, 3]))
