"""The values that flow through the system. Everything is frozen: a step builds new values, it never edits old ones.

Two worlds meet in `frames.make_frame`:

- host values (numpy, float64), here: RawImage, CameraView, FrameSet, ObjectSet. Sources, bags, ROS and pictures speak
  these; what needs nothing else starts without torch, which takes seconds to import.
- device values (torch, leading batch axis B), in `tensors`: Frame, TrackState, Tracks. Only the network speaks these.

Frames of reference, used in every `dst_from_src` name:
    cam     camera optical frame (x right, y down, z forward)
    base    the vehicle (x forward, y left, z up); nuScenes calls it ego, ROS base_link
    model   the frame the network was trained in; nuScenes LIDAR_TOP (x right, y forward, z up)
    global  the fixed frame; nuScenes global, ROS odom

Shape letters, everywhere: B batch, N cameras, K track slots, Q object queries, D channels, H history, F future steps,
M objects.
Units: metres, seconds, radians; time stamps are int64 nanoseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """An image off the wire: compressed ("jpeg", "png") or raw ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")."""

    encoding: str
    data: bytes | memoryview | np.ndarray
    width: int = 0  # pixels; 0 = known only after decoding
    height: int = 0  # pixels; 0 = known only after decoding
    step: int = 0  # bytes per row of a raw image, padding included; 0 = no padding
    decode: Callable[[], np.ndarray] | None = None  # RGB pixels [H, W, 3] of any other encoding; raises InputError


LENS_COEFFICIENTS = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}
"""Distortion models, by their names in ROS, and how many coefficients they have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """How the image of a real lens differs from a pinhole's: where a ray meets the image as it was taken."""

    model: str  # one of LENS_COEFFICIENTS
    intrinsics: np.ndarray  # [3, 3] pixels of the image as taken
    coefficients: np.ndarray  # as in OpenCV: k1 k2 p1 p2 k3; k1 k2 p1 p2 k3 k4 k5 k6; k1 k2 k3 k4


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraModel:
    """A pinhole camera, for images of the stated size. With a lens, the images must first be rectified to it."""

    width: int
    height: int
    intrinsics: np.ndarray  # [3, 3] pixels, without distortion
    lens: Lens | None = None  # None = the images are those of a pinhole


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraView:
    """One camera's share of a FrameSet: an image and where it was taken from, at its own time stamp."""

    camera: str
    t_ns: int
    image: RawImage
    model: CameraModel
    base_from_cam: np.ndarray  # [4, 4] extrinsic calibration
    global_from_base: np.ndarray  # [4, 4] vehicle pose at t_ns: cameras fire up to 50 ms apart and the car moves
    frame_id: str = ""  # of the camera among the vehicle's frames, where they have names


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSet:
    """What the cameras saw around one reference time: the only input of a TrackerSession."""

    t_ns: int
    global_from_base: np.ndarray  # [4, 4] vehicle pose at t_ns
    base_from_model: np.ndarray  # [4, 4]
    views: tuple[CameraView | None, ...]  # one per camera of the rig, in its order; None = missing (degraded set)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSet:
    """3D boxes of one moment, in the fixed frame: tracks, detections or ground truth."""

    t_ns: int
    ids: tuple[str, ...]  # M: "<session>-<n>" for tracks, the instance token for ground truth
    labels: tuple[str, ...]  # M class names
    scores: np.ndarray  # [M] in [0, 1]; 1 for ground truth
    centers: np.ndarray  # [M, 3] geometric centre, global
    sizes: np.ndarray  # [M, 3] length (x), width (y), height (z)
    rotations: np.ndarray  # [M, 4] unit quaternion (w, x, y, z), global_from_box
    velocities: np.ndarray  # [M, 2] global x and y; NaN = unknown
    num_points: np.ndarray | None = None  # [M] lidar + radar points inside, ground truth only
    states: tuple[str, ...] = ()  # M: "confirmed" (of a processed set) or "coasting" (predicted); () = not known

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, keep: np.ndarray) -> "ObjectSet":
        """The objects where `keep` [M] is True, in their order."""
        rows = np.flatnonzero(keep)
        arrays = ("scores", "centers", "sizes", "rotations", "velocities", "num_points")
        chosen = {name: value[rows] for name in arrays if (value := getattr(self, name)) is not None}
        ids, labels = (tuple(values[i] for i in rows) for values in (self.ids, self.labels))
        states = tuple(self.states[i] for i in rows) if self.states else ()
        return replace(self, ids=ids, labels=labels, states=states, **chosen)

    def moved(self, t_ns: int) -> "ObjectSet":
        """The objects at `t_ns`, earlier or later, straight on with their velocities; an unknown one counts as zero."""
        centers = self.centers.copy()
        centers[:, :2] += np.nan_to_num(self.velocities) * (t_ns - self.t_ns) * 1e-9
        return replace(self, t_ns=t_ns, centers=centers)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a TrackerSession says about one processed set, beside its objects."""

    objects: ObjectSet
    session: str  # 8 hex digits; changes at every reset, so identities never repeat
    cameras_used: tuple[str, ...]
    reset_reason: str = ""  # "" = memory was kept
    seconds: dict[str, float] = field(default_factory=dict)  # wall time per stage
    rejected: dict[str, str] = field(default_factory=dict)  # cameras that were masked for an unusable image -> why
